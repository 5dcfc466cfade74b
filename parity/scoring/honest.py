"""Correct implementations, Keras itself among them: is one of them ever accused?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.adapters.keras import library
from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.oracle import Oracle
from parity.adapters.keras.to_keras import to_keras
from parity.candidates.answer import Candidate
from parity.cases.case import Case
from parity.explaining.functions import computed
from parity.scoring import peers
from parity.scoring.asking import Function, put, questions
from parity.scoring.counts import Score
from parity.scoring.usual import verdicts
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

Order = Callable[[int], Array]


@dataclass(frozen=True)
class _Implementation:
    """case: with the implementation's own layer. alone: it is asked nothing but the case. keeps_state: between calls,
    if the layer is stateful."""

    name: str
    candidate: Candidate
    case: Case
    alone: bool = False
    keeps_state: bool = False

    def questions(self) -> Iterator[Case]:
        if self.alone:
            yield self.case
            return
        for question in questions(self.case, self.candidate.takes):
            if question.calls == 1 or (self.keeps_state and question.layer.stateful):
                yield question


def implementations(score: Score, cases: Sequence[Case], step: Callable[[str], None]) -> None:
    """Every correct implementation on every case, by every question; and Keras."""
    for case in cases:
        step(case.id)
        for implementation in (_keras(case), *_others(case)):
            _judge(score, implementation)
        _baseline(score, case)


def _baseline(score: Score, case: Case) -> None:
    """Whom the usual comparisons accuse, where the precision is the only difference."""
    if case.calls > 1 or case.layer.dtype != np.float32:
        return
    single, double = computed(case)[0], _in_dtype(np.float64)(case)
    for name, differs in verdicts(double, single).items():
        score.count(f"{name}: correct evaluations accused", differs)


def _judge(score: Score, implementation: _Implementation) -> None:
    name = implementation.name
    for question in implementation.questions():
        found = put(implementation.candidate, question)
        if found is None:
            continue
        score.largest = max(score.largest, found.proof.worst)
        accused = found.verdict == "FAIL"
        score.count(f"correct evaluations accused, {name}", accused)
        score.count("correct evaluations accused", accused)
        if accused:
            score.accused.append(f"{name} in {question.id}")


def _keras(case: Case) -> _Implementation:
    keras_layer = to_keras(case.layer, batch_size=case.batch if case.layer.stateful else None)
    own = from_keras(keras_layer)
    own.reset_state()
    name = f"Keras on {library.backend_of(keras_layer)}"
    return _Implementation(name, Oracle(keras_layer, own), replace(case, layer=own), keeps_state=True)


def _others(case: Case) -> Iterator[_Implementation]:
    for name, function in _functions(case):
        yield _Implementation(name, Function(function), case)
    if isinstance(case.layer, Recurrent) and case.layer.dtype == np.float32:
        for name, peer in peers.of(case.layer, case.mask, case.initial_state).items():
            yield _Implementation(name, Function(_asked_of(peer)), case, alone=True)


def _functions(case: Case) -> Iterator[tuple[str, Callable[[Case], Sequence[Array]]]]:
    """rnn_scratch itself, its sums in other orders, and in wider precisions."""
    yield "rnn_scratch", lambda asked: computed(asked)[0]
    if isinstance(case.layer, Recurrent):
        yield "rnn_scratch, sums backwards", lambda asked: _turned(asked, lambda n: np.arange(n)[::-1])
        yield "rnn_scratch, sums shuffled", lambda asked: _turned(asked, _shuffled)
    if case.layer.dtype == np.float32:
        yield "rnn_scratch in float64", _in_dtype(np.float64)
        yield "rnn_scratch in long double", _in_dtype(np.longdouble)


def _asked_of(peer: Callable[..., Array]) -> Callable[[Case], Sequence[Array]]:
    return lambda asked: [peer(asked.x, asked.layer)]


def _turned(case: Case, order: Order) -> list[Array]:
    """The same layer with its features and units in another order: every sum is taken in that order."""
    layer: Any = case.layer
    cell, u = layer.cell, layer.units
    rows, features = order(u), order(cell.input_dim)
    every = np.concatenate([n * u + rows for n in range(len(cell.gates))])
    # the bias may have two rows, the input's and the recurrent one
    new = {"Wx": cell.Wx[every][:, features], "Wh": cell.Wh[every][:, rows], "b": cell.b[..., every]}
    other = layer.replace(**{name: new[name] for name in layer.weights})
    back = np.argsort(rows)
    return [y[..., back] for y in computed(case.features_at(features).units_at(rows, layer=other))[0]]


def _shuffled(n: int) -> Array:
    return np.random.default_rng(n).permutation(n)


def _in_dtype(dtype: Any) -> Callable[[Case], Sequence[Array]]:
    """Computed in a wider precision and rounded at the end."""

    def compute(case: Case) -> list[Array]:
        results = computed(case.cast(dtype, layer=case.layer.astype(dtype)))[0]
        return [y.astype(case.layer.dtype) for y in results]

    return compute
