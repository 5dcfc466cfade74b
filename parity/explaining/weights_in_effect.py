"""The weights that a candidate has in effect, from its own outputs: of a SimpleRNN all of them, by least squares; of a
gated cell one array, if it alone explains what was put out. And what they are beside the layer's own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.explaining.answered import Answered, answered
from parity.explaining.fitted import fitted
from parity.explaining.inputs_in_effect import by_inputs
from parity.explaining.made_of import compared, is_plain, stale
from parity.explaining.recovered import recover
from parity.judging.findings import Finding
from parity.judging.tally import NOTHING_GRANTED, Tolerance
from parity.mistakes.catalogue import MISTAKES
from parity.report.data import Cause
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

_Lines = tuple[str, ...]


@dataclass(frozen=True)
class InEffect:
    """causes: stale-weights, where one array that has nothing to do with the layer's own explains every answer.
    lines: what else is known of the weights."""

    causes: tuple[Cause, ...] = ()
    lines: _Lines = ()


def in_effect(findings: Sequence[Finding], tolerance: Tolerance = NOTHING_GRANTED) -> InEffect:
    """What the candidate's own outputs say of its weights, for one recurrent layer. tolerance: what the verdicts
    granted beside rounding."""
    layer, questions = findings[0].case.layer, _readable(findings, tolerance)
    if not questions or not isinstance(layer, Recurrent):
        return InEffect()
    recovered = recover(layer, questions)
    if recovered is None:
        return _explaining(layer, questions, fitted(layer, questions), ())
    return _explaining(layer, questions, recovered.alone, tuple(recovered.lines()))


def _readable(findings: Sequence[Finding], tolerance: Tolerance) -> list[Answered]:
    """The questions that say anything; none where arrays are missing or of other shapes."""
    questions = [question for question in answered(findings, tolerance) if not question.repeats]
    return [] if any(question.finding.wrong for question in questions) else questions


def _explaining(
    layer: Recurrent, questions: Sequence[Answered], one: tuple[str, Array] | None, lines: _Lines
) -> InEffect:
    """What one array, in place of the layer's own of that name, says of the answers. lines: what is known already."""
    if one is None:
        return InEffect((), lines)
    name, array = one
    own = layer.weights[name]
    # one with `layer` may have its own array only where it should, or always
    for instead_of in (own, None):
        largest = _largest(questions, name, instead_of, array)
        if largest is not None and _is_stale(layer, name, array):
            return InEffect((_stale_weights(name, largest),), lines)
        if largest is not None:
            return InEffect((), _told(layer, name, array, largest, lines))
    # or make one of whatever it is given
    mine = [question for question in questions if np.array_equal(question.case.layer.weights[name], own)]
    largest = _largest(mine, name, own, array)
    if largest is None:
        return InEffect((), lines)
    return InEffect((), _told(layer, name, array, largest, lines))


def _stale_weights(name: str, largest: float) -> Cause:
    m = MISTAKES["stale-weights"]
    return Cause(m.id, m.what, m.fix, m.source, detail=name, largest=largest)


def _told(layer: Recurrent, name: str, array: Array, largest: float, lines: _Lines) -> _Lines:
    within = f"with that {name} every answer is within rounding (largest {largest:.2g} radii)"
    inputs = by_inputs(layer, name, array)
    if inputs and not _is_made_of_own(layer, name, array):
        return *lines, inputs, within
    if lines:
        return (*lines, within)
    right = _parts(layer, name, layer.weights[name])
    parts = _parts(layer, name, array)
    told = "; ".join(compared(part, found, right[part]) for part, found in parts.items())
    return f"fitted: {told}", within


def _is_stale(layer: Recurrent, name: str, array: Array) -> bool:
    right = _parts(layer, name, layer.weights[name])
    another = all(stale(found, right[part]) for part, found in _parts(layer, name, array).items())
    return another and by_inputs(layer, name, array) is None


def _is_made_of_own(layer: Recurrent, name: str, array: Array) -> bool:
    """Whether there is a plainer word for it than a map of the inputs."""
    right = _parts(layer, name, layer.weights[name])
    return any(is_plain(found, right[part]) for part, found in _parts(layer, name, array).items())


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
