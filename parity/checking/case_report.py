"""What was found out about one case, as its CaseReport."""

from collections.abc import Iterator, Sequence

import numpy as np

from parity.cases.case import Case
from parity.judging.findings import Finding, Tally, Tolerance
from parity.report.data import CaseReport, Divergence, LayerReport, Trace
from parity.report.verdicts import VERDICTS
from rnn_scratch import Sequential


def summarize(case: Case, findings: Sequence[tuple[Finding, Finding]], tolerance: Tolerance) -> CaseReport:
    found = [finding for finding, _ in findings]
    verdict = min((finding.verdict for finding in found), key=VERDICTS.index)
    decisive = [finding for finding in found if finding.verdict == verdict]
    total, keras = Tally(), Tally()
    for finding, theirs in findings:
        total.merge(finding.tally)
        keras.merge(theirs.tally)
    proved = (
        any(f.proved for f in decisive) if verdict == "FAIL" else verdict == "PASS" and all(f.proved for f in found)
    )
    shown = next((f for f in decisive if f.tally.first), None) if verdict != "PASS" else None
    first = shown.tally.first if shown else None
    where, detail = part_of_interest(shown or found[0])
    return CaseReport(
        case.id,
        verdict,
        proved=proved and not tolerance.given,
        method=tuple(dict.fromkeys(method for finding in found for method in finding.method)),
        worst=np.inf if any(finding.wrong for finding in found) else total.worst,
        max_abs=total.max_abs,
        rms=total.rms,
        keras_worst=keras.worst,
        first_divergence=Divergence(**first) if first else None,
        notes=tuple(dict.fromkeys(notes(case, found, shown, tolerance))),
        outside=shown.tally.outside if shown else 0,
        count=shown.tally.count if shown else 0,
        layers=tuple(layer_table(case, found)),
        worst_elements=tuple(Divergence(**element) for element in detail.tally.top) if shown else (),
        trace=trace(case, detail, where),
    )


def part_of_interest(finding: Finding) -> tuple[str, Finding]:
    """Of a model the layers, by name, that were first outside, or the farthest off; else what was found itself."""
    parts = [(f"layer {' + '.join(names)}", part) for names, part in finding.parts.items()]
    farthest = max(parts, key=lambda part: part[1].tally.worst, default=("", finding))
    return next((part for part in parts if part[1].tally.first), farthest)


def trace(case: Case, finding: Finding, where: str) -> Trace | None:
    timesteps, differences, radii = finding.tally.course.points().tolist()
    question = finding.case.id.removeprefix(case.id).removeprefix(" / ")
    seen_in = ", ".join(filter(None, (question, where)))
    return Trace(tuple(map(int, timesteps)), tuple(differences), tuple(radii), seen_in) if timesteps else None


def layer_table(case: Case, found: Sequence[Finding]) -> Iterator[LayerReport]:
    """Of a model, each layer's worst verdict over all questions. Those that were not seen go with the next that was."""
    if not isinstance(case.layer, Sequential):
        return
    asked = [finding for finding in found if finding.parts]
    for name, layer in case.layer.parts.items():
        own = [(f, names) for f in asked for names in f.parts if name in names]
        if not own:
            yield LayerReport(name, layer.kind, "not asked")
            continue
        apart = [(f, names) for f, names in own if names[-1] == name]
        if not apart:
            yield LayerReport(name, layer.kind, "not seen", method=(f"judged with {own[0][1][-1]}",))
            continue
        parts = [f.parts[names] for f, names in apart]
        verdict = min((part.verdict for part in parts), key=VERDICTS.index)
        methods = dict.fromkeys(method for part in parts for method in part.method)
        yield LayerReport(
            name,
            layer.kind,
            verdict,
            worst=max(part.tally.worst for part in parts),
            method=tuple(methods),
            inputs_differed=any(differed_before(f, names) for f, names in apart),
        )


def differed_before(finding: Finding, names: tuple[str, ...]) -> bool:
    before = list(finding.parts)[: list(finding.parts).index(names)]
    return any(finding.parts[other].verdict == "FAIL" for other in before)


def notes(case: Case, found: Sequence[Finding], shown: Finding | None, tolerance: Tolerance) -> Iterator[str]:
    if shown and shown.case is not found[0].case:
        yield f"seen in {describe(shown)}"
    for kind in ("wrong", "disputed", "vacuous", "undecided", "faint"):
        told = [finding for finding in found if getattr(finding, kind)]
        if told:
            place = "" if told[0] is found[0] else told[0].case.id.removeprefix(case.id + " / ") + ": "
            yield f"{place}{getattr(told[0], kind)}{f' (likewise {len(told) - 1} other questions)' if told[1:] else ''}"
    for finding in found:
        yield from finding.notes
    failing = [f for f in found if f.verdict == "FAIL"]
    if failing and failing[0].case.id.endswith("asked again") and found[0].verdict == "PASS":
        yield "the first call was right: something is kept between calls"
    if tolerance.given:
        yield f"not proved: atol {tolerance.atol:g} and rtol {tolerance.rtol:g} were granted beside rounding"


def describe(finding: Finding) -> str:
    """Which question it was, and what its first bad row is meant to show."""
    first = finding.tally.first
    rows = finding.case.rows
    place = f", batch row {first['batch']}" if first else ""
    return finding.case.id.rpartition(" / ")[2] + place + (f": {rows[first['batch']]}" if first and rows else "")
