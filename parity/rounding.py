"""Balls: values that carry beside them the most that rounding can move them.

A `Ball` is a midpoint and a radius per element. Its products with weights make a `Sum`: a sum that has not been rounded
yet, because nobody knows in which order the candidate adds it. Adding to a Sum adds terms; only an activation closes
it, and then the bound holds for any order of summation, with FMA or not, with the input projection separate or fused,
with subnormal numbers flushed to zero or not.

With u the unit roundoff of the candidate's storage, a that of its accumulation, N the number of non-zero terms of a
sum z, S the sum of their magnitudes (input radii included) and d their propagated radii,

    |computed z - z| <= d + E,    E = g S + underflow,    g = N (a + 2^-53) / (1 - N (a + 2^-53))

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1; the 2^-53 is this module's own rounding).
What is stored narrower than it is accumulated adds its roundings on top (`Arithmetic.stores`). Where every term and
every partial sum is a multiple of one power of two small enough, nothing rounds at all and E is the underflow alone.

Midpoints are float64. The magnitudes S are computed in float32 where the candidate's range allows (they need two
digits, not sixteen) and enlarged by what that can lose.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rnn_scratch.activations import Activation

Array = NDArray[Any]
REFERENCE_UNIT = 2.0**-53
FUNCTION_ERROR = 8 * REFERENCE_UNIT
"""Relative error granted to this process's own float64 activations."""


@dataclass(frozen=True)
class Arithmetic:
    """What a verdict assumes of the candidate's arithmetic.

    unit: roundoff of storage, u. accumulation: roundoff inside a sum. stores: roundings to storage on the longest path
    from a product to the activation, 0 where sums are kept in storage precision (then g counts them). tiny: the
    smallest magnitude that must survive, an absolute error of any operation. largest: the end of the range.
    """

    dtype: str
    unit: float
    accumulation: float
    stores: int
    tiny: float
    largest: float


ARITHMETIC = {
    "float16": Arithmetic("float16", 2.0**-11, 2.0**-24, 3, 2.0**-24, 65504.0),
    "float32": Arithmetic("float32", 2.0**-24, 2.0**-24, 0, 2.0**-126, float(np.finfo(np.float32).max)),
    "float64": Arithmetic("float64", 2.0**-53, 2.0**-53, 0, 2.0**-1022, float(np.finfo(np.float64).max)),
}


class Ball:
    """Values known to lie within a radius of a midpoint: |value - mid| <= rad + relative |mid|.

    mid: (rows, n) float64. rad: the same shape, or None for zero. relative: a number or (rows, 1), for states that a
    candidate may keep wider than it returns them. may_overflow: where some order of the sums leaves the candidate's
    range, or None for nowhere.
    """

    __array_ufunc__ = None  # NumPy arrays leave `array + ball` to the ball

    def __init__(
        self,
        mid: Array,
        arithmetic: Arithmetic,
        rad: Array | None = None,
        relative: Any = 0.0,
        may_overflow: NDArray[np.bool_] | None = None,
    ) -> None:
        self.mid, self.arithmetic, self.rad, self.relative, self.may_overflow = (
            mid,
            arithmetic,
            rad,
            relative,
            may_overflow,
        )

    @property
    def radius(self) -> Array:
        if self.rad is not None and not np.any(self.relative):
            return self.rad
        radius: Array = self.relative * np.abs(self.mid)
        return radius if self.rad is None else radius + self.rad

    def dot(self, W: Array) -> "Sum":
        """The not yet rounded sums self @ W. W: (n, m) -> (rows, m)."""
        fast = np.float64 if self.arithmetic.dtype == "float64" else np.float32
        # n + 4 roundings of float32: two casts, a product and n additions, with one to spare
        enlarge = 1 + (len(W) + 4) * float(np.finfo(fast).eps)
        magnitude, weights = np.abs(self.mid).astype(fast), np.abs(W).astype(fast)
        size = magnitude.dot(weights) * fast(enlarge)
        spread = size * np.asarray(self.relative, fast) if np.any(self.relative) else None
        terms = np.count_nonzero(magnitude, axis=-1, keepdims=True)
        if self.rad is not None:
            own = self.rad.astype(fast).dot(weights) * fast(enlarge)
            spread = own if spread is None else spread + own
            terms = np.full_like(terms, len(W))
        mid = self.mid.dot(W)
        return Sum(
            mid,
            self.arithmetic,
            size=size if spread is None else size + spread,
            spread=spread,
            terms=np.minimum(terms, np.count_nonzero(W, axis=0)),
            stored=np.abs(mid) if self.arithmetic.stores else None,
            scale=max(largest_finite(magnitude), largest_finite(weights)),
            grain=times(granularity(self.mid), granularity(W)) if spread is None else 0.0,
        )


@dataclass
class Sum:
    """A sum that nobody has rounded yet. All arrays are (rows, units).

    mid: its value. size: S, the sum of the terms' magnitudes. spread: d, the terms' own radii propagated, None for
    zero. terms: N. stored: sum of |intermediate results| that the candidate may store, or None where that does not
    matter. scale: the largest finite factor (for underflow). grain: a power of two that divides every term, or 0.
    """

    mid: Array
    arithmetic: Arithmetic
    size: Array
    spread: Array | None
    terms: NDArray[Any]
    stored: Array | None
    scale: float
    grain: float

    __array_ufunc__ = None

    def __add__(self, other: Any) -> Self:
        if isinstance(other, np.ndarray):
            other = self._constant(other)
        spreads = [part.spread for part in (self, other) if part.spread is not None]
        return type(self)(
            self.mid + other.mid,
            self.arithmetic,
            size=self.size + other.size,
            spread=sum(spreads[1:], spreads[0]) if spreads else None,
            terms=self.terms + other.terms,
            stored=None if self.stored is None else self.stored + other.stored,
            scale=max(self.scale, other.scale),
            grain=min(self.grain, other.grain),
        )

    __radd__ = __add__

    def _constant(self, b: Array) -> Self:
        size = np.abs(b)
        return type(self)(
            b,
            self.arithmetic,
            size=size.astype(self.size.dtype) * self.size.dtype.type(1 + 2**-23),
            spread=None,
            terms=(b != 0).astype(int),
            stored=size,
            scale=largest_finite(size),
            grain=granularity(b),
        )

    @property
    def rounding(self) -> Array:
        """E: the most that rounding can move the sum, for any order of its terms. (rows, units)."""
        a, terms = self.arithmetic, self.terms
        step = terms * (a.accumulation + REFERENCE_UNIT)
        if np.any(self.size > self.grain / a.accumulation):
            error: Array = step / (1 - step) * self.size.astype(np.float64)
        else:
            error = np.zeros(self.mid.shape)
        if self.stored is not None:
            kept = a.stores * a.unit
            error = error + kept * (1 + kept) * (self.stored + error + (0 if self.spread is None else self.spread))
        return error + 2 * terms * a.tiny * (2 + self.scale)

    def through(self, f: Activation) -> Ball:
        """f of the rounded sum: what rounding does before f, what f makes of that, and what f may itself be off by."""
        e = self.rounding if self.spread is None else self.rounding + self.spread
        y = f.f(self.mid)
        moved = coupled_reach(self.mid, e, y) if f.couples_units else reach(f, self.mid, e, y)
        own = (
            coupled_allowance(self.mid, e, y, self.arithmetic)
            if f.couples_units
            else allowance(f, self.mid, e, y, moved, self.arithmetic)
        )
        rad, largest = moved + own, self.arithmetic.largest
        if 1.001 * float(self.size.max(initial=0)) + float(e.max(initial=0)) <= largest and np.all(
            np.abs(y) + rad <= largest
        ):
            return Ball(y, self.arithmetic, rad)
        fits = (1.001 * self.size.astype(np.float64) + e <= largest) & (np.abs(y) + rad <= largest)
        return Ball(y, self.arithmetic, rad, may_overflow=~fits)


def reach(f: Activation, z: Array, e: Array, y: Array) -> Array:
    """The most that f moves away from y = f(z) for arguments within e of z, however it is rounded at float64."""
    moved = np.maximum(np.abs(f.f(z + e) - y), np.abs(f.f(z - e) - y))
    for turn in f.turns:
        extreme = np.abs(f.f(np.array([turn])) - y)
        moved = np.where(np.abs(z - turn) <= e, np.maximum(moved, extreme), moved)
    if np.isfinite(f.slope):
        moved = np.minimum(moved, f.slope * e)
    moved = np.fmin(moved, np.maximum(y - f.low, f.high - y))
    return np.asarray(moved + FUNCTION_ERROR * np.abs(y))


def allowance(f: Activation, z: Array, e: Array, y: Array, moved: Array, a: Arithmetic) -> Array:
    """What a correct implementation of f may be off by, for arguments within e of z: see `rnn_scratch.activations`."""
    ulps = f.ulps64 if f.ulps64 is not None and a.dtype == "float64" else f.ulps
    own = np.full_like(z, f.absolute * a.unit + a.tiny)
    if ulps:
        own += ulps * 2 * a.unit * binade(np.abs(y) + moved)
    if f.linear:
        own += f.linear * a.unit * (np.abs(z) + e)
    return own


def coupled_reach(z: Array, e: Array, y: Array) -> Array:
    """`reach` for softmax over the last axis: an output is largest with its own argument high and the others low."""
    z, e = z - z.max(axis=-1, keepdims=True), np.minimum(e, 300)
    high, low = np.exp(z + e), np.exp(z - e)
    most = high / (high + (low.sum(axis=-1, keepdims=True) - low))
    least = low / (low + (high.sum(axis=-1, keepdims=True) - high))
    return np.asarray(np.maximum(most - y, y - least) + FUNCTION_ERROR)


def coupled_allowance(z: Array, e: Array, y: Array, a: Arithmetic) -> Array:
    """Softmax's own error: those of its exponentials, of the sum of n and of the division, relative to y."""
    below = np.abs(z - z.max(axis=-1, keepdims=True))
    far, wide = below.max(axis=-1, keepdims=True), e.max(axis=-1, keepdims=True)
    return np.asarray(y * a.unit * (2 * (below + e + wide) + far + z.shape[-1] + 14) + a.tiny)


def binade(y: Array) -> Array:
    """The largest power of two not above each |y|; 0 for what float32 holds only as subnormal, in float64 likewise."""
    bits = np.ascontiguousarray(y, np.float64).view(np.int64)
    power: Array = (bits & 0x7FF0000000000000).view(np.float64)
    return power


def granularity(array: Array) -> float:
    """The largest power of two that divides every element: infinity for zeros, 0 if it is below 2^-200."""
    for part in (array.ravel()[:64], array):  # weights that were not chosen for it are told apart by a few
        grain = _granularity(part[part != 0])
        if grain < 2.0**-200:
            return 0.0
    return grain


def times(a: float, b: float) -> float:
    """The granularity of products: infinite, not NaN, where one factor is all zeros."""
    return np.inf if np.inf in (a, b) else a * b


def _granularity(values: Array) -> float:
    if not values.size:
        return np.inf
    if not np.all(np.isfinite(values)):
        return 0.0
    significand, exponent = np.frexp(values.astype(np.float64))
    integers = np.ldexp(significand, 53).astype(np.int64)
    return float(np.ldexp((integers & -integers).astype(np.float64), exponent - 53).min())


def largest_finite(array: Array) -> float:
    """The largest of non-negative numbers; those that are not finite are judged by class, not by radius."""
    largest = float(array.max(initial=0))
    return largest if np.isfinite(largest) else float(array.max(initial=0, where=np.isfinite(array)))
