"""The command in a child process. Whatever a candidate does to its process (it exits, it crashes) is told by the one
that is left, which also ends what the candidate has left behind: threads, and children, in whatever process group."""

import atexit
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

_POLL = 0.2
"""Seconds after which it is looked whether the process is still there: a child of its own may hold its pipe open."""

_GRACE = 2.0
"""Seconds for a process that has been told to end, or says that it is at its end, before it is killed."""

_DEATH_SIGNAL, _SUBREAPER = 1, 36
"""Of Linux's prctl: the signal where the parent is gone; orphaned descendants come to this process."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Work = Callable[[str], int]


def supervised(work: Work) -> int:
    """The exit status that work("") has in a child; where that is gone without one, the status of work(why)."""
    if not _can_fork():
        unwinding()
        return work("")
    _prctl(_SUBREAPER, 1)
    before = set(_children())
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _serve(work, theirs)
    os.close(theirs)
    with _handed_on(child):
        status, said = _waited_for(child, ours)
    _end_all(lambda: set(_children()) - before)
    if said:
        return said[0]
    from parity.pool import ended

    return work(f"the process of the check {ended(status)} before there was a verdict")


def _can_fork() -> bool:
    """Not within another program: a copy of a process that has threads may hang, and its streams are its own."""
    alone = sys.stdout is sys.__stdout__ and not {"keras", "tf_keras"} & set(sys.modules)
    return alone and hasattr(os, "fork")


# --- the child ---


def _serve(work: Work, pipe: int) -> None:
    """Does the work, says its status and ends, whatever threads are left."""
    own = os.getpid()
    _prctl(_DEATH_SIGNAL, signal.SIGTERM)
    unwinding()
    status = work("")
    if os.getpid() == own:  # not a copy that a candidate has made
        with contextlib.suppress(OSError):
            os.write(pipe, bytes([status]))
        atexit._run_exitfuncs()
    os._exit(status)


def unwinding() -> None:
    """A signal to end unwinds whatever the process is in, so that nothing half written stays behind. The same one by
    two ways, as a terminal's Ctrl-C comes, counts once."""
    last, own = -_GRACE, os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != own:  # a copy that a candidate has made has nothing to tell
            os._exit(128 + number)
        before, last = last, time.monotonic()
        if last - before > _GRACE / 4:
            raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not the main thread
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, interrupt)


# --- the process that is left ---


@contextlib.contextmanager
def _handed_on(child: int) -> Iterator[None]:
    """Signals to end are the child's; from the second on it is killed."""
    times = 0

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal times
        times += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number if times <= 2 else signal.SIGKILL)

    old = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in old.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _waited_for(child: int, pipe: int) -> tuple[int, bytes]:
    """The child's exit status, and what it said: a status in a byte, or nothing."""
    status, said = None, b""
    while status is None and not said:
        if select.select([pipe], [], [], _POLL)[0]:
            said = os.read(pipe, 1)
            break  # it is over, or all that could say so have gone
        status = _exit_status(child)
    deadline = time.monotonic() + _GRACE
    while status is None:
        if said and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
        status = _exit_status(child)
    if not said and select.select([pipe], [], [], 0)[0]:
        said = os.read(pipe, 1)
    os.close(pipe)
    return status, said


def _exit_status(child: int) -> int | None:
    """As `subprocess` has it; None while it runs."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _end_all(left: Callable[[], set[int]]) -> None:
    """End those processes, and their children, which come to this one as they are orphaned."""
    deadline = time.monotonic() + _GRACE
    while running := left():
        late = time.monotonic() > deadline
        if time.monotonic() > 2 * _GRACE + deadline:
            return  # another user's, or in the middle of something that cannot be stopped
        for process in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)
        time.sleep(0.01)


# --- what only Linux has ---


def _children() -> list[int]:
    """Of this process; none where the system does not tell."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
