"""Golden files: cases on disk, with Keras's outputs where those were recorded.

One .npz (`parity.golden.archive`). Every layer's arrays stand in it once, as `layer0/Wx`; those of the first case as
`0/x`, `0/mask`, `0/initial_state/0`, and Keras's answer as `0/0/outputs/0`: case, call, which of its arrays. Several
inputs are `0/inputs/NAME`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.candidates.answer import Answer
from parity.cases.case import Case
from parity.errors import InputError, ParityError
from parity.golden.archive import Array, Index, below, numbered, opened, written
from parity.golden.believed import arrays_of, checked_answer, checked_case, checked_provenance
from parity.golden.layers import describe, rebuild
from rnn_scratch.layers import Layer

SCHEMA = 2


@dataclass(frozen=True)
class Golden:
    """What a file holds. answers: Keras's to each case, one a call, by the case's id; none of a file that only replays.
    provenance: what recorded them, as JSON has it."""

    cases: tuple[Case, ...]
    answers: Mapping[str, tuple[Answer, ...]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


# --- written ---


def packed(golden: Golden) -> bytes:
    """The bytes of the file."""
    # by identity: what is asked of one layer shares it, and layers that are alike need not be found to be
    layers = {id(case.layer): case.layer for case in golden.cases}
    place = {key: n for n, key in enumerate(layers)}
    arrays: dict[str, Array] = {}
    for n, layer in enumerate(layers.values()):
        arrays |= _under(f"layer{n}", layer.weights)
    cases = []
    for n, case in enumerate(golden.cases):
        answers = golden.answers.get(case.id, ())
        own = _arrays_of(case, answers)
        arrays |= _under(str(n), own)
        cases.append({**_entry(case, own, answers), "layer": place[id(case.layer)]})
    index = {
        "schema": SCHEMA,
        "provenance": dict(golden.provenance),
        "layers": [describe(layer) for layer in layers.values()],
        "cases": cases,
    }
    return written(index, arrays)


def _under(place: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{place}/{name}": array for name, array in arrays.items()}


def _entry(case: Case, arrays: Mapping[str, Array], answers: Sequence[Answer]) -> dict[str, Any]:
    """What the index says of a case."""
    return {
        "id": case.id,
        "calls": case.calls,
        "rows": list(case.rows),
        "arrays": list(arrays),
        "answers": len(answers),
    }


def _arrays_of(case: Case, answers: Sequence[Answer]) -> dict[str, Array]:
    """A case's arrays and those of its answers, by name."""
    found = _given(case)
    for n, answer in enumerate(answers):
        found |= _under(str(n), arrays_of(answer))
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def _given(case: Case) -> dict[str, Array]:
    found = case.arrays
    if tuple(case.inputs) == Layer.input_names:
        return found
    named = {f"inputs/{name}": found.pop(name) for name in case.inputs}
    return {**named, **found}


# --- read ---


def load(path: str) -> Golden:
    """What a file holds. InputError, in one line, for anything that is none or has been changed."""
    try:
        return _golden(*opened(path, SCHEMA))
    except ParityError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: expected a file of cases written by parity: {reason[:200]}") from None


def _golden(index: Index, arrays: Mapping[str, Array]) -> Golden:
    layers = [rebuild(layer, below(f"layer{n}/", arrays)) for n, layer in enumerate(index["layers"])]
    cases: list[Case] = []
    answers: dict[str, tuple[Answer, ...]] = {}
    for n, entry in enumerate(index["cases"]):
        own = below(f"{n}/", arrays)
        # not layers[...] at once, which takes -1 for a layer as well
        number = range(len(layers)).index(entry["layer"])
        case = checked_case(_case(entry, layers[number], own))
        cases.append(case)
        if entry["answers"]:
            answers[case.id] = _answers(case, entry["answers"], own)
    _expect_whole(cases, answers)
    return Golden(tuple(cases), answers, checked_provenance(index["provenance"]))


def _expect_whole(cases: Sequence[Case], answers: Mapping[str, tuple[Answer, ...]]) -> None:
    """ValueError unless there are cases, each with an id of its own, and answers to all of them or to none."""
    ids = {case.id for case in cases}
    if not cases or len(ids) < len(cases) or len(answers) not in (0, len(cases)):
        raise ValueError(f"{len(cases)} cases, {len(ids)} ids, answers to {len(answers)}")


def _case(entry: Mapping[str, Any], layer: Layer, own: Mapping[str, Array]) -> Case:
    inputs = below("inputs/", own) or {"x": own["x"]}
    states = numbered("initial_state", own)
    rows = tuple(map(str, entry["rows"]))
    return Case(str(entry["id"]), layer, inputs, own.get("mask"), states or None, entry["calls"], rows)


def _answers(case: Case, number: object, own: Mapping[str, Array]) -> tuple[Answer, ...]:
    """Keras's answers, one for each call. ValueError for others than the case's layer gives."""
    if number != case.calls:
        raise ValueError(f"{case.id}: {number} answers to {case.calls} calls")
    calls = range(case.calls)
    return tuple(checked_answer(case.call(n), _answer(below(f"{n}/", own))) for n in calls)


def _answer(own: Mapping[str, Array]) -> Answer:
    layers, sequences = below("layers/", own), below("sequences/", own)
    return Answer(numbered("outputs", own), own.get("sequence"), layers, sequences)
