"""Perturbed runs: every rounding replaced by the largest allowed one, up or down, in copies of the reference."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Flags = NDArray[np.bool_]


class Run:
    """The signs of one such run, and where something may have overflowed in it. copies >= 3 of `batch` rows each.

    The first `batch` rows stay the reference. In half of the other copies the signs are random. The others keep each
    unit's sign for good (the first two all alike): what accumulates drifts coherently, and random signs would grant it
    too little.
    """

    def __init__(self, copies: int, batch: int, rng: np.random.Generator) -> None:
        self.copies, self.batch, self.rng = copies, batch, rng
        self.lost = np.zeros(batch, bool)
        self._fixed: dict[int, Array] = {}

    def moved(self, mid: Array, rad: Array) -> Array:
        """Each value at one end or the other; those of the reference where they are."""
        signs = self.signs(mid.shape)
        # not just the product: the reference stays itself where a radius is infinite
        return np.asarray(mid + np.where(signs == 0, 0, signs * rad))

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

    def lose(self, may_overflow: Flags, shape: tuple[int, ...]) -> None:
        """Remember where something may have overflowed in what has that shape."""
        whole = shape[0] % (self.copies * self.batch) == 0
        rows = self.batch if whole else 1  # else some rows of each copy
        by_copy = np.broadcast_to(may_overflow, shape).reshape(self.copies, rows, -1)
        self.lost |= by_copy.any(axis=(0, 2))
