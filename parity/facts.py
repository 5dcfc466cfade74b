"""What is known of a FAIL that no mistake of the catalogue explains: where it is off, by which path, which weights."""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from parity.cases import Case
from parity.diagnosis import Question, asked, widened
from parity.findings import Finding, Tally, Tolerance
from parity.judge import as_steps, judge_answer
from parity.mistakes import MISTAKES
from parity.report import Cause
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]

MOST = 6
"""How many steps, rows or units are listed one by one."""

ROWS = 4000
"""At most so many equations for recovered weights."""

SIGNIFICANT = 8.0
"""A recovered weight differs if it does by so many of its standard errors, and by more than rounding."""


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
    yield from paths(questions)
    if off is not None:
        yield from correlated(main, off)
    yield from single_weights(failed)
    yield from gates(questions)
    recovered = recover(findings[0].case.layer, questions)
    if recovered is not None:
        yield from recovered.lines()


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
    steps = {at: (d, r) for at, d, r in reversed(kept)}
    d, r = (np.concatenate([steps[at][k] for at in sorted(steps)], axis=1) for k in (0, 1))
    with np.errstate(invalid="ignore"):
        return Off(d, ~(np.abs(d) <= r)) if d.shape[1] == case.timesteps else None


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


# --- by which path ---


def probe(questions: Sequence[Question], name: str) -> Question | None:
    return next((q for q in questions if q.case.id.endswith(f" / {name}")), None)


def paths(questions: Sequence[Question]) -> Iterator[str]:
    """What the probes say: unit inputs from a state of zeros, unit states with an input of zeros, neither."""
    inputs, states = probe(questions, "unit inputs"), probe(questions, "unit states")
    wrong = []
    off = residuals(inputs) if inputs else None
    if off is not None:
        alone = off.outside[-1].any()
        wrong += ["the bias, or by what follows it (it is off for an input and a state of zeros)"] if alone else []
        wrong += ["the input (it is off for unit inputs)"] if not alone and off.outside.any() else []
    if states is not None and states.failed and not wrong:
        wrong += ["the recurrent path (it is off for unit states and an input of zeros)"]
    if inputs is not None and not inputs.failed and not wrong:
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
    start = case.layer.initial_states(case.batch, case.initial_state)[0]
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
            given = (
                question.case.x[:, 0]
                if matrix == "Wx"
                else question.case.layer.initial_states(question.case.batch, question.case.initial_state)[0]
            )
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
    states = case.layer.initial_states(case.batch, case.initial_state)
    p = cell.project(case.x[:, 0])
    block = slice(gate * cell.units, (gate + 1) * cell.units)
    values = []
    for shift in (0.0, *np.geomspace(0.01, 40, 24), *-np.geomspace(0.01, 40, 24)):
        moved = p.copy()
        moved[:, block] += shift
        values.append(cell.update(moved, *states)[0])
    got = question.finding.answers[0].outputs[0].reshape(values[0].shape).astype(np.float64)  # type: ignore[index]
    slack = 1e-5 * max(1.0, float(np.abs(values[0]).max()))
    return bool(np.all((got >= np.min(values, axis=0) - slack) & (got <= np.max(values, axis=0) + slack)))


# --- the weights that the candidate has in effect ---


INVERSES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.arctanh, lambda y: 1 - y * y),
    "sigmoid": (lambda y: np.log(y / (1 - y)), lambda y: y * (1 - y)),
    "linear": (lambda y: y, lambda y: np.ones_like(y)),
}


@dataclass
class Recovered:
    """weights: the arrays by which a SimpleRNN would have put out what the candidate did, by least squares. right: the
    layer's. apart: where they differ. fit: the largest residual, in standard roundings."""

    weights: dict[str, Array]
    right: dict[str, Array]
    apart: dict[str, NDArray[np.bool_]]
    fit: float

    def lines(self) -> Iterator[str]:
        if self.fit > 50:
            yield "recovered by least squares: no Wx, Wh and b make it a SimpleRNN with this activation"
            return
        for name, apart in self.apart.items():
            own, right = self.weights[name], self.right[name]
            if not apart.any():
                yield f"recovered by least squares: {name} is the layer's own"
            elif apart.sum() <= 3:
                entries = (
                    f"{name}{list(map(int, at))} is {own[tuple(at)]:.6g}, not {right[tuple(at)]:.6g}"
                    for at in np.argwhere(apart)
                )
                yield f"recovered by least squares: {'; '.join(entries)}"
            else:
                distance = float(np.linalg.norm(own - right) / (np.linalg.norm(right) or 1))
                ratio = scaled(own, right)
                times = f", {ratio:.6g} times the layer's" if ratio else ""
                yield (
                    f"recovered by least squares: {name} differs in {apart.sum()} of {apart.size} entries, "
                    f"by {distance:.2g} of its norm{times}"
                )

    def stale(self) -> str | None:
        """The array that alone is quite another one."""
        whole = [name for name, apart in self.apart.items() if apart.any()]
        if len(whole) != 1 or self.fit > 50:
            return None
        (name,) = whole
        own, right = self.weights[name], self.right[name]
        other = np.linalg.norm(own - right) > 0.05 * np.linalg.norm(right) and not scaled(own, right)
        return name if other and self.apart[name].mean() > 0.7 else None


def scaled(own: Array, right: Array) -> float | None:
    """The one factor between two arrays, if there is one."""
    k = float((own * right).sum() / ((right * right).sum() or 1))
    same = np.linalg.norm(own - k * right) < 1e-4 * np.linalg.norm(own - right)
    return k if same else None


Args = ParamSpec("Args")
Found = TypeVar("Found")


def where_solvable(find: Callable[Args, Found | None]) -> Callable[Args, Found | None]:
    """None where the numbers that a candidate put out leave nothing to solve: huge ones, say."""

    @functools.wraps(find)
    def guarded(*args: Args.args, **kwargs: Args.kwargs) -> Found | None:
        try:
            with np.errstate(all="ignore"):
                return find(*args, **kwargs)
        except np.linalg.LinAlgError:
            return None

    return guarded


@where_solvable
def recover(layer: Any, questions: Sequence[Question]) -> Recovered | None:
    """Of a SimpleRNN whose sequences are seen: the weights of each unit from atanh(h_t) = Wx x_t + Wh h_{t-1} + b."""
    cell = layer.cell
    if len(cell.gates) > 1 or cell.activation.name not in INVERSES or cell.dtype != np.float32:
        return None
    inverse, slope = INVERSES[cell.activation.name]
    A, Y = equations(layer, questions)
    if len(A) < 2 * A.shape[1]:
        return None
    found, error, fit = [], [], 0.0
    with np.errstate(all="ignore"):
        for k in range(cell.units):
            y = Y[:, k]
            steep = slope(y)
            usable = np.isfinite(y) & (steep > 1e-3) & np.isfinite(A).all(axis=1)
            a, z = A[usable], inverse(y[usable])
            weight = steep[usable] / (1 + np.abs(z) * steep[usable])
            if len(z) < 1.5 * a.shape[1]:
                return None
            scaled_a = a * weight[:, None]
            solution, _, rank, _ = np.linalg.lstsq(scaled_a, z * weight, rcond=1e-9)
            if rank < a.shape[1]:
                return None
            rest = scaled_a @ solution - z * weight
            sigma = max(float(np.sqrt((rest * rest).mean())), 2.0**-24)
            fit = max(fit, float(np.abs(rest).max()) / (2.0**-24 * np.sqrt(a.shape[1])))
            error.append(sigma * np.sqrt(np.diag(np.linalg.inv(scaled_a.T @ scaled_a))))
            found.append(solution)
    solved, errors = np.array(found), np.array(error)
    right = np.concatenate([cell.Wx, cell.Wh, cell.b[:, None]], axis=1).astype(np.float64)
    apart = np.abs(solved - right) > SIGNIFICANT * errors + 1e-6 * np.abs(right)
    cuts = [cell.input_dim, cell.input_dim + cell.units]

    def parts(array: Array) -> dict[str, Array]:
        Wx, Wh, b = np.split(array, cuts, axis=1)
        return {"Wx": Wx, "Wh": Wh, "b": b[:, 0]}

    return Recovered(parts(solved), parts(right), parts(apart), fit)


def equations(own: Any, questions: Sequence[Question]) -> tuple[Array, Array]:
    """Rows x_t, h_{t-1}, 1 and the outputs h_t, of the questions with the layer's own weights."""
    rows, outputs = [np.zeros((0, own.input_dim + own.units + 1))], [np.zeros((0, own.units))]
    for question in questions:
        case, answer = question.case, question.finding.answers[0]
        mine = all(np.array_equal(a, own.weights[name]) for name, a in case.layer.weights.items())
        sequence = answer.sequence
        if sequence is None and answer.outputs and (case.layer.return_sequences or case.timesteps == 1):  # type: ignore[attr-defined]
            sequence = as_steps(answer.outputs[0])
        if not mine or case.mask is not None or case.calls > 1 or sequence is None:
            continue
        with contextlib.suppress(ValueError):
            x, _ = case.processed()
            one = np.ones((case.batch, case.timesteps, 1))
            A = np.concatenate([x.astype(np.float64), previous(case, sequence), one], axis=2)
            rows.append(A.reshape(-1, A.shape[2])[:ROWS])
            outputs.append(sequence.reshape(-1, own.units)[:ROWS].astype(np.float64))
    return np.concatenate(rows)[:ROWS], np.concatenate(outputs)[:ROWS]


def stale_cause(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """The array that is not the layer's own, if with the recovered one in its place every answer is within rounding."""
    questions = [question for question in asked(findings) if not question.repeats]
    if any(question.finding.wrong for question in questions):
        return ()
    if not questions or not isinstance(questions[0].case.layer, Recurrent):
        return ()
    own: Any = findings[0].case.layer
    recovered = recover(own, questions)
    if recovered is not None:
        name = recovered.stale()
        candidates = {} if name is None else {name: recovered.weights[name]}
    else:
        candidates = fitted(own, questions)
    mistake = MISTAKES["stale-weights"]
    for name, array in candidates.items():
        for everywhere in (False, True):  # one with `layer` may have its own array only where it should, or always
            ratios = [against_stale(question, name, own.weights[name], array, everywhere) for question in questions]
            if None not in ratios:
                largest = max(ratio for ratio in ratios if ratio is not None)
                return (Cause(mistake.id, mistake.what, mistake.fix, mistake.source, detail=name, largest=largest),)
    return ()


def against_stale(question: Question, name: str, own: Array, array: Array, everywhere: bool) -> float | None:
    """The largest ratio with that array in place of the layer's own; None where it is outside of rounding."""
    case, layer = question.case, question.case.layer
    if everywhere or np.array_equal(layer.weights[name], own):
        case = replace(case, layer=layer.replace(**{**layer.weights, name: array.astype(layer.dtype)}))
    found = question.against(case)
    return None if found.verdict == "FAIL" else found.tally.worst


# --- one array of a gated cell, fitted ---


def fitted(layer: Any, questions: Sequence[Question]) -> dict[str, Array]:
    """The one array, quite another than the layer's, with which the cell puts out what the candidate did.

    Each array by itself, by damped Gauss-Newton steps: a unit's outputs depend on its own rows alone, h being the
    candidate's and c of the same unit.
    """
    data = [teacher(question) for question in questions if usable(question, layer)]
    found: dict[str, Array] = {}
    deadline = time.monotonic() + FIT_SECONDS
    data = sorted(data, key=lambda part: part.x.shape[1])  # a loop over time for every column costs most
    for name, array in sorted(layer.weights.items(), key=lambda item: item[1].size):
        new = fit(layer, name, data, deadline)
        if new is None:
            continue
        apart = np.abs(new - array) > 1e-3 * np.abs(array)
        if apart.mean() > 0.7 and np.linalg.norm(new - array) > 0.05 * np.linalg.norm(array) and not scaled(new, array):
            found[name] = new
    return found if len(found) == 1 else {}


FIT_SECONDS = 1.0
MOST_COLUMNS = 96
"""More unknowns for a unit than these are not fitted: it would take too long."""
STEPS = 40


@dataclass
class Taught:
    """x: (batch, timesteps, input_dim), h: (batch, timesteps, units) before each step, carried: what goes unseen at the
    start, y: (batch, timesteps, units), what the candidate put out. All float64."""

    x: Array
    h: Array
    carried: tuple[Array, ...]
    y: Array

    def run(self, cell: Any) -> Array:
        """What the cell puts out from these states: (batch * timesteps, units)."""
        carried, outputs = self.carried, []
        p = cell.project(self.x)
        for t in range(self.x.shape[1]):
            h, *new = cell.update(p[:, t], self.h[:, t], *carried)
            carried = tuple(new)
            outputs.append(h)
        return np.stack(outputs, axis=1).reshape(-1, self.y.shape[2])


def usable(question: Question, layer: Any) -> bool:
    case, answer = question.case, question.finding.answers[0]
    mine = all(np.array_equal(a, layer.weights[name]) for name, a in case.layer.weights.items())
    seen = answer.sequence is not None or (answer.outputs and (layer.return_sequences or case.timesteps == 1))
    small = case.x.size * layer.units < 200_000
    return bool(mine and seen and small and case.mask is None and case.calls == 1 and np.isfinite(case.x).all())


def teacher(question: Question) -> Taught:
    case, answer = question.case, question.finding.answers[0]
    y = answer.sequence if answer.sequence is not None else as_steps(answer.outputs[0])  # type: ignore[index]
    states = case.layer.initial_states(case.batch, case.initial_state)
    carried = tuple(state.astype(np.float64) for state in states[1:])
    return Taught(case.processed()[0].astype(np.float64), previous(case, y), carried, y.astype(np.float64))


def fit(layer: Any, name: str, data: Sequence[Taught], deadline: float) -> Array | None:
    """The array of that name with which the cell fits the data; None if none does, or too little is known."""
    own = layer.weights[name].astype(np.float64)
    units = layer.units
    shape = own.shape if name == "b" else (own.shape[0] // units, units, own.shape[1])
    columns = own.size // units
    if columns > MOST_COLUMNS:
        return None
    enough = itertools.accumulate((part.y.size // units for part in data), initial=0)
    data = [part for part, before in zip(data, enough, strict=False) if before < 3 * columns + 16]
    y = np.concatenate([part.y.reshape(-1, units) for part in data]) if data else np.zeros((0, units))
    if len(y) < 1.25 * columns or not np.isfinite(y).all():
        return None

    def outputs(array: Array) -> Array:
        def change(key: str, weight: Array) -> Array:
            return array if key == name else weight.astype(np.float64)

        cell = layer.cell.mapped(change)
        return np.concatenate([part.run(cell) for part in data])

    def placed(parameters: Array) -> Array:
        """(units, columns) -> the array."""
        if name == "b":
            return parameters.T.reshape(shape)
        return parameters.reshape(units, shape[0], shape[2]).swapaxes(0, 1).reshape(own.shape)

    right = own.reshape(-1, units).T if name == "b" else own.reshape(shape).swapaxes(0, 1).reshape(units, columns)
    for start in (right, 0 * right):
        solved = levenberg_marquardt(lambda parameters: outputs(placed(parameters)), start, y, deadline)
        if solved is not None:
            return placed(solved)
    return None


@where_solvable
def levenberg_marquardt(f: Callable[[Array], Array], start: Array, y: Array, deadline: float) -> Array | None:
    """Parameters (units, columns) with which f gives y (n, units) to 1e-5, each unit's by themselves; None if none do
    that are found from there in time."""
    current, damping, eps = start.astype(np.float64), np.full(len(start), 1e-2), 1e-6
    before, stuck = f(current), 0
    for _ in range(STEPS):
        J = np.empty((*y.shape, start.shape[1]))
        for j in range(start.shape[1]):
            if time.monotonic() > deadline:
                return None
            moved = current.copy()
            moved[:, j] += eps
            J[..., j] = (f(moved) - before) / eps
        rest = y - before
        normal = np.einsum("nui,nuj->uij", J, J)
        for _ in range(6):
            extra = damping[:, None, None] * np.eye(start.shape[1])
            step = np.linalg.solve(normal + extra, np.einsum("nui,nu->ui", J, rest)[..., None])[..., 0]
            after = f(current + step)
            better = np.square(y - after).sum(axis=0) <= np.square(rest).sum(axis=0)
            damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-12, 1e6)
            if better.all():
                break
        current = current + step * better[:, None]
        before = f(current)
        stuck = stuck + 1 if np.square(y - before).sum() > 0.8 * np.square(rest).sum() else 0
        if np.abs(y - before).max() < 1e-6 or stuck == 4:
            break
    return current if np.abs(y - before).max() < 1e-5 * max(1.0, float(np.abs(y).max())) else None
