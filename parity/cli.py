"""The command line: options in, Report out. It holds no logic of its own."""

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import click

from parity.errors import InputError, ParityError
from parity.options import NAMED, OPTIONS, checked
from parity.terminal import printable


def several(element: Callable[[str], Any], expected: str) -> Callable[..., Any]:
    """A callback that reads `1,8` as (1, 8), each part by `element`."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        try:
            return None if value is None else tuple(element(part.strip()) for part in value.split(","))
        except (ValueError, KeyError):
            raise click.BadParameter(f"expected {expected}; received {value!r}") from None

    return parse


integers = several(int, "integers, as 1,8")
booleans = several(lambda text: {"true": True, "false": False}[text.lower()], "true, false or true,false")
names = several(str, "names, as tanh,relu")


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that mean the same everywhere."""
    for option in reversed(OPTIONS):
        settings: dict[str, Any] = {"is_flag": True} if option.kind is bool else {"type": option.kind}
        if option.metavar:
            settings["metavar"] = option.metavar
        shown = {"default": option.default, "show_default": option.kind is int}
        command = click.option(f"--{option.flag}", help=option.help, **settings, **shown)(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-parity", message="keras-parity %(version)s")
def cli() -> None:
    """Is a recurrent layer that was taken out of Keras and written again still the same function?"""


@cli.command()
@click.argument("model", required=False)
@click.option(
    "--candidate",
    metavar="WHAT",
    help="What is judged: FILE.py:NAME, MODEL.onnx, MODEL.tflite, 'cmd:PROGRAM {inputs} {outputs}', or WEIGHTS.npz or "
    ".safetensors in one of the layouts; if not given, rnn_scratch itself, or for a golden file the Keras here.",
)
@click.option("--inputs", metavar="X.npy", help="Inputs (batch, timesteps, input_dim); drawn if not given.")
@click.option(
    "--outputs",
    metavar="Y.npy",
    help="Outputs computed elsewhere from --inputs, instead of a candidate; from a golden file's inputs (`0/x` in it), "
    "or an .npz of them by the numbers of its cases.",
)
@click.option("--mask", metavar="M.npy", help="Mask (batch, timesteps), true where a step counts.")
@click.option("--initial-state", metavar="S.npy", help="Initial state (batch, units).")
@click.option("--input-shape", callback=integers, metavar="T,D", help="(timesteps, input_dim) of drawn inputs.")
@common
@click.option(
    "--save-failure", metavar="CASE.npz", help="Write the smallest case that fails; `parity check` replays it."
)
@click.option("--json", metavar="FILE", help="Write the report there as JSON.")
@click.option("--html", metavar="FILE", help="... as a page, one file, with pictures.")
@click.option("--junit", metavar="FILE", help="... as JUnit's XML, for a CI.")
@click.option("--markdown", metavar="FILE", help="... as Markdown, for the summary of a CI job.")
@click.option(
    "--layer",
    callback=names,
    help="Of the grid: simple_rnn, lstm, gru, bidirectional, stack; all, or simple_rnn if a candidate is given.",
)
@click.option("--batch", callback=integers, help="... these batch sizes.")
@click.option("--timesteps", callback=integers, help="... these numbers of timesteps.")
@click.option("--input-dim", callback=integers, help="... these numbers of features.")
@click.option("--units", callback=integers, help="... these numbers of units.")
@click.option("--return-sequences", callback=booleans, help="... these values of return_sequences.")
@click.option("--activation", callback=names, help="... these activations.")
@click.option("--weights", callback=names, help="... these weights: normal, keras, uniform, chaotic.")
@click.option("--case", "only", metavar="PATTERN", help="... the cases whose id matches, as `*-relu-*` does.")
@click.option("--list", "listing", is_flag=True, help="Print the ids of the grid's cases and stop.")
@click.option("--verbose", is_flag=True, help="A row for every case.")
def check(model: str | None, listing: bool, verbose: bool, **options: Any) -> int:
    """Check a candidate against Keras.

    Without MODEL: over the built-in grid of SimpleRNN, LSTM and GRU cases; a candidate is then a function
    forward(x, layer). With MODEL, a saved Keras model (a recurrent layer, or layers one after another), or a golden
    file that `parity record` made of one: a function of x (and of layer, mask, initial_state those it has), which may
    return a dict of layer name to output; a step function step(x_t, state) for one layer; a torch module; an ONNX or
    TFLite file; any program that reads and writes .npy ({mask}, {initial_state}, {weights} are files too); --outputs.

    Exit status: 0 PASS, 1 FAIL, 2 INCONCLUSIVE or ERROR.
    """
    from parity.cases.case import AXES, grid

    select = {name: options[name] for name in AXES if options[name] is not None}
    if listing:
        for case in grid(select, options["only"], options["seed"]):
            say(case.id)
        return 0
    from parity.disk import writing
    from parity.golden.file import Golden, packed

    refuse_same_paths(model, options)
    with pages(options) as write, writing(options["save_failure"], "--save-failure") as write_failure:
        quiet()
        ask: Any = (
            check_grid
            if model is None
            else {".npz": check_file, ".toml": check_gate}.get(os.path.splitext(model)[1], check_model)
        )
        try:
            report, table = ask(model, select, options)
            report = replace(report, command=command(), subject=subject(model, options))
        except ParityError as error:
            write(replace(failure(model or "grid", error), subject=subject(model, options)))
            raise
        write(report)
        if report.failure is not None:
            write_failure(packed(Golden((report.failure,))))
    if table is not None:
        console().print(table)
    show(report, verbose)
    return int(report.exit_status)


@cli.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="GOLDEN.npz", help="The file to write.")
@click.option("--inputs", metavar="X.npy", help="Inputs (batch, timesteps, input_dim); drawn if not given.")
@click.option("--mask", metavar="M.npy", help="Mask (batch, timesteps), true where a step counts.")
@click.option("--initial-state", metavar="S.npy", help="Initial state (batch, units).")
@click.option("--input-shape", callback=integers, metavar="T,D", help="(timesteps, input_dim) of drawn inputs.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn.")
@click.option(
    "--cases",
    callback=names,
    default="inputs,companions,probes",
    show_default=True,
    help="What to record: inputs; companions (other lengths, batches, masks, states); probes; lattices (probes with "
    "other weights, for candidates that take them).",
)
def record(model: str, output: str, **options: Any) -> int:
    """Record what Keras makes of a saved model: a golden file, which `parity check` needs no Keras for."""
    import parity
    from parity.disk import load_array

    quiet()
    for name in ("mask", "initial_state", "inputs"):
        options[name] = load_array(f"--{name.replace('_', '-')}", options[name])
    golden = parity.record(model, output, options.pop("inputs"), **options)
    size = os.path.getsize(output)
    recorded = ", ".join(f"{name} {value}" for name, value in golden.provenance["environment"].items())
    say(f"{output}: {len(golden.cases)} cases, {size:,} bytes\n{recorded}")
    return 0


@cli.command()
@click.argument("model")
@click.option("--to", required=True, metavar="FORMAT", help="npz, safetensors, torch, onnx or c.")
@click.option(
    "--layout", metavar="NAME", help="Of npz and safetensors: notebook (if not given), keras, torch, onnx, tflite."
)
@click.option("-o", "--output", metavar="FILE", help="The file to write; the model's name with the format's suffix.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the check's inputs.")
def port(model: str, to: str, layout: str | None, output: str | None, seed: int) -> int:
    """Write a saved model's weights in another layout, or the model as ONNX or C, and check what was written.

    Beside the file stands its manifest, FILE.json: names, shapes, transposes, gate order.
    Exit status: that of the check, 2 where there was nothing to check it with.
    """
    from parity import porting
    from parity.ports.formats import FORMATS

    if to not in FORMATS:
        raise InputError(f"--to: expected {', '.join(FORMATS)}; received {to!r}")
    quiet()
    path = output or f"{os.path.splitext(os.path.basename(model))[0]}{FORMATS[to].suffix}"
    made, report, why = porting.port(model, to, path, layout=layout, seed=seed)
    show_manifest(made.manifest)
    say(f"{path}, {path}.json: {len(made.data):,} bytes")
    if report is None:
        say(f"not verified: {why}")
        return 2
    show(report, False)
    return int(report.exit_status)


def show_manifest(manifest: Any) -> None:
    from rich.table import Table

    table = Table("array", "shape", "from Keras's", "transposed", "gates")
    for layer in manifest["layers"]:
        for array in layer["arrays"]:
            cells = array["name"], str(tuple(array["shape"])), f"{layer['layer']} {array['from']}"
            table.add_row(*map(cell, cells), "yes" if array["transposed"] else "no", " ".join(layer.get("gates", [])))
    console(140).print(table)


def console(width: int = 160) -> Any:
    """The terminal; in a pipe so many columns."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def cell(text: object) -> Any:
    """Text from anywhere, in a table: no markup and no control characters."""
    from rich.text import Text

    return Text(printable(text))


def say(text: object, err: bool = False) -> None:
    click.echo(printable(text), err=err)


@cli.command()
@click.option("--json", "json_path", metavar="FILE", help="Write the figures there as JSON.")
@click.option("--layer", callback=names, help="... of these layers: simple_rnn, lstm, gru, bidirectional, stack.")
@click.option("--case", "only", metavar="PATTERN", help="... the cases whose id matches, as `*-seq-*` does.")
@click.option("--draws", type=click.IntRange(min=1), default=100, show_default=True, help="Single weights, and pairs.")
def score(json_path: str | None, layer: tuple[str, ...] | None, only: str | None, draws: int) -> int:
    """The harness's own score: mistakes caught and named, correct implementations accused.

    Every mistake of the catalogue is made in every case of the grid that it applies to, and every correct
    implementation at hand is judged; beside it stands what allclose and the cosine say to the same data.
    Some minutes. Exit status: 1 if a correct implementation was accused or a visible mistake missed, else 0.
    """
    from parity.cases.case import grid
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


def show_score(score: Any) -> None:
    from rich.table import Table

    table = Table("", "number", "of", "share")
    for what, (number, of) in score.counts.items():
        table.add_row(what, f"{number:,}", f"{of:,}", f"{number / of:.1%}" if of else "")
    console(140).print(table)
    say(f"largest ratio of a correct evaluation: {score.largest:.3g} radii; {score.seconds:.0f} s")
    for what, lines in (("accused", score.accused), ("missed", score.missed), ("misnamed", score.misnamed)):
        for line in lines[:MOST_LINES]:
            say(f"{what}: {line}")
        if len(lines) > MOST_LINES:
            say(f"{what}: and {len(lines) - MOST_LINES} more (--json has all)")


MOST_LINES = 20


def always(options: dict[str, Any]) -> dict[str, Any]:
    return checked({name: options[name] for name in NAMED if options[name] is not None})


def refuse_selection(
    select: dict[str, Any], options: dict[str, Any], instead: str = "with a model, give --inputs or --input-shape"
) -> None:
    if select or options["only"]:
        name = next(iter(select), "case").replace("_", "-")
        raise InputError(f"--{name} selects cases of the grid; {instead}")


def refuse(options: dict[str, Any], what: str, *given: str) -> None:
    for name in given:
        if options[name]:
            raise InputError(f"--{name.replace('_', '-')}: {what}")


def refuse_same_paths(model: str | None, options: dict[str, Any]) -> None:
    """InputError where one of the files to write is another one, or one that is read."""
    from parity.report.pages import FORMATS

    written, read = (*FORMATS, "save_failure"), ("inputs", "outputs", "mask", "initial_state", "candidate")
    named = {"MODEL": model, **{f"--{name.replace('_', '-')}": options[name] for name in (*read, *written)}}
    first: dict[str, str] = {}
    for name, path in named.items():
        real = os.path.realpath(path) if path else ""
        if path and name.removeprefix("--").replace("-", "_") in written and real in first:
            raise InputError(f"{name}: {path}: expected a file of its own; it is that of {first[real]}")
        first.setdefault(real, name)


def check_file(path: str, select: dict[str, Any], options: dict[str, Any]) -> Any:
    from parity import api
    from parity.disk import load_outputs

    refuse_selection(select, options)
    own = "expected a model to go with it; the file has its own"
    refuse(options, own, "inputs", "mask", "initial_state", "input_shape")
    one_of(options, "candidate", "outputs")
    outputs = load_outputs(options["outputs"])
    candidate = options["candidate"] if outputs is None else outputs
    return api.check_file(candidate, path, **always(options)), None


def check_gate(path: str, select: dict[str, Any], options: dict[str, Any]) -> Any:
    from parity import gate

    refuse_selection(select, options, "the file lists its checks")
    own = "expected none beside a file of checks; each has its own"
    given = [name for name in NAMED if options[name] not in (None, NAMED[name].default)]
    refuse(dict.fromkeys(given, True), own, *given)
    refuse(options, own, "candidate", "outputs", "inputs", "mask", "initial_state", "input_shape", "save_failure")
    checks = gate.read(path)
    with progress(len(checks)) as done:
        reports = gate.run(checks, done)
    return gate.together(reports), gate_table(reports)


def gate_table(reports: Any) -> Any:
    from rich.table import Table

    table = Table("check", "verdict", "largest, radii", "why")
    for name, report in reports:
        causes = [cause.id for cause in report.causes]
        blind = [f"not visible: {found.id}" for found in report.not_visible]
        notes = [note for case in report.cases for note in case.notes] if report.verdict == "ERROR" else []
        largest = "" if report.worst is None else f"{report.worst:.3g}"
        table.add_row(*map(cell, (name, report.verdict, largest, ", ".join([*causes, *notes, *blind][:4]))))
    return table


def check_model(model: str, select: dict[str, Any], options: dict[str, Any]) -> Any:
    from parity import api
    from parity.candidates.functions import scratch
    from parity.disk import load_array

    refuse_selection(select, options)
    one_of(options, "candidate", "outputs")
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
        **always(options),
    )
    return report, None


def one_of(options: dict[str, Any], *names: str) -> None:
    if all(options[name] for name in names):
        raise InputError(f"{' and '.join(f'--{name}' for name in reversed(names))}: expected one of them")


def check_grid(model: None, select: dict[str, Any], options: dict[str, Any]) -> Any:
    from parity import api
    from parity.cases.case import grid

    own = "expected a model to go with it; the grid draws its own"
    refuse(options, own, "inputs", "outputs", "mask", "initial_state", "input_shape")
    one = bool(options["candidate"]) and "layer" not in select  # a port is a port of one layer
    cases = grid({"layer": ["simple_rnn"], **select} if one else select, options["only"], options["seed"])
    with progress(len(cases)) as done:
        report = api.check_grid(options["candidate"], cases, **always(options), done=done)
    others = ("other layers: --layer names what the candidate is a port of",) if one else ()
    alone = tuple(c if c.verdict == "PASS" else replace(c, command=command(case=c.id)) for c in report.cases)
    return replace(report, cases=alone, not_asked=(*others, *report.not_asked)), None


@contextlib.contextmanager
def progress(total: int | None) -> Iterator[Callable[[Any], None]]:
    """A bar on the terminal, nothing in a pipe."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda result: bar.update(task, advance=1, description=escape(printable(getattr(result, "id", result))))


@contextlib.contextmanager
def pages(options: dict[str, Any]) -> Iterator[Callable[[Any], None]]:
    """A function that writes a report to every file that was asked for. What would keep it from that is found here."""
    from parity.disk import writing
    from parity.report.pages import FORMATS, renderer

    with contextlib.ExitStack() as opened:
        files = [
            (renderer(form), opened.enter_context(writing(options[form], f"--{form}")))
            for form in FORMATS
            if options[form]
        ]

        def write(report: Any) -> None:
            for render, put in files:
                put(render(report).encode())

        yield write


def command(case: str | None = None) -> str:
    """The command line that this is; or that of one case of the grid, which writes no report."""
    from parity.report.provenance import shell_line

    words = ["parity", *sys.argv[1:]]
    return shell_line(words if case is None else [*without_reports(words), "--case", case])


def without_reports(words: list[str]) -> list[str]:
    """The words without the options that write a file: `--json FILE` and `--json=FILE`."""
    from parity.report.pages import FORMATS

    writes = [f"--{name}" for name in (*FORMATS, "save-failure")]
    before = ["", *words]
    return [w for b, w in zip(before, words, strict=False) if b not in writes and w.partition("=")[0] not in writes]


def subject(model: str | None, options: dict[str, Any]) -> str:
    """What is checked against what."""
    if model and model.endswith(".toml"):
        return model
    unnamed = "the Keras here" if model and model.endswith(".npz") else "rnn_scratch"
    return f"{options['candidate'] or options['outputs'] or unnamed} against {model or 'the grid'}"


def failure(what: str, error: ParityError) -> Any:
    """The report on a question that could not be put."""
    from parity.report.data import CaseReport, Report
    from parity.report.provenance import environment

    case = CaseReport(what, "ERROR", notes=(str(error),))
    return Report((case,), environment=environment(), command=command())


def show(report: Any, verbose: bool) -> None:
    if verbose:
        show_tables(report)
    from parity.report import words

    say("\n".join([str(report), *words.worst_lines(report)]))


def show_tables(report: Any) -> None:
    """A row for every case, and for every layer of a model."""
    from rich.table import Table

    table = Table("case", "verdict", "proved", "worst", "Keras", "method")
    for case in report.cases:
        proved = "yes" if case.proved else "no"
        numbers = ("" if value is None else f"{value:.3g}" for value in (case.worst, case.keras_worst))
        table.add_row(cell(case.id), case.verdict, proved, *numbers, ", ".join(case.method))
    console().print(table)
    for case in report.cases:
        table = Table("layer", "kind", "verdict", "worst", "method", "", title=cell(case.id))
        for layer in case.layers:
            worst = "" if layer.worst is None else f"{layer.worst:.3g}"
            told = "its inputs already differed" if layer.inputs_differed else ""
            cells = (layer.name, layer.kind, layer.verdict, worst, ", ".join(layer.method), told)
            table.add_row(*map(cell, cells))
        if case.layers:
            console().print(table)


def quiet() -> None:
    """TensorFlow's and Keras's own messages do not reach the user of this command; a candidate's do."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(keras|tf_keras|tensorflow|torch|jax)\b")


def main() -> None:
    """The command `parity`: one line on standard error and status 2 for whatever is wrong with the question."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing half written stays behind
    try:
        status = cli.main(standalone_mode=False)
    except ParityError as error:
        status = complain(str(error))
    except click.ClickException as error:
        status = complain(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        status = complain("interrupted")
    except Exception:  # a defect of ours; Python's own status for it, 1, would say FAIL
        traceback.print_exc()
        status = complain("this is a defect of keras-parity; please report it with the lines above")
    except BaseException as error:  # a candidate's own
        status = complain(f"raised {type(error).__name__}: {error}")
    sys.exit(status)


def complain(message: str) -> int:
    say(f"ERROR  {' '.join(message.split())}", err=True)
    return 2


if __name__ == "__main__":
    main()
