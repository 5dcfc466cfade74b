"""Mistakes in precision: weights, states, products, outputs or inputs rounded to fewer bits."""

import numpy as np

from parity.cases.case import Case
from parity.mistakes.changes import Change, altered, cell, each, mixed_in, recurrent, through_output, weights
from parity.mistakes.entry import Family, Variants
from parity.rounding.balls import Ball
from rnn_scratch.base import Array, Layer, States, Values
from rnn_scratch.cells import Cell, GRUCell, LSTMCell, delivered

FAMILY = Family()

_BITS = {"float16": 11, "bfloat16": 8, "float32": 24}
"""Of the significand. float16's range is narrower than weights ever are."""

_TOLD = {"float16": "float16 or TF32"}
"""Both have 11 bits."""

_NARROWER = {"float64": ("float32", "float16", "bfloat16"), "float32": ("float16", "bfloat16")}


def _to_bits(array: Array, bits: int) -> Array:
    """Rounded to the nearest number of so many significant bits, in the same dtype."""
    significand, exponent = np.frexp(array.astype(np.float64))
    return np.asarray(np.ldexp(np.rint(np.ldexp(significand, bits)), exponent - bits).astype(array.dtype))


def _rounded(value: Values, bits: int) -> Values:
    """That of an array or a ball."""
    if isinstance(value, np.ndarray):
        return _to_bits(value, bits)
    mid, rad = np.asarray(value.mid), value.radius.astype(np.float64)
    low, high = _to_bits(mid - rad, bits), _to_bits(mid + rad, bits)
    middle = _to_bits(mid, bits)
    off = np.maximum(high - middle, middle - low) + value.arithmetic.tiny
    return Ball(middle, value.arithmetic, off.astype(value.arithmetic.radii), may_overflow=value.may_overflow)


# --- wrong cells, of whatever cell they are mixed into ---


class _RoundedStates(Cell):
    """Every state is stored with so many bits."""

    bits: int

    def update(self, p: Values, *states: Values) -> States:
        out = states[-1] if len(states) > len(self.states) else None
        new = super().update(p, *states[: len(self.states)])
        h, *rest = (_rounded(state, self.bits) for state in new)
        return (delivered(h, out), *rest)

    def carry(self, *gates: Values) -> States:
        return tuple(_rounded(state, self.bits) for state in super().carry(*gates))  # type: ignore[misc]


class _RoundedFactors(Cell):
    """Inputs and state are rounded to so many bits before they are multiplied. The weights: see the mistake."""

    bits: int

    def project(self, x: Values) -> Values:
        return super().project(_rounded(x, self.bits))

    def gates_of(self, p: Values, h: Values) -> Values:
        return super().gates_of(p, _rounded(h, self.bits))  # type: ignore[misc]

    def update(self, p: Values, *states: Values) -> States:
        h, *rest = states
        if not isinstance(self, LSTMCell | GRUCell):  # these multiply in gates_of
            h = _rounded(h, self.bits)
        return super().update(p, h, *rest)


# --- what may be rounded ---


def _weights(bits: int, *names: str) -> Change:
    return weights(lambda own: {name: _to_bits(getattr(own, name), bits) for name in names})


def _states(bits: int) -> Change:
    return cell(lambda own: mixed_in(_RoundedStates, own, bits=bits))


def _factors(bits: int) -> Change:
    kernels = _weights(bits, "Wx", "Wh")
    others = cell(lambda own: mixed_in(_RoundedFactors, own, bits=bits))

    def change(layer: Layer) -> Layer | None:
        new = kernels(layer)
        return None if new is None else others(new)

    return change


def _outputs(bits: int) -> Change:
    return recurrent(altered(through_output(lambda y: _rounded(y, bits))))


def _in_precision(case: Case, name: str) -> Variants:
    bits, told = _BITS[name], _TOLD.get(name, name)
    changes = {
        f"weights in {told}": _weights(bits, "Wx", "Wh", "b"),
        f"kernels in {told}": _weights(bits, "Wx", "Wh"),
        f"states in {told}": _states(bits),
        f"factors of products in {told}": _factors(bits),
        f"outputs in {told}": _outputs(bits),
    }
    found: Variants = {}
    for label, change in changes.items():
        found |= each(case, change, label)
    if case.numpy_floats:
        found[f"inputs in {told}"] = case.mapped(lambda x: _to_bits(x, bits))
    return found


@FAMILY.mistake(
    "reduced-precision",
    what="the port rounds some of its numbers to a narrower precision",
    fix="compute in the layer's precision",
    source="tensorflow#127346",
)
def _reduced_precision(case: Case) -> Variants:
    found: Variants = {}
    for name in _NARROWER.get(case.layer.dtype.name, ()):
        found |= _in_precision(case, name)
    return found
