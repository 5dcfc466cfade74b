"""Bidirectional: two recurrent layers over one sequence, one of them from its end."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import Array, Convert, KerasLayer
from rnn_scratch import Bidirectional
from rnn_scratch.layers import Layer, Recurrent


@registry.within.register("Bidirectional")
def within(layer: KerasLayer) -> Sequence[KerasLayer]:
    return layer.forward_layer, layer.backward_layer


@registry.take.register("Bidirectional")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    forward, backward = (_half(layer, convert(half)) for half in within(layer))
    return Bidirectional(forward, backward, merge_mode=layer.merge_mode)


def _half(layer: KerasLayer, half: Layer) -> Recurrent:
    if not isinstance(half, Recurrent):
        raise UnsupportedError(
            f"{layer.name}: Bidirectional of {half.kind} is not covered; covered: {registry.covered()}"
        )
    return half


@registry.make.register(Bidirectional)
def make(layer: Bidirectional, module: ModuleType, extra: Mapping[str, Any]) -> KerasLayer:
    # Keras sets zero_output_for_mask of both halves itself, and refuses it beside return_sequences=False.
    forward, backward = (registry.make(half, module, {"zero_output_for_mask": False}) for half in layer.directions)
    name = {"name": extra["name"]} if "name" in extra else {}
    return module.layers.Bidirectional(
        forward, merge_mode=layer.merge_mode, backward_layer=backward, dtype=layer.dtype.name, **name
    )


@registry.fill.register(Bidirectional)
def fill(layer: Bidirectional, keras_layer: KerasLayer) -> None:
    for own, half in zip(layer.directions, within(keras_layer), strict=True):
        registry.fill(own, half)


@registry.describe.register(Bidirectional)
def describe(layer: Bidirectional) -> dict[str, Any]:
    return {"merge_mode": layer.merge_mode}


@registry.rebuild.register("bidirectional")
def rebuild(described: Mapping[str, Any], weights: Mapping[str, Array], parts: Mapping[str, Layer]) -> Layer:
    forward, backward = parts.values()
    assert isinstance(forward, Recurrent)
    assert isinstance(backward, Recurrent)
    return Bidirectional(forward, backward, merge_mode=described["merge_mode"])
