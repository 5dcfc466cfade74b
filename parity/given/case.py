"""What the user gives, made into a question: checked, cast to the layer, drawn where it is not given."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.tree import static_input_shape
from parity.adapters.keras.unbuilt import build_random
from parity.cases.case import Case
from parity.cases.drawing import draw_inputs, generator, leading
from parity.cases.grid import case_id
from parity.errors import InputError, UnsupportedError
from rnn_scratch.layers import Layer

DRAWN_BATCH, DRAWN_TIMESTEPS = 4, 50


def put(
    keras_layer: Any,
    x: Any,
    input_shape: tuple[int, ...] | None,
    mask: Any,
    initial_state: Any,
    seed: int,
    fixed: tuple[int | None, int | None],
) -> tuple[Layer, Case, bool]:
    """The layer taken out of Keras, the user's own case of it, and whether it had to be built."""
    shape = tuple(input_shape) if input_shape is not None else None if x is None else np.shape(x)[1:]
    built = shape is not None and build_random(keras_layer, shape, seed)
    own = from_keras(keras_layer)
    if not own.state_units:
        kinds = ", ".join(part.kind for part in own.parts.values()) or own.kind
        raise UnsupportedError(f"{own.name}: expected at least one recurrent layer; it has {kinds}")
    own.reset_state()
    batch, timesteps = static_input_shape(keras_layer)
    return own, make_case(own, x, shape, (batch, fixed[1] or timesteps), mask, initial_state, seed), built


def make_case(
    layer: Layer,
    x: Any,
    shape: Sequence[int] | None,
    static: tuple[int | None, int | None],
    mask: Any,
    initial_state: Any,
    seed: int,
) -> Case:
    """The user's own case: what is given, cast and fitted to the layer; the inputs drawn where they are not."""
    try:
        if x is None:
            x = draw(layer, shape, static, seed)
        with np.errstate(over="ignore"):  # out of the layer's range is infinite there, for Keras too
            x = np.ascontiguousarray(layer.as_inputs(x))
        layer.check_inputs(x)
        if len(x) == 0:
            raise InputError(f"x: expected at least 1 batch row; received {x.shape}")
        mask = None if mask is None else layer.check_mask(mask, x.shape[:2])
        states = None if initial_state is None else layer.initial_states(len(x), initial_state)
    except ValueError as error:
        raise InputError(str(error)) from None
    return Case(case_id(layer, x), layer, {"x": x}, mask, states)


def draw(layer: Layer, shape: Sequence[int] | None, static: tuple[int | None, int | None], seed: int) -> Any:
    batch, timesteps = (fixed or default for fixed, default in zip(static, (DRAWN_BATCH, DRAWN_TIMESTEPS), strict=True))
    expected = input_features(layer)
    features = expected if shape is None else tuple(shape[1:])
    if len(features) != len(expected):
        what = "(timesteps, input_dim)" if expected else "(timesteps,), of token ids"
        raise InputError(f"input_shape: expected {what}; received {tuple(shape or ())}")
    timesteps = shape[0] if shape is not None else timesteps
    return draw_inputs(layer, generator(seed, "inputs"), (batch, timesteps, *features))


def input_features(layer: Layer) -> tuple[int, ...]:
    """The axes of an input after batch and timesteps: none for token ids."""
    first = next(leading(layer), layer)
    if first.kind == "embedding":
        return ()
    features = next((part.input_dim for part in (*layer.parts.values(), layer) if part.input_dim), None)
    if features is None:
        raise InputError(f"{layer.name}: pass x or input_shape: nothing in it tells the size of its inputs")
    return (features,)


def check_shape(input_shape: Any) -> None:
    """InputError for what is neither None nor one or two sizes."""
    sizes = input_shape if isinstance(input_shape, tuple | list) else ()
    fits = len(sizes) in (1, 2) and all(isinstance(n, int) and n > 0 for n in sizes)
    if input_shape is not None and not fits:
        raise InputError(
            f"input_shape: expected (timesteps, input_dim), both at least 1, or (timesteps,) of token ids; "
            f"received {input_shape!r}"
        )
