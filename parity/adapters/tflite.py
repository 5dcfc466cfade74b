"""TensorFlow Lite models. The only place that imports an interpreter of them: LiteRT's, else TensorFlow's own."""

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.candidates.matching import Slot
from parity.errors import MissingExtraError
from rnn_scratch.base import Array

Detail = Mapping[str, Any]
"""What the interpreter says of an input or output: its name, index, shape, dtype and quantization."""


class Graph:
    """A .tflite file, loaded: its first signature where it has one, by the names in that."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.renew()
        self.inputs = [_slot(detail) for detail in self._inputs]
        self.outputs = [_slot(detail) for detail in self._outputs]

    def renew(self) -> None:
        """A new interpreter: fused layers and the variables of stateful ones keep their states between invocations,
        and reset_all_variables does not reset the latter."""
        self.interpreter = _interpreter()(model_path=self.path)
        self._inputs, self._outputs = _details(self.interpreter)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        fed = list(zip(self._inputs, arrays, strict=True))
        for detail, array in fed:
            if tuple(detail["shape"]) != array.shape:
                self.interpreter.resize_tensor_input(detail["index"], array.shape)
        self.interpreter.allocate_tensors()  # after all sizes are set: it drops what tensors hold
        for detail, array in fed:
            self.interpreter.set_tensor(detail["index"], _quantized(array, detail))
        self.interpreter.invoke()
        return [_real(self.interpreter.get_tensor(detail["index"]), detail) for detail in self._outputs]


def _interpreter() -> Any:
    for name, owner in (("ai_edge_litert.interpreter", None), ("tensorflow", "lite")):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's says that it will go
            return getattr(module, owner).Interpreter if owner else module.Interpreter
    raise MissingExtraError("a .tflite file needs an interpreter: pip install 'keras-parity[tflite]'")


def _details(interpreter: Any) -> tuple[list[Detail], list[Detail]]:
    """Of the inputs and of the outputs."""
    signatures = interpreter.get_signature_list()
    if not signatures:
        return interpreter.get_input_details(), interpreter.get_output_details()
    key, signature = next(iter(signatures.items()))
    runner = interpreter.get_signature_runner(key)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    return _named(inputs, signature["inputs"]), _named(outputs, signature["outputs"])


def _named(details: Mapping[str, Detail], names: Sequence[str]) -> list[Detail]:
    # the runner's own are in the order of the alphabet, and their names those of tensors
    return [{**details[name], "name": name} for name in names]


def _slot(detail: Detail) -> Slot:
    """Of an integer input that stands for real numbers, those."""
    shape = detail.get("shape_signature", detail["shape"])
    dtype = np.dtype(np.float32) if _scale_of(detail) else np.dtype(detail["dtype"])
    return Slot(detail["name"], tuple(None if n < 0 else int(n) for n in shape), dtype)


# --- integers that stand for real numbers ---


def _scale_of(detail: Detail) -> float:
    """The size of one step; 0 where numbers are what they are."""
    return float(detail["quantization"][0]) if np.dtype(detail["dtype"]).kind in "iu" else 0.0


def _quantized(array: Array, detail: Detail) -> Array:
    if not _scale_of(detail):
        return array
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.asarray(np.clip(np.round(array / scale) + zero, limits.min, limits.max), detail["dtype"])


def _real(array: Array, detail: Detail) -> Array:
    if not _scale_of(detail):
        return array
    scale, zero = detail["quantization"]
    return np.asarray((array.astype(np.float32) - zero) * np.float32(scale), np.float32)
