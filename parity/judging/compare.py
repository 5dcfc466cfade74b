"""What a candidate returned against what was expected, element by element, into a tally."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.judging.query import VACUOUS, Query
from parity.judging.tally import Tally
from parity.rounding.balls import Ball
from rnn_scratch.activations import Activation
from rnn_scratch.base import Layer
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]


def compare_result(query: Query, tally: Tally, got: Array, ball: Ball, timestep: int = 0) -> None:
    """One result of the layer, as returned: with or without an axis of time."""
    single = got.ndim == 2
    at = timestep + query.last_step if single else timestep
    compare(query, tally, as_steps(got), at_least_tiny(ball), at)


def compare(
    query: Query, tally: Tally, got: Array, ball: Ball, timestep: int | None = None, usable: Array | None = None
) -> None:
    """got: (batch, steps, units); the ball's rows are its batch and steps, flattened or not. timestep: the first of
    them, the last one of the query if None. usable: the elements to look at, broadcast to all; all if None."""
    mid, rad = ball.mid.reshape(got.shape), ball.radius.reshape(got.shape)
    tally.expect(mid, rad)
    rad = query.tolerance.widen(rad, mid)
    at = query.last_step if timestep is None else timestep
    everything = usable is None or bool(usable.all())
    if ball.may_overflow is None and everything and tally.add(got, mid, rad, at):
        return
    overflow = ball.may_overflow
    if overflow is not None:
        overflow = np.broadcast_to(overflow, ball.shape).reshape(got.shape)
    decided = _classes(query, got, mid, rad, overflow)
    tally.add(got, mid, rad, at, decided if usable is None else np.where(usable, decided, 0.0))


def _classes(query: Query, got: Array, mid: Array, rad: Array, may_overflow: Array | None) -> Array:
    """0 where NaN or infinity agree, NaN where nobody can tell, 1 where the difference decides."""
    must_overflow = (np.abs(mid) + rad > query.arithmetic.largest) & (np.sign(got) == np.sign(mid))
    agree = np.isnan(got) & np.isnan(mid)
    agree |= np.isinf(got) & ((got == mid) | must_overflow)
    if _swallows_nan(query.layer):
        agree |= np.isnan(mid)
    unknown = np.isnan(rad) & np.isfinite(mid) & np.isfinite(got)
    if may_overflow is not None:
        within = (np.abs(got - mid) <= rad) & (rad < VACUOUS * np.abs(mid))
        unknown |= may_overflow & ~within  # tanh of what overflowed is finite, and may have the other sign
    return np.where(agree, 0.0, np.where(unknown, np.nan, 1.0))


def _swallows_nan(layer: Layer) -> bool:
    """Whether some activation in it returns a number for NaN in implementations in use: ONNX Runtime's gates do, of
    LSTM and GRU, whatever their activations (its SimpleRNN with tanh does not)."""
    if any(len(part.cell.gates) > 1 for part in layer.every(Recurrent)):
        return True
    owners = [getattr(part, "cell", part) for _, part in layer.walk()]
    own = [value for owner in owners for value in vars(owner).values()]
    return any(value.swallows_nan for value in own if isinstance(value, Activation))


def as_steps(array: Array) -> Array:
    """(batch, steps, units), whatever axes stand between or are missing."""
    return array[:, None] if array.ndim == 2 else array.reshape(*array.shape[:2], -1)


def at_least_tiny(ball: Ball) -> Ball:
    rad = np.maximum(ball.radius, ball.arithmetic.tiny)  # an initial state that came through has none
    return Ball(ball.mid, ball.arithmetic, rad, may_overflow=ball.may_overflow)
