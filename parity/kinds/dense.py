"""Dense: y = activation(W x + b) at every step."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from parity.adapters.keras.attributes import activation_in, activation_name, set_weights, weights_of
from parity.adapters.keras.precision import dtype_of
from parity.cases.drawing import draw_weight
from parity.kinds import registry
from parity.kinds.registry import Array, Arrays, Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports import torch as torch_port
from parity.ports.c_source import Rows, Source, applied, plain
from parity.ports.layouts import Layout, expect_arrays
from parity.ports.onnx_graph import Graph
from rnn_scratch import Dense
from rnn_scratch.layers import Layer


@registry.take.register("Dense")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    kernel, *bias = weights_of(layer, dtype_of(layer), ("kernel", "bias"))
    return Dense(kernel.T, *bias, activation=activation_name(layer))


@registry.make.register(Dense)
def make(layer: Dense, module: ModuleType, extra: Extra) -> KerasLayer:
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
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    return Dense(weights.get("W"), weights.get("b"), activation=described["activation"])


@registry.draw.register(Dense)
def draw(layer: Dense, rng: np.random.Generator, distribution: str) -> Arrays:
    return {name: draw_weight(rng, distribution, name, array.shape) for name, array in layer.weights.items()}


# --- ports ---

_NAMES = {"keras": ("kernel", "bias"), "torch": ("weight", "bias")}
"""By layout; in the others W and b."""


@registry.arrays.register(Dense)
def arrays(layer: Dense, layout: Layout, suffix: str) -> Arrays:
    W, b = _NAMES.get(layout.name, ("W", "b"))
    kernel = np.ascontiguousarray(layer.W.T) if layout.columns else layer.W
    return {W: kernel, b: layer.b} if layer.use_bias else {W: kernel}


@registry.from_arrays.register(Dense)
def from_arrays(layer: Dense, layout: Layout, found: Mapping[str, Array], suffix: str) -> Arrays:
    expected = arrays(layer, layout, suffix)
    expect_arrays(expected, found)
    kernel, *bias = (found[name] for name in expected)
    own = [kernel.T if layout.columns else kernel, *bias]
    return dict(zip(("W", "b"), own, strict=False))


@registry.origin.register(Dense)
def origin(layer: Dense, layout: Layout, name: str) -> dict[str, Any]:
    W, _ = _NAMES.get(layout.name, ("W", "b"))
    if name == W:
        return {"from": "kernel", "transposed": not layout.columns}
    return {"from": "bias", "transposed": False}


@registry.onnx.register(Dense)
def onnx(layer: Dense, graph: Graph, path: str, x: str) -> list[str]:
    y = graph.add("MatMul", [x, graph.constant(f"{path}.W", layer.W.T)])
    if layer.use_bias:
        y = graph.add("Add", [y, graph.constant(f"{path}.b", layer.b)])
    return [graph.activation(layer.activation.name, layer.name, y)]


@registry.torch.register(Dense)
def torch(layer: Dense, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    module = library.nn.Linear(layer.input_dim, layer.units, bias=layer.use_bias)
    module.load_state_dict(dict(state))
    activation = torch_port.activation(library, layer.activation.name, layer.name)
    return lambda x: activation(module(x))


@registry.c.register(Dense)
def c(layer: Dense, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    u, d = layer.units, layer.input_dim
    y = source.output(u, target)
    kernel = source.array(f"{path}.kernel", np.ascontiguousarray(layer.W.T), "(input_dim, units), as Keras has it")
    start = "0.0f"
    if layer.use_bias:
        start = source.array(f"{path}.bias", layer.b, "(units)") + "[k]"
    source.add(f"""
    for (int t = 0; t < {x.steps}; t++) {{ /* {plain(path or layer.name)}: dense, {d} -> {u} */
        const float *x_t = {x.name} + (size_t)t * {d};
        float *z = {y} + (size_t)t * {u};
        for (int k = 0; k < {u}; k++)
            z[k] = {start};
        for (int j = 0; j < {d}; j++)
            for (int k = 0; k < {u}; k++)
                z[k] += {kernel}[j][k] * x_t[j];""")
    source.add(_c_activation(layer))
    source.add("    }")
    return Rows(y, x.steps)


def _c_activation(layer: Dense) -> str:
    """Of the numbers of one step."""
    u, name = layer.units, layer.activation.name
    if name in (None, "linear"):
        return ""
    if name != "softmax":
        return f"        for (int k = 0; k < {u}; k++)\n            z[k] = {applied(name, 'z[k]', layer.name)};"
    return f"""
        float top = z[0], sum = 0.0f;
        for (int k = 1; k < {u}; k++)
            top = fmaxf(top, z[k]);
        for (int k = 0; k < {u}; k++)
            sum += z[k] = expf(z[k] - top);
        for (int k = 0; k < {u}; k++)
            z[k] /= sum;"""
