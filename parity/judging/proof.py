"""What is proved: every step from the candidate's own last state, and balls carried through a whole layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.judging.compare import at_least_tiny, compare, compare_result
from parity.judging.findings import Finding
from parity.judging.query import VACUOUS, Query, signal
from parity.judging.tally import Tally, largest
from parity.rounding.balls import Ball
from rnn_scratch.base import Mask

Array = NDArray[Any]
Indices = NDArray[np.intp]

where: Any = np.where  # of balls it makes a ball

BLOCK = 1 << 16
"""Elements of state judged at a time: what stays in a core's cache, and what bounds the memory of a check."""


def forward(query: Query, finding: Finding, outputs: Sequence[Array]) -> bool:
    """The whole layer on balls, every result compared. False where the balls outgrew the signal."""
    start = tuple(query.exactly(state) for state in query.start)
    y, states = query.lifted.forward(query.x, query.mask, start)
    results = query.layer.results(y, states)
    for got, ball in zip(outputs, results, strict=False):
        compare_result(query, finding.proof, got, ball)
    if not query.last_step or not query.layer.state_units:
        return True
    width = largest(np.nan_to_num(results[0].radius))
    return width < VACUOUS * signal(results[0].mid)


# --- step by step ---


@dataclass
class Walk:
    """What is known after the last step. carried: the states that are not seen. last: the midpoints and radii of what
    the last unmasked step of each row should put out, (batch, units) each."""

    carried: tuple[Ball, ...]
    last: tuple[Array, Array]

    def keep_last(self, ball: Ball, steps: Indices) -> None:
        """steps: of each row its last unmasked step, counted from the first of these."""
        here = np.flatnonzero((steps >= 0) & (steps < ball.shape[1]))
        for kept, array in zip(self.last, (ball.mid, ball.radius), strict=True):
            kept[here] = array[here, steps[here]]


def stepwise(query: Query, finding: Finding, sequence: Array) -> Walk:
    """Every step from the candidate's own previous state, all steps of a block at once but for what is carried."""
    batch, _, units = sequence.shape
    cell, keep = query.lifted.cell, query.recurrent.mask_rule(query.mask).keep
    live, after = None if keep is None else _last_live(keep), last_live(query)[:, 0]
    carried = tuple(query.exactly(state) for state in query.start[1:])
    walk = Walk(carried, (np.zeros((batch, units)), np.zeros((batch, units))))
    x = query.recurrent.processed(query.x)
    for steps in _blocks(sequence):
        previous, relative = previous_states(query, sequence, live, steps)
        h = _returned(query, _rows(previous), _rows(relative))
        p = cell.project(_rows(x[:, steps]))
        if cell.carried:
            gates = cell.gates_of(p, h)
            ball, walk.carried = _carry(cell, gates, walk.carried, None if keep is None else keep[:, steps], previous)
        else:
            ball = cell.update(p, h)[0]
        walk.keep_last(ball.reshape(*previous.shape), after - steps.start)
        ball = _masked(query, ball, previous, None if live is None else live[:, steps], steps)
        compare(query, finding.proof, sequence[:, steps], ball, steps.start)
        if cell.carried and np.any(ball.radius >= signal(ball.mid)):
            finding.vacuous = _outgrown(cell, steps.stop)
    return walk


def _blocks(sequence: Array) -> Iterator[slice]:
    batch, timesteps, units = sequence.shape
    block = max(1, BLOCK // (batch * units))
    for start in range(0, timesteps, block):
        yield slice(start, min(start + block, timesteps))


def _rows(array: Any) -> Any:
    return array.reshape(-1, array.shape[-1])


def _carry(
    cell: Any, gates: Sequence[Ball], carried: tuple[Ball, ...], keep: Mask | None, like: Array
) -> tuple[Ball, tuple[Ball, ...]]:
    """The states that are not seen, step by step through gates that are known for all steps."""
    each = [gate.reshape(*like.shape) for gate in gates]
    visible = []
    for t in range(like.shape[1]):
        h, *new = cell.carry(*(gate[:, t] for gate in each), *carried)
        visible.append(h)
        if keep is None:
            carried = tuple(new)
        else:
            carried = tuple(where(keep[:, t, None], n, c) for n, c in zip(new, carried, strict=True))
    stacked: Any = np.stack(visible, axis=1)
    return stacked, carried


def _outgrown(cell: Any, steps: int) -> str:
    gate = cell.recurrent_activation
    why = "" if gate.high <= 1 else f" ({gate.name} is not bounded by 1)"
    unseen = ", ".join(cell.carried)
    return f"after {steps} steps what rounding may do to {unseen}, unseen, is as wide as the signal{why}"


# --- states before a step ---


def previous_states(query: Query, sequence: Array, live: Indices | None, steps: slice) -> tuple[Array, Array]:
    """The state before each step, (batch, steps, units) float64, and its relative radius.

    Under a mask it is the last unmasked output, not the previous one. A candidate may keep its state wider than it
    returns it; the initial state was given to it, so that one is exact.
    """
    first = query.start[0]
    if live is None:
        head = first[:, None] if steps.start == 0 else sequence[:, steps.start - 1, None]
        before = np.concatenate([head, sequence[:, steps.start : steps.stop - 1]], axis=1)
        initial = (np.arange(steps.start, steps.stop) == 0)[None, :, None]
    else:
        index = live[:, steps, None]
        initial = index < 0
        before = np.where(initial, first[:, None], np.take_along_axis(sequence, np.maximum(index, 0), axis=1))
    known = initial & query.start_given
    relative = np.broadcast_to(np.where(known, 0.0, query.arithmetic.unit), (*before.shape[:2], 1))
    return before.astype(np.float64), relative


def _returned(query: Query, previous: Array, relative: Array) -> Ball:
    """States as the candidate returned them. One that overflowed when it was returned may be a number inside."""
    h = Ball(previous, query.arithmetic, relative=relative)
    if query.finite and not np.isfinite(previous.max(initial=0) - previous.min(initial=0)):
        h.may_overflow = np.isinf(previous) & (relative > 0)
    return h


def last_live(query: Query) -> Indices:
    """Of each row the last unmasked step in the order of processing, or -1: (batch, 1)."""
    keep = query.recurrent.mask_rule(query.mask).keep
    if keep is None:
        return np.full((query.batch, 1), query.last_step)
    return _last_live(keep, final=True)


def _last_live(keep: Mask, final: bool = False) -> Indices:
    """For each step the index of the last unmasked one before it, or -1: (batch, timesteps). `final`: after the end,
    (batch, 1)."""
    index = np.maximum.accumulate(np.where(keep, np.arange(keep.shape[1]), -1), axis=1)
    if final:
        return index[:, -1:]
    return np.concatenate([np.full_like(index[:, :1], -1), index[:, :-1]], axis=1)


# --- masks, and what is handed on ---


def hides_steps(query: Query) -> bool:
    """Whether unmasked outputs are zeroed, as some backends do, so that they do not show the state."""
    rule = query.recurrent.mask_rule(query.mask)
    return rule.keep is not None and rule.shown is not None and bool((rule.keep & ~rule.shown).any())


def _masked(query: Query, ball: Ball, previous: Array, live: Indices | None, steps: slice) -> Ball:
    """What masked steps put out, by the layer's rule, all steps of a block at once."""
    rule = query.recurrent.mask_rule(query.mask)
    if rule.keep is None or live is None:
        return ball
    repeated = np.where(live[..., None] >= 0, previous, rule.before_first(query.start[0][:, None]))
    kept: Any = rule.output(steps, ball.reshape(*previous.shape), copied(query, repeated))
    if rule.shown is None:
        return kept  # type: ignore[no-any-return]
    # not `rule.visible`: its zeros are exact, and a zero radius divides by zero
    zeros = copied(query, np.zeros_like(previous))
    return where(rule.shown[:, steps, None], kept, zeros)  # type: ignore[no-any-return]


def copied(query: Query, array: Array) -> Ball:
    """Values that were handed on, perhaps kept wider than they are returned."""
    rad = query.arithmetic.unit * np.abs(array) + query.arithmetic.tiny
    return Ball(array.astype(np.float64), query.arithmetic, rad)


def ends(query: Query, sequence: Array, outputs: Sequence[Array], tally: Tally, walk: Walk | None = None) -> None:
    """The last output, where the sequence was seen beside it, and the final states."""
    if outputs and not query.recurrent.return_sequences:
        compare(query, tally, outputs[0][:, None], copied(query, sequence[:, -1]))
    live = last_live(query)
    kept = np.take_along_axis(sequence, np.maximum(live, 0)[..., None], axis=1)[:, 0]
    first = copied(query, np.where(live < 0, query.start[0], kept))
    states: tuple[Ball, ...] = (first,)
    if walk is not None:
        states = or_computed(first, live >= 0, walk), *walk.carried
    for state, ball in zip(outputs[1:], states, strict=False):
        compare(query, tally, state[:, None], at_least_tiny(ball))


def or_computed(state: Ball, computed: NDArray[np.bool_], walk: Walk) -> Ball:
    """A final state that is the output of the last step, or one that was computed beside it, by the same step: a
    compiler may well do that."""
    mid, rad = walk.last
    wide = np.maximum(rad, np.abs(state.mid - mid) + state.radius)
    beside = computed & np.isfinite(wide)
    return Ball(np.where(beside, mid, state.mid), state.arithmetic, np.where(beside, wide, state.radius))


def ends_in(query: Query, sequence: Array, outputs: Sequence[Array], walk: Walk | None = None) -> bool:
    """Whether the outputs are those of the sequence's end, but for a rounding of what is handed on."""
    if sequence.shape[1] < query.timesteps:
        return False
    tally = Tally()
    ends(query, sequence, outputs, tally, walk)
    return tally.worst <= 1 and not tally.undecided
