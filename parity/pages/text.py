"""What every page says in the same way. A name may come from anywhere, a layer's from a stranger's file."""

from parity.report import CaseReport, Report

MOST = 20
"""Cases told in full."""


def printable(text: object) -> str:
    """The text with \\x1b for an escape and so on: no control characters, no overrides of the direction of writing, no
    half surrogates. Lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def one_line(text: object) -> str:
    return " ".join(printable(text).split())


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
