"""Keras itself: its import without noise, which one a layer is of, its versions, and its tensors."""

import contextlib
import importlib
import itertools
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases.drawing import named_dtype
from parity.errors import MissingExtraError
from parity.kinds.registry import KerasLayer
from parity.terminal import briefly

Array = NDArray[Any]
Tensor = Any
"""Of the backend in use."""


def keras() -> ModuleType:
    """Keras 3, imported without TensorFlow's start-up messages; MissingExtraError where there is none."""
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with muted_start():
            return importlib.import_module("keras")
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise MissingExtraError(
            f"Keras and its backend {backend} are needed: pip install 'keras-parity[{backend}]' ({briefly(error)})"
        ) from error
    except Exception as error:
        name = os.environ.get("KERAS_BACKEND", "its default")
        raise MissingExtraError(f"Keras does not start with the backend {name}: {briefly(error)}") from error


@contextlib.contextmanager
def muted_start() -> Iterator[None]:
    """Nothing reaches file descriptor 2: TensorFlow's C++ writes there before any logging level counts."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Keras and its backends warn of masks, shapes and narrower dtypes that are meant so here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(keras|tf_keras|tensorflow|torch|jax)\b")
        # JAX names its caller as the place, which no pattern of modules catches
        warnings.filterwarnings("ignore", "Explicitly requested dtype float64")
        yield


def missing() -> str:
    """Why there is no Keras here; "" where there is."""
    try:
        keras()
    except MissingExtraError as error:
        return str(error)
    return ""


# --- which Keras ---


def family(layer: KerasLayer) -> str:
    """ "keras" or "tf_keras", or "" for a class of somebody else's."""
    root = type(layer).__module__.partition(".")[0]
    return root if root in ("keras", "tf_keras") else ""


def module_of(layer: KerasLayer) -> ModuleType:
    return importlib.import_module(family(layer))


def backend_of(layer: KerasLayer) -> str:
    return "tensorflow" if family(layer) == "tf_keras" else str(keras().backend.backend())


def environment(layer: KerasLayer = None) -> dict[str, str]:
    """Versions of what computed the expected outputs, and the backend."""
    backend = backend_of(layer)
    name = family(layer) or "keras"
    found = {name: str(importlib.import_module(name).__version__), "backend": backend}
    if backend in sys.modules:
        found[backend] = sys.modules[backend].__version__
    return found


# --- tensors ---


def tensor(layer: KerasLayer, array: Array) -> Tensor:
    """Of the array, for that layer's Keras and backend."""
    if family(layer) == "tf_keras":
        return importlib.import_module("tensorflow").convert_to_tensor(array)
    if array.dtype.kind == "V":
        return keras().ops.convert_to_tensor(wide(array), dtype=array.dtype.name)
    return keras().ops.convert_to_tensor(array)


def wide(array: Array) -> Array:
    """bfloat16 as float32, which every backend takes."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def to_numpy(value: Tensor) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy itself knows no bfloat16
            return np.asarray(value.float().numpy().astype(named_dtype("bfloat16")))
    return np.asarray(value.numpy() if hasattr(value, "numpy") else keras().ops.convert_to_numpy(value))


def flat_states(states: Any) -> list[Tensor]:
    """However Keras nests them, in tf_keras's own kind of list as well."""
    if not isinstance(states, tuple | list) and type(states).__name__ != "ListWrapper":
        return [states]
    return list(itertools.chain.from_iterable(map(flat_states, states)))
