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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.answer import Answer, Candidate
from parity.cases.case import Case
from parity.judging.compare import compare_result
from parity.judging.findings import Finding, Tally, Tolerance
from parity.judging.methods import judge
from parity.judging.query import VACUOUS, Asker, Query, exact, given, last_dtype, signal
from parity.judging.structure import viewed, wrong_structure
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


def judge_calls(case: Case, answers: Sequence[Answer], tolerance: Tolerance) -> Finding:
    """Of a stateful layer each starts from the state that the candidate itself showed at the end of the one before;
    where it did not, the reference's goes on from call to call, on balls."""
    finding = Finding(case, answers=tuple(answers))
    steps, stateful = case.timesteps // case.calls, case.layer.stateful
    states: tuple[Ball, ...] = tuple(exact(state) for state in case.start)
    start: tuple[Array, ...] | None = None
    for n, answer in enumerate(answers):
        call = case.call(n)
        finding.wrong = finding.wrong or wrong_structure(call, answer)
        if finding.wrong:
            return finding
        after = _ended(call, answer) if stateful else None
        unseen = stateful and n > 0 and start is None
        if stateful and after is None:
            y, states = _on_from(call, states)
            if unseen:
                _compare_call(call, answer, finding, tolerance, call.layer.results(y, states), n * steps)
        if not unseen:
            finding.add_call(judge_answer(call, answer, tolerance, start=start), n * steps)
        start = after
    return finding


def _ended(case: Case, answer: Answer) -> tuple[Array, ...] | None:
    """The states after a call, where the candidate showed them all."""
    layer, outputs = case.layer, answer.outputs or ()
    if len(outputs) == len(case.output_shapes) > len(layer.state_units):
        return tuple(outputs[-len(layer.state_units) :])
    shows_it = isinstance(layer, Recurrent) and case.mask is None and len(layer.state_units) == 1
    if not shows_it or not outputs:
        return None
    sequences = isinstance(layer, Recurrent) and layer.return_sequences
    return (outputs[0][:, -1] if sequences else outputs[0],)


def _on_from(call: Case, states: tuple[Ball, ...]) -> tuple[Any, tuple[Ball, ...]]:
    """What a call puts out, and the states after it, on balls."""
    with np.errstate(all="ignore"):
        return on_balls(call.layer).forward(given(call), call.mask, states)


def _compare_call(
    call: Case, answer: Answer, finding: Finding, tolerance: Tolerance, expected: Sequence[Ball], at: int
) -> None:
    """What a call put out that started from states which nobody saw."""
    if "forward" not in finding.method:
        finding.method.append("forward")
    with np.errstate(all="ignore"):
        query = Query(call.layer, given(call), call.mask, (), tolerance)
        for got, ball in zip(answer.outputs or (), expected, strict=False):
            compare_result(query, finding.proof, got, ball, at)
            if np.any(ball.radius >= VACUOUS * signal(ball.mid)):
                finding.vacuous = "what rounding may do to the unseen state is as wide as the signal"
