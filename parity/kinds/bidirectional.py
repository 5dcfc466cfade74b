"""Bidirectional: two recurrent layers over one sequence, one of them from its end."""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.recurrent import c_direction, expect_both_portable, onnx_node, torch_module
from parity.kinds.registry import Convert, Described, Extra, KerasLayer, Parts, Weights
from parity.ports.c_loop import Output
from parity.ports.c_source import Rows, Source
from parity.ports.layouts import Layout
from parity.ports.onnx_graph import Graph
from rnn_scratch import Bidirectional
from rnn_scratch.base import dotted
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
def make(layer: Bidirectional, module: ModuleType, extra: Extra) -> KerasLayer:
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
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    forward, backward = parts.values()
    assert isinstance(forward, Recurrent)
    assert isinstance(backward, Recurrent)
    return Bidirectional(forward, backward, merge_mode=described["merge_mode"])


# --- ports ---


@registry.suffixes.register(Bidirectional)
def suffixes(layer: Bidirectional, layout: Layout) -> Mapping[str, str]:
    if layout.reverse is None:
        return {}
    forward, backward = layer.parts
    return {forward: "", backward: layout.reverse}


@registry.expect_portable.register(Bidirectional)
def expect_portable(layer: Bidirectional, to: str) -> None:
    expect_both_portable(layer, layer.directions, to)
    if to in ("onnx", "torch"):  # which have one operator for both directions
        _expect_alike(layer, to)


def _expect_alike(layer: Bidirectional, to: str) -> None:
    forward, backward = layer.directions
    said = [_described(half, to) for half in layer.directions]
    if said[0] != said[1]:
        raise UnsupportedError(f"{layer.name}: {to} has directions that are alike; received {' and '.join(said)}")
    if forward.go_backwards or not backward.go_backwards:
        turned = " and ".join(str(half.go_backwards) for half in layer.directions)
        raise UnsupportedError(f"{layer.name}: {to} has go_backwards False and True; received {turned}")


def _described(half: Recurrent, to: str) -> str:
    """All that must be the same in both directions."""
    words = [f"{half.kind} of {half.units} units", "with a bias" if half.cell.use_bias else "without a bias"]
    if to == "torch":
        words.append(half.cell.settings["activation"])
    return " ".join(words)


@registry.onnx.register(Bidirectional)
def onnx(layer: Bidirectional, graph: Graph, path: str, x: str) -> list[str]:
    y, finals = onnx_node(graph, layer.directions, path, x, "bidirectional")
    sequences = [graph.time_second(half) for half in graph.directions(y, 2, axis=1)]
    output = _onnx_merged(graph, layer.merge_mode, sequences if layer.return_sequences else finals[0])
    forward, backward = zip(*finals, strict=True)
    return [*output, *forward, *backward] if layer.return_state else output


def _onnx_merged(graph: Graph, mode: str | None, halves: Sequence[str]) -> list[str]:
    if mode is None:
        return list(halves)
    if mode == "concat":
        return [graph.add("Concat", halves, axis=-1)]
    if mode == "mul":
        return [graph.add("Mul", halves)]
    total = graph.add("Add", halves)
    if mode == "sum":
        return [total]
    return [graph.add("Mul", [total, graph.constant("half", np.array(0.5, np.float32))])]


@registry.torch.register(Bidirectional)
def torch(layer: Bidirectional, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    forward = layer.directions[0]
    called = torch_module(library, forward, state, bidirectional=True)

    def run(x: Any) -> Any:
        y, finals = called(x)
        halves = list(finals[0])
        if layer.return_sequences:
            halves = [y[..., : forward.units], y[..., forward.units :]]
        # torch.cat, for NumPy's concatenate, which merge calls, makes arrays of tensors
        output = library.cat(halves, -1) if layer.merge_mode == "concat" else layer.merge(*halves)
        if not layer.return_state:
            return output
        outputs = output if isinstance(output, tuple) else (output,)
        return (*outputs, *(final[0] for final in finals), *(final[1] for final in finals))

    return run


@registry.c.register(Bidirectional)
def c(layer: Bidirectional, source: Source, path: str, x: Rows, target: str | None) -> Rows:
    y = source.output(layer.units, target)
    if layer.merge_mode is None:
        raise UnsupportedError(f"{layer.name}: the C port has one output; merge_mode=None has two")
    forward, backward = layer.directions
    first, second = (dotted(path, name) for name in layer.parts)
    how = {"concat": "=", "mul": "*="}.get(layer.merge_mode, "+=")
    offset = forward.units if layer.merge_mode == "concat" else 0
    c_direction(source, forward, first, x.name, Output(y, layer.units), backwards=forward.go_backwards)
    onto = Output(y, layer.units, offset, how, turned=True)
    c_direction(source, backward, second, x.name, onto, backwards=backward.go_backwards)
    count = x.steps if layer.return_sequences else "1"
    if layer.merge_mode == "ave":
        source.add(f"    for (size_t n = 0; n < (size_t){count} * {layer.units}; n++)\n        {y}[n] *= 0.5f;")
    return Rows(y, count)
