"""What judging finds: what one question showed, and the verdict that this comes to."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from parity.candidates.answer import Answer
from parity.cases.case import Case
from parity.judging.tally import Tally

SAMPLED_FAIL = 10.0
"""Evidence fails above so many times the spread of perturbed references; above once, nobody knows."""

PROVING = frozenset({"stepwise", "stepped", "forward"})
"""The methods whose FAIL and whose PASS are proved."""


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
        inside = self.tally.first is None
        self.parts[names] = part
        self._add(part)
        if inside and self.tally.first:
            self.notes.append(f"first in layer {' + '.join(names)}")
        self.notes += part.notes

    def add_call(self, call: "Finding", later: int) -> None:
        """What one of several calls showed, so many steps after the first."""
        self._add(call, later)

    def _add(self, other: "Finding", later: int = 0) -> None:
        self.proof.merge(other.proof, later)
        self.evidence.merge(other.evidence, later)
        self.used(other.method)
        self.vacuous = self.vacuous or other.vacuous

    def used(self, methods: Sequence[str]) -> None:
        """By those, and each is said once."""
        self.method += [method for method in methods if method not in self.method]

    @property
    def verdict(self) -> str:
        if self.disputed:
            return "INCONCLUSIVE"
        if self.wrong or self.proof.worst > 1 or self.evidence.worst > SAMPLED_FAIL:
            return "FAIL"
        open_still = self.undecided or self.evidence.worst > 1 or self.vacuous or self.faint
        return "INCONCLUSIVE" if open_still else "PASS"

    @property
    def faint(self) -> str | None:
        """Why nothing is told where everything expected is so small that zeros would have passed."""
        if not self.tally.some or self.tally.told:
            return None
        return "what rounding may do is as wide as the signal: zeros would have passed too"

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
