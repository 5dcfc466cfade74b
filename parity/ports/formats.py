"""Ports: a layer or model written as the other side loads it, in every format that there is.

Weights in a layout (`npz`, `safetensors`, a `torch` state dict) and, of whole layers, an `onnx` graph and a `c` header.
What a format cannot carry is refused by name; nothing is left out silently.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from parity.candidates.weights import Weights
from parity.errors import InputError, UnsupportedError
from parity.extras import needed
from parity.kinds import registry
from parity.ports import c, onnx, torch
from parity.ports.interface import leaves
from parity.ports.layouts import Arrays, Layout, layout_named
from parity.ports.manifest import MANIFEST, manifest
from parity.ports.packing import packed, weights_in
from rnn_scratch.base import Array, Layer

_Writer = Callable[[Layer, Mapping[str, Array], Mapping[str, Any]], bytes]
"""The layer, its arrays in the layout and the manifest -> the bytes of the file."""


@dataclass(frozen=True)
class Format:
    """suffix: of its files. layout: its own, or the default one of weights alone. candidate: the path of a file and its
    layer -> what `check` takes; MissingExtraError where there is nothing to run it with. carries: the open function by
    which each kind of layer goes into it; None for weights alone, whose settings are not its affair."""

    suffix: str
    layout: str
    write: _Writer
    candidate: Callable[[str, Layer], Any]
    carries: registry.Open[..., Any] | None = None


@dataclass(frozen=True)
class Port:
    """What `write` made: the bytes of the file, the manifest, and the layer that it is of."""

    data: bytes
    manifest: Mapping[str, Any]
    layer: Layer


def write(layer: Layer, to: str, layout: str | None = None, versions: Mapping[str, str] | None = None) -> Port:
    """A layer or model in that format. Raises InputError for an unknown format or layout, UnsupportedError for what the
    format cannot carry, MissingExtraError where its library is not installed."""
    if to not in FORMATS:
        raise InputError(f"to: expected {', '.join(FORMATS)}; received {to!r}")
    kind = FORMATS[to]
    if kind.carries is not None:
        if layout not in (None, kind.layout):
            raise InputError(f"layout: {to} has its own, {kind.layout}; received {layout!r}")
        _expect_carried(layer, to, kind.carries)
    chosen = layout_named(layout or kind.layout)
    arrays = _every_array(layer, to, chosen)
    told = manifest(layer, to, chosen, versions or {})
    return Port(kind.write(layer, arrays, told), told, layer)


def _expect_carried(layer: Layer, to: str, carries: registry.Open[..., Any]) -> None:
    """UnsupportedError for what that format cannot carry."""
    for part in leaves(layer):
        if part.dtype != np.float32:
            raise UnsupportedError(f"{part.name}: {to} is written in float32; the layer computes in {part.dtype}")
        if registry.expect_portable.knows(part):
            registry.expect_portable(part, to)
        if not carries.knows(part):
            raise UnsupportedError(f"{part.name}: {to} does not carry {part.kind}")


def _every_array(layer: Layer, to: str, layout: Layout) -> Arrays:
    arrays = packed(layer, layout)
    try:
        weights_in(arrays, layer, layout)
    except InputError as error:
        raise UnsupportedError(f"{layer.name}: {to} cannot be written so that it is read back: {error}") from None
    return arrays


# --- weights alone ---


def _npz(layer: Layer, arrays: Mapping[str, Array], told: Mapping[str, Any]) -> bytes:
    file = BytesIO()
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    np.savez(file, allow_pickle=False, **{MANIFEST: text}, **arrays)
    return file.getvalue()


def _safetensors(layer: Layer, arrays: Mapping[str, Array], told: Mapping[str, Any]) -> bytes:
    library = needed("safetensors.numpy", "a .safetensors file", "safetensors")
    return bytes(library.save(dict(arrays), metadata={"manifest": json.dumps(told)}))


def _weights(path: str, layer: Layer) -> Weights:
    return Weights(path)


def _path(path: str, layer: Layer) -> str:
    return path


# --- every format ---

FORMATS = {
    "npz": Format(".npz", "notebook", _npz, _weights),
    "safetensors": Format(".safetensors", "notebook", _safetensors, _weights),
    "torch": Format(".pt", "torch", torch.write, torch.loaded, carries=registry.torch),
    "onnx": Format(".onnx", "onnx", onnx.write, _path, carries=registry.onnx),
    "c": Format(".h", "keras", c.write, c.compiled, carries=registry.c),
}
