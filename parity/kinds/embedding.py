"""Embedding: the row of a table for each token id."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from parity.adapters.keras.attributes import set_weights, weights_of
from parity.adapters.keras.precision import dtype_of
from parity.cases.drawing import draw_weight
from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import Array, Arrays, Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports.c_source import Rows, Source, plain
from parity.ports.layouts import Layout, expect_arrays
from parity.ports.onnx_graph import Graph
from rnn_scratch import Embedding
from rnn_scratch.layers import Layer


@registry.take.register("Embedding")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    (table,) = weights_of(layer, dtype_of(layer), ("embeddings",))
    return Embedding(table, mask_zero=bool(layer.mask_zero))


@registry.make.register(Embedding)
def make(layer: Embedding, module: ModuleType, extra: Extra) -> KerasLayer:
    tokens, width = layer.E.shape
    return module.layers.Embedding(tokens, width, mask_zero=layer.mask_zero, dtype=layer.dtype.name, **extra)


@registry.fill.register(Embedding)
def fill(layer: Embedding, keras_layer: KerasLayer) -> None:
    set_weights(keras_layer, [layer.E])


@registry.describe.register(Embedding)
def describe(layer: Embedding) -> dict[str, Any]:
    return {"mask_zero": layer.mask_zero}


@registry.rebuild.register("embedding")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    return Embedding(weights.get("E"), mask_zero=described["mask_zero"])


@registry.draw.register(Embedding)
def draw(layer: Embedding, rng: np.random.Generator, distribution: str) -> Arrays:
    return {"E": draw_weight(rng, distribution, "E", layer.E.shape)}


# --- ports ---

_NAMES = {"keras": "embeddings", "torch": "weight"}
"""By layout; in the others E."""


@registry.arrays.register(Embedding)
def arrays(layer: Embedding, layout: Layout, suffix: str) -> Arrays:
    return {_NAMES.get(layout.name, "E"): layer.E}


@registry.from_arrays.register(Embedding)
def from_arrays(layer: Embedding, layout: Layout, found: Mapping[str, Array], suffix: str) -> Arrays:
    expected = arrays(layer, layout, suffix)
    expect_arrays(expected, found)
    (name,) = expected
    return {"E": found[name]}


@registry.origin.register(Embedding)
def origin(layer: Embedding, layout: Layout, name: str) -> dict[str, Any]:
    return {"from": "embeddings", "transposed": False}


@registry.expect_portable.register(Embedding)
def expect_portable(layer: Embedding, to: str) -> None:
    if layer.mask_zero:
        raise UnsupportedError(f"{layer.name}: {to} carries no masks; take {layer.kind} off and mask outside")


@registry.onnx.register(Embedding)
def onnx(layer: Embedding, graph: Graph, path: str, x: str) -> list[str]:
    return [graph.add("Gather", [graph.constant(f"{path}.E", layer.E), x])]


@registry.torch.register(Embedding)
def torch(layer: Embedding, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    module = library.nn.Embedding(*layer.E.shape)
    module.load_state_dict(dict(state))
    return lambda x: module(x.long())


@registry.c.register(Embedding)
def c(layer: Embedding, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    width = layer.units
    y = source.output(width, target)
    table = source.array(f"{path}.E", layer.E, f"one row a token, {layer.E.shape}")
    source.add(f"""
    for (int t = 0; t < {x.steps}; t++) /* {plain(layer.name)}: x holds token ids */
        for (int n = 0; n < {width}; n++)
            {y}[(size_t)t * {width} + n] = {table}[(int){x.name}[t]][n];""")
    return Rows(y, x.steps)
