"""Cases on disk, with Keras's outputs where those were recorded: one .npz of plain arrays, and JSON that says what they
are. Nothing is pickled, ever.

`cases.json`, an array of bytes, holds the schema's version, the cases and their layers, and where they come from. Every
layer's arrays stand in the file once, as `layer0/Wx`; those of the first case as `0/x`, `0/mask`, `0/initial_state/0`,
and Keras's answer as `0/0/outputs/0`: case, call, which of its arrays. bfloat16 is kept as the 16-bit integers that it
lies in. The archive's comment is the SHA-256 of every byte before it: a file of which any byte has changed is refused
before anything in it is read.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.functions import Answer
from parity.cases.case import Case
from parity.cases.drawing import named_dtype
from parity.disk import LARGEST, arrays_in
from parity.errors import InputError, ParityError
from parity.kinds import registry
from rnn_scratch.layers import Layer

Array = NDArray[Any]
Arrays = dict[str, Array]

SCHEMA = 2
INDEX = "cases.json"
DIGEST = 64


# --- layers as data ---


def describe(layer: Layer) -> dict[str, Any]:
    """A layer without its arrays, as JSON has it."""
    found = {"kind": layer.kind, "name": layer.name, "dtype": layer.dtype.name, **registry.describe(layer)}
    if layer.parts:
        found["parts"] = [[name, describe(part)] for name, part in layer.parts.items()]
    return found


def rebuild(found: Mapping[str, Any], weights: Mapping[str, Array]) -> Layer:
    """The layer of a description and its arrays by name."""
    parts = {name: rebuild(inner, below(f"{name}.", weights)) for name, inner in found.get("parts", [])}
    if found["kind"] not in registry.rebuild:
        raise ValueError(f"no layer of the kind {found['kind']!r}")
    layer = registry.rebuild[found["kind"]](found, weights, parts)
    layer.name = found["name"]
    return layer


# --- files ---


@dataclass(frozen=True)
class Golden:
    """What a file holds. answers: Keras's to each case, one a call, by the case's id; none of a file that only replays.
    provenance: what recorded them, as JSON has it."""

    cases: tuple[Case, ...]
    answers: Mapping[str, tuple[Answer, ...]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def packed(golden: Golden) -> bytes:
    """The bytes of the file."""
    arrays: Arrays = {}
    layers = list({id(case.layer): case.layer for case in golden.cases}.values())
    for n, layer in enumerate(layers):
        arrays |= {f"layer{n}/{name}": array for name, array in layer.weights.items()}
    number = {id(layer): n for n, layer in enumerate(layers)}
    index: dict[str, Any] = {"schema": SCHEMA, "provenance": dict(golden.provenance)}
    index["layers"] = [describe(layer) for layer in layers]
    index["cases"] = [
        {**entry(case, f"{n}/", arrays, golden.answers.get(case.id, ())), "layer": number[id(case.layer)]}
        for n, case in enumerate(golden.cases)
    ]
    index["dtypes"] = {name: array.dtype.name for name, array in arrays.items()}
    plain = {name: a.view(np.uint16) if a.dtype.name == "bfloat16" else a for name, a in arrays.items()}
    text = np.frombuffer(json.dumps(index, allow_nan=False).encode(), np.uint8)
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=False, **{INDEX: text, **plain})
    return sealed(file)


def sealed(file: BytesIO) -> bytes:
    """The archive with its digest as its comment, of which the length stands in its last two bytes."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"0" * DIGEST
    body = file.getvalue()[:-DIGEST]
    return body + hashlib.sha256(body).hexdigest().encode()


def entry(case: Case, prefix: str, arrays: Arrays, answers: Sequence[Answer]) -> dict[str, Any]:
    """A case without its arrays, which are put into `arrays`."""
    own: Arrays = case.arrays
    for n, answer in enumerate(answers):
        own |= {f"{n}/{name}": array for name, array in answered(answer).items()}
    arrays |= {prefix + name: np.ascontiguousarray(array) for name, array in own.items()}
    return {"id": case.id, "calls": case.calls, "rows": list(case.rows), "arrays": list(own), "answers": len(answers)}


def answered(answer: Answer) -> Arrays:
    """The arrays of an answer by name."""
    found = {f"outputs/{n}": array for n, array in enumerate(answer.outputs or ())}
    found |= {} if answer.sequence is None else {"sequence": answer.sequence}
    found |= {f"layers/{name}": array for name, array in answer.layers.items()}
    return found | {f"sequences/{name}": array for name, array in answer.sequences.items()}


def load(path: str) -> Golden:
    """What a file holds. InputError, in one line, for anything that is none or has been changed."""
    try:
        index, arrays = contents(unsealed(path))
        if index.get("schema") != SCHEMA:
            raise ValueError(f"schema {index.get('schema')!r}; this version reads schema {SCHEMA}")
        typed = {name: arrays[name].view(named_dtype(dtype)) for name, dtype in index["dtypes"].items()}
        layers = [rebuilt(layer, below(f"layer{n}/", typed)) for n, layer in enumerate(index["layers"])]
        cases, answers = [], {}
        for n, described in enumerate(index["cases"]):
            own, layer = below(f"{n}/", typed), layers[range(len(layers)).index(described["layer"])]
            cases.append(checked_case(case_of(described, layer, own)))
            if described["answers"]:
                answers[cases[-1].id] = answers_of(cases[-1], described["answers"], own)
        ids = {case.id for case in cases}
        if not 0 < len(ids) == len(cases) or len(answers) not in (0, len(cases)):
            raise ValueError(f"{len(cases)} cases, {len(ids)} ids, answers to {len(answers)}")
        return Golden(tuple(cases), answers, checked_provenance(index["provenance"]))
    except ParityError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: expected a file of cases written by parity: {reason[:200]}") from None


def unsealed(path: str) -> bytes:
    """The bytes of a file whose digest fits. ValueError for any other one."""
    if os.path.getsize(path) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    data = Path(path).read_bytes()
    body, found = data[:-DIGEST], data[-DIGEST:]
    if not data.startswith(b"PK"):
        raise ValueError("it is no .npz archive")
    if not re.fullmatch(rb"[0-9a-f]{64}", found):
        raise ValueError("it does not end with a digest: it was cut short, or rewritten by something else")
    if hashlib.sha256(body).hexdigest().encode() != found:
        raise ValueError("its digest does not fit: something in it was changed")
    return data


def contents(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """The index and the arrays of an archive that need not be one of ours: a digest is easily made."""
    arrays = arrays_in(data)
    return json.loads(arrays.pop(INDEX).tobytes()), arrays


def below(prefix: str, arrays: Mapping[str, Array]) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def numbered(name: str, arrays: Mapping[str, Array]) -> tuple[Array, ...]:
    own = below(f"{name}/", arrays)
    return tuple(own[str(n)] for n in range(len(own)))


def case_of(described: Mapping[str, Any], layer: Layer, own: Mapping[str, Array]) -> Case:
    states = numbered("initial_state", own)
    calls, rows = described["calls"], tuple(map(str, described["rows"]))
    return Case(str(described["id"]), layer, {"x": own["x"]}, own.get("mask"), states or None, calls, rows)


def answer_of(own: Mapping[str, Array]) -> Answer:
    outputs = numbered("outputs", own)
    return Answer(outputs, own.get("sequence"), below("layers/", own), below("sequences/", own))


# --- what a file says, held against itself: a digest is easily made ---


def rebuilt(described: Mapping[str, Any], arrays: Arrays) -> Layer:
    layer = rebuild(described, arrays)
    if json.loads(json.dumps(describe(layer))) != described or layer.weights.keys() != arrays.keys():
        raise ValueError(f"{described['name']}: its settings or arrays are not those of such a layer")
    return layer


def checked_case(case: Case) -> Case:
    """ValueError for what the case's layer cannot compute."""
    x, layer = case.x, case.layer
    if 0 in x.shape or x.dtype != layer.as_inputs(x).dtype:
        raise ValueError(f"{case.id}: x: expected numbers that {layer.name} takes; received {x.dtype} {x.shape}")
    layer.check_inputs(x)
    if case.mask is not None and case.mask.dtype != layer.check_mask(case.mask, x.shape[:2]).dtype:
        raise ValueError(f"{case.id}: mask: expected booleans; received {case.mask.dtype}")
    _ = case.start  # ValueError for states that do not fit
    if not isinstance(case.calls, int) or case.calls not in range(1, case.timesteps + 1) or case.timesteps % case.calls:
        raise ValueError(f"{case.id}: {case.timesteps} timesteps in {case.calls} calls")
    if len(case.rows) not in (0, case.batch):
        raise ValueError(f"{case.id}: {len(case.rows)} rows named, of {case.batch}")
    small = case.rows_at(np.arange(1)).first(1)
    with np.errstate(all="ignore"):
        small.put_to(layer)  # what only computing shows
    layer.reset_state()
    return case


def answers_of(case: Case, number: Any, own: Arrays) -> tuple[Answer, ...]:
    """Keras's answers, one for each call. ValueError for others than the case's layer gives."""
    if number != case.calls:
        raise ValueError(f"{case.id}: {number} answers to {case.calls} calls")
    return tuple(checked_answer(case.call(n), answer_of(below(f"{n}/", own))) for n in range(case.calls))


def checked_answer(case: Case, answer: Answer) -> Answer:
    expected = dict(shapes_of(case))
    for name, array in answered(answer).items():
        if array.shape != expected.get(name) or (array.dtype.kind != "f" and array.dtype.name != "bfloat16"):
            raise ValueError(f"{case.id}: {name}: expected {expected.get(name)}; received {array.dtype} {array.shape}")
    if len(answer.outputs or ()) != len(case.output_shapes):
        raise ValueError(f"{case.id}: outputs are missing")
    return answer


def shapes_of(case: Case) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names that arrays of an answer may have, and their shapes."""
    yield from ((f"outputs/{n}", shape) for n, shape in enumerate(case.output_shapes))
    yield "sequence", case.sequence_shape
    for name, _, whole, shape in case.part_shapes():
        yield f"sequences/{name}", whole
        yield f"layers/{name}", shape


def checked_provenance(found: Any) -> Mapping[str, Any]:
    environment = found.get("environment", {}) if isinstance(found, dict) else None
    if not isinstance(environment, dict):
        raise ValueError("its provenance: expected what recorded it, by name")
    return found  # type: ignore[no-any-return]
