"""What was asked of a candidate, and what became of it: the record that is kept while asking and concluded from."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from parity.candidates.answer import Candidate
from parity.cases.beside import WEIGHTS
from parity.cases.case import Case
from parity.errors import ParityError
from parity.given.settings import Settings
from parity.judging.findings import Finding
from parity.report.data import CaseReport, Cause


class Both(NamedTuple):
    """What one question showed of the candidate, and what it showed of Keras."""

    candidate: Finding
    keras: Finding


class Result(NamedTuple):
    """What a target came to: its report, and what each of its questions showed of the candidate."""

    report: CaseReport
    findings: list[Finding]


@dataclass
class Asked:
    """A candidate's questions and what became of them, over one or many targets.

    kept: the cause, where the candidate was seen to keep a state that nobody reset. goes_on: whether each of its calls
    goes on from the last, as those of a stateful layer do, and nobody can make it start again. unsteady: what it does,
    where its answers hang on the calls before. cases: the questions that were judged. skipped: how many cases were left
    out, by what the candidate takes no parameter for. refused: the questions of ours that could not be put, by why.
    """

    candidate: Candidate
    settings: Settings
    began: float = field(default_factory=time.thread_time)
    kept: Cause | None = None
    unsteady: str | None = None
    goes_on: bool = False
    cases: list[Case] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)

    def start_again(self, candidate: Candidate) -> None:
        """With the candidate called in another way: what came before says nothing of it."""
        self.candidate, self.kept, self.unsteady, self.goes_on = candidate, None, None, False
        self.cases.clear()

    def skips(self, case: Case, own: Case | None = None) -> bool:
        """Whether the candidate has no parameter for something in the case, or, if it cannot be given weights, the case
        has others than its own; which is kept."""
        what = " and ".join(sorted(case.needs - self.candidate.takes))
        if own is not None and case.layer is not own.layer and not self.candidate.takes & WEIGHTS:
            what = "other weights"
        if what:
            self.skipped[what] = self.skipped.get(what, 0) + 1
        return bool(what)

    def refuse(self, question: str, why: str) -> None:
        self.refused.setdefault(why, []).append(question)

    def failed(self, case: Case, error: ParityError) -> CaseReport:
        """The report on a case that came to nothing."""
        report = CaseReport(case.id, "ERROR", notes=(str(error),))
        self.results.append(Result(report, []))
        return report

    @property
    def steady(self) -> bool:
        """Whether later answers can be told from: they do not hang on the calls before."""
        return not (self.kept or self.unsteady or self.goes_on)

    @property
    def findings(self) -> list[Finding]:
        return findings_of(self.results)

    def ever(self, so: Callable[[Case], bool]) -> bool:
        """Whether that is so of a question that was judged."""
        return any(map(so, self.cases))

    def by_kind(self) -> Iterator[list[Result]]:
        """The results, for each kind of layer by itself: a port is of one."""
        kinds = {finding.case.layer.kind: None for finding in self.findings}
        for kind in kinds:
            own = ((result, _of_kind(result, kind)) for result in self.results)
            yield [result._replace(findings=findings) for result, findings in own if findings]


def _of_kind(result: Result, kind: str) -> list[Finding]:
    return [finding for finding in result.findings if finding.case.layer.kind == kind]


def findings_of(results: Iterable[Result]) -> list[Finding]:
    return [finding for result in results for finding in result.findings]
