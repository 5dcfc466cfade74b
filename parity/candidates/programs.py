"""Candidates in processes of their own: any program that reads and writes .npy, and graphs. Whatever becomes of such a
process (it crashes, hangs, floods its outputs) is one line, with the last lines that it wrote to standard error."""

import contextlib
import difflib
import json
import os
import re
import select
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

import parity
from parity.candidates import matching
from parity.candidates.functions import ANY, Answer, Array, as_output
from parity.candidates.matching import Slot
from parity.cases.case import Case
from parity.disk import array_of, arrays_in
from parity.errors import CandidateError, MissingExtraError
from parity.pool import ended

SECONDS = 60.0
"""The time limit of one question."""

MOST_PRINTED = 1 << 24
"""Bytes that a process may write to its standard output or error."""

MOST_WRITTEN = 1 << 26
"""Bytes that an output file may have beyond four times those of the arrays that are expected."""

TAIL_LINES, TAIL_CHARACTERS = 3, 300

READ_SECONDS = 0.05
"""How often a process is looked after."""


class Process:
    """A child process with its streams read as they come, in a session of its own so that its children end with it."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None, talks: bool = False) -> None:
        self.name = command[0]
        try:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise CandidateError(f"candidate: {command[0]}: cannot be run: {error.strerror}") from None
        self.flooded = self.over = False
        self.tail = deque[bytes](maxlen=64)
        self.readers = [threading.Thread(target=self.drain, args=(self.child.stderr,), daemon=True)]
        if not talks:
            self.readers += [threading.Thread(target=self.drain, args=(self.child.stdout, False), daemon=True)]
        for reader in self.readers:
            reader.start()

    def drain(self, stream: IO[bytes], kept: bool = True) -> None:
        total = 0
        with stream:
            while piece := self.read(stream):
                total += len(piece)
                if kept:
                    self.tail.append(piece[-4096:])
                if total > MOST_PRINTED:
                    self.flooded = True
                    self.kill()
                    return

    def read(self, stream: IO[bytes]) -> bytes:
        """What comes next; nothing where it is over: a daemon may keep the stream open for as long as it lives."""
        while not select.select([stream], [], [], READ_SECONDS)[0]:
            if self.over:
                return b""
        return os.read(stream.fileno(), 1 << 16)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def wait(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> int | None:
        """The exit status; None, and the process ended, where the time is over or `enough` says so."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.child.wait(max(0.0, min(READ_SECONDS, deadline - time.monotonic())))
                if enough() or time.monotonic() >= deadline:
                    return None
        finally:
            self.close()

    def close(self) -> None:
        """End it, and whatever it may have started."""
        self.kill()
        self.child.wait()
        self.over = True
        for reader in self.readers:
            reader.join(1)
        for stream in (self.child.stdin, self.child.stdout if self.child.stdin else None):  # the rest are the readers'
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def complaint(self, what: str) -> CandidateError:
        """One line: what happened, and the last lines of standard error."""
        for reader in self.readers:
            reader.join(0.2)
        lines = [line for line in b"".join(self.tail).decode(errors="replace").splitlines() if line.strip()]
        printable = " | ".join(" ".join(line.split()) for line in lines[-TAIL_LINES:])
        clean = "".join(c if c.isprintable() else "?" for c in printable)[-TAIL_CHARACTERS:]
        return CandidateError(f"candidate: {self.name}: {what}" + (f"; it said: {clean}" if clean else ""))


# --- programs ---

PLACES = ("inputs", "outputs", "mask", "initial_state", "weights")
PLACE = re.compile(r"\{(\w+)\}")


class Program:
    """Any program: `./rnn {inputs} {outputs}`. For each question it is run anew, without a shell.

    {inputs}: x as .npy, (batch, timesteps, input_dim). {outputs}: the .npy that it writes, or an .npz of several arrays
    in the order of the layer's results. {mask}: (batch, timesteps), ones where a case has none. {initial_state}:
    (batch, units), with a leading axis of states where there are several, zeros where a case has none. {weights}: an
    .npz of the layer's arrays by their names in rnn_scratch. Other braces stay as they are.
    """

    callable = True
    fixed = ANY

    def __init__(self, command: str, seconds: float = SECONDS) -> None:
        try:
            self.words = shlex.split(command)
        except ValueError as error:
            raise CandidateError(f"--candidate: cmd:{command}: {error}") from None
        named = [name for word in self.words for name in PLACE.findall(word)]
        for name in named:
            if name not in PLACES and (near := difflib.get_close_matches(name, PLACES, 1)):
                raise CandidateError(f"--candidate: {{{name}}}: expected {{{near[0]}}}")
        for name in ("inputs", "outputs"):
            if name not in named:
                raise CandidateError(f"--candidate: expected cmd:PROGRAM {{inputs}} {{outputs}}; it has no {{{name}}}")
        self.named = frozenset(named) & frozenset(PLACES)
        self.seconds = seconds
        self.takes = self.named & {"mask", "initial_state", "weights"}

    def ask(self, case: Case) -> Answer:
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            paths = {name: str(Path(folder) / f"{name}.npy") for name in PLACES}
            paths["weights"] = str(Path(folder) / "weights.npz")
            write_question(case, {name: paths[name] for name in self.named - {"outputs"}})
            outputs, most = Outputs(paths["outputs"]), most_written(case)
            process = Process([PLACE.sub(lambda found: paths.get(found[1], found[0]), word) for word in self.words])
            status = process.wait(self.seconds, lambda: outputs.size > most)
            if outputs.size > most:
                raise process.complaint(f"wrote {outputs.size:,} bytes of outputs; expected at most {most:,}")
            if process.flooded:
                raise process.complaint(f"wrote more than {MOST_PRINTED >> 20} MiB to its output")
            if status is None:
                raise process.complaint(f"had no answer after {self.seconds:g} s")
            if status != 0:
                raise process.complaint(ended(status))
            try:
                return Answer(tuple(map(as_output, outputs.arrays(most))), partial=True)
            except CandidateError:
                raise
            except Exception as error:  # whatever a file of any kind makes of the readers
                raise process.complaint(f"{{outputs}}: {' '.join(str(error).split())[:200]}") from None

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a program that is run anew for each call keeps no state")


def write_question(case: Case, paths: dict[str, str]) -> None:
    given = matching.arrays_of(case)
    states = [array for name, array in given.items() if name.startswith("state")]
    for name, path in paths.items():
        if name == "weights":
            np.savez(path, allow_pickle=False, **case.layer.weights)
        elif name == "initial_state":
            np.save(path, states[0] if len(states) == 1 else np.stack(states))
        else:
            np.save(path, given["x" if name == "inputs" else name])


def most_written(case: Case) -> int:
    shapes = case.output_shapes
    return MOST_WRITTEN + 4 * 8 * sum(int(np.prod(shape)) for shape in shapes)


class Outputs:
    """What a program writes, whatever that is."""

    def __init__(self, path: str) -> None:
        self.paths = path, f"{path}.npz"  # np.savez adds its own

    @property
    def path(self) -> str | None:
        return next((path for path in self.paths if os.path.lexists(path)), None)

    @property
    def size(self) -> int:
        """Of a file, 0 of anything else."""
        with contextlib.suppress(OSError):
            found = os.lstat(self.path or "")
            return found.st_size if stat.S_ISREG(found.st_mode) else 0
        return 0

    def arrays(self, most: int) -> list[Array]:
        """ValueError for what is no regular file, which may never end, and for what is no array."""
        if self.path is None:
            raise ValueError("expected an .npy file; it wrote none")
        if not stat.S_ISREG(os.lstat(self.path).st_mode):
            raise ValueError("expected a regular file; it is a folder, a link, a pipe or a device")
        with open(self.path, "rb") as file:
            data = file.read(most + 1)
        return list(arrays_in(data, most).values()) if data.startswith(b"PK") else [array_of(data)]


# --- graphs ---


class Graph:
    """An .onnx or .tflite file, run in a process that lives as long as this."""

    callable = True

    def __init__(self, path: str, seconds: float = SECONDS) -> None:
        if not os.path.isfile(path):
            raise CandidateError(f"--candidate: no file {path}")
        self.path, self.seconds = path, seconds
        self.folder = Path(tempfile.mkdtemp(prefix="parity-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.process: Process | None = None
        told = self.started()
        self.inputs, self.outputs = ([slot_of(found) for found in told[key]] for key in ("inputs", "outputs"))
        self.roles = matching.input_roles(self.inputs)
        said = set(self.roles.values())
        self.takes = frozenset({"mask"} & said) | (frozenset({"initial_state"}) if "state0" in said else frozenset())
        shape = next(slot.shape for slot in self.inputs if self.roles[slot.name] == "x")
        self.fixed = (None, None) if shape is None or len(shape) < 2 else (shape[0], shape[1])

    def started(self) -> Any:
        root = str(Path(parity.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [
            sys.executable,
            "-P",
            "-m",
            "parity.candidates.graph_server",
            Path(self.path).suffix.lower(),
            self.path,
        ]
        self.process = Process(command, environment, talks=True)
        self.process.name = self.path
        weakref.finalize(self, self.process.close)
        return self.reply()

    def reply(self) -> Any:
        """The next line that the process says; CandidateError for an error in it, or in its place."""
        process = self.process
        assert process is not None
        stream = process.child.stdout
        assert stream is not None
        deadline, line = time.monotonic() + self.seconds, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(stream.fileno(), 1 << 16) if ready else b""
            if piece:
                line += piece
                continue
            self.process = None
            if ready:
                status = process.wait(1)
                what = "wrote more than it may" if process.flooded else ended(status or 0)
                raise process.complaint(what)
            process.wait(0)
            raise process.complaint(f"had no answer after {self.seconds:g} s")
        told = json.loads(line)
        if "missing" in told:
            raise MissingExtraError(told["missing"])
        if "error" in told:
            raise CandidateError(f"candidate: {self.path}: {told['error']}")
        return told

    def ask(self, case: Case) -> Answer:
        """The whole batch, or so many rows at a time as the graph was built for."""
        size = self.fixed[0] or case.batch
        parts = [self.ask_rows(case, np.arange(start, start + size)) for start in range(0, case.batch, size)]
        if len(parts) == 1:
            return parts[0]
        outputs = tuple(map(np.concatenate, zip(*(part.outputs or () for part in parts), strict=True)))
        layers = {name: np.concatenate([part.layers[name] for part in parts]) for name in parts[0].layers}
        return replace(parts[0], outputs=outputs, layers=layers)

    def ask_rows(self, case: Case, rows: Array) -> Answer:
        """Some rows; those past the end stand for the last one, and what is said of them is dropped."""
        part = case if len(rows) == case.batch else case.rows_at(np.minimum(rows, case.batch - 1))
        fed = matching.feeds(part, self.inputs, self.roles)
        found = matching.answer(part, self.run(list(fed.values())))
        there = int((rows < case.batch).sum())
        if there == len(rows):
            return found
        outputs = tuple(array[:there] for array in found.outputs or ())
        return replace(found, outputs=outputs, layers={name: array[:there] for name, array in found.layers.items()})

    def run(self, arrays: Sequence[Array]) -> dict[str, Array]:
        if self.process is None:
            self.started()
        assert self.process is not None
        assert self.process.child.stdin is not None
        folder = self.folder
        for n, array in enumerate(arrays):
            np.save(folder / f"in{n}.npy", array)
        with contextlib.suppress(BrokenPipeError):
            self.process.child.stdin.write(json.dumps(str(folder)).encode() + b"\n")
            self.process.child.stdin.flush()
        self.reply()
        return {slot.name: as_output(np.load(folder / f"out{n}.npy")) for n, slot in enumerate(self.outputs)}

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a graph keeps no state between calls")


def slot_of(found: Any) -> Slot:
    shape = None if found["shape"] is None else tuple(found["shape"])
    return Slot(found["name"], shape, np.dtype(found["dtype"]))
