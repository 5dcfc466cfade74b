"""The cells: one time step each, written once, in the letters of the textbook.

A cell is `project(x)`, what does not depend on the state (so a layer does it for all time steps at once), and
`update(p, *states)`, what does. Both take arrays with any leading dimensions, or what behaves like them (`Values`).
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from rnn_scratch.activations import Activation, get
from rnn_scratch.base import Array, Shape, States, Values, Weight, as_weights, expect_shape


class Cell:
    """What the loop over time asks of a cell, and what every cell does alike.

    Wx: (gates * units, input_dim), Wh: (gates * units, units), b: see the cell, or None for no bias (kept as zeros;
    `use_bias` remembers). One row a unit and gate, the gates one after another in the order of `gates`. All of one
    dtype: float16, bfloat16, float32 or float64, in which everything is computed. Keras's `kernel` is Wx transposed,
    its `recurrent_kernel` Wh transposed.

    name: Keras's, as its layers are called. states: names of the states, the first of which is the output. carried:
    those of them that are not seen in the output. A cell that carries any is made of `gates_of(p, h)`, everything that
    the seen states decide, and `carry(*gates, *carried)`, the rest. arrays, matrices: as of a `Layer`.

    Raises ValueError for weights that do not fit each other and for an activation that is not in the table.
    """

    name: ClassVar[str]
    gates: ClassVar[tuple[str, ...]]
    states: ClassVar[tuple[str, ...]] = ("h",)
    carried: ClassVar[tuple[str, ...]] = ()
    arrays: ClassVar[tuple[str, ...]] = ("Wx", "Wh", "b")
    matrices: ClassVar[tuple[str, ...]] = ("Wx", "Wh")

    update: Callable[..., States]
    """update(p, *states, out=None) -> the new states, the output written to `out` where given. p: as `project` makes
    it; states and out: (..., units)."""

    def __init__(self, Wx: Weight, Wh: Weight, b: Weight, **settings: Any) -> None:
        self.use_bias, self.settings = b is not None, settings
        self.Wx, self.Wh, *bias = as_weights(Wx=Wx, Wh=Wh, **({"b": b} if self.use_bias else {}))
        self._check_rows()
        self.units, self.input_dim = self.Wx.shape[0] // len(self.gates), self.Wx.shape[1]
        self.b = bias[0] if bias else np.zeros(self.bias_shape, self.dtype)
        expect_shape("Wh", self.Wh, (len(self.Wx), self.units), f"Wx has {self.units} units")
        expect_shape("b", self.b, self.bias_shape, f"Wx has {self.units} units")
        self.activation: Activation = get(settings["activation"])

    def _check_rows(self) -> None:
        gates, shape = len(self.gates), self.Wx.shape
        rows = "units" if gates == 1 else f"{gates} * units"
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"Wx: expected shape ({rows}, input_dim), both at least 1; received {shape}")
        if shape[0] % gates:
            names = ", ".join(self.gates)
            raise ValueError(
                f"Wx: expected a multiple of {gates} rows, one block for each gate ({names}); received {shape[0]}"
            )

    @property
    def bias_shape(self) -> Shape:
        return (len(self.Wx),)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.Wx.dtype

    @property
    def weights(self) -> Mapping[str, Array]:
        names = (name for name in self.arrays if self.use_bias or name != "b")
        return {name: getattr(self, name) for name in names}

    def replace(self, **weights: Weight) -> Self:
        """The same cell with those weights in place of its own."""
        return type(self)(**{"b": None, **self.weights, **weights}, **self.settings)

    def mapped(self, change: Callable[[str, Array], Values]) -> Self:
        """A copy with change(name, array) in place of each array; nothing is checked."""
        twin = copy.copy(self)
        for name in self.arrays:
            setattr(twin, name, change(name, getattr(self, name)))
        return twin

    def astype(self, dtype: Any) -> Self:
        return self.mapped(lambda name, array: array.astype(dtype, order="F"))

    def project(self, x: Values) -> Values:
        """Wx x + b. x: (..., input_dim) -> (..., gates * units)."""
        p = x.dot(self.Wx.T)
        p += self.b
        return p

    def split(self, z: Values) -> list[Values]:
        """z (..., gates * units) -> for each gate its (..., units)."""
        u = self.units
        return [z[..., n * u : (n + 1) * u] for n in range(len(self.gates))]


class SimpleRNNCell(Cell):
    """h_t = activation(Wx x_t + Wh h_{t-1} + b)

    Wx: (units, input_dim), Wh: (units, units), b: (units,) or None.
    """

    name = "simple_rnn"
    gates = ("h",)

    def __init__(self, Wx: Weight, Wh: Weight, b: Weight = None, *, activation: str | None = "tanh") -> None:
        super().__init__(Wx, Wh, b, activation=activation)

    def update(self, p: Values, h: Values, out: Array | None = None) -> tuple[Values]:
        """activation(p + Wh h), written to `out` where given. p, h: (..., units) -> h_t: (..., units)."""
        z = h.dot(self.Wh.T)  # on the smallest layers `@` alone takes as long as this whole step
        z += p
        return (self.activation(z, out),)


class LSTMCell(Cell):
    """i, f, o = recurrent_activation(Wx x_t + Wh h_{t-1} + b), each with its own rows
    g = activation(Wx_c x_t + Wh_c h_{t-1} + b_c)
    c_t = f c_{t-1} + i g
    h_t = o activation(c_t)

    Rows in Keras's order i, f, c, o. Wx: (4 units, input_dim), Wh: (4 units, units), b: (4 units,) or None. Keras's
    unit_forget_bias is in b already.
    """

    name = "lstm"
    gates = ("i", "f", "c", "o")
    states = ("h", "c")
    carried = ("c",)

    def __init__(
        self,
        Wx: Weight,
        Wh: Weight,
        b: Weight = None,
        *,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
    ) -> None:
        super().__init__(Wx, Wh, b, activation=activation, recurrent_activation=recurrent_activation)
        self.recurrent_activation: Activation = get(recurrent_activation)

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values, Values, Values]:
        """The four gates, (..., units) each. p: (..., 4 units), h: (..., units)."""
        z = h.dot(self.Wh.T)
        z += p
        i, f, g, o = self.split(z)
        s = self.recurrent_activation
        return s(i), s(f), self.activation(g), s(o)

    def carry(
        self, i: Values, f: Values, g: Values, o: Values, c: Values, out: Array | None = None
    ) -> tuple[Values, Values]:
        """h_t, c_t; all (..., units)."""
        c = f * c + i * g
        return delivered(o * self.activation(c), out), c

    def update(self, p: Values, h: Values, c: Values, out: Array | None = None) -> tuple[Values, Values]:
        """p: (..., 4 units), h, c: (..., units) -> h_t, c_t."""
        return self.carry(*self.gates_of(p, h), c, out)


class GRUCell(Cell):
    """z, r = recurrent_activation(Wx x_t + Wh h_{t-1} + b), each with its own rows
    n = activation(Wx_h x_t + b_h + r (Wh_h h_{t-1} + b'_h))        reset_after
    n = activation(Wx_h x_t + b_h + Wh_h (r h_{t-1}))               otherwise
    h_t = z h_{t-1} + (1 - z) n

    Rows in Keras's order z, r, h. Wx: (3 units, input_dim), Wh: (3 units, units). b: (3 units,) or None; with
    reset_after (2, 3 units), the bias beside Wx x (b) and that beside Wh h (b').
    """

    name = "gru"
    gates = ("z", "r", "h")

    def __init__(
        self,
        Wx: Weight,
        Wh: Weight,
        b: Weight = None,
        *,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        reset_after: bool = True,
    ) -> None:
        self.reset_after = reset_after
        super().__init__(
            Wx, Wh, b, activation=activation, recurrent_activation=recurrent_activation, reset_after=reset_after
        )
        self.recurrent_activation: Activation = get(recurrent_activation)

    @property
    def bias_shape(self) -> Shape:
        return (2, len(self.Wx)) if self.reset_after else (len(self.Wx),)

    def project(self, x: Values) -> Values:
        """Wx x + b. x: (..., input_dim) -> (..., 3 units)."""
        p = x.dot(self.Wx.T)
        p += self.b[0] if self.reset_after else self.b
        return p

    def gates_of(self, p: Values, h: Values) -> tuple[Values, Values]:
        """z and n, (..., units) each. p: (..., 3 units), h: (..., units)."""
        s = self.recurrent_activation
        p_z, p_r, p_h = self.split(p)
        if self.reset_after:
            q = h.dot(self.Wh.T)
            q += self.b[1]
            q_z, q_r, q_h = self.split(q)
            z, r = s(p_z + q_z), s(p_r + q_r)
            return z, self.activation(p_h + r * q_h)
        q_z, q_r = self.split(h.dot(self.Wh[: 2 * self.units].T))[:2]
        z, r = s(p_z + q_z), s(p_r + q_r)
        return z, self.activation(p_h + (r * h).dot(self.Wh[2 * self.units :].T))

    def update(self, p: Values, h: Values, out: Array | None = None) -> tuple[Values]:
        """p: (..., 3 units), h: (..., units) -> h_t: (..., units)."""
        z, n = self.gates_of(p, h)
        return (delivered(blend(z, h, n), out),)


CELLS: Mapping[str, type[Cell]] = {cell.name: cell for cell in (SimpleRNNCell, LSTMCell, GRUCell)}
"""Every cell by its name, which is also that of the layer that loops it."""


def delivered(value: Values, out: Array | None) -> Values:
    """The value itself, or `out` with the value in it."""
    if out is None:
        return value
    out[...] = value
    return out


def blend(z: Values, a: Values, b: Values) -> Values:
    """z a + (1 - z) b; of balls whatever their own `blend` makes of it, which knows that z stands there twice."""
    return z * a + (1 - z) * b if isinstance(z, np.ndarray) else z.blend(a, b)
