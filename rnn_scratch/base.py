"""What every layer does alike, whatever it computes: a call, states, weights, and the layers that it is made of.

A layer's `forward(x, mask, states)` is what it computes and no more, on arrays or on anything that behaves like them
(`Values`); `__call__` is what a user calls, and checks what comes in.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]

Values: TypeAlias = Any
"""An array, or what behaves like one: `parity` runs the same equations on balls, which is how it knows what rounding
may do to them. An equation asks no more of it than `dot`, `+`, `-`, `*`, `/`, slices, `shape`, `dtype`, `astype`,
`reshape`, NumPy's `where`, `stack`, `concatenate` and `zeros_like`; and, which arrays have not, `through(activation)`,
`blend(a, b)` and `normalized(...)`. No type says that of both: NumPy's own operators promise an array of each."""

States = tuple[Values, ...]

Weight: TypeAlias = ArrayLike | None
"""A layer's array as it is given, None for a bias that there is not."""

Output = Array | tuple[Array, ...]
Shape = tuple[int, ...]
L = TypeVar("L", bound="Layer")

FLOATS = ("float16", "bfloat16", "float32", "float64")


class Layer:
    """What every layer does alike.

    name: by which a model and its reports know it. parts: the layers that it is made of, by name. ndim: of its inputs,
    None for any; one axis less is one sequence without the batch axis, and then no array has it. input_names: what its
    inputs are called.

    arrays: the attributes that hold its own weights. matrices: those of them that are factors of products. tables:
    those whose elements are values by themselves, looked up or combined with others one by one.
    """

    kind: str = "layer"
    ndim: int | None = None
    input_names: tuple[str, ...] = ("x",)

    arrays: tuple[str, ...] = ()
    matrices: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    def __init__(self, name: str | None = None, dtype: DTypeLike = np.float32) -> None:
        self.name = name or self.kind
        self.parts: dict[str, Layer] = {}
        self._dtype = np.dtype(dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What it computes in: that of its weights, or of those of the first part that has any."""
        return next((part.dtype for part in self.parts.values() if part.weights), self._dtype)

    # --- what it computes: for each layer its own ---

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        """The output (a tuple of them where there are several) and the states after it. x: (batch, timesteps, ...)."""
        raise NotImplementedError

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        """The mask that goes on to the next layer."""
        return mask

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        """The shapes of what a call returns for x of that shape."""
        return (shape,)

    def apart(self, outputs: Sequence[Array]) -> Mapping[str, tuple[Array, ...]] | None:
        """What a call returned, as each part would have returned it by itself, in the part's own order of processing;
        None where that cannot be told."""
        return None

    @property
    def units(self) -> int:
        """The size of the last axis of its output."""
        raise NotImplementedError

    @property
    def input_dim(self) -> int | None:
        """The size of the last axis of its inputs, None where it takes any."""
        return None

    # --- a call ---

    def __call__(self, x: ArrayLike, *, mask: ArrayLike | None = None, initial_state: Any = None) -> Output:
        x = self.as_inputs(x)
        if x.ndim + 1 != self.ndim:
            return only(self._call(x, mask, initial_state))
        results = self._call(*with_batch_axis(x, mask, initial_state))
        return only(tuple(result[0] for result in results))

    def _call(self, x: Array, mask: ArrayLike | None, initial_state: Any) -> tuple[Array, ...]:
        self.check_inputs(x)
        states = self.initial_states(len(x), initial_state)
        checked = None if mask is None else self.check_mask(mask, x.shape[:2])
        y, states = self.forward(x, checked, states)
        self.keep(states)
        return self.results(y, states)

    def results(self, y: Values, states: States) -> tuple[Values, ...]:
        """What of the output and the states is returned."""
        return y if isinstance(y, tuple) else (y,)

    def as_inputs(self, x: ArrayLike) -> Array:
        return as_reals("x", x).astype(self.dtype, copy=False)

    def check_inputs(self, x: Array) -> None:
        """ValueError for inputs of another shape, naming what was expected and what came."""

    def check_mask(self, mask: ArrayLike, expected: Shape) -> Mask:
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

    def shares(self, states: States) -> Iterator[tuple["Layer", States]]:
        """Each part with those of the states that are its own."""
        start = 0
        for layer in self.parts.values():
            stop = start + len(layer.state_units)
            yield layer, states[start:stop]
            start = stop

    def initial_states(self, batch: int, initial_state: Any = None) -> tuple[Array, ...]:
        """The states a call starts from: those given, else the kept ones, else zeros; each (batch, units). One given
        as (1, units) is every row's, where Keras takes it so."""
        given = self.kept(batch) if initial_state is None else flat(initial_state)
        if len(given) != len(self.state_units):
            names = ", ".join(self.state_names)
            raise ValueError(f"initial_state: expected {len(self.state_units)} ({names}); received {len(given)}")
        states = tuple(as_reals("initial_state", state).astype(self.dtype) for state in given)
        if initial_state is not None and self.spreads_states:
            one_row = [(1, units) for units in self.state_units]
            states = tuple(
                np.repeat(state, batch, axis=0) if state.shape == shape else state
                for state, shape in zip(states, one_row, strict=True)
            )
        for state, units in zip(states, self.state_units, strict=True):
            expect_shape("initial_state", state, (batch, units), "batch, units")
        return states

    @property
    def spreads_states(self) -> bool:
        """Whether Keras gives an initial state of one row to every row."""
        return all(part.spreads_states for part in self.parts.values())

    # --- the layers that it is made of, and their weights ---

    def walk(self, path: str = "") -> Iterator[tuple[str, "Layer"]]:
        """Itself under "", then the layers that it is made of, depth first, under dotted paths."""
        yield path, self
        for name, part in self.parts.items():
            yield from part.walk(dotted(path, name))

    def every(self, kind: type[L]) -> list[L]:
        """Those layers of that class, in the order of `walk`."""
        return [layer for _, layer in self.walk() if isinstance(layer, kind)]

    @property
    def own_weights(self) -> Mapping[str, Array]:
        """Its own arrays by name, without those of its parts."""
        return {name: getattr(self, name) for name in self.arrays}

    @property
    def weights(self) -> Mapping[str, Array]:
        """Its arrays by name; those of a part as `part.name`."""
        found = {}
        for path, layer in self.walk():
            for name, array in layer.own_weights.items():
                found[dotted(path, name)] = array
        return found

    def replace(self, **weights: Array) -> Self:
        """The same layer with those weights in place of its own, and no state kept as yet."""
        twin = copy.copy(self)
        twin.parts = {part: layer.replace(**_below(part, weights)) for part, layer in self.parts.items()}
        return twin

    def mapped(self, change: Callable[["Layer", str, Array], Values]) -> Self:
        """A copy with change(layer, name, array) in place of each array, `layer` being the one that it is an own array
        of; nothing is checked."""
        twin = copy.copy(self)
        twin.parts = {part: layer.mapped(change) for part, layer in self.parts.items()}
        for name in self.arrays:
            setattr(twin, name, change(self, name, getattr(self, name)))
        return twin

    def astype(self, dtype: DTypeLike) -> Self:
        """A copy whose arrays are of that dtype, which it then computes in; nothing is checked."""
        twin = self.mapped(lambda layer, name, array: array.astype(dtype))
        for _, layer in twin.walk():
            layer._dtype = np.dtype(dtype)
        return twin

    def with_sequences(self) -> Self:
        """The same layer with return_sequences, and no state returned beside."""
        return copy.copy(self)


def only(outputs: tuple[Array, ...]) -> Output:
    """The output where there is one, else the tuple of them."""
    return outputs[0] if len(outputs) == 1 else outputs


def dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _below(part: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Those of the weights that belong to a part, by the names that the part gives them."""
    inside = f"{part}."
    return {name.removeprefix(inside): array for name, array in weights.items() if name.startswith(inside)}


# --- what comes in ---


def as_weights(**weights: Weight) -> list[Array]:
    """The named arrays, copied. ValueError says which is not of a real floating dtype, or not of the first one's."""
    # column-major: products are with the transposes
    arrays = {name: np.array(value, order="F") for name, value in weights.items()}
    first, dtype = next(iter(weights)), next(iter(arrays.values())).dtype
    for name, array in arrays.items():
        if array.dtype.name not in FLOATS:
            raise ValueError(f"{name}: expected one of {', '.join(FLOATS)}; received {array.dtype}")
        if array.dtype != dtype:
            raise ValueError(f"{name}: expected {dtype}, the dtype of {first}; received {array.dtype}")
    return list(arrays.values())


def expect_shape(name: str, array: Array, expected: Shape, because: str) -> None:
    if array.shape != expected:
        raise ValueError(f"{name}: expected shape {expected} ({because}); received {array.shape}")


def as_reals(name: str, value: ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name}: expected real numbers; received {array.dtype}")
    return array


def flat(states: Any) -> tuple[Any, ...]:
    """States as one tuple, however Keras nests them. A list of numbers within is a state, not more of them."""
    if not isinstance(states, tuple | list):
        return (states,)
    found: list[Any] = []
    for state in states:
        found += (state,) if _is_state(state) else flat(state)
    return tuple(found)


def _is_state(value: Any) -> bool:
    first = value
    while isinstance(first, tuple | list) and first:
        first = first[0]
    return not isinstance(value, tuple | list) or bool(np.isscalar(first))


def with_batch_axis(x: Array, mask: ArrayLike | None, initial_state: Any) -> tuple[Array, ArrayLike | None, Any]:
    """One sequence, its mask and its states as a batch of one."""
    if mask is not None:
        mask = np.asarray(mask)[None]
    if initial_state is not None:
        initial_state = tuple(np.asarray(state)[None] for state in flat(initial_state))
    return x[None], mask, initial_state
