"""Mistakes in the order of the gates: every order there is, of all arrays or of some."""

import itertools

import numpy as np

from parity.mistakes.changes import Change, weights
from parity.mistakes.entry import Family
from parity.mistakes.hiding import zero_bias
from rnn_scratch.base import Array
from rnn_scratch.cells import Cell, GRUCell, LSTMCell

FAMILY = Family()

_LIBRARIES = {
    "iofc": ("ONNX's", "onnx LSTM"),
    "icfo": ("TensorFlow 1's", "tensorflow#29308"),
    "ifoc": ("CoreML's", "coremltools PR#93"),
    "cfoi": ("DL4J's", "konduit 124"),
    "rzh": ("PyTorch's", "keras#8720"),
}
"""The orders of other libraries: whose, and where it was seen."""

_EVERY = ("Wx", "Wh", "b")


def _reordered(order: str, *names: str) -> Change:
    """The port takes the blocks for gates in that order; each gate's rows then come from where it looks for them."""

    def change(own: Cell) -> dict[str, Array] | None:
        if sorted(own.gates) != sorted(order) or "".join(own.gates) == order:
            return None
        if "b" in names and not own.use_bias and names != _EVERY:
            return None
        blocks = np.arange(len(order) * own.units).reshape(len(order), own.units)
        rows = blocks[[order.index(gate) for gate in own.gates]].ravel()
        return {name: np.take(getattr(own, name), rows, axis=-1 if name == "b" else 0) for name in names}

    return weights(change)


def _enter_orders(right: str) -> None:
    for letters in itertools.permutations(right):
        order = "".join(letters)
        whose, source = _LIBRARIES.get(order, ("no known library's", ""))
        if order == right:
            continue
        FAMILY.enter(
            f"gate-order-{order}",
            _reordered(order, *_EVERY),
            what=f"the port reads the gates as {' '.join(order)} ({whose} order); Keras stores {' '.join(right)}",
            fix=f"reorder the blocks of Wx, Wh and b from {' '.join(right)} to {' '.join(order)}",
            source=source,
            common=order in _LIBRARIES,
        )


_enter_orders("".join(LSTMCell.gates))
_enter_orders("".join(GRUCell.gates))


def _orders_of_some() -> dict[str, Change]:
    some = [("b",), ("Wx",), ("Wh",), ("Wx", "Wh")]
    return {
        f"{' and '.join(names)} as {' '.join(order)}": _reordered(order, *names)
        for order, names in itertools.product(_LIBRARIES, some)
    }


FAMILY.enter(
    "gate-order-of-one-array",
    _orders_of_some(),
    what="the port reorders the gates of some of Wx, Wh and b and not of the others",
    fix="reorder the blocks of all three alike",
    hides=zero_bias,
)
