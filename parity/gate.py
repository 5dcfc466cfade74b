"""The gate: every check that a repository has, in one file.

[[check]]
name = "lstm port"              # if not the candidate and the model
model = "golden/lstm.npz"       # or a saved Keras model; paths are relative to the file
candidate = "port.py:lstm"      # or outputs = "mine.npy"
strict = true                   # and any other option of `parity check`
[[check.allow]]                 # a blind spot that is known, and why it may stay
mistake = "bias-missing"
reason = "the model has no bias"
"""

import contextlib
import math
import os
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from parity.disk import expect_file
from parity.errors import InputError, ParityError
from parity.golden import is_golden
from parity.options import NAMED, check_mistake, checked, expect
from parity.overwriting import files_of
from parity.pool import Lost, shared
from parity.report.data import Report
from parity.report.merging import merged
from parity.report.provenance import shell_line, unanswered

_KEYS = ("name", "model", "candidate", "outputs", "inputs", "allow", *NAMED)
_FEW = 3
"""So many checks of golden files are done by the time that another process has started."""

QUESTIONS = 50
"""`timeout` is of one question, which a Python function cannot be stopped in; its whole check is, after so many."""

_INTERRUPTED = "did not run: interrupted"


@dataclass(frozen=True)
class Check:
    """One check of the file. allow: the reason for each blind spot that may stay, by the mistake's id."""

    name: str
    folder: str
    model: str
    candidate: str | None = None
    outputs: str | None = None
    inputs: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    allow: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command line that repeats it alone."""
        words = ["parity", "check", self.model]
        for name in ("candidate", "inputs", "outputs"):
            if value := getattr(self, name):
                words += [f"--{name}", value]
        for name, value in self.options.items():
            if value is not False:
                words.append(f"--{NAMED[name].flag}")
            if not isinstance(value, bool):
                words.append(NAMED[name].written(value))
        there = os.path.samefile(self.folder, ".")
        folder = "" if there else f"cd {shlex.quote(os.path.relpath(self.folder))} && "
        return folder + shell_line(words)

    @property
    def files(self) -> list[str]:
        """Those that it reads, whatever folder the process is in."""
        with contextlib.chdir(self.folder):
            named = (self.model, self.candidate, self.outputs, self.inputs)
            return [os.path.abspath(path) for given in named for path in files_of(given)]

    @property
    def golden(self) -> bool:
        """Whether it is against a golden file."""
        return is_golden(self.model)


# --- the file ---


def read(path: str) -> list[Check]:
    """The checks of a file. InputError, in one line that says where, for anything in it that makes no sense."""
    tables = _tables(path)
    folder = os.path.dirname(os.path.abspath(path))
    checks = [_check(table, f"{path}: check {n}: ", folder) for n, table in enumerate(tables, 1)]
    for name, number in Counter(check.name for check in checks).items():
        if number > 1:
            raise InputError(f"{path}: name: expected a name of its own for each check; {name!r} stands twice")
    return checks


def _tables(path: str) -> list[dict[str, Any]]:
    try:
        expect_file(path)
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of an integer's length
        raise InputError(f"{path}: expected TOML: {error}") from None
    expect(found, ["check"], f"{path}: ")
    tables = _listed(found.get("check"))
    if not tables:
        raise InputError(f"{path}: expected at least one [[check]]")
    return tables


def _listed(value: Any) -> list[dict[str, Any]] | None:
    """An array of tables, as [[...]] makes it; None for anything else."""
    if isinstance(value, list) and all(isinstance(table, dict) for table in value):
        return value
    return None


def _check(table: Mapping[str, Any], where: str, folder: str) -> Check:
    expect(table, _KEYS, where)
    name, model, candidate, outputs, inputs = (
        _text(table, key, where) for key in ("name", "model", "candidate", "outputs", "inputs")
    )
    if not model:
        raise InputError(f"{where}model: expected a golden file or a saved model; there is none")
    if candidate and outputs:
        raise InputError(f"{where}candidate and outputs: expected one of them")
    options = checked(table, where)
    check_mistake(options.get("only_mistake"), where)
    name = name or f"{model} {candidate or outputs or ''}".strip()
    return Check(name, folder, model, candidate, outputs, inputs, options, _allowed(table, where))


def _text(table: Mapping[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise InputError(f"{where}{key}: expected a text; received {value!r}")
    return value


def _allowed(table: Mapping[str, Any], where: str) -> dict[str, str]:
    """The reason for each blind spot that may stay."""
    from parity.mistakes.catalogue import MISTAKES

    entries = _listed(table.get("allow", []))
    if entries is None:
        raise InputError(f"{where}allow: expected [[check.allow]] with mistake and reason")
    where = f"{where}allow: "
    found = {}
    for entry in entries:
        expect(entry, ("mistake", "reason"), where)
        mistake, reason = _text(entry, "mistake", where), _text(entry, "reason", where)
        if not mistake or not reason or not reason.strip():
            raise InputError(f"{where}expected a mistake and the reason why it may stay unseen")
        expect([mistake], MISTAKES, where)
        found[mistake] = reason
    return found


# --- the run ---


def run(checks: Sequence[Check], done: Callable[[str], None] = lambda name: None) -> list[tuple[str, Report]]:
    """Each check's name and report, in the file's order. done: called with each name as it comes. One that did not run
    is an ERROR; an interruption keeps what there is, and every check that it left out is an ERROR as well."""
    found: dict[str, Report] = {}
    with contextlib.suppress(KeyboardInterrupt):
        for check, report in shared(judge, checks, processes(checks), limit):
            found[check.name] = _error(check, f"check: {report.why}") if isinstance(report, Lost) else report
            done(check.name)
    reports = []
    for check in checks:
        report = found.get(check.name) or _error(check, _INTERRUPTED)
        reports.append((check.name, replace(report, command=check.command)))
    return reports


def processes(checks: Sequence[Check]) -> int:
    """One for each core, but not more than there is work for."""
    light = all(check.golden for check in checks)
    return min(math.ceil(len(checks) / (_FEW if light else 1)), os.cpu_count() or 1)


def limit(check: Check) -> float:
    """Seconds for a whole check. Programs and graphs have theirs for each question."""
    candidate, seconds = check.candidate or "", check.options.get("timeout")
    is_function = ":" in candidate and not candidate.startswith("cmd:")
    return QUESTIONS * float(seconds) if is_function and seconds else math.inf


def judge(check: Check) -> Report:
    """One check, in the file's folder. An error of the question is a report, too."""
    try:
        with contextlib.chdir(check.folder):
            return _without_allowed(check, _ask(check))
    except ParityError as failed:
        return _error(check, str(failed))


def _ask(check: Check) -> Report:
    from parity import api
    from parity.candidates.functions import scratch
    from parity.disk import load_array, load_outputs

    if not os.path.exists(check.model):
        raise InputError(f"{check.model}: no such file")
    if check.golden:
        if check.inputs:
            raise InputError(f"inputs: {check.model} has its own; expected none beside it")
        outputs = load_outputs(check.outputs)
        return api.check_file(check.candidate if outputs is None else outputs, check.model, **check.options)
    y = load_array("outputs", check.outputs)
    candidate = (check.candidate or scratch) if y is None else y
    return api.check(candidate, check.model, load_array("inputs", check.inputs), **check.options)


def _without_allowed(check: Check, report: Report) -> Report:
    """The report without the blind spots that may stay, which are told; and with those told that did not occur."""
    known = report.known
    if report.verdict in ("PASS", "INCONCLUSIVE"):
        known += tuple(_allowance(report, mistake, reason) for mistake, reason in check.allow.items())
    blind = tuple(blind for blind in report.blind if blind.same or blind.id not in check.allow)
    return replace(report, blind=blind, known=known, failure=None)


def _allowance(report: Report, mistake: str, reason: str) -> str:
    """What became of a blind spot that may stay."""
    if any(blind.id == mistake for blind in report.not_visible):
        return f"allowed not to be visible: {mistake} ({reason})"
    if mistake in report.visible:
        return f"allowed, but visible here: {mistake}; take it out of the file"
    if any(blind.id == mistake for blind in report.no_difference):
        return f"allowed, but no difference with these weights: {mistake}; it needs no allowance"
    return f"allowed, but not looked for here: {mistake}; it does not apply to this layer, or to what was asked"


def _error(check: Check, what: str) -> Report:
    return unanswered(check.model, what)


def together(reports: Sequence[tuple[str, Report]]) -> Report:
    """All of them in one, which says so where the run was interrupted."""
    left = 0
    for _, report in reports:
        left += sum(_INTERRUPTED in case.notes for case in report.cases)
    return merged(reports, incomplete=f"interrupted: {left} of {len(reports)} checks did not run" if left else "")
