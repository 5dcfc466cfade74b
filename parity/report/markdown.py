"""A report as GitHub-flavoured Markdown: the summary of a job, a comment, a ticket."""

import re
from collections.abc import Iterable, Iterator

from parity.report import words
from parity.report.data import Blind, CaseReport, Cause, Divergence, LayerReport, Report
from parity.report.selection import MOST, troubled
from parity.report.words import number
from parity.terminal import one_line, printable

_DETAILED = 5
"""Cases of which the layers, the worst elements and the command are told."""

_CASES = "verdict", "case", "largest, radii", "first outside", "method"
_LAYERS = "layer", "kind", "verdict", "largest, radii", ""
_ELEMENTS = "timestep", "batch", "unit", "radii off", "got", "expected ± radius"


def to_markdown(report: Report) -> str:
    """Verdict, counts, the cases that did not pass, causes and fixes, of some cases the layers and the worst elements,
    blind spots, and the command to repeat it."""
    blocks = (*_found(report), *_details(report), *_unseen(report), *_repeating(report))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _found(report: Report) -> Iterator[str]:
    yield f"## {report.verdict}: parity with Keras"
    yield _prose(report.subject)
    yield _only(report.cases[0]) if len(report.cases) == 1 else _prose(words.counted(report))
    yield _cases(troubled(report))
    if marks := words.marks(report):
        yield f"Every FAIL, and no PASS, has one of: {_prose(', '.join(marks))}"
    yield from map(_cause, report.causes)
    yield _list(report.known)
    if report.smallest:
        yield f"Smallest case that fails: {_prose(report.smallest)}"


def _unseen(report: Report) -> Iterator[str]:
    yield _blind("Not visible in this check: these mistakes would have passed too", report.not_visible)
    yield _blind("No difference with these weights", report.no_difference)
    if report.not_asked:
        yield f"Not asked: {_prose('; '.join(report.not_asked))}"


def _repeating(report: Report) -> Iterator[str]:
    proof = words.proof(report)
    yield _prose(proof[:1].upper() + proof[1:])
    if report.command:
        yield f"Again:\n\n{_fenced(report.command)}"
    yield _prose(", ".join(f"{name} {value}" for name, value in report.environment.items()))


# --- cases ---


def _only(case: CaseReport) -> str:
    return _code(case.id) if case.worst is None else f"{_code(case.id)}: largest {number(case.worst)} radii"


def _cases(bad: list[CaseReport]) -> str:
    more = f"\n\n… and {len(bad) - MOST} more" if len(bad) > MOST else ""
    return _table(_CASES, map(_case_row, bad[:MOST])) + more


def _case_row(case: CaseReport) -> tuple[str, ...]:
    first = words.place(case.first_divergence) if case.first_divergence else " ".join(case.notes[:1])
    methods = _prose(", ".join(case.method))
    return case.verdict, _code(case.id, in_table=True), number(case.worst), _prose(first), methods


def _details(report: Report) -> Iterator[str]:
    if len(report.cases) == 1:
        yield from _tables(report.cases[0])
        return
    for case in troubled(report)[:_DETAILED]:
        told = [*_tables(case), _list(case.explained), _fenced(case.command) if case.command else ""]
        if any(told):
            yield f"### {_code(case.id)}"
        yield from told


def _tables(case: CaseReport) -> Iterator[str]:
    yield _table(_LAYERS, map(_layer_row, case.layers))
    yield _table(_ELEMENTS, map(_element_row, case.worst_elements))


def _layer_row(layer: LayerReport) -> tuple[str, ...]:
    told = words.INPUTS_DIFFERED if layer.inputs_differed else ""
    return _code(layer.name, in_table=True), _prose(layer.kind), layer.verdict, number(layer.worst), told


def _element_row(e: Divergence) -> tuple[str, ...]:
    place = str(e.timestep), str(e.batch), str(e.unit)
    return *place, number(e.ratio), f"{e.got:.7g}", f"{e.expected:.7g} ± {e.radius:.1e}"


# --- mistakes ---


def _cause(cause: Cause) -> str:
    return "\n>\n".join(f"> {_prose(line)}" for line in words.cause_lines(cause))


def _blind(what: str, found: tuple[Blind, ...]) -> str:
    return "\n".join([f"{what}:\n", *map(_blind_line, found)]) if found else ""


def _blind_line(blind: Blind) -> str:
    hidden = words.hidden(blind)
    return f"- {_code(blind.id)}: {_prose(blind.what)}" + (f" ({_prose(hidden)})" if hidden else "")


# --- Markdown itself ---


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Nothing where there is no row."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines) if len(lines) > 2 else ""


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_prose(line)}" for line in lines)


def _prose(text: str) -> str:
    r"""In one line, with a \ before whatever Markdown, HTML or a table would take for its own."""
    return re.sub(r"([\\`*_<>\[\]|~$&!#@])", r"\\\1", one_line(text))


def _code(text: str, in_table: bool = False) -> str:
    text = one_line(text)
    if in_table:
        text = text.replace("|", r"\|")
    fence = "`" * (1 + _longest_run(text))
    # next to the fence a backtick of the text's own would be taken for one of it
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}sh\n{printable(text)}\n{fence}"


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
