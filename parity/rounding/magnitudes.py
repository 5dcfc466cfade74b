"""How large numbers are, and which powers of two divide them."""

import math
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is one real number, Python's or NumPy's."""
    return isinstance(value, float | int | np.floating | np.integer)


def is_power_of_two(value: float) -> bool:
    """Or zero: a product with it is never rounded."""
    return abs(math.frexp(value)[0]) in (0.0, 0.5)


def largest_finite(array: Array) -> float:
    """The largest of non-negative numbers; those that are not finite are judged by class, not by radius."""
    largest = float(array.max(initial=0))
    if np.isfinite(largest):
        return largest
    return float(array.max(initial=0, where=np.isfinite(array)))


def binade(y: Array) -> Array:
    """The largest power of two not above each y, which is not negative; 0 for subnormal ones. Of the type of y."""
    exponent = np.int32(0x7F800000) if y.dtype == np.float32 else np.int64(0x7FF0000000000000)
    bits: Array = np.ascontiguousarray(y).view(exponent.dtype)
    power: Array = (bits & exponent).view(y.dtype)
    return power


def granularity(array: Array) -> float:
    """The largest power of two that divides every element: infinity for zeros, 0 where one is not finite."""
    values = array[array != 0].astype(np.float64)
    if not values.size:
        return np.inf
    if not np.isfinite(values).all():
        return 0.0
    significand, exponent = np.frexp(values)
    integers = np.ldexp(significand, 53).astype(np.int64)
    lowest_bit = (integers & -integers).astype(np.float64)
    return float(np.ldexp(lowest_bit, exponent - 53).min())


def product_granularity(a: float, b: float) -> float:
    """That of products: infinite, not NaN, where one factor is all zeros."""
    return np.inf if np.inf in (a, b) else a * b


def narrow(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """(rows, 1), or (1, 1) where all rows count the same, so that what is made of it stays small."""
    alike = counts.min(initial=counts[0, 0]) == counts.max(initial=0)
    return counts[:1] if alike else counts
