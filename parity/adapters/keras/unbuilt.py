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
from rnn_scratch.base import Layer
from rnn_scratch.models import Model


@no_warnings()
def build_random(layer: KerasLayer, input_shape: tuple[int, ...], seed: int, batch: int | None = None) -> bool:
    """Build a layer or model that is not built yet, with random weights and biases; whether it had to be.

    input_shape: without the batch, which a stateful layer alone is built for.

    Keras's own zero biases (and, for two units, often symmetric recurrent kernels) would hide
    mistakes.
    """
    if not any(_lacks_weights(leaf) for leaf in leaves(layer)):
        return False
    for cell in cells_in(layer):
        _expect_covered(cell)
        # The default one, orthogonal, has no float16 kernel on every backend; what it would draw is replaced anyhow.
        cell.recurrent_initializer = module_of(cell).initializers.Zeros()
    stateful = any(getattr(leaf, "stateful", False) for leaf in leaves(layer))
    _build(layer, input_shape, batch if stateful else None)
    _fill(layer, randomized(from_keras(layer), generator(seed, "build")))
    return True


def _fill(layer: KerasLayer, drawn: Layer) -> None:
    parts = chain(layer) if is_model(layer) else [layer]
    own = drawn.layers if isinstance(drawn, Model) else (drawn,)
    for part, scratch in zip(parts, own, strict=True):
        registry.fill(scratch, part)


def _lacks_weights(leaf: KerasLayer) -> bool:
    """Whether it is not built. UnsupportedError for what is not covered, before Keras trips over it."""
    weighted = list(cells_in(leaf)) or [leaf]
    if all(part.get_weights() for part in weighted):
        return False
    try:
        convert(leaf)
    except InputError:
        return True
    # Dropout and the like never have any: they can be taken as they are.
    return False


def _expect_covered(cell: KerasLayer) -> None:
    declared_dtype(cell)
    activation_name(cell)


def _build(layer: KerasLayer, input_shape: tuple[int, ...], batch: int | None) -> None:
    shape = input_shape[-1:] if is_cell(layer) else input_shape
    try:
        layer.build((batch, *shape))
    except Exception as error:  # each backend has its own
        told = ", ".join(map(str, input_shape))
        raise InputError(f"{layer.name}: cannot be built for inputs (batch, {told}): {briefly(error)}") from error
