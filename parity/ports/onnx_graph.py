"""An ONNX graph as it is built: nodes one after another, and what every kind of layer may ask of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.errors import UnsupportedError
from parity.extras import needed
from rnn_scratch.base import Array

_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "relu": ("Relu", {}),
    "softsign": ("Softsign", {}),
    "softplus": ("Softplus", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_sigmoid_keras2": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
}
"""ONNX's operators and their attributes."""


def activation(name: str, owner: str) -> tuple[str, dict[str, float]]:
    """Of those that ONNX's recurrent operators have too. UnsupportedError for another one. owner: whose it is."""
    if name not in _ACTIVATIONS:
        raise UnsupportedError(f"{owner}: onnx carries {', '.join(_ACTIVATIONS)}, linear; received {name}")
    return _ACTIVATIONS[name]


class Graph:
    """Nodes and constants; values are known by their names."""

    def __init__(self) -> None:
        self.onnx = needed("onnx", "an .onnx file", "onnx")
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}

    def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node with one output: its name."""
        return self.add_several(op, inputs, 1, **attributes)[0]

    def add_several(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        names = [f"{op}_{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, **attributes))
        return names

    def constant(self, name: str, array: Array) -> str:
        self.constants[name] = np.asarray(array, order="C")  # ascontiguousarray would make a number an array of one
        return name

    def axes(self, *values: int) -> str:
        return self.constant("axes_" + "_".join(map(str, values)), np.array(values, np.int64))

    def activation(self, name: str | None, owner: str, x: str) -> str:
        if name in (None, "linear"):
            return x
        if name == "softmax":
            return self.add("Softmax", [x], axis=-1)
        op, attributes = activation(str(name), owner)
        return self.add(op, [x], **attributes)

    # --- sequences ---

    def time_second(self, y: str) -> str:
        """ONNX's (timesteps, batch, units) and Keras's (batch, timesteps, units), one from the other."""
        return self.add("Transpose", [y], perm=[1, 0, 2])

    def turned(self, y: str) -> str:
        """(batch, timesteps, units) from the last step to the first."""
        last = self.constant("last", np.array([-1], np.int64))
        before = self.constant("before", np.array([-(1 << 62)], np.int64))  # -1 would be the last step once more
        step = [self.axes(1), self.constant("step", np.array([-1], np.int64))]
        return self.add("Slice", [y, last, before, *step])

    def directions(self, y: str, number: int, axis: int = 0) -> list[str]:
        """Of an array with an axis of directions the one of each direction, without that axis."""
        if number == 1:
            return [self.add("Squeeze", [y, self.axes(axis)])]
        index = [self.constant(f"direction_{n}", np.array(n, np.int64)) for n in range(number)]
        return [self.add("Gather", [y, n], axis=axis) for n in index]
