"""To Keras: a layer of rnn_scratch as a built Keras layer, every weight bit for bit."""

from types import ModuleType
from typing import Any

from parity.adapters.keras.attributes import declared_dtype
from parity.adapters.keras.library import keras, module_of, no_warnings, wide
from parity.adapters.keras.tree import is_cell, state_variables
from parity.errors import InputError, UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import KerasLayer
from rnn_scratch.layers import Layer, Recurrent
from rnn_scratch.models import Model

Shape = tuple[int | None, ...]


def to_keras(scratch: Any, *, batch_size: int | None = None, module: ModuleType | None = None, **settings: Any) -> Any:
    """A built Keras layer or model with the weights and settings of an rnn_scratch layer, every weight bit for bit.

    batch_size: needed for a stateful layer that holds no state yet, since Keras fixes it there. module: `keras`, or
    `tf_keras`. settings: further arguments of the Keras layer, such as unroll=True.

    Raises UnsupportedError for what is no layer of rnn_scratch, or whose activation that Keras does not have.
    """
    module = module or keras()
    parts = scratch.layers if isinstance(scratch, Model) else (scratch,)
    for part in parts:
        _expect_known(part)
    batch = _batch_of(scratch, batch_size)
    with no_warnings():
        if isinstance(scratch, Model):
            return _to_model(scratch, batch, module)
        name = {} if scratch.name == scratch.kind else {"name": scratch.name}
        layer = registry.make(scratch, module, {**name, **settings})
        layer.build(_input_shape(scratch, batch))
        _fill(layer, scratch)
        return layer


def _expect_known(scratch: Any) -> None:
    if not registry.make.knows(scratch):
        names = ", ".join(kind.__name__ for kind in registry.make.kinds)
        raise UnsupportedError(
            f"to_keras: expected a layer of rnn_scratch ({names} or Sequential); received {type(scratch).__name__}"
        )


def _batch_of(scratch: Layer, given: int | None) -> int | None:
    """The batch size that Keras is to fix: that of the states held, or the given one; None for a stateless layer."""
    if not scratch.stateful:
        return given
    held = next((part.state for part in scratch.every(Recurrent) if part.state is not None), None)
    batch = len(held[0]) if held else given
    if batch is None:
        raise InputError("to_keras: a stateful layer needs batch_size=, which Keras fixes when it is built")
    return batch


def _input_shape(scratch: Layer, batch: int | None) -> Shape:
    if _takes_tokens(scratch):
        return (batch, None)
    return (batch, None, scratch.input_dim)


def _takes_tokens(layer: Layer) -> bool:
    return layer.ndim == 2


def _to_model(scratch: Model, batch: int | None, module: ModuleType) -> KerasLayer:
    if any(part.unroll for part in scratch.every(Recurrent)):
        raise UnsupportedError(
            "to_keras: a model with unroll needs a fixed number of timesteps; convert its layers alone"
        )
    layers = [registry.make(part, module, {"name": name}) for name, part in scratch.parts.items()]
    model = module.Sequential([_input(scratch, batch, module), *layers], name=scratch.name)
    for layer, part in zip(layers, scratch.layers, strict=True):
        _fill(layer, part)
    return model


def _input(scratch: Model, batch: int | None, module: ModuleType) -> KerasLayer:
    first = scratch.layers[0]
    if _takes_tokens(first):
        return module.Input(batch_shape=(batch, None), dtype="int32")
    features = next((part.input_dim for part in scratch.layers if part.input_dim is not None), None)
    return module.Input(batch_shape=(batch, None, features), dtype=first.dtype.name)


def _fill(layer: KerasLayer, scratch: Layer) -> None:
    """Its weights, and the states that it keeps."""
    registry.fill(scratch, layer)
    if not scratch.stateful:
        return
    held = [state for part in scratch.every(Recurrent) for state in part.state or ()]
    if held:
        for variable, state in zip(state_variables(layer), held, strict=True):
            variable.assign(wide(state))


def around(layer: KerasLayer, scratch: Recurrent) -> KerasLayer:
    """A layer of the same Keras around the cell of that one (or around that cell), with the settings of the other."""
    cell = layer if is_cell(layer) else layer.cell
    settings = {**scratch.settings, "stateful": False}
    return module_of(cell).layers.RNN(cell, dtype=declared_dtype(cell), **settings)
