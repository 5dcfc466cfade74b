"""Activation: a function of each number, or of each step's last axis, and nothing else."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from parity.adapters.keras.attributes import activation_in, activation_name
from parity.adapters.keras.precision import dtype_of
from parity.cases.case import named_dtype
from parity.kinds import registry
from parity.kinds.registry import Array, Convert, KerasLayer
from rnn_scratch import Activation
from rnn_scratch.layers import Layer


@registry.take.register("Activation")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    return Activation(activation_name(layer), dtype=dtype_of(layer))


@registry.make.register(Activation)
def make(layer: Activation, module: ModuleType, extra: Mapping[str, Any]) -> KerasLayer:
    name = activation_in(module, layer.activation.name)
    return module.layers.Activation(name, dtype=layer.dtype.name, **extra)


@registry.fill.register(Activation)
def fill(layer: Activation, keras_layer: KerasLayer) -> None:
    """It has no weights."""


@registry.describe.register(Activation)
def describe(layer: Activation) -> dict[str, Any]:
    return {"activation": layer.activation.name}


@registry.rebuild.register("activation")
def rebuild(described: Mapping[str, Any], weights: Mapping[str, Array], parts: Mapping[str, Layer]) -> Layer:
    return Activation(described["activation"], dtype=named_dtype(described["dtype"]))
