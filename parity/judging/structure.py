"""Whether an answer has the arrays it should have, each of its shape, before anything is compared."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace

from parity.candidates.answer import Answer
from parity.candidates.matching import onnx_y
from parity.cases.case import Case
from rnn_scratch.models import Model

Shape = tuple[int, ...]


def viewed(case: Case, answer: Answer) -> Answer | None:
    """The answer as the case's layer would have given it; None where what was seen is no such view."""
    if case.view is None:
        return answer
    outputs = None
    with contextlib.suppress(IndexError, ValueError):  # arrays of any shape may come
        outputs = None if answer.outputs is None else case.view.undo(answer.outputs)
    if outputs is None:
        return None
    return replace(answer, outputs=outputs, sequence=None, layers={}, sequences={})


def wrong_structure(case: Case, answer: Answer) -> str | None:
    """What is wrong with the number or the shapes of the arrays, if anything."""
    if answer.outputs is None:
        return _wrong_sequence(case, answer)
    expected = list(case.output_shapes)
    received = [output.shape for output in answer.outputs]
    wanted = expected[: len(received)] if answer.partial else expected
    if received != wanted:
        told = _likeness(expected[0], received[0]) if received else ""
        return f"expected {_shapes(expected)}; received {_shapes(received)}{told}"
    return _wrong_layer(case, answer) if isinstance(case.layer, Model) else None


def _wrong_sequence(case: Case, answer: Answer) -> str | None:
    expected = case.sequence_shape
    if answer.sequence is None or answer.sequence.shape == expected:
        return None
    return f"expected shape {expected}; received {answer.sequence.shape}"


def _wrong_layer(case: Case, answer: Answer) -> str | None:
    """Of a model, the first layer that puts out another shape."""
    for name, _, _, shape in case.part_shapes():
        seen = answer.layers.get(name)
        if seen is not None and seen.shape != shape:
            return f"layer {name}: expected shape {shape}; received {seen.shape}"
    return None


def _likeness(expected: Shape, received: Shape) -> str:
    """What another shape looks like, where that is plain."""
    if received == expected[1:]:
        return ", as one sequence without the batch axis has it"
    if received == (math.prod(expected),):
        return ", which is as many numbers, flat: say their shape"
    if received == onnx_y(expected):
        return ", which is ONNX's Y, (timesteps, directions, batch, units)"
    if len(expected) == 3 and received == (expected[0], 1, *expected[1:]):
        return ", which is ONNX's Y where batch was taken for time: transpose the first two axes of x and of Y"
    if len(received) > len(expected) and _without_ones(received) == _without_ones(expected):
        return ", with an axis of 1 too many"
    return ""


def _without_ones(shape: Shape) -> list[int]:
    return [n for n in shape if n > 1]


def _shapes(shapes: Sequence[Shape]) -> str:
    if len(shapes) == 1:
        return f"shape {shapes[0]}"
    return f"{len(shapes)} arrays of shapes {', '.join(map(str, shapes))}"
