"""Functions of balls: how far an activation moves, and what a correct one may be off by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.rounding.arithmetic import REFERENCE_UNIT, SLACK, Arithmetic, Settled
from parity.rounding.magnitudes import binade
from parity.rounding.perturbed import Flags
from rnn_scratch.activations import Activation

Array = NDArray[Any]

FUNCTION_ERROR = 8 * REFERENCE_UNIT
"""Relative error granted to this process's own float64 activations."""


def activated(
    f: Activation, z: Array, e: Array, arithmetic: Arithmetic, terms: Array | None = None, lost: Flags | None = None
) -> Settled:
    """f of something within e of z. terms: of a sum, their magnitudes; None for what has been rounded before. lost:
    where that may have overflowed before."""
    y = f.f(z)
    size = np.abs(y.astype(e.dtype))
    rad = coupled_radius(z, e, y, arithmetic) if f.couples_units else radius(f, z, e, y, size, arithmetic)
    rad *= e.dtype.type(SLACK)
    summed = np.abs(z) if terms is None else terms
    inside = 1.001 * summed.max(initial=0) + e.max(initial=0) <= arithmetic.largest
    outside = float(size.max(initial=0)) + float(rad.max(initial=0)) <= arithmetic.largest
    if lost is None and inside and outside:
        return arithmetic.settled(y, rad)
    overflows = np.asarray(1.001 * summed.astype(np.float64) + e > arithmetic.largest)
    came_in = np.isinf(z)
    if terms is None:
        overflows &= ~came_in
    else:
        came_in &= np.isfinite(terms)  # because a factor was
    overflows |= (np.abs(y) + rad > arithmetic.largest) & ~came_in
    overflows |= False if lost is None else lost
    if f.couples_units:
        overflows |= overflows.any(axis=-1, keepdims=True)
    return arithmetic.settled(y, np.where(np.isinf(e), np.inf, rad), overflows)


def radius(f: Activation, z: Array, e: Array, y: Array, size: Array, arithmetic: Arithmetic) -> Array:
    """The most by which a correct f of something within e of z differs from y, this process's f(z). size: |y|."""
    moved = reach(f, z, e, y)
    if not moved.max() <= (f.high - f.low) / 2:  # below that, no end of the range is nearer
        moved = np.fmin(moved, np.maximum(y - f.low, f.high - y)).astype(e.dtype)
    # see rnn_scratch.activations; FUNCTION_ERROR is relative to |y|, at most twice its binade
    ulps = f.ulps64 if f.ulps64 is not None and arithmetic.dtype == "float64" else f.ulps
    own = binade(size + moved)
    own *= e.dtype.type(2 * (ulps * arithmetic.unit + FUNCTION_ERROR))
    own += e.dtype.type(f.absolute * arithmetic.unit + arithmetic.tiny)
    own += moved
    if f.linear:
        own += e.dtype.type(f.linear * arithmetic.unit) * (np.abs(z).astype(e.dtype) + e)
    return own


def reach(f: Activation, z: Array, e: Array, y: Array) -> Array:
    """The most that f moves away from y = f(z) for arguments within e of z."""
    if f.slope_at is not None:
        # |f(z + t) - f(z)| <= |t| (|f'(z)| + |t| sup|f''| / 2); the constant is for f' of a rounded y
        slope = np.minimum(f.slope_at(y.astype(e.dtype)) + 2.0**-20 + f.bend / 2 * e, f.slope)
        quick = np.asarray(e * slope)
        if e.max() < 2.0**-8:
            return quick  # wider, the second derivative alone would make a saturated unit uncertain
        return np.asarray(np.fmin(quick, _at_the_ends(f, z, e, y)), e.dtype)
    moved = _at_the_ends(f, z, e, y)
    for turn in f.turns:
        extreme = np.abs(f.f(np.array([turn])) - y)
        moved = np.where(np.abs(z - turn) <= e, np.maximum(moved, extreme), moved)
    if np.isfinite(f.slope):
        moved = np.minimum(moved, f.slope * e)
    return np.asarray(moved, e.dtype)


def _at_the_ends(f: Activation, z: Array, e: Array, y: Array) -> Array:
    """How far f is from y at z - e and z + e, which are rounded outwards."""
    high, low = np.nextafter(z + e, np.inf), np.nextafter(z - e, -np.inf)
    return np.asarray(np.maximum(np.abs(f.f(high) - y), np.abs(f.f(low) - y)))


# --- softmax, which couples the units of the last axis ---


def coupled_radius(z: Array, e: Array, y: Array, arithmetic: Arithmetic) -> Array:
    """`radius` for it."""
    moved = coupled_reach(z, e, y)
    return np.asarray(moved + coupled_allowance(z, e, y + moved, arithmetic), e.dtype)


def coupled_reach(z: Array, e: Array, y: Array) -> Array:
    """`reach` for it: an output is largest with its own argument high and the others low."""
    z = z - z.max(axis=-1, keepdims=True)
    most = 1 / (1 + np.exp(_others(z - e) - (z + e)))
    least = 1 / (1 + np.exp(_others(z + e) - (z - e)))
    return np.asarray(np.maximum(most - y, y - least) + FUNCTION_ERROR)


def _others(z: Array) -> Array:
    """The logarithm of the sum of exp(z) over the last axis without the element itself. Subtracting it would cancel."""
    none = np.full_like(z[..., :1], -np.inf)
    before = np.logaddexp.accumulate(z, axis=-1)[..., :-1]
    after = np.logaddexp.accumulate(z[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    below, above = np.concatenate([none, before], axis=-1), np.concatenate([after, none], axis=-1)
    return np.asarray(np.logaddexp(below, above))


def coupled_allowance(z: Array, e: Array, y: Array, arithmetic: Arithmetic) -> Array:
    """Its own error at outputs up to y: its exponentials', the sum's of n and the division's, relative to y."""
    below = np.abs(z - z.max(axis=-1, keepdims=True))
    far, wide = below.max(axis=-1, keepdims=True), e.max(axis=-1, keepdims=True)
    roundings = 2 * (below + e + wide) + far + 2 * wide + z.shape[-1] + 14
    return np.asarray(y * arithmetic.unit * roundings + arithmetic.tiny)
