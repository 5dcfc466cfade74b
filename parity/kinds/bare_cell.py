"""A Keras cell without a layer around it: taken as the layer that returns the last output of its loop."""

from parity.adapters.keras.precision import dtype_of
from parity.kinds import registry
from parity.kinds.recurrent import NAMES, take_cell
from parity.kinds.registry import Convert, KerasLayer
from rnn_scratch.layers import Layer, recurrent


@registry.take.register(*(f"{names.keras}Cell" for names in NAMES.values()))
def take(cell: KerasLayer, convert: Convert) -> Layer:
    return recurrent(take_cell(cell, dtype_of(cell)), {})
