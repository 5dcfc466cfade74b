"""The archive of a golden file: plain arrays and an index in JSON, sealed by a digest. Nothing is pickled, ever.

`cases.json`, an array of bytes, is the index; it says the dtype of each array, since bfloat16 is kept as the 16-bit
integers that it lies in. The archive's comment is the SHA-256 of every byte before it: a file of which any byte has
changed is refused before anything in it is read.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases.drawing import named_dtype
from parity.disk import LARGEST, arrays_in, expect_file

Array = NDArray[Any]
Index = dict[str, Any]

_INDEX = "cases.json"
_DIGEST = 64


def written(index: Index, arrays: Mapping[str, Array]) -> bytes:
    """The bytes of a file."""
    dtypes = {name: array.dtype.name for name, array in arrays.items()}
    text = json.dumps({**index, "dtypes": dtypes}, allow_nan=False)
    members = {_INDEX: np.frombuffer(text.encode(), np.uint8)}
    for name, array in arrays.items():
        members[name] = _as_numpy_has_it(array)
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=False, **members)
    return sealed(file)


def _as_numpy_has_it(array: Array) -> Array:
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def sealed(file: BytesIO) -> bytes:
    """The archive with its digest as its comment, of which the length stands in its last two bytes."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"0" * _DIGEST
    body = file.getvalue()[:-_DIGEST]
    return body + hashlib.sha256(body).hexdigest().encode()


def opened(path: str, schema: int) -> tuple[Index, dict[str, Array]]:
    """The index and the arrays of a file of that schema. ValueError for any other one."""
    arrays = arrays_in(_unsealed(path))
    index = json.loads(arrays.pop(_INDEX).tobytes())
    if index.get("schema") != schema:
        raise ValueError(f"schema {index.get('schema')!r}; this version reads schema {schema}")
    dtypes = index["dtypes"].items()
    return index, {name: arrays[name].view(named_dtype(dtype)) for name, dtype in dtypes}


def _unsealed(path: str) -> bytes:
    """The bytes of a file whose digest fits. That says nothing of who wrote it: a digest is easily made."""
    expect_file(path)
    if os.path.getsize(path) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    data = Path(path).read_bytes()
    body, found = data[:-_DIGEST], data[-_DIGEST:]
    if not data.startswith(b"PK"):
        raise ValueError("it is no .npz archive")
    if not re.fullmatch(rb"[0-9a-f]{64}", found):
        raise ValueError("it does not end with a digest: it was cut short, or rewritten by something else")
    if hashlib.sha256(body).hexdigest().encode() != found:
        raise ValueError("its digest does not fit: something in it was changed")
    return data


def below(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays whose names begin so, by the rest of their names."""
    inside = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays[name] for name in inside}


def numbered(name: str, arrays: Mapping[str, Array]) -> tuple[Array, ...]:
    """The arrays `name/0`, `name/1`, ..."""
    own = below(f"{name}/", arrays)
    return tuple(own[str(n)] for n in range(len(own)))
