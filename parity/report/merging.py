"""Several reports in one."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from parity.report import words
from parity.report.data import Blind, CaseReport, Cause, Report

_Named = Sequence[tuple[str, Report]]
_Found = TypeVar("_Found", Cause, Blind)


def merged(named: Iterable[tuple[str, Report]], incomplete: str = "") -> Report:
    """Several reports in one: their cases, each under its report's name, and whatever they say, once, with whose it is.

    incomplete: why some are missing, which makes it an ERROR. What `strict` made of a report goes to its cases.
    """
    reports = list(_told_apart(named))
    environment: dict[str, str] = {}
    for _, report in reports:
        environment |= report.environment
    return Report(
        cases=tuple(_own(name, report, case) for name, report in reports for case in report.settled),
        not_asked=tuple(_not_asked(reports)),
        environment=environment,
        causes=tuple(_causes(reports)),
        known=(*([f"incomplete: {incomplete}"] if incomplete else []), *_known(reports)),
        blind=tuple(_blind(reports)),
        incomplete=incomplete,
        smallest=next((f"{name}: {report.smallest}" for name, report in reports if report.smallest), ""),
    )


def _told_apart(named: Iterable[tuple[str, Report]]) -> Iterator[tuple[str, Report]]:
    """A number after each name that was there before: a test may check twice."""
    seen = Counter[str]()
    for name, report in named:
        seen[name] += 1
        yield (f"{name} ({seen[name]})" if seen[name] > 1 else name), report


def _own(name: str, report: Report, case: CaseReport) -> CaseReport:
    explained = tuple(words.why(report)) if case.verdict == "FAIL" else ()
    return replace(case, id=f"{name}: {case.id}", explained=explained, command=case.command or report.command)


def _not_asked(reports: _Named) -> Iterator[str]:
    asking = sum(bool(report.not_asked) for _, report in reports)
    for line, names in _said((name, report.not_asked) for name, report in reports):
        yield line if len(names) == asking else f"{line} (in {_several(names)})"


def _known(reports: _Named) -> Iterator[str]:
    for line, names in _said((name, report.known) for name, report in reports):
        yield f"{_several(names)}: {line}"


def _said(lines: Iterable[tuple[str, Iterable[str]]]) -> Iterable[tuple[str, list[str]]]:
    """What is said, and by whom."""
    found: dict[str, list[str]] = {}
    for name, said in lines:
        for line in said:
            found.setdefault(line, []).append(name)
    return found.items()


def _several(names: Sequence[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more"


# --- causes and blind spots, each once ---


def _causes(reports: _Named) -> Iterator[Cause]:
    """As they are in the report where they are largest. What would tell them apart is each report's own."""
    every = [(name, cause) for name, report in reports for cause in report.causes]
    for found in _alike(every, lambda cause: (cause.id, cause.detail)):
        largest = max((cause for _, cause in found), key=lambda cause: cause.largest)
        yield replace(largest, within=_whose(found), apart="")


def _blind(reports: _Named) -> Iterator[Blind]:
    every = [(name, blind) for name, report in reports for blind in report.blind]
    # one mistake may be hidden by one thing here and by another there, which are then two blind spots
    for found in _alike(every, lambda blind: (blind.id, blind.detail, blind.why, blind.same)):
        _, first = found[0]
        yield replace(first, within=_whose(found))


def _alike(
    every: Iterable[tuple[str, _Found]], key: Callable[[_Found], Hashable]
) -> Iterable[list[tuple[str, _Found]]]:
    groups: dict[Hashable, list[tuple[str, _Found]]] = {}
    for name, item in every:
        groups.setdefault(key(item), []).append((name, item))
    return groups.values()


def _whose(found: Iterable[tuple[str, _Found]]) -> str:
    return _several([f"{name} ({item.within})" if item.within else name for name, item in found])
