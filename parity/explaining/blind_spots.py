"""Adequacy of a PASS: a mistake that the answers satisfy as well is one that the check could not have seen."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from parity.cases.case import Case
from parity.explaining.answered import Answered, answered
from parity.explaining.deadline import Deadline
from parity.explaining.functions import computed, widened
from parity.explaining.same_function import same_function
from parity.judging.findings import Finding
from parity.judging.tally import NOTHING_GRANTED, Tolerance
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.entry import Mistake
from parity.report.data import Blind


@dataclass(frozen=True)
class Adequacy:
    """What a PASS is worth. blind: the mistakes that a port may have made and still pass; visible: the ids of those
    that would have shown; left: of those that were not looked for, for want of time."""

    blind: tuple[Blind, ...] = ()
    visible: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def adequacy(
    findings: Iterable[Finding],
    only: str | None = None,
    seconds: float = math.inf,
    tolerance: Tolerance = NOTHING_GRANTED,
) -> Adequacy:
    """The mistakes that these answers would not have shown; of each whether it is the same function with these weights,
    and why it does not show. seconds: of this thread's time. tolerance: what the verdicts granted beside rounding."""
    deadline = Deadline(seconds, time.thread_time)
    search = _Search([question for question in answered(findings, tolerance) if not question.failed])
    mistakes = [mistake for mistake in MISTAKES.values() if mistake.common and only in (None, mistake.id)]
    for n, mistake in enumerate(mistakes):
        if deadline.passed:
            return search.found(left=mistakes[n:])
        search.look_for(mistake)
    return search.found(left=[])


class _Search:
    """Over questions that passed.

    To try a mistake on all rows takes long. slices: a few rows of each question, where most show already; whole: those
    questions that have more.
    """

    def __init__(self, questions: Sequence[Answered]) -> None:
        self.questions = questions
        self.slices = [question.few() for question in questions]
        pairs = zip(questions, self.slices, strict=True)
        self.whole = [question for question, part in pairs if part is not question]
        self.blind: list[Blind] = []
        self.visible: list[str] = []

    def found(self, left: Sequence[Mistake]) -> Adequacy:
        ids = tuple(mistake.id for mistake in left)
        return Adequacy(tuple(self.blind), tuple(self.visible), ids)

    def look_for(self, mistake: Mistake) -> None:
        """Whether the mistake would have shown, if it applies at all."""
        first, then = (self.questions, ()) if mistake.mixes_rows else (self.slices, self.whole)
        labels = _labels(first, mistake)
        # what is the same function cannot show; it is told only where the whole mistake is
        others = [label for label in labels if not self._is_same(mistake, label)]
        hidden = [label for label in others if not _show([*first, *then], mistake, label)]
        if hidden:
            self.blind.append(self._blind(mistake, hidden[0]))
        elif others:
            self.visible.append(mistake.id)
        elif labels:
            why = mistake.hides(self._case_of(mistake, labels[0])) or "every array of it stays as it is"
            self.blind.append(Blind(mistake.id, mistake.what, why, same=True))

    def _is_same(self, mistake: Mistake, label: str) -> bool:
        """Whether in every question that variant is the same function, whatever the inputs are."""
        pairs = [(question.case, question.wrong[mistake.id].get(label)) for question in self.questions]
        return all(wrong is None or same_function(case, wrong) for case, wrong in pairs)

    def _case_of(self, mistake: Mistake, label: str) -> Case:
        """The largest batch of which there is that variant."""
        applies = [question.case for question in self.questions if label in question.wrong[mistake.id]]
        return max(applies, key=lambda case: case.batch)

    def _blind(self, mistake: Mistake, label: str) -> Blind:
        why = mistake.hides(self._case_of(mistake, label)) or "it moves nothing by more than rounding may"
        return Blind(mistake.id, mistake.what, why, detail=label)


def _labels(questions: Sequence[Answered], mistake: Mistake) -> list[str]:
    """Of the variants of a mistake, over all of those questions."""
    return list(dict.fromkeys(label for question in questions for label in question.wrong[mistake.id]))


def _show(questions: Iterable[Answered], mistake: Mistake, label: str) -> bool:
    """Whether some answer is outside of rounding of that variant."""
    for question in questions:
        wrong = question.wrong[mistake.id].get(label)
        if wrong is not None and _shows(question, wrong):
            return True
    return False


def _shows(question: Answered, wrong: Case) -> bool:
    if not question.repeats:
        return question.strays(wrong, least=10 * question.finding.tally.widest) or question.rejects(wrong)
    # the first call alone says as much of what keeps nothing
    return wrong.layer.stateful and (_moves_on(wrong) or question.rejects(wrong))


def _moves_on(wrong: Case) -> bool:
    """Whether a second call would be quite another than the first: then a repeated answer rules it out, even where
    what is kept (LSTM's c) is not seen."""
    first, second, *_ = computed(widened(wrong))
    apart = max(float(np.nan_to_num(np.abs(a - b)).max(initial=0)) for a, b in zip(first, second, strict=True))
    return apart > 1e-3 * float(np.nan_to_num(np.abs(first[0])).max(initial=0))
