"""TimeDistributed: one layer for every time step, each by itself."""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports.c_source import Rows, Source
from parity.ports.onnx_graph import Graph
from parity.ports.packing import below
from rnn_scratch import TimeDistributed
from rnn_scratch.layers import Layer


@registry.within.register("TimeDistributed")
def within(layer: KerasLayer) -> Sequence[KerasLayer]:
    return (layer.layer,)


@registry.take.register("TimeDistributed")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    inner = convert(layer.layer)
    if inner.state_units:
        raise UnsupportedError(
            f"{layer.name}: TimeDistributed of {type(layer.layer).__name__} is not covered; "
            "covered: Dense, Activation, Dropout and others that keep no state"
        )
    return TimeDistributed(inner)


@registry.make.register(TimeDistributed)
def make(layer: TimeDistributed, module: ModuleType, extra: Extra) -> KerasLayer:
    inner = registry.make(layer.layer, module, {})
    return module.layers.TimeDistributed(inner, dtype=layer.dtype.name, **extra)


@registry.fill.register(TimeDistributed)
def fill(layer: TimeDistributed, keras_layer: KerasLayer) -> None:
    registry.fill(layer.layer, keras_layer.layer)


@registry.describe.register(TimeDistributed)
def describe(layer: TimeDistributed) -> dict[str, Any]:
    return {}


@registry.rebuild.register("time_distributed")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    return TimeDistributed(*parts.values())


# --- ports: what is in it goes over the last axis of a sequence as it does over that of a step ---


@registry.held.register(TimeDistributed)
def held(layer: TimeDistributed) -> Sequence[Layer]:
    return (layer.layer,)


@registry.onnx.register(TimeDistributed)
def onnx(layer: TimeDistributed, graph: Graph, path: str, x: str) -> list[str]:
    return registry.onnx(layer.layer, graph, path, x)


@registry.torch.register(TimeDistributed)
def torch(layer: TimeDistributed, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    return registry.torch(layer.layer, library, below("layer", state))


@registry.c.register(TimeDistributed)
def c(layer: TimeDistributed, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    return registry.c(layer.layer, source, path, x, target)
