"""The layouts in which libraries keep a recurrent layer's weights: one table, and both ways through it.

A layout says under which names the arrays stand, which way they lie, in which order their gates follow and how many
biases there are. Gates are named by Keras's letters: i f c o of LSTM (others say g for c), z r h of GRU (others say n
for h). `docs/porting.md` is made from this table: `python -m parity.ports.layouts > docs/porting.md`.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import InputError, UnsupportedError
from rnn_scratch import Bidirectional, Dense, Embedding
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Layer, Recurrent

Array = NDArray[Any]
Arrays = dict[str, Array]

KINDS = {"simple_rnn": "h", "lstm": "ifco", "gru": "zrh"}
"""The gates of each kind in Keras's order, which is rnn_scratch's."""


@dataclass(frozen=True)
class Layout:
    """One library's way.

    names: of what stands for Wx, Wh and the biases; with {gate}, an array for each gate. columns: one column a unit and
    gate, as Keras has it, not one row. gates: of each kind that it knows, the order. biases: how many it has; where
    that is not the layer's own number, "fold" of them. reverse: what is added to the names of a Bidirectional's second
    layer; without it, each direction has its own path. axis: whether each array has a leading axis of directions.
    dense, embedding: the names of their arrays. first: which axis of x comes first. rule: in words.
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
    dense: tuple[str, str] = ("W", "b")
    embedding: str = "E"
    letters: Mapping[str, str] = field(default_factory=dict)


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
            dense=("kernel", "bias"),
            embedding="embeddings",
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
            dense=("weight", "bias"),
            embedding="weight",
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

GATE_NAMES = {"i": "input", "f": "forget", "c": "cell", "o": "output", "h": "hidden"}
"""What {gate} stands for."""

EQUATIONS = {
    "simple_rnn": "h_t = tanh(Wx x_t + Wh h_{t-1} + b)",
    "lstm": "i, f, o = sigmoid(Wx x_t + Wh h_{t-1} + b); c~ = tanh(Wx x_t + Wh h_{t-1} + b); "
    "c_t = f c_{t-1} + i c~; h_t = o tanh(c_t)",
    "gru": "z, r = sigmoid(Wx x_t + Wh h_{t-1} + b); "
    "h~ = tanh(Wx x_t + b + r (Wh h_{t-1} + b_h)) with reset_after, tanh(Wx x_t + Wh (r h_{t-1}) + b) without; "
    "h_t = z h_{t-1} + (1 - z) h~",
}


def layout_named(name: str) -> Layout:
    if name not in LAYOUTS:
        raise InputError(f"layout: expected {', '.join(LAYOUTS)}; received {name!r}")
    return LAYOUTS[name]


def called(layout: Layout, kind: str) -> list[str]:
    """The gates in its order, by its own letters."""
    letters = layout.letters if kind != "lstm" else {key: value for key, value in layout.letters.items() if key == "c"}
    return [letters.get(gate, gate) for gate in layout.gates.get(kind, "")]


# --- one cell ---


def order(layout: Layout, cell: Cell) -> list[int]:
    """For each block of the layout its place among the cell's own gates. UnsupportedError for a cell it has not."""
    if cell.name not in layout.gates:
        raise UnsupportedError(f"{cell.name}: {layout.library} has none; {layout.name} knows {', '.join(layout.gates)}")
    if layout.name == "torch" and cell.settings.get("reset_after") is False:
        raise UnsupportedError("gru: torch has no GRU with reset_after=False; port it to onnx, c, npz or safetensors")
    return ["".join(cell.gates).index(gate) for gate in layout.gates[cell.name]]


def blocks(array: Array, gates: int) -> list[Array]:
    """The rows of each gate."""
    return np.split(array, gates)


def pack(cell: Cell, layout: Layout, suffix: str = "") -> Arrays:
    """The cell's arrays as the layout has them: {name: array}."""
    places = order(layout, cell)
    parts = [("Wx", cell.Wx), ("Wh", cell.Wh)]
    turned = {name: np.concatenate([blocks(array, len(places))[n] for n in places]) for name, array in parts}
    biases = [np.concatenate([blocks(b, len(places))[n] for n in places]) for b in biases_of(cell, layout)]
    Wx, Wh, names = layout.names
    if "{gate}" in Wx:
        gates = [GATE_NAMES[gate] for gate in layout.gates[cell.name]]
        split = ((Wx, turned["Wx"]), (Wh, turned["Wh"]), *((names[0], b) for b in biases))
        return {
            name.format(gate=gate): part.copy()
            for name, array in split
            for gate, part in zip(gates, blocks(array, len(gates)), strict=True)
        }
    found = {Wx: turned["Wx"], Wh: turned["Wh"]}
    if layout.columns:
        found = {name: array.T for name, array in found.items()}
    if biases:
        joined = np.concatenate(biases) if layout.joined else np.stack(biases) if len(biases) > len(names) else None
        found |= {names[0]: joined} if joined is not None else dict(zip(names, biases, strict=True))
    return {name + suffix: np.ascontiguousarray(array[None] if layout.axis else array) for name, array in found.items()}


def biases_of(cell: Cell, layout: Layout) -> list[Array]:
    """The biases as many as the layout has, in the cell's order of gates."""
    if not cell.use_bias:
        return []
    own = list(cell.b) if cell.b.ndim == 2 else [cell.b]
    return own + [np.zeros_like(own[0])] * ((layout.biases or len(own)) - len(own))


def unpack(arrays: Mapping[str, Array], layout: Layout, like: Cell, suffix: str = "") -> Arrays:
    """The inverse: Wx, Wh and b of a cell like that one, from {name: array}. InputError for a name or shape amiss."""
    expected = pack(like, layout, suffix)
    for name, array in expected.items():
        if name not in arrays:
            raise InputError(f"expected an array {name} {array.shape}; there are {', '.join(arrays) or 'none'}")
        if arrays[name].shape != array.shape:
            raise InputError(f"{name}: expected shape {array.shape}; received {arrays[name].shape}")
    found = {name.removesuffix(suffix): arrays[name][0] if layout.axis else arrays[name] for name in expected}
    back = np.argsort(order(layout, like))
    Wx, Wh, names = layout.names
    if "{gate}" in Wx:
        gates = [GATE_NAMES[gate] for gate in layout.gates[like.name]]
        found = {
            name: np.concatenate([found[name.format(gate=gate)] for gate in gates])
            for name in (Wx, Wh, *(names if like.use_bias else ()))
        }
    kernels = [found[name].T if layout.columns else found[name] for name in (Wx, Wh)]
    own = {name: reordered(array, back) for name, array in zip(("Wx", "Wh"), kernels, strict=True)}
    if like.use_bias:
        biases = np.split(found[names[0]], 2) if layout.joined else [found[name] for name in names]
        every = [reordered(b, back) for bias in biases for b in (bias if bias.ndim == 2 else [bias])]
        own["b"] = np.stack(every) if like.b.ndim == 2 else np.sum(every, axis=0, dtype=like.dtype)
    return own


def reordered(array: Array, places: Any) -> Array:
    parts = blocks(array, len(places))
    return np.concatenate([parts[n] for n in places])


# --- whole layers ---


@dataclass(frozen=True)
class Entry:
    """One layer of a model that has weights: path, "" for a model of that layer alone; suffix of its arrays' names."""

    path: str
    layer: Layer
    suffix: str = ""

    def named(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def arrays(self, layout: Layout) -> Arrays:
        return {self.named(name): array for name, array in own_arrays(self.layer, layout, self.suffix).items()}


def entries(layer: Layer, layout: Layout, path: str = "") -> Iterator[Entry]:
    """The layers with weights in a layer, in their order. UnsupportedError for one that is no part's and not known."""
    if isinstance(layer, Recurrent | Dense | Embedding):
        yield Entry(path, layer)
        return
    of_parts = {f"{name}.{own}" for name, part in layer.parts.items() for own in part.weights}
    if layer.weights.keys() - of_parts:
        raise UnsupportedError(f"{layer.name}: {layout.name} does not carry {layer.kind}")
    for name, part in layer.parts.items():
        inner = f"{path}.{name}" if path else name
        if isinstance(layer, Bidirectional) and layout.reverse is not None:
            yield Entry(path, part, layout.reverse if name == list(layer.parts)[1] else "")
        else:
            yield from entries(part, layout, inner)


def own_arrays(layer: Layer, layout: Layout, suffix: str) -> Arrays:
    if isinstance(layer, Recurrent):
        return pack(layer.cell, layout, suffix)
    if isinstance(layer, Embedding):
        return {layout.embedding: layer.E}
    assert isinstance(layer, Dense)
    W, b = layout.dense
    kernel = np.ascontiguousarray(layer.W.T) if layout.columns else layer.W
    return {W: kernel, **({b: layer.b} if layer.use_bias else {})}


def packed(layer: Layer, layout: Layout) -> Arrays:
    """Every array of a layer or model, by its name in that layout; a layer's own name stands before where it has parts.

    Raises UnsupportedError for a layer that the library has no like of, and where a weight would be left out.
    """
    named = [item for entry in entries(layer, layout) for item in entry.arrays(layout).items()]
    return {name: np.ascontiguousarray(array) for name, array in named}  # safetensors writes memory as it lies


def unpacked(layer: Layer, layout: Layout, arrays: Mapping[str, Array]) -> Layer:
    """The layer with the weights that stand in those arrays. InputError for one that is missing or does not fit."""
    for name, array in arrays.items():
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise InputError(f"{name}: expected floating-point numbers; received {array.dtype}")
    own: Arrays = {}  # and not the layer's weights, which would stand in for whatever the arrays lack
    for (path, part), entry in zip(weighted(layer), entries(layer, layout), strict=True):
        below = {
            name.removeprefix(entry.named("")): a for name, a in arrays.items() if name.startswith(entry.named(""))
        }
        found = (
            unpack(below, layout, part.cell, entry.suffix) if isinstance(part, Recurrent) else flat(part, layout, below)
        )
        prefix = f"{path}." if path else ""
        own |= {prefix + name: array.astype(part.dtype) for name, array in found.items()}
    if missing := [name for name in layer.weights if name not in own]:
        raise InputError(f"{layer.name}: expected every weight; there is no {', '.join(missing)} in {layout.name}")
    return layer.replace(**own)


def weighted(layer: Layer) -> list[tuple[str, Layer]]:
    """As `entries`, under the paths of rnn_scratch."""
    return [(path, part) for path, part in layer.walk() if part.own_weights]


def flat(layer: Layer, layout: Layout, arrays: Mapping[str, Array]) -> Arrays:
    """Of Dense and Embedding."""
    found = {}
    for (name, expected), own in zip(own_arrays(layer, layout, "").items(), layer.weights, strict=False):
        if name not in arrays or arrays[name].shape != expected.shape:
            received = arrays[name].shape if name in arrays else "none"
            raise InputError(f"{layer.name}: {name}: expected shape {expected.shape}; received {received}")
        found[own] = arrays[name].T if layout.columns and own == "W" else arrays[name]
    return found


def recognised(layer: Layer, arrays: Mapping[str, Array], name: str | None = None) -> tuple[Layout, Arrays]:
    """The layout, of all or of that name, whose names and shapes those arrays have for that layer, none left over; and
    the arrays by its names. What all names begin with, as `rnn.` or `lstm/`, may be any. InputError where none fits."""
    known = {} if name is None else {name: packed(layer, LAYOUTS[name])}
    for layout in LAYOUTS.values() if name is None else ():
        with contextlib.suppress(UnsupportedError):
            known[layout.name] = packed(layer, layout)
    if not known:
        packed(layer, LAYOUTS["notebook"])  # which says why not, as all of them do
    bare = {key.removeprefix(shared(arrays)): array for key, array in arrays.items()}
    for found, expected in known.items():
        if listed(bare) == listed({key.removeprefix(shared(expected)): a for key, a in expected.items()}):
            return LAYOUTS[found], {shared(expected) + key: array for key, array in bare.items()}
    nearest = max(known, key=lambda found: len(known[found].keys() & bare.keys()))
    raise InputError(
        f"expected the weights of {layer.name} in a layout ({', '.join(known)}), in {nearest} "
        f"{', '.join(listed(known[nearest]))[:300]}; received {', '.join(listed(arrays))[:300] or 'none'}"
    )


def shared(names: Collection[str]) -> str:
    """What all of them begin with, up to a dot or a slash."""
    first, last = min(names, default=""), max(names, default="")  # between them lie all the others
    same = next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return "".join(re.findall(r"[^./]*[./]", first[:same]))


def listed(arrays: Mapping[str, Array]) -> list[str]:
    return sorted(f"{name} {array.shape}" for name, array in arrays.items())


if __name__ == "__main__":
    from parity.ports.layouts_page import page

    print(page())
