"""Cases on disk: one .npz of plain arrays, and JSON that says what they are. Nothing is pickled, ever.

`cases.json`, an array of bytes, holds the schema's version, the cases with their layers, and the SHA-256 of all of it
with the arrays; a file of which a byte of that has changed is refused. bfloat16 is kept as the 16-bit integers that it
lies in.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases import Case, named_dtype
from parity.errors import InputError, ParityError
from rnn_scratch import (
    RNN,
    Activation,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    GRUCell,
    LSTMCell,
    Masking,
    Sequential,
    SimpleRNNCell,
    TimeDistributed,
)
from rnn_scratch.layers import Layer, Recurrent, recurrent

Array = NDArray[Any]
Arrays = dict[str, Array]

SCHEMA = 1
INDEX = "cases.json"
LARGEST = 1 << 30
"""Bytes that a file may declare its arrays to have."""


# --- layers as data ---

CELLS = {kind.name: kind for kind in (SimpleRNNCell, LSTMCell, GRUCell)}


def describe(layer: Layer) -> dict[str, Any]:
    """A layer without its arrays, as JSON has it."""
    found: dict[str, Any] = {"kind": layer.kind, "name": layer.name, "dtype": layer.dtype.name}
    if isinstance(layer, Recurrent):
        settings = {key: value for key, value in layer.cell.settings.items() if value is not None}
        found |= {"cell": settings, "settings": layer.settings, "use_bias": layer.cell.use_bias}
    for name in ("merge_mode", "mask_zero", "mask_value", "use_bias"):
        if hasattr(layer, name):
            found[name] = getattr(layer, name)
    if isinstance(layer, Dense | Activation):
        found["activation"] = layer.activation.name
    if isinstance(layer, RNN):
        found["settings"] = layer.settings
    if layer.parts:
        found["parts"] = [[name, describe(part)] for name, part in layer.parts.items()]
    return found


def rebuild(found: Mapping[str, Any], weights: Mapping[str, Array]) -> Layer:
    """The layer of a description and its arrays by name."""

    def own(name: str) -> Any:
        return weights.get(name)

    kind, name = found["kind"], found["name"]
    parts = {
        part: rebuild(
            inner, {key.removeprefix(f"{part}."): a for key, a in weights.items() if key.startswith(f"{part}.")}
        )
        for part, inner in found.get("parts", [])
    }
    layers: list[Any] = list(parts.values())
    layer: Layer
    if kind in CELLS:
        layer = recurrent(CELLS[kind](own("Wx"), own("Wh"), own("b"), **found["cell"]), found["settings"])
    elif kind == "bidirectional":
        layer = Bidirectional(*layers, merge_mode=found["merge_mode"])
    elif kind == "rnn":
        layer = RNN([part.cell for part in layers], **found["settings"])
    elif kind == "time_distributed":
        layer = TimeDistributed(*layers)
    elif kind == "sequential":
        layer = Sequential(layers)
        layer.parts = parts
    elif kind == "dense":
        layer = Dense(own("W"), own("b"), activation=found["activation"])
    elif kind == "embedding":
        layer = Embedding(own("E"), mask_zero=found["mask_zero"])
    elif kind == "masking":
        layer = Masking(found["mask_value"], dtype=named_dtype(found["dtype"]))
    elif kind == "activation":
        layer = Activation(found["activation"], dtype=named_dtype(found["dtype"]))
    elif kind == "dropout":
        layer = Dropout(dtype=named_dtype(found["dtype"]))
    else:
        raise ValueError(f"no layer of the kind {kind!r}")
    layer.name = name
    return layer


# --- files ---


def packed(cases: Sequence[Case]) -> bytes:
    """The cases as the bytes of a file."""
    arrays: Arrays = {}
    described = [entry(case, f"{n}/", arrays) for n, case in enumerate(cases)]
    index: dict[str, Any] = {"schema": SCHEMA, "cases": described}
    index["dtypes"] = {name: array.dtype.name for name, array in arrays.items()}
    plain = {name: a.view(np.uint16) if a.dtype.name == "bfloat16" else a for name, a in arrays.items()}
    index["sha256"] = digest(index, plain)
    text = np.frombuffer(json.dumps(index, allow_nan=False).encode(), np.uint8)
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=False, **{INDEX: text, **plain})
    return file.getvalue()


def entry(case: Case, prefix: str, arrays: Arrays) -> dict[str, Any]:
    """A case without its arrays, which are put into `arrays`."""
    own: Arrays = {"x": case.x} | ({} if case.mask is None else {"mask": case.mask})
    own |= {f"initial_state/{n}": state for n, state in enumerate(case.initial_state or ())}
    own |= {f"weights/{name}": array for name, array in case.layer.weights.items()}
    arrays |= {prefix + name: np.ascontiguousarray(array) for name, array in own.items()}
    return {
        "id": case.id,
        "layer": describe(case.layer),
        "calls": case.calls,
        "rows": list(case.rows),
        "arrays": list(own),
    }


def digest(index: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """SHA-256 of the index without its digest, and of every array with its name, dtype and shape."""
    rest = {key: value for key, value in index.items() if key != "sha256"}
    total = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


@contextlib.contextmanager
def writing(path: str | None, option: str = "") -> Iterator[Callable[[bytes], None]]:
    """A function that writes a file, whole or not at all; that does nothing without a path. Whether the file can be
    written is found out here, before the work: InputError if not."""
    if path is None:
        yield lambda data: None
        return
    target, name = Path(path), f"{option}: {path}" if option else path
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise InputError(f"{name}: cannot be written: {error.strerror}") from None
    if target.is_dir():
        os.close(handle)
        os.unlink(temporary)
        raise InputError(f"{name}: expected a file; it is a folder")

    def write(data: bytes) -> None:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, target)

    try:
        yield write
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load(path: str) -> list[Case]:
    """The cases of a file. InputError, in one line, for anything that is none or has been changed."""
    try:
        index, arrays = contents(path)
        if index.get("schema") != SCHEMA:
            raise ValueError(f"schema {index.get('schema')!r}; this version reads schema {SCHEMA}")
        if index.get("sha256") != digest(index, arrays):
            raise ValueError("its digest does not fit: something in it was changed")
        typed = {name: arrays[name].view(named_dtype(dtype)) for name, dtype in index["dtypes"].items()}
        return [case_of(described, f"{n}/", typed) for n, described in enumerate(index["cases"])]
    except ParityError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: expected a file of cases written by parity: {reason[:200]}") from None


def contents(path: str) -> tuple[dict[str, Any], Arrays]:
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        if sum(info.file_size for info in archive.infolist()) > LARGEST:
            raise ValueError(f"it declares more than {LARGEST >> 20} MiB")
        arrays = {}
        for info in archive.infolist():
            with archive.open(info) as member:
                data = BytesIO(member.read(info.file_size + 1))
                arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(data, allow_pickle=False)
    return json.loads(arrays.pop(INDEX).tobytes()), arrays


def case_of(described: Mapping[str, Any], prefix: str, arrays: Mapping[str, Array]) -> Case:
    own = {name: arrays[prefix + name] for name in described["arrays"]}
    weights = {name.removeprefix("weights/"): a for name, a in own.items() if name.startswith("weights/")}
    states = tuple(a for name, a in own.items() if name.startswith("initial_state/"))
    layer = rebuild(described["layer"], weights)
    calls, rows = int(described["calls"]), tuple(described["rows"])
    return Case(str(described["id"]), layer, own["x"], own.get("mask"), states or None, calls, rows)
