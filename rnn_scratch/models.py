"""Models: layers that feed each other, by name. A chain of them is a Sequential."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from rnn_scratch.base import Array, Layer, Mask, Shape, States, Values, only
from rnn_scratch.layers import Recurrent


@dataclass(frozen=True)
class Node:
    """A layer in a model. inputs: what it is fed with, by the names of nodes or of the model's own inputs."""

    layer: Layer
    inputs: tuple[str, ...]


class Model(Layer):
    """A graph of layers.

    nodes: by name, each after those that feed it. input_names: of what the model is called with. output_names: the
    nodes whose outputs it returns. Its states are those of its layers in turn. Masks go along as each layer hands them
    on. A layer of another dtype than the one before it casts its inputs.

    Raises ValueError for what is no chain of layers that follow on each other: no other graph is run as yet.
    """

    kind = "model"

    def __init__(
        self,
        nodes: Mapping[str, Node],
        *,
        input_names: Sequence[str] = ("x",),
        output_names: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        if not nodes:
            raise ValueError("layers: expected at least one; received none")
        first = next(iter(nodes.values())).layer
        super().__init__(name, first.dtype)
        self.ndim, self.input_names = first.ndim, tuple(input_names)
        self.parts = {name: node.layer for name, node in nodes.items()}
        self._inputs = {name: node.inputs for name, node in nodes.items()}
        self._output_names = tuple(output_names) or tuple(nodes)[-1:]
        _expect_chain(self)

    @property
    def nodes(self) -> Mapping[str, Node]:
        return {name: Node(layer, self._inputs[name]) for name, layer in self.parts.items()}

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._output_names

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(self.parts.values())

    # --- what it computes ---

    def run(
        self, inputs: Mapping[str, Values], masks: Mapping[str, Mask | None], states: States, *, whole: bool = False
    ) -> Iterator[tuple[str, tuple[Values, ...], States]]:
        """Of each node in turn its name, its outputs and the states after it.

        inputs, masks: by `input_names`. whole: of a recurrent layer that returns only its last output, every one; what
        it feeds gets the last of them still.
        """
        for name, outputs, after, _ in self._run(inputs, masks, states, whole):
            yield name, outputs, after

    def _run(
        self, inputs: Mapping[str, Values], masks: Mapping[str, Mask | None], states: States, whole: bool = False
    ) -> Iterator[tuple[str, tuple[Values, ...], States, Mask | None]]:
        """`run`, and the mask that goes on."""
        values, masks = dict(inputs), dict(masks)
        for (name, node), (layer, own) in zip(self.nodes.items(), self.shares(states), strict=True):
            (fed,) = node.inputs
            x, mask = _cast(values[fed], layer), masks.get(fed)
            asked = layer.with_sequences() if whole and _returns_the_last(layer) else layer
            y, after = asked.forward(x, mask, own)
            values[name] = y if asked is layer else y[:, -1]
            masks[name] = layer.compute_mask(x, mask)
            yield name, asked.results(y, after), after, masks[name]

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        (last,) = self.output_names
        after: States = ()
        for name, outputs, own in self.run(self._by_name(x), self._by_name(mask), states):
            after += own
            if name == last:
                y = only(outputs)
        return y, after

    def outputs(self, x: ArrayLike, *, sequences: bool = False) -> Mapping[str, Values]:
        """A call, and what each layer puts out, by its name; a tuple where that is several arrays.

        sequences: of a recurrent layer that returns only its last output, every one, (batch, timesteps, units).
        """
        x = self.as_inputs(x)
        self.check_inputs(x)
        found: dict[str, Values] = {}
        after: States = ()
        for name, outputs, own in self.run(self._by_name(x), {}, self.initial_states(len(x)), whole=sequences):
            found[name] = only(outputs)
            after += own
        self.keep(after)
        return found

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        (last,) = self.output_names
        ran = self._run(self._by_name(x), self._by_name(mask), self.initial_states(len(x)))
        return next(handed_on for name, _, _, handed_on in ran if name == last)

    def _by_name(self, value: Values) -> Mapping[str, Values]:
        return dict(zip(self.input_names, (value,), strict=True))

    # --- shapes ---

    def node_shapes(self, inputs: Mapping[str, Shape]) -> Mapping[str, tuple[Shape, ...]]:
        """The shapes of each node's outputs, of those of the model's inputs."""
        single, found = dict(inputs), {}
        for name, node in self.nodes.items():
            (fed,) = node.inputs
            found[name] = node.layer.output_shapes(single[fed])
            single[name] = found[name][0]
        return found

    def output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        (last,) = self.output_names
        return self.node_shapes(self._by_name(shape))[last]

    # --- what comes in ---

    def as_inputs(self, x: ArrayLike) -> Array:
        return self.layers[0].as_inputs(x)

    def check_inputs(self, x: Array) -> None:
        self.layers[0].check_inputs(x)

    @property
    def units(self) -> int:
        """Of the last layer that has a size of its own."""
        for layer in reversed(self.layers):
            with contextlib.suppress(NotImplementedError):  # of a Dropout, or of what is made of nothing else
                return layer.units
        raise NotImplementedError


class Sequential(Model):
    """Layers one after another; masks go along as each layer hands them on.

    layers: any of this package, each but the last with one output. Its states are those of its layers in turn. A layer
    of another dtype than the one before it casts its inputs.

    Raises ValueError for no layers, for layers that do not follow on each other, and for arrays that the first refuses.
    """

    kind = "sequential"

    def __init__(self, layers: Sequence[Layer], *, name: str | None = None) -> None:
        super().__init__(_chained(_named(layers)), name=name)

    @property
    def nodes(self) -> Mapping[str, Node]:
        return _chained(self.parts)  # of the parts as they stand, so that they can be put in another order

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(self.parts)[-1:]


def _named(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Layers by their names; the second of one name gets a number, as in Keras."""
    found: dict[str, Layer] = {}
    for layer in layers:
        name, number = layer.name, 0
        while name in found:
            number += 1
            name = f"{layer.name}_{number}"
        found[name] = layer
    return found


def _chained(layers: Mapping[str, Layer]) -> dict[str, Node]:
    before = itertools.chain(Layer.input_names, layers)
    return {name: Node(layer, (fed,)) for (name, layer), fed in zip(layers.items(), before, strict=False)}


def _cast(x: Values, layer: Layer) -> Values:
    """x in what the layer computes in; token ids and booleans as they are."""
    return x if x.dtype.kind in "iub" or x.dtype == layer.dtype else x.astype(layer.dtype)


def _returns_the_last(layer: Layer) -> bool:
    return isinstance(layer, Recurrent) and not layer.return_sequences


def _expect_chain(model: Model) -> None:
    """ValueError for what is no chain: where a layer is not fed by the one before, or does not take what that puts out.

    This is the only place that refuses other graphs."""
    nodes = model.nodes
    expected = [(name,) for name in (*model.input_names, *nodes)]
    fed = [*(node.inputs for node in nodes.values()), model.output_names]
    if fed != expected:
        told = ", ".join(f"{name} of {' and '.join(node.inputs)}" for name, node in nodes.items())
        raise ValueError(f"model: expected layers one after another, from one input to one output; received {told}")
    _expect_fitting(list(model.parts.items()))


def _expect_fitting(layers: Sequence[tuple[str, Layer]]) -> None:
    """ValueError where what one layer puts out is not what the next one takes."""
    shape = _least_shape([layer for _, layer in layers])
    for (name, layer), (above, following) in itertools.pairwise(layers):
        shapes = layer.output_shapes(shape)
        if len(shapes) > 1:
            raise ValueError(f"layers: expected one output of {name}, below {above}; it returns {len(shapes)}")
        (shape,) = shapes
        if following.ndim not in (None, len(shape)):
            raise ValueError(f"layers: {above} takes (batch, timesteps, ...); {name} puts out {len(shape)} axes")
        if following.input_dim not in (None, shape[-1]):
            raise ValueError(f"layers: {above} takes {following.input_dim} features; {name} puts out {shape[-1]}")


def _least_shape(layers: Sequence[Layer]) -> Shape:
    """Of inputs to those layers: one row, one step, and as many features as the first takes that says how many."""
    if layers[0].ndim == 2:
        return (1, 1)
    known = [layer.input_dim for layer in layers if layer.input_dim is not None]
    return (1, 1, *(known[:1] or [1]))
