"""Child processes that candidates run in. Whatever becomes of one (it crashes, hangs, floods its outputs) is one line,
with the last lines that it wrote to standard error."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from parity.errors import CandidateError
from parity.pool import ended

SECONDS = 60.0
"""The time limit of one question."""

MOST_PRINTED = 1 << 24
"""Bytes that a process may write to its standard output or error."""

_TAIL_LINES, _TAIL_CHARACTERS = 3, 300

_READ_SECONDS = 0.05
"""How often a process is looked after."""

_PIECE = 1 << 16


class Process:
    """A child process with its streams read as they come, in a session of its own so that its children end with it."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, *, talks: bool = False
    ) -> None:
        """talks: it reads its standard input, and what it says on its standard output is read with `line`."""
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
        self.flooded = self._over = False
        self._tail = deque[bytes](maxlen=64)
        self._readers = [threading.Thread(target=self._drain, args=(self.child.stderr,), daemon=True)]
        if not talks:
            self._readers += [threading.Thread(target=self._drain, args=(self.child.stdout, False), daemon=True)]
        for reader in self._readers:
            reader.start()

    def _drain(self, stream: IO[bytes], kept: bool = True) -> None:
        total = 0
        with stream:
            while piece := self._read(stream):
                total += len(piece)
                if kept:
                    self._tail.append(piece[-4096:])
                if total > MOST_PRINTED:
                    self.flooded = True
                    self._kill()
                    return

    def _read(self, stream: IO[bytes]) -> bytes:
        """What comes next; nothing where it is over: a daemon may keep the stream open for as long as it lives."""
        while not select.select([stream], [], [], _READ_SECONDS)[0]:
            if self._over:
                return b""
        return os.read(stream.fileno(), _PIECE)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def wait(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> int | None:
        """The exit status; None, and the process ended, where the time is over or `enough` says so."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.child.wait(max(0.0, min(_READ_SECONDS, deadline - time.monotonic())))
                if enough() or time.monotonic() >= deadline:
                    return None
        finally:
            self.close()

    def close(self) -> None:
        """End it, and whatever it may have started."""
        self._kill()
        self.child.wait()
        self._over = True
        for reader in self._readers:
            reader.join(1)
        if self.child.stdin is None:
            return  # the streams that are left are the readers'
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    # --- where it talks ---

    def tell(self, line: bytes) -> None:
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # that it has ended shows when it is to answer
            self.child.stdin.write(line)
            self.child.stdin.flush()

    def line(self, seconds: float) -> bytes:
        """The next line that it says. CandidateError, and the process ended, where none comes in that time."""
        stream = self.child.stdout
        assert stream is not None
        deadline, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.wait(0)
                raise self.complaint(no_answer(seconds))
            piece = os.read(stream.fileno(), _PIECE)
            if not piece:
                status = self.wait(1)
                raise self.complaint("wrote more than it may" if self.flooded else ended(status or 0))
            line += piece
        return line

    # --- what became of it ---

    def complaint(self, what: str) -> CandidateError:
        """One line: what happened, and the last lines of standard error."""
        for reader in self._readers:
            reader.join(0.2)
        said = self._last_words()
        return CandidateError(f"candidate: {self.name}: {what}" + (f"; it said: {said}" if said else ""))

    def _last_words(self) -> str:
        text = b"".join(self._tail).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        told = " | ".join(" ".join(line.split()) for line in lines[-_TAIL_LINES:])
        return "".join(c if c.isprintable() else "?" for c in told)[-_TAIL_CHARACTERS:]


def no_answer(seconds: float) -> str:
    return f"had no answer after {seconds:g} s"
