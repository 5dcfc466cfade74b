"""Graphs as candidates: .onnx and .tflite files, each run in a process that lives as long as the candidate."""

import json
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import parity
from parity.candidates import matching
from parity.candidates.answer import Answer, as_output
from parity.candidates.matching import Slot
from parity.candidates.processes import SECONDS, Process
from parity.candidates.sized import in_groups
from parity.cases.case import Case, Fixed
from parity.errors import CandidateError, MissingExtraError
from rnn_scratch.base import Array


class Graph:
    """An .onnx or .tflite file."""

    callable = True
    how = "reset its variables, or make a new Interpreter,"

    def __init__(self, path: str, seconds: float = SECONDS) -> None:
        if not os.path.isfile(path):
            raise CandidateError(f"--candidate: no file {path}")
        self.path, self.seconds = path, seconds
        self.folder = Path(tempfile.mkdtemp(prefix="parity-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.process: Process | None = None
        told = self._started()
        self.inputs = [_slot_of(found) for found in told["inputs"]]
        self.outputs = [_slot_of(found) for found in told["outputs"]]
        self.roles = matching.input_roles(self.inputs)
        said = {"initial_state" if role == "state0" else role for role in self.roles.values()}
        self.takes = frozenset(said & {"mask", "initial_state"})
        self.fixed = self._fixed()

    def _fixed(self) -> Fixed:
        shape = next(slot.shape for slot in self.inputs if self.roles[slot.name] == "x")
        return (None, None) if shape is None or len(shape) < 2 else (shape[0], shape[1])

    def converse(self, case: Case) -> list[Answer]:
        if "initial_state" in self.takes:
            raise CandidateError("candidate: a graph that is given its state keeps none between calls")
        calls = [case.call(n) for n in range(case.calls)]
        return [self._ask(call, renew=n == 0) for n, call in enumerate(calls)]

    # --- asking ---

    def ask(self, case: Case) -> Answer:
        """The whole batch, or so many rows at a time as the graph was built for."""
        return in_groups(self._ask, case, self.fixed[0] or case.batch)

    def ask_on(self, case: Case) -> Answer:
        """Its answer where it goes on from the last question."""
        return in_groups(lambda part: self._ask(part, renew=False), case, self.fixed[0] or case.batch)

    def _ask(self, case: Case, renew: bool = True) -> Answer:
        fed = matching.feeds(case, self.inputs, self.roles)
        return matching.answer(case, self._run(list(fed.values()), renew))

    # --- its process ---

    def _run(self, arrays: Sequence[Array], renew: bool) -> dict[str, Array]:
        if self.process is None:
            self._started()
        assert self.process is not None
        for n, array in enumerate(arrays):
            np.save(self.folder / f"in{n}.npy", array)
        self.process.tell(json.dumps([str(self.folder), renew]).encode() + b"\n")
        self._reply()
        found = [np.load(self.folder / f"out{n}.npy") for n in range(len(self.outputs))]
        return {slot.name: as_output(array) for slot, array in zip(self.outputs, found, strict=True)}

    def _started(self) -> Mapping[str, Any]:
        """What the process says of the graph's inputs and outputs."""
        root = str(Path(parity.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
        server = [sys.executable, "-P", "-m", "parity.candidates.graph_server"]
        self.process = Process([*server, Path(self.path).suffix.lower(), self.path], environment, talks=True)
        self.process.name = self.path
        weakref.finalize(self, self.process.close)
        return self._reply()

    def _reply(self) -> Mapping[str, Any]:
        """The next line that the process says; CandidateError for an error in it, or in its place."""
        process, self.process = self.process, None  # it has ended if no line comes
        assert process is not None
        told: Mapping[str, Any] = json.loads(process.line(self.seconds))
        self.process = process
        if "missing" in told:
            raise MissingExtraError(told["missing"])
        if "error" in told:
            raise CandidateError(f"candidate: {self.path}: {told['error']}")
        return told


def _slot_of(found: Mapping[str, Any]) -> Slot:
    shape = None if found["shape"] is None else tuple(found["shape"])
    return Slot(found["name"], shape, np.dtype(found["dtype"]))
