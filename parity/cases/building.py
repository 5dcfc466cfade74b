"""A case of the grid: how it is specified, what it is called, and its layer and data."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.cases.case import Case
from parity.cases.drawing import (
    Rng,
    draw_inputs,
    draw_states,
    generator,
    make_mask,
    named_dtype,
    randomized,
)
from parity.kinds import registry
from rnn_scratch import Bidirectional, Dense, Embedding, Masking, Sequential
from rnn_scratch.activations import ACTIVATIONS, Activation
from rnn_scratch.base import Array, Layer, Mask
from rnn_scratch.cells import CELLS, Cell, GRUCell, LSTMCell
from rnn_scratch.layers import SETTINGS, Recurrent, recurrent


@dataclass(frozen=True)
class Spec:
    """A case of the grid before its data are drawn. mask: its kind, or none. masking, tokens: what a stack begins with.
    square: as many units as features, so that a transposed kernel fits."""

    layer: str
    batch: int
    timesteps: int
    input_dim: int
    units: int
    return_sequences: bool
    weights: str
    activation: str = "tanh"
    recurrent_activation: str = ""
    merge_mode: str | None = None
    mask: str = ""
    state: bool = False
    go_backwards: bool = False
    zero_output_for_mask: bool = False
    return_state: bool = False
    unroll: bool = False
    stateful: bool = False
    masking: bool = False
    tokens: bool = False
    use_bias: bool = True
    reset_after: bool = True
    dtype: str = "float32"

    @property
    def id(self) -> str:
        shape = _shape_id(self.batch, self.timesteps, self.input_dim, self.units, self.return_sequences)
        said = [self.layer, shape, self._function, self.recurrent_activation, self.weights]
        if self.mask:
            said.append(f"{self.mask}_mask")
        said += [flag for flag in _FLAGS if getattr(self, flag)]
        if not self.use_bias:
            said.append("no_bias")
        if not self.reset_after:
            said.append("reset_before")
        if self.dtype != "float32":
            said.append(self.dtype)
        return "-".join(filter(None, said))

    @property
    def _function(self) -> str:
        return str(self.merge_mode).lower() if self.layer == "bidirectional" else self.activation


_FLAGS = (
    "state",
    "go_backwards",
    "zero_output_for_mask",
    "return_state",
    "unroll",
    "stateful",
    "masking",
    "tokens",
)


def case_id(layer: Layer, x: Array) -> str:
    """The id of a case that is not of the grid, by the same pattern; of a model, its name and the size of x."""
    if not isinstance(layer, Recurrent):
        features = "".join(f"-i{n}" for n in x.shape[2:])
        return f"{layer.name}-b{x.shape[0]}-t{x.shape[1]}{features}"
    batch, timesteps, input_dim = x.shape
    shape = _shape_id(batch, timesteps, input_dim, layer.units, layer.return_sequences)
    return f"{layer.cell.name}-{shape}-{layer.cell.activation.name}"


def _shape_id(batch: int, timesteps: int, input_dim: int, units: int, sequences: bool) -> str:
    return f"b{batch}-t{timesteps}-i{input_dim}-u{units}-{'seq' if sequences else 'last'}"


# --- its data ---


def built(spec: Spec, seed: int) -> Case:
    rng = generator(seed, spec.id)
    # the two draw in different orders, and keep them: the data of a case follow from its order
    return _looped(spec, rng) if spec.layer in CELLS else _wrapped(spec, rng)


def _looped(spec: Spec, rng: Rng) -> Case:
    """A case of one cell in a loop."""
    layer = _recurrent(spec, rng)
    states = draw_states(layer, rng, spec.batch) if spec.state else None
    draw = rng.random if spec.weights == "uniform" else rng.standard_normal
    x = draw((spec.batch, spec.timesteps, spec.input_dim)).astype(layer.dtype)
    mask = _mask(spec, rng)
    if mask is not None and spec.mask == "mixed":
        x[~mask] = np.nan  # what stands at a masked step is nobody's business
    return Case(spec.id, layer, {"x": x}, mask, states)


def _wrapped(spec: Spec, rng: Rng) -> Case:
    """A case of a layer made of layers."""
    blank = _bidirectional(spec) if spec.layer == "bidirectional" else _stack(spec)
    layer = randomized(blank, rng, spec.weights)
    features = () if spec.tokens else (spec.input_dim,)
    x = draw_inputs(layer, rng, (spec.batch, spec.timesteps, *features))
    mask = _mask(spec, rng)
    states = draw_states(layer, rng, spec.batch) if spec.state else None
    return Case(spec.id, layer, {"x": x}, mask, states)


def _mask(spec: Spec, rng: Rng) -> Mask | None:
    return make_mask(rng, spec.mask, spec.batch, spec.timesteps) if spec.mask else None


def _recurrent(spec: Spec, rng: Rng) -> Recurrent:
    kind, settings = CELLS[spec.layer], _cell_settings(spec)
    loop: Any = {name: getattr(spec, name) for name in SETTINGS}
    blank = recurrent(_blank_cell(kind, spec.units, spec.input_dim, "float64", **settings), loop)
    drawn = {**registry.draw(blank, rng, spec.weights)}
    drawn["Wh"] = _tamed(drawn["Wh"], ACTIVATIONS[spec.activation])
    dtype = named_dtype(spec.dtype)
    weights: dict[str, Any] = {name: array.astype(dtype) for name, array in drawn.items()}
    if not spec.use_bias:
        weights["b"] = None  # not earlier: the bias is drawn all the same, or what is drawn next would be other data
    return recurrent(kind(**weights, **settings), loop)


def _cell_settings(spec: Spec) -> dict[str, Any]:
    """Those that differ from the cell's own defaults, which not all cells have."""
    settings: dict[str, Any] = {"activation": spec.activation}
    if spec.recurrent_activation:
        settings["recurrent_activation"] = spec.recurrent_activation
    if not spec.reset_after:
        settings["reset_after"] = False
    return settings


def _tamed(Wh: Array, activation: Activation) -> Array:
    """A recurrent kernel under which nothing overflows within the grid's steps, where the activation has no bounds."""
    if np.isfinite(activation.low) and np.isfinite(activation.high):
        return Wh
    if not np.isfinite(activation.slope):
        return -np.abs(Wh)  # exponential: more state, less of the next
    return Wh / max(1.0, float(np.linalg.norm(Wh, 2)) * activation.slope)


def _bidirectional(spec: Spec) -> Layer:
    settings = {"return_sequences": spec.return_sequences, "return_state": spec.return_state}
    forward = _blank(LSTMCell, spec.units, spec.input_dim, **settings)
    backward = _blank(LSTMCell, spec.units, spec.input_dim, **settings, go_backwards=True)
    return Bidirectional(forward, backward, merge_mode=spec.merge_mode)


def _stack(spec: Spec) -> Layer:
    units = spec.units
    layers: list[Layer] = [Masking()] if spec.masking else []
    if spec.tokens:
        layers = [Embedding(np.zeros((11, spec.input_dim), "f"), mask_zero=True)]
    layers += [
        _blank(LSTMCell, units, spec.input_dim, return_sequences=True),
        _blank(GRUCell, units, units, return_sequences=spec.return_sequences),
        Dense(np.zeros((units, units), "f"), np.zeros(units, "f"), activation="relu"),
    ]
    return Sequential(layers)


def _blank(kind: type[Cell], units: int, input_dim: int, **settings: bool) -> Recurrent:
    return recurrent(_blank_cell(kind, units, input_dim, "float32"), settings)  # type: ignore[arg-type]


def _blank_cell(kind: type[Cell], units: int, input_dim: int, dtype: str, **settings: Any) -> Cell:
    """A cell of zeros, with a bias."""
    rows = len(kind.gates) * units
    cell = kind(np.zeros((rows, input_dim), dtype), np.zeros((rows, units), dtype), None, **settings)
    return cell.replace(b=np.zeros(cell.bias_shape, dtype))
