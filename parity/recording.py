"""Recording: what a check would ask, with Keras's answers, in a file that needs no Keras."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from parity import disk
from parity.adapters.keras import library
from parity.adapters.keras.oracle import Oracle
from parity.adapters.keras.saved import load_model
from parity.candidates.functions import ANY, Answer
from parity.cases.beside import WEIGHTS, companions, two_calls
from parity.cases.case import Case
from parity.cases.probes import probes
from parity.errors import InputError
from parity.given.case import check_shape, put
from parity.given.settings import check_seed
from parity.golden import file as files
from parity.judging.findings import Tolerance
from parity.judging.judge import examine
from parity.report import provenance as reports
from parity.rounding.arithmetic import ARITHMETIC
from rnn_scratch.layers import Layer

GROUPS = ("inputs", "companions", "probes", "lattices")
"""What `record` can record: the inputs themselves; other lengths, batches, masks and states; probes with the layer's
own weights; probes with other weights, for candidates that take `layer` or `weights`."""


def record(
    keras_layer: Any,
    path: str,
    x: Any = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    mask: Any = None,
    initial_state: Any = None,
    seed: int = 0,
    cases: Sequence[str] = GROUPS[:3],
) -> files.Golden:
    """Write a golden file: what `check` would ask, and what Keras answers, for checks that need no Keras.

    keras_layer, x, input_shape, mask, initial_state, seed: as for `check`. path: of the .npz; written whole or not at
    all. cases: of GROUPS, those to record; the first question always is. Raises what `check` raises, and InputError for
    a path that cannot be written and where Keras and the reference disagree on the first question.
    """
    unknown = [name for name in cases if name not in GROUPS]
    if unknown:
        raise InputError(f"cases: expected of {', '.join(GROUPS)}; received {', '.join(unknown)}")
    check_shape(input_shape)
    check_seed(seed)
    with disk.writing(path) as write:
        if isinstance(keras_layer, str | os.PathLike):
            keras_layer = load_model(os.fspath(keras_layer))
        own, case, _ = put(keras_layer, x, input_shape, mask, initial_state, seed, ANY)
        oracle = Oracle(keras_layer, own)
        found = [examine(oracle, question, Tolerance()) for question in recordable(case, cases, seed)]
        if found[0].verdict == "FAIL":
            raise InputError(f"{own.name}: Keras and the reference disagree on its outputs: nothing can be recorded")
        answers = {finding.case.id: finding.answers for finding in found if finding.verdict != "FAIL"}
        asked = tuple(finding.case for finding in found if finding.case.id in answers)
        golden = files.Golden(asked, answers, provenance(keras_layer, own, seed))
        data = files.packed(golden)
        if len(data) > disk.LARGEST:
            raise InputError(
                f"cases: {len(data) >> 20} MiB would be more than {disk.LARGEST >> 20}; record fewer cases"
            )
        write(data)
    return golden


def recordable(case: Case, groups: Sequence[str], seed: int) -> Iterator[Case]:
    """The case, and what a candidate may be asked beside it whatever it takes."""
    yield case
    everything = frozenset({"mask", "initial_state"})
    if "companions" in groups:
        yield from companions(case, everything, seed)
        masks = companions(case, frozenset({"mask"}), seed)  # from zeros, for candidates that take no state
        yield from (question for question in masks if question.mask is not None)
        if case.layer.stateful:
            yield two_calls(case, seed)
    if "probes" in groups:
        yield from probes(case, everything, seed)
    if "lattices" in groups:
        plain = [question.id for question in probes(case, everything, seed)]
        for takes in (everything | WEIGHTS, WEIGHTS):
            yield from (question for question in probes(case, takes, seed) if question.id not in plain)


def provenance(keras_layer: Any, own: Layer, seed: int) -> dict[str, Any]:
    """What recorded a file, and what its verdicts rest on."""
    environment = {**reports.environment(), **library.environment(keras_layer)}
    slope = 0.2 if "tf_keras" in environment else 1 / 6
    policy = str(getattr(getattr(keras_layer, "dtype_policy", None), "name", own.dtype.name))
    dtypes = {part.dtype.name for part in (own, *own.parts.values())}
    arithmetic = {name: ARITHMETIC[name].facts() for name in sorted(dtypes)}
    return {
        "environment": environment,
        "dtype_policy": policy,
        "hard_sigmoid_slope": slope,
        "arithmetic": arithmetic,
        "seed": seed,
    }


class Recorded:
    """Keras's outputs as a file has them."""

    callable = False
    takes = frozenset({"layer", "mask", "initial_state"})
    fixed = ANY

    def __init__(self, golden: files.Golden) -> None:
        self.answers = golden.answers

    def ask(self, case: Case) -> Answer:
        return self.answers[case.id][0]

    def converse(self, case: Case) -> list[Answer]:
        return list(self.answers[case.id])
