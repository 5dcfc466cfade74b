"""The built-in grid of cases: every size, weight and setting, covered and not multiplied out."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import combinations, product
from typing import Any

from parity.cases.building import Spec, built
from parity.cases.case import Case
from parity.errors import InputError
from rnn_scratch.activations import ACTIVATIONS
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
    return [built(spec, seed) for spec in kept]


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
