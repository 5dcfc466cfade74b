"""A loop over time in C: one direction of a recurrent layer, whatever its cell.

Keras's own layout: each kernel one row an input, so that the inner loop runs over the units and is made of independent
sums, which a compiler vectorises without being allowed to change their order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from parity.ports.c_source import Source, plain
from parity.ports.layouts import LAYOUTS, pack
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent


@dataclass(frozen=True)
class Step:
    """What the loop must know of a cell. It sums Wx x + b into z, Wh h into z too, and leaves the rest to `update`.

    update: the lines that make the new h of z. variables: what they need beside h and z, as declared. apart: Wh h is
    summed into q, from the recurrent bias on. gates: of how many gates, the first ones, Wh h is summed.
    """

    update: Sequence[str]
    gates: int
    variables: str = ""
    apart: bool = False


StepOf = Callable[[Recurrent, str], Step]
"""Of a layer and the name of its recurrent kernel in C."""


@dataclass(frozen=True)
class Output:
    """Where h goes: into y, which has `width` numbers a step, from `offset` on. how: the assignment. turned: the last
    step that is processed stands first."""

    y: str
    width: int
    offset: int = 0
    how: str = "="
    turned: bool = False


def add_loop(
    source: Source, layer: Recurrent, step_of: StepOf, path: str, x: str, output: Output, backwards: bool
) -> None:
    """The loop of one direction. x: where its input stands. backwards: from the last step to the first."""
    cell, u, d = layer.cell, layer.units, layer.input_dim
    g = len(cell.gates) * u
    kernel, recurrent_kernel = _kernels(source, path, cell)
    step = step_of(layer, recurrent_kernel)
    bias, recurrent_bias = _biases(source, path, cell, step.apart)
    at = _place(backwards)
    source.add(f"""
    {{ /* {plain(path or layer.name)}: {layer.kind}, {d} -> {u} */
        float h[{u}] = {{0}}{step.variables};
        for (int t = 0; t < timesteps; t++) {{
            const float *x_t = {x} + (size_t){at} * {d};
            for (int k = 0; k < {g}; k++)
                z[k] = {bias + "[k]" if bias else "0.0f"};
            for (int j = 0; j < {d}; j++)
                for (int k = 0; k < {g}; k++)
                    z[k] += {kernel}[j][k] * x_t[j];""")
    if step.apart:
        source.add(f"            for (int k = 0; k < {g}; k++)\n                q[k] = {recurrent_bias}[k];")
    source.add(f"""
            for (int j = 0; j < {u}; j++)
                for (int k = 0; k < {step.gates * u}; k++)
                    {"q" if step.apart else "z"}[k] += {recurrent_kernel}[j][k] * h[j];""")
    source.body += step.update
    _end(source, layer, output)


def _end(source: Source, layer: Recurrent, output: Output) -> None:
    """Every h within the loop, or the last one after it."""
    u, y, how = layer.units, output.y, output.how
    aside = f" + {output.offset}" if output.offset else ""
    if layer.return_sequences:
        place = f"(size_t){_place(output.turned)} * {output.width}{aside} + n"
        source.add(f"            for (int n = 0; n < {u}; n++)\n                {y}[{place}] {how} h[n];\n        }}")
    else:
        source.add(f"        }}\n        for (int n = 0; n < {u}; n++)\n            {y}[n{aside}] {how} h[n];")
    source.add("    }")


def _place(turned: bool) -> str:
    return "(timesteps - 1 - t)" if turned else "t"


def _kernels(source: Source, path: str, cell: Cell) -> tuple[str, str]:
    keras, gates = pack(cell, LAYOUTS["keras"]), " ".join(cell.gates)
    rows = f"gates * units), gates {gates}"
    kernel = source.array(f"{path}.kernel", keras["kernel"], f"(input_dim, {rows}, as Keras has it")
    return kernel, source.array(f"{path}.recurrent_kernel", keras["recurrent_kernel"], f"(units, {rows}")


def _biases(source: Source, path: str, cell: Cell, apart: bool) -> tuple[str | None, str | None]:
    """The names of the bias and of the recurrent bias, None where there is none."""
    if cell.use_bias:
        said = f"(gates * units), gates {' '.join(cell.gates)}"
        names = ("bias", "recurrent_bias")
        found = [source.array(f"{path}.{n}", b, said) for n, b in zip(names, np.atleast_2d(cell.b), strict=False)]
        return found[0], found[1] if apart else None
    zeros = np.zeros_like(cell.Wx[:, 0])  # what is summed apart must start somewhere
    return None, source.array(f"{path}.recurrent_bias", zeros, "none: zeros") if apart else None
