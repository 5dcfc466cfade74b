"""What an array is beside the layer's own: another one, or made of it, and how."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rnn_scratch.base import Array

_CLOSE = 1e-3
"""Entries are the same if they differ by less than this part of the array's largest: nothing recovered is exact."""

_MOST_COMPARED = 1 << 22
"""Numbers that are held at once to find an order of rows: 32 MiB of them."""

_MOST_LISTED = 12

_MOST_ENTRIES = 3
"""So many entries that differ are told one by one."""


def differing(own: Array, right: Array) -> NDArray[np.bool_]:
    """Where two arrays differ by more than what is recovered may be off."""
    return np.asarray(np.abs(own - right) > close(right))


def compared(name: str, own: Array, right: Array, apart: NDArray[np.bool_] | None = None) -> str:
    """What the candidate's array is beside the layer's. apart: where they differ."""
    if apart is None:
        apart = differing(own, right)
    if not apart.any():
        return f"{name} is the layer's own"
    if apart.sum() <= _MOST_ENTRIES:
        return "; ".join(_entry(name, own, right, tuple(at)) for at in np.argwhere(apart))
    made = made_of(own, right)
    if made:
        return f"{name} is {made}"
    distance = float(np.linalg.norm(own - right) / (np.linalg.norm(right) or 1))
    return f"{name} differs in {apart.sum()} of {apart.size} entries, by {distance:.2g} of its norm"


def is_plain(own: Array, right: Array) -> bool:
    """Whether it differs, and that is told entry by entry or by what it is made of."""
    apart = int(differing(own, right).sum())
    return apart > 0 and (apart <= _MOST_ENTRIES or made_of(own, right) is not None)


def _entry(name: str, own: Array, right: Array, at: tuple[int, ...]) -> str:
    return f"{name}{list(map(int, at))} is {own[at]:.6g}, not {right[at]:.6g}"


def stale(own: Array, right: Array) -> bool:
    """Whether an array is quite another than the layer's, and not made of it in some other way than by a mistake in
    copying: then to copy it again would not mend the port."""
    whole = np.mean(differing(own, right)) > 0.9
    far = np.linalg.norm(own - right) > 0.05 * np.linalg.norm(right)
    kept = np.mean(np.abs(own) <= close(right)) < 0.1
    return bool(whole and far and kept and not _ordered(own, right) and not made_of(own, right))


# --- made of it ---


def made_of(own: Array, right: Array) -> str | None:
    """What an array is made of the layer's by, if that can be told."""
    for way in _WAYS:
        told = way(own, right)
        if told is not None:
            return told
    return None


def close(right: Array) -> float:
    """By how much an entry may differ and be the same."""
    return float(_CLOSE * np.abs(right).max())


def _same(own: Array, right: Array, within: float) -> bool:
    return bool(np.all(np.abs(own - right) <= within))


def _zero(own: Array, right: Array) -> str | None:
    return "zero" if _same(own, np.zeros_like(own), close(right)) else None


def _scaled(own: Array, right: Array) -> str | None:
    k = float((own * right).sum() / ((right * right).sum() or 1))
    fits = np.linalg.norm(own - k * right) < 1e-4 * np.linalg.norm(own - right)
    return f"{k:.6g} times the layer's" if fits and k else None


def _shifted(own: Array, right: Array) -> str | None:
    shift = float(np.median(own - right))
    return f"the layer's plus {shift:.6g}" if _same(own - right, np.asarray(shift), close(right)) else None


def _reordered(own: Array, right: Array) -> str | None:
    for axis, what in enumerate(("rows", "columns") if right.ndim > 1 else ("entries",)):
        order = _order(own, right, axis)
        if order is not None:
            listed = ", ".join(map(str, order[:_MOST_LISTED]))
            more = ", ..." if len(order) > _MOST_LISTED else ""
            return f"the layer's with its {what} in the order {listed}{more}"
    return None


def _order(own: Array, right: Array, axis: int) -> list[int] | None:
    """The order of the layer's rows (or columns) in which they are the array's, if there is one."""
    a, b = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (own, right))
    if a.size * len(b) > _MOST_COMPARED:
        return None
    order = np.abs(a[:, None] - b[None]).max(axis=2).argmin(axis=1)
    fits = len(set(order)) == len(b) and _same(a, b[order], close(right))
    return [int(n) for n in order] if fits else None


def _shuffled(own: Array, right: Array) -> str | None:
    same = _same(np.sort(own.ravel()), np.sort(right.ravel()), close(right))
    return "the layer's with its entries in another order" if same else None


def _other_signs(own: Array, right: Array) -> str | None:
    return "the layer's with other signs" if _same(np.abs(own), np.abs(right), close(right)) else None


def _scaled_each(own: Array, right: Array) -> str | None:
    """Each row, or each column, times a number of its own."""
    for axis, what in ((1, "rows"), (0, "columns")) if right.ndim > 1 else ():
        along = (own * right).sum(axis=axis, keepdims=True)
        factor = along / ((right * right).sum(axis=axis, keepdims=True) + 1e-300)
        if own.shape[axis] > 1 and _same(own, factor * right, close(right)):
            listed = ", ".join(f"{f:.4g}" for f in factor.ravel()[:_MOST_LISTED])
            return f"the layer's with its {what} times {listed}"
    return None


def _clipped(own: Array, right: Array) -> str | None:
    low, high = own.min(), own.max()
    fits = _same(own, np.clip(right, low, high), close(right))
    return f"the layer's clipped to {low:.4g} and {high:.4g}" if fits else None


def _quantised(own: Array, right: Array) -> str | None:
    values = len(np.unique(np.round(own / close(right))))
    return f"of {values} values alone: quantised" if own.size > 8 and 2 * values <= own.size else None


_WAYS: tuple[Callable[[Array, Array], str | None], ...] = (
    _zero,
    _scaled,
    _shifted,
    _reordered,
    _shuffled,
    _other_signs,
    _scaled_each,
    _clipped,
    _quantised,
)
"""In the order in which they are tried: each says less than those before it."""


# --- changed entry by entry ---


def _ordered(own: Array, right: Array) -> bool:
    """Whether larger entries (or larger magnitudes) of one are larger in the other, over all or within each row or
    column: each may have been changed by itself."""
    return any(_monotone(a, b, close(right)) for a, b in _views(own, right))


def _views(own: Array, right: Array) -> Iterator[tuple[Array, Array]]:
    yield own.reshape(1, -1), right.reshape(1, -1)
    if right.ndim > 1:
        yield own, right
        yield own.T, right.T


def _monotone(own: Array, right: Array, within: float) -> bool:
    """That, within each row; of few entries it says nothing."""
    if right.shape[1] <= 3:
        return False
    return _rising(own, right, within) or _rising(np.abs(own), np.abs(right), within)


def _rising(own: Array, right: Array, within: float) -> bool:
    along = np.take_along_axis(own, np.argsort(right, axis=1), axis=1)
    return bool(np.all(np.diff(along, axis=1) >= -within))
