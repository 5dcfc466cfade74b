"""docs/porting.md, made from the table of layouts: `python -m parity.ports.layouts > docs/porting.md`."""

from collections.abc import Iterator, Mapping

import numpy as np

from parity.kinds.cells import ELSEWHERE
from parity.ports.layouts import KINDS, LAYOUTS, Layout, called, pack
from rnn_scratch.base import Array
from rnn_scratch.cells import CELLS, Cell

_GATED = ("lstm", "gru")
"""Of whose gates the order is shown."""


def page() -> str:
    lines = list(_introduction())
    for layout in LAYOUTS.values():
        lines += _chapter(layout)
    return "\n".join(lines)


def _introduction() -> Iterator[str]:
    yield "# Weights in every layout\n"
    yield "Made from the table in `parity/ports/layouts.py`: `python -m parity.ports.layouts > docs/porting.md`."
    yield "`parity port` writes these, and checks what it wrote before it says so:\n"
    yield "```sh\nparity port model.keras --to npz --layout torch\n```\n"
    yield "The equations, in Keras's letters (u units, d features; products of arrays of one shape are elementwise):\n"
    yield from (f"- {kind}: `{names.equation}`" for kind, names in ELSEWHERE.items())
    yield "\n| layout | library | Wx | Wh | bias | LSTM's gates | GRU's gates | x: first axis |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for layout in LAYOUTS.values():
        gates = [" ".join(called(layout, kind)) or "none" for kind in _GATED]
        arrays = [f"`{name}` {shape}" for name, shape in _shapes(layout).items()]
        yield f"| {layout.name} | {layout.library} | {' | '.join([*arrays, *gates])} | {layout.first} |"
    yield "\n`g` is the number of gates: 1, 4 of LSTM, 3 of GRU.\n"


def _shapes(layout: Layout) -> dict[str, str]:
    """Of the kernels and the biases, by the layout's names, in letters."""
    Wx, Wh, biases = layout.names
    rows = "u" if layout.by_gate else "g u"
    axis = "1, " if layout.axis else ""
    found = {"`, `".join(biases): _bias_shape(layout, rows, axis)}
    if layout.columns:
        return {Wx: f"(d, {rows})", Wh: f"(u, {rows})", **found}
    return {Wx: f"({axis}{rows}, d)", Wh: f"({axis}{rows}, u)", **found}


def _bias_shape(layout: Layout, rows: str, axis: str) -> str:
    if layout.joined:
        return f"({axis}2 g u)"
    if layout.biases:
        return "(g u,)"
    return f"({rows},)" if layout.by_gate else f"({rows},) or (2, g u)"


def _chapter(layout: Layout) -> Iterator[str]:
    yield f"## {layout.name}: {layout.library}\n"
    yield f"{layout.rule}\n"
    for kind in _GATED:
        if kind in layout.gates:
            yield from _example(layout, kind)


def _example(layout: Layout, kind: str) -> Iterator[str]:
    cell = _example_cell(kind)
    yield f"{kind}, 2 units, 1 feature. From Keras (gates {' '.join(KINDS[kind])}; 11 is the first gate's unit 1,"
    yield "21 the second gate's; .1 and .2 say from which unit):\n"
    yield f"```\n{_written(pack(cell, LAYOUTS['keras']))}\n```\n"
    if layout.name != "keras":
        yield f"to {layout.name} (gates {' '.join(called(layout, kind))}):\n"
        yield f"```\n{_written(pack(cell, layout))}\n```\n"


def _example_cell(kind: str) -> Cell:
    """2 units, 1 feature, and numbers that say where they stand: gate, unit, column."""
    cell = CELLS[kind]
    rows = [10 * (gate + 1) + unit + 1 for gate in range(len(cell.gates)) for unit in range(2)]
    Wx = np.array([[row] for row in rows], float)
    Wh = np.array([[row + 0.1, row + 0.2] for row in rows])
    b = -np.array(rows, float)
    return cell(Wx, Wh, np.stack([b, b / 10]) if kind == "gru" else b)


def _written(arrays: Mapping[str, Array]) -> str:
    lines = []
    for name, array in arrays.items():
        text = np.array2string(array, formatter={"float_kind": lambda value: f"{value:g}"}, max_line_width=100)
        lines.append(f"{name} {array.shape}\n{text}".replace("-0 ", "0 "))
    return "\n".join(lines)
