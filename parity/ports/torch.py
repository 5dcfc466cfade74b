"""PyTorch: a state dict, and the modules of torch's own that load it."""

from collections.abc import Callable, Mapping
from io import BytesIO
from types import ModuleType
from typing import Any

import numpy as np

from parity.errors import UnsupportedError
from parity.extras import needed
from parity.kinds import registry
from rnn_scratch.base import Array, Layer


def write(layer: Layer, arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> bytes:
    """The state dict. It has no place for a manifest."""
    library = _library()
    file = BytesIO()
    library.save({name: library.from_numpy(array.copy()) for name, array in arrays.items()}, file)
    return file.getvalue()


def loaded(path: str, layer: Layer) -> Callable[[Array], Any]:
    """The state dict in modules of torch's own, one after another, as a function of x."""
    library = _library()
    run = registry.torch(layer, library, library.load(path, weights_only=True))

    def forward(x: Array) -> Any:
        with library.inference_mode():
            y = run(library.from_numpy(np.array(x)))  # a copy, for torch warns of an array that is read only
        return tuple(part.numpy() for part in y) if isinstance(y, tuple) else y.numpy()

    return forward


def activation(library: ModuleType, name: str | None, owner: str) -> Callable[[Any], Any]:
    """Torch's function of that name. UnsupportedError for one that it has not here. owner: whose it is."""
    known: dict[str, Callable[[Any], Any]] = {
        "tanh": library.tanh,
        "sigmoid": library.sigmoid,
        "relu": library.relu,
        "linear": lambda x: x,
        "softmax": lambda x: library.softmax(x, -1),
    }
    if (name or "linear") not in known:
        raise UnsupportedError(f"{owner}: the torch port carries {', '.join(known)}; received {name}")
    return known[name or "linear"]


def _library() -> ModuleType:
    return needed("torch", "a state dict", "torch")
