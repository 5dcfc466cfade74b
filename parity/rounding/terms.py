"""Terms of a sum that nobody has rounded yet, because nobody knows in which order the candidate adds them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from parity.rounding import magnitudes
from parity.rounding.arithmetic import Arithmetic
from parity.rounding.perturbed import Flags

Array = NDArray[Any]

_ENLARGED = 1 + 2**-23
"""More than a cast to float32 takes away."""


@dataclass(frozen=True)
class Made:
    """What a rounded value was made of, where a candidate may have made it otherwise: by folding a normalization into
    the linear layer before it or after it.

    size: the sum of its terms' magnitudes, of the value's shape. count: how many terms. scale: the largest factor.
    normalized: whether it is gamma (x - mean) / sqrt(variance + epsilon) + beta; else it is a sum of products.
    """

    size: Array
    count: NDArray[Any] | int
    scale: float
    normalized: bool = False

    def changed(self, change: Callable[[Array], Array], shape: tuple[int, ...]) -> Self:
        """Of values of that shape, taken apart or put into another one."""
        count = self.count
        if isinstance(count, np.ndarray) and count.size > 1:
            count = change(np.broadcast_to(count, shape))
        return replace(self, size=change(np.broadcast_to(self.size, shape)), count=count)


@dataclass
class Terms:
    """What is known of them. All arrays are (rows, units).

    mid: the value of the sum. size: S, the sum of the terms' magnitudes. spread: d, the terms' own radii propagated,
    None for zero. terms: N, (1 or rows, units). stored: sum of |intermediate results| that the candidate may store, or
    None where that does not matter. scale: the largest finite factor (for underflow). grain: a power of two that
    divides every term, or 0. lost: (rows, 1), where a factor may have overflowed before it came here, or None for
    nowhere.
    """

    mid: Array
    arithmetic: Arithmetic
    size: Array
    spread: Array | None
    terms: NDArray[Any]
    stored: Array | None
    scale: float
    grain: float
    lost: Flags | None = None

    def and_terms(self, other: "Terms") -> Self:
        """These terms and those."""
        # not `replace`, which takes as long as a small sum
        return type(self)(
            self.mid + other.mid,
            self.arithmetic,
            size=self.size + other.size,
            spread=_added(self.spread, other.spread),
            terms=self.terms + other.terms,
            # what the candidate does not store on the way need not be known of the rest either
            stored=None if self.stored is None else _added(self.stored, other.stored),
            scale=max(self.scale, other.scale),
            grain=min(self.grain, other.grain),
            lost=merged(self.lost, other.lost),
        )

    def and_constant(self, b: Array) -> Self:
        """One more term, exactly b."""
        size = np.abs(b)
        return self.and_terms(
            Terms(
                b,
                self.arithmetic,
                size=np.asarray(size * _ENLARGED, self.size.dtype),
                spread=None,
                terms=(b != 0).astype(int),
                stored=size,
                scale=magnitudes.largest_finite(size),
                grain=magnitudes.granularity(b),
            )
        )

    def and_rounded(self, mid: Array, rad: Array, may_overflow: Flags | None) -> Self:
        """One more term, which has been rounded before it is added."""
        size = np.abs(mid)
        return self.and_terms(
            Terms(
                mid,
                self.arithmetic,
                size=np.asarray((size + rad) * _ENLARGED, self.size.dtype),
                spread=np.asarray(rad, self.size.dtype),
                terms=np.ones((1,) * mid.ndim, int),
                stored=size,
                scale=magnitudes.largest_finite(size),
                grain=0.0,
                lost=may_overflow,
            )
        )

    def folded(self, size: Array, scale: float) -> Self:
        """The same sum of what a normalization put out, which may be folded into it: then each factor is two terms,
        of which one goes into the bias first. size: the magnitudes of all those terms."""
        spread = _added(self.spread, self.arithmetic.folded_error(size))
        assert spread is not None
        return replace(
            self,
            size=size + spread,
            spread=spread,
            terms=2 * self.terms + 2,
            stored=None if self.stored is None else size,
            scale=max(self.scale, scale),
            grain=0.0,
        )

    def __getitem__(self, index: Any) -> Self:
        """Some of the units."""

        def part(array: Array | None) -> Any:
            return None if array is None else np.broadcast_to(array, self.mid.shape)[index]

        return replace(
            self,
            mid=part(self.mid),
            size=part(self.size),
            spread=part(self.spread),
            terms=part(self.terms),
            stored=part(self.stored),
            lost=part(self.lost),
        )

    @property
    def rounding(self) -> Array:
        """E: the most that rounding can move the sum, for any order of its terms. (rows, units)."""
        return self.arithmetic.total_error(self.terms, self.size, self.scale, self.grain, self.stored, self.spread)


def _added(a: Array | None, b: Array | None) -> Array | None:
    """The sum of both, None being zero."""
    if a is None or b is None:
        return b if a is None else a
    return np.asarray(a + b)


def merged(a: Flags | None, b: Flags | None) -> Flags | None:
    """Where either is true, None being nowhere."""
    if a is None or b is None:
        return b if a is None else a
    return a | b
