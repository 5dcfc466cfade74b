"""Arrays that a user names: .npy and .npz files, never unpickled."""

from typing import Any

from parity.errors import InputError
from parity.golden.file import array_of, arrays_in


def load_array(option: str, path: str | None) -> Any:
    """The array in an .npy file, never unpickled; InputError for anything else."""
    if path is None:
        return None
    data = bytes_of(option, path)
    if data.startswith(b"PK"):
        raise InputError(f"{option}: {path}: expected one array (.npy); received an archive of several")
    try:
        return array_of(data)
    except Exception as error:  # whatever a damaged file makes of the reader
        reason = " ".join(str(error).split()) if data else "the file is empty"
        raise InputError(f"{option}: {path}: expected an .npy file of numbers: {reason[:200]}") from None


def bytes_of(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{option}: {path}: cannot be read: {error.strerror}") from None


def load_outputs(path: str | None) -> Any:
    """Outputs for a golden file: an array, or of an .npz, {number of the case: its arrays}."""
    data = b"" if path is None else bytes_of("--outputs", path)
    if path is None or not data.startswith(b"PK"):
        return load_array("--outputs", path)
    found: dict[int, tuple[Any, ...]] = {}
    try:
        for name, array in sorted(arrays_in(data).items()):
            case, _, _ = name.partition("/")
            found[int(case)] = (*found.get(int(case), ()), array)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--outputs: {path}: expected an .npz of arrays called by the numbers of cases, 0, 1, ... (0/0, 0/1, ... "
            f"where there are several): {reason}"
        ) from None
    return found
