"""Dropout, and every layer beside it that only matters in training: y = x."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from parity.adapters.keras.precision import dtype_of
from parity.cases.drawing import named_dtype
from parity.kinds import registry
from parity.kinds.registry import Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports.c_source import Rows, Source
from parity.ports.onnx_graph import Graph
from rnn_scratch import Dropout
from rnn_scratch.layers import Layer


@registry.take.register(
    "Dropout",
    "SpatialDropout1D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
)
def take(layer: KerasLayer, convert: Convert) -> Layer:
    return Dropout(dtype=dtype_of(layer))


@registry.make.register(Dropout)
def make(layer: Dropout, module: ModuleType, extra: Extra) -> KerasLayer:
    return module.layers.Dropout(0.0, dtype=layer.dtype.name, **extra)


@registry.fill.register(Dropout)
def fill(layer: Dropout, keras_layer: KerasLayer) -> None:
    """It has no weights."""


@registry.describe.register(Dropout)
def describe(layer: Dropout) -> dict[str, Any]:
    return {}


@registry.rebuild.register("dropout")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    return Dropout(dtype=named_dtype(described["dtype"]))


# --- ports ---


@registry.onnx.register(Dropout)
def onnx(layer: Dropout, graph: Graph, path: str, x: str) -> list[str]:
    return [x]


@registry.torch.register(Dropout)
def torch(layer: Dropout, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    return lambda x: x


@registry.c.register(Dropout)
def c(layer: Dropout, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    if target is None:
        return x
    source.add(f"""
    for (size_t n = 0; n < (size_t){x.steps} * {source.width}; n++)
        {target}[n] = {x.name}[n];""")
    return Rows(target, x.steps)
