"""The report on a run of pytest: what its tests have checked, gathered in the process that writes it."""

import contextlib
import os
import pickle
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from parity.pytest_check import AssertParity
    from parity.report.data import Report


class Run:
    """What a run has checked so far: (the test, its report). open: the check of the test that is running."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.path: str | None = config.getoption("parity_report")
        self.file = config.invocation_params.dir / (self.path or "")  # wherever a test has gone to
        self.made: list[tuple[str, Report]] = []
        self.crashed: list[tuple[str, str]] = []
        self.early = ""
        self.tests = 0
        self.read: set[str] = set()
        self.open: AssertParity | None = None

    def drop_old(self) -> None:
        """A run that dies leaves no report, not an old one. Any other file stays: a test may be about to read it."""
        with contextlib.suppress(OSError):
            if stat.S_ISREG(self.file.stat().st_mode) and b"keras-parity" in self.file.read_bytes():
                os.truncate(self.file, 0)

    @property
    def refused(self) -> str:
        """Why the report is not written; "" where it is."""
        if os.path.realpath(self.file) in self.read:
            return f"{self.path}: not written: it is a file that the tests read; name another one"
        return ""

    def report(self) -> "Report":
        from dataclasses import replace

        from parity.report.merging import merged
        from parity.report.provenance import shell_line, unanswered

        made = [*self.made, *((name, unanswered("the test", why)) for name, why in self.crashed)]
        report = merged(made or [("this run", unanswered("pytest", "nothing was checked"))], self.early)
        command = shell_line(["pytest", *map(str, self.config.invocation_params.args)])
        return replace(report, command=command, subject=f"the tests in {self.config.rootpath.name}")


# --- in the process of the test ---


def sent(made: Sequence["Report"], failed: str | None) -> bytes:
    """What a test has to say in the run's report. One that passed, or failed as it should, expected whatever was no
    PASS; one that failed and has only such is an ERROR. failed: the last line of why, None where it did not."""
    harmless = [report for report in made if report.verdict == "PASS" or not report.cases]
    if failed is None:
        return pickle.dumps(harmless)
    if len(harmless) < len(made):
        return pickle.dumps(list(made))
    from parity.report.provenance import unanswered

    return pickle.dumps([*made, unanswered("the test", f"failed without a verdict: {failed}")])


def last_line(report: pytest.TestReport) -> str:
    """In a line, why a test failed: of an exception its message, which may go on; else the last of what is told."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text: str = crash.message if crash else report.longreprtext
    lines = text.strip().splitlines()
    if not lines:
        return report.when or ""
    return lines[0 if crash else -1]


# --- in the process that writes ---


class Collector:
    """A plugin of the process that writes: one that pytest-xdist started only sends."""

    def __init__(self, run: Run, write: Callable[[Path, "Report"], None]) -> None:
        self.run, self.write = run, write

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.run.early = f"{report.nodeid or 'the tests'} could not be collected"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        crashed = report.when not in ("setup", "call", "teardown")  # xdist's word on a process that is gone
        if crashed and report.failed:
            self.run.crashed.append((report.nodeid, last_line(report)))
        self.run.tests += crashed or report.when == "teardown"
        made: bytes | None = getattr(report, "parity", None)
        if made is not None:
            self.run.made += [(report.nodeid, found) for found in pickle.loads(made)]
            self.run.read |= set(getattr(report, "parity_read", ()))
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
            if self.run.refused:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
            else:
                self.write(self.run.file, self.run.report())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        run = self.run
        if not (run.made or run.path):
            return
        from parity.report import words
        from parity.terminal import printable

        checks = sum(bool(made.cases) for _, made in run.made)
        early = f"; INCOMPLETE: {run.early}" if run.early else ""
        where = f"; report in {run.path}" if run.path else ""
        where = f"; {run.refused}" if run.path and run.refused else where
        told = f"parity: {checks} checks, cases: {words.counts(run.report())}{early}{where}"
        terminalreporter.write_line(printable(told))
