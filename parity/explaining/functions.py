"""What layers compute, and whether two of them are the same function: on a case's inputs, or on some that show more."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity.cases.case import Case
from parity.cases.drawing import generator, inputs_like, typical
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

_SAME = 1e-11
"""Results in float64 are the same up to this part of their largest: rounding alone makes no more of it."""


def computed(case: Case) -> list[tuple[Array, ...]]:
    """What the case's layer makes of it, in its own precision: the results of each call."""
    found, states = [], case.start
    with np.errstate(all="ignore"):
        for n in range(case.calls):
            call = case.call(n) if case.calls > 1 else case
            y, after = call.layer.forward(call.x, call.mask, states)
            states = after if call.layer.stateful else states
            results = call.layer.results(y, after)
            found.append(results if call.view is None else call.view.show(results))
    return found


def widened(case: Case) -> Case:
    """The case in float64."""
    return case.cast(np.float64, layer=case.layer.astype(np.float64))


def differ(first: Case, second: Case) -> bool:
    """Whether two cases have other results, in float64, than rounding could make of one."""
    for a, b in zip(computed(widened(first)), computed(widened(second)), strict=True):
        if [y.shape for y in a] != [z.shape for z in b]:
            return True
        if any(_apart(y, z) for y, z in zip(a, b, strict=True)):
            return True
    return False


def _apart(y: Array, z: Array) -> bool:
    if np.isnan(y).any() != np.isnan(z).any() or (np.isfinite(y) != np.isfinite(z)).any():
        return True
    finite = np.isfinite(y) & np.isfinite(z)
    scale = np.abs(y, where=finite, out=np.zeros_like(y)).max(initial=0) or 1.0
    return bool(np.abs(np.where(finite, y - z, 0)).max(initial=0) > _SAME * scale)


# --- other inputs ---


def richer(case: Case) -> Iterator[tuple[str, Case]]:
    """Cases of the same weights that show more, by what they have that this one has not."""
    rng = generator(0, f"{case.id} richer")
    plain = case.on(inputs_like(case, rng, 3, 7 * case.calls), initial_state=None, mask=None, rows=(), view=None)
    yield "more timesteps and rows" if case.calls == 1 else "other inputs", plain
    scale = _gentle(case) if plain.numpy_floats else 1.0
    if not 1 / 8 < scale < 8:  # saturated, or next to nothing
        yield "inputs of another size", plain.mapped(lambda x: (x.astype(np.float64) * scale).astype(x.dtype))
    if case.calls == 1:
        yield from _masked_and_started(case, plain, rng)


def _masked_and_started(case: Case, plain: Case, rng: np.random.Generator) -> Iterator[tuple[str, Case]]:
    """With other masks and initial states, of a case that has any."""
    drawn = (rng.uniform(-1, 1, (3, units)) for units in case.layer.state_units)
    states = tuple(state.astype(case.layer.dtype) for state in drawn)
    if states and case.initial_state is not None:
        yield "an initial state", replace(plain, initial_state=states)
    if case.mask is not None:
        mask = np.ones((3, 7), bool)
        mask[0, :2], mask[1, 3], mask[2, 5:] = False, False, False
        yield "another mask", replace(plain, mask=mask)
        yield "another mask and an initial state", replace(plain, mask=mask, initial_state=states or None)


def _gentle(case: Case) -> float:
    """The factor that brings the inputs to where the first cell's activation bends: Wx x near 1."""
    first = next(iter(case.layer.every(Recurrent)), None)
    Wx = np.ones((1, 1)) if first is None else first.cell.Wx.astype(np.float64)
    reach = typical(case.x) * np.sqrt(np.square(Wx).sum(axis=1).mean())
    return float(1 / reach) if np.isfinite(reach) and reach > 0 else 1.0
