"""The cells: one time step each, written once, in the letters of the textbook.

A cell is `project(x)`, what does not depend on the state (so a layer does it for all time steps at once), and
`update(p, *states)`, what does. Both take arrays with any leading dimensions, and anything else that has `dot`, `+` and
`through`: `parity` runs the same two methods on balls, which is how it knows what rounding may do to them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np

from rnn_scratch.activations import Activation, Array, get

FLOATS = ("float16", "float32", "float64")


def as_weights(**weights: Any) -> list[Array]:
    """The named arrays, copied. ValueError says which is not of a real floating dtype, or not of the first one's."""
    arrays = {name: np.array(value, order="F") for name, value in weights.items()}  # products are with the transposes
    first, dtype = next((name, array.dtype) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.dtype.name not in FLOATS:
            raise ValueError(f"{name}: expected one of {', '.join(FLOATS)}; received {array.dtype}")
        if array.dtype != dtype:
            raise ValueError(f"{name}: expected {dtype}, the dtype of {first}; received {array.dtype}")
    return list(arrays.values())


def expect_shape(name: str, array: Array, expected: tuple[int, ...], because: str) -> None:
    if array.shape != expected:
        raise ValueError(f"{name}: expected shape {expected} ({because}); received {array.shape}")


class Cell(Protocol):
    """What the loop over time asks of a cell.

    name: Keras's, as its layers are called. states: names of its states, the first of which is its output. weights: its
    arrays by name. update(p, *states, out) returns the new states, the output written to `out` where that is given.
    replace: the same cell with other weights.
    """

    name: str
    units: int
    input_dim: int
    Wx: Array
    Wh: Array
    b: Array
    use_bias: bool
    activation: Activation

    @property
    def states(self) -> tuple[str, ...]: ...

    @property
    def update(self) -> Callable[..., tuple[Any, ...]]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def weights(self) -> Mapping[str, Array]: ...

    def replace(self, **weights: Array) -> Self: ...

    def astype(self, dtype: Any) -> Self: ...

    def project(self, x: Any) -> Any: ...


class SimpleRNNCell:
    """h_t = activation(Wx x_t + Wh h_{t-1} + b)

    Wx: (units, input_dim), Wh: (units, units), b: (units,) or None for no bias (kept as zeros; `use_bias` remembers).
    All of one dtype: float16, float32 or float64, in which everything is computed. Keras's `kernel` is Wx transposed,
    its `recurrent_kernel` Wh transposed.

    Raises ValueError for weights that do not fit each other and for an activation that is not in the table.
    """

    name = "simple_rnn"
    states = ("h",)

    def __init__(self, Wx: Any, Wh: Any, b: Any = None, *, activation: str | None = "tanh") -> None:
        self.use_bias = b is not None
        self.Wx, self.Wh, *bias = as_weights(Wx=Wx, Wh=Wh, **({"b": b} if self.use_bias else {}))
        if self.Wx.ndim != 2 or 0 in self.Wx.shape:
            raise ValueError(f"Wx: expected shape (units, input_dim), both at least 1; received {self.Wx.shape}")
        self.units, self.input_dim = self.Wx.shape
        expect_shape("Wh", self.Wh, (self.units, self.units), f"Wx has {self.units} units")
        self.b = bias[0] if bias else np.zeros(self.units, self.Wx.dtype)
        expect_shape("b", self.b, (self.units,), f"Wx has {self.units} units")
        self.activation = get(activation)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.Wx.dtype

    @property
    def weights(self) -> Mapping[str, Array]:
        return {"Wx": self.Wx, "Wh": self.Wh, **({"b": self.b} if self.use_bias else {})}

    def replace(self, **weights: Array) -> Self:
        return type(self)(**{**self.weights, **weights}, activation=self.activation.name)

    def astype(self, dtype: Any) -> Self:
        return self.replace(**{name: array.astype(dtype) for name, array in self.weights.items()})

    def project(self, x: Any) -> Any:
        """Wx x + b. x: (..., input_dim) -> (..., units)."""
        p = x.dot(self.Wx.T)
        p += self.b
        return p

    def update(self, p: Any, h: Any, out: Array | None = None) -> tuple[Any]:
        """activation(p + Wh h), written to `out` where given. p, h: (..., units) -> h_t: (..., units)."""
        z = h.dot(self.Wh.T)  # on the smallest layers `@` alone takes as long as this whole step
        z += p
        return (self.activation(z) if out is None else self.activation.f(z, out),)
