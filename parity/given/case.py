"""What the user gives, made into a question: checked, cast to the layer, drawn where it is not given."""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases.building import case_id
from parity.cases.case import Case, Fixed
from parity.cases.drawing import draw_inputs, generator, leading
from parity.errors import InputError
from rnn_scratch.base import with_batch_axis
from rnn_scratch.layers import Layer

_DRAWN_BATCH, _DRAWN_TIMESTEPS = 4, 50


@dataclass(frozen=True)
class Inputs:
    """What the user gives of a case, as it is given: `parity.check` says what each is. InputError for an input_shape
    that is none."""

    x: Any = None
    input_shape: tuple[int, ...] | None = None
    mask: Any = None
    initial_state: Any = None

    def __post_init__(self) -> None:
        check_shape(self.input_shape)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of what is given."""
        return tuple(name for name, value in vars(self).items() if value is not None)

    def shape(self, axes: int) -> tuple[int, ...] | None:
        """Of an input, its batch left out where it has one, where that is known. axes: of an input without it."""
        whole = self._whole
        return whole[1:] if whole is not None and len(whole) > axes else whole

    def batch(self, axes: int) -> int | None:
        """Of an input, where that is known."""
        whole = self._whole
        if whole is not None and len(whole) > axes:
            return whole[0]
        return None if self.x is None else 1

    @property
    def _whole(self) -> tuple[int, ...] | None:
        if self.input_shape is not None:
            return tuple(self.input_shape)
        return None if self.x is None else np.shape(self.x)


def check_shape(input_shape: Any) -> None:
    """InputError for what is neither None nor one to three sizes."""
    if input_shape is not None and not _are_sizes(input_shape):
        raise InputError(
            f"input_shape: expected (timesteps, input_dim), both at least 1, or (timesteps,) of token ids, "
            f"and the batch before them where you like; "
            f"received {input_shape!r}"
        )


def _are_sizes(value: Any) -> bool:
    if not isinstance(value, tuple | list) or len(value) not in (1, 2, 3):
        return False
    return all(isinstance(size, int) and size > 0 for size in value)


def make_case(layer: Layer, inputs: Inputs, static: Fixed, seed: int) -> Case:
    """The user's own case: what is given, cast and fitted to the layer; the inputs drawn where they are not. static:
    the batch and the timesteps that the layer or the candidate was built for, None where either is open."""
    try:
        inputs = _batched(layer, inputs)
        x = _draw(layer, inputs.input_shape, static, seed) if inputs.x is None else inputs.x
        with np.errstate(over="ignore"):  # out of the layer's range is infinite there, for Keras too
            x = np.ascontiguousarray(layer.as_inputs(x))
        layer.check_inputs(x)
        if len(x) == 0:
            raise InputError(f"x: expected at least 1 batch row; received {x.shape}")
        mask = None if inputs.mask is None else layer.check_mask(inputs.mask, x.shape[:2])
        start = inputs.initial_state
        states = None if start is None else layer.initial_states(len(x), start)
    except ValueError as error:  # rnn_scratch knows nothing of parity's errors
        raise InputError(str(error)) from None
    return Case(case_id(layer, x), layer, {"x": x}, mask, states)


def _batched(layer: Layer, inputs: Inputs) -> Inputs:
    """With a batch axis where x is one sequence without it, as `layer` itself takes it: then no array has it."""
    if inputs.x is None or layer.ndim is None or np.ndim(inputs.x) + 1 != layer.ndim:
        return inputs
    x, mask, states = with_batch_axis(layer.as_inputs(inputs.x), inputs.mask, inputs.initial_state)
    return Inputs(x, None, mask, states)


def _draw(layer: Layer, shape: Sequence[int] | None, static: Fixed, seed: int) -> NDArray[Any]:
    batch, timesteps = static[0] or _DRAWN_BATCH, static[1] or _DRAWN_TIMESTEPS
    features = _input_features(layer)
    if shape is not None:
        more = len(shape) - len(features)
        if more not in (1, 2):
            what = "(timesteps, input_dim)" if features else "(timesteps,), of token ids"
            raise InputError(f"input_shape: expected {what}; received {tuple(shape)}")
        if more == 2:
            batch, *shape = shape
        timesteps, *features = shape
    _expect_holdable((batch, timesteps, *features))
    return draw_inputs(layer, generator(seed, "inputs"), (batch, timesteps, *features))


def _expect_holdable(shape: tuple[int, ...]) -> None:
    """InputError for inputs that this machine cannot hold, before any memory is taken for them."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else sys.maxsize
    needed = math.prod(shape) * np.dtype(np.float64).itemsize  # as they are drawn
    if needed > there:
        raise InputError(
            f"input_shape: inputs of {shape} would take {needed / 2**30:,.0f} GiB; this machine has "
            f"{there / 2**30:,.0f}: expected fewer timesteps"
        )


def _input_features(layer: Layer) -> Sequence[int]:
    """The axes of an input after batch and timesteps: none for token ids."""
    first = next(leading(layer), layer)
    if first.kind == "embedding":
        return ()
    parts = (*layer.parts.values(), layer)
    size = next((part.input_dim for part in parts if part.input_dim), None)
    if size is None:
        raise InputError(f"{layer.name}: pass x or input_shape: nothing in it tells the size of its inputs")
    return (size,)
