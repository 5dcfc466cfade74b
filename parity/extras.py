"""Libraries that only some installations have: each behind the extra of keras-parity that brings it."""

import importlib
from types import ModuleType

from parity.errors import MissingExtraError


def needed(module: str, what: str, extra: str) -> ModuleType:
    """That module. MissingExtraError, in one line, where it is not installed. what: what needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise MissingExtraError(f"{what} needs {library}: pip install 'keras-parity[{extra}]'") from error
