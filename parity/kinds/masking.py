"""Masking: steps all of whose features have one value are masked for the layers after it."""

from types import ModuleType
from typing import Any

from parity.adapters.keras.precision import dtype_of
from parity.cases.drawing import named_dtype
from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import Convert, Described, Extra, KerasLayer, Parts, Weights
from rnn_scratch import Masking
from rnn_scratch.layers import Layer


@registry.take.register("Masking")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    return Masking(float(layer.mask_value), dtype=dtype_of(layer))


@registry.make.register(Masking)
def make(layer: Masking, module: ModuleType, extra: Extra) -> KerasLayer:
    return module.layers.Masking(layer.mask_value, dtype=layer.dtype.name, **extra)


@registry.fill.register(Masking)
def fill(layer: Masking, keras_layer: KerasLayer) -> None:
    """It has no weights."""


@registry.describe.register(Masking)
def describe(layer: Masking) -> dict[str, Any]:
    return {"mask_value": layer.mask_value}


@registry.rebuild.register("masking")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    return Masking(described["mask_value"], dtype=named_dtype(described["dtype"]))


@registry.expect_portable.register(Masking)
def expect_portable(layer: Masking, to: str) -> None:
    raise UnsupportedError(f"{layer.name}: {to} carries no masks; take {layer.kind} off and mask outside")
