"""A C99 header: the weights as `static const float` arrays and the forward pass as one function.

Keras's own layout: each kernel one row an input, so that the inner loop runs over the units and is made of independent
sums, which a compiler vectorises without being allowed to change their order.
"""

import ctypes
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import MissingExtraError, UnsupportedError
from parity.ports import layouts
from rnn_scratch import Activation, Bidirectional, Dense, Dropout, Embedding, Sequential, TimeDistributed
from rnn_scratch.layers import Layer, Recurrent

Array = NDArray[Any]

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror")
"""With which the header is compiled to be checked."""

ACTIVATIONS = {
    "tanh": "tanhf({})",
    "sigmoid": "1.0f / (1.0f + expf(-{}))",
    "relu": "fmaxf({}, 0.0f)",
    "relu6": "fminf(fmaxf({}, 0.0f), 6.0f)",
    "hard_sigmoid": "fminf(fmaxf({} / 6.0f + 0.5f, 0.0f), 1.0f)",
    "hard_sigmoid_keras2": "fminf(fmaxf(0.2f * {} + 0.5f, 0.0f), 1.0f)",
    "softsign": "{0} / (1.0f + fabsf({0}))",
    "softplus": "fmaxf({0}, 0.0f) + log1pf(expf(-fabsf({0})))",
    "exponential": "expf({})",
    "elu": "{0} > 0.0f ? {0} : expm1f({0})",
    "silu": "{0} / (1.0f + expf(-{0}))",
    "linear": "{}",
}


def applied(name: str | None, value: str, owner: str) -> str:
    if (name or "linear") not in ACTIVATIONS:
        raise UnsupportedError(f"{owner}: the C port carries {', '.join(ACTIVATIONS)}; received {name}")
    return ACTIVATIONS[name or "linear"].format(value)


def identifier(name: str) -> str:
    """A C identifier, never one of the language's own or the library's."""
    clean = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return f"net_{clean}"


class Source:
    """The text of a header as it is written: arrays, then the body of the function."""

    def __init__(self, name: str) -> None:
        self.name, self.arrays, self.body = name, list[str](), list[str]()
        self.buffers = 0
        self.width = 0  # of the last layer's output

    def array(self, name: str, array: Array, comment: str) -> str:
        name = name.strip(".")
        own = f"{self.name}_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"
        while any(f" {own}[" in known for known in self.arrays):  # of layers called a.b and a_b
            own += "_"
        dims = "".join(f"[{n}]" for n in array.shape)
        self.arrays.append(f"/* {plain(name)}: {comment} */\nstatic const float {own}{dims} = {literal(array)};\n")
        return own

    def add(self, text: str) -> None:
        self.body += text.strip("\n").splitlines()

    def buffer(self, width: int) -> str:
        """Room for the outputs of every step of a layer between."""
        name = f"y{self.buffers}"
        self.add(f"    float *{name} = work; /* (timesteps, {width}) */\n    work += (size_t)timesteps * {width};")
        self.buffers += 1
        return name


def plain(text: str) -> str:
    """In a comment: nothing that ends it or goes on in the next line."""
    return re.sub(r"[^ -~]", "?", text).replace("*/", "* /").replace("\\", "/")


def literal(array: Array) -> str:
    if array.ndim > 1:
        return "{\n" + ",\n".join(literal(row) for row in array) + "}"
    return "{" + ", ".join(number(value) for value in array) + "}"


def number(value: Any) -> str:
    text = f"{np.float32(value):.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


# --- layers ---


def emit(source: Source, layer: Layer, path: str, x: str, steps: str, target: str | None) -> tuple[str, str]:
    """The code of a layer; (where its output stands, how many steps it has). x: where its input stands."""
    if isinstance(layer, Sequential):
        parts = [(name, part) for name, part in layer.parts.items() if not isinstance(part, Dropout)]
        for n, (name, part) in enumerate(parts):
            x, steps = emit(
                source, part, f"{path}.{name}" if path else name, x, steps, target if n + 1 == len(parts) else None
            )
        return x, steps
    if isinstance(layer, TimeDistributed):
        return emit(source, layer.layer, path, x, steps, target)
    if not isinstance(layer, Activation):  # which has no size of its own
        source.width = layer.E.shape[1] if isinstance(layer, Embedding) else layer.units
    y = target or source.buffer(source.width)
    if isinstance(layer, Recurrent):
        recurrent(source, layer, path, x, y, layer.units, 0, "=", turned=layer.go_backwards, shown_turned=False)
        return y, steps if layer.return_sequences else "1"
    if isinstance(layer, Bidirectional):
        return y, bidirectional(source, layer, path, x, y, steps)
    if isinstance(layer, Dense):
        dense(source, layer, path, x, y, steps)
    elif isinstance(layer, Embedding):
        table = source.array(f"{path}.E", layer.E, f"one row a token, {layer.E.shape}")
        width = layer.E.shape[1]
        source.add(f"""
    for (int t = 0; t < {steps}; t++) /* {plain(layer.name)}: x holds token ids */
        for (int n = 0; n < {width}; n++)
            {y}[(size_t)t * {width} + n] = {table}[(int){x}[t]][n];""")
    elif isinstance(layer, Activation):
        value = f"{x}[n]"
        source.add(f"""
    for (size_t n = 0; n < (size_t){steps} * {source.width}; n++)
        {y}[n] = {applied(layer.activation.name, value, layer.name)};""")
    return y, steps


def bidirectional(source: Source, layer: Bidirectional, path: str, x: str, y: str, steps: str) -> str:
    first, second = layer.directions
    if layer.merge_mode is None:
        raise UnsupportedError(f"{layer.name}: the C port has one output; merge_mode=None has two")
    joined = layer.merge_mode == "concat"
    how = {"concat": "=", "sum": "+=", "mul": "*=", "ave": "+="}[layer.merge_mode]
    names = list(layer.parts)
    recurrent(
        source, first, f"{path}.{names[0]}".strip("."), x, y, layer.units, 0, "=", turned=False, shown_turned=False
    )
    offset = first.units if joined else 0
    recurrent(
        source, second, f"{path}.{names[1]}".strip("."), x, y, layer.units, offset, how, turned=True, shown_turned=True
    )
    if layer.merge_mode == "ave":
        count = steps if layer.return_sequences else "1"
        source.add(f"    for (size_t n = 0; n < (size_t){count} * {layer.units}; n++)\n        {y}[n] *= 0.5f;")
    return steps if layer.return_sequences else "1"


def recurrent(
    source: Source,
    layer: Any,
    path: str,
    x: str,
    y: str,
    width: int,
    offset: int,
    how: str,
    *,
    turned: bool,
    shown_turned: bool,
) -> None:
    """A loop over the steps. turned: from the last to the first; shown_turned: its outputs stand in time order."""
    cell, u, d = layer.cell, layer.units, layer.input_dim
    g = len(cell.gates) * u
    keras = layouts.pack(cell, layouts.LAYOUTS["keras"])
    gates = " ".join(cell.gates)
    kernel = source.array(
        f"{path}.kernel", keras["kernel"], f"(input_dim, gates * units), gates {gates}, as Keras has it"
    )
    own = source.array(f"{path}.recurrent_kernel", keras["recurrent_kernel"], f"(units, gates * units), gates {gates}")
    bias, recurrent_bias = biases(source, path, cell)
    two = recurrent_bias is not None  # GRU with reset_after keeps what comes of h apart
    at = "(timesteps - 1 - t)" if turned else "t"
    place = "(timesteps - 1 - t)" if shown_turned else "t"
    aside = f" + {offset}" if offset else ""
    carried = f", c[{u}] = {{0}}" if layer.kind == "lstm" else ""
    before = layer.kind == "gru" and not two
    sums = u * (len(cell.gates) - 1) if before else g
    target = "q" if two else "z"
    start = f"{recurrent_bias}[k]" if two else ""
    source.add(f"""
    {{ /* {plain(path or layer.name)}: {layer.kind}, {d} -> {u} */
        float h[{u}] = {{0}}{carried}, z[{g}]{f", q[{g}]" if two else ""}{f", r[{u}]" if before else ""};
        for (int t = 0; t < timesteps; t++) {{
            const float *x_t = {x} + (size_t){at} * {d};
            for (int k = 0; k < {g}; k++)
                z[k] = {bias + "[k]" if bias else "0.0f"};
            for (int j = 0; j < {d}; j++)
                for (int k = 0; k < {g}; k++)
                    z[k] += {kernel}[j][k] * x_t[j];""")
    if two:
        source.add(f"            for (int k = 0; k < {g}; k++)\n                q[k] = {start};")
    source.add(f"""
            for (int j = 0; j < {u}; j++)
                for (int k = 0; k < {sums}; k++)
                    {target}[k] += {own}[j][k] * h[j];""")
    source.body += list(update(layer, u, two, own))
    shown = f"{y}[(size_t){place} * {width}{aside} + n]" if layer.return_sequences else f"{y}[n{aside}]"
    if layer.return_sequences:
        source.add(f"            for (int n = 0; n < {u}; n++)\n                {shown} {how} h[n];\n        }}")
    else:
        source.add(f"        }}\n        for (int n = 0; n < {u}; n++)\n            {shown} {how} h[n];")
    source.add("    }")


def biases(source: Source, path: str, cell: Any) -> tuple[str | None, str | None]:
    """The names of the bias and of the recurrent bias, None where there is none."""
    two = cell.name == "gru" and cell.settings["reset_after"]
    if not cell.use_bias:
        zeros = np.zeros_like(cell.Wx[:, 0])
        return None, source.array(f"{path}.recurrent_bias", zeros, "none: zeros") if two else None
    own = list(cell.b) if cell.b.ndim == 2 else [cell.b]
    names = ("bias", "recurrent_bias")
    found = [
        source.array(f"{path}.{n}", b, f"(gates * units), gates {' '.join(cell.gates)}")
        for n, b in zip(names, own, strict=False)
    ]
    return found[0], found[1] if two else None


def update(layer: Any, u: int, two: bool, own: str) -> Iterator[str]:
    """What the sums make of the state; z: the gates' pre-activations, q: of GRU with reset_after, what comes of h."""
    settings = layer.cell.settings

    def act(value: str) -> str:
        return applied(settings["activation"], value, layer.name)

    def gate(value: str) -> str:
        return applied(settings["recurrent_activation"], value, layer.name)

    def loop(*lines: str, count: int = u) -> Iterator[str]:
        yield f"            for (int n = 0; n < {count}; n++)" + (" {" if len(lines) > 1 else "")
        yield from (f"                {line}" for line in lines)
        if len(lines) > 1:
            yield "            }"

    if layer.kind == "simple_rnn":
        yield from loop(f"h[n] = {act('z[n]')};")
    elif layer.kind == "lstm":
        yield from loop(f"z[n] = {gate('z[n]')};", count=2 * u)  # i and f
        yield from loop(f"z[{2 * u} + n] = {act(f'z[{2 * u} + n]')};")
        yield from loop(f"z[{3 * u} + n] = {gate(f'z[{3 * u} + n]')};")
        yield from loop(f"c[n] = z[{u} + n] * c[n] + z[n] * z[{2 * u} + n];")
        yield from loop(f"h[n] = z[{3 * u} + n] * ({act('c[n]')});")
    else:
        if two:
            yield from loop("z[n] += q[n];", count=2 * u)
        yield from loop(f"z[n] = {gate('z[n]')};", count=2 * u)
        if two:
            yield from loop(f"z[{2 * u} + n] += z[{u} + n] * q[{2 * u} + n];")
        else:
            yield from loop(f"r[n] = z[{u} + n] * h[n];")
            yield f"            for (int j = 0; j < {u}; j++)"
            yield f"                for (int k = {2 * u}; k < {3 * u}; k++)"
            yield f"                    z[k] += {own}[j][k] * r[j];"
        yield from loop(f"z[{2 * u} + n] = {act(f'z[{2 * u} + n]')};")
        yield from loop(f"h[n] = z[n] * h[n] + (1.0f - z[n]) * z[{2 * u} + n];")


def dense(source: Source, layer: Dense, path: str, x: str, y: str, steps: str) -> None:
    u, d = layer.units, layer.input_dim
    kernel = source.array(f"{path}.kernel", np.ascontiguousarray(layer.W.T), "(input_dim, units), as Keras has it")
    bias = source.array(f"{path}.bias", layer.b, "(units)") if layer.use_bias else None
    source.add(f"""
    for (int t = 0; t < {steps}; t++) {{ /* {plain(path or layer.name)}: dense, {d} -> {u} */
        const float *x_t = {x} + (size_t)t * {d};
        float *z = {y} + (size_t)t * {u};
        for (int k = 0; k < {u}; k++)
            z[k] = {bias + "[k]" if bias else "0.0f"};
        for (int j = 0; j < {d}; j++)
            for (int k = 0; k < {u}; k++)
                z[k] += {kernel}[j][k] * x_t[j];""")
    if layer.activation.name == "softmax":
        source.add(f"""
        float top = z[0], sum = 0.0f;
        for (int k = 1; k < {u}; k++)
            top = fmaxf(top, z[k]);
        for (int k = 0; k < {u}; k++)
            sum += z[k] = expf(z[k] - top);
        for (int k = 0; k < {u}; k++)
            z[k] /= sum;""")
    elif layer.activation.name not in (None, "linear"):
        value = applied(layer.activation.name, "z[k]", layer.name)
        source.add(f"        for (int k = 0; k < {u}; k++)\n            z[k] = {value};")
    source.add("    }")


# --- the header ---


def header(layer: Layer, manifest: Mapping[str, Any]) -> str:
    """The header. Raises UnsupportedError for what C has not here."""
    name = identifier(layer.name)
    source = Source(name)
    for half in (layer, *layer.parts.values()):
        if getattr(half, "return_state", False):
            raise UnsupportedError(f"{half.name}: the C port returns no states; save it with return_state=False")
    _, steps = emit(source, layer, "", "x", "timesteps", "y")
    floats = re.findall(r"work \+= \(size_t\)timesteps \* (\d+)", "\n".join(source.body))
    if not floats:
        source.add("    (void)work;")
    shape = f"(timesteps, {layer.units})" if steps == "timesteps" else f"({layer.units})"
    d = 1 if isinstance(first(layer), Embedding) else first_dim(layer)
    guard = f"{name.upper()}_H"
    versions = json.dumps(manifest.get("versions", {}))
    return "\n".join(
        [
            f"/* {plain(layer.name)}, written by keras-parity from {plain(versions)}.\n",
            "   One sequence at a time: call it for each row of a batch.",
            f"   x: (timesteps, {d}){' of token ids' if isinstance(first(layer), Embedding) else ''}. y: {shape}.",
            f"   work: {name.upper()}_WORK(timesteps) floats, which may be NULL if that is 0. Link with -lm. */",
            f"#ifndef {guard}\n#define {guard}\n",
            "#include <math.h>\n#include <stddef.h>\n",
            f"#define {name.upper()}_WORK(timesteps) ((size_t)(timesteps) * {sum(map(int, floats))})",
            "",
            *source.arrays,
            f"static void {name}_forward(int timesteps, const float *x, float *y, float *work) {{",
            *source.body,
            "}\n",
            f"#endif /* {guard} */\n",
        ]
    )


def first(layer: Layer) -> Layer:
    return first(next(iter(layer.parts.values()))) if isinstance(layer, Sequential) else layer


def first_dim(layer: Layer) -> int:
    return first(layer).input_dim or 0


# --- run ---


def compiler() -> str:
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is None:
        raise MissingExtraError("a C compiler (cc, gcc or clang) is needed to check a C port; there is none")
    return found


def compiled(path: str, layer: Layer, flags: tuple[str, ...] = FLAGS) -> Callable[[Array], Array]:
    """The header as a function of x, compiled with those flags into a library and called in this process."""
    name = identifier(layer.name)
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
        command = [compiler(), *flags, "-shared", "-fPIC", str(folder / "port.c"), "-o", str(folder / "port.so"), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnsupportedError(f"the C compiler refused the port: {' '.join(done.stderr.split())[:300]}")
        library = ctypes.CDLL(str(folder / "port.so"))
    finally:
        shutil.rmtree(folder)
    library.work_size.restype = ctypes.c_size_t

    def pointer(array: Array) -> Any:
        return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    def forward(x: Array) -> Array:
        x = np.ascontiguousarray(x, np.float32)
        (shape,) = layer.output_shapes(x.shape)
        y = np.empty(shape, np.float32)
        work = np.empty(library.work_size(x.shape[1]) + 1, np.float32)
        for row, out in zip(x, y, strict=True):
            library.run(x.shape[1], pointer(row), pointer(out), pointer(work))
        return y

    return forward
