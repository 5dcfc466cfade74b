"""Diagnosis of a FAIL: the answers that were given, judged against the catalogue's wrong Cases.

A mistake is named only where it explains every answer: each question that failed is within rounding of the wrong Case,
and no question that passed is outside of it.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from parity.explaining.answered import Answered, answered, outside
from parity.explaining.deadline import Deadline
from parity.explaining.functions import differ, richer
from parity.judging.findings import Finding
from parity.judging.tally import NOTHING_GRANTED, Tolerance
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.wrong_cases import Key, WrongCases
from parity.report.data import Cause

SECONDS = 1.2
"""How long pairs of mistakes are tried, of this thread's own time: a busy machine changes no answer. Single ones are
tried to the end."""

_Keys = tuple[Key, ...]
"""One mistake, or two that were made together."""

_Explained = dict[_Keys, float]
"""What explains every answer, and the largest ratio with it."""


@dataclass
class Diagnosis:
    """causes: those that explain every answer. stopped: whether pairs were left untried for want of time."""

    causes: tuple[Cause, ...] = ()
    stopped: bool = False


def diagnose(
    findings: Iterable[Finding],
    only: str | None = None,
    seconds: float | None = None,
    tolerance: Tolerance = NOTHING_GRANTED,
) -> Diagnosis:
    """Which mistakes, or pairs of them, explain what was found. only: no other one than that is tried. tolerance: what
    the verdicts granted beside rounding."""
    questions = [question for question in answered(findings, tolerance) if not question.repeats]
    if not questions or not questions[0].failed:
        return Diagnosis()
    suspects = _Suspects(questions)
    found = suspects.single(only)
    if found or only:
        return Diagnosis(_named(questions, found))
    return _pairs(suspects, SECONDS if seconds is None else seconds)


def applies(name: str, findings: Iterable[Finding]) -> bool:
    """Whether a port of what was asked about could have made that mistake at all."""
    return any(MISTAKES[name].variants(finding.case) for finding in findings)


def _pairs(suspects: "_Suspects", seconds: float) -> Diagnosis:
    if not seconds:  # to rank the pairs takes time too
        return Diagnosis(stopped=True)
    deadline = Deadline(seconds, time.thread_time)
    pairs = suspects.pairs()
    found: _Explained = {}
    for pair in pairs:
        if deadline.passed:
            return Diagnosis(_named(suspects.questions, found), stopped=True)
        found |= suspects.explained(*pair)
    for first, second in () if found else pairs:  # a few do not commute
        if deadline.passed:
            break
        found |= suspects.explained(second, first)
    return Diagnosis(_named(suspects.questions, found))


class _Suspects:
    """Mistakes that may explain the answers to some questions, of which the first failed.

    To try one on all of them takes long. quick: a few rows of those that failed, and early: those whose first steps are
    seen; these reject most.
    """

    def __init__(self, questions: Sequence[Answered]) -> None:
        self.questions = questions
        self.failed = [question for question in questions if question.failed]
        self.quick = [question.few() for question in self.failed][:3]
        self.early = [question for question in self.failed if question.early][:2]

    def explained(self, *keys: Key) -> _Explained:
        """Those mistakes together with the largest ratio, if they explain every answer."""
        try:
            if self._strays(keys) or self._contradicted(keys):
                return {}
            largest = self._largest(keys)
        except (ValueError, IndexError, TypeError):  # mistakes need not fit together, nor to arrays of any shape
            return {}
        return {} if largest is None else {keys: largest}

    def single(self, only: str | None) -> _Explained:
        """The mistakes that alone explain every answer. What does not change a question that failed is none."""
        ids = [m.id for m in MISTAKES.values() if not m.drawn and only in (None, m.id)]
        found: _Explained = {}
        for key in self.questions[0].wrong.keys(ids):
            found |= self.explained(key)
        return found

    def _strays(self, keys: _Keys) -> bool:
        for question in self.early:
            wrong = question.wrong.composed(keys)
            if wrong is None or question.strays(wrong):
                return True
        return False

    def _contradicted(self, keys: _Keys) -> bool:
        if any(MISTAKES[name].mixes_rows for name, _ in keys):  # then some rows are another question
            return False
        for question in self.quick:
            wrong = question.wrong.composed(keys)
            if wrong is None or question.against(wrong).verdict == "FAIL":
                return True
        return False

    def _largest(self, keys: _Keys) -> float | None:
        """The largest ratio over all questions; None where one is not explained, or none is decided."""
        decided, largest = False, 0.0
        for question in self.questions:
            wrong = question.wrong.composed(keys)
            if wrong is None and question.failed:
                return None
            if wrong is None:  # they change nothing there, and it passed
                continue
            found = question.against(wrong)
            if outside(found):
                return None
            decided |= question.failed and found.verdict == "PASS" and found.tally.count > 0
            largest = max(largest, found.tally.worst)
        return largest if decided else None

    def pairs(self) -> list[_Keys]:
        """Two different mistakes at a time, each with all later ones; those first that alone leave the least."""
        ranked = sorted(self._common(), key=self._unexplained)
        return [pair for pair in itertools.combinations(ranked, 2) if is_pair(*pair)]

    def _common(self) -> list[Key]:
        """The variants, of mistakes that people make, that change one of the first questions."""
        ids = [m.id for m in MISTAKES.values() if m.common and not m.drawn]
        first = [question for question in self.questions[:3] if question.failed]
        keys = [key for name in ids for question in first for key in question.wrong.keys([name])]
        return list(dict.fromkeys(keys))

    def _unexplained(self, key: Key) -> float:
        """How much of the first question one mistake leaves unexplained."""
        wrong = self.quick[0].wrong.composed([key])
        if wrong is None:
            return 1.0
        tally = self.quick[0].against(wrong).tally
        return tally.outside / tally.count if tally.count else 1.0


def is_pair(first: Key, second: Key) -> bool:
    """Whether they are two mistakes, of which neither leaves nothing of the other."""
    (one, _), (other, _) = first, second
    return one != other and other not in MISTAKES[one].moot and one not in MISTAKES[other].moot


# --- what is told of them ---


def _named(questions: Sequence[Answered], explained: _Explained) -> tuple[Cause, ...]:
    """The causes for a report, the variants of one mistake together."""
    groups: dict[tuple[str, ...], _Explained] = {}
    for keys, largest in explained.items():
        ordered = _in_order(keys)
        ids = tuple(name for name, _ in ordered)
        groups.setdefault(ids, {})[ordered] = largest
    granted = any(question.tolerance.given for question in questions)
    causes = tuple(_cause(ids, variants, granted) for ids, variants in groups.items())
    if len(causes) < 2:
        return causes
    first, second, *_ = (next(iter(variants)) for variants in groups.values())
    told = _telling(questions, first, second)
    return tuple(replace(cause, apart=told) for cause in causes)


def _in_order(keys: _Keys) -> _Keys:
    """As in the catalogue."""
    order = list(MISTAKES)
    return tuple(sorted(keys, key=lambda key: order.index(key[0])))


def _cause(ids: Sequence[str], variants: _Explained, granted: bool) -> Cause:
    mistakes = [MISTAKES[name] for name in ids]
    details = [_joined(" and ", (label for _, label in keys)) for keys in variants]
    return Cause(
        " + ".join(ids),
        _joined("; and ", (mistake.what for mistake in mistakes)),
        _joined("; and ", (mistake.fix for mistake in mistakes)),
        _joined(", ", (mistake.source for mistake in mistakes)),
        detail=_joined(" or ", details),
        largest=max(variants.values()),
        granted=granted,
    )


def _joined(between: str, texts: Iterable[str]) -> str:
    """Those that say something."""
    return between.join(filter(None, texts))


def _telling(questions: Sequence[Answered], first: _Keys, second: _Keys) -> str:
    """What would tell two causes apart that explain the same answers."""
    for question in questions:
        for what, case in richer(question.case):
            wrong = WrongCases(case)
            if differ(wrong.composed(first) or case, wrong.composed(second) or case):
                return f"{what} would tell them apart"
    return "with these weights they are the same function; other weights would tell them apart"
