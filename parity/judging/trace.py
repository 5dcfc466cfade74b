"""How the differences go over time, in as many points as a picture has room for."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

POINTS = 240
PIECES = 32
"""So many pieces are kept before they are made one: what bounds the memory of a long sequence."""


class Course:
    """Of each time step, or of each stretch of them, the element that is the most radii off.

    pieces: (3, n) each, in rows its time step, its |difference| and its radius.
    """

    def __init__(self) -> None:
        self.pieces: list[Array] = []

    def add(self, difference: Array, rad: Array, ratio: Array, timestep: int) -> None:
        """All (batch, steps, units), the first step being `timestep`; no ratio is NaN."""
        rad = np.broadcast_to(rad, ratio.shape)
        for start, stop, stretch in stretches(ratio.shape[1]):
            by_step = ratio[:, start:stop].swapaxes(0, 1)
            within = by_step.reshape((stop - start) // stretch, -1).argmax(axis=1)
            step, row, unit = np.unravel_index(within, (stretch, *by_step.shape[1:]))
            step = step + np.arange(start, stop, stretch)
            self.pieces.append(np.stack([step + timestep, difference[row, step, unit], rad[row, step, unit]]))
        if len(self.pieces) > PIECES:
            self.pieces = [self.points()]

    def merge(self, other: "Course", later: int = 0) -> None:
        self.pieces += [np.add(piece, [[later], [0], [0]]) for piece in other.pieces] if later else other.pieces

    def points(self) -> Array:
        """(3, n), at most POINTS of them, in the order of time."""
        if not self.pieces:
            return np.zeros((3, 0))
        points = np.concatenate(self.pieces, axis=1)
        first, last = points[0].min(), points[0].max()
        group = (points[0] - first) // np.ceil((last - first + 1) / POINTS)
        with np.errstate(all="ignore"):
            order = np.lexsort((points[1] / points[2], group))
        worst = np.flatnonzero(np.diff(group[order], append=np.inf))
        thinned: Array = points[:, order[worst]]
        return thinned


def stretches(steps: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, length of each stretch between them): as many of one length as fit, then what is left."""
    stretch = max(1, -(-steps // POINTS))
    whole = steps - steps % stretch
    yield from ((a, b, n) for a, b, n in ((0, whole, stretch), (whole, steps, steps - whole)) if a < b)
