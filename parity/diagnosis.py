"""Diagnosis of a FAIL and adequacy of a PASS: the answers that were given, judged against the catalogue's wrong Cases.

A mistake is named only where it explains every answer: each question that failed is within rounding of the wrong Case,
and no question that passed is outside of it. The other way round, a mistake that a PASS satisfies as well is one that
the check could not have seen.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity.candidates import Answer
from parity.cases import Case, draw_inputs, generator
from parity.findings import Finding, Tolerance
from parity.judge import rejudge
from parity.mistakes import MISTAKES, Mistake, Variants, is_common
from parity.report import Blind, Cause

SECONDS = 1.2
"""How long pairs of mistakes are tried. Single ones are tried to the end."""

Key = tuple[str, str]
"""A mistake's id, and which of its variants."""


@dataclass
class Question:
    """What was asked and answered, and the wrong Cases for it, worked out once."""

    finding: Finding
    wrong: dict[str, Variants] = field(default_factory=dict)

    @property
    def case(self) -> Case:
        return self.finding.case

    @property
    def failed(self) -> bool:
        return self.finding.verdict == "FAIL"

    @property
    def repeats(self) -> bool:
        """Whether it is the same question again, and the same answer: that says nothing new."""
        if self.case.calls == 1 or self.case.layer.stateful:
            return False
        first, *rest = (answer.outputs or () for answer in self.finding.answers)
        return all(len(first) == len(o) and all(map(np.array_equal, first, o, [True] * len(o))) for o in rest)

    @property
    def cost(self) -> float:
        return float(self.case.x.size) * max(self.case.layer.units, 1)

    def variants(self, mistake: Mistake) -> Variants:
        if mistake.id not in self.wrong:
            self.wrong[mistake.id] = mistake.variants(self.case)
        return self.wrong[mistake.id]

    def against(self, case: Case) -> Finding:
        return rejudge(case, self.finding.answers, Tolerance())

    def few(self) -> "Question":
        """Some of the rows, the first one that failed among them: enough to reject most of what is wrong."""
        case, first = self.case, self.finding.tally.first
        if case.batch <= FEW or self.finding.wrong:  # an array that is missing or of another shape may lack the rows
            return self
        failed = [first["batch"]] if first else []
        rows = np.unique([*failed, *np.linspace(0, case.batch - 1, FEW - len(failed)).astype(int)])
        part = case.rows_at(rows)
        answers = tuple(cut(answer, rows) for answer in self.finding.answers)
        whole = replace(self.finding, case=part, answers=answers)
        return Question(rejudge(part, answers, Tolerance()) if self.failed else whole)


FEW = 4


def cut(answer: Answer, rows: Any) -> Answer:
    """The answer for those rows alone."""
    return replace(
        answer,
        outputs=None if answer.outputs is None else tuple(y[rows] for y in answer.outputs),
        sequence=None if answer.sequence is None else answer.sequence[rows],
        layers={name: y[rows] for name, y in answer.layers.items()},
        sequences={name: y[rows] for name, y in answer.sequences.items()},
    )


def asked(findings: Iterable[Finding]) -> list[Question]:
    """The questions that say anything, the failed ones first, the cheap ones first."""
    every = [Question(finding) for finding in findings if finding.answers and finding.verdict != "INCONCLUSIVE"]
    return sorted(every, key=lambda question: (not question.failed, question.cost))


# --- a FAIL ---


@dataclass
class Diagnosis:
    """causes: those that explain every answer. stopped: whether pairs were left untried for want of time."""

    causes: tuple[Cause, ...] = ()
    stopped: bool = False


def diagnose(findings: Iterable[Finding], only: str | None = None, seconds: float | None = None) -> Diagnosis:
    """Which mistakes, or pairs of them, explain what was found. only: no other one than that is tried."""
    questions = [question for question in asked(findings) if not question.repeats]
    if not questions or not questions[0].failed:
        return Diagnosis()
    catalogue = [m for m in MISTAKES.values() if not m.drawn and only in (None, m.id)]
    suspects = Suspects(questions)
    every = keys(questions[:1], catalogue)  # what does not change a question that failed does not explain it
    found: dict[tuple[Key, ...], float] = {}
    found |= {(key,): largest for key in every if (largest := suspects.explain([key])) is not None}
    if found or only:
        return Diagnosis(named(questions, found))
    deadline = time.monotonic() + (SECONDS if seconds is None else seconds)
    every = keys([question for question in questions[:3] if question.failed], catalogue)
    for pair in suspects.pairs([key for key in every if is_common(key[0])]):
        if time.monotonic() > deadline:
            return Diagnosis(named(questions, found), stopped=True)
        if (largest := suspects.explain(pair)) is not None:
            found[tuple(pair)] = largest
    return Diagnosis(named(questions, found))


def keys(questions: Sequence[Question], catalogue: Sequence[Mistake]) -> list[Key]:
    """Every variant that would change some question."""
    return list(
        dict.fromkeys((m.id, label) for m in catalogue for question in questions for label in question.variants(m))
    )


class Suspects:
    """The questions, and a few rows of the failed ones to reject most suspects by."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self.quick = [q.few() for q in questions if q.failed][:3]
        self.cases: dict[tuple[int, Key], Case | None] = {}

    def explain(self, key: Sequence[Key]) -> float | None:
        """The largest ratio, if those mistakes explain every answer."""
        try:
            return self._explain(key)
        except (ValueError, IndexError, TypeError):  # mistakes need not fit together, nor to arrays of any shape
            return None

    def _explain(self, key: Sequence[Key]) -> float | None:
        if not any(MISTAKES[name].mixes_rows for name, _ in key) and any(map(contradicts, self.quick, [key] * 3)):
            return None
        decided, largest = False, 0.0
        for question in self.questions:
            wrong = composed(question, key)
            if wrong is None:
                if question.failed:
                    return None
                continue
            found = question.against(wrong)
            if found.verdict == "FAIL" or found.evidence.worst > 1:
                return None
            decided |= question.failed and found.verdict == "PASS"
            largest = max(largest, found.tally.worst)
        return largest if decided else None

    def pairs(self, every: Sequence[Key]) -> Iterator[list[Key]]:
        """Two different mistakes at a time; those first of which one alone leaves the least outside."""
        left = {key: outside(self.quick[0], key) for key in every}
        both = [[a, b] for a, b in itertools.combinations(every, 2) if a[0] != b[0]]
        yield from sorted(both, key=lambda pair: left[pair[0]] + left[pair[1]])


def composed(question: Question, key: Sequence[Key]) -> Case | None:
    """The wrong Case of those mistakes together; None where they change nothing."""
    wrong = None
    for name, label in key:
        variants = question.variants(MISTAKES[name]) if wrong is None else MISTAKES[name].variants(wrong)
        wrong = variants.get(label, wrong)
    return wrong


def contradicts(question: Question, key: Sequence[Key]) -> bool:
    """Whether that one question is enough to reject them."""
    wrong = composed(question, key)
    return question.failed if wrong is None else question.against(wrong).verdict == "FAIL"


def outside(question: Question, key: Key) -> float:
    """How much of the question one mistake leaves unexplained."""
    wrong = composed(question, [key])
    if wrong is None:
        return 1.0
    tally = question.against(wrong).tally
    return tally.outside / tally.count if tally.count else 1.0


def named(questions: Sequence[Question], explained: dict[tuple[Key, ...], float]) -> tuple[Cause, ...]:
    """The causes for a report, the variants of one mistake together."""
    groups: dict[tuple[str, ...], list[tuple[Key, ...]]] = {}
    for key in explained:
        groups.setdefault(tuple(name for name, _ in key), []).append(key)
    causes = []
    for ids, several in groups.items():
        mistakes = [MISTAKES[name] for name in ids]
        labels = [" and ".join(label for _, label in key if label) for key in several]
        causes.append(
            Cause(
                " + ".join(ids),
                "; and ".join(m.what for m in mistakes),
                "; and ".join(m.fix for m in mistakes),
                ", ".join(m.source for m in mistakes if m.source),
                detail=" or ".join(label for label in labels if label),
                largest=max(explained[key] for key in several),
            )
        )
    if len(causes) > 1:
        first, second = (several[0] for several in list(groups.values())[:2])
        told = telling(questions, first, second)
        causes = [replace(cause, apart=told) for cause in causes]
    return tuple(causes)


# --- what tells two functions apart ---


def computed(case: Case) -> list[tuple[Any, ...]]:
    """What the case's layer makes of it, in its own precision: the results of each call."""
    results = []
    states = case.layer.initial_states(case.batch, case.initial_state)
    with np.errstate(all="ignore"):
        for n in range(case.calls):
            call = case.call(n) if case.calls > 1 else case
            y, after = call.layer.forward(call.x, call.mask, states)
            states = after if call.layer.stateful else states
            own = call.layer.results(y, after)
            results.append(own if call.view is None else call.view.show(own))
    return results


def differ(first: Case, second: Case) -> bool:
    """Whether two cases have other results, in float64, than rounding could make of one."""
    for a, b in zip(computed(widened(first)), computed(widened(second)), strict=True):
        if [y.shape for y in a] != [y.shape for y in b]:
            return True
        for y, z in zip(a, b, strict=True):
            if np.isnan(y).any() != np.isnan(z).any():
                return True
            finite = np.isfinite(y) & np.isfinite(z)
            scale = np.abs(y, where=finite, out=np.zeros_like(y)).max(initial=0) or 1.0
            if (np.isfinite(y) != np.isfinite(z)).any() or np.abs(np.where(finite, y - z, 0)).max() > 1e-11 * scale:
                return True
    return False


def widened(case: Case) -> Case:
    layer = case.layer.mapped(lambda name, array: array.astype(np.float64))
    x = case.x.astype(np.float64) if case.x.dtype.kind != "i" else case.x
    states = None if case.initial_state is None else tuple(s.astype(np.float64) for s in case.initial_state)
    return replace(case, layer=layer, x=x, initial_state=states)


def richer(case: Case) -> Iterator[tuple[str, Case]]:
    """Cases of the same weights that show more, by what they have that this one has not."""
    rng = generator(0, f"{case.id} richer")
    shape = (3, 7, *case.x.shape[2:])
    x = draw_inputs(case.layer, rng, shape, case.x)
    plain = replace(case, x=x, initial_state=None, mask=None, rows=(), view=None)
    if case.calls > 1:
        x = draw_inputs(case.layer, rng, (3, 7 * case.calls, *case.x.shape[2:]), case.x)
        yield "other inputs", replace(plain, x=x)
        return
    yield "more timesteps and rows", plain
    states = tuple(rng.uniform(-1, 1, (3, units)).astype(case.layer.dtype) for units in case.layer.state_units)
    if states and case.initial_state is not None:
        yield "an initial state", replace(plain, initial_state=states)
    if case.mask is not None:
        mask = np.ones((3, 7), bool)
        mask[0, :2], mask[1, 3], mask[2, 5:] = False, False, False
        yield "another mask", replace(plain, mask=mask)
        yield "another mask and an initial state", replace(plain, mask=mask, initial_state=states or None)


def telling(questions: Sequence[Question], first: Sequence[Key], second: Sequence[Key]) -> str:
    """What would tell two causes apart that explain the same answers."""

    def of(case: Case, key: Sequence[Key]) -> Case:
        return composed(Question(Finding(case)), key) or case

    for question in questions:
        for what, case in richer(question.case):
            if differ(of(case, first), of(case, second)):
                return f"{what} would tell them apart"
    return "with these weights they are the same function; other weights would tell them apart"


# --- a PASS ---


def blind_spots(findings: Iterable[Finding], only: str | None = None) -> tuple[Blind, ...]:
    return adequacy(findings, only)[0]


def adequacy(findings: Iterable[Finding], only: str | None = None) -> tuple[tuple[Blind, ...], tuple[str, ...]]:
    """The mistakes that these answers would not have shown: those that a port may have made and still pass. Of each
    whether it is the same function with these weights, and why it does not show. And the ids of those that would have
    shown."""
    questions = [question for question in asked(findings) if not question.failed]
    slices = [question.few() for question in questions]
    whole = [question for question, part in zip(questions, slices, strict=True) if part is not question]
    found: dict[str, Blind] = {}
    applied: list[str] = []
    for mistake in MISTAKES.values():
        if only not in (None, mistake.id) or not is_common(mistake.id):
            continue
        first, then = (questions, ()) if mistake.mixes_rows else (slices, whole)
        labels = dict.fromkeys(label for question in first for label in question.variants(mistake))
        applied += [mistake.id] if labels else []
        for label in labels:
            if any(shows(question, mistake, label) for question in (*first, *then)):
                continue
            applies = [question for question in questions if label in question.variants(mistake)]
            question = max(applies, key=lambda q: len(q.case.x))
            same = not any(visible_elsewhere(q, mistake, label) for q in applies[:3])
            why = mistake.hides(question.case) or ("" if same else "it moves nothing by more than rounding may")
            known = found.get(mistake.id)
            if known is None or known.same:  # of several variants one that merely does not show
                found[mistake.id] = Blind(mistake.id, mistake.what, why, same, label)
    return tuple(found.values()), tuple(name for name in applied if name not in found)


def shows(question: Question, mistake: Mistake, label: str) -> bool:
    wrong = question.variants(mistake).get(label)
    if wrong is None:
        return False
    if question.repeats and moves_on(wrong):
        return True
    finding = question.against(wrong)
    return finding.verdict == "FAIL" or finding.evidence.worst > 1


def moves_on(wrong: Case) -> bool:
    """Whether a second call would be quite another than the first: then a repeated answer rules it out, even where
    what is kept (LSTM's c) is not seen."""
    first, second, *_ = computed(widened(wrong))
    apart = max(float(np.nan_to_num(np.abs(a - b)).max(initial=0)) for a, b in zip(first, second, strict=True))
    return wrong.layer.stateful and apart > 1e-3 * float(np.nan_to_num(np.abs(first[0])).max(initial=0))


def visible_elsewhere(question: Question, mistake: Mistake, label: str) -> bool:
    """Whether, with the same weights, other inputs, states or masks would show it."""
    for _, case in richer(question.case):
        wrong = mistake.variants(case).get(label)
        if wrong is not None and differ(case, wrong):
            return True
    return False
