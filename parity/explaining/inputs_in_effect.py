"""Weights in effect that a map of the inputs makes of the layer's own: Wx (A x - m) + b is (Wx A) x + (b - Wx m)."""

import numpy as np

from parity.explaining.made_of import close
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

_MOST_LISTED = 6


def by_inputs(layer: Recurrent, name: str, array: Array) -> str | None:
    """What is known of an array in effect that inputs changed before the layer would account for; None where they would
    not. Where the layer has no more rows than inputs they would account for any."""
    Wx, own = layer.weights["Wx"].astype(np.float64), np.asarray(array, np.float64)
    right = layer.weights[name].astype(np.float64)
    if name == "b":
        return _shifted(Wx, own, right)
    return _combined(Wx, own) if name == "Wx" else None


def _shifted(Wx: Array, own: Array, right: Array) -> str | None:
    change = _beside_inputs(own - right, close(right))
    if change is None:
        return None
    shift, *_ = np.linalg.lstsq(Wx, -change, rcond=None)
    if np.abs(Wx @ shift + change).max() > close(right):
        return None
    listed = ", ".join(f"{value:.4g}" for value in shift[:_MOST_LISTED])
    more = ", ..." if len(shift) > _MOST_LISTED else ""
    return f"in effect b is b - Wx ({listed}{more}): are the inputs shifted by that{_or_another('b', Wx)}?"


def _beside_inputs(change: Array, within: float) -> Array | None:
    """How much more stands beside Wx x. Of GRU's two biases the second row may hold part of it where r does not part
    them; None where it differs beside Wh h."""
    if change.ndim == 1:
        return change
    gates = 2 * (change.shape[1] // 3)
    shown = np.concatenate([change[:, :gates].sum(axis=0), change[0, gates:]])
    return shown if np.abs(change[1, gates:]).max() <= within else None


def _combined(Wx: Array, own: Array) -> str | None:
    A, *_ = np.linalg.lstsq(Wx, own, rcond=None)
    if np.abs(Wx @ A - own).max() > close(own):
        return None
    size = f"({len(A)}, {len(A)})"
    return f"in effect Wx is Wx A, A of shape {size}: are the inputs A x, turned or mixed{_or_another('Wx', Wx)}?"


def _or_another(name: str, Wx: Array) -> str:
    rows, inputs = Wx.shape
    return f", or is {name} another one" if rows <= inputs else ""
