"""Far out: questions whose inputs and states drive the cells as far as such inputs can, where what a port clips shows;
and one with a NaN. A question that nobody can tell there is nothing against anyone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from parity.cases.case import ANY, Case, Fixed
from parity.cases.drawing import draw_states, generator, inputs_like, leading
from parity.cases.reach import reach
from rnn_scratch import Embedding
from rnn_scratch.base import Array, Layer
from rnn_scratch.cells import Cell, LSTMCell
from rnn_scratch.layers import Recurrent

_NAME = "far out"

_PRE_ACTIVATIONS = (0.0, 4.0, 9.0, 15.0, 22.0, 30.0, *[38.0] * 6)
"""The largest of each row, the first of which is of zeros; of several rows, so that every gate is driven both ways."""

_HIGHEST = 42.0
"""A pre-activation beyond which exp(2 z) leaves float32: right code that makes tanh of it puts out NaN there."""

_FARTHEST = 1e3
"""Inputs, in multiples of the user's own, beyond which nobody's go: no weights are so small that they need more."""

_SATURATED = 10.0
"""A pre-activation at which a gate is as good as open."""

_CELLS = (31.0, -31.0, 12.0, -12.0, 4.0, -4.0)
"""Cell states that are given, where they are taken."""

_UNITS, _IDS = 64, 1000
"""Of larger layers and vocabularies so many are looked at."""


def is_far_out(case: Case) -> bool:
    return f" / {_NAME}" in case.id


def far_out(case: Case, takes: frozenset[str], seed: int, fixed: Fixed = ANY) -> Iterator[Case]:
    """Inputs of every size up to where gates are shut, cell states that grow for as long as there are steps, given
    states, a NaN. takes: what the candidate can be asked with. fixed: the only batch and timesteps that are asked, None
    where either is open."""
    for question in _questions(case, takes, seed, fixed):
        yield from _in_batches(question, fixed[0])


def _in_batches(case: Case, batch: int | None) -> Iterator[Case]:
    """A question in as many as there have to be for its rows, the last one filled up with the first of them."""
    if batch is None or batch == case.batch:
        yield case
        return
    for start in range(0, case.batch, batch):
        rows = np.arange(start, start + batch) % case.batch
        number = f", part {start // batch + 1}" if case.batch > batch else ""
        yield replace(case.rows_at(rows), id=f"{case.id}{number}")


def _questions(case: Case, takes: frozenset[str], seed: int, fixed: Fixed) -> Iterator[Case]:
    if any(np.isinf(part.cell.activation.slope) for part in case.layer.every(Recurrent)):
        return  # what exp makes of them is soon out of every range
    asked = _FarOut(case, generator(seed, f"{case.id} far out"), fixed[1])
    if not case.tokens:
        yield asked.inputs()
    yield from asked.cells()
    if "initial_state" in takes and _carried(case.layer):
        yield asked.states()
    if not case.tokens:
        yield asked.nan()


@dataclass
class _FarOut:
    """Draws them, one after another, all from one generator."""

    case: Case
    rng: np.random.Generator
    timesteps: int | None

    def _on(self, x: Array, name: str, **changes: tuple[Array, ...]) -> Case:
        plain = {"mask": None, "initial_state": None, "rows": (), "calls": 1}
        return self.case.on(x, id=f"{self.case.id} / {_NAME}{name}", **{**plain, **changes})

    def _drawn(self, batch: int, timesteps: int) -> Array:
        return inputs_like(self.case, self.rng, batch, self.timesteps or timesteps)

    def inputs(self) -> Case:
        """Each row of another size."""
        x = self._drawn(len(_PRE_ACTIVATIONS), 4)
        drawn = self._on(x, "")
        found = [reach(drawn.rows_at(np.array([row]))) for row in range(len(x))]
        factors = [min(z / (own.z or 1.0), _FARTHEST) for z, own in zip(_PRE_ACTIVATIONS, found, strict=True)]
        wide = np.reshape(factors, (-1, *[1] * (x.ndim - 1))) * x.astype(np.float64)
        return self._on(wide.astype(x.dtype), ", large inputs")

    def cells(self) -> Iterator[Case]:
        """Of each row one cell state grows as long as it can, and is then read by steps as they usually are."""
        cells = [cell for cell in _fed(self.case.layer) if isinstance(cell, LSTMCell) and _bounded(cell)]
        rows = [row for cell in cells for row in self._growing(cell)]
        rows = rows if self.case.tokens else [row for row in rows if self._is_bearable(row)]
        if rows:
            yield self._on(self._both_ways(self._grown(rows)), ", large cell states")

    def _is_bearable(self, x: Array) -> bool:
        """Whether no gate of the cells that see the inputs is driven farther than right code may bear."""
        wide = np.abs(x.astype(np.float64))
        return all(
            float((_most(cell) + np.abs(cell.Wx).astype(np.float64) @ wide).max()) <= _HIGHEST
            for cell in _fed(self.case.layer)
        )

    def _grown(self, rows: list[Array]) -> Array:
        """Each of those inputs of one step again and again, then steps as they usually are."""
        shown = all(part.return_sequences for part in self.case.layer.every(Recurrent))
        grows, read = (32, 8) if shown else (13, 3)  # a last output is judged by samples, which take long
        rows = rows if shown else rows[::2]
        x = self._drawn(len(rows), grows + read)
        steps = x.shape[1]
        grows = min(grows, steps - min(read, steps // 4))
        start = 0 if shown else max(0, steps - grows - read)
        x[:, start : start + grows] = np.stack(rows)[:, None]
        return x

    def _both_ways(self, x: Array) -> Array:
        """In the order of processing of every layer."""
        if not any(part.go_backwards for part in self.case.layer.every(Recurrent)):
            return x
        return np.ascontiguousarray(x[:, ::-1]) if self.case.backwards else np.concatenate([x, x[:, ::-1]])

    def _growing(self, cell: LSTMCell) -> list[Array]:
        """Inputs of one step that let a cell state grow, upwards and downwards; of token ids the best there are."""
        embedding = next((part for part in leading(self.case.layer) if isinstance(part, Embedding)), None)
        if embedding is not None:
            return _growing_ids(cell, embedding)
        most = _FARTHEST * float(np.nanmax(np.abs(self._drawn(1, 8).astype(np.float64)), initial=1.0))
        return [np.clip(x, -most, most).astype(self.case.x.dtype) for x in _growing_inputs(cell)]

    def states(self) -> Case:
        """Cell states as they stand after many steps."""
        x = self._drawn(len(_CELLS), 3)
        states = list(draw_states(self.case.layer, self.rng, len(_CELLS)))
        for n in _carried(self.case.layer):
            states[n] = (states[n].astype(np.float64) / 4 + np.array(_CELLS)[:, None]).astype(states[n].dtype)
        return self._on(x, ", large states", initial_state=tuple(states))

    def nan(self) -> Case:
        """In one element of one row, after the first step."""
        x = self._drawn(3, 4)
        step = min(1, x.shape[1] - 1)
        x[(1, -1 - step if self.case.backwards else step, *[0] * (x.ndim - 2))] = np.nan
        return self._on(x, ", a NaN")


def _fed(layer: Layer) -> list[Cell]:
    """The cells that see the inputs themselves, or what an embedding makes of them."""
    before = list(leading(layer))
    if any(part.weights and not isinstance(part, Embedding) for part in before):
        return []
    parts = list(layer.parts.values())
    first = parts[len(before)] if before and len(before) < len(parts) else layer
    if first is layer and layer.kind in ("model", "sequential"):
        first = parts[0]
    return [part.cell for part in first.every(Recurrent)][: 2 if first.kind == "bidirectional" else 1]


def _bounded(cell: LSTMCell) -> bool:
    """Whether its state grows by at most 1 a step; without bounds it feeds itself."""
    return all(np.isfinite([f.low, f.high]).all() for f in (cell.activation, cell.recurrent_activation))


def _carried(layer: Layer) -> list[int]:
    """Which of the states are carried unseen."""
    parts = [part.cell for part in layer.every(Recurrent)]
    names = [name in cell.carried for cell in parts for name in cell.states]
    return [n for n, carried in enumerate(names) if carried]


def _blocks(cell: LSTMCell, units: Array) -> tuple[Array, Array]:
    """Of each of the units the rows of i, f and g in Wx, (units, 3, input_dim), and what the rest of the pre-activation
    may take from them."""
    rows = np.stack([units + n * cell.units for n in range(3)], axis=1)
    rest = np.abs(cell.b).astype(np.float64) + np.abs(cell.Wh).astype(np.float64).sum(axis=1)
    return cell.Wx.astype(np.float64)[rows], rest[rows]


def _most(cell: Cell) -> Array:
    """Of each pre-activation the most that biases and states within [-1, 1] make of it."""
    biases = np.atleast_2d(np.abs(cell.b).astype(np.float64)).sum(axis=0)
    return np.asarray(biases + np.abs(cell.Wh).astype(np.float64).sum(axis=1))


def _some(number: int, most: int) -> Array:
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(int))


def _growing_inputs(cell: LSTMCell) -> list[Array]:
    """For the units of which the input gate and the forget gate open most easily while g has one sign."""
    blocks, rest = _blocks(cell, _some(cell.units, _UNITS))
    found = []
    for sign in (1.0, -1.0):
        wanted = np.array([1.0, 1.0, sign])
        x = np.linalg.pinv(blocks) @ wanted
        reached = (np.einsum("urd,ud->ur", blocks, x) * wanted).min(axis=1)
        need = np.where(reached > 1e-3, (_SATURATED + rest.max(axis=1)) / np.maximum(reached, 1e-3), np.inf)
        for unit in np.argsort(need * np.abs(x).max(axis=1))[:2]:
            if np.isfinite(need[unit]):
                found.append(need[unit] * x[unit])
    return found


def _growing_ids(cell: LSTMCell, embedding: Embedding) -> list[Array]:
    ids = _some(len(embedding.E), _IDS)[1 if embedding.mask_zero else 0 :]
    if not len(ids):
        return []
    blocks, _ = _blocks(cell, _some(cell.units, _UNITS))
    z = np.einsum("urd,nd->nur", blocks, embedding.E[ids].astype(np.float64))
    best = []
    for sign in (1.0, -1.0):
        worst = (z * np.array([1.0, 1.0, sign])).min(axis=2).max(axis=1)
        best.append(np.asarray(ids[int(worst.argmax())], np.int32))
    return best
