"""What every page says in the same way."""

from parity.report.data import CaseReport, Report

MOST = 20
"""Cases told in full."""


def number(value: float | None) -> str:
    """Three digits; nothing for None."""
    return "" if value is None else f"{value:,.3g}".replace("inf", "∞").replace("nan", "NaN")


def troubled(report: Report) -> list[CaseReport]:
    """The cases that did not pass, those that failed first."""
    return sorted((case for case in report.cases if case.verdict != "PASS"), key=lambda case: case.verdict != "FAIL")


def told(report: Report) -> list[CaseReport]:
    """The cases that a page tells in full: MOST of those that did not pass, or the one nearest to its radius."""
    measured = [case for case in report.cases if case.worst is not None]
    return troubled(report)[:MOST] or sorted(measured, key=lambda case: -(case.worst or 0))[:1]
