"""What is known of a FAIL that no mistake of the catalogue explains: where it is off, by which path, which gate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases.case import Case
from parity.explaining.causes import Question, asked, widened
from parity.judging.findings import Finding, Tally, Tolerance
from parity.judging.judge import as_steps, judge_answer
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]

MOST = 6
"""How many steps, rows or units are listed one by one."""


def facts(findings: Sequence[Finding]) -> Iterator[str]:
    """Lines on what can be said; of one recurrent layer more than of a model."""
    questions = [question for question in asked(findings) if not question.finding.wrong]
    if not questions:
        return
    failed = [question for question in questions if question.failed]
    if not failed:
        return
    main = next((q for q in failed if q.finding is findings[0]), failed[-1])
    off = residuals(main)
    if off is not None:
        yield from where_off(main.case, off)
    if not isinstance(main.case.layer, Recurrent):
        return
    if alone := row_alone(failed):
        yield f"in every question the {alone} batch row alone is off: it is not treated as the others are"
        return
    yield from paths(questions, off)
    if off is not None:
        yield from correlated(main, off)
    yield from single_weights(failed)
    yield from gates(questions)


# --- where ---


@dataclass
class Off:
    """differences: (batch, timesteps, units) in the order of processing. outside: where they are more than rounding."""

    differences: Array
    outside: NDArray[np.bool_]


def residuals(question: Question) -> Off | None:
    """The differences of one recurrent layer, each step from the candidate's own state, where it was judged so."""
    case, kept = question.case, list[tuple[int, Array, Array]]()
    if case.calls > 1 or not isinstance(case.layer, Recurrent) or question.finding.wrong:
        return None
    found = judge_answer(case, question.finding.answers[0], Tolerance(), proof=Tally(kept=kept))
    if "stepwise" not in found.method and "stepped" not in found.method and case.timesteps > 1:
        return None
    steps = {at: pair for at, *pair in reversed(kept)}
    d, outside = (np.concatenate([steps[at][k] for at in sorted(steps)], axis=1) for k in (0, 1))
    return Off(d, outside) if d.shape[1] == case.timesteps else None


def where_off(case: Case, off: Off) -> Iterator[str]:
    rows, steps, units = (np.asarray(off.outside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    if not steps.any():
        return
    if case.timesteps > 1:
        first = "wrong already" if steps[0] else "right"
        which = "every step is" if steps.all() else f"of {len(steps)} steps {listed('step', steps)}"
        yield f"the first step is {first}; {which} off"
    if not rows.all():
        yield f"of {len(rows)} batch rows {listed('row', rows)} off"
    if not units.all():
        yield f"of {len(units)} units {listed('unit', units)} off"


def listed(what: str, bad: NDArray[np.bool_]) -> str:
    at = np.flatnonzero(bad)
    if len(at) > MOST:
        return f"{len(at)} are"
    return f"{what}{'s' if len(at) > 1 else ''} {', '.join(map(str, at))} {'are' if len(at) > 1 else 'is'}"


def row_alone(failed: Sequence[Question]) -> str | None:
    """Which row it is, the first or the last, that alone is off in all of several questions. The probes have a weight
    for each row, so they would accuse one."""
    offs = [residuals(question) for question in failed if question.case.batch > 1]
    seen = [np.asarray(off.outside.any(axis=(1, 2))) for off in offs if off is not None]
    for name, end in (("first", 0), ("last", -1)):
        if len(seen) > 1 and all(rows[end] and rows.sum() == 1 for rows in seen):
            return name
    return None


# --- by which path ---


def probe(questions: Sequence[Question], name: str) -> Question | None:
    return next((q for q in questions if q.case.id.endswith(f" / {name}")), None)


def paths(questions: Sequence[Question], seen: Off | None) -> Iterator[str]:
    """What the probes say: unit inputs from a state of zeros, unit states with an input of zeros, neither. seen: where
    the question itself is off: what the recurrent path gets wrong, it does at every later step."""
    inputs, states = probe(questions, "unit inputs"), probe(questions, "unit states")
    wrong = []
    off = residuals(inputs) if inputs else None
    if off is not None:
        alone = off.outside[-1].any()
        wrong += ["the bias, or by what follows it (it is off for an input and a state of zeros)"] if alone else []
        wrong += ["the input (it is off for unit inputs)"] if not alone and off.outside.any() else []
    if states is not None and states.failed and not wrong:
        wrong += ["the recurrent path (it is off for unit states and an input of zeros)"]
    steps = [False] if seen is None else [bool(seen.outside[:, t].any()) for t in range(seen.outside.shape[1])]
    later = not steps[0] and all(steps[1:])
    if inputs is not None and not inputs.failed and not wrong and later:
        yield "unit inputs and one step from zeros are right: the error comes by the recurrent path"
    elif wrong:
        yield f"the error comes by {' and '.join(wrong)}"


def correlated(question: Question, off: Off) -> Iterator[str]:
    """With what the differences go along: with the inputs, the state before, or neither."""
    case, answer = question.case, question.finding.answers[0]
    sequence = answer.sequence if answer.sequence is not None else (answer.outputs or (None,))[0]
    if sequence is None or case.mask is not None or as_steps(sequence).shape != off.differences.shape:
        return
    d = np.nan_to_num(off.differences.astype(np.float64)).reshape(-1, off.differences.shape[2])
    x, _ = case.processed()
    before = previous(case, as_steps(sequence))
    strength = {
        "the inputs": correlation(d, x.reshape(len(d), -1)),
        "the state before": correlation(d, before.reshape(len(d), -1)),
        "neither (a constant)": float(np.abs(d.mean(axis=0) / (np.sqrt((d * d).mean(axis=0)) + 1e-300)).max()),
    }
    what, most = max(strength.items(), key=lambda item: item[1])
    if len(d) >= 20 and most > max(0.3, 4 / np.sqrt(len(d))):
        yield f"the differences go along with {what} most (correlation {most:.2f})"


def correlation(d: Array, with_: Array) -> float:
    a = d - d.mean(axis=0)
    b = with_.astype(np.float64) - with_.astype(np.float64).mean(axis=0)
    norms = np.sqrt((a * a).sum(axis=0))[:, None] * np.sqrt((b * b).sum(axis=0))[None]
    return float(np.abs(a.T @ b / np.where(norms > 0, norms, np.inf)).max())


def previous(case: Case, sequence: Array) -> Array:
    start = case.start[0]
    return np.concatenate([start[:, None], sequence[:, :-1]], axis=1).astype(np.float64)


def single_weights(failed: Sequence[Question]) -> Iterator[str]:
    """The weight or the column that alone is off, where unit probes show one."""
    for name, matrix in (("unit inputs", "Wx"), ("unit states", "Wh")):
        question = probe(failed, name)
        off = residuals(question) if question else None
        if question is None or off is None or not off.outside.any():
            continue
        bad = off.outside[:, 0]
        rows, units = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
        if name == "unit inputs" and bad[-1].any():
            if len(np.flatnonzero(bad[-1])) == 1 and len(units) == 1:
                yield f"b[{units[0]}] alone explains the probes: unit {units[0]} is off whatever the input is"
        elif len(rows) == 1:
            given = question.case.at(0) if matrix == "Wx" else question.case.start[0]
            column = int(np.flatnonzero(given[rows[0]])[0])
            if len(units) == 1:
                yield f"{matrix}[{units[0]}, {column}] alone explains the probes (row {units[0]} of each gate's block)"
            elif len(units) > len(bad[0]) // 2:
                yield f"column {column} of {matrix} alone explains the probes"


# --- which gate ---


def gates(questions: Sequence[Question]) -> Iterator[str]:
    """The gates of which a wrong value would explain every failed question of one step, all others being right."""
    cell = questions[0].case.layer.cell  # type: ignore[attr-defined]
    if len(cell.gates) == 1:
        return
    single = [q for q in questions if q.failed and q.case.timesteps == q.case.calls == 1 and q.case.mask is None]
    single = [q for q in single if q.finding.answers[0].outputs]
    if not single:
        return
    could = [gate for n, gate in enumerate(cell.gates) if all(reaches(question, n) for question in single)]
    if 0 < len(could) < len(cell.gates):
        yield f"a wrong gate {' or '.join(could)} alone would explain the questions of one step; the others would not"


def reaches(question: Question, gate: int) -> bool:
    """Whether some pre-activation of that gate gives what the candidate put out, everywhere."""
    case = widened(question.case)
    cell = case.layer.cell  # type: ignore[attr-defined]
    states = case.start
    p = cell.project(case.at(0))
    block = slice(gate * cell.units, (gate + 1) * cell.units)
    values = []
    for shift in (0.0, *np.geomspace(0.01, 40, 24), *-np.geomspace(0.01, 40, 24)):
        moved = p.copy()
        moved[:, block] += shift
        values.append(cell.update(moved, *states)[0])
    got = question.finding.answers[0].outputs[0].reshape(values[0].shape).astype(np.float64)  # type: ignore[index]
    slack = 1e-5 * max(1.0, float(np.abs(values[0]).max()))
    return bool(np.all((got >= np.min(values, axis=0) - slack) & (got <= np.max(values, axis=0) + slack)))
