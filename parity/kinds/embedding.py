"""Embedding: the row of a table for each token id."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from parity.adapters.keras.attributes import set_weights, weights_of
from parity.adapters.keras.precision import dtype_of
from parity.cases.case import draw_weight
from parity.kinds import registry
from parity.kinds.registry import Array, Arrays, Convert, KerasLayer
from rnn_scratch import Embedding
from rnn_scratch.layers import Layer


@registry.take.register("Embedding")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    (table,) = weights_of(layer, dtype_of(layer), ("embeddings",))
    return Embedding(table, mask_zero=bool(layer.mask_zero))


@registry.make.register(Embedding)
def make(layer: Embedding, module: ModuleType, extra: Mapping[str, Any]) -> KerasLayer:
    tokens, width = layer.E.shape
    return module.layers.Embedding(tokens, width, mask_zero=layer.mask_zero, dtype=layer.dtype.name, **extra)


@registry.fill.register(Embedding)
def fill(layer: Embedding, keras_layer: KerasLayer) -> None:
    set_weights(keras_layer, [layer.E])


@registry.describe.register(Embedding)
def describe(layer: Embedding) -> dict[str, Any]:
    return {"mask_zero": layer.mask_zero}


@registry.rebuild.register("embedding")
def rebuild(described: Mapping[str, Any], weights: Mapping[str, Array], parts: Mapping[str, Layer]) -> Layer:
    return Embedding(weights.get("E"), mask_zero=described["mask_zero"])


@registry.draw.register(Embedding)
def draw(layer: Embedding, rng: np.random.Generator, distribution: str) -> Arrays:
    return {"E": draw_weight(rng, distribution, "E", layer.E.shape, None)}
