"""The pytest plugin: hooks and thin fixtures. Whatever is heavy is imported when a test first checks something."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from parity.errors import InputError, ParityError
from parity.options import NAMED, OPTIONS, checked, expect

RUN = pytest.StashKey["Run"]()
MADE = pytest.StashKey[list[Any]]()


class Run:
    """What a run has checked so far: (the test, its report), in the process that writes the reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.path: str | None = config.getoption("parity_report")
        self.made: list[tuple[str, Any]] = []
        self.interrupted = False

    def report(self) -> Any:
        from parity.report import merged

        early = f"the run was interrupted after {len(self.made)} checks" if self.interrupted else ""
        return merged(self.made, incomplete=early)


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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "parity_grid(**axes): the cases of parity's grid, one a test, as the fixture parity_case"
    )
    config.stash[RUN] = Run(config)
    try:
        run_options(config)
        if config.getoption("parity_report") and not hasattr(config, "workerinput"):
            report_writer(config.getoption("parity_report"), try_only=True)
    except ParityError as error:
        raise pytest.UsageError(str(error)) from None


SUFFIXES = {".html": "html", ".json": "json", ".xml": "junit", ".md": "markdown"}


def report_writer(path: str, report: Any = None, try_only: bool = False) -> None:
    """Write the report in the format that the suffix says; or find out what would keep one from it."""
    from parity.files import writing
    from parity.pages import renderer

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
    if "parity_case" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("parity_grid")
    where = f"{metafunc.definition.nodeid}: parity_grid"
    if marker is None or marker.args:
        raise pytest.UsageError(f"{where}: expected @pytest.mark.parity_grid(layer=..., units=[...]) on the test")
    from parity.cases import AXES, grid

    try:
        expect(marker.kwargs, [*AXES, "case"], f"{where}: ")
        select = {name: listed(value) for name, value in marker.kwargs.items() if name != "case"}
        cases = grid(select, marker.kwargs.get("case"), run_options(metafunc.config).get("seed", 0))
    except ParityError as error:
        raise pytest.UsageError(f"{where}: {error}" if where not in str(error) else str(error)) from None
    metafunc.parametrize("parity_case", cases, ids=[case.id for case in cases])


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
        --parity-record. Raises ParityAssertionError with the whole report unless the verdict is PASS."""
        __tracebackhide__ = True
        from dataclasses import replace

        from parity.api import ParityAssertionError

        report = self.judged(candidate, keras_layer, x, record, given)
        if isinstance(report, ParityError):  # not raised here: its own frames say nothing to the user
            self.reports.append(refusal(report))
            pytest.fail(f"ERROR  {report}", pytrace=False)
        report = replace(report, command=self.command(), failure=None)
        self.reports.append(report)
        if report.verdict != "PASS":
            raise ParityAssertionError(report)
        return report

    def judged(self, *arguments: Any) -> Any:
        try:
            return self.judge(*arguments)
        except ParityError as error:
            return error

    def judge(self, candidate: Any, keras_layer: Any, x: Any, record: Any, given: Mapping[str, Any]) -> Any:
        from parity import api
        from parity.cases import Case

        inputs = ("input_shape", "mask", "initial_state")
        expect(given, [*inputs, "record", *NAMED], "assert_parity: ")
        options = {**run_options(self.config), **checked(given, "assert_parity: ")}
        if isinstance(keras_layer, Case):
            options.pop("timeout", None)
            return api.check_grid(candidate, [keras_layer], **options)
        own = {name: given[name] for name in inputs if name in given}
        if isinstance(keras_layer, str | Path) and str(keras_layer).endswith(".npz"):
            path = self.golden(Path(keras_layer), record, own | {"seed": options.get("seed", 0)})
            return api.check_file(candidate, str(path), **options)
        if record is not None:
            raise InputError("assert_parity: record: expected a golden file (.npz) as the second argument with it")
        return api.check(candidate, keras_layer, x, **own, **options)

    def golden(self, path: Path, record: Any, options: Mapping[str, Any]) -> Path:
        """The golden file, beside the test unless it is only in the current folder; written if that was asked for."""
        beside = self.node.path.parent / path
        if beside.exists() or not path.exists():
            path = beside
        if path.exists():
            return path
        if not self.config.getoption("parity_record"):
            raise InputError(
                f"{path}: no such golden file; `parity record MODEL -o {path}`, or --parity-record writes it"
            )
        if record is None:
            raise InputError(
                f"{path}: no such golden file; --parity-record needs record=, the Keras layer, to write it"
            )
        from parity import golden

        path.parent.mkdir(parents=True, exist_ok=True)
        golden.record(record if not is_function(record) else record(), str(path), **options)
        return path

    def command(self) -> str:
        import shlex

        given = run_options(self.config)
        flags = [
            f"--parity-{NAMED[name].flag}" + ("" if value is True else f"={value}")
            for name, value in given.items()
            if value is not False
        ]
        return shlex.join(["pytest", self.node.nodeid, *flags])


def is_function(value: Any) -> bool:
    return callable(value) and not hasattr(value, "get_weights")


def refusal(error: ParityError) -> Any:
    from parity.report import CaseReport, Report, environment

    return Report((CaseReport("assert_parity", "ERROR", notes=(str(error),)),), environment=environment())


@pytest.fixture
def assert_parity(request: pytest.FixtureRequest) -> Iterator[AssertParity]:
    """`assert_parity(candidate, keras_layer, x=None, **options)`: parity.assert_parity with the run's options."""
    check = AssertParity(request)
    yield check
    request.node.stash[MADE] = check.reports


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
    if call.when == "teardown" and MADE in item.stash:
        import pickle

        report.parity = pickle.dumps(item.stash[MADE])
    return report


class Collector:
    """Of the process that writes: one that pytest-xdist started only sends."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        sent = getattr(report, "parity", None)
        if sent is not None:
            import pickle

            self.run.made += [(report.nodeid, made) for made in pickle.loads(sent)]

    def pytest_keyboard_interrupt(self) -> None:
        self.run.interrupted = True

    def pytest_sessionfinish(self) -> None:
        if self.run.path and (self.run.made or self.run.interrupted):
            report_writer(self.run.path, self.run.report())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.run.made:
            return
        report = self.run.report()
        counts = ", ".join(f"{number} {name}" for name, number in report.counts.items() if name != "cases" and number)
        early = "; INCOMPLETE: the run was interrupted" if self.run.interrupted else ""
        where = f"; report in {self.run.path}" if self.run.path else ""
        terminalreporter.write_line(f"parity: {len(self.run.made)} checks, cases: {counts}{early}{where}")


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(Collector(session.config.stash[RUN]), "parity-collector")
