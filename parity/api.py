"""The check: a Keras layer and a candidate, what is asked of both, and the Report on it."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from parity.adapters.keras.library import missing
from parity.candidates.answer import Candidate
from parity.candidates.functions import scratch
from parity.candidates.sized import sized
from parity.cases.case import Case
from parity.cases.domain import in_domain
from parity.checking.asked import Asked
from parity.checking.asking import ask
from parity.checking.conclusions import report_on
from parity.errors import CandidateError, InputError, OracleError, ParityError
from parity.given import making
from parity.given.candidate import as_candidate, candidate_of_file
from parity.given.case import Inputs
from parity.given.settings import Settings
from parity.given.target import Target
from parity.golden import is_golden
from parity.golden.file import Golden, load
from parity.report import words
from parity.report.data import CaseReport, Report
from parity.terminal import printable

Done = Callable[[CaseReport], None]
"""Called with each case's result as it comes."""


def check(
    candidate: Any,
    keras_layer: Any,
    x: Any = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    mask: Any = None,
    initial_state: Any = None,
    seed: int = 0,
    atol: float = 0.0,
    rtol: float = 0.0,
    strict: bool = False,
    only_mistake: str | None = None,
    timeout: float | None = None,
    fixed: str | Sequence[str] = (),
    domain: str | Sequence[float] | None = None,
) -> Report:
    """Is the candidate the same function as the Keras layer, within what rounding explains?

    candidate: a function called by its parameters' names (`x` first, and of `layer`, an rnn_scratch layer, `mask` and
        `initial_state` those it has); a step function `step(x_t, state)` for x_t (batch, input_dim) and state
        (batch, units); a torch.nn.Module; an array of outputs for exactly `x`, a tuple with the state where the layer
        returns it; or what `--candidate` names: "port.py:name", "model.onnx", "model.tflite", "cmd:...".
    keras_layer: what `from_keras` takes, or a path to a saved model of that, or to a golden file (see `check_file`).
        One that is not built yet is built from input_shape, or the shape of x, and given random weights and biases.
    x: (batch, timesteps, input_dim), or one sequence without the batch axis; cast to the layer's dtype. Drawn from
        N(0, 1) where not given.
    input_shape: (timesteps, input_dim), where x is not given.
    mask: (batch, timesteps), true where a step counts. initial_state: (batch, units), (1, units)
        for every row. seed: of all that is drawn.
    atol, rtol: widen each radius to at least atol + rtol |expected|; such a verdict is not proved.
    strict: a PASS that a known mistake would have got as well is INCONCLUSIVE. only_mistake: the id of the only mistake
        that is looked for. timeout: seconds that a program or graph may take for one question.
    fixed: "timesteps", "batch" or both: the port takes only those of x, else of input_shape, which may be (batch,
        timesteps, input_dim). What the model's own Input declares, and a stateful layer's batch, are fixed anyhow: so
        many rows are asked at a time, and no other length. domain: (low, high), within which all inputs are kept that
        are drawn.

    A candidate that can be called is asked for more than x: short and long sequences, other batch sizes, masks and
    states where it takes them, probes that leave rounding nothing to do, and the first question once again. Keras's own
    outputs are judged on the same questions. A stateful layer is asked from a state of zeros each time.

    Raises InputError, UnsupportedError, ModelError or CandidateError where the question itself is wrong.
    """
    settings = Settings.of(
        seed=seed,
        atol=atol,
        rtol=rtol,
        strict=strict,
        only_mistake=only_mistake,
        timeout=timeout,
        fixed=fixed,
        domain=domain,
    )
    inputs = Inputs(x, input_shape, mask, initial_state)
    if is_golden(keras_layer):
        path = os.fspath(keras_layer)
        for name in inputs.given:
            raise InputError(f"{name}: {path} has its own inputs; expected none beside it")
        golden = load(path)
        return _check_golden(as_candidate(candidate, settings.timeout), golden, settings)
    keras_layer = making.loaded(keras_layer)
    try:
        asked = as_candidate(candidate, settings.timeout)
    except ParityError:
        making.of_layer(keras_layer, inputs, settings.seed)  # what is wrong with the model is said first
        raise
    if not asked.callable and x is None:
        raise InputError("x: expected the inputs that the outputs were computed from; received none")
    target = making.of_layer(keras_layer, inputs, settings.seed, asked.fixed, settings.fixed)
    if x is None:
        target = replace(target, case=in_domain(target.case, settings.domain) or target.case)
    for name in target.case.needs - asked.takes:
        raise CandidateError(f"candidate: this case has {name}; expected a function with a parameter of that name")
    return _judged(Asked(sized(asked, target.sizes), settings), [target])


def assert_parity(candidate: Any, keras_layer: Any, x: Any = None, **options: Any) -> Report:
    """`check` with the same arguments; unless the verdict is PASS, an AssertionError that carries it as `report`."""
    __tracebackhide__ = True
    report = check(candidate, keras_layer, x, **options)
    if report.verdict != "PASS":
        raise ParityAssertionError(report)
    return report


class ParityAssertionError(AssertionError):
    """No parity. report: the whole Report."""

    def __init__(self, report: Report) -> None:
        again = [f"again: {report.command}"] if report.command else []
        super().__init__(printable("\n".join([str(report), *words.worst_lines(report), *again])))
        self.report = report


def check_grid(
    candidate: Any,
    cases: Sequence[Case],
    *,
    done: Done = lambda result: None,
    **options: Any,
) -> Report:
    """The built-in cases, Keras against the candidate: a function with a parameter `layer`, or None for rnn_scratch.

    cases: of `parity.cases.grid`. done: called with each case's result as it comes. options: as for `check`. An
    error in one case is that case's alone. Raises CandidateError for a candidate without `layer`: the grid changes
    the weights.
    """
    settings = Settings.of(**options)
    asked = as_candidate(scratch if candidate is None else candidate)
    if "layer" not in asked.takes:
        raise CandidateError(
            "candidate: the grid changes weights, so it needs a function with a parameter `layer`; or name a model"
        )
    return _check_cases(Asked(asked, settings), cases, making.of_case, done)


def check_file(candidate: Any, path: str, **options: Any) -> Report:
    """The cases of a file once more, which `record` or `--save-failure` wrote.

    candidate: as for `check`; where Keras's outputs are recorded, outputs too: an array for the first case, or a dict
    of case number to array or tuple; None for the Keras installed here, or, where they are not, for rnn_scratch.
    options: as for `check`. What was recorded takes Keras's place: neither Keras nor TensorFlow is needed then. What
    was saved from a failure is put to the Keras installed here, or, where there is none, judged without it, which a
    note says.
    """
    settings = Settings.of(**options)
    golden = load(path)
    return _check_golden(candidate_of_file(candidate, golden, settings.timeout), golden, settings)


def _check_golden(candidate: Candidate, golden: Golden, settings: Settings) -> Report:
    if golden.answers:
        target = making.of_golden(golden, candidate.fixed, settings.fixed)
        _expect_fitting(candidate, target.case)
        return _judged(Asked(sized(candidate, target.sizes), settings), [target])
    why = missing()
    make = functools.partial(making.without_keras, why=why) if why else making.of_case
    return _check_cases(Asked(candidate, settings), golden.cases, make)


def _expect_fitting(candidate: Candidate, first: Case) -> None:
    """CandidateError for one that cannot be asked a file's first case."""
    for name in first.needs - candidate.takes:
        raise CandidateError(f"candidate: the file's first case has {name}; expected a candidate that takes it")
    steps = candidate.fixed[1]
    if steps not in (None, first.timesteps):
        shape = ",".join(map(str, (steps, *first.features)))
        raise CandidateError(
            f"candidate: it was built for {steps} timesteps; the file's first case has {first.timesteps}: record one "
            f"with --input-shape {shape}"
        )


def _check_cases(
    asked: Asked, cases: Sequence[Case], make: Callable[[Case], Target], done: Done = lambda result: None
) -> Report:
    """Each case a target of its own; those that the candidate has no parameters for are left out."""
    fitting = [case for case in cases if not asked.skips(case)]
    if not fitting:
        skipped = ", ".join(asked.skipped)
        raise CandidateError(f"candidate: every selected case has a parameter that it does not take: {skipped}")
    # made one by one as they are asked: a Keras layer for every case of the grid would be much memory
    return _judged(asked, map(make, fitting), done, len(cases))


def _judged(asked: Asked, targets: Iterable[Target], done: Done = lambda result: None, total: int = 1) -> Report:
    """The one way from targets to a Report. What the candidate or the oracle raises over one target is that target's
    alone; where no target came to anything, it is raised."""
    versions: dict[str, str] = {}
    errors: list[ParityError] = []
    early = ""
    try:
        for target in targets:
            versions |= target.versions
            try:
                result = ask(asked, target)
            except (CandidateError, OracleError) as error:
                errors.append(error)
                result = asked.failed(target.case, error)
            done(result)
    except KeyboardInterrupt:
        if not asked.results:
            raise  # a report of nothing would read as one of something
        early = f"interrupted after {len(asked.results)} of {total} cases"
    if len(errors) == len(asked.results):
        raise _together(errors)
    report = report_on(asked, versions)
    return replace(report, incomplete=early, known=(f"incomplete: {early}", *report.known)) if early else report


def _together(errors: Sequence[ParityError]) -> ParityError:
    """The first of the errors, which tells of the others."""
    first, *others = errors
    return CandidateError(f"{first} (likewise the other {len(others)} cases)") if others else first
