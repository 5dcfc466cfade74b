"""Diagnosis of a FAIL and adequacy of a PASS: the answers that were given, judged against the catalogue's wrong Cases.

A mistake is named only where it explains every answer: each question that failed is within rounding of the wrong Case,
and no question that passed is outside of it. The other way round, a mistake that a PASS satisfies as well is one that
the check could not have seen.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity.candidates.functions import Answer
from parity.cases.case import Case
from parity.cases.drawing import generator, inputs_like, typical
from parity.judging.findings import Finding, Tolerance
from parity.judging.judge import last_dtype, rejudge
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.entry import Mistake, Variants
from parity.report.data import Blind, Cause
from parity.rounding.arithmetic import ARITHMETIC
from rnn_scratch.layers import Recurrent

SECONDS = 1.2
"""How long pairs of mistakes are tried, of this thread's own time: a busy machine changes no answer. Single ones are
tried to the end."""

Key = tuple[str, str]
"""A mistake's id, and which of its variants."""


@dataclass
class Question:
    """What was asked and answered, and the wrong Cases for it, worked out once."""

    finding: Finding
    wrong: dict[str, Variants] = field(default_factory=dict)
    then: tuple[Key, dict[str, Variants]] | None = None

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
        return float(self.case.size) * max(self.case.layer.units, 1)

    def variants(self, mistake: Mistake, first: Key | None = None) -> Variants:
        """The wrong Cases of a mistake; of one that is made after `first`, those of the last such `first` kept."""
        known, case = self.wrong, self.case
        if first is not None:
            if self.then is None or self.then[0] != first:
                self.then = first, {}
            known, case = self.then[1], self.variants(MISTAKES[first[0]]).get(first[1], case)
        if mistake.id not in known:
            known[mistake.id] = mistake.variants(case)
        return known[mistake.id]

    def composed(self, key: Sequence[Key]) -> Case | None:
        """The wrong Case of those mistakes together, two at most; None where they change nothing."""
        first = None
        wrong = None
        for name, label in key:
            wrong = self.variants(MISTAKES[name], first).get(label, wrong)
            first = (name, label) if wrong is not None else None
        return wrong

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

    @property
    def early(self) -> int:
        """Of how many first steps the outputs are seen before plain arithmetic can go astray by more than rounding."""
        case = self.case
        if case.calls > 1 or not self.finding.answers[0].outputs:
            return 0
        shown = isinstance(case.layer, Recurrent) and case.layer.return_sequences
        return case.timesteps if case.timesteps <= FEW_STEPS else FEW_STEPS if shown else 0


FEW = 4
FEW_STEPS = 3


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


def applies(name: str, findings: Iterable[Finding]) -> bool:
    """Whether a port of what was asked about could have made that mistake at all."""
    return any(MISTAKES[name].variants(finding.case) for finding in findings)


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
    seconds = SECONDS if seconds is None else seconds
    if not seconds:
        return Diagnosis(stopped=True)
    deadline = time.thread_time() + seconds
    every = keys([question for question in questions[:3] if question.failed], catalogue)
    pairs = list(suspects.pairs([key for key in every if MISTAKES[key[0]].common]))
    for order in (1, -1):  # a few do not commute
        for pair in pairs if not found else ():
            if time.thread_time() > deadline:
                return Diagnosis(named(questions, found), stopped=order == 1)
            if (largest := suspects.explain(pair[::order])) is not None:
                found[tuple(pair)] = largest
    return Diagnosis(named(questions, found))


def keys(questions: Sequence[Question], catalogue: Sequence[Mistake]) -> list[Key]:
    """Every variant that would change some question."""
    return list(
        dict.fromkeys((m.id, label) for m in catalogue for question in questions for label in question.variants(m))
    )


class Suspects:
    """The questions; to reject most suspects by, a few rows of the failed ones and those whose first steps are seen."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        failed = [q for q in questions if q.failed]
        self.quick = [q.few() for q in failed][:3]
        self.early = [q for q in failed if q.early][:2]

    def explain(self, key: Sequence[Key]) -> float | None:
        """The largest ratio, if those mistakes explain every answer."""
        try:
            return None if any(strays(question, key) for question in self.early) else self._explain(key)
        except (ValueError, IndexError, TypeError):  # mistakes need not fit together, nor to arrays of any shape
            return None

    def _explain(self, key: Sequence[Key]) -> float | None:
        if not any(MISTAKES[name].mixes_rows for name, _ in key) and any(map(contradicts, self.quick, [key] * 3)):
            return None
        decided, largest = False, 0.0
        for question in self.questions:
            wrong = question.composed(key)
            if wrong is None:
                if question.failed:
                    return None
                continue
            found = question.against(wrong)
            if found.verdict == "FAIL" or found.evidence.worst > 1:
                return None
            decided |= question.failed and found.verdict == "PASS" and found.tally.count > 0
            largest = max(largest, found.tally.worst)
        return largest if decided else None

    def pairs(self, every: Sequence[Key]) -> Iterator[list[Key]]:
        """Two different mistakes at a time, each with all later ones; those first that alone leave the least."""
        left = {key: outside(self.quick[0], key) for key in every}
        for n, first in enumerate(ranked := sorted(every, key=left.__getitem__)):
            yield from ([first, second] for second in ranked[n + 1 :] if first[0] != second[0])


def strays(question: Question, key: Sequence[Key]) -> bool:
    """Whether plain arithmetic is enough to reject them: far more than rounding in a few steps."""
    wrong = question.composed(key)
    return question.failed if wrong is None else beyond(question, wrong, STRAYS * unit_of(wrong))


def unit_of(case: Case) -> float:
    return ARITHMETIC[last_dtype(case.layer).name].unit


def beyond(question: Question, wrong: Case, allowed: float) -> bool:
    """Whether the first steps of the answer are farther than that from what the wrong Case computes, relative to
    numbers above 1."""
    whole = question.case.timesteps <= FEW_STEPS
    outputs = (question.finding.answers[0].outputs or ())[: None if whole else 1]
    for got, y in zip(outputs, computed(wrong)[0], strict=False):
        if got.shape != y.shape:
            return True
        got, y = (got, y) if whole else (got[:, :FEW_STEPS], y[:, :FEW_STEPS])
        apart = np.abs(got.astype(np.float64) - y)
        if apart.max(initial=0) > allowed * max(1.0, float(np.abs(y).max(initial=0))):  # False for NaN
            return True
    return False


STRAYS = 1e4
"""Units of rounding that no correct implementation is off by within three steps, whatever the order of its sums."""


def contradicts(question: Question, key: Sequence[Key]) -> bool:
    """Whether that one question is enough to reject them."""
    wrong = question.composed(key)
    return question.failed if wrong is None else question.against(wrong).verdict == "FAIL"


def outside(question: Question, key: Key) -> float:
    """How much of the question one mistake leaves unexplained."""
    wrong = question.composed([key])
    if wrong is None:
        return 1.0
    tally = question.against(wrong).tally
    return tally.outside / tally.count if tally.count else 1.0


def named(questions: Sequence[Question], explained: dict[tuple[Key, ...], float]) -> tuple[Cause, ...]:
    """The causes for a report, the variants of one mistake together."""
    order = {name: n for n, name in enumerate(MISTAKES)}
    explained = {tuple(sorted(key, key=lambda one: order[one[0]])): largest for key, largest in explained.items()}
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
    states = case.start
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
    return case.cast(np.float64, layer=case.layer.astype(np.float64))


def richer(case: Case) -> Iterator[tuple[str, Case]]:
    """Cases of the same weights that show more, by what they have that this one has not."""
    rng = generator(0, f"{case.id} richer")
    x = inputs_like(case, rng, 3, 7 * case.calls)
    plain = case.on(x, initial_state=None, mask=None, rows=(), view=None)
    yield "more timesteps and rows" if case.calls == 1 else "other inputs", plain
    if plain.numpy_floats and not 1 / 8 < (scale := gentle(case)) < 8:  # saturated, or next to nothing
        yield "inputs of another size", plain.mapped(lambda x: (x.astype(np.float64) * scale).astype(x.dtype))
    if case.calls > 1:
        return
    states = tuple(rng.uniform(-1, 1, (3, units)).astype(case.layer.dtype) for units in case.layer.state_units)
    if states and case.initial_state is not None:
        yield "an initial state", replace(plain, initial_state=states)
    if case.mask is not None:
        mask = np.ones((3, 7), bool)
        mask[0, :2], mask[1, 3], mask[2, 5:] = False, False, False
        yield "another mask", replace(plain, mask=mask)
        yield "another mask and an initial state", replace(plain, mask=mask, initial_state=states or None)


def gentle(case: Case) -> float:
    """The factor that brings the inputs to where the first cell's activation bends: Wx x near 1."""
    Wx = next((part.cell.Wx.astype(np.float64) for part in case.layer.every(Recurrent)), np.ones((1, 1)))
    reach = typical(case.x) * np.sqrt(np.square(Wx).sum(axis=1).mean())
    return float(1 / reach) if np.isfinite(reach) and reach > 0 else 1.0


def telling(questions: Sequence[Question], first: Sequence[Key], second: Sequence[Key]) -> str:
    """What would tell two causes apart that explain the same answers."""

    def of(case: Case, key: Sequence[Key]) -> Case:
        return Question(Finding(case)).composed(key) or case

    for question in questions:
        for what, case in richer(question.case):
            if differ(of(case, first), of(case, second)):
                return f"{what} would tell them apart"
    return "with these weights they are the same function; other weights would tell them apart"


# --- a PASS ---


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
    deadline = time.thread_time() + seconds
    questions = [question for question in asked(findings) if not question.failed]
    slices = [question.few() for question in questions]
    whole = [question for question, part in zip(questions, slices, strict=True) if part is not question]
    found: dict[str, Blind] = {}
    applied: list[str] = []
    common = [m for m in MISTAKES.values() if only in (None, m.id) and m.common]
    left: tuple[str, ...] = ()
    for n, mistake in enumerate(common):
        if time.thread_time() > deadline:
            left = tuple(m.id for m in common[n:])
            break
        first, then = (questions, ()) if mistake.mixes_rows else (slices, whole)
        labels = dict.fromkeys(label for question in first for label in question.variants(mistake))
        applied += [mistake.id] if labels else []
        for label in labels:
            if any(shows(question, mistake, label) for question in (*first, *then)):
                continue
            applies = [question for question in questions if label in question.variants(mistake)]
            question = max(applies, key=lambda q: q.case.batch)
            same = not any(visible_elsewhere(q, mistake, label) for q in applies[:3])
            why = mistake.hides(question.case) or ("" if same else "it moves nothing by more than rounding may")
            known = found.get(mistake.id)
            if known is None or known.same:  # of several variants one that merely does not show
                found[mistake.id] = Blind(mistake.id, mistake.what, why, same, label)
    return Adequacy(tuple(found.values()), tuple(name for name in applied if name not in found), left)


def shows(question: Question, mistake: Mistake, label: str) -> bool:
    wrong = question.variants(mistake).get(label)
    if wrong is None or (question.repeats and not wrong.layer.stateful):  # then the first call alone says as much
        return False
    if question.repeats and moves_on(wrong):
        return True
    if question.early and beyond(question, wrong, max(STRAYS * unit_of(wrong), 10 * question.finding.tally.widest)):
        return True  # as the balls would say, at a tenth of their cost
    finding = question.against(wrong)
    return finding.verdict == "FAIL" or finding.evidence.worst > 1


def moves_on(wrong: Case) -> bool:
    """Whether a second call would be quite another than the first: then a repeated answer rules it out, even where
    what is kept (LSTM's c) is not seen."""
    first, second, *_ = computed(widened(wrong))
    apart = max(float(np.nan_to_num(np.abs(a - b)).max(initial=0)) for a, b in zip(first, second, strict=True))
    return apart > 1e-3 * float(np.nan_to_num(np.abs(first[0])).max(initial=0))


def visible_elsewhere(question: Question, mistake: Mistake, label: str) -> bool:
    """Whether, with the same weights, other inputs, states or masks would show it."""
    for _, case in richer(question.case):
        wrong = mistake.variants(case).get(label)
        if wrong is not None and differ(case, wrong):
            return True
    return False
