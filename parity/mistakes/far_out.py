"""Mistakes that are none in the middle: cells, pre-activations and inputs that are clipped, functions that end.

How far a check asked stands in its report, so none of these is listed as a blind spot: what the check did not reach is
said there for all of them at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.mistakes.activations import approximation, cell_with
from parity.mistakes.changes import Altered, Change, cell, mixed_in
from parity.mistakes.entry import Family
from rnn_scratch.activations import Activation
from rnn_scratch.base import Array, Layer, Mask, States, Values
from rnn_scratch.cells import Cell, LSTMCell, delivered

FAMILY = Family()

_ENDS = frozenset({"relu6", "hard_sigmoid", "hard_sigmoid_keras2"})
"""Activations that end themselves."""


def _clip(limit: float) -> Activation:
    """As an activation: so it is a function of balls as well."""
    return Activation(f"clip at {limit:g}", lambda z, out=None: np.clip(z, -limit, limit, out), low=-limit, high=limit)


def _at(limits: Sequence[float], change: Callable[[float], Change]) -> dict[str, Change]:
    return {f"at {limit:g}": change(limit) for limit in limits}


# --- what a cell keeps ---


class _ClippedCell(LSTMCell):
    """c_t = clip(f c_{t-1} + i g)"""

    clip: Activation

    def carry(
        self, i: Values, f: Values, g: Values, o: Values, c: Values, out: Array | None = None
    ) -> tuple[Values, Values]:
        c = self.clip(f * c + i * g)
        return delivered(o * self.activation(c), out), c


def _clipped_cell(limit: float) -> Change:
    def change(own: Cell) -> Cell | None:
        return mixed_in(_ClippedCell, own, clip=_clip(limit)) if isinstance(own, LSTMCell) else None

    return cell(change)


FAMILY.enter(
    "cell-clipped",
    _at((1, 2, 3, 4, 5, 6, 8, 10, 20), _clipped_cell),
    what="the port clips the cell state; Keras lets it grow",
    fix="do not clip c",
    source="TensorFlow cell_clip, TFLite cell_clip, LSTMP",
    common=False,
)


# --- what goes into the activations ---


def _ending(limit: float) -> Callable[[Activation], Activation | None]:
    """The same function, of an argument that is clipped first."""

    def other(present: Activation) -> Activation | None:
        if present.couples_units or present.turns or present.name in _ENDS:
            return None
        name = f"{present.name} up to {limit:g}"
        own = present.f
        # its slope cannot be told from what it puts out, where it is flat
        return replace(
            present, name=name, f=lambda z, out=None: own(np.clip(z, -limit, limit), out), slope_at=None, bend=np.inf
        )

    return other


class _ClippedGates(LSTMCell):
    """Of an LSTM what the activation sees of c is not clipped."""

    clip: Activation

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values, Values, Values]:
        z = h.dot(self.Wh.T)
        z += p
        i, f, g, o = (self.clip(part) for part in self.split(z))
        s = self.recurrent_activation
        return s(i), s(f), self.activation(g), s(o)


def _clipped_gates(limit: float) -> Change:
    end = _ending(limit)

    def change(own: Cell) -> Cell | None:
        if isinstance(own, LSTMCell):
            return mixed_in(_ClippedGates, own, clip=_clip(limit))
        names = [name for name in ("activation", "recurrent_activation") if hasattr(own, name)]
        new: dict[str, Any] = {name: end(getattr(own, name)) for name in names}
        return None if None in new.values() else mixed_in(type(own), own, **new)

    return cell(change)


FAMILY.enter(
    "pre-activations-clipped",
    _at((1, 2, 3, 4, 5, 6, 8, 10, 20), _clipped_gates),
    what="the port clips the pre-activations; Keras does not",
    fix="do not clip what goes into the activations",
    source="ONNX clip",
    common=False,
)


def _tables() -> dict[str, Change]:
    changes = {}
    for name, told in (("activation", ""), ("recurrent_activation", ", recurrent")):
        for limit in (1, 2, 3, 4, 5, 6, 8):
            changes[f"at {limit:g}{told}"] = cell_with(name, _ending(limit))
    return changes


FAMILY.enter(
    "activation-ends",
    _tables(),
    what="the port's activation ends: beyond, it stays as it is there (a table, a clipped argument)",
    fix="let the activation go on to where it is flat to the last bit",
    source="hls4ml table_range, RTNeural",
    common=False,
)


# --- an approximation that is right to the last bits near zero ---


def _pade(z: Array) -> Array:
    z = np.clip(z, -12, 12)  # beyond 5 it is above 1 and clipped anyway
    q = z * z
    over, under = 135135 + q * (17325 + q * (378 + q)), 135135 + q * (62370 + q * (3150 + 28 * q))
    return np.asarray(np.clip(z * over / under, -1, 1))


_PADE_TANH = approximation("Pade, of order 7", _pade, 1)
_PADE_SIGMOID = approximation("(1 + Pade(z / 2)) / 2, of order 7", lambda z: 0.5 + 0.5 * _pade(z / 2), 0.25)


def _instead_of(name: str, new: Activation) -> Callable[[Activation], Activation | None]:
    return lambda present: new if present.name == name else None


FAMILY.enter(
    "pade-activation",
    {
        "tanh": cell_with("activation", _instead_of("tanh", _PADE_TANH)),
        "sigmoid": cell_with("recurrent_activation", _instead_of("sigmoid", _PADE_SIGMOID)),
    },
    what="the port uses a Pade approximation of the activation, which is good near zero only",
    fix="use an activation that is right to the last few bits wherever it is asked",
    source="JUCE FastMathApproximations, audio plug-ins",
    common=False,
)


# --- what goes into the layer ---


def _clipped_inputs(limit: float) -> Change:
    clip = _clip(limit)

    def forward(layer: Layer, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        return layer.forward(clip(x), mask, states)

    def change(layer: Layer) -> Layer | None:
        plain = layer.kind not in ("model", "sequential", "embedding", "masking")
        return Altered(layer, forward) if plain and layer.state_units else None

    return change


FAMILY.enter(
    "inputs-clipped",
    _at((1, 2, 3, 4, 5, 6, 8, 10, 20), _clipped_inputs),
    what="the port clips the inputs of the layer; Keras takes them as they are",
    fix="do not clip x; if that is meant, say so with --domain",
    source="quantised ports, input ranges",
    common=False,
)
