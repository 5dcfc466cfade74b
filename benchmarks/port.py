"""How fast is the C that `parity port --to c` writes? `python benchmarks/port.py` prints a Markdown table.

The ratio of its time to ONNX Runtime's on one thread, for the same layer and float32 inputs, both called from Python
with arrays that are there already; each must have computed the same before it is timed.
"""

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
from common import KINDS, SHAPES, Array, Run, best_times, markdown, problem

from parity.ports import c as c_port
from parity.ports import formats as ports

FLAGS = ("-std=c99", "-O3", "-march=native", "-ffast-math")


def compiled(layer: Any, x: Array, folder: Path) -> Run:
    path = folder / "port.h"
    path.write_bytes(ports.write(layer, "c").data)
    forward = c_port.compiled(str(path), layer, FLAGS)
    return lambda: forward(x)


def runtime(layer: Any, x: Array) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = ports.write(layer, "onnx").data
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


@click.command()
@click.option("--rounds", default=30, show_default=True)
def main(rounds: int) -> None:
    runs: dict[tuple[str, Any, str], Run] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            for shape in SHAPES[:3]:
                layer, x = problem(shape, kind)
                mine, theirs = compiled(layer, x, Path(name)), runtime(layer, x)
                np.testing.assert_allclose(mine(), theirs(), rtol=0, atol=1e-5)
                runs |= {(kind, shape, "C"): mine, (kind, shape, "ORT"): theirs}
        times = best_times(runs, rounds)
    rows = []
    for kind in KINDS:
        for shape in SHAPES[:3]:
            mine, theirs = (times[kind, shape, who] for who in ("C", "ORT"))
            rows.append([kind, str(shape), f"{1e6 * mine:.1f}", f"{1e6 * theirs:.1f}", f"{mine / theirs:.2f}"])
    print(" ".join(FLAGS))
    print(
        markdown(["layer", "batch, timesteps, input_dim, units", "C, us", "ONNX Runtime, us", "C / ONNX Runtime"], rows)
    )


if __name__ == "__main__":
    main()
