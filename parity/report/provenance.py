"""Where a report comes from: the versions that it was computed with, and the command that repeats it."""

import os
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from parity.report.data import CaseReport, Report


def environment() -> dict[str, str]:
    """Versions of this package and of what the reference is computed with."""
    import numpy as np  # deferred: the command line imports this module, and `parity --help` needs no NumPy

    try:
        own = version("keras-parity")
    except PackageNotFoundError:
        own = "not installed"
    return {"keras-parity": own, "python": platform.python_version(), "numpy": np.__version__}


def shell_line(words: Sequence[str]) -> str:
    """The words as a command line for a shell; with the backend, where the environment named it."""
    backend = os.environ.get("KERAS_BACKEND")
    named = [f"KERAS_BACKEND={shlex.quote(backend)}"] if backend else []
    return " ".join([*named, shlex.join(words)])


def unanswered(what: str, why: str, command: str = "") -> Report:
    """The report on a question that came to no verdict."""
    case = CaseReport(what, "ERROR", notes=(why,))
    return Report((case,), environment=environment(), command=command)
