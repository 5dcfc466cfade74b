"""How far a candidate is off, counted element by element."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.judging.trace import Course

Array = NDArray[Any]
Element = dict[str, Any]
"""Where an element stands (batch, timestep, unit), what was expected of it within which radius, and what came."""

WORST = 5


@dataclass(frozen=True)
class Tolerance:
    """What the user grants beside rounding; a verdict that had it is not proved."""

    atol: float = 0.0
    rtol: float = 0.0

    def widen(self, rad: Array, mid: Array) -> Array:
        return np.maximum(rad, self.atol + self.rtol * np.abs(mid)) if self.given else rad

    @property
    def given(self) -> bool:
        return bool(self.atol or self.rtol)


NOTHING_GRANTED = Tolerance()


@dataclass
class Tally:
    """How far the candidate is off, in radii and absolutely, over all elements added so far, in the order of time.

    some, told: whether something else than zero was expected, and whether zeros would have been told from it.
    widest: the largest radius. kept: where that is asked for, of each piece its first step, the differences and where
    they are outside. first, top: the first element outside and the WORST worst ones. course: over time.
    """

    worst: float = 0.0
    max_abs: float = 0.0
    squares: float = 0.0
    count: int = 0
    outside: int = 0
    undecided: int = 0
    some: bool = False
    told: bool = False
    widest: float = 0.0
    kept: list[tuple[int, Array, Array]] | None = None
    first: Element | None = None
    top: list[Element] = field(default_factory=list)
    course: Course = field(default_factory=Course)

    @property
    def rms(self) -> float:
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0

    def add(self, got: Array, mid: Array, rad: Array, timestep: int, classes: Array | None = None) -> bool:
        """All (batch, steps, units), the first step being `timestep`. False, and nothing added, where something is not
        finite and `classes` is not given: 0 where NaN or infinity agree, NaN where nobody can tell, 1 for a number."""
        difference = np.abs(got - mid)
        ratio = difference / rad
        if classes is not None:
            self.undecided += int(np.isnan(classes).sum())
            difference, ratio = _by_class(difference, classes), _by_class(ratio, classes)
        worst = largest(ratio)
        if classes is None and not np.isfinite(worst):
            return False
        self._count(difference, rad, worst)
        self.course.add(difference, rad, ratio, timestep)
        if self.kept is not None:
            self.kept.append((timestep, np.copysign(difference, got - mid), ratio > 1))
        if worst > 1:
            self._record(got, mid, rad, ratio, timestep)
        return True

    def _count(self, difference: Array, rad: Array, worst: float) -> None:
        self.count += difference.size
        self.squares += float(np.vdot(difference, difference))
        self.worst = max(self.worst, worst)
        self.max_abs = max(self.max_abs, largest(difference))
        self.widest = max(self.widest, largest(np.nan_to_num(rad, posinf=0)))

    def expect(self, mid: Array, rad: Array) -> None:
        """What is expected, within what rounding does to it."""
        if not self.told:
            self.some = self.some or bool(mid.any())
            self.told = bool((~(np.abs(mid) <= rad)).any())

    # --- which elements ---

    def _record(self, got: Array, mid: Array, rad: Array, ratio: Array, timestep: int) -> None:
        """The first and the worst of those outside."""

        def element(row: int, step: int, unit: int) -> Element:
            at = row, step, unit
            found = {"batch": row, "timestep": timestep + step, "unit": unit}
            values = {"expected": mid[at], "got": got[at], "radius": rad[at], "ratio": ratio[at]}
            return found | {name: float(value) for name, value in values.items()}

        outside = ratio > 1
        self.outside += int(outside.sum())
        if self.first is None:
            step, row, unit = map(int, np.argwhere(outside.swapaxes(0, 1))[0])
            self.first = element(row, step, unit)
        # a sort of every piece would cost more than judging it: most have nothing worse than what is known
        if len(self.top) < WORST or largest(ratio) > self.top[-1]["ratio"]:
            self._rank([element(*at) for at in _worst_of(ratio)])

    def _rank(self, elements: list[Element]) -> None:
        ranked = sorted([*self.top, *elements], key=lambda e: (-e["ratio"], e["timestep"], e["batch"], e["unit"]))
        self.top = [e for e in ranked if e["ratio"] > 1][:WORST]

    # --- several tallies ---

    def merge(self, other: "Tally", later: int = 0) -> None:
        """later: by how many steps the other's first one comes after this one's."""
        self.worst, self.max_abs = max(self.worst, other.worst), max(self.max_abs, other.max_abs)
        self.widest = max(self.widest, other.widest)
        self.squares, self.count = self.squares + other.squares, self.count + other.count
        self.some, self.told = self.some or other.some, self.told or other.told
        self.outside, self.undecided = self.outside + other.outside, self.undecided + other.undecided
        if self.first is None and other.first is not None:
            self.first = _moved(other.first, later)
        self._rank([_moved(element, later) for element in other.top])
        self.course.merge(other.course, later)


def _by_class(values: Array, classes: Array) -> Array:
    """The values where they decide, infinite where they are NaN there; zero elsewhere."""
    return np.where(classes == 1, np.where(np.isnan(values), np.inf, values), 0.0)


def _worst_of(ratio: Array) -> Iterator[tuple[int, ...]]:
    many = min(WORST, ratio.size)
    flat = np.argpartition(ratio, -many, axis=None)[-many:]
    for at in zip(*np.unravel_index(flat, ratio.shape), strict=True):
        yield tuple(map(int, at))


def _moved(element: Element, later: int) -> Element:
    return element | {"timestep": element["timestep"] + later}


def largest(array: Array) -> float:
    """Its maximum, NaN if it has one; 0 for an empty array. Nothing in it is negative."""
    return float(array.max(initial=0))
