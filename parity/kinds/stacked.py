"""RNN: stacked cells in one loop. Keras's RNN of a single cell is the layer that is called by the cell's name."""

from types import ModuleType
from typing import Any

from parity.adapters.keras.library import family
from parity.adapters.keras.precision import dtype_of
from parity.kinds import registry
from parity.kinds.cells import ELSEWHERE
from parity.kinds.recurrent import (
    expect_coverable,
    fill_cell,
    held_states,
    keras_cell_settings,
    loop_settings,
    take_cell,
)
from parity.kinds.recurrent import take as take_single
from parity.kinds.registry import Convert, Described, Extra, KerasLayer, Parts, Weights
from rnn_scratch import RNN
from rnn_scratch.layers import Layer, Recurrent


@registry.take.register("RNN")
def take(layer: KerasLayer, convert: Convert) -> Layer:
    if type(layer.cell).__name__ != "StackedRNNCells" or not family(layer.cell):
        return take_single(layer, convert)
    settings: Any = loop_settings(layer)
    dtype = dtype_of(layer)
    for cell in layer.cell.cells:
        expect_coverable(cell, layer)
    scratch = RNN([take_cell(cell, dtype, layer.name) for cell in layer.cell.cells], **settings)
    held = held_states(layer, dtype)
    if held:
        scratch.keep(held)
    return scratch


@registry.make.register(RNN)
def make(layer: RNN, module: ModuleType, extra: Extra) -> KerasLayer:
    cells = [_keras_cell(part, module) for part in layer.layers]
    settings = {**layer.settings, **extra}
    return module.layers.RNN(cells if len(cells) > 1 else cells[0], dtype=layer.dtype.name, **settings)


def _keras_cell(layer: Recurrent, module: ModuleType) -> KerasLayer:
    kind = getattr(module.layers, f"{ELSEWHERE[layer.cell.name].keras}Cell")
    return kind(**keras_cell_settings(layer.cell, module))


@registry.fill.register(RNN)
def fill(layer: RNN, keras_layer: KerasLayer) -> None:
    cells = keras_layer.cell.cells if len(layer.layers) > 1 else [keras_layer.cell]
    for cell, own in zip(cells, layer.layers, strict=True):
        fill_cell(cell, own.cell)


@registry.describe.register(RNN)
def describe(layer: RNN) -> dict[str, Any]:
    return {"settings": layer.settings}


@registry.rebuild.register("rnn")
def rebuild(described: Described, weights: Weights, parts: Parts) -> Layer:
    cells = [part.cell for part in parts.values() if isinstance(part, Recurrent)]
    return RNN(cells, **described["settings"])
