"""A matrix of weights as a factor of products with balls."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.rounding import magnitudes

Array = NDArray[Any]


class Factor:
    """A matrix, (n, m) float64, and what products with it need to know, worked out once.

    dtype: as the candidate has it. radii: the type of magnitudes.
    """

    __array_ufunc__ = None

    def __init__(self, W: Array, dtype: str, radii: type[np.floating[Any]]) -> None:
        self.W, self._dtype, self.radii = W, dtype, radii

    @property
    def shape(self) -> tuple[int, ...]:
        return self.W.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._dtype)

    @cached_property
    def T(self) -> "Factor":
        return Factor(self.W.T, self._dtype, self.radii)

    def __getitem__(self, rows: slice) -> "Factor":
        """Some of the rows; the same ones again are worked out once."""
        key = rows.start, rows.stop
        if key not in self._parts:
            self._parts[key] = Factor(self.W[rows], self._dtype, self.radii)
        return self._parts[key]

    @cached_property
    def _parts(self) -> "dict[tuple[int | None, int | None], Factor]":
        return {}

    @cached_property
    def magnitude(self) -> Array:
        # n + 4 roundings of the product: two casts, a multiplication and n additions, with one to spare
        enlarge = 1 + (len(self.W) + 4) * float(np.finfo(self.radii).eps)
        return np.asarray(np.abs(self.W) * enlarge, self.radii)

    @cached_property
    def terms(self) -> Array:
        return np.asarray(np.count_nonzero(self.W, axis=0))

    @cached_property
    def largest(self) -> float:
        return magnitudes.largest_finite(np.abs(self.W))

    @cached_property
    def grain(self) -> float:
        return magnitudes.granularity(self.W)

    def bound(self, magnitude: Array) -> Array:
        """magnitude @ |W|, or a little more. magnitude: (rows, n), not negative -> (rows, m)."""
        product = np.asarray(magnitude.astype(self.radii, copy=False).dot(self.magnitude))
        if np.isfinite(product.max(initial=0)):
            return product
        wide = magnitude.astype(np.float64), self.magnitude.astype(np.float64)  # beyond float32
        return np.asarray(wide[0].dot(wide[1]))
