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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rnn_scratch.activations import Activation, get
from rnn_scratch.layers import Layer

Array = NDArray[Any]
REFERENCE_UNIT = 2.0**-53
FUNCTION_ERROR = 8 * REFERENCE_UNIT
"""Relative error granted to this process's own float64 activations."""


@dataclass(frozen=True)
class Arithmetic:
    """What a verdict assumes of the candidate's arithmetic.

    unit: roundoff of storage, u. accumulation: roundoff inside a sum. stores: roundings to storage on the longest path
    from a product to the activation, 0 where sums are kept in storage precision (then g counts them). tiny: the
    smallest magnitude that must survive, an absolute error of any operation. largest: the end of the range. inputs:
    what rounding the factors of a product may be off by, relative; 0 where they are used as they are.
    """

    dtype: str
    unit: float
    accumulation: float
    stores: int
    tiny: float
    largest: float
    inputs: float = 0.0

    @property
    def radii(self) -> type[np.floating[Any]]:
        """The type of magnitudes and radii: float32 would lose a float64's range."""
        return np.float64 if self.dtype == "float64" else np.float32

    def settled(self, mid: Array, rad: Array, may_overflow: NDArray[np.bool_] | None = None) -> "Ball":
        """What an operation leaves of a value that it has rounded: here, where it may lie."""
        return Ball(mid, self, rad, may_overflow=may_overflow)

    @property
    def flushed(self) -> float:
        """Below which some processor takes numbers for zero; float16's subnormal ones are read by all."""
        return self.tiny if self.tiny < 2.0**-100 else 0.0

    def to(self, dtype: Any) -> "Arithmetic":
        """That of another dtype."""
        return ARITHMETIC[np.dtype(dtype).name]


ARITHMETIC = {
    "float16": Arithmetic("float16", 2.0**-11, 2.0**-24, 3, 2.0**-24, 65504.0),
    "float32": Arithmetic("float32", 2.0**-24, 2.0**-24, 0, 2.0**-126, float(np.finfo(np.float32).max)),
    "float64": Arithmetic("float64", 2.0**-53, 2.0**-53, 0, 2.0**-1022, float(np.finfo(np.float64).max)),
    "bfloat16": Arithmetic("bfloat16", 2.0**-8, 2.0**-24, 3, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
}

NARROWER = {
    "TF32 products": replace(ARITHMETIC["float32"], inputs=2.0**-10),
    "float16": replace(ARITHMETIC["float16"], dtype="float32", inputs=2.0**-11),
    "bfloat16": replace(ARITHMETIC["bfloat16"], dtype="float32", inputs=2.0**-8),
}
"""What a float32 candidate may have computed in instead, its weights and inputs rounded on the way. TF32 truncates."""


class Shaken(Arithmetic):
    """An arithmetic in which every rounding is replaced by the largest allowed one, up or down, in copies of a run.

    The first `batch` rows stay the reference. In half of the other copies the signs are random. The others keep each
    unit's sign for good (the first two all alike): what accumulates drifts coherently, and random signs would grant it
    too little.
    """

    def __init__(self, arithmetic: Arithmetic, run: "Run") -> None:
        vars(self).update(vars(arithmetic), run=run)

    def settled(self, mid: Array, rad: Array, may_overflow: NDArray[np.bool_] | None = None) -> "Ball":
        run: Run = vars(self)["run"]
        if may_overflow is not None:
            rows = run.batch if len(mid) % (run.copies * run.batch) == 0 else 1  # some rows of each copy
            run.lost |= np.broadcast_to(may_overflow, mid.shape).reshape(run.copies, rows, -1).any(axis=(0, 2))
        signs = run.signs(mid.shape)
        # not just the product: the reference stays itself where a radius is infinite
        return Ball(mid + np.where(signs == 0, 0, signs * rad), self)

    def to(self, dtype: Any) -> Arithmetic:
        return Shaken(super().to(dtype), vars(self)["run"])


class Run:
    """The signs of one such run, and where something may have overflowed in it. copies >= 3 of `batch` rows each."""

    def __init__(self, copies: int, batch: int, rng: np.random.Generator) -> None:
        self.copies, self.batch, self.rng = copies, batch, rng
        self.lost = np.zeros(batch, bool)
        self._fixed: dict[int, Array] = {}

    def signs(self, shape: tuple[int, ...]) -> Array:
        """-1, 0 or 1. shape: (copies * batch, ..., n), or of some rows of each copy."""
        n, half = shape[-1], self.copies // 2 + 1
        if n not in self._fixed:
            fixed = self.rng.choice([-1.0, 1.0], (half, n))
            fixed[0], fixed[1], fixed[2] = 0, 1, -1
            self._fixed[n] = fixed
        signs = np.empty((self.copies, shape[0] // self.copies, *shape[1:]))
        signs[:half] = self._fixed[n].reshape(half, *[1] * (len(shape) - 1), n)
        signs[half:] = self.rng.integers(0, 2, (self.copies - half, *signs.shape[1:])) * 2.0 - 1
        return signs.reshape(shape)


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

    # --- what a layer's equations are made of ---

    def __mul__(self, other: "Operand") -> "Ball":
        """The rounded product; with a power of two it is exact but for underflow."""
        if _is_number(other) and _is_power_of_two(float(other)):
            return self._scaled(float(other))
        other = self._operand(other)
        a, (d_a, d_b), m_a, m_b = self.arithmetic, (self.radius, other.radius), np.abs(self.mid), np.abs(other.mid)
        size = (m_a + d_a) * (m_b + d_b)
        spread = m_a * d_b + m_b * d_a + d_a * d_b
        lost = a.tiny * (1 + largest_finite(m_a) + largest_finite(m_b))
        return self._settled(self.mid * other.mid, spread + (a.unit + REFERENCE_UNIT) * size + lost, size, other)

    __rmul__ = __mul__

    def _scaled(self, factor: float) -> "Ball":
        """Times a power of two, or zero."""
        rad = abs(factor) * self.radius + self.arithmetic.tiny * (1 + abs(factor))
        rad = rad.astype(self.arithmetic.radii)
        mid = factor * self.mid
        overflow = self.may_overflow
        if not largest_finite(np.abs(mid)) + largest_finite(rad) <= self.arithmetic.largest:
            overflow = _merged(overflow, (np.abs(mid) + rad > self.arithmetic.largest) & np.isfinite(mid))
        return Ball(mid, self.arithmetic, rad, may_overflow=overflow)

    def __add__(self, other: "Operand") -> Any:
        """The rounded sum of two rounded values; with a sum that is not rounded yet it is one more term."""
        if isinstance(other, Sum):
            return other + self
        other = self._operand(other)
        spread = self._as_read() + other._as_read()
        mid = self.mid + other.mid
        size = np.abs(mid) + spread
        a = self.arithmetic
        return self._settled(mid, spread + (a.unit + REFERENCE_UNIT) * size + a.tiny, size, other)

    __radd__ = __add__

    def _as_read(self) -> Array:
        """The radius, and how far a processor without subnormal numbers moves what it reads."""
        return self.radius + self.arithmetic.flushed

    def __neg__(self) -> "Ball":
        return self._like(-self.mid, self.rad, self.relative)

    def __sub__(self, other: "Operand") -> Any:
        return self + -self._operand(other)

    def __rsub__(self, other: "Operand") -> Any:
        return -self + self._operand(other)

    def __truediv__(self, other: "Operand") -> "Ball":
        """The quotient, rounded twice: some multiply by a rounded reciprocal."""
        other, a = self._operand(other), self.arithmetic
        m_a, m_b, d_a, d_b = np.abs(self.mid), np.abs(other.mid), self._as_read(), other._as_read()
        least = np.maximum(m_b - d_b, 0)
        size = np.where(least > 0, (m_a + d_a) / least, np.inf)
        spread = np.where(least > 0, (d_a + m_a / m_b * d_b) / least, np.inf)
        own = a.unit * (2 + a.unit) + REFERENCE_UNIT
        quotient = self._settled(self.mid / other.mid, spread + own * size + a.tiny, size, other)
        certain = (other.mid == 0) & (other.radius == 0) & (m_a > d_a)  # infinite whoever divides
        unsure = (least == 0) & ~certain
        quotient.may_overflow = _merged(quotient.may_overflow, unsure) if unsure.any() else quotient.may_overflow
        return quotient

    def __rtruediv__(self, other: "Operand") -> "Ball":
        return self._operand(other) / self

    def sqrt(self) -> "Ball":
        """The square root, rounded twice: some take the reciprocal of a reciprocal root."""
        a, mid = self.arithmetic, np.sqrt(self.mid)
        d = self._as_read()
        most, least = np.sqrt(np.abs(self.mid) + d), np.sqrt(np.maximum(self.mid - d, 0))
        spread = np.maximum(most - mid, mid - least)
        own = a.unit * (2 + a.unit) + REFERENCE_UNIT
        root = self._settled(mid, spread + own * most + a.tiny, most)
        negative = (self.mid < self.radius) & (self.radius > 0)
        root.may_overflow = _merged(root.may_overflow, negative) if negative.any() else root.may_overflow
        return root

    def _operand(self, other: "Operand") -> "Ball":
        """The other operand as a ball; numbers and arrays as this arithmetic holds them."""
        if isinstance(other, Ball):
            return other
        if isinstance(other, Sum):
            return other.closed()
        if not isinstance(other, np.ndarray) and not _is_number(other):
            raise _refused("ball", other)
        values = np.asarray(other)
        if values.dtype.kind not in "biuf":
            raise _refused("ball", other)
        return held(values.astype(np.float64), self.arithmetic)

    def contains(self, values: Array) -> NDArray[np.bool_]:
        """Where values are inside, or the same infinity, or NaN where the midpoint is."""
        values = np.asarray(values).astype(np.float64)
        alike = (values == self.mid) | (np.isnan(values) & np.isnan(self.mid))
        return np.asarray(alike | (np.abs(values - self.mid) <= self.radius))

    def __repr__(self) -> str:
        pairs = [f"{mid:.6g} ± {rad:.3g}" for mid, rad in zip(self.mid.flat, self.radius.flat, strict=True)]
        shown = np.array2string(
            np.array(pairs, object).reshape(self.shape),
            separator=", ",
            threshold=20,
            edgeitems=2,
            formatter={"object": str},
        )
        return f"Ball({shown}, {self.arithmetic.dtype})"

    def blend(self, a: "Ball", b: "Ball") -> "Ball":
        """z a + (1 - z) b for z = self, or b + z (a - b), which is the same but for rounding; z moves both alike."""
        z, d_z, d_a, d_b, u = np.abs(self.mid), self.radius, a.radius, b.radius, self.arithmetic.unit + REFERENCE_UNIT
        most_a, most_b = np.abs(a.mid) + d_a, np.abs(b.mid) + d_b
        moved = (z + d_z) * d_a + (np.abs(1 - self.mid) + d_z) * d_b + np.abs(a.mid - b.mid) * d_z
        # three roundings of each product and one of b itself; |1 - z| counts beside z for gates not within [0, 1]
        size = (z + d_z) * (most_a + most_b) + most_b
        lost = 3 * self.arithmetic.tiny * (1 + largest_finite(most_a) + largest_finite(most_b) + largest_finite(z))
        mid = self.mid * a.mid + (1 - self.mid) * b.mid
        return self._settled(mid, moved + 3 * u * size + lost, size, a, b)

    def through(self, f: Activation) -> "Ball":
        """f of these values, off by what f may be off by."""
        return activated(f, self.mid, self.radius.astype(self.arithmetic.radii), self, self.may_overflow)

    def _settled(self, mid: Array, rad: Array, size: Array, *others: "Ball") -> "Ball":
        """The result of an operation with those; size bounds what it computes on the way."""
        rad = rad.astype(self.arithmetic.radii) * self.arithmetic.radii(SLACK)
        overflow = _either(self, *others)
        if not float(size.max(initial=0)) * 1.001 <= self.arithmetic.largest:
            beyond = (1.001 * size > self.arithmetic.largest) & np.isfinite(mid)
            overflow = _merged(overflow, beyond)
        return self.arithmetic.settled(mid, rad, overflow)

    def _like(self, mid: Array, rad: Array | None, relative: Any) -> "Ball":
        return Ball(mid, self.arithmetic, rad, relative, self.may_overflow)

    # --- what arrays have, so that layers need not know ---

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.arithmetic.dtype)

    def astype(self, dtype: Any) -> "Ball":
        """In another arithmetic; a narrower one rounds."""
        to = self.arithmetic.to(dtype)
        rad = self.radius + (to.unit * np.abs(self.mid) + to.tiny if to.unit > self.arithmetic.unit else 0)
        return Ball(self.mid, to, np.asarray(rad, to.radii), may_overflow=self.may_overflow)

    def reshape(self, *shape: int) -> "Ball":
        return self._each(lambda array: array.reshape(*shape))

    def __getitem__(self, index: Any) -> "Ball":
        return self._each(lambda array: array[index])

    def _each(self, change: Callable[[Array], Array]) -> "Ball":
        alike = np.ndim(self.relative) == 0
        rad, relative = (self.rad, self.relative) if alike else (self.radius, 0.0)
        overflow = None if self.may_overflow is None else change(np.broadcast_to(self.may_overflow, self.shape))
        rad = None if rad is None else change(rad)
        return Ball(change(self.mid), self.arithmetic, rad, relative, overflow)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """np.where, np.stack, np.concatenate and np.zeros_like of balls, which are balls."""
        if function is np.zeros_like:
            return Ball(np.zeros_like(self.mid), self.arithmetic)
        if function is np.where:
            keep, *parts = args
            return joined(lambda arrays: np.where(keep, *arrays), parts)
        if function in (np.stack, np.concatenate):
            return joined(lambda arrays: function(arrays, **kwargs), args[0])
        return NotImplemented

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
        if self.arithmetic.inputs:  # both factors of each product are rounded
            own = size * size.dtype.type(2.001 * self.arithmetic.inputs)
            spread = own if spread is None else spread + own
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

    @property
    def shape(self) -> tuple[int, ...]:
        return self.W.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.arithmetic.dtype)

    @cached_property
    def T(self) -> "Factor":
        return Factor(self.W.T, self.arithmetic)

    def __getitem__(self, rows: slice) -> "Factor":
        """Some of the rows; the same ones again are worked out once."""
        key = rows.start, rows.stop
        if key not in self._parts:
            self._parts[key] = Factor(self.W[rows], self.arithmetic)
        return self._parts[key]

    @cached_property
    def _parts(self) -> "dict[tuple[int | None, int | None], Factor]":
        return {}

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


def on_balls(layer: Layer, arithmetic: Arithmetic | None = None) -> Layer:
    """The layer in float64, its matrices as Factors: what `forward` is called on to compute with balls. In the
    arithmetic of each layer's own dtype if none is given."""

    def lifted(layer: Layer, name: str, array: Array) -> Any:
        own = arithmetic or ARITHMETIC[array.dtype.name]
        wide = array.astype(np.float64)
        if name in layer.matrices:
            return Factor(wide, own)
        return Ball(wide, own) if name in layer.tables else wide

    return layer.mapped(lifted)


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
        elif isinstance(other, Ball):
            other = self._rounded(other)
        elif not isinstance(other, Sum):
            raise TypeError(f"sum + {type(other).__name__}: to a sum balls, sums and arrays can be added")
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

    def closed(self) -> Ball:
        """The sum, rounded."""
        return self.through(_LINEAR)

    def _rounded(self, ball: Ball) -> Self:
        """One more term, which has been rounded before it is added."""
        rad = ball.radius
        size = np.abs(ball.mid)
        return type(self)(
            ball.mid,
            self.arithmetic,
            size=np.asarray((size + rad) * (1 + 2**-23), self.size.dtype),
            spread=np.asarray(rad, self.size.dtype),
            terms=np.ones((1,) * ball.mid.ndim, int),
            stored=size,
            scale=largest_finite(size),
            grain=0.0,
            lost=ball.may_overflow,
        )

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

    def __getitem__(self, index: Any) -> Self:
        """Some of the units."""

        def part(array: Any) -> Any:
            return None if array is None else np.broadcast_to(array, self.mid.shape)[index]

        return replace(
            self,
            mid=part(self.mid),
            size=part(self.size),
            spread=part(self.spread),
            terms=part(self.terms),
            stored=part(self.stored),
            lost=None if self.lost is None else np.broadcast_to(self.lost, self.mid.shape)[index],
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
        e = self.rounding
        if self.spread is not None:
            e += self.spread
        return activated(f, self.mid, e, self, self.lost)


Operand = Ball | Sum | Array | float
"""What a ball can be combined with."""


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int | np.floating | np.integer)


def _is_power_of_two(value: float) -> bool:
    """Or zero: a product with it is never rounded."""
    return abs(math.frexp(value)[0]) in (0.0, 0.5)


def _refused(what: str, other: object) -> TypeError:
    received = f"an array of {other.dtype}" if isinstance(other, np.ndarray) else type(other).__name__
    return TypeError(
        f"{what}: it can be combined with balls, sums, arrays of real numbers and real numbers; received {received}"
    )


def held(values: Array, arithmetic: Arithmetic) -> Ball:
    """Numbers as a candidate holds them: exactly where its precision has them, else rounded."""
    significand, _ = np.frexp(values)
    digits = significand / arithmetic.unit
    rounded = digits != np.rint(digits)
    size = np.abs(values)
    rad = np.where(rounded, arithmetic.unit * size, 0).astype(arithmetic.radii) * SLACK if rounded.any() else None
    beyond = (size > arithmetic.largest) & np.isfinite(values)
    return Ball(values, arithmetic, rad, may_overflow=beyond if beyond.any() else None)


def _merged(overflow: NDArray[np.bool_] | None, beyond: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return beyond if overflow is None else overflow | beyond


def activated(f: Activation, z: Array, e: Array, of: Sum | Ball, lost: NDArray[np.bool_] | None) -> Ball:
    """f of something within e of z; lost: where that may have overflowed before."""
    a = of.arithmetic
    y = f.f(z)
    size = np.abs(y.astype(e.dtype))
    rad = coupled_radius(z, e, y, a) if f.couples_units else radius(f, z, e, y, size, a)
    rad *= e.dtype.type(SLACK)
    terms = of.size if isinstance(of, Sum) else np.abs(z)
    if (
        lost is None
        and 1.001 * terms.max(initial=0) + e.max(initial=0) <= a.largest
        and float(size.max(initial=0)) + float(rad.max(initial=0)) <= a.largest
    ):
        return a.settled(y, rad)
    came_in = np.isinf(z) & np.isfinite(of.size) if isinstance(of, Sum) else np.isinf(z)  # because a factor was
    overflows = np.asarray(1.001 * terms.astype(np.float64) + e > a.largest)
    if isinstance(of, Ball):
        overflows &= ~came_in
    overflows |= (np.abs(y) + rad > a.largest) & ~came_in
    overflows |= False if lost is None else lost
    if f.couples_units:
        overflows |= overflows.any(axis=-1, keepdims=True)
    return a.settled(y, np.where(np.isinf(e), np.inf, rad), overflows)


def joined(join: Callable[[list[Array]], Array], parts: Sequence[Any]) -> Ball:
    """Several balls joined into one by a function of arrays."""
    balls = [part for part in parts if isinstance(part, Ball)]
    arithmetic = balls[0].arithmetic
    like = balls[0].mid
    every = [part if isinstance(part, Ball) else Ball(np.full_like(like, part), arithmetic) for part in parts]
    rad = join(
        [np.zeros(b.shape, arithmetic.radii) if b.rad is None and not np.any(b.relative) else b.radius for b in every]
    )
    overflow = None
    if any(ball.may_overflow is not None for ball in every):
        overflow = join(
            [
                np.zeros(b.shape, bool) if b.may_overflow is None else np.broadcast_to(b.may_overflow, b.shape)
                for b in every
            ]
        )
    return Ball(join([ball.mid for ball in every]), arithmetic, rad, may_overflow=overflow)


def _either(*balls: Ball) -> NDArray[np.bool_] | None:
    """Where one of them may overflow."""
    found = [ball.may_overflow for ball in balls if ball.may_overflow is not None]
    return np.logical_or.reduce(np.broadcast_arrays(*found)) if found else None


_LINEAR = get("linear")

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
