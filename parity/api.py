"""The check: a Keras layer and a candidate, what is asked of both, and the Report on it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from parity.adapters.keras import library
from parity.adapters.keras.oracle import Installed, Oracle
from parity.adapters.keras.precision import notes_on
from parity.adapters.keras.saved import load_model
from parity.candidates.functions import Candidate, Outputs, scratch
from parity.cases.beside import WEIGHTS
from parity.cases.case import Case
from parity.checking.asking import Survey, needs
from parity.errors import CandidateError, InputError
from parity.given.candidate import as_candidate
from parity.given.case import check_shape, put
from parity.given.settings import Settings
from parity.golden import file as files
from parity.recording import Recorded
from parity.report import words
from parity.report.data import CaseReport, Report
from parity.terminal import printable


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
) -> Report:
    """Is the candidate the same function as the Keras layer, within what rounding explains?

    candidate: a function called by its parameters' names (`x` first, and of `layer`, an rnn_scratch layer, `mask` and
        `initial_state` those it has); a step function `step(x_t, state)` for x_t (batch, input_dim) and state
        (batch, units); a torch.nn.Module; an array of outputs for exactly `x`, a tuple with the state where the layer
        returns it; or what `--candidate` names: "port.py:name", "model.onnx", "model.tflite", "cmd:...".
    keras_layer: what `from_keras` takes, or a path to a saved model of that, or to a golden file (see `check_file`).
        One that is not built yet is built from input_shape, or the shape of x, and given random weights and biases.
    x: (batch, timesteps, input_dim); cast to the layer's dtype. Drawn from N(0, 1) where not given.
    input_shape: (timesteps, input_dim), where x is not given.
    mask: (batch, timesteps), true where a step counts. initial_state: (batch, units). seed: of all that is drawn.
    atol, rtol: widen each radius to at least atol + rtol |expected|; such a verdict is not proved.
    strict: a PASS that a known mistake would have got as well is INCONCLUSIVE. only_mistake: the id of the only mistake
        that is looked for. timeout: seconds that a program or graph may take for one question.

    A candidate that can be called is asked for more than x: short and long sequences, other batch sizes, masks and
    states where it takes them, probes that leave rounding nothing to do, and the first question once again. Keras's own
    outputs are judged on the same questions. A stateful layer is asked from a state of zeros each time.

    Raises InputError, UnsupportedError, ModelError or CandidateError where the question itself is wrong.
    """
    settings = Settings.of(seed=seed, atol=atol, rtol=rtol, strict=strict, only_mistake=only_mistake, timeout=timeout)
    check_shape(input_shape)
    asked = as_candidate(candidate, settings.timeout)
    if isinstance(keras_layer, str | os.PathLike):
        path = os.fspath(keras_layer)
        if path.endswith(".npz"):
            for name, given in (
                ("x", x),
                ("input_shape", input_shape),
                ("mask", mask),
                ("initial_state", initial_state),
            ):
                if given is not None:
                    raise InputError(f"{name}: {path} has its own inputs; expected none beside it")
            return file_report(asked, files.load(path), Survey(asked, settings))
        keras_layer = load_model(path)
    if not asked.callable and x is None:
        raise InputError("x: expected the inputs that the outputs were computed from; received none")
    own, case, built = put(keras_layer, x, input_shape, mask, initial_state, seed, asked.fixed)
    for name in needs(case) - asked.takes:
        raise CandidateError(f"candidate: this case has {name}; expected a function with a parameter of that name")
    survey = Survey(asked, settings)
    result = survey.ask(Oracle(keras_layer, own), case, thorough=True)
    told = ["the Keras layer was not built: it was given random weights and biases"] if built else []
    result = replace(result, notes=(*told, *notes_on(keras_layer), *result.notes))
    return survey.report([result], library.environment(keras_layer))


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
    done: Callable[[CaseReport], None] = lambda result: None,
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
    return check_cases(asked, cases, Survey(asked, settings), done)


def check_file(candidate: Any, path: str, **options: Any) -> Report:
    """The cases of a file once more, which `record` or `--save-failure` wrote.

    candidate: as for `check`; where Keras's outputs are recorded, outputs too: an array for the first case, or a dict
    of case number to array or tuple; None for the Keras installed here, or, where they are not, for rnn_scratch.
    options: as for `check`. What was recorded takes Keras's place: neither Keras nor TensorFlow is needed then. What
    was saved from a failure is put to the Keras installed here, or, where there is none, judged without it, which a
    note says.
    """
    settings = Settings.of(**options)
    golden = files.load(path)
    asked: Candidate
    if candidate is None:
        asked = Installed() if golden.answers else as_candidate(scratch)
    elif isinstance(candidate, Mapping):
        asked = Outputs({golden.cases[n].id: value for n, value in candidate.items() if n < len(golden.cases)})
    else:
        asked = as_candidate(candidate, settings.timeout)
    return file_report(asked, golden, Survey(asked, settings))


def file_report(asked: Candidate, golden: files.Golden, survey: Survey) -> Report:
    if not golden.answers:
        return check_cases(asked, golden.cases, replace(survey, no_keras=library.missing()))
    first, *others = golden.cases
    for name in needs(first) - asked.takes:
        raise CandidateError(f"candidate: the file's first case has {name}; expected a candidate that takes it")
    steps = asked.fixed[1]
    if steps not in (None, first.timesteps):
        shape = ",".join(map(str, (steps, *first.features)))
        raise CandidateError(
            f"candidate: it was built for {steps} timesteps; the file's first case has {first.timesteps}: record one "
            f"with --input-shape {shape}"
        )
    questions = []
    for case in others:
        lacking = needs(case) - asked.takes
        if case.layer is not first.layer and not asked.takes & WEIGHTS:
            survey.skip("other weights")
        elif lacking:
            survey.skip(" and ".join(sorted(lacking)))
        elif asked.callable or (isinstance(asked, Outputs) and case.id in asked.known):
            questions.append(case)
    result = survey.ask(Recorded(golden), first, thorough=False, questions=questions)
    recorded = golden.provenance.get("environment", {})
    told = ", ".join(f"{name} {value}" for name, value in recorded.items() if name not in ("python", "numpy"))
    return survey.report([result], {"recorded by": told})


def check_cases(
    asked: Candidate,
    cases: Sequence[Case],
    survey: Survey,
    done: Callable[[CaseReport], None] = lambda result: None,
) -> Report:
    results: list[CaseReport] = []
    early = ""
    try:
        for case in cases:
            if missing := sorted(needs(case) - asked.takes):
                survey.skip(" and ".join(missing))
                continue
            results.append(survey.ask_or_error(case))
            done(results[-1])
    except KeyboardInterrupt:
        if not results:
            raise
        early = f"interrupted after {len(results)} of {len(cases)} cases"
    if results and all(case.verdict == "ERROR" for case in results):
        others = f" (likewise the other {len(results) - 1} cases)" if len(results) > 1 else ""
        raise CandidateError(results[0].notes[0] + others)
    if not results:
        raise CandidateError(
            f"candidate: every selected case has a parameter that it does not take: {', '.join(survey.skipped)}"
        )
    report = survey.report(results)
    return replace(report, incomplete=early, known=(f"incomplete: {early}", *report.known)) if early else report
