"""What judging finds: how far a candidate is off, and what that comes to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.answer import Answer
from parity.cases.case import Case
from parity.judging.trace import Course
from parity.report.verdicts import PROVING

Array = NDArray[Any]

SAMPLED_FAIL = 10.0
"""Evidence fails above so many times the spread of perturbed references; above once, nobody knows."""

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
    first: dict[str, Any] | None = None
    top: list[dict[str, Any]] = field(default_factory=list)
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
            ratio = np.where(classes == 1, np.where(np.isnan(ratio), np.inf, ratio), classes)
            difference = np.where(classes == 1, np.where(np.isnan(difference), np.inf, difference), 0)
            self.undecided += int(np.isnan(ratio).sum())
        worst = largest(ratio) if classes is None else float(np.fmax.reduce(ratio, axis=None, initial=0))
        if classes is None and not np.isfinite(worst):
            return False
        self.count += got.size
        self.worst, self.max_abs = max(self.worst, worst), max(self.max_abs, largest(difference))
        self.squares += float(np.vdot(difference, difference))
        self.widest = max(self.widest, largest(np.nan_to_num(rad, posinf=0)))
        ratio = ratio if classes is None else np.where(np.isnan(ratio), 0, ratio)
        self.course.add(difference, rad, ratio, timestep)
        if self.kept is not None:
            self.kept.append((timestep, np.copysign(difference, got - mid), ratio > 1))
        if worst > 1:
            self._record(got, mid, rad, ratio, timestep)
        return True

    def expect(self, mid: Array, rad: Array) -> None:
        """What is expected, within what rounding does to it."""
        if not self.told:
            self.some = self.some or bool(mid.any())
            self.told = bool((~(np.abs(mid) <= rad)).any())

    def _record(self, got: Array, mid: Array, rad: Array, ratio: Array, timestep: int) -> None:
        outside = ratio > 1
        self.outside += int(outside.sum())

        def element(row: int, step: int, unit: int) -> dict[str, Any]:
            at = row, step, unit
            found = {"batch": row, "timestep": timestep + step, "unit": unit}
            values = {"expected": mid[at], "got": got[at], "radius": rad[at], "ratio": ratio[at]}
            return found | {name: float(value) for name, value in values.items()}

        if self.first is None:
            step, row, unit = (int(index) for index in np.argwhere(outside.swapaxes(0, 1))[0])
            self.first = element(row, step, unit)
        if len(self.top) < WORST or largest(ratio) > self.top[-1]["ratio"]:
            many = min(WORST, ratio.size)
            at = np.unravel_index(np.argpartition(ratio, -many, axis=None)[-many:], ratio.shape)
            self._rank([element(*map(int, index)) for index in zip(*at, strict=True)])

    def _rank(self, elements: list[dict[str, Any]]) -> None:
        ranked = sorted([*self.top, *elements], key=lambda e: (-e["ratio"], e["timestep"], e["batch"], e["unit"]))
        self.top = [e for e in ranked if e["ratio"] > 1][:WORST]

    def merge(self, other: "Tally", later: int = 0) -> None:
        """later: by how many steps the other's first one comes after this one's."""
        self.worst, self.max_abs = max(self.worst, other.worst), max(self.max_abs, other.max_abs)
        self.widest = max(self.widest, other.widest)
        self.squares, self.count = self.squares + other.squares, self.count + other.count
        self.some, self.told = self.some or other.some, self.told or other.told
        self.outside, self.undecided = self.outside + other.outside, self.undecided + other.undecided
        if self.first is None and other.first is not None:
            self.first = other.first | {"timestep": other.first["timestep"] + later}
        self._rank([element | {"timestep": element["timestep"] + later} for element in other.top])
        self.course.merge(other.course, later)


def largest(array: Array) -> float:
    """Its maximum, NaN if it has one; 0 for an empty array. Nothing in it is negative."""
    return float(array.max(initial=0))


@dataclass
class Finding:
    """What one question showed.

    method: how the states were seen. proof, evidence: what bounds and what samples say; above 1 the one fails, the
    other is inconclusive up to SAMPLED_FAIL. wrong: an array missing or of another shape. vacuous: why the evidence
    says nothing. disputed: why nothing is concluded at all. parts: of a model, what its layers showed, by the names of
    those that had to be judged together. answers: what was judged, one for each call.
    """

    case: Case
    method: list[str] = field(default_factory=list)
    proof: Tally = field(default_factory=Tally)
    evidence: Tally = field(default_factory=Tally)
    wrong: str | None = None
    vacuous: str | None = None
    disputed: str | None = None
    notes: list[str] = field(default_factory=list)
    parts: "dict[tuple[str, ...], Finding]" = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()

    def add_part(self, names: tuple[str, ...], part: "Finding") -> None:
        """What one layer of a model showed is part of what the model showed."""
        first = self.tally.first
        self.parts[names] = part
        self.proof.merge(part.proof)
        self.evidence.merge(part.evidence)
        self.method += [method for method in part.method if method not in self.method]
        self.vacuous = self.vacuous or part.vacuous
        if first is None and self.tally.first:
            self.notes.append(f"first in layer {' + '.join(names)}")
        self.notes += part.notes

    def add_call(self, call: "Finding", later: int) -> None:
        """What one of several calls showed, so many steps after the first."""
        self.proof.merge(call.proof, later)
        self.evidence.merge(call.evidence, later)
        self.method += [method for method in call.method if method not in self.method]
        self.vacuous = self.vacuous or call.vacuous

    @property
    def verdict(self) -> str:
        if self.disputed:
            return "INCONCLUSIVE"
        if self.wrong or self.proof.worst > 1 or self.evidence.worst > SAMPLED_FAIL:
            return "FAIL"
        if self.undecided or self.evidence.worst > 1:
            return "INCONCLUSIVE"
        return "INCONCLUSIVE" if self.vacuous or self.faint else "PASS"

    @property
    def faint(self) -> str | None:
        """Why nothing is told where everything expected is so small that zeros would have passed."""
        nothing = self.tally.some and not self.tally.told
        return "what rounding may do is as wide as the signal: zeros would have passed too" if nothing else None

    @property
    def undecided(self) -> str | None:
        """How many elements nobody can tell of, and why."""
        number = self.proof.undecided + self.evidence.undecided
        return f"of {number:,} elements nobody can tell: some order of their sums overflows" if number else None

    @property
    def open(self) -> str | None:
        """Why nobody can answer the question, where that is all there is to say of it."""
        settled = self.verdict != "INCONCLUSIVE" or self.disputed or self.evidence.worst > 1
        return None if settled else self.vacuous or self.undecided or self.faint

    @property
    def proved(self) -> bool:
        if self.verdict == "FAIL":
            return bool(self.wrong) or self.proof.worst > 1
        return self.verdict == "PASS" and set(self.method) <= PROVING

    @property
    def tally(self) -> Tally:
        total = Tally()
        total.merge(self.proof)
        total.merge(self.evidence)
        return total
