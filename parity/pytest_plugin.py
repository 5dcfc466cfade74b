"""The pytest plugin: hooks and thin fixtures. Whatever is heavy is imported when a test first checks something."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from parity.errors import InputError, ParityError
from parity.options import NAMED, OPTIONS, check_mistake, checked, expect
from parity.report.pages import FORMATS, opened

if TYPE_CHECKING:
    from parity.pytest_check import AssertParity
    from parity.pytest_report import Run

RUN: "pytest.StashKey[Run]" = pytest.StashKey()
CHECK: "pytest.StashKey[AssertParity]" = pytest.StashKey()
FAILED: "pytest.StashKey[str]" = pytest.StashKey()


# --- the fixtures ---


@pytest.fixture
def assert_parity(request: pytest.FixtureRequest) -> "AssertParity":
    """`assert_parity(candidate, keras_layer, x=None, *, record=None, **options)`: parity.assert_parity with the run's
    options.

    keras_layer: what `parity.check` takes, a case of the grid, or a golden file beside the test. record: the Keras
    layer, or a function that returns it, from which a golden file that is missing is written under --parity-record, of
    x, input_shape, mask and initial_state. Returns the report. Raises ParityAssertionError with the whole report unless
    the verdict is PASS; skips the test of a case that the candidate has no parameters for. A test that takes the
    fixture and checks nothing fails.
    """
    from parity.pytest_check import AssertParity

    node, config = request.node, request.config
    check = AssertParity(node, run_options(config), _repeating(config, node), config.getoption("parity_record"))
    node.stash[CHECK] = config.stash[RUN].open = check
    return check


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    __tracebackhide__ = True
    result = yield
    check = pyfuncitem.stash.get(CHECK, None)
    if check is not None and check is pyfuncitem.funcargs.get("assert_parity") and not check.reports:
        pytest.fail("assert_parity: the test took it and checked nothing", pytrace=False)
    return result


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`parity_case`: the cases that @pytest.mark.parity_grid selects, one a test."""
    cases: list[Any] | None = None
    refused = ""
    try:
        cases = _cases_of(metafunc)
    except ParityError as error:
        refused = f"{metafunc.definition.nodeid}: parity_grid: {error}"
    if refused:  # out of the `except`, whose exception pytest would tell as well
        pytest.fail(refused, pytrace=False)
    if cases is not None:
        metafunc.parametrize("parity_case", cases, ids=[case.id for case in cases])


def _cases_of(metafunc: pytest.Metafunc) -> list[Any] | None:
    """The cases that the marker selects; None for a test that has to do with neither."""
    definition = metafunc.definition
    marker = definition.get_closest_marker("parity_grid")
    if "parity_case" not in metafunc.fixturenames:
        if any(mark.name == "parity_grid" for mark in definition.own_markers):  # a class's is for those that take it
            raise InputError("expected a test that takes parity_case; this one would be run once, with no case")
        return None
    if marker is None or marker.args:
        raise InputError("expected @pytest.mark.parity_grid(layer=..., units=[...]) on the test")
    from parity.cases.grid import AXES, grid

    expect(marker.kwargs, [*AXES, "case"], "")
    pattern = marker.kwargs.get("case")
    if not isinstance(pattern, str | None):
        raise InputError(f"case: expected a pattern of ids, as '*-relu-*'; received {pattern!r}")
    select = {name: _listed(value) for name, value in marker.kwargs.items() if name != "case"}
    return list(grid(select, pattern, run_options(metafunc.config).get("seed", 0)))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


# --- the options ---

REPORT, RECORD = "--parity-report", "--parity-record"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity", "parity with Keras")
    for option in OPTIONS:
        name = f"--parity-{option.flag}"
        if option.kind is bool:
            group.addoption(name, action="store_true", help=option.help)
        else:
            # no default: what the call says counts, unless somebody gave the option
            kind = str if option.kind is tuple else option.kind
            group.addoption(name, type=kind, default=None, metavar=option.metavar or "N", help=option.help)
    *suffixes, last = _forms()
    group.addoption(REPORT, metavar="FILE", help=f"Write a report there: {', '.join(suffixes)} or {last}.")
    group.addoption(RECORD, action="store_true", help="Write the golden files that are missing.")


def _forms() -> dict[str, str]:
    """The format that each suffix means."""
    return {FORMATS[name].suffix: name for name in sorted(FORMATS)}


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """A --parity-* that there is not: in one line, with the nearest that there is."""
    known = [f"--parity-{option.flag}" for option in OPTIONS]
    given = [word.partition("=")[0] for word in args if word.startswith("--parity-")]
    try:
        expect(given, [*known, REPORT, RECORD], "")
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def run_options(config: pytest.Config) -> dict[str, Any]:
    """The options of the run that were given."""
    given = {name: config.getoption(f"parity_{name}") for name in NAMED}
    return checked({name: value for name, value in given.items() if value is not None}, "--parity-")


# --- the run, whose report is written at its end ---


def pytest_configure(config: pytest.Config) -> None:
    from parity.pytest_report import Run

    config.addinivalue_line(
        "markers", "parity_grid(**axes): the cases of parity's grid, one a test, as the fixture parity_case"
    )
    config.stash[RUN] = Run(config)
    try:
        check_mistake(run_options(config).get("only_mistake"), "--parity-")
        if config.getoption("parity_report") and not hasattr(config, "workerinput"):
            _try_report(config, config.getoption("parity_report"))
    except ParityError as error:
        raise pytest.UsageError(str(error)) from None


def _try_report(config: pytest.Config, path: str) -> None:
    """What would keep the report from being written, found out before the tests run."""
    other = config.getoption("xmlpath", None)
    if other and Path(other).resolve() == Path(path).resolve():
        raise InputError(f"{REPORT}: {other}: expected a file of its own; it is that of --junitxml")
    suffix, forms = Path(path).suffix, _forms()
    if suffix not in forms:
        raise InputError(f"{REPORT}: {path}: expected a name that ends with {', '.join(forms)}")
    with opened(forms[suffix], path, REPORT):
        pass


def write_report(path: Path, report: Any) -> None:
    """The report, in the format that the suffix says."""
    with opened(_forms()[path.suffix], str(path), REPORT) as write:
        write(report)


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput"):  # one that pytest-xdist started: it only sends
        return
    from parity.pytest_report import Collector

    run = config.stash[RUN]
    config.pluginmanager.register(Collector(run, write_report), "parity-collector")
    if run.path and not config.option.collectonly:
        run.drop_old()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """The reports go with the test's own one, which xdist carries to the process that writes them."""
    report = yield
    if "assert_parity" not in getattr(item, "fixturenames", ()):
        return report
    from parity.pytest_report import last_line, sent

    if call.when == "setup" and FAILED in item.stash:  # run once more by a plugin that does so
        del item.stash[FAILED]
    if report.failed:
        item.stash[FAILED] = last_line(report)
    if call.when == "teardown":
        check = item.stash.get(CHECK, None)
        report.parity = sent(check.reports if check else [], item.stash.get(FAILED, None))
        report.parity_read = sorted(check.read) if check else []
    return report


def _repeating(config: pytest.Config, node: pytest.Item) -> str:
    """The command line that repeats this test alone, from where pytest was started."""
    from parity.report.provenance import shell_line

    flags = []
    for name, value in run_options(config).items():
        if value is not False:
            flags.append(f"--parity-{NAMED[name].flag}" + ("" if value is True else f"={NAMED[name].written(value)}"))
    file, _, _ = node.nodeid.partition("::")
    path = os.path.relpath(node.path, config.invocation_params.dir)
    return shell_line(["pytest", path + node.nodeid[len(file) :], *flags])
