"""Layers as data: what JSON has of them, and how they come of it and their arrays again."""

import json
from collections.abc import Mapping
from typing import Any

from parity.golden.archive import Array, below
from parity.kinds import registry
from rnn_scratch.layers import Layer

Described = Mapping[str, Any]


def describe(layer: Layer) -> dict[str, Any]:
    """A layer without its arrays."""
    found: dict[str, Any] = {"kind": layer.kind, "name": layer.name, "dtype": layer.dtype.name}
    found |= registry.describe(layer)
    if layer.parts:
        found["parts"] = [[name, describe(part)] for name, part in layer.parts.items()]
    return found


def rebuild(described: Described, weights: Mapping[str, Array]) -> Layer:
    """The layer of a description and its arrays by name. ValueError for what describes no such layer."""
    layer = _rebuild(described, weights)
    # A file may say what it likes: only what would be written again just so is believed.
    if json.loads(json.dumps(describe(layer))) != described or layer.weights.keys() != weights.keys():
        raise ValueError(f"{described['name']}: its settings or arrays are not those of such a layer")
    return layer


def _rebuild(described: Described, weights: Mapping[str, Array]) -> Layer:
    kind = described["kind"]
    if kind not in registry.rebuild:
        raise ValueError(f"no layer of the kind {kind!r}")
    parts = {}
    for name, inner in described.get("parts", []):
        parts[name] = _rebuild(inner, below(f"{name}.", weights))
    layer = registry.rebuild[kind](described, weights, parts)
    layer.name = described["name"]
    return layer
