"""Mistakes in time: the wrong way round, one step off, the wrong end, time for batch."""

from dataclasses import replace

import numpy as np

from parity.cases.case import Case, View
from parity.mistakes.changes import (
    Altered,
    altered,
    changed,
    each,
    is_one_layer,
    mixed_in,
    recurrent,
    setting,
    through_output,
)
from parity.mistakes.entry import Family, Variants
from parity.mistakes.hiding import one_step
from parity.mistakes.loops import looped
from rnn_scratch import Bidirectional, Sequential
from rnn_scratch.base import Array, Layer, Mask, States, Values
from rnn_scratch.layers import Recurrent

FAMILY = Family()

_Results = tuple[Array, ...]


# --- the wrong way round ---


def _turn(results: _Results) -> _Results:
    y, *states = results
    return y[:, ::-1], *states


_TURNED = View(_turn, _turn)


@FAMILY.mistake(
    "time-reversed",
    what="the port walks the inputs from the last to the first",
    fix="walk the inputs from the first to the last",
    source="keras#1431",
    hides=one_step,
)
def _time_reversed(case: Case) -> Variants:
    change = setting("go_backwards", True)
    found = each(case, change)
    if found and isinstance(case.layer, Recurrent) and case.layer.return_sequences:
        found["and puts the outputs back in time order"] = replace(found[""], view=_TURNED)
    return found


class Unturned(Bidirectional):
    """The backward half stays in its order of processing."""

    def turned(self, y: Values) -> Values:
        return y


def _forwards_twice(layer: Layer) -> Layer | None:
    """Both directions walk forwards, and nothing is turned round."""
    if not isinstance(layer, Bidirectional) or not layer.return_sequences:
        return None
    return mixed_in(Unturned, changed(layer, setting("go_backwards", False)))


FAMILY.enter(
    "go-backwards-ignored",
    {"": setting("go_backwards", False), "and turns nothing round": _forwards_twice},
    what="the port ignores go_backwards",
    fix="walk the inputs from the last to the first",
    source="tvm#15829",
    hides=one_step,
)


def _is_backward_sequence(layer: Layer) -> bool:
    return isinstance(layer, Recurrent) and layer.go_backwards and layer.return_sequences


def _put_in_time_order(layer: Layer) -> Layer | None:
    if _is_backward_sequence(layer):
        return Altered(layer, through_output(lambda y: y[:, ::-1]))
    return layer if isinstance(layer, Bidirectional) else None  # which turns its backward layer's round itself


@FAMILY.mistake(
    "backward-output-reordered",
    what="the port puts the outputs of a go_backwards layer back in time order; "
    "Keras leaves them as they were processed",
    fix="leave the outputs in the order in which they were computed",
    source="keras#3448, tensorflow#40345, keras-onnx#523",
    hides=one_step,
)
def _backward_output_reordered(case: Case) -> Variants:
    if is_one_layer(case):
        return {"": replace(case, view=_TURNED)} if _is_backward_sequence(case.layer) else {}
    return each(case, _put_in_time_order) if isinstance(case.layer, Sequential) else {}


# --- one step off, the wrong end ---


def _output_before(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
    """The output of the step before: at first the initial state."""
    y, after = layer.with_sequences().forward(x, mask, states)
    first = states[0].reshape(x.shape[0], 1, layer.units)
    late = np.concatenate([first, y[:, :-1]], axis=1)
    return (late if layer.return_sequences else late[:, -1]), after


def _state_two_before(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
    return looped(layer, x, mask, states, before=lambda history: history[max(0, len(history) - 2)])


def _skipping(case: Case, end: int) -> Case:
    """One step at either end of the processing, 0 or -1, as if it were masked."""
    mask = case.every_mask.copy()
    mask[:, -1 - end if case.backwards else end] = False
    return replace(case, mask=mask)


@FAMILY.mistake(
    "off-by-one-step",
    what="the port is off by one time step",
    fix="step t takes x_t and the state after step t-1, and its own output is the output of step t",
)
def _off_by_one_step(case: Case) -> Variants:
    if case.calls > 1:
        return {}
    found = {
        **each(case, recurrent(altered(_output_before)), "the output of step t-1 given for step t"),
        **each(case, recurrent(altered(_state_two_before)), "the state of step t-2 used in step t"),
    }
    if is_one_layer(case):
        found["the first step skipped"] = _skipping(case, 0)
        found["the last step skipped"] = _skipping(case, -1)
    return found


def _first_processed(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
    """The output after the first step processed, not after the last."""
    y, after = layer.with_sequences().forward(x, mask, states)
    if layer.return_sequences:  # asked for all steps after all, as a step function shows them
        return y[:, np.zeros(x.shape[1], np.intp)], after
    return y[:, 0], after


def _wrong_end(layer: Recurrent) -> Layer | None:
    last_of_backwards = layer.go_backwards and not layer.return_sequences
    return Altered(layer, _first_processed) if last_of_backwards else None


FAMILY.enter(
    "last-step-only-wrong-end",
    recurrent(_wrong_end),
    what="the port takes the last output of a backward pass from the wrong end: after its first step",
    fix="take the output after the step processed last, which is time step 0",
    source="keras#3448, dynet#1646",
    hides=one_step,
)


def _first_for_last(layer: Recurrent) -> Layer | None:
    only_last = not layer.return_sequences and not layer.go_backwards
    return Altered(layer, _first_processed) if only_last else None


FAMILY.enter(
    "first-output-for-last",
    recurrent(_first_for_last),
    what="the port returns the output of the first step where Keras returns that of the last",
    fix="return the output after the last step",
    hides=one_step,
)


# --- time for batch ---


def _swap(results: _Results) -> _Results:
    y, *states = results
    return y.swapaxes(0, 1) if y.ndim > 2 else y, *states


_SWAPPED = View(_swap, _swap)


def _reread(batch: int, steps: int) -> View:
    """Outputs whose first two axes are taken for each other, the bytes lying as they do."""

    def reread(results: _Results) -> _Results:
        y, *states = results
        if y.ndim <= 2 or y.shape[:2] not in ((batch, steps), (steps, batch)):
            return results
        return y.reshape(y.shape[1], y.shape[0], *y.shape[2:]), *states

    return View(reread, reread)


@FAMILY.mistake(
    "time-major",
    what="the port reads (batch, timesteps, ...) as (timesteps, batch, ...)",
    fix="give the batch axis first, or transpose the first two axes of the inputs and of the outputs",
    source="coremltools#303",
    mixes_rows=True,
)
def _time_major(case: Case) -> Variants:
    batch, steps = case.batch, case.timesteps
    if case.calls > 1 or max(batch, steps) == 1:
        return {}
    found: Variants = {}
    if len(case.output_shapes[0]) > 2:
        found["only its outputs"] = replace(case, view=_SWAPPED)
    if case.mask is not None or case.initial_state is not None:
        return found
    turned = case.mapped(lambda x: x.swapaxes(0, 1), rows=())
    found[""] = replace(turned, view=_SWAPPED)
    found["only its inputs"] = turned
    if batch != steps and min(batch, steps) > 1:
        lying = case.mapped(lambda x: x.reshape(steps, batch, *x.shape[2:]), rows=())
        found["the bytes as they lie"] = replace(lying, view=_reread(batch, steps))
    return found
