"""Balls: values that carry beside them the most that rounding can move them.

A `Ball` is a midpoint and a radius per element. Its products with weights make a `Sum`: a sum that has not been rounded
yet, because nobody knows in which order the candidate adds it. Adding to a Sum adds terms; only an activation closes
it, and then the bound holds for any order of summation, with FMA or not, with the input projection separate or fused,
with subnormal numbers flushed to zero or not (in float16 they are not). What each rounding may be off by, the
`Arithmetic` says.

Midpoints are float64. Magnitudes and radii are float32 where the candidate's range allows: they need two digits, not
sixteen, and are enlarged by more than that can lose.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parity.rounding import magnitudes, operations
from parity.rounding.arithmetic import SLACK, Arithmetic, chosen
from parity.rounding.factors import Factor
from parity.rounding.functions import activated
from parity.rounding.magnitudes import is_number, is_power_of_two
from parity.rounding.operations import Bounds
from parity.rounding.perturbed import Flags
from parity.rounding.terms import Made, Terms, merged
from rnn_scratch.activations import Activation, get
from rnn_scratch.base import Layer, Values

Array = NDArray[Any]


class Ball:
    """Values known to lie within a radius of a midpoint: |value - mid| <= rad + relative |mid|.

    mid: (rows, n) float64. rad: the same shape, or None for zero. relative: a number or (rows, 1), for states that a
    candidate may keep wider than it returns them. may_overflow: where some order of the sums leaves the candidate's
    range, or None for nowhere. made: of what, for the neighbour that may be folded into it.

    An operation contains what any correct arithmetic makes of any of the values inside. One that has no rule here
    raises TypeError.
    """

    __array_ufunc__ = None  # NumPy arrays leave `array + ball` to the ball

    def __init__(
        self,
        mid: Array,
        arithmetic: Arithmetic,
        rad: Array | None = None,
        relative: Array | float = 0.0,
        may_overflow: Flags | None = None,
        made: Made | None = None,
    ) -> None:
        self.mid, self.arithmetic = mid, arithmetic
        self.rad, self.relative = rad, relative
        self.may_overflow, self.made = may_overflow, made

    @property
    def _kept_wider(self) -> bool:
        """Whether some of the values have a relative radius."""
        relative = self.relative
        return bool(relative) if isinstance(relative, float) else bool(relative.any())

    @property
    def radius(self) -> Array:
        if self.rad is not None and not self._kept_wider:
            return self.rad
        radius: Array = self.relative * np.abs(self.mid)
        return radius if self.rad is None else radius + self.rad

    def contains(self, values: Array) -> Flags:
        """Where values are inside, or the same infinity, or NaN where the midpoint is."""
        values = np.asarray(values).astype(np.float64)
        alike = (values == self.mid) | (np.isnan(values) & np.isnan(self.mid))
        return np.asarray(alike | (np.abs(values - self.mid) <= self.radius))

    def __repr__(self) -> str:
        radii = np.broadcast_to(self.radius, self.shape)
        pairs = [f"{mid:.6g} ± {rad:.3g}" for mid, rad in zip(self.mid.flat, radii.flat, strict=True)]
        shown = np.array2string(
            np.array(pairs, object).reshape(self.shape),
            separator=", ",
            threshold=20,
            edgeitems=2,
            formatter={"object": str},
        )
        return f"Ball({shown}, {self.arithmetic.dtype})"

    # --- what a layer's equations are made of ---

    def __add__(self, other: "Operand") -> Any:
        """The rounded sum; with a sum that nobody has rounded yet, one more term of that."""
        if isinstance(other, Sum):
            return other + self
        other = self._operand(other)
        return self._rounded(operations.total(self, other, self.arithmetic), other)

    __radd__ = __add__

    def __neg__(self) -> "Ball":
        return Ball(-self.mid, self.arithmetic, self.rad, self.relative, self.may_overflow)

    def __sub__(self, other: "Operand") -> Any:
        return self + -self._operand(other)

    def __rsub__(self, other: "Operand") -> Any:
        return -self + self._operand(other)

    def __mul__(self, other: "Operand") -> "Ball":
        """The rounded product; with a power of two it is exact but for underflow."""
        if is_number(other) and is_power_of_two(float(other)):
            return self._scaled(float(other))
        other = self._operand(other)
        return self._rounded(operations.product(self, other, self.arithmetic), other)

    __rmul__ = __mul__

    def _scaled(self, factor: float) -> "Ball":
        """Times a power of two, or zero."""
        arithmetic, mid = self.arithmetic, factor * self.mid
        rad = abs(factor) * self.radius + arithmetic.scaling_error(factor)
        overflow = merged(self.may_overflow, _beyond(np.abs(mid) + rad, mid, arithmetic))
        return Ball(mid, arithmetic, rad.astype(arithmetic.radii), may_overflow=overflow)

    def __truediv__(self, other: "Operand") -> "Ball":
        """The quotient. Of what may be divided by zero nobody can tell."""
        other = self._operand(other)
        result = self._rounded(operations.quotient(self, other, self.arithmetic), other)
        return result._or_lost(operations.may_divide_by_zero(self, other, self.arithmetic))

    def __rtruediv__(self, other: "Operand") -> "Ball":
        return self._operand(other) / self

    def sqrt(self) -> "Ball":
        """The square root. Of what may be negative nobody can tell."""
        result = self._rounded(operations.root(self, self.arithmetic))
        return result._or_lost((self.mid < self.radius) & (self.radius > 0))

    def blend(self, a: "Ball", b: "Ball") -> "Ball":
        """z a + (1 - z) b for z = self, in either form."""
        return self._rounded(operations.blended(self, a, b, self.arithmetic), a, b)

    def normalized(self, gamma: "Ball", beta: "Ball", mean: "Ball", variance: "Ball", epsilon: float) -> "Ball":
        """gamma (x - mean) / sqrt(variance + epsilon) + beta for x = self, in any form: one factor and one constant, or
        these folded into the sums that x is, or as they may be folded into the sums that are made of it."""
        factor = gamma / (variance + epsilon).sqrt()
        summed = self.made if self.made is not None and not self.made.normalized else None
        bounds, made = operations.normalized(self, factor, mean, beta, self.arithmetic, summed)
        result = self._rounded(bounds, factor)
        result.made = made
        return result

    def through(self, f: Activation) -> "Ball":
        """f of these values, off by what f may be off by."""
        e = self.radius.astype(self.arithmetic.radii)
        mid, rad, overflow = activated(f, self.mid, e, self.arithmetic, lost=self.may_overflow)
        return Ball(mid, self.arithmetic, rad, may_overflow=overflow)

    def _operand(self, other: "Operand") -> "Ball":
        """The other operand as a ball; numbers and arrays as this arithmetic holds them."""
        if isinstance(other, Ball):
            return other
        if isinstance(other, Sum):
            return other.closed()
        kind = np.asarray(other).dtype.kind if is_number(other) or isinstance(other, np.ndarray) else "?"
        if kind not in "biuf":
            raise TypeError(
                "ball: it can be combined with balls, sums, arrays of real numbers and real numbers; "
                f"received {_described(other)}"
            )
        values = np.asarray(other, np.float64)
        rad = self.arithmetic.held_error(values)
        return Ball(values, self.arithmetic, rad, may_overflow=_beyond(np.abs(values), values, self.arithmetic))

    def _rounded(self, bounds: Bounds, *others: "Ball") -> "Ball":
        """The result of an operation with those."""
        mid, rad, size = bounds
        arithmetic = next((b.arithmetic for b in (self, *others) if b.arithmetic.run), self.arithmetic)
        rad = rad.astype(arithmetic.radii) * arithmetic.radii(SLACK)
        overflow = _beyond(size, mid, arithmetic, 1.001)
        for ball in (self, *others):
            overflow = merged(overflow, ball.may_overflow)
        mid, settled, overflow = arithmetic.settled(mid, rad, overflow)
        return Ball(mid, arithmetic, settled, may_overflow=overflow)

    def _or_lost(self, lost: Flags) -> "Ball":
        """The same, where nobody can tell of some."""
        if lost.any():
            self.may_overflow = merged(self.may_overflow, lost)
        return self

    # --- what arrays have, so that layers need not know ---

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.arithmetic.dtype)

    def astype(self, dtype: DTypeLike) -> "Ball":
        """In another arithmetic; a narrower one rounds."""
        to = self.arithmetic.to(dtype)
        rad = self.radius + to.cast_error(self.mid, self.arithmetic)
        return Ball(self.mid, to, np.asarray(rad, to.radii), may_overflow=self.may_overflow, made=self.made)

    def reshape(self, *shape: int) -> "Ball":
        return self._each(lambda array: array.reshape(*shape))

    def __getitem__(self, index: Any) -> "Ball":
        return self._each(lambda array: array[index])

    def _each(self, change: Callable[[Array], Array]) -> "Ball":
        alike = np.ndim(self.relative) == 0
        rad, relative = (self.rad, self.relative) if alike else (self.radius, 0.0)
        overflow = None if self.may_overflow is None else change(np.broadcast_to(self.may_overflow, self.shape))
        rad = None if rad is None else change(rad)
        made = None if self.made is None else self.made.changed(change, self.shape)
        return Ball(change(self.mid), self.arithmetic, rad, relative, overflow, made)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """np.where, np.stack, np.concatenate and np.zeros_like of balls, which are balls."""
        if function is np.zeros_like:
            return Ball(np.zeros_like(self.mid), self.arithmetic)
        if function is np.where:
            keep, *parts = args
            return _joined(lambda arrays: np.where(keep, *arrays), parts)
        if function in (np.stack, np.concatenate):
            return _joined(lambda arrays: function(arrays, **kwargs), args[0])
        return NotImplemented

    # --- products with matrices ---

    def dot(self, W: "Array | Factor") -> "Sum":
        """The not yet rounded sums self @ W. W: (n, m) -> (rows, m)."""
        arithmetic = self.arithmetic
        factor = W if isinstance(W, Factor) else Factor(W, arithmetic.dtype, arithmetic.radii)
        magnitude = self._magnitude()
        size = factor.bound(magnitude)
        spread = self._spread(size, magnitude, factor)
        mid = self.mid.dot(factor.W)
        total = Sum(
            mid,
            arithmetic,
            size=size if spread is None else size + spread,
            spread=spread,
            terms=np.minimum(magnitudes.narrow(self._terms(magnitude)), factor.terms),
            stored=np.abs(mid) if arithmetic.stores else None,
            scale=max(magnitudes.largest_finite(magnitude), factor.largest),
            grain=0.0 if spread is not None else self._grain(factor, float(size.max())),
            lost=None if self.may_overflow is None else np.asarray(self.may_overflow.any(axis=-1, keepdims=True)),
        )
        if self.made is None or not self.made.normalized:
            return total
        return total.folded(factor.bound(self.made.size), self.made.scale)

    def _magnitude(self) -> Array:
        magnitude = np.abs(self.mid.astype(self.arithmetic.radii))
        if np.isfinite(magnitude.max(initial=0)):
            return magnitude
        # infinity and NaN are judged by class; the finite terms beside them may overflow as well
        return np.where(np.isfinite(self.mid), np.abs(self.mid), 0)

    def _spread(self, size: Array, magnitude: Array, factor: Factor) -> Array | None:
        """What the factors' own radii come to in sums of that size; None for nothing."""
        parts = []
        if self._kept_wider:
            parts.append(size * np.asarray(self.relative, size.dtype))
        if self.rad is not None:
            parts.append(factor.bound(self.rad))
        own = self.arithmetic.inputs_error(size, magnitude, factor)
        if own is not None:
            parts.append(own)
        return sum(parts[1:], parts[0]) if parts else None

    def _terms(self, magnitude: Array) -> NDArray[np.intp]:
        """How many products of each row are not zero for certain, (rows, 1)."""
        counted: NDArray[np.intp] = np.count_nonzero(magnitude, axis=-1, keepdims=True)
        if self.rad is not None:
            return np.full_like(counted, magnitude.shape[-1])
        if not self._kept_wider:
            return counted
        # a state that is kept wider may be zero only as it is returned
        return np.where(self.relative, magnitude.shape[-1], counted)

    def _grain(self, factor: Factor, size: float) -> float:
        """The power of two that divides every product; 0 where it cannot make sums of that size exact."""
        for part in (self.mid.ravel()[:64], self.mid):  # a few elements tell ordinary numbers from a lattice
            grain = magnitudes.product_granularity(magnitudes.granularity(part), factor.grain)
            if not self.arithmetic.exact(size, grain):
                return 0.0
        return grain


class Sum(Terms):
    """A sum that nobody has rounded yet."""

    __array_ufunc__ = None

    def __add__(self, other: "Sum | Ball | Array") -> "Sum":
        if isinstance(other, Sum):
            return self.and_terms(other)
        if isinstance(other, Ball):
            return self.and_rounded(other.mid, other.radius, other.may_overflow)
        if isinstance(other, np.ndarray):
            return self.and_constant(other)
        raise TypeError(f"sum: balls, sums and arrays can be added to it; received {_described(other)}")

    __radd__ = __add__

    def closed(self) -> Ball:
        """The sum, rounded."""
        return self.through(_LINEAR)

    def through(self, f: Activation) -> Ball:
        """f of the rounded sum: what rounding does before f, what f makes of that, and what f may itself be off by."""
        e = self.rounding
        if self.spread is not None:
            e += self.spread
        mid, rad, overflow = activated(f, self.mid, e, self.arithmetic, terms=self.size, lost=self.lost)
        made = Made(self.size, self.terms, self.scale) if f is _LINEAR else None
        return Ball(mid, self.arithmetic, rad, may_overflow=overflow, made=made)


Operand = Ball | Sum | Array | float
"""What a ball can be combined with."""

_LINEAR = get("linear")


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return type(value).__name__


def _beyond(size: Array, mid: Array, arithmetic: Arithmetic, margin: float = 1.0) -> Flags | None:
    """Where something of that size is out of range although it came from numbers that are not; None for nowhere."""
    if float(size.max(initial=0)) * margin <= arithmetic.largest:
        return None
    return np.asarray((margin * size > arithmetic.largest) & np.isfinite(mid))


def _joined(join: Callable[[list[Array]], Array], parts: Sequence[Any]) -> Ball:
    """Several balls joined into one by a function of arrays."""
    first = next(part for part in parts if isinstance(part, Ball))
    balls = [_alike(part, first) for part in parts]
    mid, rad = join([ball.mid for ball in balls]), join([_radii(ball) for ball in balls])
    if all(ball.may_overflow is None for ball in balls):
        return Ball(mid, first.arithmetic, rad)
    return Ball(mid, first.arithmetic, rad, may_overflow=join([_flags(ball) for ball in balls]))


def _alike(part: Any, ball: Ball) -> Ball:
    """The part, or a number in all places of such a ball."""
    return part if isinstance(part, Ball) else Ball(np.full_like(ball.mid, part), ball.arithmetic)


def _radii(ball: Ball) -> Array:
    exact = ball.rad is None and not ball._kept_wider
    return np.zeros(ball.shape, ball.arithmetic.radii) if exact else ball.radius


def _flags(ball: Ball) -> Flags:
    return np.broadcast_to(False if ball.may_overflow is None else ball.may_overflow, ball.shape)


def on_balls(layer: Layer, arithmetic: Arithmetic | None = None) -> Layer:
    """The layer in float64, its matrices as Factors: what `forward` is called on to compute with balls. In the
    arithmetic of each layer's own dtype if none is given."""

    def lifted(layer: Layer, name: str, array: Array) -> Values:
        own = chosen(array.dtype, arithmetic)
        wide = array.astype(np.float64)
        if name in layer.matrices:
            return Factor(wide, own.dtype, own.radii)
        return Ball(wide, own) if name in layer.tables else wide

    return layer.mapped(lifted)
