"""What the usual comparisons, allclose and the cosine, say to the same data."""

from collections.abc import Sequence

import numpy as np

from parity.cases.case import Case
from parity.explaining.functions import computed
from parity.scoring.counts import Score
from rnn_scratch.base import Array

_TOLERANCES = ((1e-5, 1e-6), (1e-4, 1e-5), (1e-3, 1e-3))
_COSINE = 0.99
_COSINE_NAME = f"cosine > {_COSINE}"


def baseline(score: Score, case: Case, wrong: Case) -> None:
    """Whether each sees a mistake, end to end, on our weights and on Keras's default ones."""
    if wrong.calls > 1:
        return
    ours = "keras" if "-keras" in case.id else "ours"
    for name, differs in verdicts(computed(case)[0], computed(wrong)[0]).items():
        score.count(f"{name}, {ours}: mistakes caught", differs)


def verdicts(right: Sequence[Array], other: Sequence[Array]) -> dict[str, bool]:
    """Whether each of them sees a difference."""
    if [y.shape for y in right] != [y.shape for y in other]:
        return dict.fromkeys((*map(_name, _TOLERANCES), _COSINE_NAME), True)
    a, b = _flat(right), _flat(other)
    found = {}
    for rtol, atol in _TOLERANCES:
        found[_name((rtol, atol))] = not np.allclose(b, a, rtol=rtol, atol=atol, equal_nan=True)
    # the cosine of NaN is NaN, which is neither more nor less than any bound
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    found[_COSINE_NAME] = not (norm > 0 and a @ b > _COSINE * norm)
    return found


def _flat(results: Sequence[Array]) -> Array:
    return np.concatenate([np.ravel(y).astype(np.float64) for y in results])


def _name(tolerance: tuple[float, float]) -> str:
    return f"allclose({tolerance[0]:g}, {tolerance[1]:g})"
