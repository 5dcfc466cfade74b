"""Every sentence that a report says, whatever page it stands on."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from parity.judging.findings import PROVING
from parity.rounding.arithmetic import Arithmetic

if TYPE_CHECKING:
    from parity.report.data import Blind, CaseReport, Cause, Divergence, LayerReport, Report

MOST_WORST = 5
"""Elements told of a report; each case has as many."""

INPUTS_DIFFERED = "its inputs already differed"
UNSEEN = "a known mistake would not have shown"


def number(value: float | None) -> str:
    """Three digits; nothing for None."""
    return "" if value is None else f"{value:,.3g}".replace("inf", "∞").replace("nan", "NaN")


# --- of an element, a layer, a case ---


def place(element: "Divergence") -> str:
    return (
        f"timestep {element.timestep}, batch {element.batch}, unit {element.unit}: got {element.got:.7g}, "
        f"expected {element.expected:.7g} ± {element.radius:.1e} ({element.ratio:,.3g} radii)"
    )


def layer_line(layer: "LayerReport") -> str:
    worst = "" if layer.worst is None else f"  {layer.worst:.3g} radii"
    told = f"  {INPUTS_DIFFERED}" if layer.inputs_differed else ""
    return f"{layer.verdict:<12}  {layer.name} ({layer.kind}){worst}{_in_brackets(layer.method)}{told}"


def case_lines(case: "CaseReport") -> Iterator[str]:
    """The case in a line, and below it its layers and what there is to note."""
    line = f"{case.verdict}  {case.id}"
    if case.first_divergence:
        line += f"  {case.first_divergence}; {case.outside:,} of {case.count:,} elements outside"
    elif case.verdict in ("PASS", "INCONCLUSIVE"):
        line += f"  largest {case.worst:.3g} radii, {case.max_abs:.2g} absolute"
    yield line + _in_brackets(case.method)
    for below in (*case.layers, *case.notes):
        yield f"      {below}"


def _in_brackets(methods: Iterable[str]) -> str:
    told = ", ".join(methods)
    return f" ({told})" if told else ""


def gist(case: "CaseReport") -> str:
    """In a few words, why it is no PASS."""
    if case.first_divergence and case.verdict == "FAIL":
        return f"first outside at timestep {case.first_divergence.timestep}"
    return case.notes[0] if case.notes else ""


# --- of a whole report ---


def counted(report: "Report") -> str:
    """How many cases there are of each verdict."""
    if not report.cases:
        return "no case"
    return f"{len(report.cases)} cases: {counts(report)}{_largest(report)}"


def counts(report: "Report") -> str:
    found = report.counts.items()
    return ", ".join(f"{number} {verdict}" for verdict, number in found if verdict != "cases" and number)


def _largest(report: "Report") -> str:
    measured = [case for case in report.cases if case.worst is not None]
    if not measured:
        return ""
    largest = max(measured, key=lambda case: case.worst or 0)
    return f"; largest {largest.worst:.3g} radii in {largest.id}"


def marks(report: "Report") -> list[str]:
    """The parts of ids that tell the failing cases from the passing ones, if some do."""
    failing, passing = _parts(report, "FAIL"), _parts(report, "PASS")
    found = set[str]().union(*failing) - set[str]().union(*passing)
    if 2 * len(passing) < len(failing):  # a few that pass lack many parts by chance
        return []
    return sorted(found) if all(found & parts for parts in failing) else []


def _parts(report: "Report", verdict: str) -> list[set[str]]:
    ids = [case.id.rpartition(": ")[2] for case in report.cases if case.verdict == verdict]
    return [set(name.split("-")) for name in ids]


def proof(report: "Report") -> str:
    """What the verdict rests on; nothing where nobody knows."""
    if report.verdict not in ("PASS", "FAIL"):
        return ""
    decisive = [case for case in report.cases if case.verdict == report.verdict]
    proved = sum(case.proved for case in decisive)
    others = _evidence(decisive)
    if not proved:
        return f"not proved: {others} evidence" if others else "not proved"
    told = "proved"
    if len(decisive) > 1:
        told += f" in {proved} of {len(decisive)} cases"
    told += f", {Arithmetic.says}"
    if others:
        told += f"; evidence, not proof, in the others: {others}"
    return told


def _evidence(cases: Iterable["CaseReport"]) -> str:
    """The methods that prove nothing, of those cases that are not proved."""
    found = set[str]()
    for case in cases:
        if not case.proved:
            found.update(case.method)
    return ", ".join(sorted(found - PROVING))


def worst_lines(report: "Report") -> list[str]:
    """The elements that are the farthest off, of all cases that fail."""
    failing = [case for case in report.cases if case.verdict == "FAIL"]
    found = [(element, case) for case in failing for element in case.worst_elements]
    found.sort(key=lambda pair: -pair[0].ratio)
    several = len(report.cases) > 1
    return [f"worst: {place(e)}" + (f" in {case.id}" if several else "") for e, case in found[:MOST_WORST]]


# --- why it failed, and what would have passed too ---


def cause_lines(cause: "Cause") -> list[str]:
    detail = f" ({cause.detail})" if cause.detail else ""
    within = f" in {cause.within}" if cause.within else ""
    return [
        f"cause{within}: {cause.id}: {cause.what}{detail}. With that changed every element is within "
        f"{'what is granted' if cause.granted else 'rounding'} (largest {cause.largest:.2g} radii).",
        f"fix: {cause.fix}.",
    ]


def why(report: "Report") -> list[str]:
    """What is known of a FAIL."""
    lines: list[str] = []
    for cause in report.causes:
        lines += cause_lines(cause)
    apart = [cause.apart for cause in report.causes if cause.apart]
    if apart:  # each of them says the same
        lines.append(f"these causes explain the same answers: {apart[0]}")
    lines += report.known
    if report.smallest:
        lines.append(f"smallest case that fails: {report.smallest}")
    return lines


def hidden(blind: "Blind") -> str:
    """By what, and where."""
    return ", ".join(filter(None, (blind.why, blind.within and f"in {blind.within}")))


def unseen(found: Iterable["Blind"]) -> str:
    """The mistakes, those that the same thing hides together."""
    groups: dict[str, list[str]] = {}
    for blind in found:
        groups.setdefault(hidden(blind), []).append(blind.id)
    told = {reason: ", ".join(ids) for reason, ids in groups.items()}
    return "; ".join(f"{ids} ({reason})" if reason else ids for reason, ids in told.items())


def strict_note(report: "Report") -> str:
    return f"strict: {UNSEEN}: {', '.join(blind.id for blind in report.not_visible)}"
