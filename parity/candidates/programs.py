"""Any program that reads and writes .npy as a candidate."""

import contextlib
import difflib
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from parity.candidates.answer import Answer, as_outputs
from parity.candidates.processes import MOST_PRINTED, SECONDS, Process, no_answer
from parity.cases.case import ANY, Case
from parity.disk import array_of, arrays_in
from parity.errors import CandidateError
from parity.pool import ended
from rnn_scratch.base import Array

MOST_WRITTEN = 1 << 26
"""Bytes that an output file may have beyond four times those of the arrays that are expected."""

_PLACES = ("inputs", "outputs", "mask", "initial_state", "weights")
_PLACE = re.compile(r"\{(\w+)\}")


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
        self.named = _places_in(self.words)
        self.seconds = seconds
        self.takes = self.named & {"mask", "initial_state", "weights"}

    def ask(self, case: Case) -> Answer:
        with tempfile.TemporaryDirectory(prefix="parity-") as folder:
            paths = {name: str(Path(folder) / f"{name}.npy") for name in _PLACES}
            paths["weights"] = str(Path(folder) / "weights.npz")
            for name in self.named - {"outputs"}:
                _write(case, name, paths[name])
            words = [_PLACE.sub(lambda found: paths.get(found[1], found[0]), word) for word in self.words]
            return Answer(self._run(words, _Written(paths["outputs"]), _most_written(case)), partial=True)

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a program that is run anew for each call keeps no state")

    def _run(self, words: list[str], written: "_Written", most: int) -> tuple[Array, ...]:
        process = Process(words)
        status = process.wait(self.seconds, lambda: written.size > most)
        if written.size > most:
            raise process.complaint(f"wrote {written.size:,} bytes of outputs; expected at most {most:,}")
        if process.flooded:
            raise process.complaint(f"wrote more than {MOST_PRINTED >> 20} MiB to its output")
        if status is None:
            raise process.complaint(no_answer(self.seconds))
        if status != 0:
            raise process.complaint(ended(status))
        try:
            return as_outputs(tuple(written.arrays(most)))
        except CandidateError:
            raise
        except Exception as error:  # whatever a file of any kind makes of the readers
            raise process.complaint(f"{{outputs}}: {' '.join(str(error).split())[:200]}") from None


def _places_in(words: Iterable[str]) -> frozenset[str]:
    """The places that a command has for files. CandidateError for a slip of one, and where one is missing that it must
    have."""
    named = [name for word in words for name in _PLACE.findall(word)]
    for other in [name for name in named if name not in _PLACES]:
        near = difflib.get_close_matches(other, _PLACES, 1)
        if near:
            raise CandidateError(f"--candidate: {{{other}}}: expected {{{near[0]}}}")
    for name in ("inputs", "outputs"):
        if name not in named:
            expected = "cmd:PROGRAM {inputs} {outputs}"
            raise CandidateError(f"--candidate: expected {expected}; it has no {{{name}}}")
    return frozenset(named) & frozenset(_PLACES)


def _write(case: Case, what: str, path: str) -> None:
    if what == "weights":
        np.savez(path, allow_pickle=False, **case.layer.weights)
    elif what == "initial_state":
        states = case.start
        np.save(path, states[0] if len(states) == 1 else np.stack(states))
    else:
        np.save(path, case.x if what == "inputs" else case.every_mask)


def _most_written(case: Case) -> int:
    return MOST_WRITTEN + 4 * 8 * sum(int(np.prod(shape)) for shape in case.output_shapes)


class _Written:
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
