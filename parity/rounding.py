"""Balls: values that carry beside them the most that rounding can move them.

A `Ball` is a midpoint and a radius per element. Its products with weights make a `Sum`: a sum that has not been rounded
yet, because nobody knows in which order the candidate adds it. Adding to a Sum adds terms; only an activation closes
it, and then the bound holds for any order of summation, with FMA or not, with the input projection separate or fused,
with subnormal numbers flushed to zero or not (in float16 they are not).

With u the unit roundoff of the candidate's storage, a that of its accumulation, N the number of non-zero terms of a
sum z, S the sum of their magnitudes (input radii included) and d their propagated radii,

    |computed z - z| <= d + E,    E = g S + underflow,    g = N (a + 2^-53) / (1 - N (a + 2^-53))

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1; the 2^-53 is this module's own rounding).
What is stored narrower than it is accumulated adds its roundings on top (`Arithmetic.stores`). Where every term and
every partial sum is a multiple of one power of two small enough, nothing rounds at all and E is the underflow alone.

Midpoints are float64. Magnitudes and radii are float32 where the candidate's range allows: they need two digits, not
sixteen, and are enlarged by more than that can lose.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rnn_scratch.activations import Activation
from rnn_scratch.cells import Cell

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

    @property
    def radii(self) -> type[np.floating[Any]]:
        """The type of magnitudes and radii: float32 would lose a float64's range."""
        return np.float64 if self.dtype == "float64" else np.float32


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

    def dot(self, W: "Array | Factor") -> "Sum":
        """The not yet rounded sums self @ W. W: (n, m) -> (rows, m)."""
        factor = W if isinstance(W, Factor) else Factor(W, self.arithmetic)
        magnitude = np.abs(self.mid.astype(self.arithmetic.radii))
        if not np.isfinite(magnitude.max(initial=0)):
            # infinity and NaN are judged by class; the finite terms beside them may overflow as well
            magnitude = np.where(np.isfinite(self.mid), np.abs(self.mid), 0)
        size = factor.bound(magnitude)
        terms = np.count_nonzero(magnitude, axis=-1, keepdims=True)
        spread = size * np.asarray(self.relative, size.dtype) if np.any(self.relative) else None
        if self.rad is not None:
            own = factor.bound(self.rad)
            spread = own if spread is None else spread + own
            terms = np.full_like(terms, magnitude.shape[-1])
        elif spread is not None:  # a state that is kept wider may be zero only as it is returned
            terms = np.where(self.relative, magnitude.shape[-1], terms)
        mid = self.mid.dot(factor.W)
        return Sum(
            mid,
            self.arithmetic,
            size=size if spread is None else size + spread,
            spread=spread,
            terms=np.minimum(narrow(terms), factor.terms),
            stored=np.abs(mid) if self.arithmetic.stores else None,
            scale=max(largest_finite(magnitude), factor.largest),
            grain=0.0 if spread is not None else self._grain(factor, float(size.max())),
            lost=None if self.may_overflow is None else np.asarray(self.may_overflow.any(axis=-1, keepdims=True)),
        )

    def _grain(self, factor: "Factor", size: float) -> float:
        """The power of two that divides every product; 0 where it cannot make sums of that size exact."""
        for part in (self.mid.ravel()[:64], self.mid):  # a few elements tell ordinary numbers from a lattice
            grain = times(granularity(part), factor.grain)
            if not size <= grain / self.arithmetic.accumulation:
                return 0.0
        return grain


class Factor:
    """A matrix of weights, (n, m) float64, and what products with it need to know, worked out once."""

    __array_ufunc__ = None

    def __init__(self, W: Array, arithmetic: Arithmetic) -> None:
        self.W, self.arithmetic = W, arithmetic

    @cached_property
    def T(self) -> "Factor":
        return Factor(self.W.T, self.arithmetic)

    @cached_property
    def magnitude(self) -> Array:
        # n + 4 roundings of the product: two casts, a multiplication and n additions, with one to spare
        enlarge = 1 + (len(self.W) + 4) * float(np.finfo(self.arithmetic.radii).eps)
        return np.asarray(np.abs(self.W) * enlarge, self.arithmetic.radii)

    @cached_property
    def terms(self) -> Array:
        return np.asarray(np.count_nonzero(self.W, axis=0))

    @cached_property
    def largest(self) -> float:
        return largest_finite(np.abs(self.W))

    @cached_property
    def grain(self) -> float:
        return granularity(self.W)

    def bound(self, magnitude: Array) -> Array:
        """magnitude @ |W|, or a little more. magnitude: (rows, n), not negative -> (rows, m)."""
        product = np.asarray(magnitude.astype(self.arithmetic.radii, copy=False).dot(self.magnitude))
        if np.isfinite(product.max(initial=0)):
            return product
        return np.asarray(magnitude.astype(np.float64).dot(self.magnitude.astype(np.float64)))  # beyond float32


def on_balls(cell: Cell, arithmetic: Arithmetic) -> Cell:
    """The cell in float64, its matrices as Factors: what `project` and `update` are called on to compute with balls."""
    lifted = cell.astype(np.float64)
    for name, array in lifted.weights.items():
        if array.ndim == 2:
            setattr(lifted, name, Factor(array, arithmetic))
    return lifted


@dataclass
class Sum:
    """A sum that nobody has rounded yet. All arrays are (rows, units).

    mid: its value. size: S, the sum of the terms' magnitudes. spread: d, the terms' own radii propagated, None for
    zero. terms: N, (1 or rows, units). stored: sum of |intermediate results| that the candidate may store, or None
    where that does not matter. scale: the largest finite factor (for underflow). grain: a power of two that divides
    every term, or 0. lost: (rows, 1), where a factor may have overflowed before it came here, or None for nowhere.
    """

    mid: Array
    arithmetic: Arithmetic
    size: Array
    spread: Array | None
    terms: NDArray[Any]
    stored: Array | None
    scale: float
    grain: float
    lost: NDArray[np.bool_] | None = None

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
            lost=other.lost if self.lost is None else self.lost if other.lost is None else self.lost | other.lost,
        )

    __radd__ = __add__

    def _constant(self, b: Array) -> Self:
        size = np.abs(b)
        return type(self)(
            b,
            self.arithmetic,
            size=np.asarray(size * (1 + 2**-23), self.size.dtype),
            spread=None,
            terms=(b != 0).astype(int),
            stored=size,
            scale=largest_finite(size),
            grain=granularity(b),
        )

    @property
    def rounding(self) -> Array:
        """E: the most that rounding can move the sum, for any order of its terms. (rows, units)."""
        a = self.arithmetic
        step = self.terms * (a.accumulation + REFERENCE_UNIT)
        lost = np.asarray(2 * self.terms * a.tiny * (2 + self.scale), self.size.dtype)
        error: Array = np.asarray(step / (1 - step), self.size.dtype) * self.size
        if self.grain and np.all(self.size <= self.grain / a.accumulation):
            error[...] = 0
        if self.stored is not None:
            kept = a.stores * a.unit
            spread = 0 if self.spread is None else self.spread
            error += kept * (1 + kept) * (self.stored.astype(error.dtype) + error + spread)
        error += lost
        return error

    def through(self, f: Activation) -> Ball:
        """f of the rounded sum: what rounding does before f, what f makes of that, and what f may itself be off by."""
        e, a = self.rounding, self.arithmetic
        if self.spread is not None:
            e += self.spread
        y = f.f(self.mid)
        size = np.abs(y.astype(e.dtype))
        rad = coupled_radius(self.mid, e, y, a) if f.couples_units else radius(f, self.mid, e, y, size, a)
        rad *= e.dtype.type(SLACK)
        if (
            self.lost is None
            and 1.001 * self.size.max() + e.max() <= a.largest
            and float(size.max()) + float(rad.max()) <= a.largest
        ):
            return Ball(y, a, rad)
        came_in = np.isinf(self.mid) & np.isfinite(self.size)  # infinite because a factor was: no overflow
        overflows = (1.001 * self.size.astype(np.float64) + e > a.largest) | ((np.abs(y) + rad > a.largest) & ~came_in)
        overflows |= False if self.lost is None else self.lost
        if f.couples_units:
            overflows |= overflows.any(axis=-1, keepdims=True)
        return Ball(y, a, np.where(np.isinf(e), np.inf, rad), may_overflow=overflows)


SLACK = 1 + 2.0**-18
"""More than the roundings of a radius itself, when it is computed in float32."""


def radius(f: Activation, z: Array, e: Array, y: Array, size: Array, a: Arithmetic) -> Array:
    """The most by which a correct f of something within e of z differs from y, this process's f(z). size: |y|."""
    moved = reach(f, z, e, y)
    if not moved.max() <= (f.high - f.low) / 2:  # below that, no end of the range is nearer
        moved = np.fmin(moved, np.maximum(y - f.low, f.high - y)).astype(e.dtype)
    # see rnn_scratch.activations; FUNCTION_ERROR is relative to |y|, at most twice its binade
    ulps = f.ulps64 if f.ulps64 is not None and a.dtype == "float64" else f.ulps
    own = binade(size + moved)
    own *= e.dtype.type(2 * (ulps * a.unit + FUNCTION_ERROR))
    own += e.dtype.type(f.absolute * a.unit + a.tiny)
    own += moved
    if f.linear:
        own += e.dtype.type(f.linear * a.unit) * (np.abs(z).astype(e.dtype) + e)
    return own


def reach(f: Activation, z: Array, e: Array, y: Array) -> Array:
    """The most that f moves away from y = f(z) for arguments within e of z."""
    if f.slope_at is not None:
        # |f(z + t) - f(z)| <= |t| (|f'(z)| + |t| sup|f''| / 2); the constant is for f' of a rounded y
        quick = np.asarray(e * np.minimum(f.slope_at(y.astype(e.dtype)) + 2.0**-20 + f.bend / 2 * e, f.slope))
        if e.max() < 2.0**-8:
            return quick  # wider, the second derivative alone would make a saturated unit uncertain
        return np.asarray(np.fmin(quick, at_the_ends(f, z, e, y)), e.dtype)
    moved = at_the_ends(f, z, e, y)
    for turn in f.turns:
        extreme = np.abs(f.f(np.array([turn])) - y)
        moved = np.where(np.abs(z - turn) <= e, np.maximum(moved, extreme), moved)
    return np.asarray(np.minimum(moved, f.slope * e) if np.isfinite(f.slope) else moved, e.dtype)


def at_the_ends(f: Activation, z: Array, e: Array, y: Array) -> Array:
    """How far f is from y at z - e and z + e, which are rounded outwards."""
    high, low = np.nextafter(z + e, np.inf), np.nextafter(z - e, -np.inf)
    return np.asarray(np.maximum(np.abs(f.f(high) - y), np.abs(f.f(low) - y)))


def coupled_radius(z: Array, e: Array, y: Array, a: Arithmetic) -> Array:
    """`radius` for softmax, which couples the units of the last axis."""
    moved = coupled_reach(z, e, y)
    return np.asarray(moved + coupled_allowance(z, e, y + moved, a), e.dtype)


def coupled_reach(z: Array, e: Array, y: Array) -> Array:
    """`reach` for softmax over the last axis: an output is largest with its own argument high and the others low."""
    z = z - z.max(axis=-1, keepdims=True)
    most = 1 / (1 + np.exp(others(z - e) - (z + e)))
    least = 1 / (1 + np.exp(others(z + e) - (z - e)))
    return np.asarray(np.maximum(most - y, y - least) + FUNCTION_ERROR)


def others(z: Array) -> Array:
    """The logarithm of the sum of exp(z) over the last axis without the element itself. Subtracting it would cancel."""
    none = np.full_like(z[..., :1], -np.inf)
    before = np.logaddexp.accumulate(z, axis=-1)[..., :-1]
    after = np.logaddexp.accumulate(z[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    return np.asarray(np.logaddexp(np.concatenate([none, before], axis=-1), np.concatenate([after, none], axis=-1)))


def coupled_allowance(z: Array, e: Array, y: Array, a: Arithmetic) -> Array:
    """Softmax's own error at outputs up to y: its exponentials', the sum's of n and the division's, relative to y."""
    below = np.abs(z - z.max(axis=-1, keepdims=True))
    far, wide = below.max(axis=-1, keepdims=True), e.max(axis=-1, keepdims=True)
    return np.asarray(y * a.unit * (2 * (below + e + wide) + far + 2 * wide + z.shape[-1] + 14) + a.tiny)


def binade(y: Array) -> Array:
    """The largest power of two not above each y, which is not negative; 0 for subnormal ones. Of the type of y."""
    exponent = np.int32(0x7F800000) if y.dtype == np.float32 else np.int64(0x7FF0000000000000)
    bits: Array = np.ascontiguousarray(y).view(exponent.dtype)
    power: Array = (bits & exponent).view(y.dtype)
    return power


def narrow(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """(rows, 1), or (1, 1) where all rows count the same, so that what is made of it stays small."""
    return counts[:1] if counts.min(initial=counts[0, 0]) == counts.max(initial=0) else counts


def granularity(array: Array) -> float:
    """The largest power of two that divides every element: infinity for zeros, 0 where one is not finite."""
    values = array[array != 0].astype(np.float64)
    if not values.size:
        return np.inf
    if not np.isfinite(values).all():
        return 0.0
    significand, exponent = np.frexp(values)
    integers = np.ldexp(significand, 53).astype(np.int64)
    return float(np.ldexp((integers & -integers).astype(np.float64), exponent - 53).min())


def times(a: float, b: float) -> float:
    """The granularity of products: infinite, not NaN, where one factor is all zeros."""
    return np.inf if np.inf in (a, b) else a * b


def largest_finite(array: Array) -> float:
    """The largest of non-negative numbers; those that are not finite are judged by class, not by radius."""
    largest = float(array.max(initial=0))
    return largest if np.isfinite(largest) else float(array.max(initial=0, where=np.isfinite(array)))
