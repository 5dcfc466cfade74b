"""Sequential: a model of layers one after another. To and from Keras it goes whole: see `parity.adapters.keras`."""

from collections.abc import Mapping
from typing import Any

from parity.kinds import registry
from parity.kinds.registry import Array
from rnn_scratch import Sequential
from rnn_scratch.layers import Layer


@registry.describe.register(Sequential)
def describe(layer: Sequential) -> dict[str, Any]:
    return {}


@registry.rebuild.register("sequential")
def rebuild(described: Mapping[str, Any], weights: Mapping[str, Array], parts: Mapping[str, Layer]) -> Layer:
    model = Sequential(list(parts.values()))
    model.parts = dict(parts)
    return model
