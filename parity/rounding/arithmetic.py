"""Arithmetics: what one may be off by. Every formula of a rounding stands here, so that a new one is one new file.

With u the unit roundoff of the candidate's storage, a that of its accumulation, N the number of non-zero terms of a
sum z and S the sum of their magnitudes, input radii included,

    |computed z - z| <= E = g S + underflow,    g = N (a + 2^-53) / (1 - N (a + 2^-53))

for any order of summation, with FMA or not (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section
3.1; the 2^-53 is this process's own rounding). What is stored narrower than it is accumulated adds its roundings on
top (`stores`). Where every term and every partial sum is a multiple of one power of two small enough, nothing rounds
at all and E is the underflow alone.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parity.rounding.factors import Factor
from parity.rounding.magnitudes import largest_finite
from parity.rounding.perturbed import Flags, Run

Array = NDArray[Any]
Settled = tuple[Array, Array | None, Flags | None]

REFERENCE_UNIT = 2.0**-53
SLACK = 1 + 2.0**-18
"""More than the roundings of a radius itself, when it is computed in float32."""


@dataclass(frozen=True)
class Arithmetic:
    """What a verdict assumes of the candidate's arithmetic.

    unit: roundoff of storage, u. accumulation: roundoff inside a sum. stores: roundings to storage on the longest path
    from a product to the activation, 0 where sums are kept in storage precision (then g counts them). tiny: the
    smallest magnitude that must survive, an absolute error of any operation. largest: the end of the range. inputs:
    what rounding the factors of a product may be off by, relative; 0 where they are used as they are. run: of which
    it moves the values at each rounding, where it does that instead of bounding them.
    """

    dtype: str
    unit: float
    accumulation: float
    stores: int
    tiny: float
    largest: float
    inputs: float = 0.0
    run: Run | None = field(default=None, repr=False, compare=False)

    says: ClassVar[str] = (
        "for sums in any order, rounded to nearest in the layer's dtype, and activations within their allowance"
    )
    """What a proof by it is conditional on."""

    @property
    def radii(self) -> type[np.floating[Any]]:
        """The type of magnitudes and radii: float32 would lose a float64's range."""
        return np.float64 if self.dtype == "float64" else np.float32

    @property
    def flushed(self) -> float:
        """Below which some processor takes numbers for zero; float16's subnormal ones are read by all."""
        return self.tiny if self.tiny < 2.0**-100 else 0.0

    def facts(self) -> dict[str, str | float]:
        """What a record says of it."""
        return {name: value for name, value in vars(self).items() if name != "run"}

    def perturbed(self, run: Run | None) -> Self:
        """The same, moving the values of that run."""
        return replace(self, run=run)

    def to(self, dtype: DTypeLike) -> "Arithmetic":
        """That of another dtype."""
        return chosen(dtype).perturbed(self.run)

    def settled(self, mid: Array, rad: Array, may_overflow: Flags | None = None) -> Settled:
        """What an operation leaves of a value that it has rounded: where it may lie, or the value moved."""
        # what is the same for all rows, a layer's own numbers, is moved only where it meets them
        if self.run is None or mid.ndim < 2:
            return mid, rad, may_overflow
        if may_overflow is not None:
            self.run.lose(may_overflow, mid.shape)
        return self.run.moved(mid, rad), None, None

    # --- what one operation may be off by; size: the most that its result may be ---

    def sum_error(self, size: Array) -> Array:
        """Of the sum of two."""
        return (self.unit + REFERENCE_UNIT) * size + self.tiny

    def product_error(self, size: Array, left: Array, right: Array) -> Array:
        """Of the product of two, whose magnitudes are left and right."""
        underflow = self.tiny * (1 + largest_finite(left) + largest_finite(right))
        return (self.unit + REFERENCE_UNIT) * size + underflow

    def two_roundings(self, size: Array) -> Array:
        """Of a quotient, since some multiply by a rounded reciprocal; of a root, since some divide by another root."""
        own = self.unit * (2 + self.unit) + REFERENCE_UNIT
        return own * size + self.tiny

    def blend_error(self, size: Array, *magnitudes: Array) -> Array:
        """Of z a + (1 - z) b in any of its forms: each term is rounded three times."""
        underflow = 3 * self.tiny * (1 + sum(map(largest_finite, magnitudes)))
        return 3 * (self.unit + REFERENCE_UNIT) * size + underflow

    def normalization_error(self, size: Array, scale: float) -> Array:
        """Of gamma (x - mean) / sqrt(variance + epsilon) + beta in any of its forms, beside what the factor is off by:
        four roundings on the longest path, or three and that of a weight that the factor is folded into."""
        return 4 * (self.unit + REFERENCE_UNIT) * size + 4 * self.tiny * (1 + scale)

    def cast_error(self, values: Array, source: "Arithmetic") -> Array | float:
        """Of values brought from another arithmetic to this one."""
        if self.unit <= source.unit:
            return 0.0
        return self.unit * np.abs(values) + self.tiny

    def scaling_error(self, factor: float) -> float:
        """Of a product with a power of two: what is flushed before it and after it."""
        return self.tiny * (1 + abs(factor))

    def held_error(self, values: Array) -> Array | None:
        """Of constants as the candidate holds them: where its precision has not that many digits; None for nowhere."""
        significand, _ = np.frexp(values)
        digits = significand / self.unit
        rounded = digits != np.rint(digits)
        if not rounded.any():
            return None
        error = np.where(rounded, self.unit * np.abs(values), 0)
        return np.asarray(error.astype(self.radii) * self.radii(SLACK))

    # --- what a sum of many products may be off by ---

    def inputs_error(self, size: Array, magnitude: Array, factor: Factor) -> Array | None:
        """Of sums magnitude @ |factor| = size whose inputs are rounded before they are multiplied; None if none is."""
        if not self.inputs:
            return None
        return np.asarray(size * size.dtype.type(2.001 * self.inputs))  # both factors of each product

    def folded_error(self, size: Array) -> Array:
        """Of sums of that size whose weights and biases have another layer folded into them, and are stored so."""
        return np.asarray(size * size.dtype.type(2.001 * self.unit))

    def exact(self, size: Array | float, grain: float) -> bool:
        """Whether sums of terms up to that size, all multiples of that power of two, round nowhere."""
        return bool(grain) and bool(np.all(size <= grain / self.accumulation))

    def total_error(
        self, terms: Array, size: Array, scale: float, grain: float, stored: Array | None, spread: Array | None
    ) -> Array:
        """E of a whole sum, for any order of its terms. (rows, units); see `Terms` for what describes it."""
        step = terms * (self.accumulation + REFERENCE_UNIT)
        underflow = np.asarray(2 * terms * self.tiny * (2 + scale), size.dtype)
        error: Array = np.asarray(step / (1 - step), size.dtype) * size
        if self.exact(size, grain):
            error[...] = 0
        if stored is not None:
            kept = self.stores * self.unit
            error += kept * (1 + kept) * (stored.astype(error.dtype) + error + (0 if spread is None else spread))
        error += underflow
        return error


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


def chosen(dtype: DTypeLike, override: Arithmetic | None = None) -> Arithmetic:
    """The arithmetic of that dtype, or the one that is asked for in its place."""
    return override or ARITHMETIC[np.dtype(dtype).name]
