"""The range that inputs are kept in, where the user says that a port takes no others."""

from collections.abc import Sequence

import numpy as np

from parity.cases.case import Case
from rnn_scratch.base import Array


def in_domain(case: Case, domain: Sequence[float] | None) -> Case | None:
    """The case with its inputs folded into the range. Of a probe, whose rows say what is in them, those rows that lie
    in it. None where nothing is left, or there is a NaN, which lies nowhere."""
    if domain is None or case.tokens:
        return case
    low, high = domain
    inside = np.ones(case.batch, bool)
    for x in case.inputs.values():
        wide = x.astype(np.float64).reshape(len(x), -1)
        inside &= ((low <= wide) & (wide <= high)).all(axis=1)
    if inside.all():
        return case
    if case.rows:
        return case.rows_at(np.flatnonzero(inside)) if inside.any() else None
    if any(np.isnan(x.astype(np.float64)).any() for x in case.inputs.values()) and case.mask is None:
        return None
    return case.mapped(lambda x: _folded(x, low, high))


def _folded(x: Array, low: float, high: float) -> Array:
    """Back and forth between the ends: what is drawn stays spread."""
    wide = high - low
    folded = low + wide - np.abs((x.astype(np.float64) - low) % (2 * wide) - wide)
    return np.clip(folded, low, high).astype(x.dtype)
