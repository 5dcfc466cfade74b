"""Changes: how a layer of a case, a cell or an array becomes a wrong one. What the families of mistakes share.

Wrong layers compute on arrays and on balls, as right ones do.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from parity.cases.case import Case
from rnn_scratch.base import Array, Layer, Mask, States, Values
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent

Forward = Callable[[Any, Values, Mask | None, States], tuple[Values, States]]
"""What a wrong layer computes: (the right one, x, mask, states) -> y, states."""


class Altered(Layer):
    """A layer, `inner`, of which forward(inner, x, mask, states) is another one, or that drops the mask."""

    def __init__(self, inner: Layer, forward: Forward | None = None, *, drops_mask: bool = False) -> None:
        super().__init__(inner.name, inner.dtype)
        self.parts, self.ndim, self.kind = {"inner": inner}, inner.ndim, inner.kind
        self._forward, self._drops_mask = forward, drops_mask

    @property
    def inner(self) -> Layer:
        return self.parts["inner"]

    def __getattr__(self, name: str) -> Any:
        if name == "parts":  # while it is being copied
            raise AttributeError(name)
        return getattr(self.parts["inner"], name)

    def forward(self, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        if self._forward is None:
            return self.inner.forward(x, mask, states)
        return self._forward(self.inner, x, mask, states)

    def compute_mask(self, x: Values, mask: Mask | None) -> Mask | None:
        return None if self._drops_mask else self.inner.compute_mask(x, mask)

    def results(self, y: Values, states: States) -> tuple[Values, ...]:
        return self.inner.results(y, states)

    def output_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        return self.inner.output_shapes(shape)

    def as_inputs(self, x: Any) -> Array:
        return self.inner.as_inputs(x)

    def check_inputs(self, x: Array) -> None:
        self.inner.check_inputs(x)

    def with_sequences(self) -> "Altered":
        twin = copy.copy(self)
        twin.parts = {"inner": self.inner.with_sequences()}
        return twin

    @property
    def units(self) -> int:
        return self.inner.units

    @property
    def input_dim(self) -> int | None:
        return self.inner.input_dim


def altered(forward: Forward) -> Callable[[Layer], Layer]:
    return lambda layer: Altered(layer, forward)


# --- where a change applies ---

Path = tuple[str, ...]
Change = Callable[[Layer], Layer | None]
"""The wrong layer for a right one; None where there is nothing to get wrong."""


def each(case: Case, change: Change, label: str = "") -> dict[str, Case]:
    """The case with the change made wherever it applies; where that is several layers, in each alone as well."""
    found = list(places(case.layer, change))
    if not found:
        return {}
    variants = {label: replace(case, layer=changed(case.layer, change))}
    for n, (path, _) in enumerate(found if len(found) > 1 else ()):
        name = ", ".join(filter(None, (label, f"in {'.'.join(path)}")))
        variants[name] = replace(case, layer=changed(case.layer, _only(n, change)))
    return variants


def places(layer: Layer, change: Change, path: Path = ()) -> Iterator[tuple[Path, Layer]]:
    """The layers, from the outside in, of which the change makes something, by their paths."""
    new = change(layer)
    if new is not None:
        yield path, new
        return
    for name, part in layer.parts.items():
        inside = path if isinstance(layer, Altered) else (*path, name)
        yield from places(part, change, inside)


def _only(number: int, change: Change) -> Change:
    """The change made at one alone, by its number, of the places that a walk through the layer comes to."""
    passed = -1

    def only(layer: Layer) -> Layer | None:
        nonlocal passed
        new = change(layer)
        if new is None:
            return None
        passed += 1
        return new if passed == number else layer

    return only


# --- changes of one kind of layer, of cells, of arrays ---

_Kind = TypeVar("_Kind", bound=Layer)
_Some = TypeVar("_Some")


def of_kind(kind: type[_Kind], change: Callable[[_Kind], Layer | None]) -> Change:
    return lambda layer: change(layer) if isinstance(layer, kind) else None


def recurrent(change: Callable[[Recurrent], Layer | None]) -> Change:
    return of_kind(Recurrent, change)


def cell(change: Callable[[Any], Cell | None]) -> Change:
    """A change of the cells."""

    def change_layer(layer: Recurrent) -> Layer | None:
        new = change(layer.cell)
        if new is None:
            return None
        twin = copy.copy(layer)
        twin.cell, twin.state = new, None
        return twin

    return recurrent(change_layer)


def weights(change: Callable[[Any], dict[str, Array] | None]) -> Change:
    """A change of the weights of cells."""

    def change_cell(own: Cell) -> Cell | None:
        new = change(own)
        return None if new is None else own.mapped(lambda name, array: new.get(name, array))

    return cell(change_cell)


def setting(name: str, value: Any) -> Change:
    """The layer's setting of that name at that value, where it is another."""

    def change(layer: Recurrent) -> Layer | None:
        if getattr(layer, name) == value:
            return None
        twin = copy.copy(layer)
        setattr(twin, name, value)
        return twin

    return recurrent(change)


def mixed_in(wrong: type, of: _Some, **attributes: Any) -> _Some:
    """The same object, of a class in which the wrong one's methods come first, with those attributes."""
    twin = copy.copy(of)
    if not isinstance(of, wrong):
        twin.__class__ = type(wrong.__name__, (wrong, type(of)), {})
    for name, value in attributes.items():
        setattr(twin, name, value)
    return twin


def is_one_layer(case: Case) -> bool:
    """Whether the layer is one recurrent layer, whose views and masks are the case's own."""
    return isinstance(case.layer, Recurrent)


def through_output(change: Callable[[Values], Values]) -> Forward:
    """The right layer, its outputs changed."""

    def forward(layer: Layer, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        y, after = layer.forward(x, mask, states)
        return change(y), after

    return forward


# --- layers within a layer ---


def changed(layer: Layer, change: Change) -> Layer:
    """The same layer with what `change` makes of it, or of those layers in it for which it makes something."""
    new = change(layer)
    if new is not None:
        return new
    parts = {name: changed(part, change) for name, part in layer.parts.items()}
    if all(parts[name] is part for name, part in layer.parts.items()):
        return layer
    twin = copy.copy(layer)
    twin.parts = parts
    return twin


def state_kept(layer: Layer, kept: bool = True) -> Layer:
    """The same layer, stateful or not."""

    def change(part: Layer) -> Layer | None:
        if not isinstance(part, Recurrent) or part.stateful == kept:
            return None
        twin = copy.copy(part)
        twin.stateful, twin.state = kept, None
        return twin

    return changed(layer, change)
