"""How far a question goes: the largest input, pre-activation and cell state that it comes to."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.cases.case import Case
from rnn_scratch.base import Array, Layer, Values
from rnn_scratch.cells import Cell, LSTMCell
from rnn_scratch.layers import Recurrent


@dataclass
class Reach:
    """The largest |x|, |pre-activation| and |cell state|, of whatever was finite; 0 of what there is none of."""

    x: float = 0.0
    z: float = 0.0
    c: float = 0.0

    def or_farther(self, other: "Reach") -> "Reach":
        return Reach(max(self.x, other.x), max(self.z, other.z), max(self.c, other.c))


def reach(case: Case) -> Reach:
    """That of a case, in float64: of each of its calls by itself, from the case's own state."""
    found = Reach()
    if not case.tokens:
        found.x = max(_largest(x) for x in case.inputs.values())
    wide = case.cast(np.float64, layer=_watched(case.layer.astype(np.float64), found))
    with np.errstate(all="ignore"):
        wide.layer.forward(wide.x, wide.mask, wide.start)
    return found


def _largest(values: Array) -> float:
    values = np.abs(values.astype(np.float64))
    return float(values.max(initial=0, where=np.isfinite(values)))


def _watched(layer: Layer, found: Reach) -> Layer:
    """The same layer, whose cells tell how far they go."""
    twin = copy.copy(layer)
    twin.parts = {name: _watched(part, found) for name, part in layer.parts.items()}
    if isinstance(twin, Recurrent):
        twin.cell, twin.state = _watched_cell(twin.cell, found), None
    return twin


def _watched_cell(cell: Cell, found: Reach) -> Cell:
    if isinstance(cell, LSTMCell):
        watched = copy.copy(cell)
        watched.__class__ = type("Watched", (_Watched, type(cell)), {"found": found})
        return watched
    twin = copy.copy(cell)
    for name in ("activation", "recurrent_activation"):
        if hasattr(cell, name):
            own = getattr(cell, name)
            setattr(twin, name, replace(own, f=_noting(own.f, found)))
    return twin


def _noting(f: Callable[..., Any], found: Reach) -> Callable[..., Any]:
    def noting(z: Array, out: Array | None = None) -> Any:
        found.z = max(found.z, _largest(z))
        return f(z, out)

    return noting


class _Watched(LSTMCell):
    """The activation of LSTM sees pre-activations and cell states: they are told apart here."""

    found: Reach

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values, Values, Values]:
        self.found.z = max(self.found.z, _largest(h.dot(self.Wh.T) + p))
        return super().gates_of(p, h)

    def carry(
        self, i: Values, f: Values, g: Values, o: Values, c: Values, out: Array | None = None
    ) -> tuple[Values, Values]:
        y, after = super().carry(i, f, g, o, c, out)
        self.found.c = max(self.found.c, _largest(c), _largest(after))
        return y, after
