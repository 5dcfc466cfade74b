"""The smallest case that still fails: fewer steps, rows, units and features; weights, states and masks left out."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from parity.candidates.answer import Candidate
from parity.cases.case import Case
from parity.errors import CandidateError
from parity.explaining.deadline import Deadline
from parity.judging.judge import examine
from parity.judging.tally import Tolerance
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

SECONDS = 1.0

_Way = Callable[[Case], Iterator[Case]]
"""Smaller cases than the one given, the smallest first."""

_MOST_WEIGHTS = 32
"""Of an array of more no single weight is tried at zero."""


@dataclass
class _Search:
    """candidate: whom to ask. tolerance: what is granted beside rounding."""

    candidate: Candidate
    tolerance: Tolerance
    deadline: Deadline

    def fails(self, case: Case) -> bool:
        try:
            return examine(self.candidate, case, self.tolerance).verdict == "FAIL"
        except (CandidateError, ValueError):
            return False

    def smallest(self, case: Case, ways: Sequence[_Way]) -> Case:
        """The case made smaller in all those ways, over and over, until none makes it smaller."""
        before = None
        while case is not before and not self.deadline.passed:
            before = case
            case = self.fewest_steps(case)
            for way in ways:
                case = self.first(case, way(case))
        return case

    def first(self, case: Case, smaller: Iterator[Case]) -> Case:
        """The first of the smaller cases that fails, or the case itself."""
        for other in smaller:
            if self.deadline.passed:
                break
            if self.fails(other):
                return other
        return case

    def fewest_steps(self, case: Case) -> Case:
        """The case cut short: twice as many steps until it fails, then halfway back to the last that did not."""
        if case.calls > 1:
            return case
        passes, fails, steps = 0, case.timesteps, 1
        while passes + 1 < fails and not self.deadline.passed:
            if self.fails(case.first(steps)):
                fails = steps
            else:
                passes = steps
            halfway = (passes + fails) // 2
            steps = halfway if fails < case.timesteps else min(2 * steps, (passes + fails + 1) // 2)
        return case if fails == case.timesteps else case.first(fails)


def shrink(candidate: Candidate, case: Case, tolerance: Tolerance, seconds: float | None = None) -> Case:
    """A smaller case that the candidate fails as well, found within about that time; the case itself if there is none.

    Steps and rows always; units, features and weights where it takes `layer`, which must be one recurrent layer.
    """
    search = _Search(candidate, tolerance, Deadline(SECONDS if seconds is None else seconds))
    ways: list[_Way] = [_fewer_rows, _without]
    if "layer" in candidate.takes and isinstance(case.layer, Recurrent):
        ways += [_fewer_units, _fewer_features, _zeroed]
    small = search.smallest(case, ways)
    if small is case:
        return case
    return replace(small, id=f"{case.id.partition(' / ')[0]} / smallest", rows=())


# --- smaller cases ---


def _fewer_rows(case: Case) -> Iterator[Case]:
    """One row, or where it takes several two of them."""
    rows = range(case.batch)
    for chosen in itertools.chain(((n,) for n in rows), itertools.pairwise(rows)):
        if len(chosen) < case.batch:
            yield replace(case.rows_at(np.array(chosen)), rows=())


def _without(case: Case) -> Iterator[Case]:
    if case.mask is not None:
        yield replace(case, mask=None)
    if case.initial_state is not None:
        yield replace(case, initial_state=None)
    if case.numpy_floats and not case.zero:
        yield case.mapped(np.zeros_like)


def _subsets(n: int) -> Iterator[NDArray[np.intp]]:
    """Parts of n things, the small ones first: single ones, then pairs, then halves."""
    if n > 1:
        yield from (np.array([k]) for k in range(min(n, 8)))
    if n > 2:
        yield from (np.array(pair) for pair in itertools.combinations(range(min(n, 6)), 2))
    if n > 4:
        yield np.arange(n // 2)
        yield np.arange(n // 2, n)


def _fewer_units(case: Case) -> Iterator[Case]:
    layer = _recurrent(case)
    cell = layer.cell
    blocks = np.arange(len(cell.Wx)).reshape(len(cell.gates), cell.units)
    for kept in _subsets(cell.units):
        rows = blocks[:, kept].ravel()
        new = {"Wx": cell.Wx[rows], "Wh": cell.Wh[rows][:, kept], "b": cell.b[..., rows]}
        yield case.units_at(kept, layer=_with_arrays(layer, new))


def _fewer_features(case: Case) -> Iterator[Case]:
    layer = _recurrent(case)
    for kept in _subsets(layer.input_dim):
        smaller = _with_arrays(layer, {"Wx": layer.cell.Wx[:, kept]})
        yield case.features_at(kept, layer=smaller)


def _zeroed(case: Case) -> Iterator[Case]:
    """Whole arrays at zero, then single weights of small ones."""
    layer = _recurrent(case)
    for name, array in layer.weights.items():
        if array.any():
            yield replace(case, layer=_with_arrays(layer, {name: np.zeros_like(array)}))
    for name, array in layer.weights.items():
        few = array.size <= _MOST_WEIGHTS and np.count_nonzero(array) > 1
        for at in np.argwhere(array) if few else ():
            new = array.copy()
            new[tuple(at)] = 0
            yield replace(case, layer=_with_arrays(layer, {name: new}))


def _recurrent(case: Case) -> Recurrent:
    assert isinstance(case.layer, Recurrent)
    return case.layer


def _with_arrays(layer: Recurrent, new: dict[str, Array]) -> Recurrent:
    """Those arrays for the layer's own, of as many as it has."""
    return layer.replace(**{name: new.get(name, array) for name, array in layer.weights.items()})


# --- what is told of it ---


def described(case: Case) -> str:
    """What is left, in a line."""
    parts = [f"batch {case.batch}", _counted(case.timesteps, "timestep")]
    if isinstance(case.layer, Recurrent):
        parts += [_counted(case.layer.input_dim, "feature"), _counted(case.layer.units, "unit")]
        zero = [name for name, array in case.layer.weights.items() if not array.any()]
        parts += [f"{' and '.join(zero)} = 0"] if zero else []
    given = {
        "with a mask": case.mask is not None,
        "with an initial state": case.initial_state is not None,
        "x = 0": case.zero,
    }
    return ", ".join([*parts, *(told for told, holds in given.items() if holds)])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"
