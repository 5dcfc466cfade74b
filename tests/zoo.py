"""Other people's SimpleRNNs: correct ones in other orders of summation and other formulas, and the loop they share."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from parity.cases.case import Case
from parity.cases.drawing import draw_weight
from parity.given.candidate import as_candidate
from parity.judging.findings import Finding
from parity.judging.judge import examine
from parity.judging.tally import Tolerance
from rnn_scratch import SimpleRNN

Array = Any
Step = Callable[[Array, Array], Array]


def with_settings(layer: SimpleRNN, **settings: bool) -> SimpleRNN:
    twin = copy.copy(layer)
    for name, value in settings.items():
        setattr(twin, name, value)
    return twin


def random_weights(rng, kind, units, input_dim):
    """Wx, Wh, b of a SimpleRNN in float64, as the grid draws them."""
    shapes = {"Wx": (units, input_dim), "Wh": (units, units), "b": (units,)}
    return tuple(draw_weight(rng, kind, name, shape) for name, shape in shapes.items())


def make_layer(
    units: int = 8, input_dim: int = 4, *, seed: int = 0, kind: str = "normal", **settings: Any
) -> SimpleRNN:
    weights = random_weights(np.random.default_rng(seed), kind, units, input_dim)
    dtype = settings.pop("dtype", "float32")
    return SimpleRNN(*(array.astype(dtype) for array in weights), **settings)


def inputs(layer: SimpleRNN, batch: int = 3, timesteps: int = 6, *, seed: int = 1, scale: float = 1) -> Array:
    shape = (batch, timesteps, layer.input_dim)
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(layer.dtype)


def judge(candidate: Any, layer: SimpleRNN, x: Array, mask: Array = None, initial_state: Array = None) -> Finding:
    """One question put to a candidate and no more; no Keras."""
    states = None if initial_state is None else (initial_state,)
    return examine(as_candidate(candidate), Case("case", layer, x, mask, states), Tolerance())


# --- the loop ---


def loop(step: Step, layer: SimpleRNN, x: Array, mask: Array = None, initial_state: Array = None) -> Any:
    """Keras's loop over time around step(x_t, h) -> h_t, as a student writes it: not rnn_scratch's own."""
    x, mask = (a if a is None or not layer.go_backwards else a[:, ::-1] for a in (x, mask))
    h = np.zeros((len(x), layer.units), layer.dtype) if initial_state is None else initial_state
    last, outputs = np.zeros_like(h), []
    for t in range(x.shape[1]):
        new = step(x[:, t], h)
        keep = True if mask is None else mask[:, t, None]
        last = np.where(keep, new, 0 if layer.zero_output_for_mask else last)
        h = np.where(keep, new, h)
        outputs.append(last)
    y = np.stack(outputs, axis=1) if layer.return_sequences else last
    return (y, h) if layer.return_state else y


def textbook(layer: SimpleRNN, f: Callable[[Array], Array] | None = None) -> Step:
    f = f or layer.cell.activation
    return lambda x, h: f(x @ layer.Wx.T + h @ layer.Wh.T + layer.b)


# --- orders of summation: products (batch, units, n), the bias first, to sums (batch, units) ---


def sequential(products: Array) -> Array:
    return np.cumsum(products, axis=-1, dtype=products.dtype)[..., -1]


def backwards(products: Array) -> Array:
    return sequential(products[..., ::-1])


def pairwise(products: Array) -> Array:
    while products.shape[-1] > 1:
        if products.shape[-1] % 2:
            products = np.concatenate([products, np.zeros_like(products[..., :1])], axis=-1)
        products = products[..., ::2] + products[..., 1::2]
    return products[..., 0]


def ascending(products: Array) -> Array:
    return sequential(np.take_along_axis(products, np.argsort(np.abs(products), axis=-1), axis=-1))


def descending(products: Array) -> Array:
    return backwards(np.take_along_axis(products, np.argsort(np.abs(products), axis=-1), axis=-1))


def flushed(products: Array) -> Array:
    """Sequential, by a processor that flushes subnormal results to zero."""
    tiny = np.finfo(products.dtype).tiny
    total = np.zeros_like(products[..., 0])
    for j in range(products.shape[-1]):
        total = total + np.where(np.abs(products[..., j]) < tiny, 0, products[..., j]).astype(products.dtype)
        total = np.where(np.abs(total) < tiny, 0, total).astype(products.dtype)
    return total


ORDERS = {order.__name__: order for order in (sequential, backwards, pairwise, ascending, descending, flushed)}


def ordered(layer: SimpleRNN, order: Callable[[Array], Array], f: Callable[[Array], Array] | None = None) -> Step:
    """The fused sum b + [x, h] [Wx; Wh] in that order; float16 accumulated in float32 and stored once."""
    f = f or layer.cell.activation
    wide = np.result_type(layer.dtype, np.float32)
    W = np.concatenate([layer.Wx, layer.Wh], axis=1).astype(wide)

    def step(x: Array, h: Array) -> Array:
        products = np.concatenate([x, h], axis=1).astype(wide)[:, None, :] * W
        b = np.broadcast_to(layer.b.astype(wide)[:, None], (*products.shape[:2], 1))
        return f(order(np.concatenate([b, products], axis=-1)).astype(layer.dtype))

    return step


def rounded_once(layer: SimpleRNN, f: Callable[[Array], Array] | None = None) -> Step:
    """The exact sum, rounded once: float32's products are exact in float64, and `fsum` adds them exactly."""
    exact = np.vectorize(lambda z: math.fsum(z) if np.isfinite(z).all() else z.sum(), signature="(n)->()", otypes="d")
    wide = layer.replace(**{name: w.astype(np.float64) for name, w in layer.cell.weights.items()})
    step = ordered(wide, exact, np.positive)
    f = f or layer.cell.activation
    return lambda x, h: f(step(x.astype(np.float64), h.astype(np.float64)).astype(layer.dtype))


def fused_multiply_add(layer: SimpleRNN) -> Step:
    """One multiply-add after the other, each rounded once (through float64, where float32's products are exact)."""
    W = np.concatenate([layer.Wx, layer.Wh], axis=1).astype(np.float64)

    def step(x: Array, h: Array) -> Array:
        a, z = np.concatenate([x, h], axis=1).astype(np.float64), np.broadcast_to(layer.b, (len(x), layer.units))
        for j in range(W.shape[1]):
            z = (z + a[:, j, None] * W[:, j]).astype(layer.dtype)
        return layer.cell.activation(z)

    return step


def wide_state(layer: SimpleRNN, dtype: Any) -> Step:
    """Everything in a wider dtype; `loop` keeps it so, for whoever calls it to round what it returns."""
    wide = layer.replace(**{name: w.astype(dtype) for name, w in layer.cell.weights.items()})
    return textbook(wide)


# --- tanh in other words ---

TANH = {
    "quotient": lambda z: (np.exp(2 * z) - 1) / (np.exp(2 * z) + 1),
    "two_sigmoids": lambda z: 2 / (1 + np.exp(-2 * z)) - 1,
    "one_minus": lambda z: 1 - 2 / (np.exp(2 * z) + 1),
    "expm1": lambda z: np.expm1(2 * z) / (np.expm1(2 * z) + 2),
}
