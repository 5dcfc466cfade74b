"""Is a recurrent layer that was taken out of Keras and written again still the same function?

    report = parity.check(forward, keras_layer)     # forward(x, layer): your code
    print(report)

Everything is imported when it is first used: `import parity` brings in neither NumPy nor Keras nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.adapters.keras.from_keras import from_keras
    from parity.adapters.keras.to_keras import to_keras
    from parity.api import ParityAssertionError, assert_parity, check
    from parity.errors import CandidateError, InputError, MissingExtraError, ModelError, ParityError, UnsupportedError
    from parity.porting import port
    from parity.recording import record
    from parity.report.data import Report

_HOMES = {
    "from_keras": "parity.adapters.keras.from_keras",
    "to_keras": "parity.adapters.keras.to_keras",
    "check": "parity.api",
    "assert_parity": "parity.api",
    "port": "parity.porting",
    "record": "parity.recording",
    "ParityAssertionError": "parity.api",
    "CandidateError": "parity.errors",
    "InputError": "parity.errors",
    "MissingExtraError": "parity.errors",
    "ModelError": "parity.errors",
    "ParityError": "parity.errors",
    "UnsupportedError": "parity.errors",
    "Report": "parity.report.data",
}

__all__ = [
    "CandidateError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "ParityAssertionError",
    "ParityError",
    "Report",
    "UnsupportedError",
    "assert_parity",
    "check",
    "from_keras",
    "port",
    "record",
    "to_keras",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'parity' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
