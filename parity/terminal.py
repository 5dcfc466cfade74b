"""The terminal: text from anywhere, a layer's name from a stranger's file, as it may be shown; tables and progress."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def printable(text: object) -> str:
    """The text with \\x1b for an escape and so on: no control characters, no overrides of the direction of writing, no
    half surrogates. Lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def one_line(text: object) -> str:
    return " ".join(printable(text).split())


def briefly(error: BaseException) -> str:
    """What an error is and says, in one line of some 300 characters."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())  # Keras writes some words in bold
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


@contextlib.contextmanager
def reader_may_go() -> Iterator[None]:
    """A reader of standard output that has gone is no error: what it does not read is dropped."""
    try:
        yield
    except (BrokenPipeError, SystemExit):  # the second is how rich says it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


# --- what rich draws ---


def console(width: int = 160) -> "Console":
    """The terminal; in a pipe so many columns."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def cell(text: object) -> "Text":
    """Text from anywhere, in a table: no markup and no control characters."""
    from rich.text import Text

    return Text(printable(text))


@contextlib.contextmanager
def progress(total: int | None) -> Iterator[Callable[[object], None]]:
    """A bar on the terminal, nothing in a pipe. What it is called with says what was done: its id, or itself."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    errors = Console(stderr=True)  # standard output is the report's
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("starting", total=total)

        def done(what: object) -> None:
            name = printable(getattr(what, "id", what))
            bar.update(task, advance=1, description=escape(name))

        yield done
