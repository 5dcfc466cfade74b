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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from parity.errors import InputError, ParityError
from parity.options import NAMED, check_mistake, checked, expect
from parity.pool import Lost, shared
from parity.report.data import CaseReport, Report
from parity.report.merging import merged
from parity.report.provenance import environment, shell_line

KEYS = ("name", "model", "candidate", "outputs", "inputs", "allow", *NAMED)
FEW = 3
"""So many checks of golden files are done by the time that another process has started."""

QUESTIONS = 50
"""`timeout` is of one question, which a Python function cannot be stopped in; its whole check is, after so many."""


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
        given = {"candidate": self.candidate, "inputs": self.inputs, "outputs": self.outputs}
        words = [word for name, value in given.items() if value for word in (f"--{name}", value)]
        for name, value in self.options.items():
            if value is not False:
                words += [f"--{NAMED[name].flag}", *([] if value is True else [str(value)])]
        folder = "" if os.path.samefile(self.folder, ".") else f"cd {shlex.quote(os.path.relpath(self.folder))} && "
        return folder + shell_line(["parity", "check", self.model, *words])


# --- the file ---


def read(path: str) -> list[Check]:
    """The checks of a file. InputError, in one line that says where, for anything in it that makes no sense."""
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected TOML: {error}") from None
    expect(found, ["check"], f"{path}: ")
    tables = found.get("check")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: expected at least one [[check]]")
    checks = [
        one(table, f"{path}: check {n + 1}: ", os.path.dirname(os.path.abspath(path))) for n, table in enumerate(tables)
    ]
    names = [check.name for check in checks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: name: expected a name of its own for each check; {name!r} stands twice")
    return checks


def one(table: Mapping[str, Any], where: str, folder: str) -> Check:
    expect(table, KEYS, where)
    texts = {key: text(table, key, where) for key in ("name", "model", "candidate", "outputs", "inputs")}
    if not texts["model"]:
        raise InputError(f"{where}model: expected a golden file or a saved model; there is none")
    if texts["candidate"] and texts["outputs"]:
        raise InputError(f"{where}candidate and outputs: expected one of them")
    options = checked(table, where)
    check_mistake(options.get("only_mistake"), where)
    name = texts.pop("name") or f"{texts['model']} {texts['candidate'] or texts['outputs'] or ''}".strip()
    return Check(name, folder, **texts, options=options, allow=allowed(table, where))  # type: ignore[arg-type]


def text(table: Mapping[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise InputError(f"{where}{key}: expected a text; received {value!r}")
    return value


def allowed(table: Mapping[str, Any], where: str) -> dict[str, str]:
    from parity.mistakes.catalogue import MISTAKES

    found = {}
    entries = table.get("allow", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{where}allow: expected [[check.allow]] with mistake and reason")
    for entry in entries:
        expect(entry, ("mistake", "reason"), f"{where}allow: ")
        mistake, reason = (text(entry, key, f"{where}allow: ") for key in ("mistake", "reason"))
        if not mistake or not reason or not reason.strip():
            raise InputError(f"{where}allow: expected a mistake and the reason why it may stay unseen")
        expect([mistake], MISTAKES, f"{where}allow: ")
        found[mistake] = reason
    return found


# --- the run ---


def run(checks: Sequence[Check], done: Callable[[str], None] = lambda name: None) -> list[tuple[str, Report]]:
    """Each check's name and report, in the file's order. done: called with each name as it comes. One that did not run
    is an ERROR; an interruption keeps what there is, and every check that it left out is an ERROR as well."""
    reports: dict[str, Report] = {}
    with contextlib.suppress(KeyboardInterrupt):
        for check, found in shared(judge, checks, processes(checks), limit):
            reports[check.name] = error(check, f"check: {found.why}") if isinstance(found, Lost) else found
            done(check.name)
    every = ((check, reports.get(check.name) or error(check, INTERRUPTED)) for check in checks)
    return [(check.name, replace(report, command=check.command)) for check, report in every]


INTERRUPTED = "did not run: interrupted"


def processes(checks: Sequence[Check]) -> int:
    """One for each core, but not more than there is work for."""
    light = all(check.model.endswith(".npz") for check in checks)
    return min(math.ceil(len(checks) / (FEW if light else 1)), os.cpu_count() or 1)


def limit(check: Check) -> float:
    """Seconds for a whole check. Programs and graphs have theirs for each question."""
    candidate, seconds = check.candidate or "", check.options.get("timeout")
    is_function = ":" in candidate and not candidate.startswith("cmd:")
    return QUESTIONS * float(seconds) if is_function and seconds else math.inf


def judge(check: Check) -> Report:
    """One check, in the file's folder. An error of the question is a report, too."""
    try:
        with contextlib.chdir(check.folder):
            return without_allowed(check, ask(check))
    except ParityError as failed:
        return error(check, str(failed))


def ask(check: Check) -> Report:
    from parity import api
    from parity.candidates.functions import scratch
    from parity.disk import load_array, load_outputs

    if not Path(check.model).exists():
        raise InputError(f"{check.model}: no such file")
    if check.model.endswith(".npz"):
        if check.inputs:
            raise InputError(f"inputs: {check.model} has its own; expected none beside it")
        outputs = load_outputs(check.outputs)
        return api.check_file(check.candidate if outputs is None else outputs, check.model, **check.options)
    y = load_array("outputs", check.outputs)
    candidate = (check.candidate or scratch) if y is None else y
    return api.check(candidate, check.model, load_array("inputs", check.inputs), **check.options)


def without_allowed(check: Check, report: Report) -> Report:
    """The report without the blind spots that may stay, which are told; and with those told that did not occur."""
    told = [
        allowance(report, mistake, reason)
        for mistake, reason in check.allow.items()
        if report.verdict in ("PASS", "INCONCLUSIVE")
    ]
    blind = tuple(blind for blind in report.blind if blind.same or blind.id not in check.allow)
    return replace(report, blind=blind, known=(*report.known, *told), failure=None)


def allowance(report: Report, mistake: str, reason: str) -> str:
    """What became of a blind spot that may stay."""
    if any(blind.id == mistake for blind in report.not_visible):
        return f"allowed not to be visible: {mistake} ({reason})"
    if mistake in report.visible:
        return f"allowed, but visible here: {mistake}; take it out of the file"
    if any(blind.id == mistake for blind in report.no_difference):
        return f"allowed, but no difference with these weights: {mistake}; it needs no allowance"
    return f"allowed, but not looked for here: {mistake}; it does not apply to this layer, or to what was asked"


def error(check: Check, what: str) -> Report:
    return Report((CaseReport(check.model, "ERROR", notes=(what,)),), environment=environment())


def together(reports: Sequence[tuple[str, Report]]) -> Report:
    """All of them in one, which says so where the run was interrupted."""
    left = sum(INTERRUPTED in case.notes for _, report in reports for case in report.cases)
    return merged(reports, incomplete=f"interrupted: {left} of {len(reports)} checks did not run" if left else "")
