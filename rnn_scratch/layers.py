"""Layers, and the loop over time: masks, states, direction and what is returned. It knows of no cell in particular.

A layer's `forward(x, mask, states)` is what it computes and no more, on arrays or on anything that behaves like them
(`parity` calls it on balls); `__call__` is what a user calls, and checks what comes in.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from rnn_scratch.activations import Array
from rnn_scratch.cells import Cell, GRUCell, LSTMCell, SimpleRNNCell, expect_shape

Output = Array | tuple[Array, ...]
Mask = NDArray[np.bool_]


class Layer:
    """What every layer does alike.

    name: by which a model and its reports know it. parts: the layers that it is made of, by name. ndim: of its inputs,
    None for any; one axis less is one sequence without the batch axis, and then no array has it.
    """

    kind = "layer"
    ndim: int | None = None

    def __init__(self, name: str | None = None, dtype: Any = np.float32) -> None:
        self.name = name or self.kind
        self.parts: dict[str, Layer] = {}
        self._dtype = np.dtype(dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What it computes in: that of its weights, or of those of the first part that has any."""
        return next((part.dtype for part in self.parts.values() if part.weights), self._dtype)

    # --- what it computes: for each layer its own ---

    def forward(self, x: Any, mask: Mask | None, states: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """The output (a tuple of them where there are several) and the states after it. x: (batch, timesteps, ...)."""
        raise NotImplementedError

    def compute_mask(self, x: Any, mask: Mask | None) -> Mask | None:
        """The mask that goes on to the next layer."""
        return mask

    def output_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The shapes of what a call returns for x of that shape."""
        return (shape,)

    # --- a call ---

    def __call__(self, x: Any, *, mask: Any = None, initial_state: Any = None) -> Output:
        x = self.as_inputs(x)
        batched = self.ndim is None or x.ndim != self.ndim - 1
        if not batched:
            x, mask, initial_state = add_batch_axis(x, mask, initial_state)
        self.check_inputs(x)
        states = self.initial_states(len(x), initial_state)
        y, states = self.forward(x, None if mask is None else self.check_mask(mask, x.shape[:2]), states)
        self.keep(states)
        results = self.results(y, states)
        results = results if batched else tuple(result[0] for result in results)
        return results if len(results) > 1 else results[0]

    def results(self, y: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        """What of the output and the states is returned."""
        return y if isinstance(y, tuple) else (y,)

    def as_inputs(self, x: Any) -> Array:
        return as_reals("x", x).astype(self.dtype, copy=False)

    def check_inputs(self, x: Array) -> None:
        """ValueError for inputs of another shape, naming what was expected and what came."""

    def check_mask(self, mask: Any, expected: tuple[int, ...]) -> Mask:
        steps: Array = np.asarray(mask)
        expect_shape("mask", steps, expected, "batch, timesteps")
        if steps.dtype.kind not in "biuf":
            raise ValueError(f"mask: expected booleans; received {steps.dtype}")
        return steps.astype(bool)

    # --- states ---

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(f"{part}.{name}" for part, layer in self.parts.items() for name in layer.state_names)

    @property
    def state_units(self) -> tuple[int, ...]:
        """The size of each state."""
        return tuple(units for layer in self.parts.values() for units in layer.state_units)

    @property
    def stateful(self) -> bool:
        return any(layer.stateful for layer in self.parts.values())

    def kept(self, batch: int) -> tuple[Array, ...]:
        """The states kept from the last call, zeros where none are."""
        return tuple(state for layer in self.parts.values() for state in layer.kept(batch))

    def keep(self, states: tuple[Array, ...]) -> None:
        for layer, own in self.shares(states):
            layer.keep(own)

    def reset_state(self) -> None:
        for layer in self.parts.values():
            layer.reset_state()

    def shares(self, states: tuple[Any, ...]) -> Iterator[tuple["Layer", tuple[Any, ...]]]:
        """Each part with those of the states that are its own."""
        start = 0
        for layer in self.parts.values():
            stop = start + len(layer.state_units)
            yield layer, states[start:stop]
            start = stop

    def initial_states(self, batch: int, initial_state: Any = None) -> tuple[Array, ...]:
        """The states a call starts from: those given, else the kept ones, else zeros; each (batch, units)."""
        kept = self.kept(batch) if initial_state is None else flat(initial_state)
        if len(kept) != len(self.state_units):
            names = ", ".join(self.state_names)
            raise ValueError(f"initial_state: expected {len(self.state_units)} ({names}); received {len(kept)}")
        states = tuple(as_reals("initial_state", state).astype(self.dtype) for state in kept)
        for state, units in zip(states, self.state_units, strict=True):
            expect_shape("initial_state", state, (batch, units), "batch, units")
        return states

    # --- weights and settings ---

    @property
    def weights(self) -> Mapping[str, Array]:
        """Its arrays by name; those of a part as `part.name`."""
        return {f"{part}.{name}": array for part, layer in self.parts.items() for name, array in layer.weights.items()}

    def replace(self, **weights: Array) -> Self:
        """The same layer with those weights in place of its own, and no state kept as yet."""
        twin = copy.copy(self)
        twin.parts = {
            part: layer.replace(
                **{
                    name.removeprefix(f"{part}."): array
                    for name, array in weights.items()
                    if name.startswith(f"{part}.")
                }
            )
            for part, layer in self.parts.items()
        }
        return twin

    def mapped(self, change: Callable[[str, Array], Any]) -> Self:
        """A copy with change(name, array) in place of each weight; nothing is checked."""
        twin = copy.copy(self)
        twin.parts = {part: layer.mapped(change) for part, layer in self.parts.items()}
        return twin

    def with_sequences(self) -> Self:
        """The same layer with return_sequences, and no state returned beside."""
        return copy.copy(self)

    @property
    def units(self) -> int:
        """The size of the last axis of its output."""
        raise NotImplementedError


@dataclass(frozen=True)
class Profile:
    """Where Keras's backends disagree, all about masks.

    leading_state: a masked step before the first unmasked one puts out the initial state, not zeros; not with `unroll`.
    unrolled_keeps: with `unroll`, zero_output_for_mask is ignored. unrolled_unreversed: with `unroll`,
    zero_output_for_mask and go_backwards, what is zeroed of a sequence goes by the mask as it came, not reversed.
    """

    name: str
    leading_state: bool = False
    unrolled_keeps: bool = False
    unrolled_unreversed: bool = False


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("tensorflow", unrolled_unreversed=True),
        Profile("torch", unrolled_unreversed=True),
        Profile("jax", leading_state=True, unrolled_keeps=True),
        Profile("numpy", leading_state=True, unrolled_keeps=True),
    )
}


class Settings(TypedDict, total=False):
    """The settings of the loop, by their Keras names; see `Recurrent`."""

    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    zero_output_for_mask: bool
    unroll: bool


SETTINGS = tuple(Settings.__annotations__)


class Recurrent(Layer):
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
    unroll: changes nothing but, with masks, what Keras's backends make of it.

    profile: whose behaviour to follow where Keras's backends disagree (`Profile`); TensorFlow's unless it is set.

    Raises ValueError for arrays of another shape, naming the array, what was expected and what came.
    """

    ndim = 3
    profile = PROFILES["tensorflow"]

    def __init__(self, cell: Cell, name: str | None = None, **settings: Unpack[Settings]) -> None:
        unknown = set(settings) - set(SETTINGS)
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: expected of {', '.join(SETTINGS)}")
        self.kind = cell.name
        super().__init__(name, cell.dtype)
        self.cell = cell
        self.return_sequences = settings.get("return_sequences", False)
        self.return_state = settings.get("return_state", False)
        self.go_backwards = settings.get("go_backwards", False)
        self._stateful = settings.get("stateful", False)
        self.zero_output_for_mask = settings.get("zero_output_for_mask", False)
        self.unroll = settings.get("unroll", False)
        self.state: tuple[Array, ...] | None = None

    def forward(self, x: Any, mask: Mask | None, states: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        shown = None if mask is None else self.shown(mask)
        if self.go_backwards:
            x, mask = x[:, ::-1], None if mask is None else mask[:, ::-1]
        if mask is None and isinstance(x, np.ndarray):
            return self._loop(x, states)
        return self._choosing_loop(x, states, mask, shown)

    def _project(self, x: Array) -> Array:
        """All steps at once: (batch, timesteps, input_dim) -> (timesteps, batch, what the cell makes of it)."""
        x = np.ascontiguousarray(x.swapaxes(0, 1))
        timesteps, batch, _ = x.shape
        p: Array = self.cell.project(x.reshape(timesteps * batch, self.input_dim))
        return p.reshape(timesteps, batch, p.shape[-1])

    def _loop(self, x: Array, states: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """x in the order of processing -> the outputs so, (batch, timesteps, units), or the last; the final states."""
        p, update = self._project(x), self.cell.update
        # h_t may overwrite p_t where they are of one size: a new array for a long sequence costs more than its sums.
        y = p if p.shape[-1] == self.units else np.empty((*p.shape[:2], self.units), p.dtype)
        for p_t, y_t in zip(p, y, strict=True):
            states = update(p_t, *states, y_t)
        return (y.swapaxes(0, 1) if self.return_sequences else y[-1].copy()), tuple(state.copy() for state in states)

    def _choosing_loop(
        self, x: Any, states: tuple[Any, ...], mask: Mask | None, shown: Mask | None
    ) -> tuple[Any, tuple[Any, ...]]:
        """`_loop` with a mask, (batch, timesteps) in the order of processing too, and for what is no array."""
        y, outputs = self.before_first(states[0], np.zeros_like(states[0])), []
        with np.errstate(invalid="ignore"):  # NaN and infinity may stand at masked steps
            for t, p_t in enumerate(self._steps(x)):
                new = self.cell.update(p_t, *states)
                if mask is not None:
                    keep = mask[:, t, None]
                    new = tuple(np.where(keep, n, s) for n, s in zip(new, states, strict=True))
                    y = np.where(keep, new[0], y)
                else:
                    y = new[0]
                states = new
                y_t = y if shown is None else np.where(shown[:, t, None], y, np.zeros_like(y))
                if self.return_sequences:
                    outputs.append(y_t)
        return (np.stack(outputs, axis=1) if self.return_sequences else y_t), states

    def _steps(self, x: Any) -> Iterator[Any]:
        """What `project` makes of each step: at once for arrays, one by one for what is none."""
        if isinstance(x, np.ndarray):
            yield from self._project(x)
        else:
            yield from (self.cell.project(x[:, t]) for t in range(x.shape[1]))

    # --- masks: the rule in `_choosing_loop`, and what of it depends on settings and backends ---

    def before_first(self, initial: Any, zeros: Any) -> Any:
        """What masked steps before the first unmasked one put out."""
        return initial if self.profile.leading_state and not self.unroll else zeros

    def shown(self, mask: Mask) -> Mask | None:
        """Where in the order of processing the output is not replaced by zeros; None for everywhere."""
        if not self.zero_output_for_mask or (self.unroll and self.profile.unrolled_keeps):
            return None
        as_it_came = self.unroll and self.profile.unrolled_unreversed and self.return_sequences
        return mask[:, ::-1] if self.go_backwards and not as_it_came else mask

    def compute_mask(self, x: Any, mask: Mask | None) -> Mask | None:
        return mask if self.return_sequences else None

    # --- the rest ---

    def results(self, y: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        return (y, *states) if self.return_state else (y,)

    def output_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        batch, timesteps = shape[:2]
        y = (batch, timesteps, self.units) if self.return_sequences else (batch, self.units)
        return (y, *((batch, units) for units in self.state_units if self.return_state))

    def check_inputs(self, x: Array) -> None:
        if x.ndim != 3 or x.shape[2] != self.input_dim:
            raise ValueError(f"x: expected shape (batch, timesteps, {self.input_dim}); received {x.shape}")
        if x.shape[1] == 0:
            raise ValueError(f"x: expected at least 1 timestep; received {x.shape}")

    @property
    def stateful(self) -> bool:
        return self._stateful

    @stateful.setter
    def stateful(self, value: bool) -> None:
        self._stateful = value

    def kept(self, batch: int) -> tuple[Array, ...]:
        if self.state is not None:
            return self.state
        return tuple(np.zeros((batch, units), self.dtype) for units in self.state_units)

    def keep(self, states: tuple[Array, ...]) -> None:
        if self.stateful:
            self.state = tuple(state.copy() for state in states)

    def reset_state(self) -> None:
        self.state = None

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.cell.states

    @property
    def state_units(self) -> tuple[int, ...]:
        return (self.cell.units,) * len(self.cell.states)

    @property
    def weights(self) -> Mapping[str, Array]:
        return self.cell.weights

    def replace(self, **weights: Array) -> Self:
        twin = copy.copy(self)
        twin.cell, twin.state = self.cell.replace(**weights), None
        return twin

    def mapped(self, change: Callable[[str, Array], Any]) -> Self:
        twin = copy.copy(self)
        twin.cell, twin.state = self.cell.mapped(change), None
        return twin

    def with_sequences(self) -> Self:
        twin = copy.copy(self)
        twin.return_sequences, twin.return_state = True, False
        return twin

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.cell.dtype

    @property
    def units(self) -> int:
        return int(self.cell.units)

    @property
    def input_dim(self) -> int:
        return int(self.cell.input_dim)

    @property
    def settings(self) -> dict[str, bool]:
        """The loop's own settings by their Keras names."""
        return {name: getattr(self, name) for name in SETTINGS}


def _weight(name: str) -> Any:
    """The cell's array of that name. Setting it makes a new cell, so that an array that does not fit is refused."""

    def set_weight(layer: Recurrent, array: Any) -> None:
        layer.cell = layer.cell.replace(**{name: np.asarray(array).astype(layer.dtype)})

    return property(lambda layer: getattr(layer.cell, name), set_weight)


def _setting(name: str) -> Any:
    return property(lambda layer: layer.cell.settings[name])


class _Named(Recurrent):
    """A recurrent layer that is called by its cell's name and shows its cell's weights."""

    Wx = _weight("Wx")
    Wh = _weight("Wh")
    b = _weight("b")

    @property
    def activation(self) -> str:
        return self.cell.activation.name


class SimpleRNN(_Named):
    """h_t = activation(Wx x_t + Wh h_{t-1} + b), Keras's `SimpleRNN` from scratch.

    Wx: (units, input_dim), Wh: (units, units), b: (units,) or None; one of float16, bfloat16, float32, float64, all the
    same: it is the precision computed in. The settings are those of `Recurrent`, which says what a call takes and
    returns.

    >>> layer = SimpleRNN(Wx, Wh, b, return_sequences=True)
    >>> layer(x)                    # x (batch, timesteps, input_dim) -> (batch, timesteps, units)

    Source: Elman, Finding structure in time, 1990; `keras.layers.SimpleRNN`, Keras 3 on TensorFlow. Deviation from
    Keras: the weights lie as in the textbook, one row a unit, where Keras has one column a unit.
    """

    def __init__(
        self, Wx: Any, Wh: Any, b: Any = None, *, activation: str | None = "tanh", **settings: Unpack[Settings]
    ) -> None:
        super().__init__(SimpleRNNCell(Wx, Wh, b, activation=activation), **settings)


class LSTM(_Named):
    """Keras's `LSTM` from scratch: the equations of `LSTMCell`, gates in the order i, f, c, o.

    Wx: (4 units, input_dim), Wh: (4 units, units), b: (4 units,) or None; of one floating dtype, the precision computed
    in. States: h, c. The settings are those of `Recurrent`, which says what a call takes and returns.

    Source: Hochreiter and Schmidhuber, Long short-term memory, 1997, with the forget gate of Gers et al., 2000;
    `keras.layers.LSTM`, Keras 3 on TensorFlow. Deviation from Keras: one row a unit and gate, not one column.
    """

    def __init__(
        self,
        Wx: Any,
        Wh: Any,
        b: Any = None,
        *,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        **settings: Unpack[Settings],
    ) -> None:
        cell = LSTMCell(Wx, Wh, b, activation=activation, recurrent_activation=recurrent_activation)
        super().__init__(cell, **settings)

    recurrent_activation = _setting("recurrent_activation")


class GRU(_Named):
    """Keras's `GRU` from scratch: the equations of `GRUCell`, gates in the order z, r, h.

    Wx: (3 units, input_dim), Wh: (3 units, units), b: (2, 3 units) with reset_after (beside Wx x, beside Wh h),
    (3 units,) without, or None; of one floating dtype, the precision computed in. The settings are those of
    `Recurrent`, which says what a call takes and returns.

    Source: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014 (reset_after=False); cuDNN's
    variant of it (True); `keras.layers.GRU`, Keras 3 on TensorFlow. Deviation from Keras: one row a unit and gate, not
    one column.
    """

    def __init__(
        self,
        Wx: Any,
        Wh: Any,
        b: Any = None,
        *,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        reset_after: bool = True,
        **settings: Unpack[Settings],
    ) -> None:
        cell = GRUCell(
            Wx, Wh, b, activation=activation, recurrent_activation=recurrent_activation, reset_after=reset_after
        )
        super().__init__(cell, **settings)

    recurrent_activation = _setting("recurrent_activation")
    reset_after = _setting("reset_after")


def as_reals(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name}: expected real numbers; received {array.dtype}")
    return array


def flat(states: Any) -> tuple[Any, ...]:
    """States as one tuple, however Keras nests them. A list of numbers within is a state, not more of them."""
    if not isinstance(states, tuple | list):
        return (states,)
    return tuple(inner for state in states for inner in ((state,) if _is_state(state) else flat(state)))


def _is_state(value: Any) -> bool:
    first = value
    while isinstance(first, tuple | list) and first:
        first = first[0]
    return not isinstance(value, tuple | list) or bool(np.isscalar(first))


def add_batch_axis(x: Array, mask: Any, initial_state: Any) -> tuple[Array, Any, Any]:
    if mask is not None:
        mask = np.asarray(mask)[None]
    if initial_state is not None:
        initial_state = tuple(np.asarray(state)[None] for state in flat(initial_state))
    return x[None], mask, initial_state


def recurrent(cell: Cell, settings: Settings) -> Recurrent:
    """The layer of that cell: a SimpleRNN, LSTM or GRU."""
    layer_of: dict[str, type[_Named]] = {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
    return layer_of[cell.name](**{"b": None, **cell.weights}, **cell.settings, **settings)  # type: ignore[arg-type]


def named(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Layers by their names; the second of one name gets a number, as in Keras."""
    found: dict[str, Layer] = {}
    for layer in layers:
        name, number = layer.name, 0
        while name in found:
            number += 1
            name = f"{layer.name}_{number}"
        found[name] = layer
    return found
