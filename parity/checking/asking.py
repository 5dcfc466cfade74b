"""Asking: what is put to a candidate and to the oracle, in which order, and what follows the first question."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity.candidates.answer import Answer, Candidate
from parity.candidates.graphs import Graph
from parity.candidates.objects import Object, by_row, keeps_unasked
from parity.candidates.outputs import Outputs
from parity.candidates.sized import fixed_by, within
from parity.cases.beside import companions, two_calls
from parity.cases.case import Case
from parity.cases.domain import in_domain
from parity.cases.far_out import far_out, is_far_out
from parity.cases.probes import probes
from parity.checking.asked import Asked, Both, Result
from parity.checking.case_report import summarize
from parity.checking.conclusions import compatible, disputed, distance, kept_state, returned, unsteady
from parity.errors import CandidateError, OracleError
from parity.given.target import Target
from parity.judging.findings import Finding
from parity.judging.judge import examine, judge_answer, rejudge
from parity.judging.query import Asker
from parity.judging.tally import Tolerance
from parity.mistakes.changes import state_kept
from parity.report.data import CaseReport

_GOES_ON = "it keeps its state: name its class, or a function that makes it, or give it a method reset_state()"

_ONE_SEQUENCE = "the candidate is a function of one sequence (timesteps, input_dim): it was asked row by row"

_AGAIN_STEPS = 1000
"""Longer cases are not asked a second time; their first steps are."""


def ask(asked: Asked, target: Target) -> CaseReport:
    """The target's first case and what is asked beside it. An error of the first case, or of its repetition, is
    raised."""
    return _Asking(asked, target).all()


class _Asking:
    """The questions about one target."""

    def __init__(self, asked: Asked, target: Target) -> None:
        self.asked, self.target = asked, target
        self.candidate, self.oracle = asked.candidate, target.oracle
        self.fixed = fixed_by(target.sizes)
        self.tolerance = asked.settings.tolerance

    def all(self) -> CaseReport:
        beside = self._beside()
        found = self._first()
        padded = []
        for question in beside:
            if self.asked.goes_on:
                self.asked.refuse(self._name(question), _GOES_ON)
                continue
            if not self.asked.steady:
                break  # every later answer hangs on the calls before it
            both = self._put(question)
            if both is None:
                continue
            found.append(both)
            # where the oracle is a recording, it answers the question as it was before it was filled up
            if both.candidate.case.timesteps != question.timesteps and not self.oracle.callable:
                padded.append(self._name(question))
        return self._concluded(found, padded)

    def _concluded(self, found: list[Both], padded: list[str]) -> CaseReport:
        findings = [both.candidate for both in found]
        report = summarize(self.target.case, found, self.tolerance)
        notes = [*self.target.notes, *report.notes, *self._filled(padded), *self._compatible(report, findings)]
        keras_worst = None if self.target.unasked else report.keras_worst
        report = replace(report, notes=tuple(notes), keras_worst=keras_worst)
        self.asked.results.append(Result(report, findings))
        return report

    def _filled(self, padded: list[str]) -> Iterator[str]:
        if padded:
            told = "where the reference stands in for Keras, not recorded that far"
            yield f"{', '.join(padded)}: filled up to {self.candidate.fixed[1]} timesteps, {told}"

    def _compatible(self, report: CaseReport, findings: list[Finding]) -> Iterator[str]:
        """What a proved FAIL of float32 would be in a narrower arithmetic."""
        proved_wrong = report.verdict == "FAIL" and report.proved
        if proved_wrong and self.asked.steady and self.target.case.layer.dtype == np.float32:
            yield from compatible(findings, self.tolerance)

    def _name(self, question: Case) -> str:
        return question.id.removeprefix(f"{self.target.case.id} / ")

    # --- which questions ---

    def _beside(self) -> Iterator[Case]:
        """What is asked beside the first case."""
        if self.target.further is None:
            drawn = (in_domain(case, self.asked.settings.domain) for case in self._following(self.target.case))
            return (case for case in drawn if case is not None)
        return iter([case for case in self.target.further if self._is_for_it(case)])

    def _is_for_it(self, case: Case) -> bool:
        """Whether a recorded question can be put to the candidate."""
        if in_domain(case, self.asked.settings.domain) is not case or self.asked.skips(case, self.target.case):
            return False  # what was recorded cannot be kept within a range
        known = self.candidate.by_case if isinstance(self.candidate, Outputs) else {}
        return self.candidate.callable or case.id in known

    def _following(self, case: Case) -> Iterator[Case]:
        """What follows from the case and from what the candidate takes."""
        takes, seed = self.candidate.takes, self.asked.settings.seed
        if not self.candidate.callable:
            return
        if self.target.companions:
            yield from companions(case, takes, seed, self.fixed)
        if case.layer.stateful and case.calls == 1:
            yield two_calls(case, seed, self.fixed)
        yield from probes(case, takes, seed)
        if self.target.companions:
            yield from far_out(case, takes, seed, self.fixed)

    def _fitted(self, question: Case) -> Case:
        """A probe filled up to the timesteps that the candidate was built for; any other question as it is."""
        steps = self.candidate.fixed[1] or 0
        probe = bool(question.rows) and question.mask is None
        return question.padded(steps) if probe and question.timesteps < steps else question

    # --- putting them ---

    def _first(self) -> list[Both]:
        """The case; where the candidate fails on the batch, it may be a function of one sequence."""
        try:
            found = self._twice(self.target.case)
        except CandidateError:
            if not self._takes_one_sequence(raised=True):
                raise
        else:
            first = found[0].candidate
            if first.verdict != "FAIL" or not self._takes_one_sequence(raised=first.wrong is not None):
                return found
        self.asked.start_again(self.candidate)
        found = self._twice(self.target.case)
        found[0].candidate.notes.append(_ONE_SEQUENCE)
        return found

    def _takes_one_sequence(self, raised: bool) -> bool:
        """Whether it is right on single rows without the batch axis; where it cannot take a batch, whether it takes
        them at all. Then it is asked so from here on."""
        single, case = by_row(self.candidate), self.target.case
        if single is None or not self.candidate.callable or case.layer.stateful:
            return False
        found, batched = self._tried(single, case), self._tried(self.candidate, case.first(min(3, case.timesteps)))
        if found is None or (found.verdict == "FAIL" and (found.wrong or not raised)):
            return False
        if batched is not None and batched.verdict != "FAIL":
            return False  # it takes batches, of short sequences at least
        self.candidate = single
        return True

    def _tried(self, candidate: Candidate, case: Case) -> Finding | None:
        """What it answers, judged; None where it raises."""
        with contextlib.suppress(CandidateError):
            return judge_answer(case, candidate.ask(case), self.tolerance)
        return None

    def _twice(self, case: Case) -> list[Both]:
        """The case, and the case again: at once, before anything else has been asked."""
        repeatable = self.candidate.callable
        answer = self.candidate.ask(case)
        second = self.candidate.ask(case) if repeatable and case.timesteps <= _AGAIN_STEPS else None
        if second is not None and self._goes_on(case, answer, second):
            return self._in_sequence(case, answer, second)
        first = self._beside_keras(case, answer, case)
        if second is not None:
            first.candidate.notes.extend(self._keeps(case, first.candidate))
            found = self._once_more(case, first.candidate, second)
            return [first, Both(found, Finding(found.case))]
        if repeatable and self.oracle.callable:
            start = case.first(_AGAIN_STEPS)
            return [first, self._examined(start, start)]
        return [first]

    def _goes_on(self, case: Case, answer: Answer, second: Answer) -> bool:
        """Whether a second call is to be held against the second call of a stateful layer, and cannot be made to start
        again: of an object that may keep a state, or of a function that answers otherwise."""
        if not case.layer.stateful or self.candidate.takes & {"layer", "initial_state"}:
            return False
        if keeps_unasked(self.candidate):
            return True
        first = judge_answer(case, answer, self.tolerance)
        return distance(returned(answer), returned(second)) > 2 * first.tally.widest

    def _in_sequence(self, case: Case, answer: Answer, second: Answer) -> list[Both]:
        """The question, and the same inputs once more, the state kept."""
        self.asked.goes_on = True
        calls = case.twice(id=f"{case.id} / called again, the state kept")
        found = rejudge(calls, (answer, second), self.tolerance)
        # what Keras answers to that is in no file, and with a mask it is not asked
        asks_keras = self.oracle.callable and case.mask is None
        keras = examine(self.oracle, calls, Tolerance()) if asks_keras else Finding(calls)
        first = judge_answer(case, answer, self.tolerance)
        return [self._kept(first, examine(self.oracle, case, Tolerance())), self._kept(found, keras)]

    def _keeps(self, case: Case, first: Finding) -> Iterator[str]:
        """What is told of an object that was made anew for each question, where that was needed."""
        own = within(self.candidate)
        if case.layer.stateful or not isinstance(own, Object | Graph) or keeps_unasked(own):
            return
        with contextlib.suppress(CandidateError):
            answers = own.ask(case), own.ask_on(case)
            if distance(*map(returned, answers)) > 2 * first.tally.widest:
                yield f"it keeps its state between calls, which the layer does not: {own.how} before each sequence"

    def _once_more(self, case: Case, first: Finding, answer: Answer) -> Finding:
        """The second answer to the same question, judged as the first was; with it, two calls one after another."""
        answers = (first.answers[0], answer)
        if distance(*map(returned, answers)) == 0:
            found = first
        else:
            found = judge_answer(case, answer, self.tolerance, asker=Asker(self.candidate, case))
        found = replace(found, case=again(case), answers=answers, disputed=first.disputed)
        self._expect_the_same(case, first, found)
        return found

    def _expect_the_same(self, case: Case, first: Finding, second: Finding) -> None:
        """CandidateError for one that draws its answers: they differ by more than rounding, and go on differing. What
        keeps something between calls settles, or is a state that nobody reset."""
        allowed = 2 * first.tally.widest
        apart = distance(*map(returned, second.answers))
        if apart <= allowed or "FAIL" not in (first.verdict, second.verdict):
            return
        kept = kept_state(case.layer, second, self.tolerance)
        if kept is not None:
            self.asked.kept = kept
            return
        more = [self.candidate.ask(case) for _ in range(3)]
        self.asked.unsteady = unsteady([*second.answers, *more], allowed)

    def _put(self, question: Case) -> Both | None:
        """What a question beside the first case showed; None where it cannot be put or answered, and why is kept. It is
        ours to ask, so that is nothing against the user's case."""
        steps, fitted = self.candidate.fixed[1], self._fitted(question)
        beyond = question.needs - self.target.case.needs  # a mask, say, that the user's case does not have
        try:
            if steps not in (None, fitted.timesteps // fitted.calls):
                raise CandidateError(f"only {steps} timesteps are asked")
            # what Keras answers to the question once it is filled up is in no file
            both = self._examined(fitted, fitted if self.oracle.callable else question)
            found = both.candidate
            why = found.open or (found.disputed if beyond else None) or _untold(found)
        except (CandidateError, OracleError) as error:
            why = str(error)
        if why:
            self.asked.refuse(self._name(question), why)
            return None
        return both

    def _examined(self, case: Case, of_keras: Case) -> Both:
        """of_keras: what Keras is asked, of which the case may be another form."""
        if case.calls == 1:
            return self._beside_keras(case, self.candidate.ask(case), of_keras)
        found = examine(self.candidate, case, self.tolerance)
        return self._kept(found, examine(self.oracle, of_keras, Tolerance()))

    def _beside_keras(self, case: Case, answer: Answer, of_keras: Case) -> Both:
        keras = examine(self.oracle, of_keras, Tolerance())
        found = judge_answer(case, answer, self.tolerance, asker=Asker(self.candidate, case))
        return self._kept(found, keras)

    def _kept(self, found: Finding, keras: Finding) -> Both:
        self.asked.cases.append(found.case)
        return Both(disputed(found, keras), keras)


def _untold(found: Finding) -> str | None:
    """Why nobody can tell of a question that was asked far out."""
    if not is_far_out(found.case) or found.verdict != "INCONCLUSIVE":
        return None
    return found.disputed or "nobody can tell that far out"


def again(case: Case) -> Case:
    """The case once more: two calls with the same arguments, of which the second is to be as the first."""
    return case.twice(id=f"{case.id} / asked again", layer=state_kept(case.layer, False))
