"""Mistakes in what is made of layers: the halves of Bidirectional, its merge and its mask, the layers of a model."""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.cases.case import Case
from parity.mistakes.changes import Change, changed, each, mixed_in, of_kind, setting
from parity.mistakes.entry import Family, Variants
from parity.mistakes.hiding import mask_shape, one_step
from parity.mistakes.masks import is_masked
from parity.mistakes.time import Unturned
from rnn_scratch import Bidirectional, Dropout, Embedding, Sequential
from rnn_scratch.base import Array, Layer, Values
from rnn_scratch.layers import Recurrent

FAMILY = Family()


# --- the two directions ---


class _HalvesSwapped(Bidirectional):
    """The backward half first."""

    def merge(self, f: Values, b: Values) -> Values:
        return super().merge(b, f)

    def apart(self, outputs: Sequence[Array]) -> Mapping[str, tuple[Array, ...]] | None:
        units = self.directions[1].units
        if self.merge_mode == "concat":
            y, *states = outputs
            outputs = y[..., :units], y[..., units:], *states
        elif self.merge_mode is not None:
            return None
        b, f, *states = outputs
        return self._by_direction(f, b, states)

    def output_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        shapes = super().output_shapes(shape)
        if self.merge_mode:
            return shapes
        f, b, *states = shapes
        return b, f, *states


def _halves_swapped(layer: Bidirectional) -> Layer | None:
    return mixed_in(_HalvesSwapped, layer) if layer.merge_mode in ("concat", None) else None


FAMILY.enter(
    "halves-swapped",
    of_kind(Bidirectional, _halves_swapped),
    what="the port puts the backward half first",
    fix="the forward half comes first",
)


_Pair = tuple[Recurrent, Recurrent]


def _with_directions(choose: Callable[[Recurrent, Recurrent], _Pair]) -> Change:
    """The weights of the directions, given those that they should have; where they are of one shape."""

    def change(layer: Bidirectional) -> Layer | None:
        first, second = layer.directions
        if _shapes(first) != _shapes(second):
            return None
        others = choose(first, second)
        twin = copy.copy(layer)
        twin.parts = {
            name: part.replace(**other.weights) for (name, part), other in zip(layer.parts.items(), others, strict=True)
        }
        return twin

    return of_kind(Bidirectional, change)


def _shapes(layer: Recurrent) -> tuple[object, ...]:
    return type(layer.cell), *(array.shape for array in layer.weights.values())


FAMILY.enter(
    "directions-exchanged",
    {
        "": _with_directions(lambda forward, backward: (backward, forward)),
        "the forward weights in both": _with_directions(lambda forward, backward: (forward, forward)),
        "the backward weights in both": _with_directions(lambda forward, backward: (backward, backward)),
    },
    what="the port gives a direction the other one's weights",
    fix="the first half of the weights is the forward layer's, the second the backward layer's",
)


def _backward_unturned(layer: Bidirectional) -> Layer | None:
    return mixed_in(Unturned, layer) if layer.return_sequences else None


FAMILY.enter(
    "backward-half-not-reversed",
    of_kind(Bidirectional, _backward_unturned),
    what="the port leaves the backward half in the order of processing; Keras turns it round before merging",
    fix="turn the backward half round in time before merging",
    source="keras#3448",
    hides=one_step,
)


# --- merge and mask ---


def _merged_by(mode: str) -> Change:
    def change(layer: Bidirectional) -> Layer | None:
        forward, backward = layer.directions
        fits = mode == "concat" or forward.units == backward.units
        if mode == layer.merge_mode or not fits:
            return None
        twin = layer.mapped(lambda _, name, array: array)  # no part of it may be the layer's own, which keep states
        twin.merge_mode = mode
        return twin

    return of_kind(Bidirectional, change)


def _keeps_width(case: Case) -> bool:
    """Whether every Bidirectional layer in it has a merge mode that leaves the width: what comes next would refuse
    another."""
    return all(layer.merge_mode not in ("concat", None) for layer in case.layer.every(Bidirectional))


@FAMILY.mistake(
    "merge-mode-wrong",
    what="the port merges the two directions in another way than the layer's merge_mode",
    fix="merge as the layer's merge_mode says",
)
def _merge_mode_wrong(case: Case) -> Variants:
    alone = isinstance(case.layer, Bidirectional)
    found: Variants = {}
    if not alone and not _keeps_width(case):
        return found
    for mode in ("concat", "sum", "mul", "ave") if alone else ("sum", "mul", "ave"):
        found |= each(case, _merged_by(mode), mode)
    return found


def _unzeroed(layer: Bidirectional) -> Layer | None:
    return changed(layer, setting("zero_output_for_mask", False)) if layer.return_sequences else None


@FAMILY.mistake(
    "mask-zero-output-missing",
    what="the port repeats outputs at masked steps; Bidirectional puts out zeros there",
    fix="put out zeros at masked steps of a Bidirectional sequence",
    source="tensorflow#49738",
    hides=mask_shape,
)
def _mask_zero_output_missing(case: Case) -> Variants:
    return each(case, of_kind(Bidirectional, _unzeroed)) if is_masked(case) else {}


# --- the layers of a model ---

_Parts = Mapping[str, Layer]


def _chain(case: Case) -> dict[str, Layer]:
    """The layers of a model that compute anything."""
    if not isinstance(case.layer, Sequential):
        return {}
    return {name: layer for name, layer in case.layer.parts.items() if not isinstance(layer, Dropout)}


def _movable(parts: _Parts) -> list[str]:
    return [name for name, layer in parts.items() if not isinstance(layer, Embedding)]  # nothing else takes tokens


def _rearranged(case: Case, parts: _Parts) -> Case | None:
    """The model of those layers, if their sizes fit."""
    few = case.rows_at(np.arange(1))
    try:
        model = Sequential(list(parts.values()), name=case.layer.name)
        model.parts = dict(parts)
        with np.errstate(all="ignore"):
            y = model(few.x)
    except (ValueError, IndexError, TypeError):
        return None
    results = y if isinstance(y, tuple) else (y,)
    fits = tuple(array.shape for array in results) == few.output_shapes
    return replace(case, layer=model) if fits else None


def _that_fit(case: Case, arrangements: Mapping[str, _Parts]) -> Variants:
    models = {name: _rearranged(case, parts) for name, parts in arrangements.items()}
    return {name: model for name, model in models.items() if model is not None}


@FAMILY.mistake(
    "layer-skipped",
    what="the port leaves a layer of the model out",
    fix="run every layer of the model",
)
def _layer_skipped(case: Case) -> Variants:
    parts = _chain(case)
    if len(parts) < 2:
        return {}
    rests = {}
    for skipped in _movable(parts):
        rests[skipped] = {name: layer for name, layer in parts.items() if name != skipped}
    return _that_fit(case, rests)


@FAMILY.mistake(
    "layers-swapped",
    what="the port runs two layers in each other's place",
    fix="run the layers in the model's order",
)
def _layers_swapped(case: Case) -> Variants:
    parts = _chain(case)
    swaps = {}
    for a, b in itertools.combinations(_movable(parts), 2):
        swaps[f"{a} and {b}"] = {**parts, a: parts[b], b: parts[a]}
    return _that_fit(case, swaps)
