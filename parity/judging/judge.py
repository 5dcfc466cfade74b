"""The judge: Case + Candidate -> what was found. It knows neither Keras nor any cell in particular.

Judging is by residuals where the candidate's states can be seen: each step is computed in float64 from the candidate's
own previous state, on balls, so no error travels from one step to the next and the length of the sequence does not
matter. What a cell carries unseen (LSTM's c) goes along as a ball. A model is judged layer by layer, each from the
candidate's own inputs to it, where the candidate shows them; layers that it does not show are judged together with the
next one that it does. Where only a last output is seen, or layers stand unseen between, in the order of preference:
balls carried through (`forward`), the sequence that the candidate shows when its `layer` says so or when it is stepped
from its own states (`stepped`), and the spread of perturbed references (`prefixes`, `sampled`).

Here stands what is judged: answers, and several calls one after another. methods.py chooses between proof.py and
evidence.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.answer import Answer, Candidate
from parity.cases.case import Case
from parity.judging.compare import compare_result
from parity.judging.findings import Finding
from parity.judging.methods import judge
from parity.judging.query import VACUOUS, Asker, Query, exact, given, last_dtype, signal
from parity.judging.structure import viewed, wrong_structure
from parity.judging.tally import Tally, Tolerance
from parity.rounding.arithmetic import Arithmetic
from parity.rounding.balls import Ball, on_balls
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]


def examine(candidate: Candidate, case: Case, tolerance: Tolerance, arithmetic: Arithmetic | None = None) -> Finding:
    """Ask the candidate that question and judge what it answers, by the best method its answer allows; in the
    arithmetic of the layer's dtype, or in that one."""
    if case.calls > 1:
        return judge_calls(case, candidate.converse(case), tolerance)
    return judge_answer(case, candidate.ask(case), tolerance, arithmetic, Asker(candidate, case))


def rejudge(case: Case, answers: Sequence[Answer], tolerance: Tolerance) -> Finding:
    """Judge answers that were given before against that case, which need not be the one that was asked."""
    if case.calls > 1:
        return judge_calls(case, answers, tolerance)
    return judge_answer(case, answers[0], tolerance)


def judge_answer(
    case: Case,
    answer: Answer,
    tolerance: Tolerance,
    arithmetic: Arithmetic | None = None,
    asker: Asker | None = None,
    start: tuple[Array, ...] | None = None,
    proof: Tally | None = None,
) -> Finding:
    """One answer judged. asker: whom more may be asked. start: states that the candidate itself returned before, from
    which the call starts, if not from the case's own. proof: the tally to add to, if not a new one."""
    finding = Finding(case, notes=list(answer.notes), proof=proof or Tally(), answers=(answer,))
    own = viewed(case, answer)
    finding.wrong = "what was seen is no such view" if own is None else wrong_structure(case, own)
    if own is None or finding.wrong:
        return finding
    finding.notes += _other_dtypes(case, own)
    with np.errstate(all="ignore"):
        states = case.start if start is None else start
        query = Query(
            case.layer,
            given(case, arithmetic),
            case.mask,
            states,
            tolerance,
            override=arithmetic,
            asker=asker,
            start_given=start is None,
        )
        judge(query, finding, own.outputs or (), own)
    return finding


def _other_dtypes(case: Case, answer: Answer) -> list[str]:
    dtype = last_dtype(case.layer)
    returned = {array.dtype for array in (*(answer.outputs or ()), answer.sequence) if array is not None}
    return [f"returned {other}: judged in {dtype}, the layer's precision" for other in returned - {dtype}]


# --- several calls, one after another ---


@dataclass(frozen=True)
class _Between:
    """The states between two calls of a stateful layer: those that the candidate showed, None where it did not; and the
    reference's, on balls, which go on from call to call as long as nothing is shown."""

    shown: tuple[Array, ...] | None
    carried: tuple[Ball, ...]


def judge_calls(case: Case, answers: Sequence[Answer], tolerance: Tolerance) -> Finding:
    """Of a stateful layer each starts from the state that the candidate itself showed at the end of the one before;
    where it did not, from the reference's."""
    finding = Finding(case, answers=tuple(answers))
    steps = case.timesteps // case.calls
    between = _Between(None, tuple(exact(state) for state in case.start))
    for n, answer in enumerate(answers):
        call = case.call(n)
        finding.wrong = wrong_structure(call, answer)
        if finding.wrong:
            break
        if case.layer.stateful:
            between = _stateful_call(call, answer, between, finding, tolerance, n * steps)
        else:
            finding.add_call(judge_answer(call, answer, tolerance), n * steps)
    return finding


def _stateful_call(
    call: Case, answer: Answer, before: _Between, finding: Finding, tolerance: Tolerance, at: int
) -> _Between:
    """One call judged; what is between it and the next. at: how many steps came before."""
    after = _Between(_shown_after(call, answer), before.carried)
    unseen = at > 0 and before.shown is None
    if after.shown is None:
        with np.errstate(all="ignore"):
            y, carried = on_balls(call.layer).forward(given(call), call.mask, before.carried)
        after = _Between(None, carried)
        if unseen:
            _compare_call(call, answer, finding, tolerance, call.layer.results(y, carried), at)
    if not unseen:
        finding.add_call(judge_answer(call, answer, tolerance, start=before.shown), at)
    return after


def _shown_after(case: Case, answer: Answer) -> tuple[Array, ...] | None:
    """The states after a call, where the candidate showed them all."""
    layer, outputs = case.layer, answer.outputs or ()
    if len(outputs) == len(case.output_shapes) > len(layer.state_units):
        return tuple(outputs[-len(layer.state_units) :])
    if not outputs or case.mask is not None:
        return None
    if not isinstance(layer, Recurrent) or layer.cell.carried:
        return None
    return (outputs[0][:, -1] if layer.return_sequences else outputs[0],)


def _compare_call(
    call: Case, answer: Answer, finding: Finding, tolerance: Tolerance, expected: Sequence[Ball], at: int
) -> None:
    """What a call put out that started from states which nobody saw."""
    finding.used(["forward"])
    query = Query(call.layer, given(call), call.mask, (), tolerance)
    with np.errstate(all="ignore"):
        for got, ball in zip(answer.outputs or (), expected, strict=False):
            compare_result(query, finding.proof, got, ball, at)
            if np.any(ball.radius >= VACUOUS * signal(ball.mid)):
                finding.vacuous = "what rounding may do to the unseen state is as wide as the signal"
