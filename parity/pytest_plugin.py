"""The pytest plugin: hooks and thin fixtures. Whatever is heavy is imported when a test first checks something."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from parity.errors import InputError, ParityError
from parity.options import NAMED, OPTIONS, check_mistake, checked, expect

RUN = pytest.StashKey["Run"]()
CHECK = pytest.StashKey["AssertParity"]()
FAILED = pytest.StashKey[str]()


class Run:
    """What a run has checked so far: (the test, its report), in the process that writes the reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.path: str | None = config.getoption("parity_report")
        self.file = config.invocation_params.dir / (self.path or "")  # wherever a test has gone to
        self.made: list[tuple[str, Any]] = []
        self.crashed: list[tuple[str, str]] = []
        self.early = ""
        self.tests = 0
        self.open: AssertParity | None = None

    def report(self) -> Any:
        from dataclasses import replace

        from parity.report.merging import merged
        from parity.report.provenance import shell_line

        made = [*self.made, *((name, problem("the test", why)) for name, why in self.crashed)]
        report = merged(made or [("this run", problem("pytest", "nothing was checked"))], self.early)
        command = shell_line(["pytest", *map(str, self.config.invocation_params.args)])
        return replace(report, command=command, subject=f"the tests in {self.config.rootpath.name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity", "parity with Keras")
    for option in OPTIONS:
        name, default = f"--parity-{option.flag}", None
        if option.kind is bool:
            group.addoption(name, action="store_true", help=option.help)
        else:
            group.addoption(name, type=option.kind, default=default, metavar=option.metavar or "N", help=option.help)
    group.addoption("--parity-report", metavar="FILE", help="Write a report there: .html, .json, .xml or .md.")
    group.addoption("--parity-record", action="store_true", help="Write the golden files that are missing.")


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """A --parity-* that there is not: in one line, with the nearest that there is."""
    known = [f"--parity-{option.flag}" for option in OPTIONS] + ["--parity-report", "--parity-record"]
    given = [word.partition("=")[0] for word in args if word.startswith("--parity-")]
    try:
        expect(given, known, "")
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "parity_grid(**axes): the cases of parity's grid, one a test, as the fixture parity_case"
    )
    config.stash[RUN] = Run(config)
    try:
        check_mistake(run_options(config).get("only_mistake"), "--parity-")
        if config.getoption("parity_report") and not hasattr(config, "workerinput"):
            refuse_path_of_others(config)
            report_writer(config.getoption("parity_report"), try_only=True)
    except ParityError as error:
        raise pytest.UsageError(str(error)) from None


def refuse_path_of_others(config: pytest.Config) -> None:
    other = config.getoption("xmlpath", None)
    if other and Path(other).resolve() == Path(config.getoption("parity_report")).resolve():
        raise InputError(f"--parity-report: {other}: expected a file of its own; it is that of --junitxml")


SUFFIXES = {".html": "html", ".json": "json", ".xml": "junit", ".md": "markdown"}


def report_writer(path: str, report: Any = None, try_only: bool = False) -> None:
    """Write the report in the format that the suffix says; or find out what would keep one from it."""
    from parity.disk import writing
    from parity.report.pages import renderer

    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"--parity-report: {path}: expected a name that ends with {', '.join(SUFFIXES)}")
    render = renderer(SUFFIXES[suffix])
    with writing(path, "--parity-report") as write:
        if not try_only:
            write(render(report).encode())


def run_options(config: pytest.Config) -> dict[str, Any]:
    """The options of the run that were given."""
    given = {name: config.getoption(f"parity_{name}") for name in NAMED}
    return checked({name: value for name, value in given.items() if value is not None}, "--parity-")


# --- the grid ---


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases: list[Any] | None = None
    refused = ""
    try:
        cases = cases_of(metafunc)
    except ParityError as error:
        refused = f"{metafunc.definition.nodeid}: parity_grid: {error}"
    if refused:  # out of the `except`, whose exception pytest would tell as well
        pytest.fail(refused, pytrace=False)
    if cases is not None:
        metafunc.parametrize("parity_case", cases, ids=[case.id for case in cases])


def cases_of(metafunc: pytest.Metafunc) -> list[Any] | None:
    """The cases that the marker selects; None for a test that has to do with neither."""
    definition = metafunc.definition
    marker = definition.get_closest_marker("parity_grid")
    if "parity_case" not in metafunc.fixturenames:
        if any(mark.name == "parity_grid" for mark in definition.own_markers):  # a class's is for those that take it
            raise InputError("expected a test that takes parity_case; this one would be run once, with no case")
        return None
    if marker is None or marker.args:
        raise InputError("expected @pytest.mark.parity_grid(layer=..., units=[...]) on the test")
    from parity.cases.case import AXES, grid

    expect(marker.kwargs, [*AXES, "case"], "")
    pattern = marker.kwargs.get("case")
    if not isinstance(pattern, str | None):
        raise InputError(f"case: expected a pattern of ids, as '*-relu-*'; received {pattern!r}")
    select = {name: listed(value) for name, value in marker.kwargs.items() if name != "case"}
    return list(grid(select, pattern, run_options(metafunc.config).get("seed", 0)))


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


# --- the check ---


class AssertParity:
    """The fixture: `parity.assert_parity` with the run's options, whose reports go into the run's."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.node, self.config = request.node, request.config
        self.reports: list[Any] = []

    def __call__(self, candidate: Any, keras_layer: Any, x: Any = None, *, record: Any = None, **given: Any) -> Any:
        """keras_layer: what `parity.check` takes, a case of the grid, or a golden file beside the test. record: the
        Keras layer, or a function that returns it, from which a golden file that is missing is written under
        --parity-record, of x, input_shape, mask and initial_state. Raises ParityAssertionError with the whole report
        unless the verdict is PASS; skips the test of a case that the candidate has no parameters for."""
        __tracebackhide__ = True
        from dataclasses import replace

        from parity.api import ParityAssertionError
        from parity.terminal import one_line

        report, error = self.judged(candidate, keras_layer, x, record, given)
        report = replace(report, command=self.command(), failure=None)
        self.reports.append(report)
        if error is not None:  # not raised here: its own frames say nothing to the user
            pytest.fail(f"ERROR  {one_line(error)}\nagain: {report.command}", pytrace=False)
        if not report.cases:
            pytest.skip(f"not asked: {report.not_asked[0]}")
        if report.verdict != "PASS":
            raise ParityAssertionError(report)
        return report

    def judged(self, *arguments: Any) -> tuple[Any, ParityError | None]:
        try:
            return self.judge(*arguments), None
        except ParityError as error:
            return problem("assert_parity", str(error)), error

    def judge(self, candidate: Any, keras_layer: Any, x: Any, record: Any, given: Mapping[str, Any]) -> Any:
        from parity import api
        from parity.cases.case import Case

        expect(given, ["input_shape", "mask", "initial_state", "record", *NAMED], "assert_parity: ")
        options = {**run_options(self.config), **checked(given, "assert_parity: ")}
        own = {"x": x, **{name: value for name, value in given.items() if name not in NAMED}}
        if isinstance(keras_layer, Case):
            refuse({**own, "record": record}, "a case of the grid")
            return self.judge_case(candidate, keras_layer, options)
        if isinstance(keras_layer, str | Path) and str(keras_layer).endswith(".npz"):
            if record is None:
                refuse(own, str(keras_layer))
            elif not callable(record):
                kind = type(record).__name__
                raise InputError(f"record: expected a Keras layer, or a function that returns one; received {kind}")
            path = self.golden(Path(keras_layer), record, own | {"seed": options.get("seed", 0)})
            return api.check_file(candidate, str(path), **options)
        if record is not None:
            raise InputError("assert_parity: record: expected a golden file (.npz) as the second argument with it")
        return api.check(candidate, keras_layer, **own, **options)

    def judge_case(self, candidate: Any, case: Any, options: Mapping[str, Any]) -> Any:
        """A report without a case where the candidate lacks the parameters for it."""
        from parity import api
        from parity.checking.asking import needs
        from parity.given.candidate import as_candidate
        from parity.report.data import Report
        from parity.report.provenance import environment

        takes = as_candidate(candidate).takes
        if "layer" in takes and (missing := sorted(needs(case) - takes)):
            told = f"a case with {' and '.join(missing)}: the candidate has no such parameter"
            return Report((), (told,), environment())
        return api.check_grid(candidate, [case], **options)

    def golden(self, path: Path, record: Any, options: Mapping[str, Any]) -> Path:
        """The golden file, beside the test unless it is only in the current folder; written if that was asked for."""
        beside = self.node.path.parent / path
        if beside.exists() or not path.exists():
            path = beside
        if path.exists():
            return path
        if record is None:
            raise InputError(
                f"{path}: no such golden file; `parity record MODEL -o {path}` writes it, or --parity-record where the "
                "call has record=, the Keras layer"
            )
        if not self.config.getoption("parity_record"):
            raise InputError(f"{path}: no such golden file; --parity-record writes it")
        from parity import recording as golden

        path.parent.mkdir(parents=True, exist_ok=True)
        golden.record(record if not is_function(record) else record(), str(path), **options)
        return path

    def command(self) -> str:
        """The line that repeats this test alone, from where pytest was started."""
        import os

        from parity.report.provenance import shell_line

        given = run_options(self.config)
        flags = [
            f"--parity-{NAMED[name].flag}" + ("" if value is True else f"={value}")
            for name, value in given.items()
            if value is not False
        ]
        file = os.path.relpath(self.node.path, self.config.invocation_params.dir)
        return shell_line(["pytest", file + self.node.nodeid[len(self.node.nodeid.partition("::")[0]) :], *flags])


def refuse(given: Mapping[str, Any], what: str) -> None:
    """InputError for what has no place beside what has its own."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"assert_parity: {name}: {what} has its own inputs; expected none beside it")


def is_function(value: Any) -> bool:
    return callable(value) and not hasattr(value, "get_weights")


def problem(what: str, why: str) -> Any:
    """The report on what came to no verdict."""
    from parity.report.data import CaseReport, Report
    from parity.report.provenance import environment

    return Report((CaseReport(what, "ERROR", notes=(why,)),), environment=environment())


@pytest.fixture
def assert_parity(request: pytest.FixtureRequest) -> AssertParity:
    """`assert_parity(candidate, keras_layer, x=None, **options)`: parity.assert_parity with the run's options."""
    check = AssertParity(request)
    request.node.stash[CHECK] = request.config.stash[RUN].open = check
    return check


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    __tracebackhide__ = True
    result = yield
    check = pyfuncitem.funcargs.get("assert_parity")
    if isinstance(check, AssertParity) and not check.reports:
        pytest.fail("assert_parity: the test took it and checked nothing", pytrace=False)
    return result


# --- the run's report ---


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """The reports go with the test's own one, which xdist carries to the process that writes them."""
    report = yield
    if "assert_parity" in getattr(item, "fixturenames", ()):
        if call.when == "setup" and FAILED in item.stash:  # run once more by a plugin that does so
            del item.stash[FAILED]
        if report.failed:
            item.stash[FAILED] = last_line(report)
        if call.when == "teardown":
            import pickle

            report.parity = pickle.dumps(sent(item))
    return report


def sent(item: pytest.Item) -> list[Any]:
    """What a test has to say in the run's report. One that passed, or failed as it should, expected whatever was no
    PASS; one that failed and has only such is an ERROR."""
    check = item.stash.get(CHECK, None)
    made = check.reports if check else []
    if FAILED not in item.stash:
        return [report for report in made if report.verdict == "PASS" or not report.cases]
    if any(report.cases and report.verdict != "PASS" for report in made):
        return made
    return [*made, problem("the test", f"failed without a verdict: {item.stash[FAILED]}")]


def last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (crash.message if crash else report.longreprtext).strip().splitlines()
    return lines[0 if crash else -1] if lines else report.when or ""


class Collector:
    """Of the process that writes: one that pytest-xdist started only sends."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.run.early = f"{report.nodeid or 'the tests'} could not be collected"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        crashed = report.when not in ("setup", "call", "teardown")  # xdist's word on a process that is gone
        if crashed and report.failed:
            self.run.crashed.append((report.nodeid, last_line(report)))
        self.run.tests += crashed or report.when == "teardown"
        made = getattr(report, "parity", None)
        if made is not None:
            import pickle

            self.run.made += [(report.nodeid, found) for found in pickle.loads(made)]
            self.run.open = None

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.run.early = self.run.early or f"the run was interrupted: {excinfo.typename} {excinfo.value}".rstrip(": ")
        if self.run.open:  # in the middle of a test: what it had checked
            self.run.made += [(self.run.open.node.nodeid, report) for report in self.run.open.reports]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        stopped = session.shouldfail or session.shouldstop
        if stopped and self.run.tests < session.testscollected:
            self.run.early = self.run.early or f"the run was stopped: {stopped}"
        if self.run.path and not session.config.option.collectonly:
            report_writer(str(self.run.file), self.run.report())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        run = self.run
        if not (run.made or run.path):
            return
        from parity.terminal import printable

        report = run.report()
        counts = ", ".join(f"{number} {name}" for name, number in report.counts.items() if name != "cases" and number)
        early = f"; INCOMPLETE: {run.early}" if run.early else ""
        where = f"; report in {run.path}" if run.path else ""
        checks = sum(bool(made.cases) for _, made in run.made)
        terminalreporter.write_line(printable(f"parity: {checks} checks, cases: {counts}{early}{where}"))


def pytest_sessionstart(session: pytest.Session) -> None:
    run = session.config.stash[RUN]
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(Collector(run), "parity-collector")
        if run.path and not session.config.option.collectonly:
            run.file.unlink(missing_ok=True)  # a run that dies leaves no report, not an old one
