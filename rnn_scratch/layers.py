"""Cells looped over time, as Keras loops them: direction, masks, states, and what is returned.

How a loop goes stands in `rnn_scratch.loop`, what a step computes in `rnn_scratch.cells`.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from rnn_scratch.base import Array, Layer, Mask, Shape, States, Values, Weight
from rnn_scratch.cells import Cell, GRUCell, LSTMCell, SimpleRNNCell
from rnn_scratch.loop import MaskRule, Step, fast_loop, loop

__all__ = [
    "GRU",
    "LSTM",
    "PROFILES",
    "SETTINGS",
    "Layer",
    "Mask",
    "Profile",
    "Recurrent",
    "Settings",
    "SimpleRNN",
    "recurrent",
]


@dataclass(frozen=True)
class Profile:
    """Where Keras's backends disagree: about masks, and about initial states of one row.

    leading_state: a masked step before the first unmasked one puts out the initial state, not zeros; not with `unroll`.
    unrolled_keeps: with `unroll`, zero_output_for_mask is ignored. unrolled_unreversed: with `unroll`,
    zero_output_for_mask and go_backwards, what is zeroed of a sequence goes by the mask as it came, not reversed.
    spreads_states: an initial state (1, units) is every row's; with `unroll` it is so everywhere.
    """

    name: str
    leading_state: bool = False
    unrolled_keeps: bool = False
    unrolled_unreversed: bool = False
    spreads_states: bool = True


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("tensorflow", unrolled_unreversed=True),
        Profile("torch", unrolled_unreversed=True),
        Profile("jax", leading_state=True, unrolled_keeps=True, spreads_states=False),
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
    initial_state: (batch, units), or a tuple of one for each of the cell's states. Zeros if None. (1, units) is every
        row's, as in Keras.
    go_backwards: from the last step to the first. Outputs stand in the order of processing, as in Keras: element 0 is
        the output after the last step.
    return_sequences: all outputs (batch, timesteps, units), not the last one (batch, units). The last is that of the
        last step processed, masked or not.
    return_state: a tuple, the output followed by each final state.
    stateful: the final states are the next call's initial ones; `reset_state()` forgets them.
    unroll: changes nothing but what Keras's backends make of it, of masks and of states of one row.

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
        self.cell, self.matrices = cell, cell.matrices
        self.return_sequences = settings.get("return_sequences", False)
        self.return_state = settings.get("return_state", False)
        self.go_backwards = settings.get("go_backwards", False)
        self._stateful = settings.get("stateful", False)
        self.zero_output_for_mask = settings.get("zero_output_for_mask", False)
        self.unroll = settings.get("unroll", False)
        self.state: tuple[Array, ...] | None = None

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        x = self.processed(x)
        if mask is None and isinstance(x, np.ndarray):
            return fast_loop(self.cell.update, self._projected(x), states, self.units, sequences=self.return_sequences)
        return loop(self._step(x), states, x.shape[1], self.mask_rule(mask), sequences=self.return_sequences)

    def processed(self, x: Values) -> Values:
        """Inputs, outputs or a mask in the order of processing, of those in the order of time."""
        return x[:, ::-1] if self.go_backwards else x

    def mask_rule(self, mask: Mask | None) -> MaskRule:
        """What masked steps do in this layer. mask: in the order of time."""
        if mask is None:
            return MaskRule()
        leading_state = self.profile.leading_state and not self.unroll
        return MaskRule(self.processed(mask), self._shown(mask), leading_state)

    def _shown(self, mask: Mask) -> Mask | None:
        if not self.zero_output_for_mask or (self.unroll and self.profile.unrolled_keeps):
            return None
        as_it_came = self.unroll and self.profile.unrolled_unreversed and self.return_sequences
        return mask if as_it_came else self.processed(mask)

    def _projected(self, x: Array) -> Array:
        """All steps at once: (batch, timesteps, input_dim) -> (timesteps, batch, what the cell makes of it)."""
        x = np.ascontiguousarray(x.swapaxes(0, 1))
        timesteps, batch, _ = x.shape
        p: Array = self.cell.project(x.reshape(timesteps * batch, self.input_dim))
        return p.reshape(timesteps, batch, p.shape[-1])

    def _step(self, x: Values) -> Step:
        """One step of the cell. x: in the order of processing."""
        cell = self.cell
        with np.errstate(invalid="ignore"):  # infinity may stand at masked steps
            known = self._projected(x) if isinstance(x, np.ndarray) else None

        def step(t: int, states: States) -> tuple[Values, States]:
            # balls one by one: of all steps at once they would fill the memory
            p_t = cell.project(x[:, t]) if known is None else known[t]
            new = cell.update(p_t, *states)
            return new[0], new

        return step

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        return mask if self.return_sequences else None

    # --- the rest ---

    def results(self, y: Values, states: States) -> tuple[Values, ...]:
        return (y, *states) if self.return_state else (y,)

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        batch, timesteps = shape[:2]
        y = (batch, timesteps, self.units) if self.return_sequences else (batch, self.units)
        states = [(batch, units) for units in self.state_units]
        return (y, *states) if self.return_state else (y,)

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
    def spreads_states(self) -> bool:
        return self.unroll or self.profile.spreads_states

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.cell.states

    @property
    def state_units(self) -> tuple[int, ...]:
        return (self.cell.units,) * len(self.cell.states)

    @property
    def own_weights(self) -> Mapping[str, Array]:
        return self.cell.weights

    def replace(self, **weights: Array) -> Self:
        twin = copy.copy(self)
        twin.cell, twin.state = self.cell.replace(**weights), None
        return twin

    def mapped(self, change: Callable[[Layer, str, Array], Values]) -> Self:
        twin = copy.copy(self)
        twin.cell = self.cell.mapped(lambda name, array: change(self, name, array))
        twin.state = None
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


# --- the layers by their Keras names ---


def _weight(name: str) -> Any:
    """The cell's array of that name. Setting it makes a new cell, so that an array that does not fit is refused."""

    def set_weight(layer: Recurrent, array: ArrayLike) -> None:
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
        self,
        Wx: Weight,
        Wh: Weight,
        b: Weight = None,
        *,
        activation: str | None = "tanh",
        **settings: Unpack[Settings],
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
        Wx: Weight,
        Wh: Weight,
        b: Weight = None,
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
        Wx: Weight,
        Wh: Weight,
        b: Weight = None,
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


_NAMED: Mapping[str, Callable[..., Recurrent]] = {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}


def recurrent(cell: Cell, settings: Settings) -> Recurrent:
    """The layer of that cell: a SimpleRNN, LSTM or GRU, or where the cell has no layer of its own a Recurrent."""
    if cell.name not in _NAMED:
        return Recurrent(cell, **settings)
    arrays = {"b": None, **cell.weights}
    return _NAMED[cell.name](**arrays, **cell.settings, **settings)
