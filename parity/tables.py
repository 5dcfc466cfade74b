"""The tables that the command line prints."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from parity.report import words
from parity.report.data import CaseReport, Report
from parity.terminal import cell

if TYPE_CHECKING:
    from parity.scoring.counts import Score


def of_cases(report: Report) -> Table:
    """A row for every case."""
    table = Table("case", "verdict", "proved", "worst", "Keras", "method")
    for case in report.cases:
        proved = "yes" if case.proved else "no"
        numbers = _digits(case.worst), _digits(case.keras_worst)
        table.add_row(cell(case.id), case.verdict, proved, *numbers, ", ".join(case.method))
    return table


def of_layers(case: CaseReport) -> Table:
    """A row for every layer of a model."""
    table = Table("layer", "kind", "verdict", "worst", "method", "", title=cell(case.id))
    for layer in case.layers:
        told = words.INPUTS_DIFFERED if layer.inputs_differed else ""
        row = layer.name, layer.kind, layer.verdict, _digits(layer.worst), ", ".join(layer.method), told
        table.add_row(*map(cell, row))
    return table


def of_checks(reports: Iterable[tuple[str, Report]]) -> Table:
    """A row for every check of a gate."""
    table = Table("check", "verdict", "largest, radii", "why")
    for name, report in reports:
        row = name, report.verdict, _digits(report.worst), ", ".join(_why(report)[:_MOST_REASONS])
        table.add_row(*map(cell, row))
    return table


_MOST_REASONS = 4


def _why(report: Report) -> list[str]:
    reasons = [cause.id for cause in report.causes]
    if report.verdict == "ERROR":
        for case in report.cases:
            reasons += case.notes
    return reasons + [f"not visible: {blind.id}" for blind in report.not_visible]


def of_arrays(manifest: Mapping[str, Any]) -> Table:
    """A row for every array that a port has."""
    table = Table("array", "shape", "from Keras's", "transposed", "gates")
    for layer in manifest["layers"]:
        gates = " ".join(layer.get("gates", []))
        for array in layer["arrays"]:
            transposed = "yes" if array["transposed"] else "no"
            row = array["name"], str(tuple(array["shape"])), f"{layer['layer']} {array['from']}"
            table.add_row(*map(cell, row), transposed, gates)
    return table


def of_score(score: "Score") -> Table:
    """A row for every count."""
    table = Table("", "number", "of", "share")
    for what, (number, of) in score.counts.items():
        table.add_row(what, f"{number:,}", f"{of:,}", f"{number / of:.1%}" if of else "")
    return table


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
