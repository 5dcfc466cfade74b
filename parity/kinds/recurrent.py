"""SimpleRNN, LSTM and GRU: one cell in a loop."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from parity.adapters.keras.attributes import (
    activation_in,
    activation_name,
    declared_dtype,
    set_weights,
    weights_of,
)
from parity.adapters.keras.library import family, flat_states, to_numpy
from parity.adapters.keras.precision import dtype_of
from parity.cases.drawing import draw_weight
from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.cells import ELSEWHERE
from parity.kinds.registry import Array, Arrays, Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports import c_loop
from parity.ports.c_loop import Output
from parity.ports.c_source import Rows, Source
from parity.ports.layouts import LAYOUTS, Layout, called, pack, unpack
from parity.ports.onnx_graph import Graph
from parity.ports.onnx_graph import activation as onnx_activation
from rnn_scratch import GRU, LSTM, SimpleRNN
from rnn_scratch.cells import CELLS, Cell, GRUCell
from rnn_scratch.layers import PROFILES, SETTINGS, Layer, Recurrent, recurrent

for _name, _kind in CELLS.items():
    registry.cell.register(f"{ELSEWHERE[_name].keras}Cell")(_kind)


# --- a cell, alone or within a layer ---


def take_cell(cell: KerasLayer, dtype: np.dtype[Any], owner: str = "") -> Cell:
    """A built cell of Keras's as rnn_scratch's. owner: the layer to name in messages, a cell's own name says little."""
    kind = registry.cell[type(cell).__name__]
    settings: dict[str, Any] = {"activation": activation_name(cell)}
    if hasattr(cell, "recurrent_activation"):
        settings["recurrent_activation"] = activation_name(cell, "recurrent_activation")
    if hasattr(cell, "reset_after"):
        settings["reset_after"] = bool(cell.reset_after)
    kernel, recurrent_kernel, *bias = weights_of(cell, dtype, ("kernel", "recurrent_kernel", "bias"), owner)
    return kind(kernel.T, recurrent_kernel.T, *bias, **settings)


def expect_coverable(cell: KerasLayer, layer: KerasLayer) -> None:
    """UnsupportedError for a cell in the layer that is not Keras's own, or of another dtype than the layer."""
    if type(cell).__name__ not in registry.cell or not family(cell):
        kind = type(cell).__name__
        raise UnsupportedError(f"{layer.name}: RNN of {kind} is not covered; covered: {registry.covered()}")
    inner, outer = declared_dtype(cell), declared_dtype(layer)
    if inner != outer:
        raise UnsupportedError(f"{layer.name}: dtype {outer} around {inner} is not covered")


def keras_cell_settings(cell: Cell, module: ModuleType) -> dict[str, Any]:
    """The arguments of Keras's cell, or of its layer, for that one. UnsupportedError for a cell of somebody else's,
    which may compute anything."""
    if type(cell) is not CELLS[cell.name]:
        raise UnsupportedError(f"{cell.name}: expected a cell of rnn_scratch; received {type(cell).__name__}")
    own = {name: activation_in(module, value) for name, value in cell.settings.items()}
    return {
        "units": cell.units,
        "use_bias": cell.use_bias,
        "dtype": cell.dtype.name,
        "recurrent_initializer": "zeros",  # the default one has no float16 kernel on every backend
        **own,
    }


def fill_cell(cell: KerasLayer, scratch: Cell) -> None:
    set_weights(cell, [scratch.Wx.T, scratch.Wh.T, *([scratch.b] if scratch.use_bias else [])])


# --- the layer ---


def loop_settings(layer: KerasLayer) -> dict[str, bool]:
    if getattr(layer, "time_major", False):
        raise UnsupportedError(f"{layer.name}: time_major is not covered; expected (batch, timesteps, input_dim)")
    return {name: bool(getattr(layer, name, False)) for name in SETTINGS}


def held_states(layer: KerasLayer, dtype: np.dtype[Any]) -> tuple[Array, ...]:
    """What a stateful layer of Keras's keeps; nothing before its first call."""
    states = getattr(layer, "states", None)
    if not getattr(layer, "stateful", False) or not states or states[0] is None:
        return ()
    return tuple(to_numpy(state).astype(dtype) for state in flat_states(states))


@registry.take.register("SimpleRNN", "LSTM", "GRU")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    settings: Any = loop_settings(layer)
    dtype = dtype_of(layer)
    expect_coverable(layer.cell, layer)
    scratch = recurrent(take_cell(layer.cell, dtype, layer.name), settings)
    held = held_states(layer, dtype)
    if held:
        scratch.keep(held)
    return scratch


@registry.make.register(SimpleRNN, LSTM, GRU)
def make(layer: Recurrent, module: ModuleType, extra: Extra) -> KerasLayer:
    settings = {**keras_cell_settings(layer.cell, module), **layer.settings, **extra}
    return getattr(module.layers, ELSEWHERE[layer.cell.name].keras)(**settings)


@registry.fill.register(SimpleRNN, LSTM, GRU)
def fill(layer: Recurrent, keras_layer: KerasLayer) -> None:
    fill_cell(getattr(keras_layer, "cell", keras_layer), layer.cell)


@registry.describe.register(Recurrent)
def describe(layer: Recurrent) -> dict[str, Any]:
    cell = {key: value for key, value in layer.cell.settings.items() if value is not None}
    return {
        "cell": cell,
        "settings": layer.settings,
        "use_bias": layer.cell.use_bias,
        "profile": layer.profile.name,
    }


@registry.rebuild.register(*CELLS)
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    kind = CELLS[described["kind"]]
    cell = kind(weights.get("Wx"), weights.get("Wh"), weights.get("b"), **described["cell"])
    layer = recurrent(cell, described["settings"])
    layer.profile = PROFILES[described["profile"]]
    return layer


@registry.draw.register(Recurrent)
def draw(layer: Recurrent, rng: np.random.Generator, distribution: str) -> Arrays:
    own = layer.own_weights
    drawn = {name: draw_weight(rng, distribution, name, array.shape) for name, array in own.items()}
    if distribution == "keras" and "b" in own and "f" in layer.cell.gates:
        drawn["b"][layer.units : 2 * layer.units] = 1  # Keras's unit_forget_bias
    return drawn


def _example(kind: type[Cell], rng: np.random.Generator) -> Layer:
    rows = 3 * len(kind.gates)
    bias = np.zeros((2, rows) if kind is GRUCell else rows)
    return recurrent(kind(rng.standard_normal((rows, 2)), rng.standard_normal((rows, 3)), bias), {})


for _name, _kind in CELLS.items():
    registry.example.register(f"{ELSEWHERE[_name].keras}Cell")(functools.partial(_example, _kind))


# --- arrays in the layouts of other libraries ---


@registry.arrays.register(Recurrent)
def arrays(layer: Recurrent, layout: Layout, suffix: str) -> Arrays:
    return pack(layer.cell, layout, suffix)


@registry.from_arrays.register(Recurrent)
def from_arrays(layer: Recurrent, layout: Layout, found: Mapping[str, Array], suffix: str) -> Arrays:
    return unpack(found, layout, layer.cell, suffix)


@registry.origin.register(Recurrent)
def origin(layer: Recurrent, layout: Layout, name: str) -> dict[str, Any]:
    kernels = dict(zip(layout.names, ("kernel", "recurrent_kernel"), strict=False))
    for pattern, source in kernels.items():
        if name.startswith(str(pattern).partition("{")[0]):
            return {"from": source, "transposed": not layout.columns}
    return {"from": _bias_origin(layer, layout, name), "transposed": False}


def _bias_origin(layer: Recurrent, layout: Layout, name: str) -> str:
    if not layout.biases:
        return "bias"
    both = ("bias[0]", "bias[1]") if layer.cell.b.ndim == 2 else ("bias", "zeros")
    if layout.joined:
        return " then ".join(both)
    return both[int(name.startswith(layout.names[2][1]))]


@registry.in_manifest.register(Recurrent)
def in_manifest(layer: Recurrent, layout: Layout) -> dict[str, Any]:
    cell = layer.cell
    return {
        "equation": ELSEWHERE[cell.name].equation,
        "settings": {**cell.settings, "use_bias": cell.use_bias, **layer.settings},
        "gates": called(layout, cell.name),
    }


# --- ports of the whole layer ---


@registry.expect_portable.register(Recurrent)
def expect_portable(layer: Recurrent, to: str) -> None:
    expect_both_portable(layer, (layer,), to)


def expect_both_portable(owner: Layer, directions: Sequence[Recurrent], to: str) -> None:
    """UnsupportedError, in the owner's name, for what that format has not of its directions."""
    if owner.stateful:
        raise UnsupportedError(f"{owner.name}: {to} keeps no state between calls; save it with stateful=False")
    if to == "torch":
        for half in directions:
            _expect_torch_has(half)
    if to == "c" and directions[0].return_state:
        raise UnsupportedError(f"{owner.name}: the C port returns no states; save it with return_state=False")


def _expect_torch_has(layer: Recurrent) -> None:
    allowed = {"activation": ELSEWHERE[layer.cell.name].torch_activations, "recurrent_activation": ("sigmoid",)}
    for name, value in layer.cell.settings.items():
        if name in allowed and value not in allowed[name]:
            raise UnsupportedError(
                f"{layer.name}: torch's {layer.kind} has {name} {' or '.join(allowed[name])}; received {value}"
            )


# --- ONNX ---


@registry.onnx.register(SimpleRNN, LSTM, GRU)
def onnx(layer: Recurrent, graph: Graph, path: str, x: str) -> list[str]:
    y, finals = onnx_node(graph, [layer], path, x, "reverse" if layer.go_backwards else "forward")
    sequence = graph.time_second(*graph.directions(y, 1, axis=1))
    if layer.go_backwards:
        sequence = graph.turned(sequence)  # ONNX's stands in the order of time
    output = sequence if layer.return_sequences else finals[0][0]
    states = [halves[0] for halves in finals]
    return [output, *states] if layer.return_state else [output]


def onnx_node(
    graph: Graph, directions: Sequence[Recurrent], path: str, x: str, direction: str
) -> tuple[str, list[list[str]]]:
    """One node for all directions: its Y, and of each state the final one of each direction."""
    first = directions[0]
    packed = [pack(layer.cell, LAYOUTS["onnx"]) for layer in directions]
    inputs = [graph.time_second(x)]
    for name in packed[0]:
        both = np.concatenate([arrays[name] for arrays in packed])
        inputs.append(graph.constant(f"{path}.{name}", both))
    attributes = _onnx_attributes(directions)
    names = ELSEWHERE[first.cell.name]
    y, *finals = graph.add_several(
        names.onnx, inputs, 1 + len(first.cell.states), hidden_size=first.units, direction=direction, **attributes
    )
    return y, [graph.directions(final, len(directions)) for final in finals]


def _onnx_attributes(directions: Sequence[Recurrent]) -> dict[str, Any]:
    """The activations of each direction, gates first, with alpha and beta of those that have them."""
    found: dict[str, Any] = {"activations": []}
    for layer in directions:
        for setting in ELSEWHERE[layer.cell.name].onnx_activations:
            op, values = onnx_activation(layer.cell.settings[setting] or "linear", layer.name)
            found["activations"].append(op)
            for key, value in values.items():
                found.setdefault(f"activation_{key}", []).append(value)
    resets = {layer.cell.settings.get("reset_after") for layer in directions}
    if len(resets) > 1:
        raise UnsupportedError(f"{directions[0].name}: onnx has one linear_before_reset for both directions")
    (reset_after,) = resets
    if reset_after is not None:
        found["linear_before_reset"] = int(reset_after)
    return found


# --- torch ---


@registry.torch.register(SimpleRNN, LSTM, GRU)
def torch(layer: Recurrent, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    called = torch_module(library, layer, state, bidirectional=False)

    def run(x: Any) -> Any:
        y, finals = called(x.flip(1) if layer.go_backwards else x)
        output = y if layer.return_sequences else finals[0][0]
        states = [final[0] for final in finals]
        return (output, *states) if layer.return_state else output

    return run


def torch_module(
    library: ModuleType, like: Recurrent, state: Mapping[str, Any], *, bidirectional: bool
) -> Callable[[Any], tuple[Any, tuple[Any, ...]]]:
    """The module of torch's own: x -> y (batch, timesteps, units), and of each state (directions, batch, units)."""
    names = ELSEWHERE[like.cell.name]
    settings = {"bias": like.cell.use_bias, "batch_first": True, "bidirectional": bidirectional}
    if len(names.torch_activations) > 1:
        settings["nonlinearity"] = like.cell.settings["activation"]
    module = getattr(library.nn, names.torch)(like.input_dim, like.units, **settings)
    module.load_state_dict(dict(state))

    def called(x: Any) -> tuple[Any, tuple[Any, ...]]:
        y, states = module(x)
        return y, states if isinstance(states, tuple) else (states,)

    return called


# --- C ---


@registry.c.register(SimpleRNN, LSTM, GRU)
def c(layer: Recurrent, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    y = source.output(layer.units, target)
    c_direction(source, layer, path, x.name, Output(y, layer.units), backwards=layer.go_backwards)
    return Rows(y, x.steps if layer.return_sequences else "1")


def c_direction(source: Source, layer: Recurrent, path: str, x: str, output: Output, *, backwards: bool) -> None:
    c_loop.add_loop(source, layer, ELSEWHERE[layer.cell.name].c_step, path, x, output, backwards)
