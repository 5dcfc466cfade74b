"""SimpleRNN, LSTM and GRU: one cell in a loop; and what each cell is called elsewhere."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
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
from parity.cases.case import draw_weight
from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import Array, Arrays, Convert, KerasLayer
from rnn_scratch import GRU, LSTM, SimpleRNN
from rnn_scratch.cells import CELLS, Cell, GRUCell
from rnn_scratch.layers import PROFILES, SETTINGS, Layer, Recurrent, recurrent


@dataclass(frozen=True)
class Names:
    """Of a cell. keras: its layer's class, whose cell's is that and "Cell". onnx: the operator. torch: the class in
    torch.nn. equation: one step, in Keras's letters."""

    keras: str
    onnx: str
    torch: str
    equation: str


NAMES: Mapping[str, Names] = {
    "simple_rnn": Names("SimpleRNN", "RNN", "RNN", "h_t = tanh(Wx x_t + Wh h_{t-1} + b)"),
    "lstm": Names(
        "LSTM",
        "LSTM",
        "LSTM",
        "i, f, o = sigmoid(Wx x_t + Wh h_{t-1} + b); c~ = tanh(Wx x_t + Wh h_{t-1} + b); "
        "c_t = f c_{t-1} + i c~; h_t = o tanh(c_t)",
    ),
    "gru": Names(
        "GRU",
        "GRU",
        "GRU",
        "z, r = sigmoid(Wx x_t + Wh h_{t-1} + b); "
        "h~ = tanh(Wx x_t + b + r (Wh h_{t-1} + b_h)) with reset_after, tanh(Wx x_t + Wh (r h_{t-1}) + b) without; "
        "h_t = z h_{t-1} + (1 - z) h~",
    ),
}
"""By the cell's name in rnn_scratch."""

for _name, _kind in CELLS.items():
    registry.cell.register(f"{NAMES[_name].keras}Cell")(_kind)


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
    """The arguments of Keras's cell, or of its layer, for that one."""
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
def make(layer: Recurrent, module: ModuleType, extra: Mapping[str, Any]) -> KerasLayer:
    settings = {**keras_cell_settings(layer.cell, module), **layer.settings, **extra}
    return getattr(module.layers, NAMES[layer.cell.name].keras)(**settings)


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
def rebuild(described: Mapping[str, Any], weights: Mapping[str, Array], parts: Mapping[str, Layer]) -> Layer:
    kind = CELLS[described["kind"]]
    cell = kind(weights.get("Wx"), weights.get("Wh"), weights.get("b"), **described["cell"])
    layer = recurrent(cell, described["settings"])
    layer.profile = PROFILES[described["profile"]]
    return layer


@registry.draw.register(Recurrent)
def draw(layer: Recurrent, rng: np.random.Generator, distribution: str) -> Arrays:
    return {
        name: draw_weight(rng, distribution, name, array.shape, layer.cell) for name, array in layer.weights.items()
    }


def _example(kind: type[Cell], rng: np.random.Generator) -> Layer:
    rows = 3 * len(kind.gates)
    bias = np.zeros((2, rows) if kind is GRUCell else rows)
    return recurrent(kind(rng.standard_normal((rows, 2)), rng.standard_normal((rows, 3)), bias), {})


for _name, _kind in CELLS.items():
    registry.example.register(f"{NAMES[_name].keras}Cell")(functools.partial(_example, _kind))
