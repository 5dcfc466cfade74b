"""Defects outside the catalogue: wrong, and no mistake that the check knows. Are they caught, and given no cause?"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.cases.case import Case
from parity.explaining.functions import computed
from parity.scoring.asking import Function, findings
from parity.scoring.counts import Score
from parity.scoring.mistakes import explained
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

Change = Callable[[Array], Array]

_SECONDS = 2
"""For each diagnosis."""


def outside(score: Score, cases: Sequence[Case], step: Callable[[str], None]) -> None:
    step("defects outside the catalogue")
    for (name, defect), case in itertools.product(DEFECTS.items(), _chosen(cases)):
        found = findings(Function(defect), case)
        failed = any(finding.verdict == "FAIL" for finding in found)
        score.count("defects outside the catalogue caught", failed)
        causes = explained(found, _SECONDS) if failed else ()
        if score.count("defects outside the catalogue given a cause", bool(causes)):
            score.misnamed.append(f"{name} in {case.id}: {', '.join(cause.id for cause in causes)}")


def _chosen(cases: Sequence[Case]) -> list[Case]:
    """Of 8 units and 10 time steps or more; else the first few that have room for a defect at all."""
    suited = [case for case in cases if _is_suited(case)]
    if chosen := [case for case in suited if _is_typical(case)]:
        return chosen
    roomy = [case for case in suited if case.layer.units >= 3 and case.timesteps >= 3]
    return roomy[:3]


def _is_suited(case: Case) -> bool:
    return isinstance(case.layer, Recurrent) and "seq-tanh-normal" in case.id and case.mask is None


def _is_typical(case: Case) -> bool:
    return case.layer.units == 8 and case.id.endswith("normal") and case.timesteps >= 10


# --- what a defect changes ---


def _weights(case: Case, **changes: Change) -> list[Array]:
    """The layer with other weights."""
    own = case.layer.weights
    new = {name: changes[name](own[name].copy()).astype(own[name].dtype) for name in changes.keys() & own.keys()}
    return list(computed(replace(case, layer=case.layer.replace(**{**own, **new})))[0])


def _inputs(case: Case, change: Change) -> list[Array]:
    return list(computed(case.mapped(change))[0])


def _output(case: Case, change: Change) -> list[Array]:
    y, *rest = computed(case)[0]
    return [change(y).astype(y.dtype), *rest]


def _activated(case: Case, f: Change) -> list[Array]:
    layer: Any = case.layer
    twin = layer.mapped(lambda _, name, array: array)
    twin.cell.activation = replace(layer.cell.activation, f=lambda z, out=None: np.positive(f(z).astype(z.dtype), out))
    return list(computed(replace(case, layer=twin))[0])


def _pade(z: Array) -> Array:
    """tanh by a continued fraction, off by 1e-4 from |z| = 2.5."""
    z = np.clip(z, -3.6, 3.6)
    s = z * z
    return np.asarray(z * (945 + s * (105 + s)) / (945 + s * (420 + s * 15)))


def _exchanged(n: Array, axis: int = -1) -> Array:
    new = np.moveaxis(n.copy(), axis, 0)
    new[[0, 1]] = new[[1, 0]]
    return np.moveaxis(new, 0, axis)


def _late(y: Array) -> Array:
    y = y.copy()
    y[:, y.shape[1] // 2 :] *= y.dtype.type(1.001)
    return y


def _at_one(change: Callable[[Any], Any]) -> Change:
    """Of one weight, in the middle."""

    def one(array: Array) -> Array:
        middle = tuple(size // 2 for size in array.shape)
        array[middle] = change(array[middle])
        return array

    return one


def _eight_bits(W: Array) -> Array:
    return np.asarray(np.round(W * 64) / 64)


DEFECTS: dict[str, Callable[[Case], list[Array]]] = {
    "weights times 1.0003": lambda c: _weights(c, Wx=lambda W: W * 1.0003, Wh=lambda W: W * 1.0003),
    "Wx times 1.0003": lambda c: _weights(c, Wx=lambda W: W * 1.0003),
    "biases off by 1e-4": lambda c: _weights(c, b=lambda b: b + 1e-4),
    "a Pade tanh off by 1e-4": lambda c: _activated(c, _pade),
    "tanh times 1.0001": lambda c: _activated(c, lambda z: 1.0001 * np.tanh(z)),
    "tanh of 1.001 z": lambda c: _activated(c, lambda z: np.tanh(1.001 * z)),
    "a gain that sets in late": lambda c: _output(c, _late),
    "outputs times 1.001": lambda c: _output(c, lambda y: y * 1.001),
    "outputs off by 1e-4": lambda c: _output(c, lambda y: y + 1e-4),
    "outputs clipped at 0.5": lambda c: _output(c, lambda y: np.clip(y, -0.5, 0.5)),
    "outputs in steps of 1/1000": lambda c: _output(c, lambda y: np.round(y, 3)),
    "two units exchanged": lambda c: _output(c, _exchanged),
    "two rows of Wx exchanged": lambda c: _weights(c, Wx=lambda W: _exchanged(W, 0)),
    "two columns of Wh exchanged": lambda c: _weights(c, Wh=lambda W: _exchanged(W, 1)),
    "weights in eight bits": lambda c: _weights(c, Wx=_eight_bits, Wh=_eight_bits),
    "one weight 1 % off": lambda c: _weights(c, Wx=_at_one(lambda w: w * 1.01)),
    "one bias off by 0.001": lambda c: _weights(c, b=_at_one(lambda w: w + 1e-3)),
    "one column of Wx zero": lambda c: _weights(c, Wx=lambda W: W * (np.arange(W.shape[1]) != 1)),
    "inputs without their sign": lambda c: _inputs(c, np.abs),
    "inputs times 1.0005": lambda c: _inputs(c, lambda x: (x * 1.0005).astype(x.dtype)),
}
