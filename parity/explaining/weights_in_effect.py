"""The weights that a candidate has in effect, from its own outputs: of a SimpleRNN all of them, by least squares; of a
gated cell one array, if it alone explains what was put out. And what they are beside the layer's own."""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from parity.explaining.causes import Question, asked
from parity.explaining.facts import previous
from parity.judging.findings import Finding
from parity.judging.judge import as_steps
from parity.mistakes.catalogue import MISTAKES
from parity.report.data import Cause
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]

ROWS = 4000
"""At most so many equations for recovered weights."""

SIGNIFICANT = 8.0
"""A recovered weight differs if it does by so many of its standard errors, and by more than rounding."""


@dataclass(frozen=True)
class InEffect:
    """causes: stale-weights, where one array that has nothing to do with the layer's own explains every answer.
    lines: what else is known of the weights."""

    causes: tuple[Cause, ...] = ()
    lines: tuple[str, ...] = ()


def in_effect(findings: Sequence[Finding]) -> InEffect:
    """What the candidate's own outputs say of its weights, for one recurrent layer."""
    questions = [question for question in asked(findings) if not question.repeats]
    if not questions or any(question.finding.wrong for question in questions):
        return InEffect()
    own: Any = findings[0].case.layer
    if not isinstance(own, Recurrent):
        return InEffect()
    recovered = recover(own, questions)
    if recovered is not None:
        name = recovered.alone
        candidates = {} if name is None else {name: recovered.weights[name]}
        lines = tuple(recovered.lines())
    else:
        candidates, lines = fitted(own, questions), ()
    for name, array in candidates.items():
        mine = [
            question for question in questions if np.array_equal(question.case.layer.weights[name], own.weights[name])
        ]
        # one with `layer` may have its own array only where it should, or always; or make one of whatever it is given
        for some, everywhere in ((questions, False), (questions, True), (mine, False)):
            ratios = [against(question, name, own.weights[name], array, everywhere) for question in some]
            if None in ratios:
                continue
            largest = max((ratio for ratio in ratios if ratio is not None), default=0.0)
            right = shown(own, name, own.weights[name])
            told = {part: (a, right[part]) for part, a in shown(own, name, array).items()}
            if some is questions and all(stale(a, b) for a, b in told.values()):
                m = MISTAKES["stale-weights"]
                return InEffect((Cause(m.id, m.what, m.fix, m.source, detail=name, largest=largest),), lines)
            lines = lines or (f"fitted: {'; '.join(compared(part, a, b) for part, (a, b) in told.items())}",)
            return InEffect(
                (), (*lines, f"with that {name} every answer is within rounding (largest {largest:.2g} radii)")
            )
    return InEffect((), lines)


def shown(layer: Any, name: str, array: Array) -> dict[str, Array]:
    """Of an array what outputs can show: of GRU's two biases only the sum, where the reset gate does not part them."""
    own = np.asarray(array, np.float64)
    if name != "b" or own.ndim == 1:
        return {name: own}
    u = 2 * layer.units
    return {"b[0] + b[1] of z and r": own.sum(axis=0)[:u], "b[0] of h": own[0, u:], "b[1] of h": own[1, u:]}


def against(question: Question, name: str, own: Array, array: Array, everywhere: bool) -> float | None:
    """The largest ratio with that array in place of the layer's own; None where it is outside of rounding."""
    case, layer = question.case, question.case.layer
    if everywhere or np.array_equal(layer.weights[name], own):
        case = replace(case, layer=layer.replace(**{**layer.weights, name: array.astype(layer.dtype)}))
    found = question.against(case)
    return None if found.verdict == "FAIL" else found.tally.worst


@dataclass
class Recovered:
    """weights: the arrays by which a SimpleRNN would have put out what the candidate did, by least squares. right: the
    layer's. apart: where they differ. fit: the largest residual, in standard roundings."""

    weights: dict[str, Array]
    right: dict[str, Array]
    apart: dict[str, NDArray[np.bool_]]
    fit: float

    @property
    def is_one(self) -> bool:
        """Whether there are such arrays."""
        return self.fit <= 50

    @property
    def alone(self) -> str | None:
        """The array that alone differs."""
        whole = [name for name, apart in self.apart.items() if apart.any()]
        return whole[0] if len(whole) == 1 and self.is_one else None

    def lines(self) -> Iterator[str]:
        if not self.is_one:
            yield "recovered by least squares: no Wx, Wh and b make it a SimpleRNN with this activation"
            return
        for name, apart in self.apart.items():
            told = compared(name, self.weights[name], self.right[name], apart)
            yield f"recovered by least squares: {told}"


# --- two arrays compared ---


def compared(name: str, own: Array, right: Array, apart: NDArray[np.bool_] | None = None) -> str:
    """What the candidate's array is beside the layer's. apart: where they differ."""
    if apart is None:
        apart = np.abs(own - right) > CLOSE * np.abs(right).max()
    if not apart.any():
        return f"{name} is the layer's own"
    if apart.sum() <= 3:
        entries = (
            f"{name}{list(map(int, at))} is {own[tuple(at)]:.6g}, not {right[tuple(at)]:.6g}"
            for at in np.argwhere(apart)
        )
        return "; ".join(entries)
    made = made_of(own, right)
    if made:
        return f"{name} is {made}"
    distance = float(np.linalg.norm(own - right) / (np.linalg.norm(right) or 1))
    return f"{name} differs in {apart.sum()} of {apart.size} entries, by {distance:.2g} of its norm"


CLOSE = 1e-3
"""Entries are the same if they differ by less than this part of the array's largest: nothing recovered is exact."""


def stale(own: Array, right: Array) -> bool:
    """Whether an array is quite another than the layer's, and not made of it in some other way than by a mistake in
    copying: then to copy it again would not mend the port."""
    close = CLOSE * np.abs(right).max()
    whole = np.mean(np.abs(own - right) > close) > 0.9
    far = np.linalg.norm(own - right) > 0.05 * np.linalg.norm(right)
    kept = np.mean(np.abs(own) <= close) < 0.1
    views = [(own.reshape(1, -1), right.reshape(1, -1)), *([(own, right), (own.T, right.T)] if right.ndim > 1 else [])]
    ordered = any(monotone(o, r, close) for o, r in views)  # each entry may have been changed by itself
    return bool(whole and far and kept and not ordered and not made_of(own, right))


def made_of(own: Array, right: Array) -> str | None:
    """What an array is made of the layer's by, if that can be told."""
    close = CLOSE * np.abs(right).max()
    if np.all(np.abs(own) <= close):
        return "zero"
    k = scaled(own, right)
    if k:
        return f"{k:.6g} times the layer's"
    shift = float(np.median(own - right))
    if np.all(np.abs(own - right - shift) <= close):
        return f"the layer's plus {shift:.6g}"
    for axis, what in enumerate(("rows", "columns")[: right.ndim] if right.ndim > 1 else ("entries",)):
        order = reordered(own, right, axis, close)
        if order is not None:
            first = ", ".join(map(str, order[:12])) + (", ..." if len(order) > 12 else "")
            return f"the layer's with its {what} in the order {first}"
    if np.all(np.abs(np.sort(own.ravel()) - np.sort(right.ravel())) <= close):
        return "the layer's with its entries in another order"
    if np.all(np.abs(np.abs(own) - np.abs(right)) <= close):
        return "the layer's with other signs"
    for axis, what in ((1, "rows"), (0, "columns")) if right.ndim > 1 else ():
        factor = (own * right).sum(axis=axis, keepdims=True) / ((right * right).sum(axis=axis, keepdims=True) + 1e-300)
        if own.shape[axis] > 1 and np.all(np.abs(own - factor * right) <= close):
            return f"the layer's with its {what} times " + ", ".join(f"{f:.4g}" for f in factor.ravel()[:12])
    if np.all(np.abs(own - np.clip(right, own.min(), own.max())) <= close):
        return f"the layer's clipped to {own.min():.4g} and {own.max():.4g}"
    values = len(np.unique(np.round(own / close)))
    return f"of {values} values alone: quantised" if own.size > 8 and 2 * values <= own.size else None


def reordered(own: Array, right: Array, axis: int, close: float) -> list[int] | None:
    """The order of the layer's rows (or columns) in which they are the array's, if there is one."""
    a, b = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (own, right))
    if a.size * len(b) > MOST_COMPARED:
        return None
    order = np.abs(a[:, None] - b[None]).max(axis=2).argmin(axis=1)
    fits = len(set(order)) == len(b) and np.all(np.abs(a - b[order]) <= close)
    return [int(n) for n in order] if fits else None


MOST_COMPARED = 1 << 22
"""Numbers that are held at once to find an order of rows: 32 MiB of them."""


def monotone(own: Array, right: Array, close: float) -> bool:
    """Whether, within each row, larger entries (or larger magnitudes) of one are larger in the other."""

    def rising(a: Array, b: Array) -> bool:
        along = np.take_along_axis(a, np.argsort(b, axis=1), axis=1)
        return bool(np.all(np.diff(along, axis=1) >= -close))

    return right.shape[1] > 3 and (rising(own, right) or rising(np.abs(own), np.abs(right)))


def scaled(own: Array, right: Array) -> float | None:
    """The one factor between two arrays, if there is one."""
    k = float((own * right).sum() / ((right * right).sum() or 1))
    same = np.linalg.norm(own - k * right) < 1e-4 * np.linalg.norm(own - right)
    return k if same else None


# --- by least squares ---


INVERSES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.arctanh, lambda y: 1 - y * y),
    "sigmoid": (lambda y: np.log(y / (1 - y)), lambda y: y * (1 - y)),
    "linear": (lambda y: y, lambda y: np.ones_like(y)),
}


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
        if new is not None and np.any(np.abs(new - array) > CLOSE * np.abs(array).max()):
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
    small = case.size * layer.units < 200_000
    return bool(mine and seen and small and case.mask is None and case.calls == 1 and np.isfinite(case.x).all())


def teacher(question: Question) -> Taught:
    case, answer = question.case, question.finding.answers[0]
    y = answer.sequence if answer.sequence is not None else as_steps(answer.outputs[0])  # type: ignore[index]
    states = case.start
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
