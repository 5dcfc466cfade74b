"""Tasks in processes of their own, one at a time each: what a task does to its process is that task's loss alone."""

import contextlib
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

Work = Callable[[Any], Any]

_POLL = 0.5
"""Seconds after which it is looked whether a process is still there: one that it started may hold its pipe open."""

_GRACE = 2.0
"""Seconds for a process to clear up what its task began, programs and folders, before it is killed."""


@dataclass(frozen=True)
class Lost:
    """In the place of an answer: what became of the task."""

    why: str


def shared(work: Work, tasks: Sequence[Any], number: int, limit: Callable[[Any], float]) -> Iterator[tuple[Any, Any]]:
    """(task, work(task), or Lost in its place) as they come, from so many processes. limit: seconds for a task. However
    this ends, its processes end with it."""
    waiting, busy, over = list(reversed(tasks)), list[_Worker](), list[_Worker]()
    try:
        while waiting or busy:
            while waiting and len(busy) < number:
                busy.append(_Worker(work))
                busy[-1].give(waiting.pop(), limit)
            wait([worker.pipe for worker in busy], _POLL)
            for worker in [worker for worker in busy if worker.done]:
                yield worker.task, worker.answer()
                if waiting and not worker.lost:
                    worker.give(waiting.pop(), limit)
                    continue
                worker.process.terminate()
                busy.remove(worker)
                over.append(worker)
    finally:
        _end([*busy, *over])


class _Worker:
    """A process that does one task after another."""

    def __init__(self, work: Work) -> None:
        # "spawn": a fork of a process in which TensorFlow has threads may hang
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work))
        self.process.start()
        theirs.close()  # or the pipe would stay open when the process is gone
        self.lost = False

    def give(self, task: Any, limit: Callable[[Any], float]) -> None:
        self.task, self.seconds = task, limit(task)
        self.deadline = time.monotonic() + self.seconds
        with contextlib.suppress(BrokenPipeError):  # it is gone: `answer` says how
            self.pipe.send(task)

    @property
    def done(self) -> bool:
        return self.pipe.poll() or not self.process.is_alive() or self.late

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def answer(self) -> Any:
        with contextlib.suppress(EOFError, OSError):
            if self.pipe.poll():
                return self.pipe.recv()
        self.lost = True
        if self.process.is_alive() and self.late:
            return Lost(f"had no end after {self.seconds:g} s")
        self.process.join(_GRACE)
        return Lost(f"its process {ended(self.process.exitcode)}")


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


def ended(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "closed its pipe"
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(-status).name}"
    return f"ended by signal {-status}"


def _serve(pipe: Connection, work: Work) -> None:
    """The process's own side: until the pipe is closed, or SIGTERM, which unwinds what the task is in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all; the parent ends this one
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            pipe.send(_attempted(work, pipe.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)


def _attempted(work: Work, task: Any) -> Any:
    try:
        return work(task)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a candidate may raise
        if isinstance(error, Exception):  # then it is a defect of ours
            traceback.print_exc()
        return Lost(f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}")
