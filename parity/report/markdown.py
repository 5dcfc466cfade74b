"""A report as GitHub-flavoured Markdown: the summary of a job, a comment, a ticket."""

import re
from collections.abc import Iterable, Iterator

from parity.report.data import Blind, CaseReport, Divergence, LayerReport, Report
from parity.report.text import MOST, number, troubled
from parity.terminal import one_line, printable


def to_markdown(report: Report) -> str:
    """Verdict, counts, the cases that did not pass, causes and fixes, of some cases the layers and the worst elements,
    blind spots, and the command to repeat it."""
    return "\n\n".join(filter(None, blocks(report))) + "\n"


def blocks(report: Report) -> Iterator[str]:
    yield f"## {report.verdict}: parity with Keras"
    yield prose(report.subject)
    yield prose(report.counted) if len(report.cases) != 1 else only(report.cases[0])
    yield cases(troubled(report))
    yield f"Every FAIL, and no PASS, has one of: {prose(', '.join(report.marks))}" if report.marks else ""
    for cause in report.causes:
        yield "\n>\n".join(f"> {prose(line)}" for line in str(cause).split("\n"))
    yield "\n".join(f"- {prose(line)}" for line in report.known)
    yield f"Smallest case that fails: {prose(report.smallest)}" if report.smallest else ""
    yield from details(report)
    yield blind("Not visible in this check: these mistakes would have passed too", report.not_visible)
    yield blind("No difference with these weights", report.no_difference)
    yield f"Not asked: {prose('; '.join(report.not_asked))}" if report.not_asked else ""
    yield prose(report.proof[:1].upper() + report.proof[1:])
    yield f"Again:\n\n{fenced(report.command)}" if report.command else ""
    yield prose(", ".join(f"{name} {value}" for name, value in report.environment.items()))


def only(case: CaseReport) -> str:
    return f"{code(case.id)}: largest {number(case.worst)} radii" if case.worst is not None else code(case.id)


CASES = "verdict", "case", "largest, radii", "first outside", "method"


def cases(bad: list[CaseReport]) -> str:
    return table(CASES, map(row, bad[:MOST])) + (f"\n\n… and {len(bad) - MOST} more" if len(bad) > MOST else "")


def row(case: CaseReport) -> tuple[str, ...]:
    first = case.first_divergence.place if case.first_divergence else " ".join(case.notes[:1])
    methods = prose(", ".join(case.method))
    return case.verdict, code(case.id, in_table=True), number(case.worst), prose(first), methods


DETAILED = 5
"""Cases of which the layers, the worst elements and the command are told."""


def details(report: Report) -> Iterator[str]:
    alone = len(report.cases) == 1
    for case in report.cases if alone else troubled(report)[:DETAILED]:
        found = [table(LAYERS, map(layer_row, case.layers)), table(ELEMENTS, map(element_row, case.worst_elements))]
        if not alone and case.explained:
            found.append("\n".join(f"- {prose(line)}" for line in case.explained))
        if not alone and case.command:
            found.append(fenced(case.command))
        if any(found) and not alone:
            yield f"### {code(case.id)}"
        yield from found


LAYERS = "layer", "kind", "verdict", "largest, radii", ""
ELEMENTS = "timestep", "batch", "unit", "radii off", "got", "expected ± radius"


def layer_row(layer: LayerReport) -> tuple[str, ...]:
    told = "its inputs already differed" if layer.inputs_differed else ""
    return code(layer.name, in_table=True), prose(layer.kind), layer.verdict, number(layer.worst), told


def element_row(e: Divergence) -> tuple[str, ...]:
    place = str(e.timestep), str(e.batch), str(e.unit)
    return *place, number(e.ratio), f"{e.got:.7g}", f"{e.expected:.7g} ± {e.radius:.1e}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines) if len(lines) > 2 else ""


def blind(what: str, found: tuple[Blind, ...]) -> str:
    lines = (f"- {code(b.id)}: {prose(b.what)}{f' ({prose(b.hidden)})' if b.hidden else ''}" for b in found)
    return "\n".join([f"{what}:\n", *lines]) if found else ""


def prose(text: str) -> str:
    r"""In one line, with a \ before whatever Markdown, HTML or a table would take for its own."""
    return re.sub(r"([\\`*_<>\[\]|~$&!#@])", r"\\\1", one_line(text))


def code(text: str, in_table: bool = False) -> str:
    text = one_line(text)
    text = text.replace("|", r"\|") if in_table else text
    fence = "`" * (1 + longest_run(text))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def fenced(text: str) -> str:
    fence = "`" * max(3, 1 + longest_run(text))
    return f"{fence}sh\n{printable(text)}\n{fence}"


def longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
