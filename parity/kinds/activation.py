"""Activation: a function of each number, or of each step's last axis, and nothing else."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from parity.adapters.keras.attributes import activation_in, activation_name
from parity.adapters.keras.precision import dtype_of
from parity.cases.drawing import named_dtype
from parity.kinds import registry
from parity.kinds.registry import Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports import torch as torch_port
from parity.ports.c_source import Rows, Source, applied
from parity.ports.onnx_graph import Graph
from rnn_scratch import Activation
from rnn_scratch.layers import Layer


@registry.take.register("Activation")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    return Activation(activation_name(layer), dtype=dtype_of(layer))


@registry.make.register(Activation)
def make(layer: Activation, module: ModuleType, extra: Extra) -> KerasLayer:
    name = activation_in(module, layer.activation.name)
    return module.layers.Activation(name, dtype=layer.dtype.name, **extra)


@registry.fill.register(Activation)
def fill(layer: Activation, keras_layer: KerasLayer) -> None:
    """It has no weights."""


@registry.describe.register(Activation)
def describe(layer: Activation) -> dict[str, Any]:
    return {"activation": layer.activation.name}


@registry.rebuild.register("activation")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    return Activation(described["activation"], dtype=named_dtype(described["dtype"]))


# --- ports ---


@registry.onnx.register(Activation)
def onnx(layer: Activation, graph: Graph, path: str, x: str) -> list[str]:
    return [graph.activation(layer.activation.name, layer.name, x)]


@registry.torch.register(Activation)
def torch(layer: Activation, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    return torch_port.activation(library, layer.activation.name, layer.name)


@registry.c.register(Activation)
def c(layer: Activation, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    width = source.width  # it has none of its own
    y = source.output(width, target)
    value = applied(layer.activation.name, f"{x.name}[n]", layer.name)
    source.add(f"""
    for (size_t n = 0; n < (size_t){x.steps} * {width}; n++)
        {y}[n] = {value};""")
    return Rows(y, x.steps)
