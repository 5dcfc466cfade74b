"""ONNX: a layer or model as one graph, x (batch, timesteps, input_dim) and its results as Keras returns them."""

from collections.abc import Mapping
from typing import Any

from parity.kinds import registry
from parity.ports.interface import input_dim, result_names, takes_tokens
from parity.ports.onnx_graph import Graph
from rnn_scratch.base import Array, Layer

_OPSET, _IR = 17, 8
"""The oldest that have all operators used here, so that as many runtimes as can be load them."""


def write(layer: Layer, arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> bytes:
    """The .onnx file. The graph lays out its arrays itself, and holds no manifest."""
    graph = Graph()
    make = graph.onnx.helper
    results = registry.onnx(layer, graph, "", "x")
    names = result_names(layer)
    for result, name in zip(results, names, strict=True):
        graph.nodes.append(make.make_node("Identity", [result], [name]))
    constants = [graph.onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()]
    model = make.make_model(
        make.make_graph(graph.nodes, "keras_parity", [_input(graph, layer)], _outputs(graph, layer, names), constants),
        opset_imports=[make.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="keras-parity",
    )
    graph.onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _features(layer: Layer) -> list[int]:
    return [] if takes_tokens(layer) else [input_dim(layer)]


def _input(graph: Graph, layer: Layer) -> Any:
    proto = graph.onnx.TensorProto
    dtype = proto.INT32 if takes_tokens(layer) else proto.FLOAT
    return graph.onnx.helper.make_tensor_value_info("x", dtype, ["batch", "timesteps", *_features(layer)])


def _outputs(graph: Graph, layer: Layer, names: list[str]) -> list[Any]:
    found = []
    for name, shape in zip(names, layer.output_shapes((1, 1, *_features(layer))), strict=True):
        open_axes = ["batch", "timesteps"] if len(shape) > 2 else ["batch"]
        dtype = graph.onnx.TensorProto.FLOAT
        found.append(graph.onnx.helper.make_tensor_value_info(name, dtype, [*open_axes, shape[-1]]))
    return found
