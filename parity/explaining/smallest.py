"""The smallest case that still fails: fewer steps, rows, units and features; weights, states and masks left out."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.candidates.functions import Candidate
from parity.cases.case import Case
from parity.errors import CandidateError
from parity.judging.findings import Tolerance
from parity.judging.judge import examine
from rnn_scratch.layers import Recurrent

SECONDS = 1.0


@dataclass
class Shrinker:
    """candidate: whom to ask. tolerance: what is granted beside rounding. deadline: of time.monotonic()."""

    candidate: Candidate
    tolerance: Tolerance
    deadline: float

    def fails(self, case: Case) -> bool:
        try:
            return examine(self.candidate, case, self.tolerance).verdict == "FAIL"
        except (CandidateError, ValueError):
            return False

    def first(self, case: Case, smaller: Iterator[Case]) -> Case:
        """The first of the smaller cases that fails, or the case itself."""
        for other in smaller:
            if time.monotonic() > self.deadline:
                break
            if self.fails(other):
                return other
        return case

    def fewest_steps(self, case: Case) -> Case:
        """The case cut short: twice as many steps until it fails, then halfway back to the last that did not."""
        passes, fails = 0, case.timesteps
        steps = 1
        while case.calls == 1 and passes + 1 < fails and time.monotonic() < self.deadline:
            if self.fails(case.first(steps)):
                fails = steps
            else:
                passes = steps
            steps = (passes + fails) // 2 if fails < case.timesteps else min(2 * steps, (passes + fails + 1) // 2)
        return case if fails == case.timesteps else case.first(fails)


def shrink(candidate: Candidate, case: Case, tolerance: Tolerance, seconds: float | None = None) -> Case:
    """A smaller case that the candidate fails as well, found within about that time; the case itself if there is none.

    Steps and rows always; units, features and weights where it takes `layer`, which must be one recurrent layer.
    """
    deadline = time.monotonic() + (SECONDS if seconds is None else seconds)
    asked = Shrinker(candidate, tolerance, deadline)
    ways: list[Callable[[Case], Iterator[Case]]] = [single_rows, without]
    if "layer" in candidate.takes and isinstance(case.layer, Recurrent):
        ways += [fewer_units, fewer_features, zeroed]
    small, before = case, None
    while small is not before and time.monotonic() < deadline:
        before = small
        small = asked.fewest_steps(small)
        for way in ways:
            small = asked.first(small, way(small))
    return small if small is case else replace(small, id=f"{case.id.partition(' / ')[0]} / smallest", rows=())


def single_rows(case: Case) -> Iterator[Case]:
    """One row, or where it takes several two of them."""
    rows = range(case.batch)
    for chosen in itertools.chain(((n,) for n in rows), itertools.pairwise(rows)):
        if len(chosen) < case.batch:
            yield replace(case.rows_at(np.array(chosen)), rows=())


def without(case: Case) -> Iterator[Case]:
    if case.mask is not None:
        yield replace(case, mask=None)
    if case.initial_state is not None:
        yield replace(case, initial_state=None)
    if case.numpy_floats and not case.zero:
        yield case.mapped(np.zeros_like)


def subsets(n: int) -> Iterator[np.ndarray[Any, Any]]:
    """Parts of n things, the small ones first: single ones, then pairs, then halves."""
    if n > 1:
        yield from (np.array([k]) for k in range(min(n, 8)))
    if n > 2:
        yield from (np.array(pair) for pair in itertools.combinations(range(min(n, 6)), 2))
    if n > 4:
        yield np.arange(n // 2)
        yield np.arange(n // 2, n)


def fewer_units(case: Case) -> Iterator[Case]:
    layer: Any = case.layer
    cell, u = layer.cell, layer.units
    for kept in subsets(u):
        rows = np.concatenate([gate * u + kept for gate in range(len(cell.gates))])
        new = {"Wx": cell.Wx[rows], "Wh": cell.Wh[rows][:, kept], "b": cell.b[..., rows]}
        yield case.units_at(kept, layer=with_arrays(layer, new))


def fewer_features(case: Case) -> Iterator[Case]:
    layer: Any = case.layer
    for kept in subsets(layer.input_dim):
        new = {"Wx": layer.cell.Wx[:, kept]}
        yield case.features_at(kept, layer=with_arrays(layer, new))


def with_arrays(layer: Any, new: dict[str, Any]) -> Any:
    return layer.replace(**{name: new.get(name, array) for name, array in layer.weights.items()})


def zeroed(case: Case) -> Iterator[Case]:
    """Whole arrays at zero, then each gate's block, then single weights of small ones."""
    layer: Any = case.layer
    for name, array in layer.weights.items():
        if array.any():
            yield replace(case, layer=with_arrays(layer, {name: np.zeros_like(array)}))
    for name, array in layer.weights.items():
        if array.size <= 32:
            for at in np.argwhere(array) if np.count_nonzero(array) > 1 else ():
                new = array.copy()
                new[tuple(at)] = 0
                yield replace(case, layer=with_arrays(layer, {name: new}))


def described(case: Case) -> str:
    """What is left, in a line."""
    layer: Any = case.layer
    parts = [f"batch {case.batch}", f"{case.timesteps} timestep{'s' if case.timesteps > 1 else ''}"]
    if isinstance(layer, Recurrent):
        parts += [f"{layer.cell.input_dim} feature{'s' if layer.cell.input_dim > 1 else ''}"]
        parts += [f"{layer.units} unit{'s' if layer.units > 1 else ''}"]
        zero = [name for name, array in layer.weights.items() if not array.any()]
        parts += [f"{' and '.join(zero)} = 0"] if zero else []
    parts += ["with a mask"] if case.mask is not None else []
    parts += ["with an initial state"] if case.initial_state is not None else []
    parts += ["x = 0"] if case.zero else []
    return ", ".join(parts)
