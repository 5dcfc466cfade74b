"""Adequacy of a PASS: a mistake that the answers satisfy as well is one that the check could not have seen."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from parity.cases.case import Case
from parity.explaining.answered import Answered, answered
from parity.explaining.deadline import Deadline
from parity.explaining.functions import computed, differ, richer, widened
from parity.judging.findings import Finding
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


def adequacy(findings: Iterable[Finding], only: str | None = None, seconds: float = math.inf) -> Adequacy:
    """The mistakes that these answers would not have shown; of each whether it is the same function with these weights,
    and why it does not show. seconds: of this thread's time."""
    deadline = Deadline(seconds, time.thread_time)
    passed = _Passed([question for question in answered(findings) if not question.failed])
    mistakes = [mistake for mistake in MISTAKES.values() if mistake.common and only in (None, mistake.id)]
    blind: list[Blind] = []
    visible: list[str] = []
    for n, mistake in enumerate(mistakes):
        if deadline.passed:
            return Adequacy(tuple(blind), tuple(visible), tuple(mistake.id for mistake in mistakes[n:]))
        labels = passed.labels(mistake)
        hidden = passed.hidden(mistake, labels)
        if hidden:
            blind.append(passed.blind(mistake, hidden))
        elif labels:
            visible.append(mistake.id)
    return Adequacy(tuple(blind), tuple(visible))


class _Passed:
    """Questions that passed. To try a mistake on all rows takes long. slices: a few rows of each, where most show
    already; whole: those questions that have more."""

    def __init__(self, questions: list[Answered]) -> None:
        self.questions = questions
        self.slices = [question.few() for question in questions]
        pairs = zip(questions, self.slices, strict=True)
        self.whole = [question for question, part in pairs if part is not question]

    def labels(self, mistake: Mistake) -> list[str]:
        """The variants of the mistake that change some question."""
        first = self.questions if mistake.mixes_rows else self.slices
        return list(dict.fromkeys(label for question in first for label in question.wrong[mistake.id]))

    def hidden(self, mistake: Mistake, labels: list[str]) -> list[str]:
        """Those variants of which every answer is within rounding."""
        asked = self.questions if mistake.mixes_rows else [*self.slices, *self.whole]
        return [label for label in labels if not any(_shows(question, mistake, label) for question in asked)]

    def blind(self, mistake: Mistake, hidden: list[str]) -> Blind:
        """What is told of variants that do not show: the first one that is another function, else the last."""
        for label in hidden:
            found = self._blind(mistake, label)
            if not found.same:
                break
        return found

    def _blind(self, mistake: Mistake, label: str) -> Blind:
        applies = [question.case for question in self.questions if label in question.wrong[mistake.id]]
        same = not any(_visible_elsewhere(case, mistake, label) for case in applies[:3])
        why = mistake.hides(max(applies, key=lambda case: case.batch))
        why = why or ("" if same else "it moves nothing by more than rounding may")
        return Blind(mistake.id, mistake.what, why, same, label)


def _shows(question: Answered, mistake: Mistake, label: str) -> bool:
    wrong = question.wrong[mistake.id].get(label)
    if wrong is None or (question.repeats and not wrong.layer.stateful):  # then the first call alone says as much
        return False
    if question.repeats and _moves_on(wrong):
        return True
    # as the balls would say, at a tenth of their cost
    if question.early and question.strays(wrong, least=10 * question.finding.tally.widest):
        return True
    finding = question.against(wrong)
    return finding.verdict == "FAIL" or finding.evidence.worst > 1


def _moves_on(wrong: Case) -> bool:
    """Whether a second call would be quite another than the first: then a repeated answer rules it out, even where
    what is kept (LSTM's c) is not seen."""
    first, second, *_ = computed(widened(wrong))
    apart = max(float(np.nan_to_num(np.abs(a - b)).max(initial=0)) for a, b in zip(first, second, strict=True))
    return apart > 1e-3 * float(np.nan_to_num(np.abs(first[0])).max(initial=0))


def _visible_elsewhere(case: Case, mistake: Mistake, label: str) -> bool:
    """Whether, with the same weights, other inputs, states or masks would show it."""
    for _, other in richer(case):
        wrong = mistake.variants(other).get(label)
        if wrong is not None and differ(other, wrong):
            return True
    return False
