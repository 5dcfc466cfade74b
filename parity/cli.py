"""The command line: options in, Report out. It holds no logic of its own."""

import contextlib
import functools
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from parity.errors import CandidateError, InputError, ParityError
from parity.golden import is_golden
from parity.options import NAMED, OPTIONS, Option, checked
from parity.report.data import Report
from parity.report.pages import FORMATS, opened
from parity.report.provenance import shell_line, unanswered
from parity.terminal import briefly, console, printable, progress, reader_may_go

if TYPE_CHECKING:
    from rich.table import Table

    from parity.scoring.counts import Score

Options = dict[str, Any]
"""What was given on the command line, by name; None where nothing was."""

_WRITTEN = (*FORMATS, "save_failure", "output", "json_path")
"""The options that name a file to write."""

_COMPLETION = "_PARITY_COMPLETE"

_STANDARD_OUTPUT = "parity.standard_output"

Command = TypeVar("Command", bound=Callable[..., Any])


# --- options ---


def _values(known: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What a shell completes to: of names with commas between them the last one."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known() if name.startswith(last)]

    return complete


def _layers() -> Iterable[str]:
    from parity.cases.grid import AXES

    return [str(kind) for kind in AXES["layer"]]


def _ports() -> Iterable[str]:
    from parity.ports.formats import FORMATS as PORTS

    return PORTS


def _layouts() -> Iterable[str]:
    from parity.ports.layouts import LAYOUTS

    return LAYOUTS


def _mistakes() -> Iterable[str]:
    from parity.mistakes.catalogue import MISTAKES

    return MISTAKES


_COMPLETED = {"only_mistake": _values(_mistakes)}
"""The options that mean the same everywhere and have values with names."""

_FILE = click.Path()
"""A text, which a shell completes as a file."""


def _several(element: Callable[[str], Any], expected: str) -> Callable[..., Any]:
    """A callback that reads `1,8` as (1, 8), each part by `element`."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        if value is None:
            return None
        try:
            return tuple(element(part.strip()) for part in value.split(","))
        except (ValueError, KeyError):
            raise click.BadParameter(f"expected {expected}; received {value!r}") from None

    return parse


_INTEGERS = _several(int, "integers, as 1,8")
_BOOLEANS = _several(lambda text: {"true": True, "false": False}[text.lower()], "true, false or true,false")
_NAMES = _several(str, "names, as tanh,relu")


def _output(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The path of a file to write; `-` is standard output, where nothing else goes then."""
    if value != "-":
        return value
    from parity.disk import standard_output

    if _STANDARD_OUTPUT in context.meta:
        raise click.BadParameter("expected a file; standard output (-) is given to another option")
    path: str = context.with_resource(standard_output())
    context.meta[_STANDARD_OUTPUT] = path
    return path


_file_option = functools.partial(click.option, metavar="FILE", type=_FILE, callback=_output)
"""An option that names a file to write."""


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Those options, in that order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _common(option: Option) -> Callable[[Command], Command]:
    """One of the options that mean the same everywhere."""
    kind = str if option.kind is tuple else option.kind
    settings: dict[str, Any] = {"is_flag": True} if kind is bool else {"type": kind}
    if option.name in _COMPLETED:
        settings["shell_complete"] = _COMPLETED[option.name]
    if option.metavar:
        settings["metavar"] = option.metavar
    shown = option.kind is int
    default = option.default or None if option.kind is tuple else option.default
    return click.option(f"--{option.flag}", help=option.help, default=default, show_default=shown, **settings)


def _seed(what: str) -> Callable[[Command], Command]:
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help=what)


_common_options = _all(*map(_common, OPTIONS))
_page_options = _all(*(_file_option(f"--{form.name}", help=form.help) for form in FORMATS.values()))
_inputs_option = click.option(
    "--inputs", metavar="X.npy", type=_FILE, help="Inputs (batch, timesteps, input_dim); drawn if not given."
)
_beside_inputs = _all(
    click.option("--mask", metavar="M.npy", type=_FILE, help="Mask (batch, timesteps), true where a step counts."),
    click.option("--initial-state", metavar="S.npy", type=_FILE, help="Initial state (batch, units)."),
    click.option(
        "--input-shape", callback=_INTEGERS, metavar="[B,]T,D", help="([batch,] timesteps, input_dim) of drawn inputs."
    ),
)
_grid_options = _all(
    click.option(
        "--layer",
        callback=_NAMES,
        shell_complete=_values(_layers),
        help="Of the grid: simple_rnn, lstm, gru, bidirectional, stack; all, or simple_rnn if a candidate is given.",
    ),
    click.option("--batch", callback=_INTEGERS, help="... these batch sizes."),
    click.option("--timesteps", callback=_INTEGERS, help="... these numbers of timesteps."),
    click.option("--input-dim", callback=_INTEGERS, help="... these numbers of features."),
    click.option("--units", callback=_INTEGERS, help="... these numbers of units."),
    click.option("--return-sequences", callback=_BOOLEANS, help="... these values of return_sequences."),
    click.option("--activation", callback=_NAMES, help="... these activations."),
    click.option("--weights", callback=_NAMES, help="... these weights: normal, keras, uniform, chaotic."),
    click.option("--case", "only", metavar="PATTERN", help="... the cases whose id matches, as `*-relu-*` does."),
    click.option("--list", "listing", is_flag=True, help="Print the ids of the grid's cases and stop."),
)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-parity", message="keras-parity %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Is a recurrent layer that was taken out of Keras and written again still the same function?"""
    if context.invoked_subcommand is None:
        say(context.get_help())
    elif context.obj and context.invoked_subcommand != "check":  # which has reports to write
        raise CandidateError(context.obj)


# --- parity check ---


@cli.command()
@click.argument("model", required=False, type=_FILE)
@click.option(
    "--candidate",
    metavar="WHAT",
    type=_FILE,
    help="What is judged: FILE.py:NAME, MODEL.onnx, MODEL.tflite, 'cmd:PROGRAM {inputs} {outputs}', or WEIGHTS.npz, "
    ".safetensors or .pt in one of the layouts; if not given, rnn_scratch itself, or for a golden file the Keras here.",
)
@_inputs_option
@click.option(
    "--outputs",
    metavar="Y.npy",
    type=_FILE,
    help="Outputs computed elsewhere from --inputs, instead of a candidate; from a golden file's inputs (`0/x` in it), "
    "or an .npz of them by the numbers of its cases.",
)
@_beside_inputs
@_common_options
@click.option(
    "--save-failure",
    metavar="CASE.npz",
    callback=_output,
    help="Write the smallest case that fails; `parity check` replays it.",
)
@_page_options
@_grid_options
@click.option("--verbose", is_flag=True, help="A row for every case.")
def check(model: str | None, listing: bool, verbose: bool, **options: Any) -> int:
    """Check a candidate against Keras.

    Without MODEL: over the built-in grid of SimpleRNN, LSTM and GRU cases; a candidate is then a function
    forward(x, layer). With MODEL, a saved Keras model (a recurrent layer, or layers one after another), or a golden
    file that `parity record` made of one: a function of x (and of layer, mask, initial_state those it has), which may
    return a dict of layer name to output; a step function step(x_t, state) for one layer; a torch module; an ONNX or
    TFLite file; any program that reads and writes .npy ({mask}, {initial_state}, {weights} are files too); --outputs.

    Exit status: 0 PASS, 1 FAIL, 2 ERROR, 3 INCONCLUSIVE.
    """
    from parity.cases.grid import AXES, grid
    from parity.disk import writing
    from parity.golden.file import Golden, packed

    select = {name: options[name] for name in AXES if options[name] is not None}
    if listing:
        for case in grid(select, options["only"], options["seed"]):
            say(case.id)
        return 0
    refuse_same_paths(model, options)
    with pages(options) as write, writing(options["save_failure"], "--save-failure") as write_failure:
        quiet()
        try:
            if lost := click.get_current_context().obj:
                raise CandidateError(lost)
            report, table = _asking(model)(model, select, options)
            report = replace(report, command=command(), subject=subject(model, options))
        except ParityError as error:
            failed = unanswered(model or "grid", str(error), command())
            write(replace(failed, subject=subject(model, options)))
            raise
        write(report)
        if report.failure is not None:
            write_failure(packed(Golden((report.failure,))))
    if table is not None:
        draw(table)
    show(report, verbose)
    return report.exit_status


Asking = Callable[[Any, Options, Options], "tuple[Report, Table | None]"]
"""A function of MODEL, the selection of cases and the options: the report, and a table to print above it."""


def _asking(model: str | None) -> Asking:
    if model is None:
        return check_grid
    suffixes: dict[str, Asking] = {".npz": check_file, ".toml": check_gate}
    return suffixes.get(os.path.splitext(model)[1], check_model)


def check_model(model: str, select: Options, options: Options) -> "tuple[Report, Table | None]":
    """A saved Keras model."""
    from parity import api
    from parity.candidates.functions import scratch
    from parity.disk import load_array

    _refuse_selection(select, options, "with a model, give --inputs or --input-shape")
    _refuse_both(options, "candidate", "outputs")
    if options["outputs"] and not options["inputs"]:
        raise InputError("--outputs: expected --inputs too, the inputs that they were computed from")
    outputs = load_array("--outputs", options["outputs"])
    report = api.check(
        (options["candidate"] or scratch) if outputs is None else outputs,
        model,
        load_array("--inputs", options["inputs"]),
        input_shape=options["input_shape"],
        mask=load_array("--mask", options["mask"]),
        initial_state=load_array("--initial-state", options["initial_state"]),
        **_settings(options),
    )
    return report, None


def check_file(path: str, select: Options, options: Options) -> "tuple[Report, Table | None]":
    """A golden file, or a case that was saved from a failure."""
    from parity import api
    from parity.disk import load_outputs

    _refuse_selection(select, options, "with a model, give --inputs or --input-shape")
    own = "expected a model to go with it; the file has its own"
    _refuse(options, own, "inputs", "mask", "initial_state", "input_shape")
    _refuse_both(options, "candidate", "outputs")
    outputs = load_outputs(options["outputs"])
    candidate = options["candidate"] if outputs is None else outputs
    return api.check_file(candidate, path, **_settings(options)), None


def check_gate(path: str, select: Options, options: Options) -> "tuple[Report, Table | None]":
    """A file of checks."""
    from parity import gate, tables

    _refuse_selection(select, options, "the file lists its checks")
    own = "expected none beside a file of checks; each has its own"
    given = [name for name in NAMED if options[name] not in (None, NAMED[name].default)]
    _refuse(dict.fromkeys(given, True), own, *given)
    _refuse(options, own, "candidate", "outputs", "inputs", "mask", "initial_state", "input_shape", "save_failure")
    checks = gate.read(path)
    with progress(len(checks)) as done:
        reports = gate.run(checks, done)
    return gate.together(reports), tables.of_checks(reports)


def check_grid(model: None, select: Options, options: Options) -> "tuple[Report, Table | None]":
    """The built-in cases."""
    from parity import api
    from parity.cases.grid import grid

    own = "expected a model to go with it; the grid draws its own"
    _refuse(options, own, "inputs", "outputs", "mask", "initial_state", "input_shape")
    not_asked: tuple[str, ...] = ()
    if options["candidate"] and "layer" not in select:  # a port is a port of one layer
        select = {"layer": ["simple_rnn"], **select}
        not_asked = ("other layers: --layer names what the candidate is a port of",)
    cases = grid(select, options["only"], options["seed"])
    with progress(len(cases)) as done:
        report = api.check_grid(options["candidate"], cases, **_settings(options), done=done)
    repeating = tuple(c if c.verdict == "PASS" else replace(c, command=command(case=c.id)) for c in report.cases)
    return replace(report, cases=repeating, not_asked=(*not_asked, *report.not_asked)), None


def _settings(options: Options) -> Options:
    """Those of the options that `parity.check` takes, each checked."""
    return checked({name: options[name] for name in NAMED if options[name] is not None})


# --- what does not go together ---


def _refuse_selection(select: Options, options: Options, instead: str) -> None:
    if select or options["only"]:
        name = _flag(next(iter(select), "case"))
        raise InputError(f"{name} selects cases of the grid; {instead}")


def _refuse(options: Options, what: str, *given: str) -> None:
    for name in given:
        if options[name]:
            raise InputError(f"{_flag(name)}: {what}")


def _refuse_both(options: Options, one: str, other: str) -> None:
    if options[one] and options[other]:
        raise InputError(f"{_flag(other)} and {_flag(one)}: expected one of them")


def refuse_same_paths(model: str | None, options: Options) -> None:
    """InputError where one of the files to write is another one, or one that is read."""
    from parity.overwriting import refuse_overwriting

    named = ("inputs", "outputs", "mask", "initial_state", "candidate")
    read = {"MODEL": model, **{_flag(name): options.get(name) for name in named}, **_read_by_checks(model)}
    refuse_overwriting({_flag(name): options.get(name) for name in _WRITTEN}, read)


def _read_by_checks(model: str | None) -> dict[str, str]:
    """What the checks of a file read; nothing where it cannot be read, which is said later."""
    if model is None or not model.endswith(".toml"):
        return {}
    from parity import gate

    with contextlib.suppress(ParityError, OSError):
        return {f"{check.name}: {path}": path for check in gate.read(model) for path in check.files}
    return {}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# --- the report ---


@contextlib.contextmanager
def pages(options: Options) -> Iterator[Callable[[Report], None]]:
    """A function that writes a report to every file that was asked for. What would keep it from that is found here."""
    with contextlib.ExitStack() as stack:
        asked = [form for form in FORMATS if options[form]]
        writers = [stack.enter_context(opened(form, options[form], f"--{form}")) for form in asked]

        def write(report: Report) -> None:
            for writer in writers:
                writer(report)

        yield write


def command(case: str | None = None) -> str:
    """The command line that this is; or that of one case of the grid, which writes no report."""
    given = ["parity", *sys.argv[1:]]
    return shell_line(given if case is None else [*_without_reports(given), "--case", case])


def _without_reports(given: list[str]) -> list[str]:
    """The words without the options that write a file: `--json FILE` and `--json=FILE`."""
    writing = {f"--{name}" for name in (*FORMATS, "save-failure")}
    kept: list[str] = []
    for before, word in zip(["", *given], given, strict=False):
        if before not in writing and word.partition("=")[0] not in writing:
            kept.append(word)
    return kept


def subject(model: str | None, options: Options) -> str:
    """What is checked against what."""
    if model and model.endswith(".toml"):
        return model
    unnamed = "the Keras here" if is_golden(model) else "rnn_scratch"
    return f"{options['candidate'] or options['outputs'] or unnamed} against {model or 'the grid'}"


def show(report: Report, verbose: bool) -> None:
    """The report as text; below tables with a row for every case, and for every layer of a model, if `verbose`."""
    from parity.report import words

    if verbose:
        from parity import tables

        draw(tables.of_cases(report))
        for case in report.cases:
            if case.layers:
                draw(tables.of_layers(case))
    say("\n".join([str(report), *words.worst_lines(report)]))


def say(text: object, err: bool = False) -> None:
    with reader_may_go():
        click.echo(printable(text), err=err)


def draw(table: "Table", width: int = 160) -> None:
    with reader_may_go():
        console(width).print(table)


# --- parity record ---


@cli.command()
@click.argument("model", type=_FILE)
@click.option("-o", "--output", required=True, metavar="GOLDEN.npz", callback=_output, help="The file to write.")
@_inputs_option
@_beside_inputs
@_seed("Of all that is drawn.")
@click.option(
    "--cases",
    callback=_NAMES,
    default="inputs,companions,probes",
    show_default=True,
    help="What to record: inputs; companions (other lengths, batches, masks, states); probes; lattices (probes with "
    "other weights, for candidates that take them).",
)
def record(model: str, output: str, **options: Any) -> int:
    """Record what Keras makes of a saved model: a golden file, which `parity check` needs no Keras for."""
    import parity
    from parity.disk import load_array

    refuse_same_paths(model, {**options, "output": output})
    quiet()
    for name in ("mask", "initial_state", "inputs"):
        options[name] = load_array(_flag(name), options[name])
    golden = parity.record(model, output, options.pop("inputs"), **options)
    size = f", {os.path.getsize(output):,} bytes" if os.path.isfile(output) else ""
    recorded = ", ".join(f"{name} {value}" for name, value in golden.provenance["environment"].items())
    say(f"{output}: {len(golden.cases)} cases{size}\n{recorded}")
    return 0


# --- parity port ---


@cli.command()
@click.argument("model", type=_FILE)
@click.option(
    "--to", required=True, metavar="FORMAT", shell_complete=_values(_ports), help="npz, safetensors, torch, onnx or c."
)
@click.option(
    "--layout",
    metavar="NAME",
    shell_complete=_values(_layouts),
    help="Of npz and safetensors: notebook (if not given), keras, torch, onnx, tflite.",
)
@_file_option("-o", "--output", help="The file to write; the model's name with the format's suffix.")
@_seed("Of the check's inputs.")
def port(model: str, to: str, layout: str | None, output: str | None, seed: int) -> int:
    """Write a saved model's weights in another layout, or the model as ONNX or C, and check what was written.

    Beside the file stands its manifest, FILE.json: names, shapes, transposes, gate order.
    Exit status: that of the check, 2 where there was nothing to check it with.
    """
    import parity
    from parity import tables
    from parity.ports.formats import FORMATS as PORTS

    if to not in PORTS:
        raise InputError(f"--to: expected {', '.join(PORTS)}; received {to!r}")
    quiet()
    path = output or _free(os.path.splitext(os.path.basename(model))[0] + PORTS[to].suffix)
    made, report, why = parity.port(model, to, path, layout=layout, seed=seed)
    draw(tables.of_arrays(made.manifest), 140)
    beside = f", {path}.json" if os.path.isfile(path) else ""
    say(f"{path}{beside}: {len(made.data):,} bytes")
    if report is None:
        say(f"not verified: {why}")
        return 2
    show(report, verbose=False)
    return report.exit_status


def _free(path: str) -> str:
    """The path that nobody named. InputError where a file is there that is no port with its manifest."""
    if os.path.lexists(path) and not os.path.exists(f"{path}.json"):
        raise InputError(f"{path}: there is a file of that name, which is no port; name the one to write with -o")
    return path


# --- parity score ---


@cli.command()
@_file_option("--json", "json_path", help="Write the figures there as JSON.")
@click.option(
    "--layer",
    callback=_NAMES,
    shell_complete=_values(_layers),
    help="... of these layers: simple_rnn, lstm, gru, bidirectional, stack.",
)
@click.option("--case", "only", metavar="PATTERN", help="... the cases whose id matches, as `*-seq-*` does.")
@click.option("--draws", type=click.IntRange(min=1), default=100, show_default=True, help="Single weights, and pairs.")
def score(json_path: str | None, layer: tuple[str, ...] | None, only: str | None, draws: int) -> int:
    """The harness's own score: mistakes caught and named, correct implementations accused.

    Every mistake of the catalogue is made in every case of the grid that it applies to, and every correct
    implementation at hand is judged; beside it stands what allclose and the cosine say to the same data.
    Some minutes. Exit status: 1 if a correct implementation was accused or a visible mistake missed, else 0.
    """
    from parity.cases.grid import grid
    from parity.disk import writing

    cases = grid({"layer": layer} if layer else {}, only)
    with writing(json_path, "--json") as write:
        quiet()
        from parity.scoring.score import run

        with progress(None) as done:
            found = run(cases, done, draws)
        write((json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n").encode())
    show_score(found)
    return 1 if found.accused or found.missed else 0


MOST_LINES = 20


def show_score(score: "Score") -> None:
    from parity import tables

    draw(tables.of_score(score), 140)
    say(f"largest ratio of a correct evaluation: {score.largest:.3g} radii; {score.seconds:.0f} s")
    told: Mapping[str, list[str]] = {"accused": score.accused, "missed": score.missed, "misnamed": score.misnamed}
    for what, lines in told.items():
        for line in lines[:MOST_LINES]:
            say(f"{what}: {line}")
        if len(lines) > MOST_LINES:
            say(f"{what}: and {len(lines) - MOST_LINES} more (--json has all)")


# --- the process ---


def quiet() -> None:
    """TensorFlow's and Keras's own messages do not reach the user of this command; a candidate's do."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(keras|tf_keras|tensorflow|torch|jax)\b")


def main() -> None:
    """The command `parity`: one line on standard error and status 2 for whatever is wrong with the question."""
    from parity.supervised import supervised

    sys.exit(supervised(_run))


def _run(lost: str) -> int:
    """The exit status. lost: what became of the process that tried before, "" for the first."""
    try:
        status = int(cli.main(standalone_mode=False, obj=lost) or 0)
        with reader_may_go():
            sys.stdout.flush()
        return status
    except BaseException as error:
        if isinstance(error, SystemExit) and _COMPLETION in os.environ:  # how click ends where a shell asks it
            return int(error.code or 0)
        return _complain(_wrong(error))


def _wrong(error: BaseException) -> str:
    """In a line, what was wrong."""
    match error:
        case ParityError():
            return str(error)
        case click.ClickException():
            return error.format_message()
        case click.Abort() | KeyboardInterrupt():
            return "interrupted"
        case OSError():
            return f"{error.filename or 'the system'}: {error.strerror or error}"
        case MemoryError() | RecursionError():
            return f"there is not enough memory for this: {briefly(error)}"
        case Exception():  # a defect of ours; Python's own status for it, 1, would say FAIL
            traceback.print_exception(error)
            return "this is a defect of keras-parity; please report it with the lines above"
    return f"raised {type(error).__name__}: {error}"  # a candidate's own


def _complain(message: str) -> int:
    say(f"ERROR  {' '.join(message.split())}", err=True)
    return 2


if __name__ == "__main__":
    main()
