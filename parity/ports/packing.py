"""Every array of a layer or model, by its name in a layout; and back, none left out."""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from parity.errors import InputError, UnsupportedError
from parity.kinds import registry
from parity.ports.layouts import LAYOUTS, Arrays, Layout
from rnn_scratch.base import Array, Layer, dotted


@dataclass(frozen=True)
class Entry:
    """A layer that has arrays of its own, in a model. path: in the layout, "" for a model of that layer alone. suffix:
    of its arrays' names there. scratch_path: in rnn_scratch."""

    layer: Layer
    path: str
    suffix: str
    scratch_path: str

    def arrays(self, layout: Layout) -> Arrays:
        """Its own ones, by the layout's names without the path."""
        if not registry.arrays.knows(self.layer):
            raise UnsupportedError(f"{self.layer.name}: {layout.name} does not carry {self.layer.kind}")
        return registry.arrays(self.layer, layout, self.suffix)


def entries(layer: Layer, layout: Layout) -> Iterator[Entry]:
    """The layers with arrays of their own, in their order."""
    return _entries(Entry(layer, "", "", ""), layout)


def _entries(entry: Entry, layout: Layout) -> Iterator[Entry]:
    layer = entry.layer
    if layer.own_weights:
        yield entry
    beside: Mapping[str, str] = {}
    if registry.suffixes.knows(layer):
        beside = registry.suffixes(layer, layout)
    for name, part in layer.parts.items():
        path = entry.path if name in beside else dotted(entry.path, name)
        inner = Entry(part, path, beside.get(name, ""), dotted(entry.scratch_path, name))
        yield from _entries(inner, layout)


def packed(layer: Layer, layout: Layout) -> Arrays:
    """Every array of a layer or model, by its name in that layout; a layer's own name stands before where it has parts.

    Raises UnsupportedError for a layer that the library has no like of.
    """
    found = {}
    for entry in entries(layer, layout):
        for name, array in entry.arrays(layout).items():
            found[dotted(entry.path, name)] = np.ascontiguousarray(array)  # safetensors writes memory as it lies
    return found


def unpacked(layer: Layer, layout: Layout, arrays: Mapping[str, Array]) -> Layer:
    """The layer with the weights that stand in those arrays. InputError for one that is missing or does not fit."""
    return layer.replace(**weights_in(arrays, layer, layout))


def weights_in(arrays: Mapping[str, Array], layer: Layer, layout: Layout) -> Arrays:
    """Every weight of the layer, by rnn_scratch's names; raises as `unpacked` does."""
    _expect_floats(arrays)
    own: Arrays = {}  # and not the layer's weights, which would stand in for whatever the arrays lack
    for entry in entries(layer, layout):
        found = registry.from_arrays(entry.layer, layout, below(entry.path, arrays), entry.suffix)
        for name, array in found.items():
            # not the layer's dtype: under a mixed policy it may keep some of its arrays wider
            dtype = entry.layer.own_weights[name].dtype
            own[dotted(entry.scratch_path, name)] = array.astype(dtype, copy=False)
    missing = [name for name in layer.weights if name not in own]
    if missing:
        raise InputError(f"{layer.name}: expected every weight; there is no {', '.join(missing)} in {layout.name}")
    return own


def _expect_floats(arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise InputError(f"{name}: expected floating-point numbers; received {array.dtype}")


def below(path: str, arrays: Mapping[str, Array]) -> Arrays:
    """Those whose names begin with that path, by the rest of their names."""
    start = dotted(path, "")  # with its dot, for rnn is not the path of rnn_1.W
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


# --- which layout is this ---


def recognised(layer: Layer, arrays: Mapping[str, Array], name: str | None = None) -> tuple[Layout, Arrays]:
    """The layout, of all or of that name, whose names and shapes those arrays have for that layer, and the arrays by
    its names; none is left over but what its library keeps beside. What all names begin with, as `rnn.` or `lstm/`,
    may be any. InputError where none fits."""
    known = _known(layer) if name is None else {name: packed(layer, LAYOUTS[name])}
    bare = _bare(arrays)
    for found, like in known.items():
        start = _shared(like)
        aside = {name.removeprefix(start) for name in _unread(layer, LAYOUTS[found])}
        read = {key: array for key, array in bare.items() if key not in aside}
        if _listed(read) == _listed(_bare(like)):
            return LAYOUTS[found], {start + key: array for key, array in read.items()}
    nearest = max(known, key=lambda found: len(known[found].keys() & bare.keys()))
    expected, received = (", ".join(_listed(each))[:300] for each in (known[nearest], arrays))
    raise InputError(
        f"expected the weights of {layer.name} in a layout ({', '.join(known)}), "
        f"in {nearest} {expected}; received {received or 'none'}"
    )


def _known(layer: Layer) -> dict[str, Arrays]:
    """The layer in every layout that has its like; UnsupportedError where none has."""
    known = {}
    for layout in LAYOUTS.values():
        with contextlib.suppress(UnsupportedError):
            known[layout.name] = packed(layer, layout)
    return known or {"notebook": packed(layer, LAYOUTS["notebook"])}


def _unread(layer: Layer, layout: Layout) -> Iterator[str]:
    """The names of what may stand there beside the layer's arrays."""
    for entry in entries(layer, layout):
        if registry.unread.knows(entry.layer):
            for name in registry.unread(entry.layer, layout):
                yield dotted(entry.path, name)


def _bare(arrays: Mapping[str, Array]) -> Arrays:
    start = _shared(arrays)
    return {name.removeprefix(start): array for name, array in arrays.items()}


def _shared(names: Collection[str]) -> str:
    """What all of them begin with, up to a dot or a slash."""
    first, last = min(names, default=""), max(names, default="")  # between them lie all the others
    same = len(first)
    for n, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            same = n
            break
    return "".join(re.findall(r"[^./]*[./]", first[:same]))


def _listed(arrays: Mapping[str, Array]) -> list[str]:
    return sorted(f"{name} {array.shape}" for name, array in arrays.items())
