"""Wrong layers, of which the catalogue's mistakes are made. They compute on arrays and on balls, as right ones do."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases.case import Case, changed
from parity.rounding.balls import Ball
from rnn_scratch import Bidirectional
from rnn_scratch.activations import Activation
from rnn_scratch.cells import Cell, GRUCell, LSTMCell, delivered
from rnn_scratch.layers import Layer, Mask, Recurrent
from rnn_scratch.loop import MaskRule

Array = NDArray[Any]
where: Any = np.where
States = tuple[Any, ...]
Forward = Callable[[Any, Any, Mask | None, States], tuple[Any, States]]


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

    def forward(self, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
        forward = self._forward or (lambda inner, *given: inner.forward(*given))
        return forward(self.inner, x, mask, states)

    def compute_mask(self, x: Any, mask: Mask | None) -> Mask | None:
        return None if self._drops_mask else self.inner.compute_mask(x, mask)

    def results(self, y: Any, states: States) -> tuple[Any, ...]:
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


def altered(forward: Forward) -> Callable[[Layer], Layer]:
    return lambda layer: Altered(layer, forward)


# --- where a change applies ---

Path = tuple[str, ...]
Change = Callable[[Any], Layer | None]


def places(layer: Layer, change: Change, path: Path = ()) -> Iterable[tuple[Path, Layer]]:
    """The layers, from the outside in, of which the change makes something, by their paths."""
    new = change(layer)
    if new is not None:
        yield path, new
        return
    for name, part in layer.parts.items():
        yield from places(part, change, (*path, *(() if isinstance(layer, Altered) else (name,))))


def each(case: Case, change: Change, label: str = "") -> dict[str, Case]:
    """The case with the change made wherever it applies; where that is several layers, in each alone as well."""
    found = list(places(case.layer, change))
    variants = {label: replace(case, layer=changed(case.layer, change))} if found else {}
    if len(found) > 1:
        for n, (path, _) in enumerate(found):
            counter = iter(range(len(found)))

            def only(layer: Layer, n: int = n, counter: Any = counter) -> Layer | None:
                new = change(layer)
                return None if new is None else new if next(counter) == n else layer

            name = f"{label}, " if label else ""
            variants[f"{name}in {'.'.join(path)}"] = replace(case, layer=changed(case.layer, only))
    return variants


def recurrent(change: Callable[[Recurrent], Layer | None]) -> Change:
    return lambda layer: change(layer) if isinstance(layer, Recurrent) else None


def cell(change: Callable[[Any], Cell | None]) -> Change:
    """A change of the cells."""

    def change_layer(layer: Any) -> Any:
        new = change(layer.cell) if isinstance(layer, Recurrent) else None
        if new is None:
            return None
        twin = copy.copy(layer)
        twin.cell, twin.state = new, None
        return twin

    return change_layer


def weights(change: Callable[[Any], dict[str, Array] | None]) -> Change:
    """A change of the weights of cells."""

    def change_cell(own: Cell) -> Cell | None:
        new = change(own)
        return None if new is None else own.mapped(lambda name, array: new.get(name, array))

    return cell(change_cell)


def setting(name: str, value: Any, unless: Callable[[Any], bool] = lambda layer: False) -> Change:
    """The layer's setting of that name at that value, where it is another."""

    def change(layer: Recurrent) -> Layer | None:
        if getattr(layer, name) == value or unless(layer):
            return None
        twin = copy.copy(layer)
        setattr(twin, name, value)
        return twin

    return recurrent(change)


def mixed_in(mixin: type, of: Any) -> Any:
    """The same object, of a class in which the mixin's methods come first."""
    twin = copy.copy(of)
    if isinstance(of, mixin):
        return twin
    twin.__class__ = type(mixin.__name__, (mixin, type(of)), {})
    return twin


# --- cells ---


class ComplementedUpdate:
    """h_t = (1 - z) h_{t-1} + z n"""

    def update(self: Any, p: Any, h: Any, out: Array | None = None) -> tuple[Any]:
        z, n = self.gates_of(p, h)
        y = z * n + (1 - z) * h if isinstance(z, np.ndarray) else z.blend(n, h)
        return (delivered(y, out),)


class ResetBefore:
    """n = activation(Wx_h x_t + b_h + Wh_h (r h_{t-1}) + b'_h), of a cell whose two biases stay two."""

    def gates_of(self: Any, p: Any, h: Any) -> tuple[Any, Any]:
        s, u = self.recurrent_activation, self.units
        p_z, p_r, p_h = self.split(p)
        q_z, q_r = self.split(h.dot(self.Wh[: 2 * u].T))[:2]
        z, r = s(p_z + q_z + self.b[1, :u]), s(p_r + q_r + self.b[1, u : 2 * u])
        return z, self.activation(p_h + (r * h).dot(self.Wh[2 * u :].T) + self.b[1, 2 * u :])


class SummedBias:
    """n = activation(Wx_h x_t + b_h + b'_h + r Wh_h h_{t-1}): both biases outside of what r multiplies."""

    def gates_of(self: Any, p: Any, h: Any) -> tuple[Any, Any]:
        s, u = self.recurrent_activation, self.units
        p_z, p_r, p_h = self.split(p)
        q_z, q_r, q_h = self.split(h.dot(self.Wh.T))
        z, r = s(p_z + q_z + self.b[1, :u]), s(p_r + q_r + self.b[1, u : 2 * u])
        return z, self.activation(p_h + r * q_h + self.b[1, 2 * u :])


class ResetAfter:
    """n = activation(Wx_h x_t + b_h + r Wh_h h_{t-1}), of a cell with one bias."""

    def gates_of(self: Any, p: Any, h: Any) -> tuple[Any, Any]:
        s = self.recurrent_activation
        p_z, p_r, p_h = self.split(p)
        q_z, q_r, q_h = self.split(h.dot(self.Wh.T))
        z, r = s(p_z + q_z), s(p_r + q_r)
        return z, self.activation(p_h + r * q_h)


class BareCell:
    """h_t = o c_t"""

    def carry(self: Any, i: Any, f: Any, g: Any, o: Any, c: Any, out: Array | None = None) -> tuple[Any, Any]:
        c = f * c + i * g
        return delivered(o * c, out), c


class BareGate:
    """c_t = f c_{t-1} + i p_c"""

    def gates_of(self: Any, p: Any, h: Any) -> tuple[Any, Any, Any, Any]:
        z = h.dot(self.Wh.T)
        z += p
        i, f, g, o = self.split(z)
        s = self.recurrent_activation
        return s(i), s(f), g if isinstance(g, np.ndarray) else g.closed(), s(o)


class CoupledInput:
    """c_t = f c_{t-1} + (1 - f) g"""

    def carry(self: Any, i: Any, f: Any, g: Any, o: Any, c: Any, out: Array | None = None) -> tuple[Any, Any]:
        c = f * c + (1 - f) * g if isinstance(f, np.ndarray) else f.blend(c, g)
        return delivered(o * self.activation(c), out), c


class Coupled:
    """c_t = (1 - i) c_{t-1} + i g"""

    def carry(self: Any, i: Any, f: Any, g: Any, o: Any, c: Any, out: Array | None = None) -> tuple[Any, Any]:
        c = i * g + (1 - i) * c if isinstance(i, np.ndarray) else i.blend(g, c)
        return delivered(o * self.activation(c), out), c


def peepholes(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
    """c_{t-1} added to what i and f see, c_t to what o sees: peepholes of weight one."""

    def update(own: Any, x_t: Any, h: Any, c: Any) -> States:
        z = h.dot(own.Wh.T)
        i, f, g, o = own.split(z + own.project(x_t))
        s = own.recurrent_activation
        c_t = s(f + c) * c + s(i + c) * own.activation(g)
        return s(o + c_t) * own.activation(c_t), c_t

    return looped(layer, x, mask, states, update=update)


# --- loops ---


def looped(
    layer: Any,
    x: Any,
    mask: Mask | None,
    states: States,
    *,
    update: Callable[..., States] | None = None,
    before: Callable[[list[States], Any], States] = lambda history, keep: history[-1],
    masked: Callable[[States, States, Any, Any], tuple[States, Any]] | None = None,
) -> tuple[Any, States]:
    """`Recurrent`'s loop with another update(cell, x_t, *states), another choice of the states before a step, from all
    there were and the mask of the step before, or another rule for masked steps: (new, old, y, keep) -> states, y."""
    rule: MaskRule = layer.mask_rule(mask)
    shown, x, mask = rule.shown, layer.processed(x), rule.keep
    update = update or (lambda own, x_t, *before: own.update(own.project(x_t), *before))
    y, outputs, history = rule.before_first(states[0]), [], [states]
    with np.errstate(invalid="ignore"):
        for t in range(x.shape[1]):
            keep = None if mask is None else mask[:, t, None]
            given = before(history, None if mask is None or not t else mask[:, t - 1, None])
            new = update(layer.cell, x[:, t], *given)
            if keep is None:
                after, y = new, new[0]
            elif masked:
                after, y = masked(new, history[-1], y, keep)
            else:
                after = tuple(where(keep, n, s) for n, s in zip(new, history[-1], strict=True))
                y = where(keep, new[0], y)
            history.append(after)
            outputs.append(y if shown is None else where(shown[:, t, None], y, np.zeros_like(y)))
    return (np.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]), history[-1]


def stateless_steps(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
    zeros = tuple(np.zeros_like(state) for state in states)
    return looped(layer, x, mask, states, before=lambda history, keep: history[0] if len(history) == 1 else zeros)


def two_before(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
    return looped(layer, x, mask, states, before=lambda history, keep: history[max(0, len(history) - 2)])


def next_row(batch: int) -> Forward:
    """Each row goes on from the state of the row before. Perturbed runs stand below one another, `batch` rows each."""

    def forward(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
        row = np.arange(x.shape[0])
        rolled = row // batch * batch + (row - 1) % batch

        def before(history: list[States], keep: Any) -> States:
            return tuple(state[rolled] for state in history[-1]) if len(history) > 1 else history[-1]

        return looped(layer, x, mask, states, before=before)

    return forward


def first_row(batch: int) -> Forward:
    """All rows go on from the state of the first."""

    def forward(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
        same = np.arange(x.shape[0]) // batch * batch
        return looped(layer, x, mask, states, before=lambda history, keep: tuple(s[same] for s in history[-1]))

    return forward


def row_after_row(batch: int) -> Forward:
    """Each row starts from the state at which the one before it ended."""

    def forward(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
        own: States = tuple(state[::batch] for state in states)
        outputs, ends = [], []
        for n in range(batch):
            y, own = layer.forward(x[n::batch], None if mask is None else mask[n::batch], own)
            outputs.append(y)
            ends.append(own)
        return interleaved(outputs), tuple(interleaved(parts) for parts in zip(*ends, strict=True))

    return forward


def interleaved(rows: Sequence[Any]) -> Any:
    stacked: Any = np.stack(rows, axis=1)
    return stacked.reshape(-1, *stacked.shape[2:])


def resets(zero_output: bool) -> Forward:
    """A masked step sets the state to zero; its output is the last one, or zero."""

    def masked(new: States, old: States, y: Any, keep: Any) -> tuple[States, Any]:
        other = np.zeros_like(y) if zero_output else y
        return tuple(where(keep, n, np.zeros_like(n)) for n in new), where(keep, new[0], other)

    return lambda layer, x, mask, states: looped(layer, x, mask, states, masked=masked)


def multiplied(new: States, old: States, y: Any, keep: Any) -> tuple[States, Any]:
    after = tuple(where(keep, n, n * 0.0) for n in new)
    return after, after[0]


def multiplies(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
    return looped(layer, x, mask, states, masked=multiplied)


def with_mask(change: Callable[[Mask], Mask | None]) -> Forward:
    return lambda layer, x, mask, states: layer.forward(x, None if mask is None else change(mask), states)


def shifted(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
    """The output of the step before: at first the initial state."""
    y, after = layer.with_sequences().forward(x, mask, states)
    whole = np.concatenate([states[0].reshape(x.shape[0], 1, layer.units), y[:, :-1]], axis=1)
    return (whole if layer.return_sequences else whole[:, -1]), after


def wrong_end(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
    """The output after the first step processed, not after the last."""
    y, after = layer.with_sequences().forward(x, mask, states)
    return y[:, 0], after


def through_output(change: Callable[[Any], Any]) -> Forward:
    """The right layer, its outputs changed."""

    def forward(layer: Any, x: Any, mask: Mask | None, states: States) -> tuple[Any, States]:
        y, after = layer.forward(x, mask, states)
        return change(y), after

    return forward


# --- both directions ---


class Unturned:
    """The backward half stays in its order of processing."""

    def turned(self, y: Any) -> Any:
        return y


class HalvesSwapped:
    """The backward half first."""

    def merge(self: Any, f: Any, b: Any) -> Any:
        return Bidirectional.merge(self, b, f)

    def apart(self: Any, outputs: Sequence[Array]) -> Any:
        units = self.directions[1].units
        if self.merge_mode == "concat":
            y, *states = outputs
            outputs = y[..., :units], y[..., units:], *states
        elif self.merge_mode is not None:
            return None
        b, f, *states = outputs
        return f, self.turned(b), tuple(states)

    def output_shapes(self: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        y = Bidirectional.output_shapes(self, shape)
        return y if self.merge_mode else (y[1], y[0], *y[2:])


# --- activations ---


def twice(f: Activation) -> Activation:
    """f(f(z)), for an f that is monotone."""
    slope = max(1.0, f.slope)
    return Activation(
        f"{f.name} of {f.name}",
        lambda z, out=None: f.f(f.f(z), out),
        ulps=(1 + slope) * max(f.ulps, f.ulps64 or 0) + 2,
        absolute=(1 + slope) * f.absolute + 2,
        linear=(1 + slope) * f.linear,
        slope=slope * slope,
    )


def approximation(name: str, f: Callable[[Array], Array], slope: float) -> Activation:
    return Activation(name, lambda z, out=None: np.positive(f(z), out), ulps=8, absolute=8, slope=slope)


def _rational_tanh(z: Array) -> Array:
    z = np.clip(z, -3, 3)
    return np.asarray(z * (27 + z * z) / (27 + 9 * z * z))


APPROXIMATE = {
    "tanh": (
        approximation("clip(z, -1, 1)", lambda z: np.clip(z, -1, 1), 1),
        approximation("z (27 + z^2) / (27 + 9 z^2), clipped at 3", _rational_tanh, 1),
    ),
    "sigmoid": (
        approximation("clip(0.25 z + 0.5, 0, 1)", lambda z: np.clip(0.25 * z + 0.5, 0, 1), 0.25),
        approximation("0.5 z / (1 + |z|) + 0.5", lambda z: 0.5 * z / (1 + np.abs(z)) + 0.5, 0.5),
    ),
}
"""Fast functions in use that are far outside rounding."""


# --- precision ---

SIGNIFICANDS = {"float16": 11, "bfloat16": 8, "TF32": 11}
"""Bits of the significand. float16's range is narrower than weights ever are."""


def to_bits(array: Array, bits: int) -> Array:
    """Rounded to the nearest number of so many significant bits, in the same dtype."""
    significand, exponent = np.frexp(array.astype(np.float64))
    return np.asarray(np.ldexp(np.rint(np.ldexp(significand, bits)), exponent - bits).astype(array.dtype))


def rounded(value: Any, bits: int) -> Any:
    """That of an array or a ball."""
    if isinstance(value, np.ndarray):
        return to_bits(value, bits)
    mid, rad = np.asarray(value.mid), value.radius.astype(np.float64)
    low, high = to_bits(mid - rad, bits), to_bits(mid + rad, bits)
    middle = to_bits(mid, bits)
    off = np.maximum(high - middle, middle - low) + value.arithmetic.tiny
    return Ball(middle, value.arithmetic, off.astype(value.arithmetic.radii), may_overflow=value.may_overflow)


def rounding_states(bits: int) -> type:
    class RoundedStates:
        """Every state is stored with so many bits."""

        def update(self: Any, p: Any, *states: Any) -> States:
            out = states[-1] if len(states) > len(self.states) else None
            new = super().update(p, *states[: len(self.states)])  # type: ignore[misc]
            h, *rest = (rounded(state, bits) for state in new)
            return (delivered(h, out), *rest)

        def carry(self: Any, *gates: Any) -> States:
            return tuple(rounded(state, bits) for state in super().carry(*gates))  # type: ignore[misc]

    return RoundedStates


def rounding_products(bits: int) -> type:
    class RoundedProducts:
        """Inputs and state are rounded to so many bits before they are multiplied. The weights: see the mistake."""

        def project(self: Any, x: Any) -> Any:
            return super().project(rounded(x, bits))  # type: ignore[misc]

        def gates_of(self: Any, p: Any, h: Any) -> Any:
            return super().gates_of(p, rounded(h, bits))  # type: ignore[misc]

        def update(self: Any, p: Any, *states: Any) -> Any:
            gated = isinstance(self, LSTMCell | GRUCell)  # these multiply in gates_of
            h = states[0] if gated else rounded(states[0], bits)
            return super().update(p, h, *states[1:])  # type: ignore[misc]

    return RoundedProducts
