"""Files that a user names: written whole or not at all, read without ever being unpickled."""

import contextlib
import errno
import io
import math
import os
import re
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from parity.errors import InputError
from parity.terminal import briefly

Array = NDArray[Any]

LARGEST = 1 << 28
"""Bytes that an archive may have, and declare its arrays to have."""


# --- writing ---

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


@contextlib.contextmanager
def writing(path: str | None, option: str = "") -> Iterator[Callable[[bytes], None]]:
    """A function that writes a file, whole or not at all; that does nothing without a path.

    Links are followed, and a file that is there keeps its mode. A pipe or a device is written into. Whether it can be
    written is found out here, before the work: InputError if not.
    """
    if path is None:
        yield lambda data: None
        return
    named = f"{option}: {path}" if option else path
    if (descriptor := _descriptor(path)) is not None:
        yield lambda data: _into(named, lambda: os.fdopen(os.dup(descriptor), "wb"), data)
        return
    with _said_of(named):
        there = _kind(path, named)
    if there is None or stat.S_ISREG(there):
        target = Path(os.path.realpath(path))
        with _said_of(named):
            _expect_writable(target, there)
        yield lambda data: _in_the_place_of(target, there, named, data)
        return
    written: list[bytes] = []

    def write(data: bytes) -> None:
        written.append(data)
        _into(named, lambda: io.BufferedWriter(io.FileIO(path, "wb")), data)

    try:
        yield write
    finally:
        if not written:
            _let_go(path)


@contextlib.contextmanager
def standard_output() -> Iterator[str]:
    """A path for what is standard output now. Until the end whatever else is printed goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield f"/dev/fd/{kept}"
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def is_file_or_new(path: str) -> bool:
    """Whether what is written there is a file, beside which others may stand: not a pipe or a device."""
    return _descriptor(path) is None and (os.path.isfile(path) or not os.path.exists(path))


def _descriptor(path: str) -> int | None:
    """Of a path that is one that is open already: opening it again would empty the file that it goes to."""
    found = _DESCRIPTOR.fullmatch(path)
    return int(found[1]) if found else _STANDARD.get(path)


def _kind(path: str, named: str) -> int | None:
    """The mode of what is there; None where nothing is. InputError for a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise InputError(f"{named}: expected a file; it is a folder")
    return mode


def _expect_writable(target: Path, there: int | None) -> None:
    """OSError where the file could not be written; nothing is left of having tried."""
    if there is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    file, temporary = _beside(target)
    file.close()
    os.unlink(temporary)


def _beside(target: Path) -> tuple[IO[bytes], str]:
    """A temporary file in the target's own folder: only there is the final renaming one step."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
    return os.fdopen(handle, "wb"), temporary


def _in_the_place_of(target: Path, there: int | None, named: str, data: bytes) -> None:
    with _said_of(named):
        file, temporary = _beside(target)
        try:
            with file:
                file.write(data)
            # mkstemp lets nobody else read it; a file that was made in the usual way would be readable
            os.chmod(temporary, 0o666 & ~_umask() if there is None else stat.S_IMODE(there))
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _into(named: str, opened: Callable[[], BinaryIO | io.BufferedWriter], data: bytes) -> None:
    """Into a pipe or a device, whose reader may go when it likes."""
    with _said_of(named), contextlib.suppress(BrokenPipeError), opened() as stream:
        stream.write(data)


def _let_go(path: str) -> None:
    """The reader of a pipe into which nothing was written would wait for ever."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


@contextlib.contextmanager
def _said_of(named: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{named}: cannot be written: {error.strerror}") from None


def _umask() -> int:
    """The process's own, which can only be asked for by setting another one."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- reading ---


def bytes_of(option: str, path: str) -> bytes:
    """What is in the file; InputError, which names the option, where it cannot be read."""
    try:
        expect_file(path)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{option}: {path}: cannot be read: {error.strerror or error}") from None


def expect_file(path: str | os.PathLike[str]) -> None:
    """OSError for a pipe or a device, which may never end, or never begin."""
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise OSError("expected a file; it is a pipe or a device")


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
