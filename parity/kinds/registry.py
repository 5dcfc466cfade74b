"""The open functions over kinds of layers: what each takes and returns is said here, how it goes in the kind files.

    @registry.describe.register(Dense)
    def describe(layer: Dense) -> dict[str, Any]: ...

An `Open` function goes by the class of its first argument, a layer of rnn_scratch, as `functools.singledispatch` does.
A `Table` goes by a name, where there is no such layer yet. Both refuse by name what nobody registered.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from parity.errors import UnsupportedError
from parity.kinds import load, place
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Layer

if TYPE_CHECKING:
    from parity.ports.c_source import Rows, Source
    from parity.ports.layouts import Layout
    from parity.ports.onnx_graph import Graph

Array = NDArray[Any]
Arrays = dict[str, Array]

KerasLayer = Any
"""Of Keras 3 or tf_keras, neither of which is imported here or says its types."""

P = ParamSpec("P")
T = TypeVar("T")
L = TypeVar("L", bound=Layer)


class Open(Generic[P, T]):
    """A function of a layer that each kind has its own text for.

    exact: whether a subclass is refused where only its base is registered. Without it the base's text holds for the
    subclass, as a mistake's layer is described or drawn like the layer that it was made of.
    """

    def __init__(self, declared: Callable[Concatenate[Layer, P], T], exact: bool = False) -> None:
        functools.update_wrapper(self, declared)
        self.name, self.exact = declared.__name__, exact
        self._texts = functools.singledispatch(declared)

    def register(self, *kinds: type[L]) -> Callable[[Callable[Concatenate[L, P], T]], Callable[Concatenate[L, P], T]]:
        """A decorator: that function is the text for those classes and, unless `exact`, for what is made of them."""

        def registered(text: Callable[Concatenate[L, P], T]) -> Callable[Concatenate[L, P], T]:
            for kind in kinds:
                self._texts.register(kind, text)
            return text

        return registered

    @property
    def kinds(self) -> list[type[Layer]]:
        """The registered classes, in the order of messages."""
        load()
        texts = {kind: text for kind, text in self._texts.registry.items() if kind is not object}
        return sorted(texts, key=lambda kind: place(texts[kind].__module__))

    def knows(self, layer: object) -> bool:
        load()
        kind = type(layer)
        return kind in self._texts.registry if self.exact else self._texts.dispatch(kind) is not self._refusal

    @property
    def _refusal(self) -> Callable[..., T]:
        return self._texts.registry[object]

    def __call__(self, layer: Layer, *args: P.args, **kwargs: P.kwargs) -> T:
        if not self.knows(layer):
            kind = getattr(layer, "kind", type(layer).__name__)
            raise UnsupportedError(f"{kind}: {self.name}: not known for this kind of layer ({type(layer).__name__})")
        return self._texts(layer, *args, **kwargs)


def _exactly(declared: Callable[Concatenate[Layer, P], T]) -> Open[P, T]:
    return Open(declared, exact=True)


class Table(Generic[T]):
    """Texts of kinds by a name: of a class of Keras's, or of rnn_scratch's `Layer.kind`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._texts: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        def registered(text: T) -> T:
            self._texts.update(dict.fromkeys(names, text))
            return text

        return registered

    def __contains__(self, name: str) -> bool:
        load()
        return name in self._texts

    def __iter__(self) -> Iterator[str]:
        """The names in the order of messages."""
        load()
        return iter(sorted(self._texts, key=lambda name: place(getattr(self._texts[name], "__module__", ""))))

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise UnsupportedError(f"{name}: {self.name}: not known for this kind of layer")
        return self._texts[name]


# --- from Keras and back ---

Convert = Callable[[KerasLayer], Layer]
Extra = Mapping[str, Any]
"""Arguments of Keras's class, by name."""

take: Table[Callable[[KerasLayer, Convert], Layer]] = Table("from_keras")
"""By Keras's class: take(keras_layer, convert) -> rnn_scratch's layer with its weights and settings. convert: takes the
layers within it, whatever they are."""

within: Table[Callable[[KerasLayer], Sequence[KerasLayer]]] = Table("within")
"""By Keras's class, of wrappers alone: within(keras_layer) -> the Keras layers that it wraps, in the order of their
states."""


def covered() -> str:
    """What can be taken from Keras, as messages say it."""
    return ", ".join(take) + ", and Sequential or functional models of these one after another"


@_exactly
def make(layer: Layer, module: ModuleType, extra: Extra) -> KerasLayer:
    """The Keras layer of that one, not built. module: `keras` or `tf_keras`. extra: further arguments of its class, in
    the place of the layer's own."""
    raise NotImplementedError


@_exactly
def fill(layer: Layer, keras_layer: KerasLayer) -> None:
    """Put the layer's weights into the built Keras layer that `make` made of it."""
    raise NotImplementedError


example: Table[Callable[[np.random.Generator], Layer]] = Table("example")
"""By Keras's class of a layer, or of a cell: example(rng) -> a small float64 layer, 2 features in, on which it is
measured whether Keras computes the kind in float64. What has none is taken to compute as Dense does."""

cell: Table[type[Cell]] = Table("cell")
"""By Keras's class of a cell: rnn_scratch's."""

# --- golden files ---


@Open
def describe(layer: Layer) -> dict[str, Any]:
    """The settings of the layer as JSON has them, without what all kinds have (kind, name, dtype, parts)."""
    raise NotImplementedError


Described = Mapping[str, Any]
"""What `describe` said, and the kind, name, dtype and parts."""
Weights = Mapping[str, Array]
Parts = Mapping[str, Layer]

Rebuild = Callable[[Described, Weights, Parts], Layer]

rebuild: Table[Rebuild] = Table("rebuild")
"""By `Layer.kind`: rebuild(described, weights, parts) -> the layer. weights: its own arrays by name. parts: the layers
within it, rebuilt."""

# --- random weights ---


@Open
def draw(layer: Layer, rng: np.random.Generator, distribution: str) -> Arrays:
    """New arrays in float64 in the place of the layer's own ones, by name and in their order, parts left out. Asked
    only of layers that have some.

    distribution: normal, keras, uniform or chaotic; see `parity.cases`.
    """
    raise NotImplementedError


# --- arrays in the layouts of other libraries ---


@Open
def arrays(layer: Layer, layout: "Layout", suffix: str) -> Arrays:
    """The layer's own arrays, parts left out, as the layout has them. suffix: of their names."""
    raise NotImplementedError


@Open
def from_arrays(layer: Layer, layout: "Layout", found: Mapping[str, Array], suffix: str) -> Arrays:
    """The inverse: arrays by rnn_scratch's names. InputError for one that is missing or does not fit the layer."""
    raise NotImplementedError


@Open
def unread(layer: Layer, layout: "Layout") -> Collection[str]:
    """Names of what the layout's library keeps beside the layer's own arrays, and what changes nothing in inference: a
    file of weights may have it. Nothing where there is no text."""
    raise NotImplementedError


@Open
def suffixes(layer: Layer, layout: "Layout") -> Mapping[str, str]:
    """By part, what the names of its arrays end with: of those parts whose arrays the layout has beside each other
    under the layer's own name. Parts that have a name of their own there are not in it, so most kinds need no text."""
    raise NotImplementedError


@Open
def origin(layer: Layer, layout: "Layout", name: str) -> dict[str, Any]:
    """Of which Keras weight an array of that layout is made, and whether it is transposed: for manifests."""
    raise NotImplementedError


@Open
def in_manifest(layer: Layer, layout: "Layout") -> dict[str, Any]:
    """What a manifest says of the layer beside its arrays; nothing where there is no text."""
    raise NotImplementedError


# --- ports: a kind that has no text for a format is refused there ---


@Open
def expect_portable(layer: Layer, to: str) -> None:
    """UnsupportedError for a setting that the format has not; `onnx`, `torch` and `c` may refuse others. Without a text
    there is none."""
    raise NotImplementedError


@Open
def held(layer: Layer) -> Sequence[Layer]:
    """The layers in one that only holds them, as a port sees it."""
    raise NotImplementedError


@_exactly
def onnx(layer: Layer, graph: "Graph", path: str, x: str) -> list[str]:
    """Add the layer's nodes to the graph, x being the name of its input: the names of its results."""
    raise NotImplementedError


@_exactly
def torch(layer: Layer, library: ModuleType, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    """The layer in modules of torch's own, with its arrays of a state dict, as a function of a tensor."""
    raise NotImplementedError


@_exactly
def c(layer: Layer, source: "Source", path: str, x: "Rows", target: str | None) -> "Rows":
    """Add the layer's C to the source, x being its input: its output. target: where that must be, if anywhere."""
    raise NotImplementedError
