"""Keras layers and models that are not built yet: built, and given random weights."""

from parity.adapters.keras.attributes import activation_name, declared_dtype
from parity.adapters.keras.from_keras import convert, from_keras
from parity.adapters.keras.library import module_of, no_warnings
from parity.adapters.keras.tree import cells_in, chain, is_cell, is_model, leaves
from parity.cases.drawing import generator, randomized
from parity.errors import InputError
from parity.kinds import registry
from parity.kinds.registry import KerasLayer
from parity.terminal import briefly
from rnn_scratch import Sequential


@no_warnings()
def build_random(layer: KerasLayer, input_shape: tuple[int, ...], seed: int) -> bool:
    """Build a layer or model that is not built yet, with random weights and biases; whether it had to be.

    input_shape: without the batch. Keras's own zero biases (and, for two units, often symmetric recurrent kernels)
    would hide mistakes.
    """
    parts = chain(layer) if is_model(layer) else [layer]
    lacking = [leaf for part in parts for leaf in leaves(part) if _lacks_weights(leaf)]
    if not lacking:
        return False
    for cell in (cell for part in parts for cell in cells_in(part)):
        _expect_covered(cell)
        # The default one, orthogonal, has no float16 kernel on every backend; what it would draw is replaced anyhow.
        cell.recurrent_initializer = module_of(cell).initializers.Zeros()
    _build(layer, input_shape)
    drawn = randomized(from_keras(layer), generator(seed, "build"))
    for part, own in zip(parts, drawn.layers if isinstance(drawn, Sequential) else [drawn], strict=True):
        registry.fill(own, part)
    return True


def _lacks_weights(leaf: KerasLayer) -> bool:
    """Whether it is not built. UnsupportedError for what is not covered, before Keras trips over it."""
    weighted = list(cells_in(leaf)) or [leaf]
    if all(part.get_weights() for part in weighted):
        return False
    try:
        convert(leaf)
    except InputError:
        return True
    return False  # Dropout and the like never have any


def _expect_covered(cell: KerasLayer) -> None:
    declared_dtype(cell)
    activation_name(cell)


def _build(layer: KerasLayer, input_shape: tuple[int, ...]) -> None:
    shape = input_shape[-1:] if is_cell(layer) else input_shape
    try:
        layer.build((None, *shape))
    except Exception as error:  # each backend has its own
        told = ", ".join(map(str, input_shape))
        raise InputError(f"{layer.name}: cannot be built for inputs (batch, {told}): {briefly(error)}") from error
