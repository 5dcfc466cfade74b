"""A C99 header: the weights as `static const float` arrays and the forward pass as one function."""

import ctypes
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import MissingExtraError, UnsupportedError
from parity.kinds import registry
from parity.ports.c_source import Rows, Source, identifier, plain
from parity.ports.interface import input_dim, takes_tokens
from rnn_scratch.base import Array, Layer

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror")
"""With which the header is compiled to be checked."""


def write(layer: Layer, arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> bytes:
    """The header. UnsupportedError for what C has not here."""
    name, tokens = identifier(layer.name), takes_tokens(layer)
    features = 1 if tokens else input_dim(layer)
    source = Source(name, features)
    y = registry.c(layer, source, "", Rows("x", "timesteps"), "y")
    if not source.buffers:
        source.add("    (void)work;")
    shape = f"(timesteps, {layer.units})" if y.steps == "timesteps" else f"({layer.units})"
    guard = f"{name.upper()}_H"
    versions = json.dumps(manifest.get("versions", {}))
    lines = [
        f"/* {plain(layer.name)}, written by keras-parity from {plain(versions)}.\n",
        "   One sequence at a time: call it for each row of a batch.",
        f"   x: (timesteps, {features}){' of token ids' if tokens else ''}. y: {shape}.",
        f"   work: {name.upper()}_WORK(timesteps) floats, which may be NULL if that is 0. Link with -lm. */",
        f"#ifndef {guard}\n#define {guard}\n",
        "#include <math.h>\n#include <stddef.h>\n",
        f"#define {name.upper()}_WORK(timesteps) ((size_t)(timesteps) * {sum(source.buffers)})",
        "",
        *source.arrays,
        f"static void {name}_forward(int timesteps, const float *x, float *y, float *work) {{",
        *source.body,
        "}\n",
        f"#endif /* {guard} */\n",
    ]
    return "\n".join(lines).encode()


# --- run ---


def compiled(path: str, layer: Layer, flags: tuple[str, ...] = FLAGS) -> Callable[[Array], Array]:
    """The header as a function of x, compiled with those flags into a library and called in this process."""
    library = _library(path, identifier(layer.name), flags)

    def forward(x: Array) -> Array:
        x = np.ascontiguousarray(x, np.float32)
        (shape,) = layer.output_shapes(x.shape)
        y = np.empty(shape, np.float32)
        work = np.empty(library.work_size(x.shape[1]) + 1, np.float32)
        for row, out in zip(x, y, strict=True):
            library.run(x.shape[1], _pointer(row), _pointer(out), _pointer(work))
        return y

    return forward


def _library(path: str, name: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp(prefix="parity-"))
    try:
        (folder / "port.h").write_bytes(Path(path).read_bytes())
        (folder / "port.c").write_text(
            '#include "port.h"\n'
            "void run(int timesteps, const float *x, float *y, float *work);\n"
            "size_t work_size(int timesteps);\n"
            f"size_t work_size(int timesteps) {{ return {name.upper()}_WORK(timesteps); }}\n"
            "void run(int timesteps, const float *x, float *y, float *work)\n"
            f"{{ {name}_forward(timesteps, x, y, work); }}\n"
        )
        files = [str(folder / "port.c"), "-o", str(folder / "port.so")]
        command = [_compiler(), *flags, "-shared", "-fPIC", *files, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnsupportedError(f"the C compiler refused the port: {' '.join(done.stderr.split())[:300]}")
        library = ctypes.CDLL(str(folder / "port.so"))
    finally:
        shutil.rmtree(folder)
    library.work_size.restype = ctypes.c_size_t  # an int, which it would be, is too small for long sequences
    return library


def _compiler() -> str:
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return path
    raise MissingExtraError("a C compiler (cc, gcc or clang) is needed to check a C port; there is none")


def _pointer(array: Array) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
