"""What a Keras layer says of itself (weights, activations, dtype), and a layer's own, as Keras takes it."""

import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.adapters.keras.library import wide
from parity.errors import InputError, UnsupportedError
from parity.kinds.registry import KerasLayer
from rnn_scratch.activations import ACTIVATIONS
from rnn_scratch.base import FLOATS

Array = NDArray[Any]

_OF_KERAS_2 = "hard_sigmoid_keras2"
"""Keras 2's hard_sigmoid, which is called so there too but is of another slope than Keras 3's."""


def declared_dtype(layer: KerasLayer) -> str:
    """The dtype it says it computes in. UnsupportedError for one that is not covered, or not its cell's."""
    parts = [layer, layer.cell] if hasattr(layer, "cell") else [layer]
    computed = {str(part.compute_dtype) for part in parts}
    stored = {str(part.variable_dtype) for part in parts}
    mixed = stored <= computed | {"float32"}
    if len(computed) == 1 and computed <= set(FLOATS) and mixed:
        return computed.pop()
    told = _policy_of(parts) or "/".join(sorted(computed | stored))
    raise UnsupportedError(f"{layer.name}: dtype {told} is not covered; covered: {', '.join(FLOATS)} and mixed ones")


def _policy_of(parts: Sequence[KerasLayer]) -> str:
    """The name of the policy that all of them have; "" where they have none, or several."""
    names = {getattr(part.dtype_policy, "name", "") for part in parts}
    return names.pop() if len(names) == 1 else ""


def activation_name(layer: KerasLayer, which: str = "activation") -> str:
    """The name in rnn_scratch of a layer's activation; UnsupportedError for a function that is not Keras's own."""
    function = getattr(layer, which)
    name = getattr(function, "__name__", type(function).__name__)
    root = str(getattr(function, "__module__", "")).partition(".")[0]
    if root not in ("keras", "tf_keras"):
        raise UnsupportedError(f"{layer.name}: {which} {name} is not one of Keras's own; pass it by its Keras name")
    # A function of Keras's that only bears the name of one of its activations may be anything.
    known = importlib.import_module(root).activations
    if getattr(known, name, function) is not function:
        raise UnsupportedError(f"{layer.name}: {which} {function.__module__}.{name} is not {root}.activations.{name}")
    if root == "tf_keras" and name == "hard_sigmoid":
        return _OF_KERAS_2
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"{layer.name}: {which} {name} is not covered; covered: {_covered()}")
    return str(ACTIVATIONS[name].name)


def _covered() -> str:
    return ", ".join(sorted(name for name in ACTIVATIONS if name and name != _OF_KERAS_2))


def activation_in(module: ModuleType, name: Any) -> Any:
    """What an activation of rnn_scratch is called in that Keras."""
    if name != _OF_KERAS_2:
        return name
    if module.__name__ != "tf_keras":
        raise UnsupportedError("to_keras: Keras 3 has no hard_sigmoid of slope 0.2 (Keras 2's); use tf_keras")
    return "hard_sigmoid"


def weights_of(layer: KerasLayer, dtype: np.dtype[Any], names: Sequence[str], owner: str = "") -> list[Array]:
    """Its arrays in that dtype. InputError where it has none yet, and for NaN and infinity in them.

    names: of the arrays, for messages, where fewer may be there. owner: whose layer it is, for a cell.
    """
    called = owner or layer.name
    weights = [np.asarray(weight) for weight in layer.get_weights()]
    if not weights:
        raise InputError(f"{called}: expected a built layer; it has no weights yet: build it, or pass input_shape")
    for name, weight in zip(names, weights, strict=False):
        if not np.isfinite(weight.astype(np.float64)).all():
            raise InputError(f"{called}: {name}: expected finite weights; received NaN or infinity")
    return [weight.astype(dtype) for weight in weights]


def set_weights(layer: KerasLayer, arrays: Iterable[Array]) -> None:
    layer.set_weights([wide(array) for array in arrays])
