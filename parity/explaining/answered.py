"""Questions with what was answered to them, to be held against the wrong Cases of the catalogue."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from parity.candidates.answer import Answer
from parity.cases.case import Case
from parity.explaining.functions import computed
from parity.judging.compare import as_steps
from parity.judging.findings import Finding
from parity.judging.judge import rejudge
from parity.judging.query import last_dtype
from parity.judging.tally import NOTHING_GRANTED, Tolerance
from parity.mistakes.wrong_cases import WrongCases
from parity.rounding.arithmetic import ARITHMETIC
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

_FEW = 4
"""Rows that are enough to reject most of what is wrong."""

_FEW_STEPS = 3
"""Steps within which plain arithmetic cannot go astray by more than rounding."""

_STRAYS = 1e4
"""Units of rounding that no correct implementation is off by within three steps, whatever the order of its sums."""


class Answered:
    """A question and its answers. tolerance: what the verdict granted. wrong: the wrong Cases for it."""

    def __init__(self, finding: Finding, tolerance: Tolerance = NOTHING_GRANTED) -> None:
        self.finding, self.tolerance = finding, tolerance
        self.case = finding.case
        self.wrong = WrongCases(finding.case)

    @cached_property
    def failed(self) -> bool:
        return self.finding.verdict == "FAIL"

    @cached_property
    def repeats(self) -> bool:
        """Whether it is the same question again, and the same answer: that says nothing new."""
        if self.case.calls == 1 or self.case.layer.stateful:
            return False
        first, *rest = (answer.outputs or () for answer in self.finding.answers)
        return all(_same(first, outputs) for outputs in rest)

    @property
    def cost(self) -> float:
        return float(self.case.size) * max(self.case.layer.units, 1)

    @cached_property
    def sequence(self) -> Array | None:
        """What one recurrent layer put out at every step, (batch, timesteps, units) in the order of processing; None
        where that was not seen."""
        answer, layer = self.finding.answers[0], self.case.layer
        if answer.sequence is not None:
            return answer.sequence
        whole = self.case.timesteps == 1 or (isinstance(layer, Recurrent) and layer.return_sequences)
        return as_steps(answer.outputs[0]) if answer.outputs and whole else None

    def against(self, wrong: Case) -> Finding:
        """The answers judged as if that case had been asked."""
        return rejudge(wrong, self.finding.answers, self.tolerance)

    def rejects(self, wrong: Case) -> bool:
        """Whether the answers are outside of what rounding makes of that case."""
        return outside(self.against(wrong))

    # --- what rejects most of what is wrong, at a tenth of the cost ---

    def few(self) -> "Answered":
        """Some of the rows, the first one that failed among them."""
        case, first = self.case, self.finding.tally.first
        if case.batch <= _FEW or self.finding.wrong:  # an array that is missing or of another shape may lack the rows
            return self
        failed = [first["batch"]] if first else []
        others = np.linspace(0, case.batch - 1, _FEW - len(failed)).astype(int)
        rows = np.unique([*failed, *others])
        part = case.rows_at(rows)
        answers = tuple(_rows_of(answer, rows) for answer in self.finding.answers)
        # of a question that passed it is known that every row did
        finding = rejudge(part, answers, self.tolerance) if self.failed else self.finding
        return Answered(replace(finding, case=part, answers=answers), self.tolerance)

    @cached_property
    def early(self) -> int:
        """Of how many first steps the outputs are seen before plain arithmetic can go astray by more than rounding."""
        case = self.case
        if case.calls > 1 or not self.finding.answers[0].outputs:
            return 0
        if case.timesteps <= _FEW_STEPS:
            return case.timesteps
        shown = isinstance(case.layer, Recurrent) and case.layer.return_sequences
        return _FEW_STEPS if shown else 0

    def strays(self, wrong: Case, least: float = 0.0) -> bool:
        """Whether the first steps, where they are seen, are by far more than rounding, and than `least`, from what the
        wrong Case computes in plain arithmetic. Relative to numbers above 1. What is granted at each step may come to
        any amount in the next."""
        if not self.early or self.tolerance.given:
            return False
        allowed = max(_STRAYS * ARITHMETIC[last_dtype(wrong.layer).name].unit, least)
        outputs, steps = self.finding.answers[0].outputs or (), slice(None)
        if self.early < self.case.timesteps:  # the states after it are of later steps
            outputs, steps = outputs[:1], slice(self.early)
        pairs = zip(outputs, computed(wrong)[0], strict=False)
        return any(y.shape != z.shape or _farther(y[:, steps], z[:, steps], allowed) for y, z in pairs)


def answered(findings: Iterable[Finding], tolerance: Tolerance = NOTHING_GRANTED) -> list[Answered]:
    """The questions that say anything, the failed ones first, the cheap ones first."""
    every = [
        Answered(finding, tolerance) for finding in findings if finding.answers and finding.verdict != "INCONCLUSIVE"
    ]
    return sorted(every, key=lambda one: (not one.failed, one.cost))


def outside(finding: Finding) -> bool:
    """Whether what was found is more than rounding, or samples say that it may be."""
    return finding.verdict == "FAIL" or finding.evidence.worst > 1


def _same(a: tuple[Array, ...], b: tuple[Array, ...]) -> bool:
    return len(a) == len(b) and all(np.array_equal(y, z, equal_nan=True) for y, z in zip(a, b, strict=True))


def _farther(got: Array, y: Array, allowed: float) -> bool:
    y = y.astype(np.float64)  # of bfloat16 NumPy warns where it looks for the largest of NaN
    with np.errstate(invalid="ignore"):
        apart = np.abs(got.astype(np.float64) - y).max(initial=0)
    return bool(apart > allowed * max(1.0, float(np.abs(y).max(initial=0))))  # False for NaN


def _rows_of(answer: Answer, rows: NDArray[np.intp]) -> Answer:
    """The answer for those rows alone."""
    return replace(
        answer,
        outputs=None if answer.outputs is None else tuple(y[rows] for y in answer.outputs),
        sequence=None if answer.sequence is None else answer.sequence[rows],
        layers={name: y[rows] for name, y in answer.layers.items()},
        sequences={name: y[rows] for name, y in answer.sequences.items()},
    )
