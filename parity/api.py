"""The check: a Keras layer and a candidate, what is asked of both, and the Report on it."""

import difflib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity import files, ports
from parity import report as reports
from parity.adapters import keras as adapter
from parity.adapters.keras_files import load_model
from parity.arguments import as_candidate
from parity.candidates import ANY, Answer, Candidate, Outputs, scratch
from parity.cases import (
    WEIGHTS,
    Case,
    case_id,
    companions,
    draw_inputs,
    generator,
    leading,
    probes,
    state_kept,
    two_calls,
)
from parity.diagnosis import Diagnosis, blind_spots, diagnose
from parity.errors import CandidateError, InputError, MissingExtraError, UnsupportedError
from parity.facts import facts, stale_cause
from parity.findings import Finding, Tally, Tolerance
from parity.judge import Asker, examine, judge_answer, rejudge
from parity.mistakes import MISTAKES
from parity.report import VERDICTS, Blind, CaseReport, Cause, Divergence, LayerReport, Report, Trace
from parity.rounding import ARITHMETIC, NARROWER
from parity.shrink import described, shrink
from rnn_scratch import Sequential
from rnn_scratch.layers import Layer

DRAWN_BATCH, DRAWN_TIMESTEPS = 4, 50
AGAIN_STEPS = 1000
CASE_BY_CASE = 4.0
"""Seconds for the causes of single cases of the grid, where nothing explains all of them."""


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
    tolerance = make_tolerance(atol, rtol)
    check_shape_and_seed(input_shape, seed)
    check_mistake(only_mistake)
    asked = as_candidate(candidate, timeout)
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
            return file_report(asked, files.load(path), Survey(asked, tolerance, seed, strict, only_mistake))
        keras_layer = load_model(path)
    if not asked.callable and x is None:
        raise InputError("x: expected the inputs that the outputs were computed from; received none")
    own, case, built = put(keras_layer, x, input_shape, mask, initial_state, seed, asked.fixed)
    for name in needs(case) - asked.takes:
        raise CandidateError(f"candidate: this case has {name}; expected a function with a parameter of that name")
    survey = Survey(asked, tolerance, seed, strict, only_mistake)
    result = survey.ask(adapter.Oracle(keras_layer, own), case, thorough=True)
    told = ["the Keras layer was not built: it was given random weights and biases"] if built else []
    result = replace(result, notes=(*told, *adapter.notes_on(keras_layer), *result.notes))
    return survey.report([result], adapter.environment(keras_layer))


def put(
    keras_layer: Any,
    x: Any,
    input_shape: tuple[int, ...] | None,
    mask: Any,
    initial_state: Any,
    seed: int,
    fixed: tuple[int | None, int | None],
) -> tuple[Layer, Case, bool]:
    """The layer taken out of Keras, the user's own case of it, and whether it had to be built."""
    shape = tuple(input_shape) if input_shape is not None else None if x is None else np.shape(x)[1:]
    built = shape is not None and adapter.build_random(keras_layer, shape, seed)
    own = adapter.from_keras(keras_layer)
    if not own.state_units:
        kinds = ", ".join(part.kind for part in own.parts.values()) or own.kind
        raise UnsupportedError(f"{own.name}: expected at least one recurrent layer; it has {kinds}")
    own.reset_state()
    batch, timesteps = adapter.static_input_shape(keras_layer)
    return own, make_case(own, x, shape, (batch, fixed[1] or timesteps), mask, initial_state, seed), built


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
        super().__init__("\n".join([str(report), *again]))
        self.report = report


def check_grid(
    candidate: Any,
    cases: Sequence[Case],
    *,
    seed: int = 0,
    atol: float = 0.0,
    rtol: float = 0.0,
    strict: bool = False,
    only_mistake: str | None = None,
    done: Callable[[CaseReport], None] = lambda result: None,
) -> Report:
    """The built-in cases, Keras against the candidate: a function with a parameter `layer`, or None for rnn_scratch.

    cases: of `parity.cases.grid`. done: called with each case's result as it comes. An error in one case is that
    case's alone. Raises CandidateError for a candidate without `layer`: the grid changes the weights.
    """
    check_mistake(only_mistake)
    asked = as_candidate(scratch if candidate is None else candidate)
    if "layer" not in asked.takes:
        raise CandidateError(
            "candidate: the grid changes weights, so it needs a function with a parameter `layer`; or name a model"
        )
    return check_cases(asked, cases, Survey(asked, make_tolerance(atol, rtol), seed, strict, only_mistake), done)


def check_file(
    candidate: Any,
    path: str,
    *,
    seed: int = 0,
    atol: float = 0.0,
    rtol: float = 0.0,
    strict: bool = False,
    only_mistake: str | None = None,
    timeout: float | None = None,
) -> Report:
    """The cases of a file once more, which `record` or `--save-failure` wrote.

    candidate: as for `check`; where Keras's outputs are recorded, outputs too: an array for the first case, or a dict
    of case number to array or tuple; None for the Keras installed here, or, where they are not, for rnn_scratch. What
    was recorded takes Keras's place: neither Keras nor TensorFlow is needed then.
    """
    check_mistake(only_mistake)
    golden = files.load(path)
    asked: Candidate
    if candidate is None:
        asked = adapter.Installed() if golden.answers else as_candidate(scratch)
    elif isinstance(candidate, Mapping):
        asked = Outputs({golden.cases[n].id: value for n, value in candidate.items() if n < len(golden.cases)})
    else:
        asked = as_candidate(candidate, timeout)
    return file_report(asked, golden, Survey(asked, make_tolerance(atol, rtol), seed, strict, only_mistake))


def file_report(asked: Candidate, golden: files.Golden, survey: "Survey") -> Report:
    if not golden.answers:
        return check_cases(asked, golden.cases, survey)
    first, *others = golden.cases
    for name in needs(first) - asked.takes:
        raise CandidateError(f"candidate: the file's first case has {name}; expected a candidate that takes it")
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
    check_shape_and_seed(input_shape, seed)
    with files.writing(path) as write:
        if isinstance(keras_layer, str | os.PathLike):
            keras_layer = load_model(os.fspath(keras_layer))
        own, case, _ = put(keras_layer, x, input_shape, mask, initial_state, seed, ANY)
        oracle = adapter.Oracle(keras_layer, own)
        found = [examine(oracle, question, Tolerance()) for question in recordable(case, cases, seed)]
        if found[0].verdict == "FAIL":
            raise InputError(f"{own.name}: Keras and the reference disagree on its outputs: nothing can be recorded")
        answers = {finding.case.id: finding.answers for finding in found if finding.verdict != "FAIL"}
        asked = tuple(finding.case for finding in found if finding.case.id in answers)
        golden = files.Golden(asked, answers, provenance(keras_layer, own, seed))
        data = files.packed(golden)
        if len(data) > files.LARGEST:
            raise InputError(
                f"cases: {len(data) >> 20} MiB would be more than {files.LARGEST >> 20}; record fewer cases"
            )
        write(data)
    return golden


def port(
    keras_layer: Any, to: str, path: str, *, layout: str | None = None, seed: int = 0
) -> tuple[ports.Port, Report | None, str]:
    """Write a layer's or model's weights, or the whole of it, as the other side loads it; check what was written.

    keras_layer: as for `check`, built. to: npz, safetensors, torch, onnx or c. path: of the file; its manifest goes
    beside it, as `path`.json. layout: of npz and safetensors, a name in `parity.layouts.LAYOUTS`. Returns what was
    written; the report of the check, in which the port is read back and run as its user would; and, where there is
    nothing to run it with, None and why. Raises what `check` raises, and UnsupportedError for what cannot be carried.
    """
    with files.writing(path) as write, files.writing(f"{path}.json") as write_manifest:
        if isinstance(keras_layer, str | os.PathLike):
            keras_layer = load_model(os.fspath(keras_layer))
        own = adapter.from_keras(keras_layer)
        own.reset_state()
        versions = {**reports.environment(), **adapter.environment(keras_layer)}
        made = ports.write(own, to, layout, versions)
        report, why = None, ""
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            copy = os.path.join(folder, f"port{ports.FORMATS[to].suffix}")
            with open(copy, "wb") as file:
                file.write(made.data)
            try:
                report = check(ports.candidate(copy, to, own), keras_layer, seed=seed)
            except MissingExtraError as error:
                why = str(error)
        write(made.data)
        write_manifest((json.dumps(made.manifest, indent=1) + "\n").encode())
    return made, report, why


def recordable(case: Case, groups: Sequence[str], seed: int) -> Iterator[Case]:
    """The case, and what a candidate may be asked beside it whatever it takes."""
    yield case
    everything = frozenset({"mask", "initial_state"})
    if "companions" in groups:
        yield from companions(case, everything, seed)
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
    environment = {**reports.environment(), **adapter.environment(keras_layer)}
    slope = 0.2 if "tf_keras" in environment else 1 / 6
    policy = str(getattr(getattr(keras_layer, "dtype_policy", None), "name", own.dtype.name))
    dtypes = {part.dtype.name for part in (own, *own.parts.values())}
    arithmetic = {name: vars(ARITHMETIC[name]) for name in sorted(dtypes)}
    return {
        "environment": environment,
        "dtype_policy": policy,
        "hard_sigmoid_slope": slope,
        "arithmetic": arithmetic,
        "seed": seed,
    }


def check_cases(
    asked: Candidate,
    cases: Sequence[Case],
    survey: "Survey",
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


def needs(case: Case) -> frozenset[str]:
    """What a candidate must take to be asked this."""
    given = {"mask": case.mask, "initial_state": case.initial_state}
    return frozenset(name for name, value in given.items() if value is not None)


def make_tolerance(atol: float, rtol: float) -> Tolerance:
    for name, value in (("atol", atol), ("rtol", rtol)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name}: expected a finite number, 0 or more; received {value}")
    return Tolerance(float(atol), float(rtol))


def check_mistake(name: str | None) -> None:
    if name is not None and name not in MISTAKES:
        near = difflib.get_close_matches(name, MISTAKES, n=3) or [known for known in MISTAKES if name in known][:3]
        hint = f"; the nearest are {', '.join(near)}" if near else f"; known are {', '.join(MISTAKES)}"
        raise InputError(f"only_mistake: no mistake has the id {name!r}{hint}")


def check_shape_and_seed(input_shape: Any, seed: Any) -> None:
    sizes = input_shape if isinstance(input_shape, tuple | list) else ()
    if input_shape is not None and not (len(sizes) in (1, 2) and all(isinstance(n, int) and n > 0 for n in sizes)):
        raise InputError(
            f"input_shape: expected (timesteps, input_dim), both at least 1, or (timesteps,) of token ids; "
            f"received {input_shape!r}"
        )
    if not (isinstance(seed, int) and seed >= 0):
        raise InputError(f"seed: expected an integer, 0 or more; received {seed!r}")


def make_case(
    layer: Layer,
    x: Any,
    shape: Sequence[int] | None,
    static: tuple[int | None, int | None],
    mask: Any,
    initial_state: Any,
    seed: int,
) -> Case:
    """The user's own case: what is given, cast and fitted to the layer; the inputs drawn where they are not."""
    try:
        if x is None:
            x = draw(layer, shape, static, seed)
        with np.errstate(over="ignore"):  # out of the layer's range is infinite there, for Keras too
            x = np.ascontiguousarray(layer.as_inputs(x))
        layer.check_inputs(x)
        if len(x) == 0:
            raise InputError(f"x: expected at least 1 batch row; received {x.shape}")
        mask = None if mask is None else layer.check_mask(mask, x.shape[:2])
        states = None if initial_state is None else layer.initial_states(len(x), initial_state)
    except ValueError as error:
        raise InputError(str(error)) from None
    return Case(case_id(layer, x), layer, x, mask, states)


def draw(layer: Layer, shape: Sequence[int] | None, static: tuple[int | None, int | None], seed: int) -> Any:
    batch, timesteps = (fixed or default for fixed, default in zip(static, (DRAWN_BATCH, DRAWN_TIMESTEPS), strict=True))
    expected = input_features(layer)
    features = expected if shape is None else tuple(shape[1:])
    if len(features) != len(expected):
        what = "(timesteps, input_dim)" if expected else "(timesteps,), of token ids"
        raise InputError(f"input_shape: expected {what}; received {tuple(shape or ())}")
    timesteps = shape[0] if shape is not None else timesteps
    return draw_inputs(layer, generator(seed, "inputs"), (batch, timesteps, *features))


def input_features(layer: Layer) -> tuple[int, ...]:
    """The axes of an input after batch and timesteps: none for token ids."""
    first = next(leading(layer), layer)
    if first.kind == "embedding":
        return ()
    wide = [part for part in (*layer.parts.values(), layer) if hasattr(part, "input_dim")]
    if not wide:
        raise InputError(f"{layer.name}: pass x or input_shape: nothing in it tells the size of its inputs")
    return (wide[0].input_dim,)


@dataclass
class Survey:
    """A candidate's questions and what became of them, over one or many cases."""

    candidate: Candidate
    tolerance: Tolerance
    seed: int
    strict: bool = False
    only_mistake: str | None = None
    kept: Cause | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    asked: list[Case] = field(default_factory=list)
    found: list[tuple[CaseReport, Finding]] = field(default_factory=list)

    def skip(self, what: str) -> None:
        self.skipped[what] = self.skipped.get(what, 0) + 1

    def ask_or_error(self, case: Case) -> CaseReport:
        try:
            layer = adapter.to_keras(case.layer, batch_size=case.batch if case.layer.stateful else None)
            own = adapter.from_keras(layer)  # with the precision and the rules for masks of the backend in use
            own.reset_state()
            states = None if case.initial_state is None else tuple(s.astype(own.dtype) for s in case.initial_state)
            x = case.x.astype(own.dtype) if case.x.dtype.kind != "i" else case.x
            here = replace(case, layer=own, x=x, initial_state=states)
            report = self.ask(adapter.Oracle(layer, own), here, thorough=False)
            return replace(report, notes=(*adapter.notes_on(layer), *report.notes))
        except (CandidateError, adapter.KerasError) as error:
            return CaseReport(case.id, "ERROR", notes=(str(error),))

    def ask(self, oracle: Candidate, case: Case, thorough: bool, questions: Sequence[Case] | None = None) -> CaseReport:
        """The case and what is asked beside it, those questions if they are given. An error of the case itself, or of
        its repetition, is raised."""
        findings = self.twice(oracle, case)
        for question in self.beside(case, thorough) if questions is None else questions:
            name = question.id.removeprefix(case.id + " / ")
            steps = self.candidate.fixed[1]
            if steps and question.rows and question.timesteps < steps and question.mask is None:
                question = question.padded(steps)
            if steps not in (None, question.timesteps // question.calls):
                self.refused.setdefault(f"the candidate was built for {steps} timesteps", []).append(name)
                continue
            try:
                found = self.examine(oracle, question)
            except CandidateError as error:
                self.refused.setdefault(str(error), []).append(name)
                continue
            if found[0].open:  # ours to ask, so nothing against the user's case
                self.refused.setdefault(found[0].open, []).append(name)
            else:
                findings.append(found)
        result = summarize(case, findings, self.tolerance)
        if result.verdict == "FAIL" and result.proved and case.layer.dtype == np.float32:
            result = replace(result, notes=(*result.notes, *self.compatible([found for found, _ in findings])))
        self.found += [(result, found) for found, _ in findings]
        return result

    def twice(self, oracle: Candidate, case: Case) -> list[tuple[Finding, Finding]]:
        """The case, and the case again: at once, before anything else has been asked."""
        answer = self.candidate.ask(case)
        asked_again = self.candidate.callable and case.timesteps <= AGAIN_STEPS
        second = self.candidate.ask(case) if asked_again else None
        keras = self.keras(oracle, case)
        findings = [(self.judged(case, answer, keras), keras)]
        if second is not None:
            found = self.once_more(case, findings[0][0], second)
            findings.append((found, Finding(found.case)))
        elif self.candidate.callable and oracle.callable:
            findings.append(self.examine(oracle, case.first(AGAIN_STEPS)))
        return findings

    def once_more(self, case: Case, first: Finding, answer: Answer) -> Finding:
        """The second answer to the same question, judged as the first was; with it, two calls one after another."""
        if distance(*(a.outputs or (a.sequence,) for a in (first.answers[0], answer))) == 0:
            found = replace(first)
        else:
            found = judge_answer(case, answer, self.tolerance, asker=Asker(self.candidate, case))
            found.disputed = first.disputed
        found.case, found.answers = again(case), (first.answers[0], answer)
        self.expect_the_same(case, first, found)
        return found

    def expect_the_same(self, case: Case, first: Finding, second: Finding) -> None:
        """CandidateError for one that draws its answers: they differ by more than rounding, and go on differing. What
        keeps something between calls settles, or is a state that nobody reset."""
        answers = [answer.outputs or (answer.sequence,) for answer in second.answers]
        allowed = 2 * first.tally.widest
        if distance(*answers) <= allowed or not (first.verdict == "FAIL" or second.verdict == "FAIL"):
            return
        stateful = replace(second.case, layer=state_kept(case.layer))
        kept = rejudge(stateful, second.answers, self.tolerance)
        if kept.verdict == "PASS":
            found = MISTAKES["state-not-reset"]
            self.kept = Cause(found.id, found.what, found.fix, found.source, largest=kept.tally.worst)
            return
        more = [self.candidate.ask(case) for _ in range(3)]
        answers += [answer.outputs or (answer.sequence,) for answer in more]
        steps = [distance(a, b) for a, b in itertools.pairwise(answers)]
        if steps[-1] > max(allowed, steps[0] / 10):
            raise CandidateError(
                f"candidate: two calls with the same arguments differ by {steps[0]:.2g}: it is random (dropout, a draw "
                "without a seed?), so nothing can be concluded"
            )

    def compatible(self, findings: Sequence[Finding]) -> Iterator[str]:
        """Which narrower arithmetic would explain the answers, if one does and is not as wide as the signal."""
        if any(finding.case.layer.stateful for finding in findings):
            return
        asked = [finding for finding in findings if finding.case.calls == 1]
        for name, arithmetic in NARROWER.items():
            found = [judge_answer(f.case, f.answers[0], self.tolerance, arithmetic) for f in asked]
            if found and all(finding.verdict == "PASS" for finding in found):
                worst = max(finding.tally.worst for finding in found)
                yield f"compatible with {name} (largest {worst:.2g} radii), which is neither a pass nor a cause"
                return

    def beside(self, case: Case, thorough: bool) -> Iterator[Case]:
        if self.candidate.callable:
            if thorough:
                yield from companions(case, self.candidate.takes, self.seed)
            if case.layer.stateful and case.calls == 1:
                yield two_calls(case, self.seed)
            yield from probes(case, self.candidate.takes, self.seed)

    def examine(self, oracle: Candidate, case: Case) -> tuple[Finding, Finding]:
        if case.calls > 1:
            found, keras = examine(self.candidate, case, self.tolerance), self.keras(oracle, case)
            return self.disputed(found, keras), keras
        answer = self.candidate.ask(case)
        keras = self.keras(oracle, case)
        return self.judged(case, answer, keras), keras

    def keras(self, oracle: Candidate, case: Case) -> Finding:
        return examine(oracle, case, Tolerance())

    def judged(self, case: Case, answer: Answer, keras: Finding) -> Finding:
        return self.disputed(judge_answer(case, answer, self.tolerance, asker=Asker(self.candidate, case)), keras)

    def disputed(self, found: Finding, keras: Finding) -> Finding:
        if keras.verdict == "FAIL":
            worst = keras.wrong or f"{keras.tally.worst:.3g} radii from the reference: {describe(keras)}"
            found.disputed = f"Keras itself is {worst}; nothing is concluded about the candidate"
        self.asked.append(found.case)
        return found

    def report(self, results: Sequence[CaseReport], environment: Mapping[str, str] | None = None) -> Report:
        keras = adapter.environment() if environment is None else environment
        report = Report(tuple(results), tuple(self.not_asked()), {**reports.environment(), **keras}, strict=self.strict)
        if any(case.verdict == "FAIL" for case in results):
            with np.errstate(all="ignore"):  # a candidate may put out whatever it likes
                return self.diagnosed(report)
        return replace(report, blind=self.blind()) if report.verdict == "PASS" else report

    def kinds(self) -> Iterator[tuple[str, list[Finding]]]:
        """What was found, for each kind of layer by itself: a port is of one."""
        for kind in dict.fromkeys(finding.case.layer.kind for _, finding in self.found):
            yield kind, [finding for _, finding in self.found if finding.case.layer.kind == kind]

    def diagnosed(self, report: Report) -> Report:
        causes: list[Cause] = []
        known: list[str] = []
        for _, findings in self.kinds():
            if not any(finding.verdict == "FAIL" for finding in findings):
                continue
            if self.kept is not None:  # then every later answer hangs on the calls before it
                causes.append(self.kept)
                continue
            found = diagnose(findings, self.only_mistake)
            explained = (
                found.causes or (() if self.only_mistake else stale_cause(findings)) or self.case_by_case(findings)
            )
            causes += explained
            if not explained:
                known += [self.no_cause(found), *facts(findings)]
        report = replace(report, causes=tuple(dict.fromkeys(causes)), known=tuple(dict.fromkeys(known)))
        smallest = self.smallest()
        return report if smallest is None else replace(report, smallest=described(smallest), failure=smallest)

    def smallest(self) -> Case | None:
        """The smallest case that fails; of what cannot be asked again, the case itself."""
        failed = [f for _, f in self.found if f.verdict == "FAIL" and f.case.calls == 1]
        if not failed:
            return None
        case = min(failed, key=lambda f: f.case.x.size * f.case.layer.units).case
        return shrink(self.candidate, case, self.tolerance) if self.candidate.callable else failed[0].case

    def case_by_case(self, findings: Sequence[Finding]) -> tuple[Cause, ...]:
        """The causes of single cases, where nothing explains all: a port may have made several mistakes. The small
        cases first, as many as time allows."""
        groups: dict[str, list[Finding]] = {}
        for report, finding in self.found:
            if report.verdict == "FAIL" and finding.case.layer.kind == findings[0].case.layer.kind:
                groups.setdefault(report.id, []).append(finding)
        cases = sorted(groups.values(), key=lambda several: several[0].case.x.size * several[0].case.layer.units)
        if len(cases) < 2:
            return ()
        deadline, looked, found = time.monotonic() + CASE_BY_CASE, 0, dict[str, list[Cause]]()
        for several in cases:
            if time.monotonic() > deadline:
                break
            looked += 1
            for cause in diagnose(several, self.only_mistake, seconds=0).causes:
                found.setdefault(cause.id, []).append(cause)
        common = {name: several for name, several in found.items() if 10 * len(several) >= looked}
        return tuple(
            replace(
                several[0], within=f"{len(several)} of {looked} cases looked at, of {len(cases)} that fail", apart=""
            )
            for _, several in sorted(common.items(), key=lambda item: -len(item[1]))
        )

    def no_cause(self, found: Diagnosis) -> str:
        if self.only_mistake:
            return f"cause: not {self.only_mistake}; no other mistake was looked for"
        early = " (of pairs of mistakes not all were tried, for want of time)" if found.stopped else ""
        return f"cause: none of the known mistakes{early}"

    def blind(self) -> tuple[Blind, ...]:
        return tuple(blind for _, findings in self.kinds() for blind in blind_spots(findings, self.only_mistake))

    def not_asked(self) -> Iterator[str]:
        """What these questions could not have shown, because nobody put them."""
        for what, number in self.skipped.items():
            yield f"{number} cases with {what}: the candidate has no such parameter"
        for reason, questions in self.refused.items():
            yield f"{', '.join(dict.fromkeys(questions))} ({reason})"
        if not self.candidate.callable:
            yield "any inputs but these, and a second call"
            partial = isinstance(self.candidate, Outputs) and self.candidate.single
            if partial and any(len(case.layer.output_shapes(case.x.shape)) > 1 for case in self.asked):
                yield "the final state, which was not among the outputs"
        model = any(isinstance(case.layer, Sequential) for case in self.asked)  # masks by its inputs, states from zeros
        for what, name, told in (
            ("mask", "mask", "masks"),
            ("initial_state", "state", "initial states other than zero"),
        ):
            put = any(getattr(case, what) is not None for case in self.asked)
            if not put and not model and not any(name in skipped for skipped in self.skipped):
                yield told
        if any(case.layer.stateful for case in self.asked) and not any(case.calls > 1 for case in self.asked):
            yield "the state that a stateful layer keeps between calls"
        if self.asked:
            yield f"more than {max(case.timesteps for case in self.asked):,} timesteps"
            yield f"batches above {max(case.batch for case in self.asked if not case.rows):,}"


def again(case: Case) -> Case:
    """The case once more: two calls with the same arguments, of which the second is to be as the first."""
    mask = None if case.mask is None else np.concatenate([case.mask, case.mask], axis=1)
    x, layer = np.concatenate([case.x, case.x], axis=1), state_kept(case.layer, False)
    return replace(case, id=f"{case.id} / asked again", x=x, mask=mask, layer=layer, calls=2)


def distance(first: Sequence[Any], second: Sequence[Any]) -> float:
    """The largest difference; infinite between arrays of other shapes, and where one is NaN or infinite alone."""
    if [a.shape for a in first] != [b.shape for b in second]:
        return float("inf")
    pairs = zip(first, second, strict=True)
    with np.errstate(invalid="ignore"):
        apart = [np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b)) for a, b in pairs]
    return max(float(np.nan_to_num(d, nan=np.inf).max(initial=0)) for d in apart)


def summarize(case: Case, findings: Sequence[tuple[Finding, Finding]], tolerance: Tolerance) -> CaseReport:
    found = [finding for finding, _ in findings]
    verdict = min((finding.verdict for finding in found), key=VERDICTS.index)
    decisive = [finding for finding in found if finding.verdict == verdict]
    total, keras = Tally(), Tally()
    for finding, theirs in findings:
        total.merge(finding.tally)
        keras.merge(theirs.tally)
    proved = (
        any(f.proved for f in decisive) if verdict == "FAIL" else verdict == "PASS" and all(f.proved for f in found)
    )
    shown = next((f for f in decisive if f.tally.first), None) if verdict != "PASS" else None
    first = shown.tally.first if shown else None
    where, detail = part_of_interest(shown or found[0])
    return CaseReport(
        case.id,
        verdict,
        proved=proved and not tolerance.given,
        method=tuple(dict.fromkeys(method for finding in found for method in finding.method)),
        worst=np.inf if any(finding.wrong for finding in found) else total.worst,
        max_abs=total.max_abs,
        rms=total.rms,
        keras_worst=keras.worst,
        first_divergence=Divergence(**first) if first else None,
        notes=tuple(dict.fromkeys(notes(case, found, shown, tolerance))),
        outside=shown.tally.outside if shown else 0,
        count=shown.tally.count if shown else 0,
        layers=tuple(layer_table(case, found)),
        worst_elements=tuple(Divergence(**element) for element in detail.tally.top) if shown else (),
        trace=trace(case, detail, where),
    )


def part_of_interest(finding: Finding) -> tuple[str, Finding]:
    """Of a model the layers, by name, that were first outside, or the farthest off; else what was found itself."""
    parts = [(f"layer {' + '.join(names)}", part) for names, part in finding.parts.items()]
    farthest = max(parts, key=lambda part: part[1].tally.worst, default=("", finding))
    return next((part for part in parts if part[1].tally.first), farthest)


def trace(case: Case, finding: Finding, where: str) -> Trace | None:
    timesteps, differences, radii = finding.tally.course.points().tolist()
    question = finding.case.id.removeprefix(case.id).removeprefix(" / ")
    seen_in = ", ".join(filter(None, (question, where)))
    return Trace(tuple(map(int, timesteps)), tuple(differences), tuple(radii), seen_in) if timesteps else None


def layer_table(case: Case, found: Sequence[Finding]) -> Iterator[LayerReport]:
    """Of a model, each layer's worst verdict over all questions. Those that were not seen go with the next that was."""
    if not isinstance(case.layer, Sequential):
        return
    asked = [finding for finding in found if finding.parts]
    for name, layer in case.layer.parts.items():
        own = [(f, names) for f in asked for names in f.parts if name in names]
        if not own:
            yield LayerReport(name, layer.kind, "not asked")
            continue
        apart = [(f, names) for f, names in own if names[-1] == name]
        if not apart:
            yield LayerReport(name, layer.kind, "not seen", method=(f"judged with {own[0][1][-1]}",))
            continue
        parts = [f.parts[names] for f, names in apart]
        verdict = min((part.verdict for part in parts), key=VERDICTS.index)
        methods = dict.fromkeys(method for part in parts for method in part.method)
        yield LayerReport(
            name,
            layer.kind,
            verdict,
            worst=max(part.tally.worst for part in parts),
            method=tuple(methods),
            inputs_differed=any(differed_before(f, names) for f, names in apart),
        )


def differed_before(finding: Finding, names: tuple[str, ...]) -> bool:
    before = list(finding.parts)[: list(finding.parts).index(names)]
    return any(finding.parts[other].verdict == "FAIL" for other in before)


def notes(case: Case, found: Sequence[Finding], shown: Finding | None, tolerance: Tolerance) -> Iterator[str]:
    if shown and shown.case is not found[0].case:
        yield f"seen in {describe(shown)}"
    for kind in ("wrong", "disputed", "vacuous", "undecided"):
        told = [finding for finding in found if getattr(finding, kind)]
        if told:
            place = "" if told[0] is found[0] else told[0].case.id.removeprefix(case.id + " / ") + ": "
            yield f"{place}{getattr(told[0], kind)}{f' (likewise {len(told) - 1} other questions)' if told[1:] else ''}"
    for finding in found:
        yield from finding.notes
    failing = [f for f in found if f.verdict == "FAIL"]
    if failing and failing[0].case.id.endswith("asked again") and found[0].verdict == "PASS":
        yield "the first call was right: something is kept between calls"
    if tolerance.given:
        yield f"not proved: atol {tolerance.atol:g} and rtol {tolerance.rtol:g} were granted beside rounding"


def describe(finding: Finding) -> str:
    """Which question it was, and what its first bad row is meant to show."""
    first = finding.tally.first
    rows = finding.case.rows
    place = f", batch row {first['batch']}" if first else ""
    return finding.case.id.rpartition(" / ")[2] + place + (f": {rows[first['batch']]}" if first and rows else "")
