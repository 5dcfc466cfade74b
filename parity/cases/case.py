"""A case: one question to a candidate. A layer, inputs, a mask, an initial state; and every way of cutting them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_scratch.base import Array, Layer, Mask, Shape
from rnn_scratch.models import Model, Node

Fixed = tuple[int | None, int | None]
"""The only batch and timesteps that are asked, None where either is open."""
ANY: Fixed = (None, None)


@dataclass(frozen=True)
class View:
    """How results are looked at: in another order, say.

    show: the results of a layer, a tuple of arrays, as they are seen. undo: what was seen, as the layer's own results
    again, or None where that cannot be. Shapes of what is no such view may come as well.
    """

    show: Callable[[tuple[Array, ...]], tuple[Array, ...]]
    undo: Callable[[tuple[Array, ...]], tuple[Array, ...] | None]


@dataclass(frozen=True)
class Case:
    """One question: what does this layer make of these inputs?

    layer: rnn_scratch's, whose weights and settings are the ones meant. inputs: by name, each (batch, timesteps,
    input_dim) in the layer's dtype, or token ids (batch, timesteps); one array by itself is the input `x`.
    mask: (batch, timesteps) or None. initial_state: a tuple of (batch, units) for each state, or None for zeros.
    calls: into how many calls, one after another, the timesteps are divided (a stateful layer keeps its state between).
    rows: what each batch row is meant to show, for a probe. view: how the results are looked at, if not as they are.
    """

    id: str
    layer: Layer
    inputs: Mapping[str, Array]
    mask: Mask | None = None
    initial_state: tuple[Array, ...] | None = None
    calls: int = 1
    rows: Sequence[str] = ()
    view: View | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Mapping):
            object.__setattr__(self, "inputs", {"x": self.inputs})

    # --- what it is ---

    @property
    def x(self) -> Array:
        """The only input."""
        (x,) = self.inputs.values()
        return x

    @property
    def _any(self) -> Array:
        """One of the inputs, for what all of them have in common."""
        return next(iter(self.inputs.values()))

    @property
    def batch(self) -> int:
        return len(self._any)

    @property
    def timesteps(self) -> int:
        return int(self._any.shape[1])

    @property
    def features(self) -> Shape:
        """The axes of the input after batch and timesteps; none of token ids."""
        return self.x.shape[2:]

    @property
    def size(self) -> int:
        """Of all inputs together."""
        return sum(x.size for x in self.inputs.values())

    @property
    def tokens(self) -> bool:
        """Whether there are only token ids, which are not rounded."""
        return all(x.dtype.kind in "iu" for x in self.inputs.values())

    @property
    def numpy_floats(self) -> bool:
        """Whether all inputs are floats that NumPy itself knows: bfloat16 is of the kind V."""
        return all(x.dtype.kind == "f" for x in self.inputs.values())

    @property
    def zero(self) -> bool:
        return not any(x.any() for x in self.inputs.values())

    @property
    def backwards(self) -> bool:
        return bool(getattr(self.layer, "go_backwards", False))

    @property
    def start(self) -> tuple[Array, ...]:
        """The states from which the layer starts, zeros where none are given."""
        return self.layer.initial_states(self.batch, self.initial_state)

    @property
    def every_mask(self) -> Mask:
        """The mask; all true where there is none."""
        return np.ones((self.batch, self.timesteps), bool) if self.mask is None else self.mask

    @property
    def needs(self) -> frozenset[str]:
        """What a candidate must take to be asked this."""
        given = {"mask": self.mask, "initial_state": self.initial_state}
        return frozenset(name for name, value in given.items() if value is not None)

    @property
    def arrays(self) -> dict[str, Array]:
        """All that is given, by name: the inputs, `mask`, `initial_state/0`, ..."""
        mask = {} if self.mask is None else {"mask": self.mask}
        states = {f"initial_state/{n}": state for n, state in enumerate(self.initial_state or ())}
        return {**self.inputs, **mask, **states}

    # --- what is to come of it ---

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """Of the outputs, and of the states where the layer returns them."""
        return tuple(self.layer.output_shapes(self.x.shape))

    @property
    def sequence_shape(self) -> Shape:
        """Of the outputs of every step, returned or not."""
        return self.layer.with_sequences().output_shapes(self.x.shape)[0]

    def part_shapes(self) -> Iterator[tuple[str, Layer, Shape, Shape]]:
        """Each part's name, itself, and the shapes of its outputs at every step and as it returns them."""
        shapes: dict[str, Shape] = {name: x.shape for name, x in self.inputs.items()}
        for name, node in _nodes(self.layer).items():
            (fed,) = node.inputs
            whole, *_ = node.layer.with_sequences().output_shapes(shapes[fed])
            shapes[name], *_ = node.layer.output_shapes(shapes[fed])
            yield name, node.layer, whole, shapes[name]

    def put_to(self, layer: Layer) -> Any:
        """What a layer of rnn_scratch answers."""
        return layer(self.x, mask=self.mask, initial_state=self.initial_state)

    # --- the same question on other inputs ---

    def on(self, inputs: Array | Mapping[str, Array], **changes: Any) -> "Case":
        named = inputs if isinstance(inputs, Mapping) else {"x": inputs}
        return replace(self, inputs=named, **changes)

    def mapped(self, change: Callable[[Array], Array], **changes: Any) -> "Case":
        """With every input changed."""
        return self.on({name: change(x) for name, x in self.inputs.items()}, **changes)

    def cast(self, dtype: Any, **changes: Any) -> "Case":
        """Inputs and states in that dtype; token ids stay."""

        def cast(x: Array) -> Array:
            return x if x.dtype.kind in "iu" else x.astype(dtype)

        states = self._states(lambda state: state.astype(dtype))
        return self.mapped(cast, initial_state=states, **changes)

    def features_at(self, kept: NDArray[np.intp], **changes: Any) -> "Case":
        """Those features of the inputs, in that order."""
        return self.mapped(lambda x: np.ascontiguousarray(x[..., kept]), **changes)

    def units_at(self, kept: NDArray[np.intp], **changes: Any) -> "Case":
        """Those units of the initial state, in that order."""
        return replace(self, initial_state=self._states(lambda state: state[:, kept]), **changes)

    def rows_at(self, rows: NDArray[np.intp]) -> "Case":
        """The case of those batch rows."""
        mask = None if self.mask is None else self.mask[rows]
        states = self._states(lambda state: state[rows])
        named = tuple(self.rows[n] for n in rows) if self.rows else ()
        return self.mapped(lambda x: x[rows], mask=mask, initial_state=states, rows=named)

    def _states(self, change: Callable[[Array], Array]) -> tuple[Array, ...] | None:
        """The initial state, each array of it changed."""
        if self.initial_state is None:
            return None
        return tuple(change(state) for state in self.initial_state)

    # --- along the timesteps ---

    def steps(self, start: int, stop: int, states: tuple[Array, ...] | None) -> "Case":
        """A case of some of the steps, counted in the order of processing, from those states."""
        if self.backwards:
            start, stop = self.timesteps - stop, self.timesteps - start
        return self._cut(slice(start, stop), initial_state=states)

    def first(self, steps: int) -> "Case":
        """The case cut to the first steps that are processed."""
        return self.steps(0, steps, self.initial_state)

    def call(self, number: int) -> "Case":
        """One of the calls, as a case of its own."""
        steps = self.timesteps // self.calls
        return self._cut(slice(number * steps, (number + 1) * steps), calls=1)

    def twice(self, **changes: Any) -> "Case":
        """Two calls with the same inputs, one after another."""
        mask = None if self.mask is None else np.concatenate([self.mask, self.mask], axis=1)
        return self.mapped(lambda x: np.concatenate([x, x], axis=1), mask=mask, calls=2, **changes)

    def padded(self, steps: int) -> "Case":
        """The case with inputs of zeros after its own, in the order of processing, up to so many steps."""
        more = steps - self.timesteps
        along = (more, 0) if self.backwards else (0, more)

        def padded(x: Array) -> Array:
            return np.pad(x, [(0, 0), along, *[(0, 0)] * (x.ndim - 2)])

        return self.mapped(padded)

    def processed(self) -> tuple[Array, Mask | None]:
        """x and mask in the order of processing."""
        if not self.backwards:
            return self.x, self.mask
        return self.x[:, ::-1], None if self.mask is None else self.mask[:, ::-1]

    def at(self, step: int) -> Array:
        """x at one timestep."""
        return np.asarray(self.x[:, step])

    def _cut(self, kept: slice, **changes: Any) -> "Case":
        mask = None if self.mask is None else self.mask[:, kept]
        return self.mapped(lambda x: x[:, kept], mask=mask, **changes)


def _nodes(layer: Layer) -> Mapping[str, Node]:
    """What a layer is made of, by what each part takes: in all but models, all take the inputs."""
    if isinstance(layer, Model):
        return layer.nodes
    return {name: Node(part, layer.input_names) for name, part in layer.parts.items()}
