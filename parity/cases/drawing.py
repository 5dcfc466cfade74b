"""What is drawn at random, always the same from a seed and a name: inputs, masks, states and weights."""

import importlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from parity.cases.case import Case
from parity.errors import MissingExtraError
from parity.kinds import registry
from rnn_scratch import Embedding, Masking, Sequential
from rnn_scratch.base import Array, Layer, Mask, Shape, dotted

Rng = np.random.Generator
L = TypeVar("L", bound=Layer)


def generator(seed: int, name: str) -> Rng:
    # hash() is salted in each process
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def named_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; bfloat16 is ml_dtypes'. MissingExtraError where that is not installed."""
    if name == "bfloat16":
        try:
            importlib.import_module("ml_dtypes")
        except ImportError as error:
            raise MissingExtraError("bfloat16 needs ml_dtypes: pip install ml_dtypes") from error
    return np.dtype(name)


# --- inputs ---


def draw_inputs(layer: Layer, rng: Rng, shape: Shape, like: Array | None = None) -> Array:
    """N(0, 1), as large as `like`; token ids for an embedding.

    Where the model masks by its inputs, some steps are masked: of each row but the first a part at the end, and of the
    last one a step between.
    """
    embedding, masking = _leading(layer, Embedding), _leading(layer, Masking)
    if embedding is not None:
        ids = rng.integers(0, len(embedding.E), shape).astype(np.int32)
        return np.where(_hidden(shape), np.int32(0), ids) if embedding.mask_zero else ids
    scale = 1.0 if like is None else typical(like)
    x = (scale * rng.standard_normal(shape)).astype(layer.dtype)
    if masking is not None:
        x[_hidden(shape)] = masking.mask_value
    return x


def inputs_like(case: Case, rng: Rng, batch: int, timesteps: int) -> Array:
    """Other inputs of a case, of the same size and features."""
    return draw_inputs(case.layer, rng, (batch, timesteps, *case.features), case.x)


def typical(x: Array) -> float:
    """The root of the mean square of its finite elements; 1 where there is none but zeros."""
    finite = np.abs(x[np.isfinite(x)].astype(np.float64))
    if not finite.size:
        return 1.0
    return float(np.sqrt(np.mean(finite[-100_000:] ** 2))) or 1.0


def leading(layer: Layer) -> Iterator[Layer]:
    """The layers that see the inputs before any that has states."""
    for part in layer.parts.values() if isinstance(layer, Sequential) else (layer,):
        if part.state_units:
            return
        yield part


def _leading(layer: Layer, kind: type[L]) -> L | None:
    return next((part for part in leading(layer) if isinstance(part, kind)), None)


def _hidden(shape: Shape) -> Mask:
    """The steps that a model is to mask by its inputs."""
    batch, timesteps = shape[:2]
    hidden = np.arange(timesteps)[None, :] >= timesteps - _numbers(batch, timesteps)
    hidden[0] = False
    if timesteps > 3:
        hidden[-1, 1] = True
    return hidden


# --- masks and states ---


def make_mask(rng: Rng, kind: str, batch: int, timesteps: int) -> Mask:
    """leading, trailing: false at one end, for a number of steps that differs from row to row; mixed: false anywhere;
    all: false everywhere."""
    steps, hidden = np.arange(timesteps)[None, :], _numbers(batch, timesteps)
    if kind == "leading":
        return np.asarray(steps >= hidden)
    if kind == "trailing":
        return np.asarray(steps < timesteps - hidden)
    if kind == "all":
        return np.zeros((batch, timesteps), bool)
    mask = rng.random((batch, timesteps)) < 0.6
    mask[:, 1::4], mask[:, 2::4] = False, True  # whatever was drawn, some of each
    return mask


def _numbers(batch: int, timesteps: int) -> Array:
    """How many steps of each row are masked at an end: another number in each, and never all."""
    return (1 + np.arange(batch)[:, None]) % timesteps


def draw_states(layer: Layer, rng: Rng, batch: int) -> tuple[Array, ...]:
    """Initial states, within what tanh puts out."""
    return tuple(rng.uniform(-1, 1, (batch, units)).astype(layer.dtype) for units in layer.state_units)


# --- weights ---

Draw = Callable[[Rng, Shape], Array]


def _standard(rng: Rng, shape: Shape) -> Array:
    return rng.standard_normal(shape)


def _halved(rng: Rng, shape: Shape) -> Array:
    return rng.standard_normal(shape) / 2


def _by_fan_in(gain: float) -> Draw:
    return lambda rng, shape: np.asarray(gain * rng.standard_normal(shape) / np.sqrt(shape[1]))


def _unit_interval(rng: Rng, shape: Shape) -> Array:
    return rng.random(shape)


def _glorot(rng: Rng, shape: Shape) -> Array:
    limit = np.sqrt(6 / sum(shape))
    return rng.uniform(-limit, limit, shape)


def _orthogonal(rng: Rng, shape: Shape) -> Array:
    q, r = np.linalg.qr(rng.standard_normal(shape))
    return np.asarray(q * np.sign(np.diag(r)))


def _zeros(rng: Rng, shape: Shape) -> Array:
    return np.zeros(shape)


def _small(rng: Rng, shape: Shape) -> Array:
    return rng.uniform(-0.05, 0.05, shape)


@dataclass(frozen=True)
class Distribution:
    """How an array is drawn, in float64, by what it is: a factor of inputs, one of states, a bias, a table."""

    matrix: Draw
    recurrent: Draw
    bias: Draw
    table: Draw


DISTRIBUTIONS = {
    "normal": Distribution(_by_fan_in(1.0), _by_fan_in(1.0), _halved, _standard),
    "keras": Distribution(_glorot, _orthogonal, _zeros, _small),
    "uniform": Distribution(_unit_interval, _unit_interval, _unit_interval, _unit_interval),
    "chaotic": Distribution(_by_fan_in(1.0), _by_fan_in(2.0), _halved, _standard),
}
"""normal: N(0, 1/fan_in), biases N(0, 1/4), embeddings N(0, 1). keras: Keras's default initializers. uniform: [0, 1).
chaotic: normal, the recurrent gain 2, at which a network never settles."""

_ROLES = {"Wx": "matrix", "W": "matrix", "Wh": "recurrent", "b": "bias", "E": "table"}


def draw_weight(rng: Rng, distribution: str, name: str, shape: Shape) -> Array:
    """One array in float64, by its name in rnn_scratch; one of another name like a matrix or a bias, by its axes."""
    role = _ROLES.get(name, "matrix" if len(shape) > 1 else "bias")
    draw: Draw = getattr(DISTRIBUTIONS[distribution], role)
    return draw(rng, shape)


def randomized(layer: Layer, rng: Rng, distribution: str = "normal") -> Layer:
    """The same layer with every weight drawn anew, in its own dtype."""
    drawn: dict[str, Array] = {}
    for path, part in layer.walk():
        own = registry.draw(part, rng, distribution) if part.own_weights else {}
        drawn |= {dotted(path, name): array for name, array in own.items()}
    old = layer.weights
    return layer.replace(**{name: array.astype(old[name].dtype) for name, array in drawn.items()})
