"""Mistakes with states: kept, forgotten, another row's, started from zeros."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from parity.cases.case import Case
from parity.mistakes.changes import Forward, altered, each, is_one_layer, recurrent, state_kept
from parity.mistakes.entry import Family, Variants
from parity.mistakes.hiding import one_row, zero_state
from parity.mistakes.loops import looped
from rnn_scratch.base import Mask, States, Values
from rnn_scratch.layers import Recurrent

FAMILY = Family()


# --- kept, forgotten ---


@FAMILY.mistake(
    "state-not-reset",
    what="the port keeps the state of one call for the next",
    fix="start each call from the initial state, or from zeros",
    source="tensorflow#47813",
)
def _state_not_reset(case: Case) -> Variants:
    if case.calls == 1 or case.layer.stateful or case.initial_state is not None or not case.layer.state_units:
        return {}
    return {"": replace(case, layer=state_kept(case.layer))}


@FAMILY.mistake(
    "state-reset-between-calls",
    what="the port forgets the state between the calls of a stateful layer",
    fix="keep the state after each call for the next one",
    source="keras#6321",
)
def _state_reset_between_calls(case: Case) -> Variants:
    if case.calls == 1 or not case.layer.stateful:
        return {}
    return {"": replace(case, layer=state_kept(case.layer, False))}


# --- another row's: perturbed runs stand below one another, `batch` rows each ---


def _row_after_row(batch: int) -> Forward:
    """Each row starts from the state at which the one before it ended."""

    def forward(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        own: States = tuple(state[::batch] for state in states)
        outputs, ends = [], []
        for n in range(batch):
            y, own = layer.forward(x[n::batch], None if mask is None else mask[n::batch], own)
            outputs.append(y)
            ends.append(own)
        return _interleaved(outputs), tuple(_interleaved(parts) for parts in zip(*ends, strict=True))

    return forward


def _interleaved(rows: Sequence[Values]) -> Values:
    stacked: Values = np.stack(rows, axis=1)
    return stacked.reshape(-1, *stacked.shape[2:])


def _row_before(batch: int) -> Forward:
    """Each row goes on from the state of the row before."""

    def forward(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        row = np.arange(x.shape[0])
        rolled = row // batch * batch + (row - 1) % batch

        def before(history: list[States]) -> States:
            return tuple(state[rolled] for state in history[-1]) if len(history) > 1 else history[-1]

        return looped(layer, x, mask, states, before=before)

    return forward


def _first_row(batch: int) -> Forward:
    """All rows go on from the state of the first."""

    def forward(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        first = np.arange(x.shape[0]) // batch * batch
        return looped(layer, x, mask, states, before=lambda history: tuple(s[first] for s in history[-1]))

    return forward


_LEAKS = {
    "each row goes on from the end of the row before": _row_after_row,
    "each row gets the state of the row before": _row_before,
    "all rows get the state of the first": _first_row,
}


@FAMILY.mistake(
    "state-leaks-across-batch",
    what="the port lets one batch row's state reach another row",
    fix="keep a state of its own for every batch row",
    source="onnxruntime PR#3893",
    hides=one_row,
    mixes_rows=True,
)
def _state_leaks_across_batch(case: Case) -> Variants:
    found: Variants = {}
    if case.batch == 1 or case.calls > 1:
        return found
    for label, leak in _LEAKS.items():
        found |= each(case, recurrent(altered(leak(case.batch))), label)
    return found


# --- started from zeros ---


@FAMILY.mistake(
    "initial-state-ignored",
    what="the port starts from zeros although an initial state is given",
    fix="start from the initial state",
    source="frugally-deep#148",
    hides=zero_state,
)
def _initial_state_ignored(case: Case) -> Variants:
    given = case.initial_state
    if given is None:
        return {}
    found = {"": replace(case, initial_state=None)}
    if is_one_layer(case) and len(given) > 1:
        for n, name in enumerate(case.layer.state_names):
            states = (*given[:n], 0 * given[n], *given[n + 1 :])
            found[f"{name} only"] = replace(case, initial_state=states)
    return found
