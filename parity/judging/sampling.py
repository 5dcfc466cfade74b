"""What samples say where nothing is proved: how far perturbed runs of the reference spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases.drawing import generator
from parity.judging.compare import as_steps, compare
from parity.judging.findings import Finding
from parity.judging.query import VACUOUS, Query, signal, values
from parity.judging.tally import largest
from parity.rounding.arithmetic import Arithmetic, chosen
from parity.rounding.balls import Ball
from parity.rounding.perturbed import Run
from rnn_scratch.base import Layer, Mask, Values
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]

RUNS = 16
RUN_STEPS = 2000


@dataclass(frozen=True)
class Spread:
    """The reference, mid (batch, steps, n); how far perturbed runs of it spread, width (batch, steps, 1); and where
    that says anything, not being as wide as the signal nor out of the candidate's range, useful (batch, steps, 1)."""

    mid: Array
    width: Array
    useful: Array


def sampled(query: Query, x: Values, mask: Mask | None) -> list[Spread]:
    """For each result, the float64 reference and how far runs of it spread that have every rounding replaced by the
    largest allowed one (`Run`). x, mask: the query's own, or the first steps of them."""
    name = query.asker.case.id if query.asker else query.layer.name
    run = Run(RUNS + 1, query.batch, generator(0, f"{name} signs"))
    copies = _Copies(run, chosen(query.layer.dtype, query.override))
    states = tuple(copies.of_ball(query.exactly(state)) for state in query.start)
    layer = query.lifted
    if _only_the_end(layer, mask):
        x, states = _up_to_the_end(layer, x, states, copies)
    y, states = layer.forward(copies.of(x), None if mask is None else copies.of_array(mask), states)
    return [_spread(query, ball.mid, run) for ball in query.layer.results(y, states)]


class _Copies:
    """The inputs of all runs at once, those of the reference first."""

    def __init__(self, run: Run, arithmetic: Arithmetic) -> None:
        self.run, self.copies = run, run.copies
        self.arithmetic = arithmetic.perturbed(run)

    def of(self, x: Values) -> Values:
        return self.of_ball(x) if isinstance(x, Ball) else self.of_array(x)

    def of_array(self, array: Array) -> Array:
        return np.tile(array, (self.copies, *[1] * (array.ndim - 1)))

    def of_ball(self, ball: Ball) -> Ball:
        mid = self.of_array(ball.mid)
        if ball.rad is not None or np.any(ball.relative):
            mid = self.run.moved(mid, self.of_array(ball.radius))
        made = None if ball.made is None else ball.made.changed(self.of_array, ball.shape)
        return Ball(mid, self.arithmetic, made=made)


def _only_the_end(layer: Layer, mask: Mask | None) -> bool:
    return isinstance(layer, Recurrent) and mask is None and not layer.return_sequences


def _up_to_the_end(
    layer: Recurrent, x: Values, states: tuple[Ball, ...], copies: _Copies
) -> tuple[Values, tuple[Ball, ...]]:
    """The last RUN_STEPS of the inputs and the states before them: copies of all steps would fill the memory."""
    steps = int(x.shape[1])
    whole = range(0, steps - RUN_STEPS, RUN_STEPS)
    for start in whole:
        part = slice(start, start + RUN_STEPS)
        if layer.go_backwards:
            part = slice(steps - part.stop, steps - part.start)
        _, states = layer.forward(copies.of(x[:, part]), None, states)
    rest = steps - len(whole) * RUN_STEPS
    return (x[:, :rest] if layer.go_backwards else x[:, steps - rest :]), states


def _spread(query: Query, tiles: Array, run: Run) -> Spread:
    steps = tiles.shape[1] if tiles.ndim > 2 else 1
    runs = tiles.reshape(run.copies, query.batch, steps, -1)
    mid = runs[0]
    width = np.abs(runs - mid).max(axis=(0, 3))[..., None]
    x = values(query.x).astype(np.float64)
    hidden: Any = np.isnan(x).reshape(query.batch, -1).any(axis=1)
    came_in: Array = hidden[:, None, None] & np.isnan(mid).any(axis=-1, keepdims=True)
    width = np.where(came_in, 0, width) + query.arithmetic.tiny  # NaN of the inputs is not a matter of rounding
    fits: Array = np.abs(mid).max(axis=-1, keepdims=True) + width <= query.arithmetic.largest
    large = max(signal(mid), _visited(query))
    useful: Any = came_in | (fits & (width < VACUOUS * large)) & ~run.lost[:, None, None]
    return Spread(mid, width, useful)


def _visited(query: Query) -> float:
    """How large the sequence gets before its end, of which only the end is seen."""
    layer = query.layer
    if not isinstance(layer, Recurrent) or layer.return_sequences:
        return 0.0
    plain = layer.with_sequences().astype(np.float64)
    few = slice(None, RUN_STEPS)
    mask = None if query.mask is None else query.mask[:, few]
    states = tuple(state.astype(np.float64) for state in query.start)
    y, _ = plain.forward(values(query.x)[:, few], mask, states)
    return max(largest(np.abs(np.nan_to_num(array))) for array in (y, states[0]))


# --- what a candidate returned against that ---


def against_spreads(
    query: Query, finding: Finding, outputs: Sequence[Array], spreads: Sequence[Spread], steps: int
) -> None:
    """steps: after how many."""
    for got, spread in zip(outputs, spreads, strict=False):
        _against_spread(query, finding, as_steps(got), spread, steps)


def _against_spread(query: Query, finding: Finding, got: Array, spread: Spread, steps: int) -> None:
    ball = Ball(spread.mid, query.arithmetic, np.broadcast_to(spread.width, spread.mid.shape))
    first = 0 if got.shape[1] > 1 else steps - 1
    compare(query, finding.evidence, got, ball, first, spread.useful)
    if not spread.useful.all():
        rows: Array = np.asarray(spread.useful.all(axis=(1, 2)))
        finding.vacuous = (
            f"after {steps} steps correct implementations may differ by {float(spread.width.max()):.2g}: "
            f"of {int((~rows).sum())} of {len(rows)} rows nothing can be said end to end"
        )


def last_step(query: Query, finding: Finding, before: Array, after: Array, spread: Spread) -> None:
    """The last step from the state before it, which may be as far from the candidate's own one as runs spread."""
    rad = query.arithmetic.unit * np.abs(before) + spread.width[:, 0]
    cell = query.lifted.cell
    x = query.recurrent.processed(query.x)[:, query.last_step]
    h = Ball(before.astype(np.float64), query.arithmetic, rad)
    ball = cell.update(cell.project(x), h)[0]
    compare(query, finding.evidence, after[:, None], ball, query.last_step, spread.useful)
