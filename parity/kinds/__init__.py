"""One file for each kind of layer: all that is known of it beside its numerics, which are in rnn_scratch.

A kind file registers with the open functions of `parity.kinds.registry` and is found by standing in this folder: to add
a kind, nothing else is edited. Nobody need import it: the open functions load every kind file when one is first called.
"""

import functools
import importlib
import pkgutil

_ORDER = (
    "recurrent",
    "stacked",
    "bare_cell",
    "bidirectional",
    "time_distributed",
    "dense",
    "embedding",
    "masking",
    "activation",
    "dropout",
)
"""As messages list them; a kind that is not named here comes after these."""


def place(module: str) -> tuple[int, str]:
    """What sorts kind files, named with their folder or without, in the order of messages."""
    name = module.rpartition(".")[2]
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


@functools.cache
def load() -> None:
    """Import every kind file.

    Not at the top of this module: what kind files build on (drawing, layouts, the Keras tree) calls open functions
    itself, and would be imported halfway.
    """
    files = {module.name for module in pkgutil.iter_modules(__path__)} - {"registry"}
    for name in sorted(files, key=place):
        importlib.import_module(f"{__name__}.{name}")
