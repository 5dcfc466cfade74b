"""What is concluded of what was asked: why nothing is, what a FAIL comes from, what a PASS is worth, what nobody asked.

Nothing here puts a question, but for the smallest case that fails, which is looked for with the candidate.
"""

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.candidates.answer import Answer
from parity.candidates.outputs import Outputs
from parity.candidates.sized import Sized
from parity.cases.case import Case
from parity.cases.far_out import is_far_out
from parity.cases.reach import Reach, reach
from parity.checking.asked import Asked, Result, findings_of
from parity.checking.case_report import describe
from parity.errors import CandidateError
from parity.explaining.blind_spots import Adequacy, adequacy
from parity.explaining.causes import Diagnosis, applies, diagnose
from parity.explaining.facts import facts
from parity.explaining.smallest import described, shrink
from parity.explaining.weights_in_effect import in_effect
from parity.given.settings import Settings
from parity.judging.findings import Finding
from parity.judging.judge import judge_answer, rejudge
from parity.judging.tally import Tolerance
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.changes import state_kept
from parity.report import provenance
from parity.report.data import Cause, Report
from parity.rounding.arithmetic import NARROWER
from rnn_scratch.base import Array, Layer
from rnn_scratch.models import Model

_RENEWED = (
    "where it is an object: name its class, or a function that makes it, or give it a method reset_state(), and it "
    "starts again for each question"
)

_BLIND = 2.0
"""Seconds that the search for blind spots may take in any case."""

_REACH_STEPS = 100
"""Steps of the user's own case of which it is worked out how far they go."""

_CASE_BY_CASE = 4.0
"""Seconds for the causes of single cases of the grid, where nothing explains all of them."""


def report_on(asked: Asked, versions: Mapping[str, str]) -> Report:
    """The Report on everything that was asked. versions: of what computed the expected outputs."""
    found = Report(
        tuple(result.report for result in asked.results),
        tuple(_not_asked(asked)),
        {**provenance.environment(), **versions},
        strict=asked.settings.strict,
    )
    if any(case.verdict == "FAIL" for case in found.cases):
        with np.errstate(all="ignore"):  # a candidate may put out whatever it likes
            return _diagnosed(found, asked)
    return _adequate(found, asked) if found.verdict == "PASS" else found


# --- one answer beside another ---


def disputed(found: Finding, keras: Finding) -> Finding:
    """The finding, of which nothing is concluded where Keras itself is not what the reference says."""
    if keras.verdict != "FAIL":
        return found
    worst = keras.wrong or f"{keras.tally.worst:.3g} radii from the reference: {describe(keras)}"
    return replace(found, disputed=f"Keras itself is {worst}; nothing is concluded about the candidate")


def kept_state(layer: Layer, second: Finding, tolerance: Tolerance) -> Cause | None:
    """The mistake of a candidate that goes on, in the second of two calls, from the state after the first."""
    stateful = replace(second.case, layer=state_kept(layer))
    found = rejudge(stateful, second.answers, tolerance)
    if found.verdict != "PASS":
        return None
    mistake = MISTAKES["state-not-reset"]
    return Cause(mistake.id, mistake.what, mistake.fix, mistake.source, largest=found.tally.worst)


def unsteady(answers: Sequence[Answer], allowed: float) -> str:
    """What is said of one whose answers to the same question differ by more than is allowed, but settle; where they go
    on differing, a CandidateError."""
    steps = [distance(a, b) for a, b in itertools.pairwise(map(returned, answers))]
    told = f"two calls with the same arguments differ by {steps[0]:.2g}"
    if steps[-1] > max(allowed, steps[0] / 10):
        raise CandidateError(
            f"candidate: {told}, and later ones likewise: it is random (dropout, a draw without a seed?) or counts "
            "its calls, so nothing can be concluded"
        )
    return f"{told}: it keeps something between calls; nothing was asked after them"


def returned(answer: Answer) -> Sequence[Array]:
    """The arrays that came back."""
    if answer.outputs:
        return answer.outputs
    return () if answer.sequence is None else (answer.sequence,)


def distance(first: Sequence[Array], second: Sequence[Array]) -> float:
    """The largest difference; infinite between arrays of other shapes, and where one is NaN or infinite alone."""
    if [a.shape for a in first] != [b.shape for b in second]:
        return math.inf
    return max((_apart(a, b) for a, b in zip(first, second, strict=True)), default=0.0)


def _apart(a: Array, b: Array) -> float:
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.where(same, 0, np.abs(a - b))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0))


def compatible(findings: Sequence[Finding], tolerance: Tolerance) -> Iterator[str]:
    """Which narrower arithmetic would explain the answers, if one does and is not as wide as the signal."""
    if any(finding.case.layer.stateful for finding in findings):
        return
    single = [finding for finding in findings if finding.case.calls == 1]
    for name, arithmetic in NARROWER.items():
        found = [judge_answer(f.case, f.answers[0], tolerance, arithmetic) for f in single]
        if {finding.verdict for finding in found} == {"PASS"}:
            worst = max(finding.tally.worst for finding in found)
            yield f"compatible with {name} (largest {worst:.2g} radii), which is neither a pass nor a cause"
            return


# --- a FAIL ---


def _diagnosed(report: Report, asked: Asked) -> Report:
    causes: list[Cause] = []
    known: list[str] = []
    for results in asked.by_kind():
        findings = findings_of(results)
        if not any(finding.verdict == "FAIL" for finding in findings):
            continue
        if asked.kept is not None:
            causes.append(asked.kept)
            known.append(_RENEWED)
            continue
        known += [asked.unsteady] if asked.unsteady else []
        explained, lines = _explained(results, findings, asked.settings)
        causes += explained
        known += lines
    known += _fixed(asked)
    report = replace(report, causes=tuple(dict.fromkeys(causes)), known=tuple(dict.fromkeys(known)))
    smallest = _smallest(asked)
    return report if smallest is None else replace(report, smallest=described(smallest), failure=smallest)


def _fixed(asked: Asked) -> Iterator[str]:
    """What is said of a port that is right on the user's own sizes and wrong on all others."""
    own, *beside = asked.findings
    if own.verdict != "PASS" or len(asked.results) > 1:
        return
    for names in (("timesteps",), ("batch",), ("timesteps", "batch")):
        other = [found for found in beside if _size_of(found, names) != _size_of(own, names)]
        if other and all(
            (found.verdict == "FAIL") == (_size_of(found, names) != _size_of(own, names)) for found in beside
        ):
            sizes = " and ".join(f"{name} {getattr(own.case, name)}" for name in names)
            flag = f"--fixed {','.join(names)}"
            yield f"right on the question's own sizes ({sizes}) and on no other: if the port is for those alone, {flag}"
            return


def _size_of(found: Finding, names: Sequence[str]) -> list[int]:
    case = found.case
    return [case.timesteps // case.calls if name == "timesteps" else case.batch for name in names]


def _explained(
    results: Sequence[Result], findings: Sequence[Finding], settings: Settings
) -> tuple[tuple[Cause, ...], list[str]]:
    """The causes of what one kind of layer showed; where there are none, what else is known of it."""
    only, tolerance = settings.only_mistake, settings.tolerance
    found = diagnose(findings, only, tolerance=tolerance)
    if found.causes:
        return found.causes, []
    weights = in_effect(findings, tolerance)
    stale = weights.causes if only in (None, "stale-weights") else ()
    causes = stale or _case_by_case(results, settings)
    if causes:
        return causes, []
    return (), [_no_cause(found, findings, only), *facts(findings, tolerance), *weights.lines]


def _no_cause(found: Diagnosis, findings: Sequence[Finding], only: str | None) -> str:
    if only:
        unfit = "" if applies(only, findings) else ", which does not apply here"
        return f"cause: not {only}{unfit}; no other mistake was looked for"
    early = " (of pairs of mistakes not all were tried, for want of time)" if found.stopped else ""
    return f"cause: none of the known mistakes{early}"


def _case_by_case(results: Sequence[Result], settings: Settings) -> tuple[Cause, ...]:
    """The causes of single cases, where nothing explains all: a port may have made several mistakes. The small cases
    first, as many as time allows."""
    failed = [result for result in results if result.report.verdict == "FAIL"]
    if len(failed) < 2:
        return ()
    failed.sort(key=lambda result: _size(result.findings[0].case))
    deadline, looked = time.monotonic() + _CASE_BY_CASE, 0
    found: dict[str, list[Cause]] = {}
    for result in failed:
        if time.monotonic() > deadline:
            break
        looked += 1
        for cause in diagnose(result.findings, settings.only_mistake, 0, settings.tolerance).causes:
            found.setdefault(cause.id, []).append(cause)
    common = [causes for causes in found.values() if 10 * len(causes) >= looked]
    common.sort(key=len, reverse=True)
    told = f"{looked} cases looked at, of {len(failed)} that fail"
    return tuple(replace(causes[0], within=f"{len(causes)} of {told}", apart="") for causes in common)


def _smallest(asked: Asked) -> Case | None:
    """The smallest case that fails; of what cannot be asked again, the case itself."""
    failed = [f.case for f in asked.findings if f.verdict == "FAIL" and f.case.calls == 1]
    if not failed:
        return None
    if not asked.candidate.callable or asked.goes_on:
        return failed[0]
    return shrink(asked.candidate, min(failed, key=_size), asked.settings.tolerance)


def _size(case: Case) -> int:
    return case.size * case.layer.units


# --- a PASS ---


def _adequate(report: Report, asked: Asked) -> Report:
    """What a PASS is worth, looked for in half of the time that the check took."""
    only = asked.settings.only_mistake
    if only and not applies(only, asked.findings):
        return replace(report, known=(f"{only} does not apply here: it was not looked for",))
    seconds = math.inf
    if not asked.settings.strict:
        seconds = max(_BLIND, (time.thread_time() - asked.began) / 2)
    total = Adequacy()
    for results in asked.by_kind():
        found = adequacy(findings_of(results), only, seconds, asked.settings.tolerance)
        total = Adequacy(total.blind + found.blind, total.visible + found.visible, total.left + found.left)
    known = []
    if total.left:
        left = ", ".join(dict.fromkeys(total.left))
        known = [f"not looked for whether they would show, for want of time: {left} (--strict takes its time)"]
    return replace(report, blind=total.blind, visible=total.visible, known=tuple(known))


# --- what nobody asked ---


def _not_asked(asked: Asked) -> Iterator[str]:
    """What these questions could not have shown, because nobody put them."""
    yield from _left_out(asked)
    yield from _beside_outputs(asked)
    yield from _unvaried(asked)
    if asked.ever(_stateful) and not asked.ever(_of_several_calls):
        yield "the state that a stateful layer keeps between calls"
    yield from _other_sizes(asked)


def _other_sizes(asked: Asked) -> Iterator[str]:
    """Lengths and batches that nobody asked, or that are not to be asked."""
    if not asked.cases:
        return
    sizes = asked.candidate.sizes if isinstance(asked.candidate, Sized) else {}
    if timesteps := sizes.get("timesteps"):
        yield f"timesteps other than {timesteps.number:,} ({timesteps.why})"
    else:
        yield f"more than {max(case.timesteps for case in asked.cases):,} timesteps"
    if batch := sizes.get("batch"):
        yield f"batches other than {batch.number:,} ({batch.why}): so many rows were asked at a time"
    else:
        # of a probe each row is a question of its own
        yield f"batches above {max(case.batch for case in asked.cases if not case.rows):,}"
    yield from _farther(asked)


def _farther(asked: Asked) -> Iterator[str]:
    """Beyond what was asked, where questions were asked as far out as they go: what is clipped there is not seen."""
    far = [case for case in asked.cases if is_far_out(case)]
    if not far:
        return
    found = Reach()
    for case in (asked.cases[0].first(_REACH_STEPS), *far):
        found = found.or_farther(reach(case))
    told = {"inputs": found.x, "pre-activations": found.z, "cell states": found.c}
    yield ", ".join(f"{what} beyond {_rounded_down(value)}" for what, value in told.items() if value)


def _rounded_down(value: float) -> str:
    """In two digits, never more than it is."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.floor(value / unit) * unit:.2g}" if value < 10 else f"{math.floor(value):,}"


def _stateful(case: Case) -> bool:
    return case.layer.stateful


def _of_several_calls(case: Case) -> bool:
    return case.calls > 1


def _left_out(asked: Asked) -> Iterator[str]:
    """Questions that were there to be put."""
    for what, number in asked.skipped.items():
        yield f"{number} cases with {what}: the candidate has no such parameter"
    for why, questions in asked.refused.items():
        yield f"{', '.join(dict.fromkeys(questions))} ({why})"


def _beside_outputs(asked: Asked) -> Iterator[str]:
    """What cannot be asked of outputs that are there already."""
    if asked.candidate.callable:
        return
    yield "any inputs but these, and a second call"
    alone = isinstance(asked.candidate, Outputs) and asked.candidate.single
    if alone and asked.ever(lambda case: len(case.output_shapes) > 1):
        yield "the final state, which was not among the outputs"


def _unvaried(asked: Asked) -> Iterator[str]:
    """Masks and states that no question had."""
    # a model gets its masks by its inputs, and starts from zeros
    if asked.ever(lambda case: isinstance(case.layer, Model)):
        return
    skipped = " ".join(asked.skipped)
    if "mask" not in skipped and not asked.ever(lambda case: case.mask is not None):
        yield "masks"
    if "state" not in skipped and not asked.ever(lambda case: case.initial_state is not None):
        yield "initial states other than zero"
