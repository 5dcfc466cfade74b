"""Which cases a page tells, and in which order."""

from parity.report.data import CaseReport, Report

MOST = 20
"""Cases told in full."""


def troubled(report: Report) -> list[CaseReport]:
    """The cases that did not pass, those that failed first."""
    bad = [case for case in report.cases if case.verdict != "PASS"]
    return sorted(bad, key=lambda case: case.verdict != "FAIL")


def told(report: Report) -> list[CaseReport]:
    """The cases that a page tells in full: MOST of those that did not pass, or the one nearest to its radius."""
    if bad := troubled(report):
        return bad[:MOST]
    measured = [case for case in report.cases if case.worst is not None]
    return sorted(measured, key=lambda case: -(case.worst or 0))[:1]
