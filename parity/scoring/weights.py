"""Single weights: one of them off by a little."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from parity.cases.case import Case
from parity.cases.drawing import generator
from parity.explaining.functions import computed
from parity.scoring.asking import ALL, Function, caught
from parity.scoring.counts import Score
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

_RELATIVE = (1e-3, 1e-4, 1e-5)

_WAYS: dict[str, frozenset[str]] = {
    "layer and initial_state": ALL,
    "layer": frozenset({"layer", "mask"}),
    "x alone": frozenset({"mask"}),
}
"""How much a candidate takes."""


def single_weights(score: Score, cases: Sequence[Case], each: int, step: Callable[[str], None]) -> None:
    """One weight off by a little, in `each` cases of every kind of candidate."""
    suited = [case for case in cases if _is_suited(case)]
    rng = generator(0, "single weights")
    for relative, (way, takes) in itertools.product(_RELATIVE, _WAYS.items()):
        step(f"single weights off by {relative:g}, {way}")
        for n in range(each):
            case = suited[n % len(suited)]
            candidate = Function(_spoilt(case, rng, relative), takes)
            own = case if "initial_state" in takes else replace(case, initial_state=None)
            score.count(f"single weights off by {relative:g} caught, candidate takes {way}", caught(candidate, own))


def _is_suited(case: Case) -> bool:
    layer = case.layer
    plain = isinstance(layer, Recurrent) and layer.dtype == np.float32 and case.mask is None
    return plain and 2 <= layer.units <= 64 and "-normal" in case.id


def _spoilt(case: Case, rng: np.random.Generator, relative: float) -> Callable[[Case], Sequence[Array]]:
    """The layer with one of its weights off by so much, drawn for this case."""
    weights = case.layer.weights
    # of an array of zeros nothing would be off by a part of itself
    name = rng.choice([name for name, array in weights.items() if array.any()])
    at = tuple(int(rng.integers(size)) for size in weights[name].shape)

    def compute(asked: Case) -> Sequence[Array]:
        own = asked.layer.weights
        array = own[name].copy()
        array[at] *= array.dtype.type(1 + relative)
        return computed(replace(asked, layer=asked.layer.replace(**{**own, name: array})))[0]

    return compute
