"""Recording: what a check would ask, with Keras's answers, in a file that needs no Keras."""

from collections.abc import Iterator, Sequence
from typing import Any

from parity import disk
from parity.cases.beside import WEIGHTS, companions, two_calls
from parity.cases.case import Case
from parity.cases.probes import probes
from parity.errors import InputError
from parity.given.case import Inputs
from parity.given.making import loaded, of_layer
from parity.given.settings import check_seed
from parity.given.target import Target
from parity.golden import file as files
from parity.judging.findings import Tolerance
from parity.judging.judge import examine
from parity.report import provenance
from parity.rounding.arithmetic import ARITHMETIC

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
    inputs = Inputs(x, input_shape, mask, initial_state)
    check_seed(seed)
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
    questions = _recordable(target.case, groups, seed)
    found = [examine(target.oracle, question, Tolerance()) for question in questions]
    if found[0].verdict == "FAIL":
        name = target.case.layer.name
        raise InputError(f"{name}: Keras and the reference disagree on its outputs: nothing can be recorded")
    agreed = {finding.case.id: finding for finding in found if finding.verdict != "FAIL"}
    asked = tuple(finding.case for finding in found if finding.case.id in agreed)
    answers = {name: finding.answers for name, finding in agreed.items()}
    return files.Golden(asked, answers, _provenance(target, seed))


def _recordable(case: Case, groups: Sequence[str], seed: int) -> Iterator[Case]:
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
    }
