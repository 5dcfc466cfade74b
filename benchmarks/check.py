"""What does a check cost? `python benchmarks/check.py` prints a Markdown table, and single figures below it.

The judge (`examine`: judge and prove, the candidate not counted) as a ratio to Keras's `predict_on_batch` on the same
data; the time of `import parity`; the memory that a check of a million time steps adds. `--grid` times the built-in
grid too, `--long` is a whole `parity.check` of the million steps, with Keras.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import pytest
from common import ROOT, SHAPES, Array, Run, Shape, best_times, markdown, problem
from forward import keras_predict

from parity.adapters.keras.library import muted_start
from parity.adapters.keras.oracle import Oracle
from parity.adapters.keras.to_keras import to_keras
from parity.api import check, check_grid
from parity.cases.case import Case
from parity.cases.grid import grid
from parity.given import making
from parity.given.candidate import as_candidate
from parity.judging.judge import examine
from parity.judging.tally import Tolerance
from rnn_scratch import SimpleRNN

ROUNDS = 15
LONG: Shape = (1, 1_000_000, 8, 16)
CHUNK = 10_000


def judge(layer: SimpleRNN, x: Array, y: Array) -> Run:
    """The judge on outputs that are there already. It must pass them: a failure would take another path."""
    case, candidate = Case("benchmark", layer, x), as_candidate(y)

    def run() -> Array:
        verdict = examine(candidate, case, Tolerance()).verdict
        if verdict != "PASS":
            raise SystemExit(f"{x.shape}: the judge says {verdict} to Keras's own outputs")
        return y

    return run


def judged(rounds: int) -> str:
    runs: dict[tuple[Shape, str], Run] = {}
    for shape in SHAPES:
        layer, x = problem(shape)
        with muted_start():
            keras = keras_predict(layer, x)
            runs |= {(shape, "Keras"): keras, (shape, "judge"): judge(layer, x, keras())}
    times = best_times(runs, rounds)
    rows = [[str(shape), *figures(times[shape, "Keras"], times[shape, "judge"])] for shape in SHAPES]
    return markdown(["batch, timesteps, input_dim, units", "Keras, ms", "judge, ms", "judge / Keras"], rows)


def figures(keras: float, judge: float) -> list[str]:
    return [f"{keras * 1e3:.2f}", f"{judge * 1e3:.2f}", f"{judge / keras:.2f}"]


def imports(rounds: int) -> str:
    """Importing it in a new process, less what the bare interpreter takes. NumPy comes with the first use."""

    def python(statement: str) -> Callable[[], Any]:
        command = [sys.executable, "-c", statement]
        return lambda: subprocess.run(command, check=True, cwd=ROOT)

    statements = ("pass", "import parity", "import numpy", "from parity import check")
    bare, *times = best_times({statement: python(statement) for statement in statements}, rounds).values()
    return ", ".join(f"{name}: {seconds - bare:.3f} s" for name, seconds in zip(statements[1:], times, strict=True))


def grid_report() -> str:
    """The whole grid, and how much of that is not Keras: neither building its layers nor running them."""
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **settings: Any) -> Any:
            nonlocal spent
            start = time.perf_counter()
            try:
                return function(*args, **settings)
            finally:
                spent += time.perf_counter() - start

        return run

    with muted_start(), pytest.MonkeyPatch.context() as patch:
        check_grid(None, grid()[:1])  # TensorFlow's own start
        for owner, name in ((Oracle, "ask"), (Oracle, "converse")):
            patch.setattr(owner, name, timed(getattr(owner, name)))
        patch.setattr(making, "to_keras", timed(to_keras))
        spent, start = 0.0, time.perf_counter()
        report = check_grid(None, grid())
        seconds = time.perf_counter() - start
    return (
        f"the grid: {len(report.cases)} cases, {report.verdict}, {seconds:.1f} s, "
        f"of which {seconds - spent:.1f} s ({(seconds - spent) / seconds:.0%}) are not Keras's own"
    )


def peak_mb() -> float:
    """The most memory this process has had. Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def long_sequence() -> tuple[SimpleRNN, Array, Array]:
    """The million steps and their outputs, computed in chunks so that the peak is that of the two arrays."""
    layer, x = problem(LONG)
    y = np.empty((*x.shape[:2], layer.units), x.dtype)
    chunked = SimpleRNN(layer.Wx, layer.Wh, layer.b, return_sequences=True, stateful=True)
    for start in range(0, x.shape[1], CHUNK):
        y[:, start : start + CHUNK] = chunked(x[:, start : start + CHUNK])
    return layer, x, y


def measure_memory(whole: bool) -> dict[str, float | str]:
    """What the peak rises by over the arrays, which are there before. Meant to be alone in its process."""
    layer, x, y = long_sequence()
    keras_layer = None
    if whole:  # TensorFlow itself is there before, too; what it takes for the million steps is counted
        keras_layer = to_keras(layer)
        Oracle(keras_layer, layer).ask(Case("warm-up", layer, x[:, :CHUNK]))
    before, start = peak_mb(), time.perf_counter()
    if whole:
        verdict = check(y, keras_layer, x).verdict
    else:
        verdict = examine(as_candidate(y), Case("long", layer, x), Tolerance()).verdict
    added, seconds = peak_mb() - before, time.perf_counter() - start
    return {"verdict": verdict, "arrays": (x.nbytes + y.nbytes) / 1e6, "added": added, "seconds": seconds}


def memory(what: str) -> str:
    """`measure_memory` in a new process, which inherits the peak of this one: Keras must not have been loaded yet."""
    command = [sys.executable, __file__, "--memory-of", what]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return (
        f"memory, {LONG}, {what}: {found['added']:.0f} MB beyond the {found['arrays']:.0f} MB of inputs and outputs, "
        f"{found['verdict']}, {found['seconds']:.1f} s"
    )


@click.command()
@click.option("--grid", "with_grid", is_flag=True, help="Time the whole built-in grid too.")
@click.option("--long", "with_long", is_flag=True, help="Have Keras too run, and be judged on, the million steps.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Turns for each contestant; the best call counts.")
@click.option("--memory-of", type=click.Choice(["judge", "check"]), hidden=True)
def main(with_grid: bool, with_long: bool, rounds: int, memory_of: str | None) -> None:
    """The judge against Keras's predict_on_batch; import time; memory of a long check."""
    if memory_of:
        click.echo(json.dumps(measure_memory(whole=memory_of == "check")))
        return
    lines = [memory(what) for what in ("judge", *(["check"] if with_long else []))]
    lines.append(imports(rounds))
    click.echo(judged(rounds) + "\n")
    if with_grid:
        lines.append(grid_report())
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
