"""What was found out about one case, as its CaseReport."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from parity.cases.case import Case
from parity.checking.asked import Both
from parity.judging.findings import Finding
from parity.judging.tally import Tally, Tolerance
from parity.report.data import CaseReport, Divergence, LayerReport, Trace
from parity.report.verdicts import VERDICTS
from rnn_scratch.models import Model


def summarize(case: Case, questions: Sequence[Both], tolerance: Tolerance) -> CaseReport:
    """The report on a case: its own question comes first, then those that were asked beside it."""
    found = [both.candidate for both in questions]
    verdict = _worst_verdict(found)
    total, keras = _merged(found), _merged([both.keras for both in questions])
    shown = _shown(found, verdict)
    tally = shown.tally if shown else Tally()
    where, detail = _part_of_interest(shown or found[0])
    return CaseReport(
        case.id,
        verdict,
        proved=_proved(found, verdict) and not tolerance.given,
        method=_methods(found),
        worst=np.inf if any(finding.wrong for finding in found) else total.worst,
        max_abs=total.max_abs,
        rms=total.rms,
        keras_worst=keras.worst,
        first_divergence=Divergence(**tally.first) if tally.first else None,
        notes=tuple(dict.fromkeys(_notes(case, found, shown, tolerance))),
        outside=tally.outside,
        count=tally.count,
        layers=tuple(_layer_table(case, found)),
        worst_elements=tuple(Divergence(**element) for element in detail.tally.top) if shown else (),
        trace=_trace(case, detail, where),
    )


def _worst_verdict(found: Sequence[Finding]) -> str:
    return min((finding.verdict for finding in found), key=VERDICTS.index)


def _merged(found: Sequence[Finding]) -> Tally:
    total = Tally()
    for finding in found:
        total.merge(finding.tally)
    return total


def _methods(found: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(method for finding in found for method in finding.method))


def _proved(found: Sequence[Finding], verdict: str) -> bool:
    """A FAIL is proved by one question, a PASS by all of them together."""
    if verdict == "FAIL":
        return any(finding.proved for finding in found if finding.verdict == "FAIL")
    return verdict == "PASS" and all(finding.proved for finding in found)


def _shown(found: Sequence[Finding], verdict: str) -> Finding | None:
    """The question that the report shows elements of: the first with that verdict that has some outside."""
    if verdict == "PASS":
        return None
    return next((f for f in found if f.verdict == verdict and f.tally.first), None)


def _part_of_interest(finding: Finding) -> tuple[str, Finding]:
    """Of a model the layers, by name, that were first outside, or the farthest off; else what was found itself."""
    parts = [(f"layer {' + '.join(names)}", part) for names, part in finding.parts.items()]
    farthest = max(parts, key=lambda part: part[1].tally.worst, default=("", finding))
    return next((part for part in parts if part[1].tally.first), farthest)


def _trace(case: Case, finding: Finding, where: str) -> Trace | None:
    timesteps, differences, radii = finding.tally.course.points().tolist()
    if not timesteps:
        return None
    question = finding.case.id.removeprefix(case.id).removeprefix(" / ")
    seen_in = ", ".join(filter(None, (question, where)))
    return Trace(tuple(map(int, timesteps)), tuple(differences), tuple(radii), seen_in)


# --- the layers of a model ---


def _layer_table(case: Case, found: Sequence[Finding]) -> Iterator[LayerReport]:
    """Of a model, each layer's worst verdict over all questions."""
    if isinstance(case.layer, Model):
        for name in case.layer.nodes:
            yield _layer(case.layer, name, found)


def _layer(model: Model, name: str, found: Sequence[Finding]) -> LayerReport:
    """A layer that was not seen goes with the next that was."""
    kind = model.nodes[name].layer.kind
    judged = [(finding, names) for finding in found for names in finding.parts if name in names]
    if not judged:
        return LayerReport(name, kind, "not asked")
    seen = [(finding, names) for finding, names in judged if names[-1] == name]
    if not seen:
        _, names = judged[0]
        return LayerReport(name, kind, "not seen", method=(f"judged with {names[-1]}",))
    parts = [finding.parts[names] for finding, names in seen]
    return LayerReport(
        name,
        kind,
        _worst_verdict(parts),
        worst=max(part.tally.worst for part in parts),
        method=_methods(parts),
        inputs_differed=any(_fed_wrong(model, *one) for one in seen),
    )


def _fed_wrong(model: Model, finding: Finding, names: Collection[str]) -> bool:
    """Whether something that feeds those layers, directly or not, was outside already."""
    above = _feeding(model, names) - set(names)
    return any(part.verdict == "FAIL" and not above.isdisjoint(others) for others, part in finding.parts.items())


def _feeding(model: Model, names: Collection[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        fed = model.nodes[waiting.pop()].inputs
        new = [name for name in fed if name in model.nodes and name not in found]
        found.update(new)
        waiting += new
    return found


# --- in words ---


def _notes(case: Case, found: Sequence[Finding], shown: Finding | None, tolerance: Tolerance) -> Iterator[str]:
    if shown and shown.case is not found[0].case:
        yield f"seen in {describe(shown)}"
    yield from _reasons(case, found)
    for finding in found:
        yield from finding.notes
    if _only_the_second_call_fails(found):
        yield "the first call was right: something is kept between calls"
    if tolerance.given:
        yield f"not proved: atol {tolerance.atol:g} and rtol {tolerance.rtol:g} were granted beside rounding"


def _only_the_second_call_fails(found: Sequence[Finding]) -> bool:
    failing = [finding.case.id for finding in found if finding.verdict == "FAIL"]
    return found[0].verdict == "PASS" and failing[:1] != [] and failing[0].endswith("asked again")


def _reasons(case: Case, found: Sequence[Finding]) -> Iterator[str]:
    """Why a question failed without a number, or came to nothing: each reason once, of the first that has it."""
    for kind in ("wrong", "disputed", "vacuous", "undecided", "faint"):
        told = [finding for finding in found if getattr(finding, kind)]
        if not told:
            continue
        first, *others = told
        place = "" if first is found[0] else first.case.id.removeprefix(f"{case.id} / ") + ": "
        likewise = f" (likewise {len(others)} other questions)" if others else ""
        yield f"{place}{getattr(first, kind)}{likewise}"


def describe(finding: Finding) -> str:
    """Which question it was, and what its first bad row is meant to show."""
    question = finding.case.id.rpartition(" / ")[2]
    first, rows = finding.tally.first, finding.case.rows
    if not first:
        return question
    row = first["batch"]
    told = f": {rows[row]}" if rows else ""
    return f"{question}, batch row {row}{told}"
