"""Mistakes in the activations: left out, another one, applied twice, a fast approximation, another hard_sigmoid."""

import copy
from collections.abc import Callable, Sequence

import numpy as np

from parity.mistakes.changes import Altered, Change, cell, mixed_in, recurrent, through_output
from parity.mistakes.entry import Family
from rnn_scratch import Activation as ActivationLayer
from rnn_scratch import Dense
from rnn_scratch.activations import ACTIVATIONS, Activation
from rnn_scratch.base import Array, Layer, Values
from rnn_scratch.cells import Cell, LSTMCell
from rnn_scratch.layers import Recurrent

FAMILY = Family()

_Other = Callable[[Activation], Activation | None]
"""The wrong activation for a right one; None where there is nothing to get wrong."""


def cell_with(name: str, other: _Other) -> Change:
    """Another activation of cells, that of the attribute `name`, in those that have it."""

    def change(own: Cell) -> Cell | None:
        present = getattr(own, name, None)
        new = None if present is None else other(present)
        if new is None or new is present:
            return None
        twin = copy.copy(own)
        setattr(twin, name, new)
        return twin

    return cell(change)


def _layer_with(other: _Other) -> Change:
    """Another activation of a layer that is, or has, one of its own."""

    def change(layer: Layer) -> Layer | None:
        if not isinstance(layer, Dense | ActivationLayer):
            return None
        new = other(layer.activation)
        if new is None or new is layer.activation:
            return None
        twin = copy.copy(layer)
        twin.activation = new
        return twin

    return change


def _to(name: str, only: Sequence[str] = (), never: Sequence[str] = ()) -> _Other:
    """An activation for another, or for those only, or for all but those."""

    def other(present: Activation) -> Activation | None:
        if present.name == name or present.name in never:
            return None
        return ACTIVATIONS[name] if not only or present.name in only else None

    return other


# --- left out, another one ---


class _BareGate(LSTMCell):
    """c_t = f c_{t-1} + i p_c"""

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values, Values, Values]:
        z = h.dot(self.Wh.T)
        z += p
        i, f, g, o = self.split(z)
        s = self.recurrent_activation
        # a ball that no activation closed would be one that grows with every sum
        return s(i), s(f), g if isinstance(g, np.ndarray) else g.closed(), s(o)


def _bare_gate(own: Cell) -> Cell | None:
    bare = isinstance(own, LSTMCell) and own.activation.name != "linear"
    return mixed_in(_BareGate, own) if bare else None


FAMILY.enter(
    "activation-missing",
    {
        "": cell_with("activation", _to("linear")),
        "of what goes into c": cell(_bare_gate),
        "Dense": _layer_with(_to("linear")),
    },
    what="the port leaves the activation out",
    fix="apply the layer's activation",
    source="keras#3819",
)


def _wrong_activations() -> dict[str, Change]:
    changes = {}
    for name in ("tanh", "relu", "sigmoid", "hard_sigmoid", "softsign", "elu"):
        changes[name] = cell_with("activation", _to(name, never=["linear"]))
    for name in ("tanh", "relu"):
        changes[f"{name} for linear"] = cell_with("activation", _to(name, only=["linear"]))
    for name in ("tanh", "relu", "sigmoid", "softmax"):
        changes[f"Dense, {name}"] = _layer_with(_to(name))
    for name in ("tanh", "relu", "linear"):
        changes[f"{name} for the recurrent activation"] = cell_with("recurrent_activation", _to(name))
    return changes


FAMILY.enter(
    "activation-wrong",
    _wrong_activations(),
    what="the port uses another activation than the layer's",
    fix="use the layer's activation",
    source="keras#13399",
)


# --- twice ---


def _twice(f: Activation) -> Activation | None:
    """f(f(z)), for an f that is monotone and not its own square."""
    plain = not f.turns and not f.couples_units and np.isfinite(f.slope)
    if not plain or f.name in ("linear", "relu", "relu6"):
        return None
    slope = max(1.0, f.slope)
    return Activation(
        f"{f.name} of {f.name}",
        lambda z, out=None: f.f(f.f(z), out),
        ulps=(1 + slope) * max(f.ulps, f.ulps64 or 0) + 2,
        absolute=(1 + slope) * f.absolute + 2,
        linear=(1 + slope) * f.linear,
        slope=slope * slope,
    )


def _output_twice(layer: Recurrent) -> Layer | None:
    plain = layer.cell.activation
    return None if _twice(plain) is None else Altered(layer, through_output(lambda y: plain(y)))


FAMILY.enter(
    "activation-twice",
    {
        "after the layer": recurrent(_output_twice),
        "in each step": cell_with("activation", _twice),
    },
    what="the port applies the activation twice",
    fix="apply the activation once, within the step",
    source="keras#3819",
)


# --- approximations: fast functions in use that are far outside rounding ---


def approximation(name: str, f: Callable[[Array], Array], slope: float) -> Activation:
    return Activation(name, lambda z, out=None: np.positive(f(z), out), ulps=8, absolute=8, slope=slope)


def _rational_tanh(z: Array) -> Array:
    z = np.clip(z, -3, 3)
    return np.asarray(z * (27 + z * z) / (27 + 9 * z * z))


_APPROXIMATIONS = {
    "tanh": (
        approximation("clip(z, -1, 1)", lambda z: np.clip(z, -1, 1), 1),
        approximation("z (27 + z^2) / (27 + 9 z^2), clipped at 3", _rational_tanh, 1),
    ),
    "sigmoid": (
        approximation("clip(0.25 z + 0.5, 0, 1)", lambda z: np.clip(0.25 * z + 0.5, 0, 1), 0.25),
        approximation("0.5 z / (1 + |z|) + 0.5", lambda z: 0.5 * z / (1 + np.abs(z)) + 0.5, 0.5),
    ),
}


def _approximate() -> dict[str, Change]:
    def instead_of(own: str, new: Activation) -> _Other:
        return lambda present: new if present.name == own else None

    changes = {}
    for which, told in (("activation", ""), ("recurrent_activation", ", recurrent")):
        for own, several in _APPROXIMATIONS.items():
            for new in several:
                changes[f"{new.name} for {own}{told}"] = cell_with(which, instead_of(own, new))
    return changes


FAMILY.enter(
    "approximate-activation",
    _approximate(),
    what="the port uses a fast approximation of the activation, far outside rounding",
    fix="use an activation that is right to the last few bits",
    source="hls4ml, embedded ports",
)


# --- hard_sigmoid, of which Keras 2 and Keras 3 have one each ---


def _recurrent_activation(name: str, *only: str) -> Change:
    return cell_with("recurrent_activation", _to(name, only=only))


FAMILY.enter(
    "hard-sigmoid-for-sigmoid",
    {
        "max(0, min(1, z / 6 + 0.5))": _recurrent_activation("hard_sigmoid", "sigmoid"),
        "max(0, min(1, 0.2 z + 0.5))": _recurrent_activation("hard_sigmoid_keras2", "sigmoid"),
    },
    what="the port uses hard_sigmoid for the recurrent activation, as Keras before 2.3 did; the layer has sigmoid",
    fix="use sigmoid for the gates",
    source="SO 49759614",
)
FAMILY.enter(
    "sigmoid-for-hard-sigmoid",
    _recurrent_activation("sigmoid", "hard_sigmoid", "hard_sigmoid_keras2"),
    what="the port uses sigmoid for the recurrent activation; the layer has hard_sigmoid",
    fix="use hard_sigmoid for the gates",
    source="SO 49759614",
)
FAMILY.enter(
    "hard-sigmoid-keras2",
    _recurrent_activation("hard_sigmoid_keras2", "hard_sigmoid"),
    what="the port's hard_sigmoid has the slope 0.2 of Keras 2; Keras 3 has 1/6",
    fix="use max(0, min(1, z / 6 + 0.5))",
    source="tensorflow#65381, keras PR#19477",
)
FAMILY.enter(
    "hard-sigmoid-keras3",
    _recurrent_activation("hard_sigmoid", "hard_sigmoid_keras2"),
    what="the port's hard_sigmoid has the slope 1/6 of Keras 3; this layer is of Keras 2, which has 0.2",
    fix="use max(0, min(1, 0.2 z + 0.5))",
    source="tensorflow#65381, keras PR#19477",
)
