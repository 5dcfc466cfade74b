"""The weights of a SimpleRNN, by least squares from its own outputs: atanh(h_t) = Wx x_t + Wh h_{t-1} + b."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from parity.explaining.answered import Answered
from parity.explaining.facts import previous
from parity.explaining.made_of import compared
from rnn_scratch.base import Array
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent

_ROWS = 4000
"""At most so many equations for recovered weights."""

_SIGNIFICANT = 8.0
"""A recovered weight differs if it does by so many of its standard errors, and by more than rounding."""

_MOST_ROUNDINGS = 50
"""Residuals of so many standard roundings are no longer rounding."""

_UNIT = 2.0**-24
"""Of float32."""

_INVERSES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.arctanh, lambda y: 1 - y * y),
    "sigmoid": (lambda y: np.log(y / (1 - y)), lambda y: y * (1 - y)),
    "linear": (lambda y: y, lambda y: np.ones_like(y)),
}
"""Of an activation its inverse, and its slope where it puts out y."""

_Args = ParamSpec("_Args")
_Found = TypeVar("_Found")


def where_solvable(find: Callable[_Args, _Found | None]) -> Callable[_Args, _Found | None]:
    """None where the numbers that a candidate put out leave nothing to solve: huge ones, say."""

    @functools.wraps(find)
    def guarded(*args: _Args.args, **kwargs: _Args.kwargs) -> _Found | None:
        try:
            with np.errstate(all="ignore"):
                return find(*args, **kwargs)
        except np.linalg.LinAlgError:
            return None

    return guarded


@dataclass(frozen=True)
class Recovered:
    """weights: the arrays by which a SimpleRNN would have put out what the candidate did. right: the layer's. apart:
    where they differ. fit: the largest residual, in standard roundings."""

    weights: dict[str, Array]
    right: dict[str, Array]
    apart: dict[str, NDArray[np.bool_]]
    fit: float

    @property
    def is_one(self) -> bool:
        """Whether there are such arrays."""
        return self.fit <= _MOST_ROUNDINGS

    @property
    def alone(self) -> tuple[str, Array] | None:
        """The array that alone differs, and its name."""
        names = [name for name, apart in self.apart.items() if apart.any()]
        if len(names) != 1 or not self.is_one:
            return None
        return names[0], self.weights[names[0]]

    def lines(self) -> Iterator[str]:
        if not self.is_one:
            yield "recovered by least squares: no Wx, Wh and b make it a SimpleRNN with this activation"
            return
        for name, apart in self.apart.items():
            yield f"recovered by least squares: {compared(name, self.weights[name], self.right[name], apart)}"


@where_solvable
def recover(layer: Recurrent, questions: Sequence[Answered]) -> Recovered | None:
    """Of a SimpleRNN in float32 whose sequences are seen."""
    cell = layer.cell
    if len(cell.gates) > 1 or cell.activation.name not in _INVERSES or cell.dtype != np.float32:
        return None
    units = _units(*_equations(layer, questions), cell.activation.name)
    if not units:
        return None
    solved, errors = np.array([unit.row for unit in units]), np.array([unit.errors for unit in units])
    right = np.concatenate([cell.Wx, cell.Wh, cell.b[:, None]], axis=1).astype(np.float64)
    apart = np.abs(solved - right) > _SIGNIFICANT * errors + 1e-6 * np.abs(right)
    fit = max(unit.fit for unit in units)
    return Recovered(_arrays(cell, solved), _arrays(cell, right), _arrays(cell, apart), fit)


def has_weights(question: Answered, layer: Recurrent) -> bool:
    """Whether it was asked with that layer's own weights."""
    asked = question.case.layer.weights.items()
    return all(np.array_equal(array, layer.weights[name]) for name, array in asked)


def _equations(layer: Recurrent, questions: Sequence[Answered]) -> tuple[Array, Array]:
    """Rows x_t, h_{t-1}, 1 and the outputs h_t, of the questions with the layer's own weights."""
    rows, outputs = [np.zeros((0, layer.input_dim + layer.units + 1))], [np.zeros((0, layer.units))]
    for question in questions:
        case, sequence = question.case, question.sequence
        if sequence is None or case.mask is not None or case.calls > 1 or not has_weights(question, layer):
            continue
        with contextlib.suppress(ValueError):  # arrays of any shape may come
            x, _ = case.processed()
            one = np.ones((case.batch, case.timesteps, 1))
            A = np.concatenate([x.astype(np.float64), previous(case, sequence), one], axis=2)
            rows.append(A.reshape(-1, A.shape[2])[:_ROWS])
            outputs.append(sequence.reshape(-1, layer.units)[:_ROWS].astype(np.float64))
    return np.concatenate(rows)[:_ROWS], np.concatenate(outputs)[:_ROWS]


@dataclass(frozen=True)
class _Unit:
    """row: the weights of one unit, and their standard errors. fit: its largest residual, in standard roundings."""

    row: Array
    errors: Array
    fit: float


def _units(A: Array, Y: Array, activation: str) -> list[_Unit]:
    """Each unit by itself; none where one cannot be told."""
    if len(A) < 2 * A.shape[1]:
        return []
    found = []
    for y in Y.T:
        unit = _solved(A, y, activation)
        if unit is None:
            return []
        found.append(unit)
    return found


def _solved(A: Array, y: Array, activation: str) -> _Unit | None:
    inverse, slope = _INVERSES[activation]
    steep = slope(y)
    usable = np.isfinite(y) & (steep > 1e-3) & np.isfinite(A).all(axis=1)
    a, z, steep = A[usable], inverse(y[usable]), steep[usable]
    if len(z) < 1.5 * a.shape[1]:
        return None
    weight = steep / (1 + np.abs(z) * steep)  # one over what rounding does to z
    weighted = a * weight[:, None]
    row, _, rank, _ = np.linalg.lstsq(weighted, z * weight, rcond=1e-9)
    if rank < a.shape[1]:
        return None
    rest = weighted @ row - z * weight
    sigma = max(float(np.sqrt((rest * rest).mean())), _UNIT)
    errors = sigma * np.sqrt(np.diag(np.linalg.inv(weighted.T @ weighted)))
    return _Unit(row, errors, float(np.abs(rest).max()) / (_UNIT * np.sqrt(a.shape[1])))


def _arrays(cell: Cell, rows: Array) -> dict[str, Array]:
    Wx, Wh, b = np.split(rows, [cell.input_dim, cell.input_dim + cell.units], axis=1)
    return {"Wx": Wx, "Wh": Wh, "b": b[:, 0]}
