"""What a file says, held against itself before it is believed: a digest is easily made."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from parity.candidates.answer import Answer
from parity.cases.case import Case
from parity.golden.archive import Array

_SIZES = ("timesteps", "batch")
"""Of which only those of the first case may be asked."""


def checked_case(case: Case) -> Case:
    """ValueError for what the case's layer cannot compute."""
    layer = case.layer
    if tuple(case.inputs) != layer.input_names:
        names = ", ".join(layer.input_names)
        raise ValueError(f"{case.id}: inputs {', '.join(case.inputs)}: expected {names}, which {layer.name} takes")
    for name, x in case.inputs.items():
        if 0 in x.shape or x.dtype != layer.as_inputs(x).dtype:
            raise ValueError(
                f"{case.id}: {name}: expected numbers that {layer.name} takes; received {x.dtype} {x.shape}"
            )
        layer.check_inputs(x)
    _check_mask(case)
    _check_numbers(case)
    small = case.rows_at(np.arange(1)).first(1)
    with np.errstate(all="ignore"):
        small.put_to(layer)  # what only computing shows
    layer.reset_state()
    return case


def _check_mask(case: Case) -> None:
    if case.mask is None:
        return
    if case.mask.dtype != case.layer.check_mask(case.mask, (case.batch, case.timesteps)).dtype:
        raise ValueError(f"{case.id}: mask: expected booleans; received {case.mask.dtype}")


def _check_numbers(case: Case) -> None:
    """Of states, calls and rows."""
    _ = case.start  # ValueError for states that do not fit
    steps, calls = case.timesteps, case.calls
    if not isinstance(calls, int) or calls not in range(1, steps + 1) or steps % calls:
        raise ValueError(f"{case.id}: {steps} timesteps in {calls} calls")
    if len(case.rows) not in (0, case.batch):
        raise ValueError(f"{case.id}: {len(case.rows)} rows named, of {case.batch}")


def arrays_of(answer: Answer) -> dict[str, Array]:
    """By the names that they have in files."""
    found = {f"outputs/{n}": array for n, array in enumerate(answer.outputs or ())}
    if answer.sequence is not None:
        found["sequence"] = answer.sequence
    found |= {f"layers/{name}": array for name, array in answer.layers.items()}
    found |= {f"sequences/{name}": array for name, array in answer.sequences.items()}
    return found


def checked_answer(case: Case, answer: Answer) -> Answer:
    """ValueError for arrays of other names, shapes and kinds than the case's layer puts out."""
    expected = dict(_shapes(case))
    for name, array in arrays_of(answer).items():
        if array.shape != expected.get(name) or not _is_float(array):
            raise ValueError(f"{case.id}: {name}: expected {expected.get(name)}; received {array.dtype} {array.shape}")
    if len(answer.outputs or ()) != len(case.output_shapes):
        raise ValueError(f"{case.id}: outputs are missing")
    return answer


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _shapes(case: Case) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names that arrays of an answer may have, and their shapes."""
    for n, shape in enumerate(case.output_shapes):
        yield f"outputs/{n}", shape
    yield "sequence", case.sequence_shape
    for name, _, whole, shape in case.part_shapes():
        yield f"sequences/{name}", whole
        yield f"layers/{name}", shape


def checked_provenance(found: Any) -> Mapping[str, Any]:
    environment = found.get("environment", {}) if isinstance(found, dict) else None
    if not isinstance(environment, dict):
        raise ValueError("its provenance: expected what recorded it, by name")
    sizes = found.get("sizes", {})
    if not isinstance(sizes, dict) or not all(name in _SIZES and isinstance(why, str) for name, why in sizes.items()):
        raise ValueError(f"its provenance: sizes: expected of {', '.join(_SIZES)}, and why")
    return found  # type: ignore[no-any-return]
