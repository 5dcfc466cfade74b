"""BatchNormalization as in inference: each feature by statistics that are known."""

from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from parity.adapters.keras.attributes import set_weights, weights_of
from parity.adapters.keras.library import family
from parity.adapters.keras.precision import dtype_of
from parity.cases.drawing import draw_weight, named_dtype
from parity.errors import InputError, UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import Array, Arrays, Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports.c_source import Rows, Source, plain
from parity.ports.layouts import Layout, expect_arrays
from parity.ports.onnx_graph import Graph
from rnn_scratch import BatchNormalization
from rnn_scratch.layers import Layer

_KERAS = ("gamma", "beta", "moving_mean", "moving_variance")


@registry.take.register("BatchNormalization")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    dtype = dtype_of(layer)
    # of 16 bits the mean would be another one: Keras reads its arrays as they are stored
    stored = _stored_dtype(layer) if dtype.itemsize == 2 else dtype
    names = [name for name in _KERAS if getattr(layer, name, None) is not None]
    found = dict(zip(names, weights_of(layer, stored, names), strict=False))  # renorm keeps more, for training
    _expect_last_axis(layer)
    _expect_no_negative(layer, found["moving_variance"])
    gamma, beta, mean, variance = (found.get(name) for name in _KERAS)
    return BatchNormalization(gamma, beta, mean, variance, epsilon=float(layer.epsilon), dtype=dtype)


def _stored_dtype(layer: KerasLayer) -> np.dtype[Any]:
    return named_dtype("float32" if family(layer) == "tf_keras" else str(layer.variable_dtype))


def _expect_last_axis(layer: KerasLayer) -> None:
    if getattr(layer, "virtual_batch_size", None) is not None:
        raise UnsupportedError(f"{layer.name}: BatchNormalization with virtual_batch_size is not covered")
    spec = layer.input_spec
    if [axis % spec.ndim for axis in spec.axes] == [spec.ndim - 1]:
        return
    axes = ", ".join(map(str, spec.axes))
    raise UnsupportedError(
        f"{layer.name}: BatchNormalization over axis {axes} of {spec.ndim} is not covered; covered: the last axis"
    )


def _expect_no_negative(layer: KerasLayer, variance: Array) -> None:
    if (variance < 0).any():
        raise InputError(f"{layer.name}: moving_variance: expected no negative numbers; received {variance.min()}")


@registry.make.register(BatchNormalization)
def make(layer: BatchNormalization, module: ModuleType, extra: Extra) -> KerasLayer:
    settings = {"epsilon": layer.epsilon, "scale": layer.scale, "center": layer.center}
    return module.layers.BatchNormalization(**{**settings, "dtype": _policy(layer, module), **extra})


def _policy(layer: BatchNormalization, module: ModuleType) -> str:
    # Keras 2 keeps float32 arrays for 16 bits whatever the policy, and takes no name of a mixed one here
    mixed = layer.mean.dtype != layer.dtype and module.__name__ != "tf_keras"
    return f"mixed_{layer.dtype.name}" if mixed else layer.dtype.name


@registry.fill.register(BatchNormalization)
def fill(layer: BatchNormalization, keras_layer: KerasLayer) -> None:
    set_weights(keras_layer, layer.own_weights.values())


@registry.example.register("BatchNormalization")
def example(rng: np.random.Generator) -> Layer:
    gamma, beta, mean = rng.standard_normal((3, 2))
    return BatchNormalization(gamma, beta, mean, rng.random(2))


@registry.describe.register(BatchNormalization)
def describe(layer: BatchNormalization) -> dict[str, Any]:
    return {"epsilon": layer.epsilon, "scale": layer.scale, "center": layer.center}


@registry.rebuild.register("batch_normalization")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    arrays = [weights.get(name) for name in BatchNormalization.arrays]
    return BatchNormalization(*arrays, epsilon=described["epsilon"], dtype=named_dtype(described["dtype"]))


@registry.draw.register(BatchNormalization)
def draw(layer: BatchNormalization, rng: np.random.Generator, distribution: str) -> Arrays:
    """The variance positive, and gamma around one: what was trained is so."""
    drawn = {name: draw_weight(rng, distribution, "b", array.shape) for name, array in layer.own_weights.items()}
    drawn["variance"] = np.exp2(drawn["variance"])
    if layer.scale:
        drawn["gamma"] = 1 + drawn["gamma"] / 2
    return drawn


# --- arrays in the layouts of other libraries ---

_NAMES = {"keras": _KERAS, "torch": ("weight", "bias", "running_mean", "running_var")}
"""By layout; in the others rnn_scratch's own."""

_NEUTRAL = {"gamma": (np.ones_like, "ones"), "beta": (np.zeros_like, "zeros")}
"""What stands for one that there is not."""


@registry.arrays.register(BatchNormalization)
def arrays(layer: BatchNormalization, layout: Layout, suffix: str) -> Arrays:
    return {_called(layout)[own]: getattr(layer, own) for own in _written(layer, layout)}


def _called(layout: Layout) -> dict[str, str]:
    """By rnn_scratch's names, the layout's."""
    return dict(zip(BatchNormalization.arrays, _NAMES.get(layout.name, BatchNormalization.arrays), strict=True))


def _written(layer: BatchNormalization, layout: Layout) -> Collection[str]:
    """rnn_scratch's names. Torch has gamma and beta both or neither."""
    both = layout.name == "torch" and (layer.scale or layer.center)
    return BatchNormalization.arrays if both else layer.own_weights


@registry.from_arrays.register(BatchNormalization)
def from_arrays(layer: BatchNormalization, layout: Layout, found: Mapping[str, Array], suffix: str) -> Arrays:
    expected = arrays(layer, layout, suffix)
    expect_arrays(expected, found)
    called = _called(layout)
    given = {own: found[called[own]] for own in _written(layer, layout)}
    for own in given.keys() - layer.own_weights.keys():
        make_neutral, told = _NEUTRAL[own]
        if not np.array_equal(given[own], make_neutral(given[own])):
            raise InputError(f"{called[own]}: expected {told}, for {layer.name} has no {own}")
    return {own: given[own] for own in layer.own_weights}


@registry.unread.register(BatchNormalization)
def unread(layer: BatchNormalization, layout: Layout) -> Collection[str]:
    return ("num_batches_tracked",) if layout.name == "torch" else ()


@registry.origin.register(BatchNormalization)
def origin(layer: BatchNormalization, layout: Layout, name: str) -> dict[str, Any]:
    own = next(own for own, theirs in _called(layout).items() if theirs == name)
    there = own in layer.own_weights
    return {"from": _KERAS[layer.arrays.index(own)] if there else _NEUTRAL[own][1], "transposed": False}


@registry.in_manifest.register(BatchNormalization)
def in_manifest(layer: BatchNormalization, layout: Layout) -> dict[str, Any]:
    equation = "y = gamma (x - mean) / sqrt(variance + epsilon) + beta"
    return {"equation": equation, "settings": describe(layer)}


# --- ports of the whole layer ---


def _steps(layer: BatchNormalization) -> Iterator[tuple[str, Array]]:
    """(x - mean) * factor + beta, in which large means do no harm: an operator and what is beside x, one by one."""
    variance = layer.variance.astype(np.float64)
    yield "Sub", layer.mean
    yield "Mul", (layer.gamma / np.sqrt(variance + layer.epsilon)).astype(layer.mean.dtype)
    if layer.center:
        yield "Add", layer.beta


@registry.onnx.register(BatchNormalization)
def onnx(layer: BatchNormalization, graph: Graph, path: str, x: str) -> list[str]:
    # not ONNX's operator of that name, which has the features on the second axis
    for op, array in _steps(layer):
        x = graph.add(op, [x, graph.constant(f"{path}.{op}", array)])
    return [x]


@registry.torch.register(BatchNormalization)
def torch(layer: BatchNormalization, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    affine = layer.scale or layer.center
    module = library.nn.BatchNorm1d(layer.units, eps=layer.epsilon, affine=affine).eval()
    module.load_state_dict(dict(state))
    return lambda x: module(x.flatten(0, -2)).reshape(x.shape)


_IN_C = {"Sub": ("-", "mean"), "Mul": ("*", "factor"), "Add": ("+", "beta")}


@registry.c.register(BatchNormalization)
def c(layer: BatchNormalization, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    u = layer.units
    y = source.output(u, target)
    value = f"{x.name}[(size_t)t * {u} + k]"
    for op, array in _steps(layer):
        sign, name = _IN_C[op]
        comment = "gamma / sqrt(variance + epsilon)" if op == "Mul" else "(features)"
        value = f"({value} {sign} {source.array(f'{path}.{name}', array, comment)}[k])"
    source.add(f"""
    for (int t = 0; t < {x.steps}; t++) /* {plain(path or layer.name)}: batch normalization of {u} */
        for (int k = 0; k < {u}; k++)
            {y}[(size_t)t * {u} + k] = {value};""")
    return Rows(y, x.steps)
