"""Normalization with statistics that are known, as in inference."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from rnn_scratch.base import Array, Layer, Mask, States, Values, Weight, as_weights, expect_shape


class BatchNormalization(Layer):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, over the last axis.

    gamma, beta, mean, variance: (features,), in Keras's order; gamma None for no scale, beta None for no center.
    x: (..., features) -> the same shape. A mask goes on to the next layer and changes nothing here. dtype: of x and of
    the outputs, where that is not the arrays' own; under a mixed policy Keras keeps these in float32.

    Source: Ioffe and Szegedy, Batch normalization, 2015; `keras.layers.BatchNormalization`, whose `moving_mean` and
    `moving_variance` these are. Deviation from Keras: inference alone, and no axis but the last.

    Raises ValueError for arrays that do not fit each other.
    """

    kind = "batch_normalization"
    arrays = ("gamma", "beta", "mean", "variance")
    tables = arrays

    def __init__(
        self,
        gamma: Weight,
        beta: Weight,
        mean: Weight,
        variance: Weight,
        *,
        epsilon: float = 1e-3,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.scale, self.center, self.epsilon = gamma is not None, beta is not None, epsilon
        optional = {"gamma": gamma, "beta": beta}
        given = {name: array for name, array in optional.items() if array is not None}
        self.mean, self.variance, *rest = as_weights(mean=mean, variance=variance, **given)
        super().__init__(name, dtype or self.mean.dtype)
        if self.mean.ndim != 1 or self.mean.size == 0:
            raise ValueError(f"mean: expected shape (features,), at least 1; received {self.mean.shape}")
        self.gamma = rest.pop(0) if self.scale else np.ones_like(self.mean)
        self.beta = rest.pop(0) if self.center else np.zeros_like(self.mean)
        for name in self.arrays:
            expect_shape(name, getattr(self, name), self.mean.shape, f"mean has {len(self.mean)} features")

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        if isinstance(x, np.ndarray) and x.dtype.itemsize == 2:  # 16 bits are not enough for what is in between
            return self.astype(np.float32).normalized(x.astype(np.float32)).astype(x.dtype), ()
        return self.normalized(x), ()

    def normalized(self, x: Values) -> Values:
        # not the docstring's order: Keras multiplies by one factor and adds one constant, and where the mean is large
        # beside x - mean this is what its rounding goes by
        if not isinstance(x, np.ndarray):  # it knows what else may be done with such a factor and constant
            return x.normalized(self.gamma, self.beta, self.mean, self.variance, self.epsilon)
        factor = self.gamma / np.sqrt(self.variance + self.epsilon)
        return x * factor + (self.beta - self.mean * factor)

    def check_inputs(self, x: Array) -> None:
        if x.ndim < 2 or x.shape[-1] != self.input_dim:
            raise ValueError(f"x: expected shape (batch, ..., {self.input_dim}); received {x.shape}")

    @property
    def own_weights(self) -> Mapping[str, Array]:
        there = {"gamma": self.scale, "beta": self.center}
        return {name: getattr(self, name) for name in self.arrays if there.get(name, True)}

    def replace(self, **weights: Array) -> Self:
        absent = {"gamma": None, "beta": None}
        arrays = {**absent, **self.own_weights, **weights}
        apart = None if self.dtype == self.mean.dtype else self.dtype  # else it is that of the new arrays
        return type(self)(**arrays, epsilon=self.epsilon, name=self.name, dtype=apart)

    @property
    def units(self) -> int:
        return int(self.mean.shape[0])

    @property
    def input_dim(self) -> int:
        return self.units
