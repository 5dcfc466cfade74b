"""Layers made of layers: both directions, stacked cells, one layer for every time step."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Self, Unpack

import numpy as np

from rnn_scratch.base import Array, Layer, Mask, Shape, States, Values
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
        _expect_alike(forward, backward, merge_mode)
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

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        (forward, own_f), (backward, own_b) = self.shares(states)
        y_f, after_f = forward.forward(x, mask, own_f)
        y_b, after_b = backward.forward(x, mask, own_b)
        return self.merge(y_f, self.turned(y_b)), (*after_f, *after_b)

    def turned(self, y: Values) -> Values:
        """The backward layer's output, from its order of processing to that of time or back."""
        return y[:, ::-1] if self.return_sequences else y

    def merge(self, f: Values, b: Values) -> Values:
        """What is put out, of both directions' outputs in the order of time."""
        match self.merge_mode:
            case "concat":
                return np.concatenate([f, b], axis=-1)
            case "sum":
                return f + b
            case "mul":
                return f * b
            case "ave":
                return (f + b) * 0.5
        return f, b

    def apart(self, outputs: Sequence[Array]) -> Mapping[str, tuple[Array, ...]] | None:
        if self.merge_mode is None:
            f, b, *states = outputs
        elif self.merge_mode == "concat":
            y, *states = outputs
            f, b = y[..., : self.directions[0].units], y[..., self.directions[0].units :]
        else:
            return None
        return self._by_direction(f, b, states)

    def _by_direction(self, f: Array, b: Array, states: Sequence[Array]) -> Mapping[str, tuple[Array, ...]]:
        own = len(self.directions[0].state_units)
        return {"forward": (f, *states[:own]), "backward": (self.turned(b), *states[own:])}

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        return mask if self.return_sequences else None

    def results(self, y: Values, states: States) -> tuple[Values, ...]:
        outputs = super().results(y, states)
        return (*outputs, *states) if self.return_state else outputs

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        (f, *f_states), (b, *b_states) = (layer.output_shapes(shape) for layer in self.directions)
        outputs: tuple[Shape, ...] = (f,)
        if self.merge_mode is None:
            outputs = (f, b)
        elif self.merge_mode == "concat":
            outputs = ((*f[:-1], f[-1] + b[-1]),)
        return (*outputs, *f_states, *b_states)

    def check_inputs(self, x: Array) -> None:
        self.directions[0].check_inputs(x)

    def with_sequences(self) -> Self:
        twin = copy.copy(self)
        twin.parts = {name: layer.with_sequences() for name, layer in self.parts.items()}
        return twin

    @property
    def units(self) -> int:
        forward, backward = self.directions
        return forward.units + backward.units if self.merge_mode == "concat" else forward.units

    @property
    def input_dim(self) -> int:
        return self.directions[0].input_dim


def _expect_alike(forward: Recurrent, backward: Recurrent, merge_mode: str | None) -> None:
    if merge_mode not in MERGE_MODES:
        raise ValueError(f"merge_mode: expected one of {', '.join(map(str, MERGE_MODES))}; received {merge_mode!r}")
    for what in ("return_sequences", "return_state", "stateful", "input_dim", "dtype"):
        expected, received = getattr(forward, what), getattr(backward, what)
        if expected != received:
            raise ValueError(f"backward: expected {what} {expected}, as forward has; received {received}")
    if merge_mode in ("sum", "mul", "ave") and forward.units != backward.units:
        raise ValueError(f"backward: expected {forward.units} units to {merge_mode}; received {backward.units}")


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
            _expect_above(cell, below)
        layers = _in_one_loop([recurrent(cell, settings.copy()) for cell in cells])
        self.parts = {str(n): layer for n, layer in enumerate(layers)}

    @property
    def layers(self) -> tuple[Recurrent, ...]:
        return tuple(self.parts.values())  # type: ignore[arg-type]

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        first, *above = self.shares(states)
        y, after = first[0].forward(x, mask, first[1])
        if self.go_backwards and mask is not None:
            mask = mask[:, ::-1]  # the first layer's outputs stand in the order of processing
        for layer, own in above:
            y, new = layer.forward(y, mask, own)
            after += new
        return y, after

    @property
    def go_backwards(self) -> bool:
        return self.layers[0].go_backwards

    @property
    def return_sequences(self) -> bool:
        return self.layers[-1].return_sequences

    @property
    def return_state(self) -> bool:
        return self.layers[-1].return_state

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        return mask if self.return_sequences else None

    def results(self, y: Values, states: States) -> tuple[Values, ...]:
        return (y, *states) if self.return_state else (y,)

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        y = self.layers[-1].output_shapes(shape)[0]
        states = [(shape[0], units) for units in self.state_units]
        return (y, *states) if self.return_state else (y,)

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


def _in_one_loop(layers: Sequence[Recurrent]) -> Sequence[Recurrent]:
    """The same layers, set so that one after another they are one loop."""
    for layer in layers[:-1]:
        layer.return_sequences, layer.return_state, layer.zero_output_for_mask = True, False, False
    for layer in layers[1:]:
        layer.go_backwards = False  # what comes from below is in the order of processing already
    return layers


def _expect_above(cell: Cell, below: Cell) -> None:
    if cell.input_dim != below.units or cell.dtype != below.dtype:
        raise ValueError(
            f"cells: expected input_dim {below.units} and {below.dtype} above a cell of {below.units} units; "
            f"received {cell.input_dim} and {cell.dtype}"
        )


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

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        batch, timesteps = x.shape[:2]
        y, _ = self.layer.forward(x.reshape(batch * timesteps, *x.shape[2:]), None, ())
        return y.reshape(batch, timesteps, *y.shape[1:]), ()

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        batch, timesteps, *features = shape
        (inner,) = self.layer.output_shapes((batch, *features))
        return ((batch, timesteps, *inner[1:]),)

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
