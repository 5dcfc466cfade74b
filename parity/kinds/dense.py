"""Dense: y = activation(W x + b) at every step."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from parity.adapters.keras.attributes import activation_in, activation_name, set_weights, weights_of
from parity.adapters.keras.precision import dtype_of
from parity.cases.case import draw_weight
from parity.kinds import registry
from parity.kinds.registry import Array, Arrays, Convert, KerasLayer
from rnn_scratch import Dense
from rnn_scratch.layers import Layer


@registry.take.register("Dense")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    kernel, *bias = weights_of(layer, dtype_of(layer), ("kernel", "bias"))
    return Dense(kernel.T, *bias, activation=activation_name(layer))


@registry.make.register(Dense)
def make(layer: Dense, module: ModuleType, extra: Mapping[str, Any]) -> KerasLayer:
    activation = activation_in(module, layer.activation.name)
    settings = {"activation": activation, "use_bias": layer.use_bias, "dtype": layer.dtype.name, **extra}
    return module.layers.Dense(layer.units, **settings)


@registry.fill.register(Dense)
def fill(layer: Dense, keras_layer: KerasLayer) -> None:
    set_weights(keras_layer, [layer.W.T, *([layer.b] if layer.use_bias else [])])


@registry.example.register("Dense")
def example(rng: np.random.Generator) -> Layer:
    return Dense(rng.standard_normal((3, 2)), rng.standard_normal(3))


@registry.describe.register(Dense)
def describe(layer: Dense) -> dict[str, Any]:
    return {"use_bias": layer.use_bias, "activation": layer.activation.name}


@registry.rebuild.register("dense")
def rebuild(described: Mapping[str, Any], weights: Mapping[str, Array], parts: Mapping[str, Layer]) -> Layer:
    return Dense(weights.get("W"), weights.get("b"), activation=described["activation"])


@registry.draw.register(Dense)
def draw(layer: Dense, rng: np.random.Generator, distribution: str) -> Arrays:
    return {name: draw_weight(rng, distribution, name, array.shape, None) for name, array in layer.weights.items()}
