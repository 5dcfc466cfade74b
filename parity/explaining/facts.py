"""What is known of a FAIL that no mistake of the catalogue explains: where it is off, by which path, which gate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.cases.case import Case
from parity.explaining.answered import Answered, answered
from parity.explaining.functions import widened
from parity.judging.findings import Finding
from parity.judging.judge import judge_answer
from parity.judging.tally import NOTHING_GRANTED, Tally, Tolerance
from rnn_scratch.base import Array
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Recurrent

_Flags = NDArray[np.bool_]

_MOST = 6
"""How many steps, rows or units are listed one by one."""

_LEAST_SEEN = 20
"""Of fewer steps and rows nothing is said of what the differences go along with."""

_SHIFTS = (0.0, *np.geomspace(0.01, 40, 24), *-np.geomspace(0.01, 40, 24))
"""By how much a gate's pre-activation may be off, to see what of its outputs some value of the gate explains."""


def facts(findings: Sequence[Finding], tolerance: Tolerance = NOTHING_GRANTED) -> Iterator[str]:
    """Lines on what can be said; of one recurrent layer more than of a model. tolerance: what the verdicts granted
    beside rounding."""
    questions = [question for question in answered(findings, tolerance) if not question.finding.wrong]
    failed = [question for question in questions if question.failed]
    if not failed:
        return
    main = next((question for question in failed if question.finding is findings[0]), failed[-1])
    off = _residuals(main)
    yield from _where(main.case, off)
    if isinstance(main.case.layer, Recurrent):
        yield from _why(questions, failed, main, off)


def _why(
    questions: Sequence[Answered], failed: Sequence[Answered], main: Answered, off: "_Off | None"
) -> Iterator[str]:
    """More of one recurrent layer. main: the question that off is of."""
    alone = _row_alone(failed)
    if alone:
        yield f"in every question the {alone} batch row alone is off: it is not treated as the others are"
        return
    yield from _paths(questions, off)
    yield from _correlated(main, off)
    yield from _single_weights(failed)
    yield from _gates(failed)


# --- where ---


@dataclass
class _Off:
    """differences: (batch, timesteps, units) in the order of processing. outside: where they are more than rounding."""

    differences: Array
    outside: _Flags

    @property
    def rows(self) -> _Flags:
        return np.asarray(self.outside.any(axis=(1, 2)))

    @property
    def steps(self) -> _Flags:
        return np.asarray(self.outside.any(axis=(0, 2)))

    @property
    def units(self) -> _Flags:
        return np.asarray(self.outside.any(axis=(0, 1)))


def _residuals(question: Answered | None) -> _Off | None:
    """The differences of one recurrent layer, each step from the candidate's own state, where it was judged so."""
    if question is None or question.finding.wrong:
        return None
    case, kept = question.case, list[tuple[int, Array, Array]]()
    if case.calls > 1 or not isinstance(case.layer, Recurrent):
        return None
    found = judge_answer(case, question.finding.answers[0], question.tolerance, proof=Tally(kept=kept))
    if case.timesteps > 1 and not {"stepwise", "stepped"} & set(found.method):
        return None
    off = _joined(kept)
    return off if len(off.steps) == case.timesteps else None


def _joined(kept: Sequence[tuple[int, Array, Array]]) -> _Off:
    """The pieces that a tally kept, each with its first step, along the steps."""
    # of a step that was judged again, what was seen at first
    first = {at: (differences, outside) for at, differences, outside in reversed(kept)}
    differences, outside = zip(*(first[at] for at in sorted(first)), strict=True)
    return _Off(np.concatenate(differences, axis=1), np.concatenate(outside, axis=1))


def _where(case: Case, off: _Off | None) -> Iterator[str]:
    if off is None or not off.outside.any():
        return
    if case.timesteps > 1:
        first = "wrong already" if off.steps[0] else "right"
        yield f"the first step is {first}; {_steps_off(off.steps)} off"
    for what, name, bad in (("batch rows", "row", off.rows), ("units", "unit", off.units)):
        if not bad.all():
            yield f"of {len(bad)} {what} {_listed(name, bad)} off"


def _steps_off(steps: _Flags) -> str:
    return "every step is" if steps.all() else f"of {len(steps)} steps {_listed('step', steps)}"


def _listed(what: str, bad: _Flags) -> str:
    at = np.flatnonzero(bad)
    if len(at) > _MOST:
        return f"{len(at)} are"
    if len(at) > 1:
        return f"{what}s {', '.join(map(str, at))} are"
    return f"{what} {', '.join(map(str, at))} is"


def _row_alone(failed: Sequence[Answered]) -> str | None:
    """Which row it is, the first or the last, that alone is off in all of several questions. The probes have a weight
    for each row, so they would accuse one."""
    offs = [_residuals(question) for question in failed if question.case.batch > 1]
    seen = [off.rows for off in offs if off is not None]
    for name, end in (("first", 0), ("last", -1)):
        if len(seen) > 1 and all(rows[end] and rows.sum() == 1 for rows in seen):
            return name
    return None


# --- by which path ---


def _probe(questions: Sequence[Answered], name: str) -> Answered | None:
    return next((question for question in questions if question.case.id.endswith(f" / {name}")), None)


def _paths(questions: Sequence[Answered], seen: _Off | None) -> Iterator[str]:
    """What the probes say: unit inputs from a state of zeros, unit states with an input of zeros, neither. seen: where
    the question itself is off."""
    inputs, states = _probe(questions, "unit inputs"), _probe(questions, "unit states")
    wrong = _wrong_path(inputs, states)
    if wrong:
        yield f"the error comes by {wrong}"
    elif inputs is not None and not inputs.failed and _every_later_step(seen):
        yield (
            "unit inputs and one step from zeros are right: what is off is the state before, what becomes of it, or "
            "which inputs a later step takes"
        )


def _wrong_path(inputs: Answered | None, states: Answered | None) -> str | None:
    off = _residuals(inputs)
    zeros, units = (False, False) if off is None else (off.rows[-1], off.rows[:-1].any())
    if zeros:
        return "a constant (it is off for an input and a state of zeros): the bias, what follows it, or a shift before"
    if units:
        return "the input (it is off for unit inputs)"
    if states is None or not states.failed:
        return None
    # a gate's bias may act on nothing but a state
    path = "the state" if len(_cell(states.case).gates) > 1 else "the recurrent path"
    return f"{path} (it is off for unit states and an input of zeros)"


def _every_later_step(off: _Off | None) -> bool:
    """What the recurrent path gets wrong, it does at every step but the first."""
    if off is None:
        return True
    first, *later = off.steps
    return not first and all(later)


def _correlated(question: Answered, off: _Off | None) -> Iterator[str]:
    """With what the differences go along: with the inputs, the state before, or neither."""
    sequence = question.sequence
    if off is None or sequence is None or question.case.mask is not None:
        return
    if sequence.shape != off.differences.shape:
        return
    d = np.nan_to_num(off.differences.astype(np.float64)).reshape(-1, sequence.shape[2])
    x, _ = question.case.processed()
    before = previous(question.case, sequence)
    constant = np.abs(d.mean(axis=0) / (np.sqrt((d * d).mean(axis=0)) + 1e-300))
    strength = {
        "the inputs": _correlation(d, x.reshape(len(d), -1)),
        "the state before": _correlation(d, before.reshape(len(d), -1)),
        "neither (a constant)": float(constant.max()),
    }
    what, most = max(strength.items(), key=lambda item: item[1])
    if len(d) >= _LEAST_SEEN and most > max(0.3, 4 / np.sqrt(len(d))):
        yield f"the differences go along with {what} most (correlation {most:.2f})"


def _correlation(d: Array, with_: Array) -> float:
    a = d - d.mean(axis=0)
    b = with_.astype(np.float64) - with_.astype(np.float64).mean(axis=0)
    norms = np.sqrt((a * a).sum(axis=0))[:, None] * np.sqrt((b * b).sum(axis=0))[None]
    return float(np.abs(a.T @ b / np.where(norms > 0, norms, np.inf)).max())


def previous(case: Case, sequence: Array) -> Array:
    """The state before each step, where the output is the state."""
    start = case.start[0]
    return np.concatenate([start[:, None], sequence[:, :-1]], axis=1).astype(np.float64)


# --- which weight ---


def _single_weights(failed: Sequence[Answered]) -> Iterator[str]:
    """The weight or the column that alone is off, where unit probes show one."""
    inputs, states = _probe(failed, "unit inputs"), _probe(failed, "unit states")
    off = _residuals(inputs)
    if inputs is not None and off is not None:
        bias = off.outside[-1, 0].any()  # the last row of the probe is an input of zeros
        yield from _single_bias(off) if bias else _single_entry("Wx", off, inputs.case.at(0))
    off = _residuals(states)
    if states is not None and off is not None:
        yield from _single_entry("Wh", off, states.case.start[0])


def _single_bias(off: _Off) -> Iterator[str]:
    units = np.flatnonzero(off.outside[:, 0].any(axis=0))
    if len(units) == 1:
        yield f"b[{units[0]}] alone explains the probes: unit {units[0]} is off whatever the input is"


def _single_entry(matrix: str, off: _Off, given: Array) -> Iterator[str]:
    """given: the unit vectors, a row each."""
    bad = off.outside[:, 0]
    rows, units = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
    if len(rows) != 1:
        return
    column = int(np.flatnonzero(given[rows[0]])[0])
    if len(units) == 1:
        yield f"{matrix}[{units[0]}, {column}] alone explains the probes (row {units[0]} of each gate's block)"
    elif len(units) > bad.shape[1] // 2:
        yield f"column {column} of {matrix} alone explains the probes"


# --- which gate ---


def _gates(failed: Sequence[Answered]) -> Iterator[str]:
    """The gates of which a wrong value would explain every failed question of one step, all others being right."""
    single = [question for question in failed if _one_step(question)]
    if not single:
        return
    gates = _cell(single[0].case).gates
    could = [gate for n, gate in enumerate(gates) if all(_reaches(question, n) for question in single)]
    if 0 < len(could) < len(gates):
        yield f"a wrong gate {' or '.join(could)} alone would explain the questions of one step; the others would not"


def _cell(case: Case) -> Cell:
    assert isinstance(case.layer, Recurrent)
    return case.layer.cell


def _one_step(question: Answered) -> bool:
    case = question.case
    return case.timesteps == case.calls == 1 and case.mask is None and bool(question.finding.answers[0].outputs)


def _reaches(question: Answered, gate: int) -> bool:
    """Whether some pre-activation of that gate gives what the candidate put out, everywhere."""
    case, outputs = widened(question.case), question.finding.answers[0].outputs
    assert outputs
    cell = _cell(case)
    p = cell.project(case.at(0))
    block = slice(gate * cell.units, (gate + 1) * cell.units)
    values = []
    for shift in _SHIFTS:
        moved = p.copy()
        moved[:, block] += shift
        values.append(cell.update(moved, *case.start)[0])
    right = values[0]
    got = outputs[0].reshape(right.shape).astype(np.float64)
    slack = 1e-5 * max(1.0, float(np.abs(right).max()))
    return bool(np.all((got >= np.min(values, axis=0) - slack) & (got <= np.max(values, axis=0) + slack)))
