"""docs/porting.md, made from the table of layouts: `python -m parity.ports.layouts > docs/porting.md`."""

from collections.abc import Iterator, Mapping

import numpy as np

from parity.ports.layouts import EQUATIONS, KINDS, LAYOUTS, Array, Layout, called, pack
from rnn_scratch.cells import Cell, GRUCell, LSTMCell


def page() -> str:
    """docs/porting.md."""
    return "\n".join([*introduction(), *(line for layout in LAYOUTS.values() for line in chapter(layout))])


def introduction() -> Iterator[str]:
    yield "# Weights in every layout\n"
    yield "Made from the table in `parity/ports/layouts.py`: `python -m parity.ports.layouts > docs/porting.md`."
    yield "`parity port` writes these, and checks what it wrote before it says so:\n"
    yield "```sh\nparity port model.keras --to npz --layout torch\n```\n"
    yield "The equations, in Keras's letters (u units, d features; products of arrays of one shape are elementwise):\n"
    yield from (f"- {kind}: `{equation}`" for kind, equation in EQUATIONS.items())
    yield "\n| layout | library | Wx | Wh | bias | LSTM's gates | GRU's gates | x: first axis |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for layout in LAYOUTS.values():
        gates = [" ".join(called(layout, kind)) or "none" for kind in ("lstm", "gru")]
        arrays = [f"`{name}` {shape}" for name, shape in shapes(layout).items()]
        yield f"| {layout.name} | {layout.library} | {' | '.join([*arrays, *gates])} | {layout.first} |"
    yield "\n`g` is the number of gates: 1, 4 of LSTM, 3 of GRU.\n"


def shapes(layout: Layout) -> dict[str, str]:
    Wx, Wh, biases = layout.names
    rows = "u" if "{gate}" in Wx else "g u"
    axis = "1, " if layout.axis else ""
    bias = f"({axis}2 g u)" if layout.joined else "(g u,)" if layout.biases else f"({rows},)"
    own = " or (2, g u)" if layout.biases is None and "{gate}" not in Wx else ""
    kernels = (f"(d, {rows})", f"(u, {rows})") if layout.columns else (f"({axis}{rows}, d)", f"({axis}{rows}, u)")
    return {Wx: kernels[0], Wh: kernels[1], "`, `".join(biases): bias + own}


def example_cell(kind: str) -> Cell:
    """2 units, 1 feature, and numbers that say where they stand: gate, unit, column."""
    cell: type[Cell] = {"lstm": LSTMCell, "gru": GRUCell}[kind]
    rows = [10 * (gate + 1) + unit + 1 for gate in range(len(cell.gates)) for unit in range(2)]
    Wx = np.array([[row] for row in rows], float)
    Wh = np.array([[row + 0.1, row + 0.2] for row in rows])
    b = -np.array(rows, float)
    return cell(Wx, Wh, np.stack([b, b / 10]) if kind == "gru" else b)


def chapter(layout: Layout) -> Iterator[str]:
    yield f"## {layout.name}: {layout.library}\n"
    yield f"{layout.rule}\n"
    for kind in ("lstm", "gru"):
        if kind not in layout.gates:
            continue
        cell = example_cell(kind)
        keras = pack(cell, LAYOUTS["keras"])
        yield f"{kind}, 2 units, 1 feature. From Keras (gates {' '.join(KINDS[kind])}; 11 is the first gate's unit 1,"
        yield "21 the second gate's; .1 and .2 say from which unit):\n"
        yield f"```\n{written(keras)}\n```\n"
        if layout.name != "keras":
            yield f"to {layout.name} (gates {' '.join(called(layout, kind))}):\n"
            yield f"```\n{written(pack(cell, layout))}\n```\n"


def written(arrays: Mapping[str, Array]) -> str:
    lines = []
    for name, array in arrays.items():
        text = np.array2string(array, formatter={"float_kind": lambda value: f"{value:g}"}, max_line_width=100)
        lines.append(f"{name} {array.shape}\n{text}".replace("-0 ", "0 "))
    return "\n".join(lines)
