"""From Keras: a built layer or model as a layer of rnn_scratch. Each kind's own part is in its kind file."""

from typing import Any

from parity.adapters.keras.library import backend_of, family, no_warnings
from parity.adapters.keras.tree import chain, is_model
from parity.errors import ParityError, UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import KerasLayer
from parity.terminal import briefly
from rnn_scratch import Sequential
from rnn_scratch.layers import PROFILES, Layer, Recurrent


@no_warnings()
def from_keras(layer: KerasLayer) -> Any:
    """An rnn_scratch layer with the weights and settings of a built Keras layer or model.

    layer: of Keras 3 or tf_keras: any of `parity/kinds/` (SimpleRNN, LSTM, GRU, their cells, RNN of one cell or of
    several, Bidirectional, TimeDistributed, Dense, ...), or a Sequential or functional model of these one after
    another, in float16, bfloat16, float32, float64 or a mixed policy. Wx is the kernel transposed, Wh the recurrent
    kernel transposed, b the bias, in the dtype computed in. A model of one layer gives that layer; another one a
    Sequential under the layers' own names. A bare cell becomes a layer that returns the last output. The state that a
    stateful layer holds comes along, and its `profile` is that of the backend in use. Dropout, initializers,
    regularizers and constraints change nothing at inference and are ignored.

    Raises UnsupportedError for what it cannot carry, naming it; InputError for a layer that is not built, and for
    weights that are not finite.
    """
    if not is_model(layer):
        return convert(layer)
    converted = [convert(part) for part in chain(layer)]
    for scratch in converted[:-1]:
        if len(scratch.output_shapes((1, 1, 1))) > 1:
            raise UnsupportedError(f"model {layer.name}: {scratch.name} has several outputs before the last layer")
    return converted[0] if len(converted) == 1 else Sequential(converted, name=layer.name)


def convert(layer: KerasLayer) -> Layer:
    """One layer, whatever it wraps."""
    kind, covered = type(layer).__name__, registry.covered()
    if not family(layer):
        what = f"{kind} of {type(layer).__module__}"
        raise UnsupportedError(
            f"expected a layer of Keras's own ({covered}); received {what}, which may compute anything"
        )
    if kind not in registry.take:
        name = getattr(layer, "name", kind)
        raise UnsupportedError(f"{name}: {kind} is not covered; covered: {covered}")
    try:
        scratch = registry.take[kind](layer, convert)
    except ParityError:
        raise
    except ValueError as error:
        raise UnsupportedError(f"{layer.name}: {kind}: {briefly(error)}") from error
    scratch.name = layer.name
    for part in scratch.every(Recurrent):
        part.profile = PROFILES.get(backend_of(layer), PROFILES["tensorflow"])
    return scratch
