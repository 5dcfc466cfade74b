"""The manifest of a port: for each layer its arrays, from which of Keras's weights, how turned and in which order."""

from collections.abc import Mapping
from typing import Any

from parity.kinds import registry
from parity.ports.layouts import Layout
from parity.ports.packing import Entry, entries
from rnn_scratch.base import Layer, dotted

MANIFEST = "manifest.json"
"""Its name among the arrays of an .npz file."""


def manifest(layer: Layer, to: str, layout: Layout, versions: Mapping[str, str]) -> dict[str, Any]:
    """As JSON has it. to: the format. versions: of what the layer was taken from."""
    return {
        "format": to,
        "layout": layout.name,
        "rule": layout.rule,
        "first": layout.first,
        "layers": [_told(entry, entry.path or layer.name, layout) for entry in entries(layer, layout)],
        "versions": dict(versions),
    }


def _told(entry: Entry, name: str, layout: Layout) -> dict[str, Any]:
    layer = entry.layer
    found = {"layer": name, "kind": layer.kind}
    if registry.in_manifest.knows(layer):
        found |= registry.in_manifest(layer, layout)
    arrays = []
    for own, array in entry.arrays(layout).items():
        what = {"name": dotted(entry.path, own), "shape": list(array.shape), "dtype": array.dtype.name}
        arrays.append({**what, **registry.origin(layer, layout, own)})
    return {**found, "arrays": arrays}
