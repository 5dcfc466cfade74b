"""Operations on values that are known within radii: how far a correct result of each may be off.

Each returns the midpoint, the radius and the most that anything computed on the way may be.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parity.rounding.arithmetic import Arithmetic
from parity.rounding.magnitudes import largest_finite
from parity.rounding.terms import Made

Array = NDArray[Any]
Bounds = tuple[Array, Array, Array]


class Interval(Protocol):
    """Values within a radius of a midpoint."""

    mid: Array

    @property
    def radius(self) -> Array: ...


def total(a: Interval, b: Interval, arithmetic: Arithmetic) -> Bounds:
    spread = _as_read(a, arithmetic) + _as_read(b, arithmetic)
    mid = a.mid + b.mid
    size = np.abs(mid) + spread
    return mid, spread + arithmetic.sum_error(size), size


def product(a: Interval, b: Interval, arithmetic: Arithmetic) -> Bounds:
    m_a, m_b, d_a, d_b = np.abs(a.mid), np.abs(b.mid), a.radius, b.radius
    spread = m_a * d_b + m_b * d_a + d_a * d_b
    size = (m_a + d_a) * (m_b + d_b)
    return a.mid * b.mid, spread + arithmetic.product_error(size, m_a, m_b), size


def quotient(a: Interval, b: Interval, arithmetic: Arithmetic) -> Bounds:
    """Infinitely uncertain where b may be zero."""
    m_a, m_b, d_a, d_b = np.abs(a.mid), np.abs(b.mid), _as_read(a, arithmetic), _as_read(b, arithmetic)
    least = np.maximum(m_b - d_b, 0)
    size = np.where(least > 0, (m_a + d_a) / least, np.inf)
    spread = np.where(least > 0, (d_a + m_a / m_b * d_b) / least, np.inf)
    return a.mid / b.mid, spread + arithmetic.two_roundings(size), size


def may_divide_by_zero(a: Interval, b: Interval, arithmetic: Arithmetic) -> NDArray[np.bool_]:
    """Where nobody can tell what a / b is; not where it is infinite whoever divides."""
    certain = (b.mid == 0) & (b.radius == 0) & (np.abs(a.mid) > _as_read(a, arithmetic))
    return np.asarray((np.abs(b.mid) <= _as_read(b, arithmetic)) & ~certain)


def root(a: Interval, arithmetic: Arithmetic) -> Bounds:
    """Of what may be negative, as far as it is not."""
    mid, d = np.sqrt(a.mid), _as_read(a, arithmetic)
    most, least = np.sqrt(np.abs(a.mid) + d), np.sqrt(np.maximum(a.mid - d, 0))
    spread = np.maximum(most - mid, mid - least)
    return mid, spread + arithmetic.two_roundings(most), most


def blended(z: Interval, a: Interval, b: Interval, arithmetic: Arithmetic) -> Bounds:
    """z a + (1 - z) b, or b + z (a - b), which is the same but for rounding; z moves both alike."""
    m_z, d_z, d_a, d_b = np.abs(z.mid), z.radius, a.radius, b.radius
    most_a, most_b = np.abs(a.mid) + d_a, np.abs(b.mid) + d_b
    moved = (m_z + d_z) * d_a + (np.abs(1 - z.mid) + d_z) * d_b + np.abs(a.mid - b.mid) * d_z
    # three roundings of each product and one of b itself; |1 - z| counts beside z for gates not within [0, 1]
    size = (m_z + d_z) * (most_a + most_b) + most_b
    own = arithmetic.blend_error(size, most_a, most_b, m_z)
    return z.mid * a.mid + (1 - z.mid) * b.mid, moved + own, size


def normalized(
    x: Interval, factor: Interval, mean: Interval, beta: Interval, arithmetic: Arithmetic, summed: Made | None
) -> tuple[Bounds, Made]:
    """factor (x - mean) + beta in any form, and what it is made of. summed: of what sum x is, where it is one: factor
    and constant may then be folded into that."""
    k, d_k, centre = np.abs(factor.mid), factor.radius, np.abs(mean.mid)
    d = _as_read(x, arithmetic) + mean.radius
    most = np.abs(x.mid) + d
    if summed is not None:
        most = np.maximum(most, summed.size)
    constant = centre * k + np.abs(beta.mid)
    size = most * k + constant
    scale = max(map(largest_finite, (most, k, centre)))
    own = arithmetic.normalization_error(size, scale)
    if summed is not None:
        own = own + constant_first(np.broadcast_to(constant, size.shape), summed, scale, arithmetic)
    rad = d * (k + d_k) + (most + centre) * d_k + beta.radius + own
    finite = np.where(np.isfinite(size), size, 0).astype(arithmetic.radii)
    made = Made(finite, 3, scale, normalized=True)
    return ((x.mid - mean.mid) * factor.mid + beta.mid, rad, size), made


def constant_first(constant: Array, summed: Made, scale: float, arithmetic: Arithmetic) -> Array:
    """What a constant adds that is in the bias of a sum, and that the first of the terms: it is rounded at each."""
    stored = constant if arithmetic.stores else None
    return arithmetic.total_error(np.asarray(summed.count) + 2, constant, scale, 0.0, stored, None)


def _as_read(a: Interval, arithmetic: Arithmetic) -> Array:
    """The radius, and how far a processor without subnormal numbers moves what it reads."""
    return a.radius + arithmetic.flushed
