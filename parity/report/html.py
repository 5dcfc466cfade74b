"""A report as one HTML file that loads nothing and runs nothing."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from parity.report import words
from parity.report.data import CaseReport, Report
from parity.report.picture import picture
from parity.report.selection import MOST, told, troubled
from parity.terminal import printable

SHORT = 10
"""Cases named at the top."""


def to_html(report: Report) -> str:
    """Verdict, which cases failed, causes and fixes, those cases (or the one nearest to its radius) with pictures, what
    the check could not see, every case, the environment and the command to repeat it."""
    shown, bad = told(report), troubled(report)
    return _template().render(
        report=report,
        only=report.cases[0] if len(report.cases) == 1 else None,
        told=shown,
        one=not any(case.explained for case in report.cases),  # not of several, each with its own remarks
        short=bad[:SHORT],
        bad=len(bad),
        unsaid=len(bad) - MOST,
        # by identity: two cases may be equal, and each has a place of its own on the page
        anchors={id(case): n for n, case in enumerate(shown, 1)},
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("parity.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.globals["words"] = words
    environment.filters |= {"number": words.number, "picture": _drawn, "identity": id}
    return environment.get_template("report.html.jinja")


def _drawn(case: CaseReport) -> Markup:
    return Markup("") if case.trace is None else Markup(picture(case.trace, case.first_divergence))
