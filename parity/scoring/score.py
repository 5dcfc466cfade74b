"""The harness's own score: mistakes caught and named, correct implementations accused, beside what allclose would say.

Everything is computed here and judged by the check, Keras itself among the correct implementations.
"""

import concurrent.futures
import multiprocessing
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from parity.cases.case import Case
from parity.cases.grid import grid
from parity.scoring.counts import Score, no_count
from parity.scoring.defects import outside
from parity.scoring.honest import implementations
from parity.scoring.mistakes import mistakes
from parity.scoring.pairs import pairs
from parity.scoring.weights import single_weights

_LARGEST = 300_000
"""Cases of more inputs times units are left to `parity check`: every mistake in each would take hours."""


def _nobody(what: str) -> None:
    """Nobody looks on."""


def run(cases: Sequence[Case] | None = None, step: Callable[[str], None] = _nobody, draws: int = 100) -> Score:
    """The whole score over the grid, or over those cases of it, in as many processes as there are cores. draws: how
    many single weights of each kind, and how many pairs of mistakes."""
    start, score = time.monotonic(), Score()
    every = [case for case in (grid() if cases is None else cases) if case.size * case.layer.units <= _LARGEST]
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {}
        for what, several in _work(every):
            ids = frozenset(case.id for case in several)  # a process draws its cases itself: they are large to send
            futures[pool.submit(part, what, ids, draws)] = what
        for future in concurrent.futures.as_completed(futures):
            score.merge(future.result())
            step(futures[future])
    score.counts = defaultdict(no_count, sorted(score.counts.items()))
    score.seconds = time.monotonic() - start
    return score


def _work(every: Sequence[Case]) -> Iterator[tuple[str, Sequence[Case]]]:
    """The parts, those that take the longest first."""
    yield "pairs of mistakes", every
    yield "correct implementations", every
    kinds: dict[str, list[Case]] = {}
    for case in every:
        if case.layer.dtype == np.float32:
            kinds.setdefault(case.layer.kind, []).append(case)
    for several in kinds.values():  # one kind whole: each mistake is to be seen in it
        yield "mistakes", several
    yield "single weights", every
    yield "other defects", every


def part(what: str, ids: frozenset[str], draws: int) -> Score:
    """One part of the score, over the grid's cases of those ids, in a process of its own."""
    score, cases = Score(), [case for case in grid() if case.id in ids]
    parts: dict[str, Callable[[], None]] = {
        "correct implementations": lambda: implementations(score, cases, _nobody),
        "mistakes": lambda: mistakes(score, cases, _nobody),
        "single weights": lambda: single_weights(score, cases, draws, _nobody),
        "pairs of mistakes": lambda: pairs(score, cases, draws, _nobody),
        "other defects": lambda: outside(score, cases, _nobody),
    }
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts[what]()
    return score
