"""The fixture `assert_parity` of the pytest plugin: a check with the run's options, kept for the run's report."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parity import api, recording
from parity.cases.case import Case
from parity.errors import InputError, ParityError
from parity.given.candidate import as_candidate
from parity.golden import is_golden
from parity.options import NAMED, checked, expect
from parity.overwriting import files_of
from parity.report.data import Report
from parity.report.provenance import environment, unanswered
from parity.terminal import one_line

_INPUTS = ("input_shape", "mask", "initial_state")


class AssertParity:
    """One test's: `parity.assert_parity` whose reports go into the run's. See the fixture.

    options: of the run, beneath those of a call. command: repeats the test alone. record: whether golden files that are
    missing are written. read: the files that were named, which the run's report is not written over.
    """

    def __init__(self, node: pytest.Item, options: Mapping[str, Any], command: str, record: bool) -> None:
        self.node, self.options, self.command, self.record = node, options, command, record
        self.reports: list[Report] = []
        self.read: set[str] = set()

    def __call__(self, candidate: Any, keras_layer: Any, x: Any = None, *, record: Any = None, **given: Any) -> Report:
        __tracebackhide__ = True
        for named in (candidate, keras_layer):
            self.read |= set(map(os.path.realpath, files_of(named)))
        report, error = self._judged(candidate, keras_layer, x, record, given)
        report = replace(report, command=self.command, failure=None)
        self.reports.append(report)
        if error is not None:  # not raised here: its own frames say nothing to the user
            pytest.fail(f"ERROR  {one_line(error)}\nagain: {report.command}", pytrace=False)
        if not report.cases:
            pytest.skip(f"not asked: {report.not_asked[0]}")
        if report.verdict != "PASS":
            raise api.ParityAssertionError(report)
        return report

    def _judged(self, *arguments: Any) -> tuple[Report, ParityError | None]:
        try:
            return self._judge(*arguments), None
        except ParityError as error:
            return unanswered("assert_parity", str(error)), error

    def _judge(self, candidate: Any, keras_layer: Any, x: Any, record: Any, given: Mapping[str, Any]) -> Report:
        expect(given, [*_INPUTS, "record", *NAMED], "assert_parity: ")
        options = {**self.options, **checked(given, "assert_parity: ")}
        inputs = {"x": x, **{name: value for name, value in given.items() if name not in NAMED}}
        if isinstance(keras_layer, Case):
            _refuse({**inputs, "record": record}, "a case of the grid")
            return _judge_case(candidate, keras_layer, options)
        if is_golden(keras_layer):
            _check_record(record)
            if record is None:
                _refuse(inputs, str(keras_layer))
            path = self._golden(Path(keras_layer), record, {**inputs, "seed": options.get("seed", 0)})
            return api.check_file(candidate, str(path), **options)
        if record is not None:
            raise InputError("assert_parity: record: expected a golden file (.npz) as the second argument with it")
        return api.check(candidate, keras_layer, **inputs, **options)

    def _golden(self, path: Path, record: Any, options: Mapping[str, Any]) -> Path:
        """The golden file, beside the test unless it is only in the current folder; written if that was asked for."""
        beside = self.node.path.parent / path
        if beside.exists() or not path.exists():
            path = beside
        self.read.add(os.path.realpath(path))
        if path.exists():
            return path
        if record is None:
            raise InputError(
                f"{path}: no such golden file; `parity record MODEL -o {path}` writes it, or --parity-record where the "
                "call has record=, the Keras layer"
            )
        if not self.record:
            raise InputError(f"{path}: no such golden file; --parity-record writes it")
        path.parent.mkdir(parents=True, exist_ok=True)
        recording.record(record() if _is_function(record) else record, str(path), **options)
        return path


def _judge_case(candidate: Any, case: Case, options: Mapping[str, Any]) -> Report:
    """A report without a case where the candidate lacks the parameters for it."""
    takes = as_candidate(candidate).takes
    if "layer" in takes and (missing := sorted(case.needs - takes)):
        told = f"a case with {' and '.join(missing)}: the candidate has no such parameter"
        return Report((), (told,), environment())
    return api.check_grid(candidate, [case], **options)


def _refuse(given: Mapping[str, Any], what: str) -> None:
    """InputError for what has no place beside what has its own."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"assert_parity: {name}: {what} has its own inputs; expected none beside it")


def _check_record(record: Any) -> None:
    if record is not None and not callable(record):
        kind = type(record).__name__
        raise InputError(f"record: expected a Keras layer, or a function that returns one; received {kind}")


def _is_function(value: Any) -> bool:
    """Rather than a Keras layer, which can be called, too."""
    return callable(value) and not hasattr(value, "get_weights")
