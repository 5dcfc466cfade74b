"""What one layer was given, and how what came out of it is judged."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.answer import Candidate
from parity.cases.case import Case
from parity.judging.tally import Tolerance
from parity.rounding.arithmetic import Arithmetic, chosen
from parity.rounding.balls import Ball, on_balls
from rnn_scratch.base import Layer, Mask, Values
from rnn_scratch.layers import Recurrent
from rnn_scratch.models import Model

Array = NDArray[Any]

FORWARD_STEPS = 5
"""Of so many steps balls are carried through; after more they are as wide as the signal."""

VACUOUS = 0.1
"""A tolerance of that part of the signal or more decides nothing."""


@dataclass(frozen=True)
class Asker:
    """Whom to ask further questions of the same case."""

    candidate: Candidate
    case: Case

    def can(self, *takes: str) -> bool:
        return self.candidate.callable and self.candidate.takes >= set(takes)


@dataclass(frozen=True)
class Query:
    """What went into one layer.

    x: (batch, timesteps, ...), a ball, or token ids. start: the states that the call starts from; start_given: whether
    they were given to the candidate, not returned by it before. override: an arithmetic in place of that of the layer's
    dtype. asker: None for a layer inside a model, which cannot be asked by itself.
    """

    layer: Layer
    x: Values
    mask: Mask | None
    start: tuple[Array, ...]
    tolerance: Tolerance
    override: Arithmetic | None = None
    asker: Asker | None = None
    start_given: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", cast(self.x, self.layer))

    def inside(self, layer: Layer, x: Values, mask: Mask | None, start: tuple[Array, ...]) -> "Query":
        """A part of the layer, by itself."""
        return Query(layer, x, mask, start, self.tolerance, self.override)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return chosen(last_dtype(self.layer), self.override)

    @cached_property
    def lifted(self) -> Any:
        """The layer on balls."""
        return on_balls(self.layer, self.override)

    @cached_property
    def finite(self) -> bool:
        """Whether everything that was given is."""
        return all(bool(np.isfinite(array).all()) for array in (values(self.x), *self.start))

    @property
    def recurrent(self) -> Recurrent:
        """The layer, where it is known to be one."""
        assert isinstance(self.layer, Recurrent)
        return self.layer

    @property
    def batch(self) -> int:
        return int(self.x.shape[0])

    @property
    def timesteps(self) -> int:
        return int(self.x.shape[1])

    @property
    def last_step(self) -> int:
        return self.timesteps - 1

    @property
    def long(self) -> bool:
        """Whether there are more steps than balls are carried through."""
        return self.timesteps > FORWARD_STEPS

    def exactly(self, state: Array) -> Ball:
        """A state that the call starts from; one that the candidate returned it may have kept wider."""
        ball = exact(state, self.arithmetic)
        ball.relative = 0.0 if self.start_given else self.arithmetic.unit
        return ball


def exact(array: Array, arithmetic: Arithmetic | None = None) -> Ball:
    """Values as they are, in the arithmetic of their dtype or in that one."""
    return Ball(array.astype(np.float64), chosen(array.dtype, arithmetic))


def given(case: Case, arithmetic: Arithmetic | None = None) -> Values:
    """The inputs of a case: token ids as they are, numbers as balls."""
    return case.x if case.tokens else exact(case.x, arithmetic)


def cast(x: Values, layer: Layer) -> Values:
    """Inputs in the dtype that the layer computes in."""
    return x.astype(layer.dtype) if isinstance(x, Ball) and x.dtype != layer.dtype else x


def values(x: Values) -> Array:
    array: Array = x.mid if isinstance(x, Ball) else x
    return array


def last_dtype(layer: Layer) -> np.dtype[Any]:
    """What its output is computed in."""
    return last_dtype(layer.layers[-1]) if isinstance(layer, Model) else layer.dtype


def signal(mid: Array) -> float:
    """How large values get."""
    return float(np.abs(np.nan_to_num(mid)).max(initial=0)) or 1.0
