"""What a command writes is never what it reads: a file that was given is never lost to a report."""

import importlib.machinery
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from parity.errors import InputError

_BETWEEN = re.compile(r"[\s=,;:'\"]+")
"""What stands between the parts of a word of a command: `--weights=a.bin`, `sh -c 'python a.py'`."""


def refuse_overwriting(written: Mapping[str, Any], read: Mapping[str, Any]) -> None:
    """InputError where one of the files to write is one that is read, or another one to write; by whatever path.

    Both by what names them: a path, None, or, of what is read, what is no path. The candidate is read as its files.
    """
    taken: dict[object, str] = {}
    for name, given in read.items():
        for path in files_of(given):
            taken.setdefault(_identity(path), name)
    for name, path in written.items():
        identity = None if path is None else _identity(path)
        if identity is None:
            continue
        other = taken.setdefault(identity, name)
        if other != name:
            raise InputError(f"{name}: {path}: expected a file of its own; it is that of {other}")


def _identity(path: str | os.PathLike[str]) -> object:
    """What is the same for every path to a file, hard links too; None for a pipe or a device, which hold nothing."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    is_file = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return (found.st_dev, found.st_ino) if is_file else None


def files_of(given: Any) -> Iterator[str]:
    """The files behind what a user names: a path, `FILE.py:NAME`, `MODULE:NAME`, or the words of a `cmd:`."""
    if not isinstance(given, str | os.PathLike):
        return
    named = os.fspath(given)
    if named.startswith("cmd:"):
        yield from _files_among(named.removeprefix("cmd:"))
        return
    yield named
    place, colon, _ = named.rpartition(":")
    if colon:
        yield place
        yield from _module_files(place)


def _files_among(command: str) -> Iterator[str]:
    """Those of a command's words, or parts of a word, that are files; and the program itself."""
    try:
        words = shlex.split(command)
    except ValueError:
        return
    for word in words:
        yield from filter(os.path.isfile, {word, *_BETWEEN.split(word)})
    if words and (program := shutil.which(words[0])):
        yield program


def _module_files(name: str) -> Iterator[str]:
    """The files of a module and of the packages that it is in, without importing any."""
    path, so_far = ["", *sys.path], ""
    for part in name.split("."):
        so_far = f"{so_far}.{part}".lstrip(".")
        try:
            spec = importlib.machinery.PathFinder.find_spec(so_far, path)
        except (ImportError, ValueError):
            return
        if spec is None:
            return
        if spec.origin and spec.has_location:
            yield spec.origin
        path = list(spec.submodule_search_locations or [])
