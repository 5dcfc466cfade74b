"""A Keras cell without a layer around it: taken as the layer that returns the last output of its loop."""

from parity.adapters.keras.precision import dtype_of
from parity.kinds import registry
from parity.kinds.cells import ELSEWHERE
from parity.kinds.recurrent import take_cell
from parity.kinds.registry import Convert, KerasLayer
from rnn_scratch.layers import Layer, recurrent


@registry.take.register(*(f"{cell.keras}Cell" for cell in ELSEWHERE.values()))
def take(cell: KerasLayer, convert: Convert) -> Layer:
    return recurrent(take_cell(cell, dtype_of(cell)), {})
