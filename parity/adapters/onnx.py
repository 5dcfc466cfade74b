"""ONNX graphs, run by ONNX Runtime. The only place that imports it to judge a candidate."""

import importlib
from collections.abc import Sequence

import numpy as np

from parity.candidates.matching import Slot
from parity.errors import MissingExtraError
from rnn_scratch.base import Array

_DTYPES = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2", "tensor(bool)": "?"}
_DTYPES |= {f"tensor({name})": name for name in ("int8", "uint8", "int16", "uint16", "int32", "int64", "uint32")}


class Graph:
    """An .onnx file, loaded. On one thread: what other threads would add is time to start them."""

    def __init__(self, path: str) -> None:
        try:
            runtime = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise MissingExtraError("an .onnx file needs ONNX Runtime: pip install 'keras-parity[onnx]'") from error
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [_slot(found) for found in self.session.get_inputs()]
        self.outputs = [_slot(found) for found in self.session.get_outputs()]

    def renew(self) -> None:
        """A session keeps nothing between runs."""

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        fed = {slot.name: array for slot, array in zip(self.inputs, arrays, strict=True)}
        return [np.asarray(array) for array in self.session.run(None, fed)]


def _slot(found: object) -> Slot:
    name, shape, kind = (getattr(found, key) for key in ("name", "shape", "type"))
    if kind not in _DTYPES:
        raise ValueError(f"{name}: expected a tensor of numbers; it is {kind}")
    return Slot(name, tuple(n if isinstance(n, int) else None for n in shape), np.dtype(_DTYPES[kind]))
