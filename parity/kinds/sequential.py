"""Sequential: a model of layers one after another. To and from Keras it goes whole: see `parity.adapters.keras`."""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from parity.kinds import registry
from parity.kinds.registry import Described, Parts, Weights
from parity.ports.c_source import Rows, Source
from parity.ports.onnx_graph import Graph
from parity.ports.packing import below
from rnn_scratch import Dropout, Sequential
from rnn_scratch.base import dotted
from rnn_scratch.layers import Layer
from rnn_scratch.models import Model


@registry.describe.register(Sequential)
def describe(layer: Sequential) -> dict[str, Any]:
    return {}


@registry.rebuild.register("sequential")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    model = Sequential(list(parts.values()))
    model.parts = dict(parts)
    return model


# --- ports ---


@registry.held.register(Model, Sequential)
def held(layer: Model) -> Sequence[Layer]:
    return layer.layers


@registry.onnx.register(Model, Sequential)
def onnx(layer: Model, graph: Graph, path: str, x: str) -> list[str]:
    results = {name: [x] for name in layer.input_names}
    for name, node in layer.nodes.items():
        (fed,) = node.inputs
        results[name] = registry.onnx(node.layer, graph, dotted(path, name), results[fed][0])
    return [result for name in layer.output_names for result in results[name]]


@registry.torch.register(Model, Sequential)
def torch(layer: Model, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    run = {name: registry.torch(part, library, below(name, state)) for name, part in layer.parts.items()}
    (last,) = layer.output_names

    def forward(x: Any) -> Any:
        values = dict.fromkeys(layer.input_names, x)
        for name, node in layer.nodes.items():
            (fed,) = node.inputs
            values[name] = run[name](values[fed])
        return values[last]

    return forward


@registry.c.register(Model, Sequential)
def c(layer: Model, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    written = dict.fromkeys(layer.input_names, x)
    writes = _writes(layer)
    for name, node in layer.nodes.items():
        (fed,) = node.inputs
        to = target if name == writes else None
        written[name] = registry.c(node.layer, source, dotted(path, name), written[fed], to)
    (last,) = layer.output_names
    return written[last]


def _writes(layer: Model) -> str:
    """The node that writes the output: not a Dropout at the end, which would only copy what is before it."""
    (name,) = layer.output_names
    while isinstance(layer.nodes[name].layer, Dropout):
        (fed,) = layer.nodes[name].inputs
        if fed in layer.input_names:
            break
        name = fed
    return name
