"""Pages: a report for those who were not at the terminal.

A format is a row of the table here and a module of this folder, in which a function makes a text of a Report. The
command line, the pytest plugin and the gate read the table. Imported at the start of every pytest run, so it imports
next to nothing.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.errors import MissingExtraError

if TYPE_CHECKING:
    from parity.report.data import Report


@dataclass(frozen=True)
class Format:
    """name: of the option and of the module here, in which `to_<name>` is. suffix: of its files. help: the option's."""

    name: str
    suffix: str
    help: str


_TABLE = (
    Format("json", ".json", "Write the report there as JSON."),
    Format("html", ".html", "... as a page, one file, with pictures."),
    Format("junit", ".xml", "... as JUnit's XML, for a CI."),
    Format("markdown", ".md", "... as Markdown, for the summary of a CI job."),
)
FORMATS = {form.name: form for form in _TABLE}


def renderer(form: str) -> Callable[["Report"], str]:
    """`to_json`, `to_html` and so on. MissingExtraError where the library that it needs is not installed."""
    try:
        module = importlib.import_module(f"parity.report.{form}")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--{form}: expected {error.name} to be installed: pip install 'keras-parity[report]'"
        ) from error
    found: Callable[[Report], str] = getattr(module, f"to_{form}")
    return found


@contextlib.contextmanager
def opened(form: str, path: str, option: str) -> Iterator[Callable[["Report"], None]]:
    """A function that writes a report there. What would keep it from that is found out here, before the work."""
    from parity.disk import writing

    render = renderer(form)
    with writing(path, option) as write:
        yield lambda report: write(render(report).encode())
