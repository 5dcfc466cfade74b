"""What hides mistakes: why a case to which a mistake applies may not show it, in the words of a report."""

import numpy as np

from parity.cases.case import Case
from rnn_scratch.base import Mask
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent


def _cells(case: Case) -> list[Cell]:
    return [layer.cell for layer in case.layer.every(Recurrent)]


def symmetric(case: Case) -> str | None:
    """Transposing a symmetric kernel changes nothing; nor does any recurrent kernel matter in one step from zeros."""
    blocks = [block for cell in _cells(case) for block in np.split(cell.Wh.astype(np.float64), len(cell.gates))]
    if all(np.allclose(W, W.T, rtol=0, atol=1e-6 * np.abs(W).max()) for W in blocks):
        units = sorted({cell.units for cell in _cells(case)})
        return f"units = {', '.join(map(str, units))} and the recurrent kernel is symmetric"
    return one_step(case)


def zero_bias(case: Case) -> str | None:
    return None if any(cell.b.any() for cell in _cells(case)) else "every bias is zero"


def one_step(case: Case) -> str | None:
    return "there is one timestep, and the state is zero" if case.timesteps == 1 and not case.initial_state else None


def one_row(case: Case) -> str | None:
    return "there is one batch row" if case.batch == 1 else None


def zero_state(case: Case) -> str | None:
    return None if np.any(case.initial_state) else "the initial state is zero"


def nothing_masked(case: Case) -> str | None:
    return "no step is masked" if case.mask is not None and case.mask.all() else None


def mask_shape(case: Case) -> str | None:
    """A mask that hides nothing, or only steps at the end."""
    if case.mask is None:
        return None
    trailing = np.array_equal(case.mask, right_padding(case.mask))
    return nothing_masked(case) or ("the mask is only trailing" if trailing else None)


def same_both_ways(case: Case) -> str | None:
    same = case.mask is not None and np.array_equal(case.mask, case.mask[:, ::-1])
    return "the mask is the same both ways" if same else None


def right_padding(mask: Mask) -> Mask:
    """As many first steps as the mask has unmasked ones."""
    return np.asarray(np.arange(mask.shape[1]) < mask.sum(axis=1, keepdims=True))
