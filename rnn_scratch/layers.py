"""The loop over time: masks, states, direction and what is returned. It knows of no cell in particular."""

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rnn_scratch.activations import Array
from rnn_scratch.cells import Cell, SimpleRNNCell, expect_shape

Output = Array | tuple[Array, ...]

SETTINGS = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")


class Recurrent:
    """A cell looped over time, as `keras.layers.RNN` loops it.

    Called with x (batch, timesteps, input_dim), or (timesteps, input_dim) for one sequence without the batch axis
    (then no array has it). x is cast to the dtype of the weights.

    mask: (batch, timesteps), true where a step counts. At a masked step the state stays and the output repeats the
        last one, or is zero with `zero_output_for_mask`. Masked steps are chosen around, never multiplied: NaN in one
        does not leak.
    initial_state: (batch, units), or a tuple of one for each of the cell's states. Zeros if None.
    go_backwards: from the last step to the first. Outputs stand in the order of processing, as in Keras: element 0 is
        the output after the last step.
    return_sequences: all outputs (batch, timesteps, units), not the last one (batch, units). The last is that of the
        last step processed, masked or not.
    return_state: a tuple, the output followed by each final state.
    stateful: the final states are the next call's initial ones; `reset_state()` forgets them.

    Keras's backends disagree about masked steps before the first unmasked one when the initial state is not zero: here
    they put out zeros, as with TensorFlow and PyTorch. (JAX and NumPy put out the initial state.)

    Raises ValueError for arrays of another shape, naming the array, what was expected and what came.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
    ) -> None:
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.zero_output_for_mask = zero_output_for_mask
        self.state: tuple[Array, ...] | None = None

    def __call__(self, x: Any, *, mask: Any = None, initial_state: Any = None) -> Output:
        x = as_reals("x", x).astype(self.dtype, copy=False)
        batched = x.ndim != 2
        if not batched:
            x, mask, initial_state = add_batch_axis(x, mask, initial_state)
        self.check_inputs(x)
        states = self.initial_states(len(x), initial_state)
        steps = None if mask is None else self.check_mask(mask, x.shape[:2]).T[..., None]
        x = np.ascontiguousarray(x.swapaxes(0, 1))
        if self.go_backwards:
            x, steps = x[::-1], None if steps is None else steps[::-1]
        output, states = self._loop(x, states) if steps is None else self._masked_loop(x, states, steps)
        if self.stateful:
            self.state = tuple(state.copy() for state in states)
        results = [output.swapaxes(0, 1) if self.return_sequences else output, *(states if self.return_state else ())]
        results = results if batched else [result[0] for result in results]
        return tuple(results) if self.return_state else results[0]

    def _project(self, x: Array) -> Array:
        """All steps at once: (timesteps, batch, input_dim) -> (timesteps, batch, what the cell makes of it)."""
        timesteps, batch, _ = x.shape
        p: Array = self.cell.project(x.reshape(timesteps * batch, self.input_dim))
        return p.reshape(timesteps, batch, p.shape[-1])

    def _loop(self, x: Array, states: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """x in the order of processing -> the outputs so, (timesteps, batch, units), or the last; the final states."""
        p, update = self._project(x), self.cell.update
        # h_t may overwrite p_t where they are of one size: a new array for a long sequence costs more than its sums.
        y = p if p.shape[-1] == self.units else np.empty((*p.shape[:2], self.units), p.dtype)
        for p_t, y_t in zip(p, y, strict=True):
            states = update(p_t, *states, y_t)
        return (y if self.return_sequences else y[-1].copy()), tuple(state.copy() for state in states)

    def _masked_loop(
        self, x: Array, states: tuple[Array, ...], mask: NDArray[np.bool_]
    ) -> tuple[Array, tuple[Array, ...]]:
        """`_loop` with a mask (timesteps, batch, 1), in the order of processing too."""
        y = np.empty((*x.shape[:2], self.units), x.dtype)
        last = np.zeros_like(states[0])
        with np.errstate(invalid="ignore"):  # NaN and infinity may stand at masked steps
            for p_t, y_t, keep in zip(self._project(x), y, mask, strict=True):
                new = self.cell.update(p_t, *states)
                last = np.where(keep, new[0], 0 if self.zero_output_for_mask else last)
                states = tuple(np.where(keep, n, s) for n, s in zip(new, states, strict=True))
                y_t[...] = last
        return (y if self.return_sequences else last), states

    def initial_states(self, batch: int, initial_state: Any = None) -> tuple[Array, ...]:
        """The states a call starts from: those given, else the kept ones, else zeros; each (batch, units)."""
        names = self.cell.states
        if initial_state is None:
            if self.state is None:
                return tuple(np.zeros((batch, self.units), self.dtype) for _ in names)
            initial_state = self.state
        given = tuple(initial_state) if isinstance(initial_state, tuple | list) else (initial_state,)
        if len(given) != len(names):
            raise ValueError(f"initial_state: expected {len(names)} ({', '.join(names)}); received {len(given)}")
        states = tuple(as_reals("initial_state", state).astype(self.dtype) for state in given)
        for state in states:
            expect_shape("initial_state", state, (batch, self.units), "batch, units")
        return states

    def reset_state(self) -> None:
        self.state = None

    def check_inputs(self, x: Array) -> None:
        if x.ndim != 3 or x.shape[2] != self.input_dim:
            raise ValueError(f"x: expected shape (batch, timesteps, {self.input_dim}); received {x.shape}")
        if x.shape[1] == 0:
            raise ValueError(f"x: expected at least 1 timestep; received {x.shape}")

    def check_mask(self, mask: Any, expected: tuple[int, ...]) -> NDArray[np.bool_]:
        steps: Array = np.asarray(mask)
        expect_shape("mask", steps, expected, "batch, timesteps")
        if steps.dtype.kind not in "biuf":
            raise ValueError(f"mask: expected booleans; received {steps.dtype}")
        return steps.astype(bool)

    @property
    def units(self) -> int:
        return self.cell.units

    @property
    def input_dim(self) -> int:
        return self.cell.input_dim

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.cell.dtype

    def replace(self, **weights: Array) -> Self:
        """The same layer with those weights in place of its own, and no state kept as yet."""
        twin = copy.copy(self)
        twin.cell, twin.state = self.cell.replace(**weights), None
        return twin

    @property
    def settings(self) -> dict[str, bool]:
        """The loop's own settings by their Keras names."""
        return {name: getattr(self, name) for name in SETTINGS}


def as_reals(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected real numbers; received {array.dtype}")
    return array


def add_batch_axis(x: Array, mask: Any, initial_state: Any) -> tuple[Array, Any, Any]:
    if mask is not None:
        mask = np.asarray(mask)[None]
    if initial_state is not None:
        given = initial_state if isinstance(initial_state, tuple | list) else (initial_state,)
        initial_state = tuple(np.asarray(state)[None] for state in given)
    return x[None], mask, initial_state


def _weight(name: str) -> Any:
    """The cell's array of that name. Setting it makes a new cell, so that an array that does not fit is refused."""

    def set_weight(layer: Recurrent, array: Any) -> None:
        layer.cell = layer.cell.replace(**{name: np.asarray(array).astype(layer.dtype)})

    return property(lambda layer: getattr(layer.cell, name), set_weight)


class SimpleRNN(Recurrent):
    """h_t = activation(Wx x_t + Wh h_{t-1} + b), Keras's `SimpleRNN` from scratch.

    Wx: (units, input_dim), Wh: (units, units), b: (units,) or None; one of float16, float32, float64, all the same: it
    is the precision computed in. The settings are those of `Recurrent`, which says what a call takes and returns.

    >>> layer = SimpleRNN(Wx, Wh, b, return_sequences=True)
    >>> layer(x)                    # x (batch, timesteps, input_dim) -> (batch, timesteps, units)

    Source: Elman, Finding structure in time, 1990; `keras.layers.SimpleRNN`, Keras 3 on TensorFlow. Deviation from
    Keras: the weights lie as in the textbook, one row a unit, where Keras has one column a unit.
    """

    def __init__(
        self,
        Wx: Any,
        Wh: Any,
        b: Any = None,
        *,
        activation: str | None = "tanh",
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
    ) -> None:
        super().__init__(
            SimpleRNNCell(Wx, Wh, b, activation=activation),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
        )

    Wx = _weight("Wx")
    Wh = _weight("Wh")
    b = _weight("b")

    @property
    def activation(self) -> str:
        return self.cell.activation.name
