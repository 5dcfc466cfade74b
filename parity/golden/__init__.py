"""Golden files: cases with Keras's outputs, on disk, for checks that need no Keras."""

import os
from typing import Any


def is_golden(named: Any) -> bool:
    """Whether what a user named is a golden file, rather than a layer or a saved model."""
    return isinstance(named, str | os.PathLike) and os.fspath(named).endswith(".npz")
