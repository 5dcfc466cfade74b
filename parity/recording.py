"""Recording: what a check would ask, with Keras's answers, in a file that needs no Keras."""

from collections.abc import Iterator, Sequence
from typing import Any

from parity import disk
from parity.candidates.sized import fixed_by
from parity.cases.beside import WEIGHTS, companions, two_calls
from parity.cases.case import ANY, Case, Fixed
from parity.cases.far_out import far_out
from parity.cases.probes import probes
from parity.errors import InputError
from parity.given.case import Inputs
from parity.given.making import loaded, of_layer
from parity.given.settings import check_seed
from parity.given.target import Target
from parity.golden import file as files
from parity.judging.judge import examine
from parity.judging.tally import Tolerance
from parity.overwriting import refuse_overwriting
from parity.report import provenance
from parity.rounding.arithmetic import ARITHMETIC

_EVERYTHING = frozenset({"mask", "initial_state"})


def _companions(case: Case, seed: int, fixed: Fixed) -> Iterator[Case]:
    """Other lengths, batches, masks and states, and inputs far out."""
    yield from companions(case, _EVERYTHING, seed, fixed)
    for question in companions(case, frozenset({"mask"}), seed, fixed):
        if question.mask is not None:  # from zeros, for candidates that take no state
            yield question
    if case.layer.stateful:
        yield two_calls(case, seed, fixed)
    yield from far_out(case, _EVERYTHING, seed, fixed)


def _probes(case: Case, seed: int, fixed: Fixed = ANY) -> Iterator[Case]:
    """Probes with the layer's own weights."""
    return probes(case, _EVERYTHING, seed)


def _lattices(case: Case, seed: int, fixed: Fixed) -> Iterator[Case]:
    """Probes with other weights, for candidates that take `layer` or `weights`."""
    plain = {question.id for question in _probes(case, seed)}
    for takes in (_EVERYTHING | WEIGHTS, WEIGHTS):
        for question in probes(case, takes, seed):
            if question.id not in plain:
                yield question


_BESIDE = {"companions": _companions, "probes": _probes, "lattices": _lattices}

GROUPS = ("inputs", *_BESIDE)
"""What `record` can record: the inputs themselves, and what may be asked beside them."""


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
    inputs = Inputs(x, input_shape, mask, initial_state)
    check_seed(seed)
    refuse_overwriting({"path": path}, {"keras_layer": keras_layer})
    with disk.writing(path) as write:
        target = of_layer(loaded(keras_layer), inputs, seed)
        golden = _recorded(target, cases, seed)
        data = files.packed(golden)
        if len(data) > disk.LARGEST:
            raise InputError(
                f"cases: {len(data) >> 20} MiB would be more than {disk.LARGEST >> 20}; record fewer cases"
            )
        write(data)
    return golden


def _recorded(target: Target, groups: Sequence[str], seed: int) -> files.Golden:
    """What Keras answers, and the reference agrees with."""
    questions = _recordable(target, groups, seed)
    found = [examine(target.oracle, question, Tolerance()) for question in questions]
    if found[0].verdict == "FAIL":
        name = target.case.layer.name
        raise InputError(f"{name}: Keras and the reference disagree on its outputs: nothing can be recorded")
    agreed = [finding for finding in found if finding.verdict != "FAIL"]
    answers = {finding.case.id: finding.answers for finding in agreed}
    asked = tuple(finding.case for finding in agreed)
    return files.Golden(asked, answers, _provenance(target, seed))


def _recordable(target: Target, groups: Sequence[str], seed: int) -> Iterator[Case]:
    """The case, and what a candidate may be asked beside it whatever it takes."""
    yield target.case
    for name, questions in _BESIDE.items():
        if name in groups:
            yield from questions(target.case, seed, fixed_by(target.sizes))


def _provenance(target: Target, seed: int) -> dict[str, Any]:
    """What recorded a file, and what its verdicts rest on."""
    layer = target.case.layer
    dtypes = {part.dtype.name for part in (layer, *layer.parts.values())}
    return {
        "environment": {**provenance.environment(), **target.versions},
        "dtype_policy": target.precision,
        "hard_sigmoid_slope": 0.2 if "tf_keras" in target.versions else 1 / 6,
        "arithmetic": {name: ARITHMETIC[name].facts() for name in sorted(dtypes)},
        "seed": seed,
        "sizes": {name: size.why for name, size in target.sizes.items()},
    }
