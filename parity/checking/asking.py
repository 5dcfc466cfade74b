"""A candidate asked: what follows the question itself, what became of it, and the Report on all of it."""

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity.adapters.keras import library
from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.oracle import Oracle
from parity.adapters.keras.precision import notes_on
from parity.adapters.keras.to_keras import to_keras
from parity.candidates.functions import Answer, Candidate, Function, Outputs, parameters, scratch
from parity.cases.beside import companions, two_calls
from parity.cases.case import Case
from parity.cases.probes import probes
from parity.checking.case_report import describe, summarize
from parity.errors import CandidateError, OracleError
from parity.explaining.causes import Diagnosis, adequacy, applies, diagnose
from parity.explaining.facts import facts
from parity.explaining.smallest import described, shrink
from parity.explaining.weights_in_effect import InEffect, in_effect
from parity.given.settings import Settings
from parity.judging.findings import Finding, Tolerance
from parity.judging.judge import Asker, examine, judge_answer, rejudge
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.changes import state_kept
from parity.report import provenance
from parity.report.data import CaseReport, Cause, Report
from parity.rounding.arithmetic import NARROWER
from rnn_scratch import Sequential

AGAIN_STEPS = 1000


BLIND = 2.0
"""Seconds that the search for blind spots may take in any case."""

CASE_BY_CASE = 4.0
"""Seconds for the causes of single cases of the grid, where nothing explains all of them."""


@dataclass
class Survey:
    """A candidate's questions and what became of them, over one or many cases. no_keras: why Keras is not asked, and
    the reference stands in for it."""

    candidate: Candidate
    settings: Settings
    no_keras: str = ""
    began: float = field(default_factory=time.thread_time)
    kept: Cause | None = None
    unsteady: str | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    asked: list[Case] = field(default_factory=list)
    found: list[tuple[CaseReport, Finding]] = field(default_factory=list)

    def skip(self, what: str) -> None:
        self.skipped[what] = self.skipped.get(what, 0) + 1

    def ask_or_error(self, case: Case) -> CaseReport:
        try:
            if self.no_keras:
                report = self.ask(Function(scratch, parameters(scratch)), case, thorough=False)
                told = f"Keras was not asked: {self.no_keras}"
                return replace(report, keras_worst=None, notes=(told, *report.notes))
            layer = to_keras(case.layer, batch_size=case.batch if case.layer.stateful else None)
            own = from_keras(layer)  # with the precision and the rules for masks of the backend in use
            own.reset_state()
            here = case.cast(own.dtype, layer=own)
            report = self.ask(Oracle(layer, own), here, thorough=False)
            return replace(report, notes=(*notes_on(layer), *report.notes))
        except (CandidateError, OracleError) as error:
            return CaseReport(case.id, "ERROR", notes=(str(error),))

    def ask(self, oracle: Candidate, case: Case, thorough: bool, questions: Sequence[Case] | None = None) -> CaseReport:
        """The case and what is asked beside it, those questions if they are given. An error of the case itself, or of
        its repetition, is raised."""
        findings, padded = self.twice(oracle, case), []
        if self.kept or self.unsteady:  # then every later answer hangs on the calls before it
            questions = ()
        for question in self.beside(case, thorough) if questions is None else questions:
            name = question.id.removeprefix(case.id + " / ")
            beyond = bool(needs(question) - needs(case))  # a mask, say, that the user's case does not have
            found = self.put(oracle, question, name, beyond)
            if found is not None:
                findings.append(found)
                padded += [name] if found[0].case.timesteps != question.timesteps and not oracle.callable else []
        result = summarize(case, findings, self.settings.tolerance)
        if padded:
            told = "where the reference stands in for Keras, not recorded that far"
            filled = f"{', '.join(padded)}: filled up to {self.candidate.fixed[1]} timesteps, {told}"
            result = replace(result, notes=(*result.notes, filled))
        steady = not (self.kept or self.unsteady)
        if result.verdict == "FAIL" and result.proved and steady and case.layer.dtype == np.float32:
            result = replace(result, notes=(*result.notes, *self.compatible([found for found, _ in findings])))
        self.found += [(result, found) for found, _ in findings]
        return result

    def put(self, oracle: Candidate, question: Case, name: str, beyond: bool) -> tuple[Finding, Finding] | None:
        """What a question beside the case showed; None where it cannot be put or answered, and why is kept. It is ours
        to ask, so that is nothing against the user's case. beyond: it has what the user's case does not have."""
        steps, asked = self.candidate.fixed[1], self.fitted(question)
        try:
            if steps not in (None, asked.timesteps // asked.calls):
                raise CandidateError(f"the candidate was built for {steps} timesteps")
            # what Keras answers to the padded question is in no file
            found = self.examine(oracle, asked, asked if oracle.callable else question)
            reason = found[0].open or (found[0].disputed if beyond else None)
            if not reason:
                return found
        except (CandidateError, OracleError) as error:
            reason = str(error)
        self.refused.setdefault(reason, []).append(name)
        return None

    def fitted(self, question: Case) -> Case:
        """A probe filled up to the timesteps that the candidate was built for; any other question as it is."""
        steps = self.candidate.fixed[1]
        short = bool(steps and question.rows and question.timesteps < steps and question.mask is None)
        return question.padded(steps) if steps and short else question

    def twice(self, oracle: Candidate, case: Case) -> list[tuple[Finding, Finding]]:
        """The case, and the case again: at once, before anything else has been asked."""
        answer = self.candidate.ask(case)
        asked_again = self.candidate.callable and case.timesteps <= AGAIN_STEPS
        second = self.candidate.ask(case) if asked_again else None
        keras = self.keras(oracle, case)
        findings = [(self.judged(case, answer, keras), keras)]
        if second is not None:
            found = self.once_more(case, findings[0][0], second)
            findings.append((found, Finding(found.case)))
        elif self.candidate.callable and oracle.callable:
            findings.append(self.examine(oracle, case.first(AGAIN_STEPS)))
        return findings

    def once_more(self, case: Case, first: Finding, answer: Answer) -> Finding:
        """The second answer to the same question, judged as the first was; with it, two calls one after another."""
        if distance(*(a.outputs or (a.sequence,) for a in (first.answers[0], answer))) == 0:
            found = replace(first)
        else:
            found = judge_answer(case, answer, self.settings.tolerance, asker=Asker(self.candidate, case))
            found.disputed = first.disputed
        found.case, found.answers = again(case), (first.answers[0], answer)
        self.expect_the_same(case, first, found)
        return found

    def expect_the_same(self, case: Case, first: Finding, second: Finding) -> None:
        """CandidateError for one that draws its answers: they differ by more than rounding, and go on differing. What
        keeps something between calls settles, or is a state that nobody reset."""
        answers = [answer.outputs or (answer.sequence,) for answer in second.answers]
        allowed = 2 * first.tally.widest
        if distance(*answers) <= allowed or not (first.verdict == "FAIL" or second.verdict == "FAIL"):
            return
        stateful = replace(second.case, layer=state_kept(case.layer))
        kept = rejudge(stateful, second.answers, self.settings.tolerance)
        if kept.verdict == "PASS":
            found = MISTAKES["state-not-reset"]
            self.kept = Cause(found.id, found.what, found.fix, found.source, largest=kept.tally.worst)
            return
        more = [self.candidate.ask(case) for _ in range(3)]
        answers += [answer.outputs or (answer.sequence,) for answer in more]
        steps = [distance(a, b) for a, b in itertools.pairwise(answers)]
        told = f"two calls with the same arguments differ by {steps[0]:.2g}"
        if steps[-1] > max(allowed, steps[0] / 10):
            raise CandidateError(
                f"candidate: {told}, and later ones likewise: it is random (dropout, a draw without a seed?) or counts "
                "its calls, so nothing can be concluded"
            )
        self.unsteady = f"{told}: it keeps something between calls; nothing was asked after them"

    def compatible(self, findings: Sequence[Finding]) -> Iterator[str]:
        """Which narrower arithmetic would explain the answers, if one does and is not as wide as the signal."""
        if any(finding.case.layer.stateful for finding in findings):
            return
        asked = [finding for finding in findings if finding.case.calls == 1]
        for name, arithmetic in NARROWER.items():
            found = [judge_answer(f.case, f.answers[0], self.settings.tolerance, arithmetic) for f in asked]
            if found and all(finding.verdict == "PASS" for finding in found):
                worst = max(finding.tally.worst for finding in found)
                yield f"compatible with {name} (largest {worst:.2g} radii), which is neither a pass nor a cause"
                return

    def beside(self, case: Case, thorough: bool) -> Iterator[Case]:
        if self.candidate.callable:
            if thorough:
                yield from companions(case, self.candidate.takes, self.settings.seed)
            if case.layer.stateful and case.calls == 1:
                yield two_calls(case, self.settings.seed)
            yield from probes(case, self.candidate.takes, self.settings.seed)

    def examine(self, oracle: Candidate, case: Case, keras_case: Case | None = None) -> tuple[Finding, Finding]:
        """keras_case: what Keras is asked instead, of which the case is another form."""
        if case.calls > 1:
            found, keras = (
                examine(self.candidate, case, self.settings.tolerance),
                self.keras(oracle, keras_case or case),
            )
            return self.disputed(found, keras), keras
        answer = self.candidate.ask(case)
        keras = self.keras(oracle, keras_case or case)
        return self.judged(case, answer, keras), keras

    def keras(self, oracle: Candidate, case: Case) -> Finding:
        return examine(oracle, case, Tolerance())

    def judged(self, case: Case, answer: Answer, keras: Finding) -> Finding:
        return self.disputed(
            judge_answer(case, answer, self.settings.tolerance, asker=Asker(self.candidate, case)), keras
        )

    def disputed(self, found: Finding, keras: Finding) -> Finding:
        if keras.verdict == "FAIL":
            worst = keras.wrong or f"{keras.tally.worst:.3g} radii from the reference: {describe(keras)}"
            found.disputed = f"Keras itself is {worst}; nothing is concluded about the candidate"
        self.asked.append(found.case)
        return found

    def report(self, results: Sequence[CaseReport], environment: Mapping[str, str] | None = None) -> Report:
        if environment is None:
            environment = {} if self.no_keras else library.environment()
        report = Report(
            tuple(results),
            tuple(self.not_asked()),
            {**provenance.environment(), **environment},
            strict=self.settings.strict,
        )
        if any(case.verdict == "FAIL" for case in results):
            with np.errstate(all="ignore"):  # a candidate may put out whatever it likes
                return self.diagnosed(report)
        return self.adequate(report) if report.verdict == "PASS" else report

    def kinds(self) -> Iterator[tuple[str, list[Finding]]]:
        """What was found, for each kind of layer by itself: a port is of one."""
        for kind in dict.fromkeys(finding.case.layer.kind for _, finding in self.found):
            yield kind, [finding for _, finding in self.found if finding.case.layer.kind == kind]

    def diagnosed(self, report: Report) -> Report:
        causes: list[Cause] = []
        known: list[str] = []
        for _, findings in self.kinds():
            if not any(finding.verdict == "FAIL" for finding in findings):
                continue
            if self.kept is not None:
                causes.append(self.kept)
                continue
            known += [self.unsteady] if self.unsteady else []
            found = diagnose(findings, self.settings.only_mistake)
            weights = InEffect() if found.causes else in_effect(findings)
            stale = weights.causes if self.settings.only_mistake in (None, "stale-weights") else ()
            explained = found.causes or stale or self.case_by_case(findings)
            causes += explained
            if not explained:
                known += [self.no_cause(found, findings), *facts(findings), *weights.lines]
        report = replace(report, causes=tuple(dict.fromkeys(causes)), known=tuple(dict.fromkeys(known)))
        smallest = self.smallest()
        return report if smallest is None else replace(report, smallest=described(smallest), failure=smallest)

    def smallest(self) -> Case | None:
        """The smallest case that fails; of what cannot be asked again, the case itself."""
        failed = [f for _, f in self.found if f.verdict == "FAIL" and f.case.calls == 1]
        if not failed:
            return None
        case = min(failed, key=lambda f: f.case.size * f.case.layer.units).case
        return shrink(self.candidate, case, self.settings.tolerance) if self.candidate.callable else failed[0].case

    def case_by_case(self, findings: Sequence[Finding]) -> tuple[Cause, ...]:
        """The causes of single cases, where nothing explains all: a port may have made several mistakes. The small
        cases first, as many as time allows."""
        groups: dict[str, list[Finding]] = {}
        for report, finding in self.found:
            if report.verdict == "FAIL" and finding.case.layer.kind == findings[0].case.layer.kind:
                groups.setdefault(report.id, []).append(finding)
        cases = sorted(groups.values(), key=lambda several: several[0].case.size * several[0].case.layer.units)
        if len(cases) < 2:
            return ()
        deadline, looked, found = time.monotonic() + CASE_BY_CASE, 0, dict[str, list[Cause]]()
        for several in cases:
            if time.monotonic() > deadline:
                break
            looked += 1
            for cause in diagnose(several, self.settings.only_mistake, seconds=0).causes:
                found.setdefault(cause.id, []).append(cause)
        common = {name: several for name, several in found.items() if 10 * len(several) >= looked}
        return tuple(
            replace(
                several[0], within=f"{len(several)} of {looked} cases looked at, of {len(cases)} that fail", apart=""
            )
            for _, several in sorted(common.items(), key=lambda item: -len(item[1]))
        )

    def no_cause(self, found: Diagnosis, findings: Sequence[Finding]) -> str:
        only = self.settings.only_mistake
        if only:
            unfit = "" if applies(only, findings) else ", which does not apply here"
            return f"cause: not {only}{unfit}; no other mistake was looked for"
        early = " (of pairs of mistakes not all were tried, for want of time)" if found.stopped else ""
        return f"cause: none of the known mistakes{early}"

    def adequate(self, report: Report) -> Report:
        """What a PASS is worth, looked for in half of the time that the check took."""
        if self.settings.only_mistake and not applies(
            self.settings.only_mistake, [finding for _, finding in self.found]
        ):
            return replace(report, known=(f"{self.settings.only_mistake} does not apply here: it was not looked for",))
        seconds = math.inf if self.settings.strict else max(BLIND, (time.thread_time() - self.began) / 2)
        found = [adequacy(findings, self.settings.only_mistake, seconds) for _, findings in self.kinds()]
        left = dict.fromkeys(name for part in found for name in part.left)
        early = f"not looked for whether they would show, for want of time: {', '.join(left)} (--strict takes its time)"
        return replace(
            report,
            blind=tuple(blind for part in found for blind in part.blind),
            visible=tuple(name for part in found for name in part.visible),
            known=(early,) if left else (),
        )

    def not_asked(self) -> Iterator[str]:
        """What these questions could not have shown, because nobody put them."""
        for what, number in self.skipped.items():
            yield f"{number} cases with {what}: the candidate has no such parameter"
        for reason, questions in self.refused.items():
            yield f"{', '.join(dict.fromkeys(questions))} ({reason})"
        if not self.candidate.callable:
            yield "any inputs but these, and a second call"
            partial = isinstance(self.candidate, Outputs) and self.candidate.single
            if partial and any(len(case.output_shapes) > 1 for case in self.asked):
                yield "the final state, which was not among the outputs"
        model = any(isinstance(case.layer, Sequential) for case in self.asked)  # masks by its inputs, states from zeros
        for what, name, told in (
            ("mask", "mask", "masks"),
            ("initial_state", "state", "initial states other than zero"),
        ):
            put = any(getattr(case, what) is not None for case in self.asked)
            if not put and not model and not any(name in skipped for skipped in self.skipped):
                yield told
        if any(case.layer.stateful for case in self.asked) and not any(case.calls > 1 for case in self.asked):
            yield "the state that a stateful layer keeps between calls"
        if self.asked:
            yield f"more than {max(case.timesteps for case in self.asked):,} timesteps"
            yield f"batches above {max(case.batch for case in self.asked if not case.rows):,}"


def again(case: Case) -> Case:
    """The case once more: two calls with the same arguments, of which the second is to be as the first."""
    return case.twice(id=f"{case.id} / asked again", layer=state_kept(case.layer, False))


def distance(first: Sequence[Any], second: Sequence[Any]) -> float:
    """The largest difference; infinite between arrays of other shapes, and where one is NaN or infinite alone."""
    if [a.shape for a in first] != [b.shape for b in second]:
        return float("inf")
    pairs = zip(first, second, strict=True)
    with np.errstate(invalid="ignore"):
        apart = [np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b)) for a, b in pairs]
    return max(float(np.nan_to_num(d, nan=np.inf).max(initial=0)) for d in apart)


def needs(case: Case) -> frozenset[str]:
    """What a candidate must take to be asked this."""
    given = {"mask": case.mask, "initial_state": case.initial_state}
    return frozenset(name for name, value in given.items() if value is not None)
