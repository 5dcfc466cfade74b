"""What both benchmarks share: the shapes, a layer for each, interleaved timing and a Markdown table."""

import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from rnn_scratch import GRU, LSTM, SimpleRNN  # noqa: E402

Array = NDArray[Any]
Run = Callable[[], Array]
Shape = tuple[int, int, int, int]
Name = TypeVar("Name")

SHAPES: tuple[Shape, ...] = (
    (1, 10, 4, 8),
    (1, 100, 32, 32),
    (32, 50, 64, 64),
    (32, 100, 128, 256),
    (64, 100, 256, 512),
    (1, 500, 256, 256),
)
"""batch, timesteps, input_dim, units."""

TURN = 0.03
"""Seconds that each contestant is called for before it is the next one's turn."""


KINDS = {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}


def problem(shape: Shape, kind: str = "simple_rnn") -> tuple[Any, Array]:
    """A layer and inputs of that shape, float32, with recurrent gain 1/2: no implementation's error grows."""
    batch, timesteps, input_dim, units = shape
    rng = np.random.default_rng(0)

    def normal(*size: int, scale: float = 1.0) -> Array:
        return (scale * rng.standard_normal(size)).astype(np.float32)

    rows = units * {"simple_rnn": 1, "lstm": 4, "gru": 3}[kind]
    Wx, Wh = normal(rows, input_dim, scale=input_dim**-0.5), normal(rows, units, scale=0.5 * units**-0.5)
    b = normal(2, rows, scale=0.1) if kind == "gru" else normal(rows, scale=0.1)
    return KINDS[kind](Wx, Wh, b, return_sequences=True), normal(batch, timesteps, input_dim)


def best_times(runs: Mapping[Name, Callable[[], Any]], rounds: int) -> dict[Name, float]:
    """The shortest time in seconds that each took for one call.

    They take turns, so a slow minute of the machine hits all of them, and each is called several times in its turn, so
    that the threads which the one before it left spinning are gone from its best call.
    """
    best = dict.fromkeys(runs, float("inf"))
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in runs.items():
                best[name] = min(best[name], *turn(run))
    finally:
        gc.enable()
    return best


def turn(run: Callable[[], Any]) -> list[float]:
    times: list[float] = []
    while len(times) < 2 or sum(times) < TURN:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column to the left and the figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    pad = [str.ljust, *[str.rjust] * (len(header) - 1)]
    lines = [[p(cell, w) for p, cell, w in zip(pad, row, widths, strict=True)] for row in (header, *rows)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))
