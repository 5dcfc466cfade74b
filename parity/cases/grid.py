"""The built-in grid of cases: every size, weight and setting, covered and not multiplied out."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import combinations, product
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
from parity.errors import InputError
from parity.kinds import registry
from rnn_scratch import Bidirectional, Dense, Embedding, Masking, Sequential
from rnn_scratch.activations import ACTIVATIONS, Activation
from rnn_scratch.base import Array, Layer
from rnn_scratch.cells import CELLS, Cell, GRUCell, LSTMCell
from rnn_scratch.layers import SETTINGS, Recurrent, recurrent
from rnn_scratch.wrappers import MERGE_MODES

# --- what there is ---

_ACTIVATIONS = tuple(dict.fromkeys(row.name for row in ACTIVATIONS.values() if not row.name.endswith("_keras2")))
"""Once each, however many names they have; of hard_sigmoid the one that Keras has now."""

AXES: dict[str, tuple[Any, ...]] = {
    "layer": ("simple_rnn", "lstm", "gru", "bidirectional", "stack"),
    "batch": (1, 2, 8, 33),
    "timesteps": (1, 2, 3, 10, 100),
    "input_dim": (1, 4, 31),
    "units": (1, 2, 3, 8, 64, 257),
    "return_sequences": (True, False),
    "activation": _ACTIVATIONS,
    "weights": ("normal", "keras", "uniform", "chaotic"),
}
_COVERED = ("batch", "timesteps", "input_dim", "units", "return_sequences", "weights")
_SMALL = {"batch": 2, "timesteps": 10, "input_dim": 4, "units": 8, "weights": "normal"}
"""The shape on which settings and activations are tried: no two of its sizes are equal."""

Variant = dict[str, Any]
Axes = Mapping[str, Sequence[Any]]

_VARIANTS: tuple[Variant, ...] = (
    {"go_backwards": True},
    {"mask": "leading"},
    {"mask": "leading", "state": True},
    {"mask": "mixed"},
    {"mask": "mixed", "state": True},
    {"mask": "trailing"},
    {"mask": "trailing", "state": True},
    {"mask": "all"},
    {"mask": "all", "state": True},
    {"mask": "leading", "state": True, "zero_output_for_mask": True},
    {"mask": "trailing", "state": True, "zero_output_for_mask": True},
    {"mask": "leading", "state": True, "go_backwards": True},
    {"mask": "mixed", "state": True, "go_backwards": True},
    {"mask": "trailing", "state": True, "go_backwards": True},
    {"state": True},
    {"return_state": True},
    {"return_state": True, "mask": "trailing", "state": True},
    {"use_bias": False},
    {"unroll": True},
    {"unroll": True, "mask": "mixed", "state": True},
    {"square": True},
    {"stateful": True},
    {"dtype": "float64"},
    {"dtype": "float16"},
    {"dtype": "bfloat16"},
)
_GATED: tuple[Variant, ...] = (
    {"recurrent_activation": "hard_sigmoid"},
    {"recurrent_activation": "softsign"},
    {"recurrent_activation": "tanh"},
    {"recurrent_activation": "relu6"},
)
_GRU: tuple[Variant, ...] = (
    {"reset_after": False},
    {"reset_after": False, "use_bias": False},
    {"reset_after": False, "mask": "mixed", "state": True, "go_backwards": True},
    {"reset_after": False, "dtype": "float16"},
)
_OWN_VARIANTS: dict[str, tuple[Variant, ...]] = {"simple_rnn": (), "lstm": _GATED, "gru": (*_GATED, *_GRU)}
"""Those that only one cell has."""

_WRAPPED: dict[str, tuple[Variant, ...]] = {
    "bidirectional": (
        *({"merge_mode": mode} for mode in MERGE_MODES),
        *({"merge_mode": mode, "mask": "mixed", "state": True} for mode in MERGE_MODES),
        {"merge_mode": "concat", "return_state": True},
    ),
    "stack": ({}, {"square": True}, {"masking": True}, {"tokens": True}),
}
"""Layers made of layers: the variants of each, all on the small shape, as a sequence and as a last output."""


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


# --- which of them ---


def grid(select: Mapping[str, Sequence[Any]] | None = None, only: str | None = None, seed: int = 0) -> list[Case]:
    """The built-in cases: SimpleRNN, LSTM and GRU in every size, weight and setting, covered and not multiplied out;
    Bidirectional in every merge mode, and stacks of layers.

    How chosen, for each of the three: of batch, timesteps, input_dim, units, return_sequences and weights, every two
    values of every two axes meet in some case (a greedy pairwise cover; the last output of a chaotic network only after
    few steps). Then each setting and each activation in turn, as a sequence and as a last output, on a small shape of
    which no two sizes are equal; activations without bounds get a recurrent kernel that does not grow. `select` narrows
    the axes: the cover is made anew of what is left. `only` keeps the cases whose id matches that pattern. A case's
    data follow from its id and the seed.

    Raises InputError for a selection that no case meets.
    """
    axes = _narrowed(select or {})
    specs = dict.fromkeys(spec for layer in axes["layer"] for spec in _specifications(layer, axes))
    kept = [spec for spec in specs if only is None or fnmatchcase(spec.id, only)]
    if not kept:
        matches = f" {only!r}" if only else ""
        raise InputError(f"selection: no case of the grid matches{matches}; `parity check --list` shows them")
    return [_built(spec, seed) for spec in kept]


def _narrowed(select: Mapping[str, Sequence[Any]]) -> Axes:
    axes = dict(AXES)
    for name, wanted in select.items():
        axes[name] = _among(name, wanted)
    return axes


def _among(name: str, wanted: Sequence[Any]) -> tuple[Any, ...]:
    """Those values of an axis that are wanted, in the axis's own order: the cover depends on it."""
    missing = [str(value) for value in wanted if value not in AXES[name]]
    if missing or not wanted:
        told = ", ".join(missing) or "nothing"
        known = ", ".join(map(str, AXES[name]))
        raise InputError(f"{name}: no case of the grid has {told}; it has {known}")
    return tuple(value for value in AXES[name] if value in wanted)


def _specifications(layer: str, axes: Axes) -> Iterator[Spec]:
    tanh = "tanh" in axes["activation"]  # with which all but the activations are tried
    variants = _WRAPPED.get(layer) or (*_VARIANTS, *_OWN_VARIANTS[layer])
    if tanh and layer not in _WRAPPED:
        yield from _covering(layer, axes)
    for small in _small(layer, axes):
        if tanh:
            yield from _varied(small, variants)
        if layer not in _WRAPPED:
            yield from _activated(small, axes)


def _covering(layer: str, axes: Axes) -> Iterator[Spec]:
    covered = {"layer": (layer,), **{name: axes[name] for name in _COVERED}}
    for row in pairwise_cover(covered, unless=lambda row: _undecidable(Spec(**row))):
        yield Spec(**row)


def _small(layer: str, axes: Axes) -> list[Spec]:
    """The small shape, as far as the axes have it, as a sequence and as a last output."""
    sizes = {name: _nearest(axes[name], value) for name, value in _SMALL.items()}
    return [Spec(layer=layer, return_sequences=sequences, **sizes) for sequences in axes["return_sequences"]]


def _nearest(values: Sequence[Any], wanted: Any) -> Any:
    return wanted if wanted in values else values[-1]


def _varied(small: Spec, variants: Iterable[Variant]) -> Iterator[Spec]:
    for variant in variants:
        if "square" not in variant:
            yield replace(small, **variant)
        elif (small.input_dim, small.units) == (4, 8):  # otherwise other sizes were asked for
            yield replace(small, units=small.input_dim)


def _activated(small: Spec, axes: Axes) -> Iterator[Spec]:
    # of a last output after many steps, bounds say nothing where an activation has none itself
    short = small if small.return_sequences else replace(small, timesteps=_nearest(axes["timesteps"], 3))
    if _undecidable(short):
        return
    for activation in axes["activation"]:
        explodes = short.layer == "lstm" and activation == "exponential"  # c adds up what exp makes of c
        if not explodes:
            yield replace(short, activation=activation)


def _undecidable(spec: Spec) -> bool:
    """Of the last output of a chaotic network nothing can be said after some steps, whoever computed it."""
    return spec.weights == "chaotic" and not spec.return_sequences and spec.timesteps > 3


def pairwise_cover(
    axes: Mapping[str, Sequence[Any]], unless: Callable[[Mapping[str, Any]], bool] = lambda row: False
) -> list[dict[str, Any]]:
    """Rows over the axes in which every pair of values of every two axes occurs that can. Greedy, always the same."""
    every = (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))
    candidates = [(row, set(combinations(row.items(), 2))) for row in every if not unless(row)]
    missing = set[Any]().union(*(pairs for _, pairs in candidates))
    random.Random(0).shuffle(candidates)  # in order, ties would all fall to the first values
    rows = []
    while missing:
        row, pairs = max(candidates, key=lambda candidate: len(missing & candidate[1]))
        missing -= pairs
        rows.append(row)
    return rows


# --- their data ---


def _built(spec: Spec, seed: int) -> Case:
    """In each of the two the order of what is drawn stays: data follow from it."""
    rng = generator(seed, spec.id)
    return _wrapped(spec, rng) if spec.layer in _WRAPPED else _looped(spec, rng)


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


def _mask(spec: Spec, rng: Rng) -> Any:
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
