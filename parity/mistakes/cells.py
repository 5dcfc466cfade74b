"""Mistakes in what a step of LSTM or GRU computes: gates coupled, resets elsewhere, biases in the wrong place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from parity.cases.case import Case, View
from parity.mistakes.changes import Altered, Change, cell, mixed_in, recurrent, weights
from parity.mistakes.entry import Family, Variants
from parity.mistakes.hiding import zero_bias
from parity.mistakes.loops import looped
from parity.mistakes.weights import bias_rows, has_two_biases
from rnn_scratch.base import Array, Layer, Mask, States, Values
from rnn_scratch.cells import Cell, GRUCell, LSTMCell, delivered
from rnn_scratch.layers import Recurrent

FAMILY = Family()


def _as(wrong: type[Cell], unless: Callable[[Any], bool] = lambda own: False) -> Change:
    """The wrong cell's methods for those of the cell that it is made of."""
    (kind,) = wrong.__bases__

    def change(own: Cell) -> Cell | None:
        return mixed_in(wrong, own) if isinstance(own, kind) and not unless(own) else None

    return cell(change)


# --- LSTM ---


class _BareCell(LSTMCell):
    """h_t = o c_t"""

    def carry(
        self, i: Values, f: Values, g: Values, o: Values, c: Values, out: Array | None = None
    ) -> tuple[Values, Values]:
        c = f * c + i * g
        return delivered(o * c, out), c


class _Coupled(LSTMCell):
    """c_t = (1 - i) c_{t-1} + i g"""

    def carry(
        self, i: Values, f: Values, g: Values, o: Values, c: Values, out: Array | None = None
    ) -> tuple[Values, Values]:
        c = i * g + (1 - i) * c if isinstance(i, np.ndarray) else i.blend(g, c)
        return delivered(o * self.activation(c), out), c


class _CoupledInput(LSTMCell):
    """c_t = f c_{t-1} + (1 - f) g"""

    def carry(
        self, i: Values, f: Values, g: Values, o: Values, c: Values, out: Array | None = None
    ) -> tuple[Values, Values]:
        c = f * c + (1 - f) * g if isinstance(f, np.ndarray) else f.blend(c, g)
        return delivered(o * self.activation(c), out), c


def _peepholes(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
    """c_{t-1} added to what i and f see, c_t to what o sees: peepholes of weight one."""

    def update(own: LSTMCell, x_t: Values, before: States) -> States:
        h, c = before
        z = h.dot(own.Wh.T)
        i, f, g, o = own.split(z + own.project(x_t))
        s = own.recurrent_activation
        c_t = s(f + c) * c + s(i + c) * own.activation(g)
        return s(o + c_t) * own.activation(c_t), c_t

    return looped(layer, x, mask, states, update=update)


def _with_peepholes(layer: Recurrent) -> Layer | None:
    return Altered(layer, _peepholes) if isinstance(layer.cell, LSTMCell) else None


def _forget_bias(own: Cell) -> dict[str, Array] | None:
    if not isinstance(own, LSTMCell):
        return None
    b = own.b.copy()
    b[own.units : 2 * own.units] += 1
    return {"b": b}


FAMILY.enter(
    "forget-bias-added",
    weights(_forget_bias),
    what="the port adds 1 to the forget gate; Keras's bias holds that already",
    fix="do not add a forget bias",
    source="tvm PR#3410, tensorflow#29622",
)
FAMILY.enter(
    "cell-activation-missing",
    _as(_BareCell),
    what="the port computes h = o c; Keras computes h = o activation(c)",
    fix="apply the activation to c before it is multiplied with o",
    source="discuss.pytorch.org 110741",
)
FAMILY.enter(
    "coupled-gates",
    {"": _as(_Coupled), "1 - f for the input gate": _as(_CoupledInput)},
    what="the port takes 1 - i for the forget gate",
    fix="compute both gates from their own weights",
    source="ONNX input_forget",
)
FAMILY.enter(
    "peepholes-added",
    recurrent(_with_peepholes),
    what="the port feeds c to the gates (peepholes); Keras's LSTM does not",
    fix="compute the gates from x and h alone",
    source="ONNX peepholes",
)


# --- GRU ---


class _ResetBefore(GRUCell):
    """n = activation(Wx_h x_t + b_h + Wh_h (r h_{t-1}) + b'_h), of a cell whose two biases stay two."""

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values]:
        s, u = self.recurrent_activation, self.units
        p_z, p_r, p_h = self.split(p)
        q_z, q_r = self.split(h.dot(self.Wh[: 2 * u].T))[:2]
        z, r = s(p_z + q_z + self.b[1, :u]), s(p_r + q_r + self.b[1, u : 2 * u])
        return z, self.activation(p_h + (r * h).dot(self.Wh[2 * u :].T) + self.b[1, 2 * u :])


class _SummedBias(GRUCell):
    """n = activation(Wx_h x_t + b_h + b'_h + r Wh_h h_{t-1}): both biases outside of what r multiplies."""

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values]:
        s, u = self.recurrent_activation, self.units
        p_z, p_r, p_h = self.split(p)
        q_z, q_r, q_h = self.split(h.dot(self.Wh.T))
        z, r = s(p_z + q_z + self.b[1, :u]), s(p_r + q_r + self.b[1, u : 2 * u])
        return z, self.activation(p_h + r * q_h + self.b[1, 2 * u :])


class _ResetAfter(GRUCell):
    """n = activation(Wx_h x_t + b_h + r Wh_h h_{t-1}), of a cell with one bias."""

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values]:
        s = self.recurrent_activation
        p_z, p_r, p_h = self.split(p)
        q_z, q_r, q_h = self.split(h.dot(self.Wh.T))
        z, r = s(p_z + q_z), s(p_r + q_r)
        return z, self.activation(p_h + r * q_h)


class _ComplementedUpdate(GRUCell):
    """h_t = (1 - z) h_{t-1} + z n"""

    def update(self, p: Values, h: Values, out: Array | None = None) -> tuple[Values]:
        z, n = self.gates_of(p, h)
        y = z * n + (1 - z) * h if isinstance(z, np.ndarray) else z.blend(n, h)
        return (delivered(y, out),)


FAMILY.enter(
    "reset-before",
    _as(_ResetBefore, unless=lambda own: not own.reset_after),
    what="the port applies the reset gate to h before the product with Wh; this layer has reset_after=True",
    fix="multiply r with Wh h + b', after the product",
    source="coremltools#1124, nntrainer PR#1644",
)
FAMILY.enter(
    "reset-after",
    _as(_ResetAfter, unless=lambda own: own.reset_after),
    what="the port applies the reset gate after the product with Wh; this layer has reset_after=False",
    fix="multiply r with h, before the product with Wh",
    source="coremltools#1124, nntrainer PR#1644",
)
FAMILY.enter(
    "recurrent-bias-missing",
    bias_rows(lambda b: (b[0], 0 * b[1])),
    what="the port ignores the second row of the bias, which stands beside Wh h",
    fix="add the second row of b to Wh h, inside of what the reset gate multiplies",
    source="hls4ml#594, tfjs#2442",
    hides=zero_bias,
)
FAMILY.enter(
    "bias-rows-swapped",
    bias_rows(lambda b: (b[1], b[0])),
    what="the port exchanges the two rows of the bias",
    fix="the first row of b stands beside Wx x, the second beside Wh h",
    source="nnom PR#82",
    hides=zero_bias,
)
FAMILY.enter(
    "bias-rows-summed",
    _as(_SummedBias, unless=lambda own: not has_two_biases(own)),
    what="the port adds both rows of the bias into one; the reset gate multiplies only the second",
    fix="keep the second row of b beside Wh h",
    source="frugally-deep#99",
    hides=zero_bias,
)
FAMILY.enter(
    "update-gate-complemented",
    _as(_ComplementedUpdate),
    what="the port exchanges z and 1 - z; Keras computes h = z h_{t-1} + (1 - z) n",
    fix="take z of the old state and 1 - z of the new one",
    source="Haiku's convention",
)


# --- the states of an LSTM, each for the other ---


def _swap_returned(results: tuple[Array, ...]) -> tuple[Array, ...]:
    y, h, c = results
    return y, c, h


def _swap_back(seen: tuple[Array, ...]) -> tuple[Array, ...] | None:
    return _swap_returned(seen) if len(seen) == 3 else None


@FAMILY.mistake(
    "hidden-and-cell-swapped",
    what="the port takes the initial h for c and the initial c for h",
    fix="the first state is h, the second c",
    source="coremltools PR#33",
)
def _hidden_and_cell_swapped(case: Case) -> Variants:
    if not (isinstance(case.layer, Recurrent) and isinstance(case.layer.cell, LSTMCell)):
        return {}
    found: Variants = {}
    if case.initial_state:
        found["given"] = replace(case, initial_state=case.initial_state[::-1])
    if case.layer.return_state:
        found["returned"] = replace(case, view=View(_swap_returned, _swap_back))
    return found
