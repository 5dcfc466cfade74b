"""A report as plain text: what `print(report)` shows."""

from collections.abc import Iterator
from dataclasses import replace

from parity.report import words
from parity.report.data import Report
from parity.report.verdicts import VERDICTS

_SHOWN = 20
"""Cases told of a report of several."""


def to_text(report: Report) -> str:
    """The cases that did not pass, why, what the verdict rests on, what was not asked, and the environment."""
    return "\n".join([*_cases(report), *_summary(report)])


def _cases(report: Report) -> Iterator[str]:
    if len(report.cases) == 1:
        (only,) = report.settled
        yield str(replace(report.cases[0], verdict=only.verdict))  # without its note, which stands below as a line
        return
    bad = [case for case in report.cases if case.verdict != "PASS"]
    bad.sort(key=lambda case: VERDICTS.index(case.verdict))
    yield from map(str, bad[:_SHOWN])
    if len(bad) > _SHOWN:
        yield f"... and {len(bad) - _SHOWN} more"


def _summary(report: Report) -> Iterator[str]:
    if len(report.cases) > 1:
        yield f"{report.verdict}  {words.counted(report)}"
    if marks := words.marks(report):
        yield f"every FAIL, and no PASS, has one of: {', '.join(marks)}"
    yield from words.why(report)
    yield from _not_seen(report)
    if proof := words.proof(report):
        yield proof
    if report.not_asked:
        yield f"not asked: {'; '.join(report.not_asked)}"
    yield ", ".join(f"{name} {value}" for name, value in report.environment.items())


def _not_seen(report: Report) -> Iterator[str]:
    """Of a PASS what would have passed too."""
    if report.strict and report.not_visible:
        yield f"INCONCLUSIVE, because of --strict: {words.UNSEEN}"
    if report.not_visible:
        yield f"not visible in this check: {words.unseen(report.not_visible)}"
    if report.no_difference:
        yield f"no difference with these weights: {words.unseen(report.no_difference)}"
