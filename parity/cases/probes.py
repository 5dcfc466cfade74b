"""Probes: ordinary cases whose inputs leave rounding next to nothing to do, so that a single weight off by a little
shows.

Unit vectors, scaled by a power of two until the largest weight they meet is near 1, make a pre-activation of one weight
and one bias. Weights on a dyadic lattice make sums that are exact in any order.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from parity.cases.beside import WEIGHTS
from parity.cases.case import Case
from parity.cases.drawing import Rng, generator, leading
from rnn_scratch import Embedding
from rnn_scratch.base import Array, Layer
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent

MOST_ROWS = 300
"""Unit vectors in one probe: of larger layers every so many are taken."""

LATTICE_BITS = {"float16": 5, "bfloat16": 3, "float32": 12, "float64": 12}
"""Of a weight, few enough that a product of two and a sum of those is exact."""


def probes(case: Case, takes: frozenset[str], seed: int) -> Iterator[Case]:
    """With `initial_state` unit vectors for the recurrent weights as well; a gated cell gets unit inputs and states at
    once, since some gates do nothing to a state of zeros. With `layer` the lattices. A model that begins with an
    embedding is asked for every token."""
    first = next(leading(case.layer), case.layer)
    if isinstance(first, Embedding):
        yield _every_token(case, first)
    if not isinstance(case.layer, Recurrent):
        return
    cell = case.layer.cell
    yield _unit_inputs(case, cell)
    if "initial_state" in takes:
        yield _unit_states(case, cell)
        if len(cell.gates) > 1:
            yield _unit_inputs_and_states(case, cell)
    if takes & WEIGHTS:
        yield from _lattices(case, cell, "initial_state" in takes, seed)


def _probe(case: Case, name: str, x: Array, rows: Sequence[str] = (), states: Sequence[Array] | None = None) -> Case:
    given = None if states is None else tuple(states)
    return case.on(x, id=f"{case.id} / {name}", mask=None, initial_state=given, rows=tuple(rows))


def _every_token(case: Case, embedding: Embedding) -> Case:
    ids = np.arange(min(len(embedding.E), MOST_ROWS), dtype=np.int32)[:, None]
    return case.on(ids, id=f"{case.id} / every token", mask=None, rows=tuple(f"token {n}" for n in ids[:, 0]))


# --- unit vectors ---


def _unit_inputs(case: Case, cell: Cell) -> Case:
    x, features = _units_of(cell.Wx)
    rows = [f"the input is {x[i, j]:g} at feature {j}" for i, j in enumerate(features)]
    x = np.concatenate([x, np.zeros_like(x[:1])])  # the bias alone
    return _probe(case, "unit inputs", x[:, None], [*rows, "the input is 0"])


def _unit_states(case: Case, cell: Cell) -> Case:
    h, units = _units_of(cell.Wh)
    rows = [f"the initial state is {h[i, j]:g} at unit {j}" for i, j in enumerate(units)]
    x = np.zeros((len(h), 1, cell.input_dim), cell.dtype)
    return _probe(case, "unit states", x, rows, [h, *_carried(cell, len(h))])


def _unit_inputs_and_states(case: Case, cell: Cell) -> Case:
    x, features = _units_of(cell.Wx)
    h, units = _units_of(cell.Wh)
    number = np.arange(max(len(x), len(h)))
    i, j = number % len(x), number % len(h)
    pairs = zip(features[i], units[j], strict=True)
    rows = [f"the input is a unit of feature {feature}, the state of unit {unit}" for feature, unit in pairs]
    return _probe(case, "unit inputs and states", x[i][:, None], rows, [h[j], *_carried(cell, len(number))])


def _carried(cell: Cell, batch: int) -> list[Array]:
    """The states that go unseen: not zeros, since a gate that multiplies one would not show."""
    return [np.full((batch, cell.units), 0.75).astype(cell.dtype) for _ in cell.states[1:]]


def _units_of(W: Array) -> tuple[Array, NDArray[np.intp]]:
    """Unit vectors (rows, n) for the columns of W (m, n), each times the power of two that brings the column near 1."""
    n = W.shape[1]
    columns = np.arange(n) if n <= MOST_ROWS else np.linspace(0, n - 1, MOST_ROWS).astype(np.intp)
    largest = np.abs(W[:, columns].astype(np.float64)).max(axis=0)
    power = np.clip(-np.floor(np.log2(np.where(largest > 0, largest, 1))), -10, 10)
    units = np.zeros((len(columns), n), W.dtype)
    units[np.arange(len(columns)), columns] = np.exp2(power)
    return units, columns


# --- lattices ---


def _lattices(case: Case, cell: Cell, takes_state: bool, seed: int) -> Iterator[Case]:
    """Cases with weights, inputs and states on dyadic lattices instead of the layer's own."""
    rng = generator(seed, f"{case.id} lattice")
    if takes_state:
        yield _one_step_lattice(case, cell, rng)
    else:
        yield from _two_step_lattices(case, cell, rng)


def _one_step_lattice(case: Case, cell: Cell, rng: Rng) -> Case:
    bits = LATTICE_BITS[cell.dtype.name]
    shrink = np.exp2(-np.round(np.log2(cell.units + cell.input_dim) / 2))  # sums near 1: a saturated unit shows nothing
    weights = {name: shrink * _lattice(rng, array.shape, bits) for name, array in cell.weights.items()}
    x = _lattice(rng, (4, 1, cell.input_dim), 2).astype(cell.dtype)
    states = [_lattice(rng, (4, cell.units), 2).astype(cell.dtype) for _ in cell.states]
    return _probe(_reweighted(case, weights), "lattice", x, case.rows, states)


def _two_step_lattices(case: Case, cell: Cell, rng: Rng) -> Iterator[Case]:
    """Where no initial state can be set, the first of two steps sets it, at a few units: Wx is zero but there. The
    second input is zero."""
    units, input_dim = cell.units, cell.input_dim
    width = max(16, -(-units // (16 * input_dim)))
    groups = [np.arange(start, min(start + width, units)) for start in range(0, units, width)]
    x = np.zeros((input_dim, 2, input_dim), cell.dtype)
    x[np.arange(input_dim), 1 if case.backwards else 0, np.arange(input_dim)] = 1
    for start in range(0, len(groups), input_dim):
        Wh = _lattice(rng, cell.Wh.shape, LATTICE_BITS[cell.dtype.name])
        Wx = _at_groups(rng, cell, groups[start : start + input_dim])
        reweighted = _reweighted(case, {"Wx": Wx, "Wh": Wh, "b": np.zeros(cell.b.shape)})
        yield _probe(reweighted, f"two-step lattice from unit {start * width}", x, case.rows)


def _at_groups(rng: Rng, cell: Cell, groups: Sequence[NDArray[np.intp]]) -> Array:
    """Wx, of which each feature drives one group of units through every gate."""
    Wx = np.zeros((len(cell.gates) * cell.units, cell.input_dim))
    for feature, group in enumerate(groups):
        for gate in range(len(cell.gates)):
            Wx[gate * cell.units + group, feature] = rng.choice([-0.75, -0.5, 0.5, 0.75], len(group))
    return Wx


def _lattice(rng: Rng, shape: Sequence[int], bits: int) -> Array:
    """Multiples of 2^-bits from 1/4 to 1, of either sign."""
    return rng.choice([-1.0, 1.0], shape) * rng.integers(2**bits // 4, 2**bits, shape, endpoint=True) * 2.0**-bits


def _reweighted(case: Case, weights: dict[str, Array]) -> Case:
    """With those weights, the bias among them where the layer has one."""
    layer: Layer = case.layer
    cast = {name: weights[name].astype(layer.dtype) for name in layer.weights}
    return case.on(case.inputs, layer=layer.replace(**cast))
