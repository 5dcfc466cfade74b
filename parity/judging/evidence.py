"""Outputs after many steps, the states unseen: the candidate is asked for more, and what is left is sampled."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from parity.candidates.functions import walk
from parity.cases.case import Case
from parity.errors import CandidateError
from parity.judging.findings import Finding
from parity.judging.proof import ends_in, hides_steps, stepwise
from parity.judging.query import Asker, Query, exact
from parity.judging.sampling import Spread, against_spreads, last_step, sampled
from parity.judging.structure import wrong_structure
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]

STEPPED_STEPS = 1000


def end_to_end(query: Query, finding: Finding, outputs: Sequence[Array]) -> None:
    """They are proved where the candidate can be made to show a proved sequence that ends in that very output;
    otherwise there is the evidence of perturbed references."""
    if isinstance(query.layer, Recurrent) and _proved_by_a_view(query, finding, outputs):
        return
    if not (isinstance(query.layer, Recurrent) and query.layer.return_sequences):
        _prefixes(query, finding, outputs)
    finding.method.append("sampled")
    against_spreads(query, finding, outputs, sampled(query, query.x, query.mask), query.timesteps)


def _proved_by_a_view(query: Query, finding: Finding, outputs: Sequence[Array]) -> bool:
    for method, sequence in _views(query, finding):
        finding.method.append(method)
        walked = stepwise(query, finding, sequence)
        if ends_in(query, sequence, outputs, walked):
            if method == "stepwise":
                remember(finding, sequence=sequence)
            return True
    return False


def remember(finding: Finding, **seen: Any) -> None:
    """What the candidate showed when it was asked for more is part of its answer."""
    if finding.answers:
        finding.answers = (replace(finding.answers[0], **seen),)


# --- sequences that the candidate can be made to show ---


def _views(query: Query, finding: Finding) -> Iterator[tuple[str, Array]]:
    """By the setting of its `layer`, or step by step."""
    asker = query.asker
    if asker is None or not asker.candidate.callable or hides_steps(query):
        return
    sequences = shown(query)
    if sequences is not None:
        yield "stepwise", sequences[0]
    returns_states = query.recurrent.return_state or not query.recurrent.cell.carried
    if returns_states and asker.can("initial_state"):
        with contextlib.suppress(CandidateError):
            yield "stepped", _stepped(asker, query, finding)


def shown(query: Query) -> tuple[Array, ...] | None:
    """The sequences that a candidate with `layer` returns when that layer says so, or None if it does not."""
    asker = query.asker
    if asker is None or not asker.can("layer"):
        return None
    case = replace(asker.case, layer=asker.case.layer.with_sequences())
    with contextlib.suppress(CandidateError):
        answer = asker.candidate.ask(case)
        if answer.outputs and not wrong_structure(case, answer):
            return answer.outputs
    return None


def _stepped(asker: Asker, query: Query, finding: Finding) -> Array:
    """The candidate called on one step at a time from its own last states: its sequence, the mask being ours."""

    def step(t: int, states: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        case = replace(asker.case.steps(t, t + 1, states), mask=None)
        outputs = _asked(asker, case, "one step")
        h = outputs[0].reshape(states[0].shape)
        return h, (h, *outputs[2:])

    if query.timesteps > STEPPED_STEPS:
        finding.notes.append(f"stepped through the first {STEPPED_STEPS:,} of {query.timesteps:,} steps")
    return walk(asker.case, step, min(query.timesteps, STEPPED_STEPS))


def _asked(asker: Asker, case: Case, what: str) -> tuple[Array, ...]:
    answer = asker.candidate.ask(case)
    if wrong := wrong_structure(case, answer):
        raise CandidateError(f"candidate: for {what}, {wrong}")
    return answer.outputs or ()


# --- shorter sequences ---


def _prefixes(query: Query, finding: Finding, outputs: Sequence[Array]) -> None:
    """The same layer after fewer steps, and the last step from the state before it."""
    asker, layer = query.asker, query.layer
    if asker is None or not asker.candidate.callable:
        return
    if not isinstance(layer, Recurrent) or finding.method:
        return
    try:
        _prefix(asker, query, finding, query.timesteps // 2 + 1)
        before, spread = _prefix(asker, query, finding, query.last_step)
    except CandidateError as error:
        finding.notes.append(f"shorter sequences not asked: {error}")
        return
    finding.method.append("prefixes")
    if query.mask is None and not layer.cell.carried:
        last_step(query, finding, before, outputs[0], spread)


def _prefix(asker: Asker, query: Query, finding: Finding, steps: int) -> tuple[Array, Spread]:
    """What the candidate makes of the first steps alone, compared; its output and how far that may spread."""
    case = asker.case.first(steps)
    outputs = _asked(asker, case, f"{steps} steps")
    spreads = sampled(query, exact(case.x, query.override), case.mask)
    against_spreads(query, finding, outputs, spreads, steps)
    return outputs[0], spreads[0]
