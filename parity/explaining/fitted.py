"""One array of a gated cell, fitted to what the candidate put out.

Each array by itself, by damped Gauss-Newton steps: a unit's outputs depend on its own rows alone, h being the
candidate's and c of the same unit.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from parity.explaining.answered import Answered
from parity.explaining.deadline import Deadline
from parity.explaining.facts import previous
from parity.explaining.made_of import differing
from parity.explaining.recovered import has_weights, where_solvable
from rnn_scratch.base import Array
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent

FIT_SECONDS = 1.0

_MOST_COLUMNS = 96
"""More unknowns for a unit than these are not fitted: it would take too long."""

_MOST_WORK = 200_000
"""Inputs times units of a question that is still used."""

_STEPS = 40
_TRIES = 6
"""How many dampings are tried for one step."""

_DELTA = 1e-6
"""By how much a parameter is moved for a derivative."""


def fitted(layer: Recurrent, questions: Sequence[Answered]) -> tuple[str, Array] | None:
    """The name and the entries of the one array, quite another than the layer's, with which the cell puts out what the
    candidate did."""
    deadline = Deadline(FIT_SECONDS)
    data = [_taught(question) for question in questions if _usable(question, layer)]
    data.sort(key=lambda part: part.x.shape[1])  # a loop over time for every column costs most
    found = []
    for name in sorted(layer.weights, key=lambda name: layer.weights[name].size):
        new = _fit(layer, name, data, deadline)
        if new is not None and differing(new, layer.weights[name]).any():
            found.append((name, new))
    return found[0] if len(found) == 1 else None


# --- what is known ---


@dataclass
class _Taught:
    """x: (batch, timesteps, input_dim), h: (batch, timesteps, units) before each step, carried: what goes unseen at the
    start, y: (batch, timesteps, units), what the candidate put out. All float64."""

    x: Array
    h: Array
    carried: tuple[Array, ...]
    y: Array

    def run(self, cell: Cell) -> Array:
        """What the cell puts out from these states: (batch * timesteps, units)."""
        carried, outputs = self.carried, []
        p = cell.project(self.x)
        for t in range(self.x.shape[1]):
            h, *new = cell.update(p[:, t], self.h[:, t], *carried)
            carried = tuple(new)
            outputs.append(h)
        return np.stack(outputs, axis=1).reshape(-1, self.y.shape[2])


def _usable(question: Answered, layer: Recurrent) -> bool:
    case = question.case
    if question.sequence is None or case.mask is not None or case.calls > 1:
        return False
    small = case.size * layer.units < _MOST_WORK
    return bool(small and has_weights(question, layer) and np.isfinite(case.x).all())


def _taught(question: Answered) -> _Taught:
    case, y = question.case, question.sequence
    assert y is not None
    x, _ = case.processed()
    carried = tuple(state.astype(np.float64) for state in case.start[1:])
    return _Taught(x.astype(np.float64), previous(case, y), carried, y.astype(np.float64))


def _enough(data: Sequence[_Taught], columns: int) -> list[_Taught]:
    """As many of them, from the first on, as tell so many unknowns apart."""
    known = itertools.accumulate((part.y.size // part.y.shape[2] for part in data), initial=0)
    return [part for part, before in zip(data, known, strict=False) if before < 3 * columns + 16]


# --- the fit ---


def _fit(layer: Recurrent, name: str, data: Sequence[_Taught], deadline: Deadline) -> Array | None:
    """The array of that name with which the cell fits the data; None if none does, or too little is known."""
    own, units = layer.weights[name].astype(np.float64), layer.units
    columns = own.size // units
    data = _enough(data, columns)
    y = np.concatenate([np.zeros((0, units)), *(part.y.reshape(-1, units) for part in data)])
    if columns > _MOST_COLUMNS or len(y) < 1.25 * columns or not np.isfinite(y).all():
        return None
    across = 1 if name == "b" else own.shape[1]

    def placed(parameters: Array) -> Array:
        """(units, columns) -> the array, which has one row a unit and gate."""
        return parameters.reshape(units, -1, across).swapaxes(0, 1).reshape(own.shape)

    def outputs(parameters: Array) -> Array:
        new = placed(parameters)
        cell = layer.cell.mapped(lambda key, weight: new if key == name else weight.astype(np.float64))
        return np.concatenate([part.run(cell) for part in data])

    right = own.reshape(-1, units, across).swapaxes(0, 1).reshape(units, columns)
    for start in (right, 0 * right):
        solved = _levenberg_marquardt(outputs, start, y, deadline)
        if solved is not None:
            return placed(solved)
    return None


_Model = Callable[[Array], Array]


@where_solvable
def _levenberg_marquardt(f: _Model, start: Array, y: Array, deadline: Deadline) -> Array | None:
    """Parameters (units, columns) with which f gives y (n, units) to 1e-5, each unit's by themselves; None if none do
    that are found from there in time."""
    current, damping = start.astype(np.float64), np.full(len(start), 1e-2)
    now, stuck = f(current), 0
    for _ in range(_STEPS):
        J = _jacobian(f, current, now, deadline)
        if J is None:
            return None
        before = y - now
        current, damping = _step(f, J, current, before, y, damping)
        now = f(current)
        stuck = stuck + 1 if np.square(y - now).sum() > 0.8 * np.square(before).sum() else 0
        if np.abs(y - now).max() < 1e-6 or stuck == 4:
            break
    return current if np.abs(y - now).max() < 1e-5 * max(1.0, float(np.abs(y).max())) else None


def _jacobian(f: _Model, current: Array, now: Array, deadline: Deadline) -> Array | None:
    """(n, units, columns): each unit's outputs by its own parameters. None where there is no more time."""
    J = np.empty((*now.shape, current.shape[1]))
    for j in range(current.shape[1]):
        if deadline.passed:
            return None
        moved = current.copy()
        moved[:, j] += _DELTA
        J[..., j] = (f(moved) - now) / _DELTA
    return J


def _step(f: _Model, J: Array, current: Array, rest: Array, y: Array, damping: Array) -> tuple[Array, Array]:
    """The parameters after a step of those units that it brings nearer, and each unit's damping for the next."""
    normal, slope = np.einsum("nui,nuj->uij", J, J), np.einsum("nui,nu->ui", J, rest)
    for _ in range(_TRIES):
        extra = damping[:, None, None] * np.eye(current.shape[1])
        step = np.linalg.solve(normal + extra, slope[..., None])[..., 0]
        after = f(current + step)
        better = np.square(y - after).sum(axis=0) <= np.square(rest).sum(axis=0)
        damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-12, 1e6)
        if better.all():
            break
    return current + step * better[:, None], damping
