"""TimeDistributed: one layer for every time step, each by itself."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import Array, Convert, KerasLayer
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
            "covered: Dense, Activation, Dropout and TimeDistributed of these"
        )
    return TimeDistributed(inner)


@registry.make.register(TimeDistributed)
def make(layer: TimeDistributed, module: ModuleType, extra: Mapping[str, Any]) -> KerasLayer:
    inner = registry.make(layer.layer, module, {})
    return module.layers.TimeDistributed(inner, dtype=layer.dtype.name, **extra)


@registry.fill.register(TimeDistributed)
def fill(layer: TimeDistributed, keras_layer: KerasLayer) -> None:
    registry.fill(layer.layer, keras_layer.layer)


@registry.describe.register(TimeDistributed)
def describe(layer: TimeDistributed) -> dict[str, Any]:
    return {}


@registry.rebuild.register("time_distributed")
def rebuild(described: Mapping[str, Any], weights: Mapping[str, Array], parts: Mapping[str, Layer]) -> Layer:
    return TimeDistributed(*parts.values())
