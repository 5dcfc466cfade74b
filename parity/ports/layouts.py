"""The layouts in which libraries keep a recurrent layer's weights: one table, and both ways through it for one cell.

A layout says under which names the arrays stand, which way they lie, in which order their gates follow and how many
biases there are. Gates are named by Keras's letters: i f c o of LSTM (others say g for c), z r h of GRU (others say n
for h). `docs/porting.md` is made from this table: `python -m parity.ports.layouts > docs/porting.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.errors import InputError, UnsupportedError
from rnn_scratch.base import Array
from rnn_scratch.cells import CELLS, Cell

Arrays = dict[str, Array]

KINDS = {name: "".join(cell.gates) for name, cell in CELLS.items()}
"""The gates of each kind in Keras's order, which is rnn_scratch's."""


@dataclass(frozen=True)
class Layout:
    """One library's way.

    names: of what stands for Wx, Wh and the biases; with {gate}, an array for each gate. columns: one column a unit and
    gate, as Keras has it, not one row. gates: of each kind that it knows, the order. biases: how many it has; where
    that is not the layer's own number, zeros stand for the others, and they are added up on the way back. joined: they
    stand end to end in one array. axis: each array has a leading axis of directions. reverse: what is added to the
    names of a Bidirectional's second layer; without it, each direction has its own path. first: which axis of x comes
    first. letters: what it calls a gate that is not Keras's letter. rule: all this in words.

    How layers that are not recurrent stand in it, their kinds know: `registry.arrays`.
    """

    name: str
    library: str
    names: tuple[str, str, tuple[str, ...]]
    rule: str
    first: str = "batch"
    columns: bool = False
    gates: Mapping[str, str] = field(default_factory=lambda: dict(KINDS))
    biases: int | None = None
    joined: bool = False
    axis: bool = False
    reverse: str | None = None
    letters: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_gate(self) -> bool:
        """Whether there is an array for each gate."""
        return "{gate}" in self.names[0]


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "notebook",
            "rnn_scratch",
            ("Wx", "Wh", ("b",)),
            "One row a unit and gate, as the equation multiplies: `Wx @ x`. Keras's kernels transposed; gates in "
            "Keras's order; the bias as Keras has it.",
        ),
        Layout(
            "keras",
            "Keras 3",
            ("kernel", "recurrent_kernel", ("bias",)),
            "One column a unit and gate: `x @ kernel`. One bias; of GRU with reset_after two, as the rows of one "
            "array: the input's, then the recurrent one.",
            columns=True,
        ),
        Layout(
            "torch",
            "torch.nn.RNN, LSTM, GRU (batch_first=True)",
            ("weight_ih_l0", "weight_hh_l0", ("bias_ih_l0", "bias_hh_l0")),
            "Both kernels transposed. GRU's gates go r z n: Keras's second block comes first. Two biases, which are "
            "added: Keras's one is bias_ih, and bias_hh holds zeros; of GRU with reset_after they are Keras's two. "
            "With use_bias=False there are none, as of nn.GRU(bias=False). There is no GRU with reset_after=False.",
            first="time (batch with batch_first=True)",
            gates={"simple_rnn": "h", "lstm": "ifco", "gru": "rzh"},
            biases=2,
            reverse="_reverse",
            letters={"c": "g", "h": "n"},
        ),
        Layout(
            "onnx",
            "ONNX RNN, LSTM, GRU",
            ("W", "R", ("B",)),
            "Both kernels transposed, under a leading axis of directions. LSTM's gates go i o f c. B is both biases "
            "end to end: the input's, then the recurrent one, which is zero but for GRU with linear_before_reset=1, "
            "Keras's reset_after.",
            first="time",
            gates={"simple_rnn": "h", "lstm": "iofc", "gru": "zrh"},
            biases=2,
            joined=True,
            axis=True,
        ),
        Layout(
            "tflite",
            "TensorFlow Lite's UNIDIRECTIONAL_SEQUENCE_LSTM and _RNN",
            ("input_to_{gate}_weights", "recurrent_to_{gate}_weights", ("{gate}_bias",)),
            "An array for each gate, one row a unit: Keras's kernels transposed and cut. One bias a gate. It has no "
            "GRU.",
            first="time (batch with time_major=False)",
            gates={"simple_rnn": "h", "lstm": "ifco"},
        ),
    )
}

_GATE_NAMES = {"i": "input", "f": "forget", "c": "cell", "o": "output", "h": "hidden"}
"""What {gate} stands for."""


def layout_named(name: str) -> Layout:
    if name not in LAYOUTS:
        raise InputError(f"layout: expected {', '.join(LAYOUTS)}; received {name!r}")
    return LAYOUTS[name]


def called(layout: Layout, kind: str) -> list[str]:
    """The gates in its order, by its own letters."""
    letters = dict(layout.letters)
    if kind == "lstm":
        letters.pop("h", None)  # of LSTM h is the state, and no gate
    return [letters.get(gate, gate) for gate in layout.gates.get(kind, "")]


def expect_arrays(expected: Mapping[str, Array], arrays: Mapping[str, Array]) -> None:
    """InputError for one that is missing or of another shape."""
    for name, array in expected.items():
        if name not in arrays:
            raise InputError(f"expected an array {name} {array.shape}; there are {', '.join(arrays) or 'none'}")
        if arrays[name].shape != array.shape:
            raise InputError(f"{name}: expected shape {array.shape}; received {arrays[name].shape}")


# --- one cell ---


def pack(cell: Cell, layout: Layout, suffix: str = "") -> Arrays:
    """The cell's arrays as the layout has them: {name: array}. UnsupportedError for a cell that its library has not."""
    places = _order(layout, cell)
    kernels = [_reordered(array, places) for array in (cell.Wx, cell.Wh)]
    biases = [_reordered(b, places) for b in _biases(cell, layout)]
    found = _cut(layout, cell, [*kernels, *biases]) if layout.by_gate else _whole(layout, kernels, biases)
    if layout.axis:
        found = {name: array[None] for name, array in found.items()}
    return {name + suffix: np.ascontiguousarray(array) for name, array in found.items()}


def unpack(arrays: Mapping[str, Array], layout: Layout, like: Cell, suffix: str = "") -> Arrays:
    """The inverse: Wx, Wh and b of a cell like that one, from {name: array}. InputError for a name or shape amiss."""
    expected = pack(like, layout, suffix)
    expect_arrays(expected, arrays)
    found = {name.removesuffix(suffix): arrays[name] for name in expected}
    if layout.axis:
        found = {name: array[0] for name, array in found.items()}
    if layout.by_gate:
        found = _uncut(layout, like, found)
    back = np.argsort(_order(layout, like))
    own = {}
    for letter, name in zip(("Wx", "Wh"), layout.names, strict=False):
        kernel = found[str(name)]
        own[letter] = _reordered(kernel.T if layout.columns else kernel, back)
    if like.use_bias:
        own["b"] = _bias(layout, like, found, back)
    return own


def _order(layout: Layout, cell: Cell) -> list[int]:
    """For each block of the layout its place among the cell's own gates."""
    if cell.name not in layout.gates:
        raise UnsupportedError(f"{cell.name}: {layout.library} has none; {layout.name} knows {', '.join(layout.gates)}")
    if layout.name == "torch" and cell.settings.get("reset_after") is False:
        raise UnsupportedError("gru: torch has no GRU with reset_after=False; port it to onnx, c, npz or safetensors")
    return ["".join(cell.gates).index(gate) for gate in layout.gates[cell.name]]


def _reordered(array: Array, places: Sequence[int] | Array) -> Array:
    """The rows, one block a gate, in that order of blocks."""
    blocks = np.split(array, len(places))
    return np.concatenate([blocks[n] for n in places])


def _biases(cell: Cell, layout: Layout) -> list[Array]:
    """The biases as many as the layout has, in the cell's order of gates."""
    if not cell.use_bias:
        return []
    own = list(np.atleast_2d(cell.b))
    lacking = (layout.biases or len(own)) - len(own)
    return own + [np.zeros_like(own[0])] * lacking  # at the end: the first one is that beside Wx x


def _bias(layout: Layout, like: Cell, found: Mapping[str, Array], back: Array) -> Array:
    """The inverse of `_biases`."""
    kept = [found[name] for name in layout.names[2]]
    if layout.joined:
        kept = np.split(kept[0], 2)
    rows = np.vstack(kept)  # of one bias, of two, or of an array that holds two
    own = [_reordered(row, back) for row in rows]
    if like.b.ndim == 2:
        return np.stack(own)
    added: Array = np.sum(own, axis=0, dtype=like.dtype)
    return added


def _whole(layout: Layout, kernels: Sequence[Array], biases: Sequence[Array]) -> Arrays:
    """All gates in one array."""
    Wx, Wh, names = layout.names
    if layout.columns:
        kernels = [kernel.T for kernel in kernels]
    found = dict(zip((Wx, Wh), kernels, strict=True))
    if not biases:
        return found
    if layout.joined:
        return {**found, names[0]: np.concatenate(biases)}
    if len(biases) > len(names):
        return {**found, names[0]: np.stack(biases)}
    return {**found, **dict(zip(names, biases, strict=True))}


def _cut(layout: Layout, cell: Cell, arrays: Sequence[Array]) -> Arrays:
    """An array for each gate."""
    found: Arrays = {}
    for pattern, array in zip(_patterns(layout, cell), arrays, strict=True):
        names = _gate_names(layout, cell, pattern)
        found.update(zip(names, np.split(array, len(names)), strict=True))
    return found


def _uncut(layout: Layout, cell: Cell, found: Mapping[str, Array]) -> Arrays:
    """The inverse of `_cut`, under the names with {gate}."""
    joined = {}
    for pattern in _patterns(layout, cell):
        joined[pattern] = np.concatenate([found[name] for name in _gate_names(layout, cell, pattern)])
    return joined


def _patterns(layout: Layout, cell: Cell) -> list[str]:
    Wx, Wh, names = layout.names
    return [Wx, Wh, *(names if cell.use_bias else ())]


def _gate_names(layout: Layout, cell: Cell, pattern: str) -> list[str]:
    return [pattern.format(gate=_GATE_NAMES[gate]) for gate in layout.gates[cell.name]]


if __name__ == "__main__":
    from parity.ports.layouts_page import page

    print(page())
