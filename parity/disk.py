"""Files that a user names: written whole or not at all, read without ever being unpickled."""

import contextlib
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import InputError
from parity.terminal import briefly

Array = NDArray[Any]

LARGEST = 1 << 28
"""Bytes that an archive may have, and declare its arrays to have."""


# --- writing ---


@contextlib.contextmanager
def writing(path: str | None, option: str = "") -> Iterator[Callable[[bytes], None]]:
    """A function that writes a file, whole or not at all; that does nothing without a path.

    Whether the file can be written is found out here, before the work: InputError if not.
    """
    if path is None:
        yield lambda data: None
        return
    target = Path(path)
    file, temporary = _beside(target, f"{option}: {path}" if option else path)

    def write(data: bytes) -> None:
        file.write(data)
        file.close()
        # mkstemp lets nobody else read it; a file that was made in the usual way would be readable
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)

    try:
        with file:
            yield write
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _beside(target: Path, named: str) -> tuple[IO[bytes], str]:
    """A temporary file in the target's own folder: only there is the final renaming one step."""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise InputError(f"{named}: cannot be written: {error.strerror}") from None
    if target.is_dir():
        os.close(handle)
        os.unlink(temporary)
        raise InputError(f"{named}: expected a file; it is a folder")
    return os.fdopen(handle, "wb"), temporary


def _umask() -> int:
    """The process's own, which can only be asked for by setting another one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- reading ---


def bytes_of(option: str, path: str) -> bytes:
    """What is in the file; InputError, which names the option, where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{option}: {path}: cannot be read: {error.strerror}") from None


def load_array(option: str, path: str | None) -> Array | None:
    """The array in an .npy file; None without a path; InputError for anything else."""
    if path is None:
        return None
    data = bytes_of(option, path)
    if _is_archive(data):
        raise InputError(f"{option}: {path}: expected one array (.npy); received an archive of several")
    try:
        return array_of(data)
    except Exception as error:  # whatever a damaged file makes of the reader
        reason = " ".join(str(error).split()) if data else "the file is empty"
        raise InputError(f"{option}: {path}: expected an .npy file of numbers: {reason[:200]}") from None


def load_outputs(path: str | None) -> Array | dict[int, tuple[Array, ...]] | None:
    """Outputs for a golden file: an array, or of an .npz, {number of the case: its arrays}."""
    data = b"" if path is None else bytes_of("--outputs", path)
    if not _is_archive(data):
        return load_array("--outputs", path)
    found: dict[int, tuple[Array, ...]] = {}
    try:
        for name, array in sorted(arrays_in(data).items()):
            case, _, _ = name.partition("/")
            found[int(case)] = (*found.get(int(case), ()), array)
    except Exception as error:  # likewise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--outputs: {path}: expected an .npz of arrays called by the numbers of cases, 0, 1, ... (0/0, 0/1, ... "
            f"where there are several): {reason}"
        ) from None
    return found


def _is_archive(data: bytes) -> bool:
    return data.startswith(b"PK")


# --- .npy and .npz, whose bytes may come from anybody ---


def arrays_in(data: bytes, most: int = LARGEST) -> dict[str, Array]:
    """The arrays in the bytes of an .npz file, which may declare that many bytes. ValueError for anything else."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        files = archive.infolist()
        if sum(info.file_size for info in files) > most:
            raise ValueError(f"it declares more than {most >> 20} MiB")
        return {info.filename.removesuffix(".npy"): array_of(_member(archive, info)) for info in files}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """One file of an archive. No more is inflated than it declares, which other methods than zlib's cannot promise."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename}: expected it stored or deflated, as NumPy writes it")
    with archive.open(info) as file:
        return file.read(info.file_size)


def array_of(data: bytes) -> Array:
    """The array in the bytes of an .npy file, never unpickled. ValueError for anything else: what it declares must be
    what it holds before any memory is taken for it."""
    file = BytesIO(data)
    shape, fortran, dtype = _header(file)
    if dtype.hasobject:
        raise ValueError("expected numbers; it holds Python objects, which are not unpickled")
    held, declared = len(data) - file.tell(), math.prod(shape) * dtype.itemsize
    if held != declared:
        raise ValueError(f"it declares {dtype} {shape}, {declared:,} bytes; it holds {held:,}")
    flat = np.frombuffer(data, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="C")


def _header(file: BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape that an .npy file declares, whether columns come first, and its dtype."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)  # 3.0 differs in the names of fields alone
    except Exception as error:  # NumPy's own reader lets whatever Python's parser raises pass
        raise ValueError(f"expected an .npy file: {briefly(error)}") from None
