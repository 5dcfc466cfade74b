"""Activations, and beside each what rounding may do to it, as data.

An entry's `f(z, out=None)` is the textbook formula, in the dtype of `z`. The other fields bound what a correct
implementation may return instead of f(z), in a precision with unit roundoff u and an argument z:

    |y - f(z)| <= ulps * ulp(f(z)) + absolute * u + linear * u * |z|

They were measured on seven implementations (TensorFlow eager and XLA, JAX, PyTorch, NumPy, ONNX Runtime's operators
and those inside its RNN), for float32 on every value in the range that matters; then rounded up. None is an ulp count
alone: 2 sigmoid(2z) - 1 is a correct tanh whose relative error near 0 has no bound.

Formulas: `keras.activations`, Keras 3. Deviation: none by intent. On TensorFlow, Keras's own constants for gelu and
leaky_relu go through float32, so that at float64 it is only good to 4e-9 and 3e-9 |z|.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnn_scratch.base import Array

Function = Callable[..., Any]

_erfc: Function = np.frompyfunc(math.erfc, 1, 1)
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _linear(z: Array, out: Array | None = None) -> Any:
    return np.positive(z, out)


def _relu(z: Array, out: Array | None = None) -> Any:
    return np.maximum(z, 0, out=out)


def _relu6(z: Array, out: Array | None = None) -> Any:
    return np.minimum(np.maximum(z, 0), 6, out=out)


def _leaky_relu(z: Array, out: Array | None = None) -> Any:
    return np.maximum(z, 0.2 * z, out=out)


def _sigmoid(z: Array, out: Array | None = None) -> Any:
    """1 / (1 + exp(-z)), without its overflow. Narrower than float64 as 0.5 tanh(0.5 z) + 0.5, which is faster and as
    good absolutely, though not relatively."""
    if z.dtype == np.float64:
        e = np.exp(-np.abs(z))
        return np.divide(np.where(z < 0, e, np.ones_like(e)), 1 + e, out)
    y = np.multiply(z, 0.5, out)
    np.tanh(y, y)
    y *= 0.5
    y += 0.5
    return y


def _hard_sigmoid(z: Array, out: Array | None = None) -> Any:
    return np.clip(z / 6 + 0.5, 0, 1, out)


def _hard_sigmoid_keras2(z: Array, out: Array | None = None) -> Any:
    return np.clip(0.2 * z + 0.5, 0, 1, out)


def _softsign(z: Array, out: Array | None = None) -> Any:
    return np.divide(z, 1 + np.abs(z), out)


def _softplus(z: Array, out: Array | None = None) -> Any:
    return np.logaddexp(z, z.dtype.type(0), out)


def _elu(z: Array, out: Array | None = None) -> Any:
    return np.add(np.maximum(z, 0), np.expm1(np.minimum(z, 0)), out)


def _selu(z: Array, out: Array | None = None) -> Any:
    return np.multiply(_SELU_SCALE, np.maximum(z, 0) + _SELU_ALPHA * np.expm1(np.minimum(z, 0)), out)


def _silu(z: Array, out: Array | None = None) -> Any:
    return np.multiply(z, _sigmoid(z), out)


def _gelu(z: Array, out: Array | None = None) -> Any:
    """z Phi(z), through erfc: 1 + erf cancels for negative z."""
    return np.multiply(0.5 * z, _erfc(z * -math.sqrt(0.5)).astype(z.dtype), out)


def _mish(z: Array, out: Array | None = None) -> Any:
    return np.multiply(z, np.tanh(_softplus(z)), out)


def _softmax(z: Array, out: Array | None = None) -> Any:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.divide(e, e.sum(axis=-1, keepdims=True), out)


@dataclass(frozen=True)
class Activation:
    """A function of the pre-activation z, elementwise unless `couples_units`.

    f: (z, out=None) -> y, same shape and dtype as z.
    ulps, absolute, linear: the rounding allowance (module docstring); `ulps64` replaces `ulps` at float64.
    slope: the largest |f'|, infinite where there is none. slope_at, bend: |f'| as a function of y = f(z), and the
        largest |f''|, for those whose reach is worth the shorter way; the others are evaluated at both ends.
    turns: the z where f changes direction. Between two of them f is monotone, so its extremes over an interval are
        at the end points and at the turns inside.
    low, high: the range of f.
    swallows_nan: implementations in use return a number for NaN (max(0, NaN) is 0 in some).
    couples_units: f acts on the last axis as a whole (softmax).
    """

    name: str
    f: Function
    ulps: float = 0
    absolute: float = 0
    linear: float = 0
    ulps64: float | None = None
    slope: float = 1
    slope_at: Function | None = None
    bend: float = math.inf
    turns: tuple[float, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    swallows_nan: bool = False
    couples_units: bool = False

    def __call__(self, z: Any, out: Array | None = None) -> Any:
        """f(z), written to `out` where given; for what is no array (balls) whatever its `through` makes of f."""
        if not isinstance(z, np.ndarray):
            return z.through(self)
        if z.dtype.kind != "V":
            return self.f(z, out)
        # bfloat16: NumPy knows of it only what ml_dtypes tells it, so f is computed in float32 and rounded once
        return np.positive(self.f(z.astype(np.float32)).astype(z.dtype), out)


_ROWS = (
    Activation("linear", _linear),
    Activation(
        "tanh",
        np.tanh,
        ulps=8,
        ulps64=12,
        absolute=4,
        slope_at=lambda y: 1 - y * y,
        bend=0.77,
        low=-1,
        high=1,
    ),
    Activation("relu", _relu, low=0, swallows_nan=True),
    Activation("relu6", _relu6, low=0, high=6, swallows_nan=True),
    Activation("leaky_relu", _leaky_relu, ulps=2, swallows_nan=True),
    Activation(
        "sigmoid",
        _sigmoid,
        absolute=4,
        slope=0.25,
        slope_at=lambda y: y * (1 - y),
        bend=0.0963,
        low=0,
        high=1,
    ),
    Activation("hard_sigmoid", _hard_sigmoid, absolute=2, slope=1 / 6, low=0, high=1, swallows_nan=True),
    Activation("hard_sigmoid_keras2", _hard_sigmoid_keras2, absolute=2, slope=0.2, low=0, high=1, swallows_nan=True),
    Activation("softsign", _softsign, ulps=3, low=-1, high=1),
    Activation("softplus", _softplus, ulps=8, linear=4, low=0),
    Activation("exponential", np.exp, ulps=4, slope=math.inf, low=0),
    Activation("elu", _elu, ulps=8, absolute=2, low=-1),
    Activation("selu", _selu, ulps=8, absolute=4, slope=_SELU_SCALE * _SELU_ALPHA, low=-_SELU_SCALE * _SELU_ALPHA),
    Activation("silu", _silu, ulps=4, linear=4, slope=1.0998396, turns=(-1.2784645427610738,), low=-0.2784645427610738),
    Activation("gelu", _gelu, ulps=4, linear=8, slope=1.1289042, turns=(-0.7517915241,), low=-0.1699712075),
    Activation("mish", _mish, ulps=8, linear=10, slope=1.0885, turns=(-1.1924312145,), low=-0.3088435165),
    Activation("softmax", _softmax, ulps=0, absolute=0, slope=0.5, low=0, high=1, couples_units=True),
)

ACTIVATIONS: dict[str | None, Activation] = {row.name: row for row in _ROWS}
ACTIVATIONS["swish"] = ACTIVATIONS["silu"]
ACTIVATIONS[None] = ACTIVATIONS["linear"]


def get(name: str | None) -> Activation:
    """The activation of that Keras name, None being linear. ValueError names the ones there are."""
    if not isinstance(name, str | None) or name not in ACTIVATIONS:
        known = ", ".join(sorted(key for key in ACTIVATIONS if key))
        raise ValueError(f"activation: expected one of {known}; received {name!r}")
    return ACTIVATIONS[name]
