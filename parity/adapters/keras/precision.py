"""The precision that Keras really computes in: a backend that says float64 may well compute in float32."""

import functools
import importlib
from collections.abc import Callable

import numpy as np

from parity.adapters.keras.attributes import declared_dtype
from parity.adapters.keras.library import Tensor, backend_of, family, no_warnings, tensor, to_numpy
from parity.adapters.keras.to_keras import around, to_keras
from parity.adapters.keras.tree import cells_in, leaves
from parity.cases.drawing import generator, named_dtype
from parity.kinds import registry
from parity.kinds.registry import KerasLayer
from rnn_scratch.layers import Recurrent


def dtype_of(layer: KerasLayer) -> np.dtype[np.floating]:
    """The dtype it really computes in."""
    declared = declared_dtype(layer)
    if declared != "float64" or computes_float64(family(layer), backend_of(layer), _arithmetic_of(layer)):
        return named_dtype(declared)
    return np.dtype(np.float32)


def _arithmetic_of(layer: KerasLayer) -> str:
    """Of which class a layer's arithmetic is: its cell's or its own, or that of Dense where neither is measured."""
    measured = next(cells_in(layer), layer)
    name = type(measured).__name__
    return name if name in registry.example else "Dense"


@functools.lru_cache
def computes_float64(family: str, backend: str, kind: str) -> bool:
    """Whether layers of that kind and dtype float64 are good to more than float32's precision, however they are called.

    Measured on small ones: what a backend declares is not what every layer of it does, nor what one layer always does
    (PyTorch's fused LSTM is, the loop that Keras takes with a mask is not).
    """
    rng = generator(0, f"float64 {kind}")
    scratch = registry.example[kind](rng)
    x = rng.standard_normal((4, 5, 2))
    with no_warnings():
        layer = to_keras(scratch, module=importlib.import_module(family))
        ways: list[Callable[[Tensor], Tensor]] = [layer]
        if isinstance(scratch, Recurrent):
            ways.append(around(layer, scratch))
        found = [to_numpy(way(tensor(layer, x))) for way in ways]
    expected = np.asarray(scratch(x))
    return all(np.abs(y - expected).max() < 1e-12 for y in found)


def notes_on(layer: KerasLayer) -> list[str]:
    """What a report has to say of the precision that was measured."""
    told = [leaf for leaf in leaves(layer) if hasattr(leaf, "compute_dtype")]
    if all(declared_dtype(leaf) == dtype_of(leaf).name for leaf in told):
        return []
    return [f"float64 on {backend_of(layer)} is computed to float32's precision: judged as float32"]
