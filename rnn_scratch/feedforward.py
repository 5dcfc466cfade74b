"""The layers beside the recurrent ones that look at one time step at a time and keep nothing."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rnn_scratch.activations import get
from rnn_scratch.base import Array, Layer, Mask, Shape, States, Values, Weight, as_reals, as_weights, expect_shape


class Dense(Layer):
    """y = activation(W x + b), over the last axis.

    W: (units, input_dim), b: (units,) or None. x: (..., input_dim) -> (..., units). Keras's `kernel` is W transposed.
    """

    kind = "dense"
    arrays = ("W", "b")
    matrices = ("W",)

    def __init__(self, W: Weight, b: Weight = None, *, activation: str | None = None, name: str | None = None) -> None:
        self.use_bias = b is not None
        self.W, *bias = as_weights(W=W, **({"b": b} if self.use_bias else {}))
        super().__init__(name, self.W.dtype)
        if self.W.ndim != 2 or 0 in self.W.shape:
            raise ValueError(f"W: expected shape (units, input_dim), both at least 1; received {self.W.shape}")
        self.b = bias[0] if bias else np.zeros(len(self.W), self.W.dtype)
        expect_shape("b", self.b, (len(self.W),), f"W has {len(self.W)} units")
        self.activation = get(activation)

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        z = x.reshape(-1, x.shape[-1]).dot(self.W.T)
        z += self.b
        return self.activation(z).reshape(*x.shape[:-1], self.units), ()

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return ((*shape[:-1], self.units),)

    def check_inputs(self, x: Array) -> None:
        if x.ndim < 2 or x.shape[-1] != self.input_dim:
            raise ValueError(f"x: expected shape (batch, ..., {self.input_dim}); received {x.shape}")

    @property
    def own_weights(self) -> Mapping[str, Array]:
        return {"W": self.W, "b": self.b} if self.use_bias else {"W": self.W}

    def replace(self, **weights: Array) -> Self:
        arrays = {"b": None, **self.own_weights, **weights}
        return type(self)(**arrays, activation=self.activation.name, name=self.name)

    @property
    def units(self) -> int:
        return int(self.W.shape[0])

    @property
    def input_dim(self) -> int:
        return int(self.W.shape[1])


class Embedding(Layer):
    """y_t = E[x_t], the row of a table for each token id.

    E: (input_dim, output_dim). x: integers (batch, timesteps) from 0 to input_dim - 1 -> (batch, timesteps,
    output_dim). mask_zero: id 0 is padding, masked for the layers after it (its row is looked up like any other).

    Raises ValueError for ids that the table does not have. Deviation from Keras, which wraps negative ids and whose
    backends differ on those past the end.
    """

    kind = "embedding"
    ndim = 2
    arrays = ("E",)
    tables = ("E",)

    def __init__(self, E: Weight, *, mask_zero: bool = False, name: str | None = None) -> None:
        (self.E,) = as_weights(E=E)
        super().__init__(name, self.E.dtype)
        if self.E.ndim != 2 or 0 in self.E.shape:
            raise ValueError(f"E: expected shape (input_dim, output_dim), both at least 1; received {self.E.shape}")
        self.mask_zero = mask_zero

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        return self.E[x], ()

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        return x != 0 if self.mask_zero else None

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return ((*shape, self.units),)

    def as_inputs(self, x: ArrayLike) -> Array:
        ids = as_reals("x", x)
        if ids.dtype.kind not in "iu" and not _are_whole(ids):
            raise ValueError(f"x: expected token ids, whole numbers; received {ids.dtype} that are not")
        outside = ids[(ids < 0) | (ids >= len(self.E))]  # before the cast, which would bring wide ones back inside
        if outside.size:
            raise ValueError(f"x: expected token ids from 0 to {len(self.E) - 1}; received {outside[0]}")
        return ids.astype(np.int32)

    def check_inputs(self, x: Array) -> None:
        if x.ndim != 2:
            raise ValueError(f"x: expected token ids of shape (batch, timesteps); received {x.shape}")
        if x.shape[1] == 0:
            raise ValueError(f"x: expected at least 1 timestep; received {x.shape}")

    def replace(self, **weights: Array) -> Self:
        return type(self)(**{**self.own_weights, **weights}, mask_zero=self.mask_zero, name=self.name)

    @property
    def units(self) -> int:
        return int(self.E.shape[1])


class Masking(Layer):
    """Steps all of whose features equal mask_value are masked for the layers after it, and set to zero.

    x: (batch, timesteps, features) -> the same shape. NaN equals nothing, so it masks nothing.
    """

    kind = "masking"
    ndim = 3

    def __init__(self, mask_value: float = 0.0, *, name: str | None = None, dtype: DTypeLike = np.float32) -> None:
        super().__init__(name, dtype)
        self.mask_value = mask_value

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        return np.where(self._unmasked(x)[..., None], x, np.zeros_like(x)), ()

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        return self._unmasked(x)

    def _unmasked(self, x: Values) -> Mask:
        values = x if isinstance(x, np.ndarray) else x.mid
        return np.asarray((values != self.dtype.type(self.mask_value)).any(axis=-1))


class Dropout(Layer):
    """y = x, as every layer that only matters in training."""

    kind = "dropout"

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        return x, ()


class Activation(Layer):
    """y = activation(x), any shape."""

    kind = "activation"

    def __init__(self, activation: str | None, *, name: str | None = None, dtype: DTypeLike = np.float32) -> None:
        super().__init__(name, dtype)
        self.activation = get(activation)

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        return self.activation(x), ()


def _are_whole(numbers: Array) -> bool:
    return bool(np.isfinite(numbers).all()) and np.array_equal(np.rint(numbers), numbers)
