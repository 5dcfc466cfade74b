"""Mistakes in the weights: transposed, exchanged, left out, taken twice, read in another order of bytes, stale."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from parity.cases.case import Case
from parity.cases.drawing import generator, randomized
from parity.mistakes.changes import Change, altered, of_kind, recurrent, weights
from parity.mistakes.entry import Family, Variants
from parity.mistakes.hiding import one_step, symmetric, zero_bias
from parity.mistakes.loops import looped
from rnn_scratch import Dense
from rnn_scratch.base import Array, Layer, Mask, States, Values
from rnn_scratch.cells import Cell, GRUCell
from rnn_scratch.layers import Recurrent

FAMILY = Family()

_Arrays = dict[str, Array]


def _dense(
    name: str, change: Callable[[Array], Array], unless: Callable[[Array], bool] = lambda array: False
) -> Change:
    """Another array of that name in Dense layers that have one, where it is of the same shape."""

    def change_layer(layer: Dense) -> Layer | None:
        array = layer.weights.get(name)
        if array is None or unless(array):
            return None
        new = change(array)
        if new.shape != array.shape:
            return None
        return layer.mapped(lambda _, key, own: new if key == name else own)

    return of_kind(Dense, change_layer)


# --- transposed, exchanged ---


def _transposed_blocks(array: Array, gates: int) -> Array:
    """The array with each gate's block transposed."""
    return np.concatenate([block.T for block in np.split(array, gates)])


def _transposed_kernel(own: Cell) -> _Arrays | None:
    if own.units != own.input_dim or own.units == 1:
        return None
    return {"Wx": _transposed_blocks(own.Wx, len(own.gates))}


def _transposed_recurrent_kernel(own: Cell) -> _Arrays | None:
    return {"Wh": _transposed_blocks(own.Wh, len(own.gates))} if own.units > 1 else None


FAMILY.enter(
    "kernel-not-transposed",
    {
        "": weights(_transposed_kernel),
        "Dense": _dense("W", np.transpose, unless=lambda W: len(W) == 1),
    },
    what="the port uses the kernel Wx without its transposition; Keras stores it (input_dim, units)",
    fix="transpose each gate's block of Wx",
    source="discuss.pytorch.org 110741, SO 48361376",
)
FAMILY.enter(
    "recurrent-kernel-not-transposed",
    weights(_transposed_recurrent_kernel),
    what="the port uses the recurrent kernel Wh without its transposition; it is square, so no shape check sees it",
    fix="transpose each gate's block of Wh",
    source="keras#8720, LPCNet#123",
    hides=symmetric,
)
FAMILY.enter(
    "kernels-swapped",
    weights(lambda own: {"Wx": own.Wh, "Wh": own.Wx} if own.units == own.input_dim else None),
    what="the port uses the kernel where the recurrent kernel belongs, and the other way round",
    fix="exchange Wx and Wh",
)


# --- left out, taken twice ---

FAMILY.enter(
    "bias-missing",
    {
        "": weights(lambda own: {"b": np.zeros_like(own.b)} if own.use_bias else None),
        "Dense": _dense("b", np.zeros_like),
    },
    what="the port leaves the bias out",
    fix="add b",
    source="tvm PR#3410, hls4ml#594",
    hides=zero_bias,
)
FAMILY.enter(
    "bias-added-twice",
    weights(lambda own: {"b": own.b + own.b} if own.use_bias else None),
    what="the port adds the bias twice, as when both of PyTorch's biases are set to Keras's one",
    fix="set one of the two biases to zero",
    source="SO 48361376, keras#8860",
    hides=zero_bias,
)


def _stateless_steps(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
    """Each step but the first from a state of zeros."""
    zeros = tuple(np.zeros_like(state) for state in states)
    return looped(layer, x, mask, states, before=lambda history: zeros if len(history) > 1 else history[0])


_OF_STATES = frozenset(
    {
        "time-reversed",
        "go-backwards-ignored",
        "off-by-one-step",
        "first-output-for-last",
        "last-step-only-wrong-end",
        "state-leaks-across-batch",
        "state-not-reset",
        "initial-state-ignored",
        "recurrent-kernel-not-transposed",
        "kernels-swapped",
    }
)
"""Mistakes with the steps before, of which nothing is left where no state is used."""

FAMILY.enter(
    "recurrence-missing",
    {
        "Wh taken as zero": weights(lambda own: {"Wh": np.zeros_like(own.Wh)}),
        "each step from a state of zeros": recurrent(altered(_stateless_steps)),
    },
    what="the port never uses the state of the step before",
    fix="hand h (and c) on from step to step",
    source="ONNX node tests have T = 1",
    hides=one_step,
    moot=_OF_STATES,
)


def has_two_biases(own: Cell) -> bool:
    return isinstance(own, GRUCell) and own.reset_after and own.use_bias


def bias_rows(change: Callable[[Array], Sequence[Array]]) -> Change:
    """Other rows of a bias that has two: that beside Wx x, and that beside Wh h."""
    return weights(lambda own: {"b": np.stack(list(change(own.b)))} if has_two_biases(own) else None)


FAMILY.enter(
    "recurrent-bias-instead-of-sum",
    bias_rows(lambda b: (0 * b[0], b[1])),
    what="the port uses only the recurrent one of the two biases",
    fix="add the first row of b beside Wx x too",
    source="SO 48361376",
    hides=zero_bias,
)


# --- whole arrays that are other ones ---


def _column_major(array: Array) -> Array:
    """Keras's kernel, which lies row-major, read as column-major."""
    kernel = array.T
    return np.reshape(np.ravel(kernel), kernel.shape, order="F").T


FAMILY.enter(
    "weights-transposed-on-save",
    {
        "both kernels": weights(lambda own: {"Wx": _column_major(own.Wx), "Wh": _column_major(own.Wh)}),
        "kernel": weights(lambda own: {"Wx": _column_major(own.Wx)}),
        # the one square block of a cell without gates would only be transposed: that has a name already
        "recurrent kernel": weights(lambda own: {"Wh": _column_major(own.Wh)} if len(own.gates) > 1 else None),
        "Dense": _dense("W", _column_major),
    },
    what="the port reads Keras's row-major bytes as column-major",
    fix="read the bytes in row-major (C) order, or save them in column-major (F) order",
    source="konduit 124",
)


@FAMILY.mistake(
    "stale-weights",
    what="one whole array is not the layer's own",
    fix="copy that array from the layer again",
    drawn=True,
)
def _stale_weights(case: Case) -> Variants:
    found: Variants = {}
    own, other = case.layer.weights, randomized(case.layer, generator(0, "stale")).weights
    for path, array in other.items():
        found[path] = replace(case, layer=case.layer.replace(**{**own, path: array}))
    return found
