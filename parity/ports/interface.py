"""What a port takes and returns: its input, its results, and the layers that it must carry."""

from parity.errors import UnsupportedError
from parity.kinds import registry
from rnn_scratch.base import Layer


def leaves(layer: Layer) -> list[Layer]:
    """The layers of a model in their order, out of what only holds them. A Bidirectional is one layer."""
    if not registry.held.knows(layer):
        return [layer]
    found = []
    for part in registry.held(layer):
        found += leaves(part)
    return found


def takes_tokens(layer: Layer) -> bool:
    """Whether the input is token ids, (batch, timesteps), and not features, (batch, timesteps, input_dim)."""
    return leaves(layer)[0].ndim == 2


def input_dim(layer: Layer) -> int:
    """How many features it takes: those of the first layer that says so."""
    for part in leaves(layer):
        if part.input_dim is not None:
            return part.input_dim
    raise UnsupportedError(f"{layer.name}: no layer in it says how many features it takes")


def result_names(layer: Layer) -> list[str]:
    """y, or of Bidirectional without a merge y and y_back, then the states."""
    results = len(layer.output_shapes((1, 1, 1)))
    states = [name.replace(".", "_") for name in layer.state_names]
    outputs = results - len(states) if results > len(states) else results
    return [*["y", "y_back"][:outputs], *states][:results]
