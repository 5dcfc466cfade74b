"""The weights that a candidate has in effect, from its own outputs: of a SimpleRNN all of them, by least squares; of a
gated cell one array, if it alone explains what was put out. And what they are beside the layer's own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.explaining.answered import Answered, answered
from parity.explaining.fitted import fitted
from parity.explaining.made_of import compared, stale
from parity.explaining.recovered import recover
from parity.judging.findings import Finding
from parity.mistakes.catalogue import MISTAKES
from parity.report.data import Cause
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

Lines = tuple[str, ...]


@dataclass(frozen=True)
class InEffect:
    """causes: stale-weights, where one array that has nothing to do with the layer's own explains every answer.
    lines: what else is known of the weights."""

    causes: tuple[Cause, ...] = ()
    lines: Lines = ()


def in_effect(findings: Sequence[Finding]) -> InEffect:
    """What the candidate's own outputs say of its weights, for one recurrent layer."""
    questions = [question for question in answered(findings) if not question.repeats]
    layer = findings[0].case.layer
    if not questions or any(question.finding.wrong for question in questions) or not isinstance(layer, Recurrent):
        return InEffect()
    recovered = recover(layer, questions)
    if recovered is None:
        found = fitted(layer, questions)
        return InEffect() if found is None else _explaining(layer, questions, *found, lines=())
    lines, name = tuple(recovered.lines()), recovered.alone
    if name is None:
        return InEffect((), lines)
    return _explaining(layer, questions, name, recovered.weights[name], lines)


def _explaining(layer: Recurrent, questions: Sequence[Answered], name: str, array: Array, lines: Lines) -> InEffect:
    """What that array, in place of the layer's own, says of the answers. lines: what is known of it already."""
    own = layer.weights[name]
    mine = [question for question in questions if np.array_equal(question.case.layer.weights[name], own)]
    # one with `layer` may have its own array only where it should, or always
    largest = _largest(questions, name, own, array)
    if largest is None:
        largest = _largest(questions, name, None, array)
    if largest is not None and _is_stale(layer, name, array):
        m = MISTAKES["stale-weights"]
        return InEffect((Cause(m.id, m.what, m.fix, m.source, detail=name, largest=largest),), lines)
    if largest is None:  # or make one of whatever it is given
        largest = _largest(mine, name, own, array)
    if largest is None:
        return InEffect((), lines)
    right, found = _parts(layer, name, own), _parts(layer, name, array)
    told = "; ".join(compared(part, found[part], right[part]) for part in found)
    within = f"with that {name} every answer is within rounding (largest {largest:.2g} radii)"
    return InEffect((), (*(lines or (f"fitted: {told}",)), within))


def _is_stale(layer: Recurrent, name: str, array: Array) -> bool:
    right = _parts(layer, name, layer.weights[name])
    return all(stale(found, right[part]) for part, found in _parts(layer, name, array).items())


def _parts(layer: Recurrent, name: str, array: Array) -> dict[str, Array]:
    """Of an array what outputs can show: of GRU's two biases only the sum, where the reset gate does not part them."""
    own = np.asarray(array, np.float64)
    if name != "b" or own.ndim == 1:
        return {name: own}
    gates = 2 * layer.units
    return {
        "b[0] + b[1] of z and r": own.sum(axis=0)[:gates],
        "b[0] of h": own[0, gates:],
        "b[1] of h": own[1, gates:],
    }


def _largest(questions: Sequence[Answered], name: str, own: Array | None, array: Array) -> float | None:
    """The largest ratio with that array in the place of `own`, or of whatever stands there; None where an answer is
    outside of rounding."""
    largest = 0.0
    for question in questions:
        case, layer = question.case, question.case.layer
        if own is None or np.array_equal(layer.weights[name], own):
            new = layer.replace(**{**layer.weights, name: array.astype(layer.dtype)})
            case = replace(case, layer=new)
        found = question.against(case)
        if found.verdict == "FAIL":
            return None
        largest = max(largest, found.tally.worst)
    return largest
