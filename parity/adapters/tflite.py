"""TensorFlow Lite models. The only place that imports an interpreter of them: LiteRT's, else TensorFlow's own."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.candidates.matching import Slot
from parity.errors import MissingExtraError
from rnn_scratch.base import Array


class Graph:
    """A .tflite file, loaded: its first signature where it has one, by the names in that."""

    def __init__(self, path: str) -> None:
        self.interpreter = interpreter()(model_path=path)
        signatures = self.interpreter.get_signature_list()
        inputs, outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if signatures:
            key, signature = next(iter(signatures.items()))
            runner = self.interpreter.get_signature_runner(key)
            found = runner.get_input_details(), runner.get_output_details()
            inputs = [{**found[0][name], "name": name} for name in signature["inputs"]]
            outputs = [{**found[1][name], "name": name} for name in signature["outputs"]]
        self.details = inputs, outputs
        self.inputs, self.outputs = ([slot(detail) for detail in details] for details in self.details)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        inputs, outputs = self.details
        for detail, array in zip(inputs, arrays, strict=True):
            if tuple(detail["shape"]) != array.shape:
                self.interpreter.resize_tensor_input(detail["index"], array.shape)
        self.interpreter.allocate_tensors()
        for detail, array in zip(inputs, arrays, strict=True):
            self.interpreter.set_tensor(detail["index"], quantized(array, detail))
        self.interpreter.invoke()
        return [real(self.interpreter.get_tensor(detail["index"]), detail) for detail in outputs]


def interpreter() -> Any:
    for name, owner in (("ai_edge_litert.interpreter", None), ("tensorflow", "lite")):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's says that it will go
            return getattr(module, owner).Interpreter if owner else module.Interpreter
    raise MissingExtraError("a .tflite file needs an interpreter: pip install 'keras-parity[tflite]'")


def slot(detail: Any) -> Slot:
    """Of an integer input that stands for real numbers, those."""
    shape = detail.get("shape_signature", detail["shape"])
    dtype = np.dtype(np.float32) if scale_of(detail) else np.dtype(detail["dtype"])
    return Slot(detail["name"], tuple(None if n < 0 else int(n) for n in shape), dtype)


def scale_of(detail: Any) -> float:
    return float(detail["quantization"][0]) if np.dtype(detail["dtype"]).kind in "iu" else 0.0


def quantized(array: Array, detail: Any) -> Array:
    if not scale_of(detail):
        return array
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.asarray(np.clip(np.round(array / scale) + zero, limits.min, limits.max), detail["dtype"])


def real(array: Array, detail: Any) -> Array:
    if not scale_of(detail):
        return array
    scale, zero = detail["quantization"]
    return np.asarray((array.astype(np.float32) - zero) * np.float32(scale), np.float32)
