"""Pages: a Report for those who were not at the terminal. Each is a function from a Report to a text."""

import importlib
import json
from collections.abc import Callable

from parity.errors import MissingExtraError
from parity.report.data import Report

_HOMES = {"json": "parity.report.pages", "markdown": "parity.report.markdown", "junit": "parity.report.junit"}
_HOMES |= {"html": "parity.report.html"}

FORMATS = tuple(_HOMES)


def renderer(form: str) -> Callable[[Report], str]:
    """`to_json`, `to_html` and so on. MissingExtraError where the library that it needs is not installed."""
    try:
        module = importlib.import_module(_HOMES[form])
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--{form}: expected {error.name} to be installed: pip install 'keras-parity[report]'"
        ) from error
    found: Callable[[Report], str] = getattr(module, f"to_{form}")
    return found


def to_json(report: Report) -> str:
    """`Report.to_dict` in strict JSON."""
    return json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
