"""Layers made of layers: both directions, stacked cells, one layer for every time step."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any, Self, Unpack

import numpy as np

from rnn_scratch.base import Array, Layer, Mask
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent, Settings, recurrent

MERGE_MODES = ("concat", "sum", "mul", "ave", None)


class Bidirectional(Layer):
    """Two layers over one sequence, the backward one's outputs turned round in time, merged.

    y_t = merge(forward(x)_t, backward(x)_{T-1-t})      or merge of both last outputs without return_sequences

    forward, backward: SimpleRNN, LSTM or GRU, alike or not but for return_sequences; as a rule the backward one has
    go_backwards. merge_mode: concat (of the last axis), sum, mul, ave, or None for a tuple of both. States, given and
    returned: the forward layer's, then the backward layer's. Masked steps of a sequence put out zeros in both halves:
    both layers' zero_output_for_mask is set to return_sequences, as Keras does.

    Raises ValueError for layers and merge modes that do not go together.
    """

    kind = "bidirectional"
    ndim = 3

    def __init__(
        self,
        forward: Recurrent,
        backward: Recurrent,
        *,
        merge_mode: str | None = "concat",
        name: str | None = None,
    ) -> None:
        super().__init__(name, forward.dtype)
        if merge_mode not in MERGE_MODES:
            raise ValueError(f"merge_mode: expected one of {', '.join(map(str, MERGE_MODES))}; received {merge_mode!r}")
        for what in ("return_sequences", "return_state", "stateful", "input_dim", "dtype"):
            if getattr(forward, what) != getattr(backward, what):
                raise ValueError(
                    f"backward: expected {what} {getattr(forward, what)}, as forward has; "
                    f"received {getattr(backward, what)}"
                )
        if merge_mode in ("sum", "mul", "ave") and forward.units != backward.units:
            raise ValueError(f"backward: expected {forward.units} units to {merge_mode}; received {backward.units}")
        self.merge_mode = merge_mode
        self.parts = {"forward": copy.copy(forward), "backward": copy.copy(backward)}
        for layer in self.directions:
            layer.zero_output_for_mask = self.return_sequences

    @property
    def directions(self) -> tuple[Recurrent, Recurrent]:
        return self.parts["forward"], self.parts["backward"]  # type: ignore[return-value]

    @property
    def return_sequences(self) -> bool:
        return self.directions[0].return_sequences

    @property
    def return_state(self) -> bool:
        return self.directions[0].return_state

    def forward(self, x: Any, mask: Mask | None, states: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        (y_f, s_f), (y_b, s_b) = (layer.forward(x, mask, own) for layer, own in self.shares(states))
        return self.merge(y_f, self.turned(y_b)), (*s_f, *s_b)

    def turned(self, y: Any) -> Any:
        """The backward layer's output, from its order of processing to that of time or back."""
        return y[:, ::-1] if self.return_sequences else y

    def apart(self, outputs: Sequence[Array]) -> tuple[Array, Array, tuple[Array, ...]] | None:
        """What a call returned as the output of each direction, in its own order of processing, and the states; None
        where the merge does not keep the directions apart."""
        if self.merge_mode is None:
            f, b, *states = outputs
        elif self.merge_mode == "concat":
            y, *states = outputs
            f, b = y[..., : self.directions[0].units], y[..., self.directions[0].units :]
        else:
            return None
        return f, self.turned(b), tuple(states)

    def merge(self, f: Any, b: Any) -> Any:
        if self.merge_mode is None:
            return f, b
        if self.merge_mode == "concat":
            return np.concatenate([f, b], axis=-1)
        if self.merge_mode == "mul":
            return f * b
        return f + b if self.merge_mode == "sum" else (f + b) * 0.5

    def compute_mask(self, x: Any, mask: Mask | None) -> Mask | None:
        return mask if self.return_sequences else None

    def results(self, y: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*super().results(y, states), *(states if self.return_state else ()))

    def output_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        (f, *f_states), (b, *b_states) = (layer.output_shapes(shape) for layer in self.directions)
        y = {None: (f, b), "concat": ((*f[:-1], f[-1] + b[-1]),)}.get(self.merge_mode, (f,))
        return (*y, *f_states, *b_states)

    def check_inputs(self, x: Array) -> None:
        self.directions[0].check_inputs(x)

    def with_sequences(self) -> Self:
        twin = copy.copy(self)
        twin.parts = {name: layer.with_sequences() for name, layer in self.parts.items()}
        return twin

    @property
    def units(self) -> int:
        return sum(layer.units for layer in self.directions[: 2 if self.merge_mode == "concat" else 1])

    @property
    def input_dim(self) -> int:
        return self.directions[0].input_dim


class RNN(Layer):
    """Stacked cells in one loop, as `keras.layers.RNN` of a list: at each step the output of one is the input of the
    next. The same function as layers one after another, all but the first walking the order of processing, so that is
    how it is computed.

    cells: SimpleRNNCell, LSTMCell or GRUCell, from the input up. States, given and returned: the first cell's, then the
    next one's. The settings are those of `Recurrent`.
    """

    kind = "rnn"
    ndim = 3

    def __init__(self, cells: Cell | Sequence[Cell], name: str | None = None, **settings: Unpack[Settings]) -> None:
        cells = [cells] if isinstance(cells, Cell) else list(cells)
        if not cells:
            raise ValueError("cells: expected at least one; received none")
        super().__init__(name, cells[0].dtype)
        for below, cell in itertools.pairwise(cells):
            if cell.input_dim != below.units or cell.dtype != below.dtype:
                raise ValueError(
                    f"cells: expected input_dim {below.units} and {below.dtype} above a cell of {below.units} units; "
                    f"received {cell.input_dim} and {cell.dtype}"
                )
        layers = [recurrent(cell, settings.copy()) for cell in cells]
        for layer in layers[:-1]:
            layer.return_sequences, layer.return_state, layer.zero_output_for_mask = True, False, False
        for layer in layers[1:]:
            layer.go_backwards = False
        self.parts = {str(n): layer for n, layer in enumerate(layers)}

    @property
    def layers(self) -> tuple[Recurrent, ...]:
        return tuple(self.parts.values())  # type: ignore[arg-type]

    def forward(self, x: Any, mask: Mask | None, states: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        after: tuple[Any, ...] = ()
        for n, (layer, own) in enumerate(self.shares(states)):
            x, new = layer.forward(x, mask, own)
            after += new
            if n == 0 and self.layers[0].go_backwards and mask is not None:
                mask = mask[:, ::-1]
        return x, after

    @property
    def go_backwards(self) -> bool:
        return self.layers[0].go_backwards

    @property
    def return_sequences(self) -> bool:
        return self.layers[-1].return_sequences

    @property
    def return_state(self) -> bool:
        return self.layers[-1].return_state

    def compute_mask(self, x: Any, mask: Mask | None) -> Mask | None:
        return mask if self.return_sequences else None

    def results(self, y: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        return (y, *states) if self.return_state else (y,)

    def output_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        y = self.layers[-1].output_shapes(shape)[0]
        return (y, *((shape[0], units) for units in self.state_units if self.return_state))

    def check_inputs(self, x: Array) -> None:
        self.layers[0].check_inputs(x)

    def with_sequences(self) -> Self:
        twin = copy.copy(self)
        twin.parts = {name: layer.with_sequences() for name, layer in self.parts.items()}
        return twin

    @property
    def settings(self) -> dict[str, bool]:
        return {**self.layers[-1].settings, "go_backwards": self.go_backwards}

    @property
    def units(self) -> int:
        return self.layers[-1].units

    @property
    def input_dim(self) -> int:
        return self.layers[0].input_dim


class TimeDistributed(Layer):
    """One layer for every time step alone.

    x: (batch, timesteps, ...) -> (batch, timesteps, what the layer makes of it).

    layer: Dense, Activation, Dropout or another TimeDistributed. Raises ValueError for one that has states.
    """

    kind = "time_distributed"

    def __init__(self, layer: Layer, *, name: str | None = None) -> None:
        super().__init__(name, layer.dtype)
        if layer.state_units:
            raise ValueError(f"layer: expected one without states; received {layer.name}")
        self.parts = {"layer": layer}

    @property
    def layer(self) -> Layer:
        return self.parts["layer"]

    def forward(self, x: Any, mask: Mask | None, states: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        batch, timesteps = x.shape[:2]
        y, _ = self.layer.forward(x.reshape(batch * timesteps, *x.shape[2:]), None, ())
        return y.reshape(batch, timesteps, *y.shape[1:]), ()

    def output_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        (inner,) = self.layer.output_shapes((shape[0], *shape[2:]))
        return ((shape[0], shape[1], *inner[1:]),)

    def check_inputs(self, x: Array) -> None:
        if x.ndim < 3:
            raise ValueError(f"x: expected shape (batch, timesteps, ...); received {x.shape}")
        self.layer.check_inputs(x[:, 0])

    @property
    def units(self) -> int:
        return self.layer.units

    @property
    def input_dim(self) -> int | None:
        return self.layer.input_dim
