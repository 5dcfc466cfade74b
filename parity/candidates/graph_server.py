"""A graph in a process of its own: `python -m parity.candidates.graph_server onnx model.onnx`.

It says on its standard output what its inputs and outputs are, one line of JSON; then for each line that it reads, a
folder with `in0.npy`, `in1.npy`, ... and whether the graph is to start anew, it writes `out0.npy`, ... beside them and
answers with one line. Whatever the library prints goes to standard error.
"""

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from parity.candidates.matching import Slot
from parity.errors import MissingExtraError
from parity.terminal import briefly
from rnn_scratch.base import Array

_KINDS = {".onnx": "parity.adapters.onnx", ".tflite": "parity.adapters.tflite"}
"""The module of each kind of file. Its class `Graph` is a `_Graph`, made of a path."""

_HEADROOM = 1 << 29
"""Bytes beyond what the library itself takes, so that a shape that a damaged file declares is not believed."""


class _Graph(Protocol):
    """Of an adapter: a file, loaded."""

    inputs: Sequence[Slot]
    outputs: Sequence[Slot]

    def renew(self) -> None: ...

    def run(self, arrays: Sequence[Array]) -> Sequence[Array]: ...


def main(suffix: str, path: str) -> None:
    # what a library prints would be taken for an answer
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**told: Any) -> None:
        print(json.dumps(told), file=channel)

    try:
        graph = _loaded(suffix, path)
        say(inputs=[_described(slot) for slot in graph.inputs], outputs=[_described(slot) for slot in graph.outputs])
    except MissingExtraError as error:
        say(missing=str(error))
        return
    except Exception as error:
        say(error=briefly(error))
        return
    for line in sys.stdin:
        try:
            folder, renew = json.loads(line)
            if renew:
                graph.renew()
            _answer(graph, Path(folder))
        except Exception as error:
            say(error=briefly(error))
        else:
            say()


def _loaded(suffix: str, path: str) -> _Graph:
    module = importlib.import_module(_KINDS[suffix])
    _limit_memory(_HEADROOM + 8 * os.path.getsize(path))
    graph: _Graph = module.Graph(path)
    return graph


def _answer(graph: _Graph, folder: Path) -> None:
    arrays = [np.load(folder / f"in{n}.npy") for n in range(len(graph.inputs))]
    _limit_memory(_HEADROOM + 64 * sum(array.nbytes for array in arrays))
    for n, array in enumerate(graph.run(arrays)):
        np.save(folder / f"out{n}.npy", array)


def _described(slot: Slot) -> dict[str, Any]:
    return {"name": slot.name, "shape": slot.shape, "dtype": np.dtype(slot.dtype).name}


def _limit_memory(more: int) -> None:
    """What may be allocated from here on, where the system can tell and limit it."""
    try:
        import resource

        status = Path("/proc/self/status").read_text()
    except (ImportError, OSError):
        return
    used = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, hard))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
