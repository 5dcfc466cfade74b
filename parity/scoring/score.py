"""The harness's own score: mistakes caught and named, correct implementations accused, beside what allclose would say.

Everything is computed here and judged by the check, Keras itself among the correct implementations.
"""

import concurrent.futures
import itertools
import multiprocessing
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.adapters.keras import library
from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.oracle import Oracle
from parity.adapters.keras.to_keras import to_keras
from parity.candidates.functions import ANY, Answer, Candidate
from parity.cases.beside import companions, two_calls
from parity.cases.case import Case
from parity.cases.drawing import generator
from parity.cases.grid import grid
from parity.cases.probes import probes
from parity.checking.asking import again
from parity.errors import CandidateError
from parity.explaining.causes import diagnose
from parity.explaining.functions import computed, differ, widened
from parity.explaining.weights_in_effect import in_effect
from parity.judging.findings import Finding, Tolerance
from parity.judging.judge import Asker, examine, judge_answer
from parity.mistakes.catalogue import MISTAKES
from parity.mistakes.wrong_cases import Key, WrongCases
from parity.scoring import peers
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]

ALL = frozenset({"layer", "mask", "initial_state"})
WAYS: dict[str, frozenset[str]] = {
    "layer and initial_state": ALL,
    "layer": frozenset({"layer", "mask"}),
    "x alone": frozenset({"mask"}),
}
"""How much a candidate takes, for the figures on single weights."""

TOLERANCES = ((1e-5, 1e-6), (1e-4, 1e-5), (1e-3, 1e-3))
COSINE = 0.99
RADII = 10
"""A wrong case counts as another function on its data from so many radii."""

RELATIVE = (1e-3, 1e-4, 1e-5)


class Function:
    """A candidate that computes a case by some function of it."""

    callable = True
    fixed = ANY

    def __init__(self, function: Callable[[Case], Sequence[Array]], takes: frozenset[str] = ALL) -> None:
        self.function, self.takes = function, takes

    def ask(self, case: Case) -> Answer:
        return Answer(tuple(np.asarray(y) for y in self.function(case)))

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("it keeps no state")


class Wrong(Function):
    """A port that made these mistakes and no other."""

    def __init__(self, key: Sequence[Key], takes: frozenset[str] = ALL) -> None:
        self.key, self.takes = key, takes

    def ask(self, case: Case) -> Answer:
        return Answer(computed(self.wrong(case))[0])

    def wrong(self, case: Case) -> Case:
        return WrongCases(case).composed(self.key) or case

    def converse(self, case: Case) -> list[Answer]:
        wrong = WrongCases(case).composed(self.key)
        if wrong is None and not case.layer.stateful:
            return [self.ask(case.call(n)) for n in range(case.calls)]
        return [Answer(results) for results in computed(wrong or case)]


def questions(case: Case, takes: frozenset[str], thorough: bool = False) -> Iterator[Case]:
    """What the check asks for a case of the grid, the cheap questions first; for a user's own case, more."""
    yield from probes(case, takes, 0)
    if thorough:
        yield from companions(case, takes, 0)
    if case.layer.stateful:
        yield two_calls(case, 0)
    yield case
    if not case.layer.stateful:
        yield again(case)


def put(candidate: Candidate, question: Case) -> Finding | None:
    """What is found, None where the candidate cannot be asked that."""
    try:
        if question.calls > 1 or question.rows or not isinstance(question.layer, Recurrent):
            return examine(candidate, question, Tolerance())
        return judge_answer(question, candidate.ask(question), Tolerance(), asker=Asker(candidate, question))
    except CandidateError:
        return None


def findings(candidate: Candidate, case: Case) -> list[Finding]:
    """Of a user's own case."""
    every = (put(candidate, question) for question in questions(case, candidate.takes, thorough=True))
    return [found for found in every if found is not None]


def caught(candidate: Candidate, case: Case) -> bool:
    return any((found := put(candidate, q)) and found.verdict == "FAIL" for q in questions(case, candidate.takes))


# --- mistakes ---


def no_count() -> list[int]:
    return [0, 0]


@dataclass
class Score:
    """Counts, each a number of things and of how many; see `to_dict`."""

    counts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(no_count))
    missed: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    accused: list[str] = field(default_factory=list)
    largest: float = 0.0
    seconds: float = 0.0

    def count(self, what: str, yes: bool) -> bool:
        self.counts[what][0] += yes
        self.counts[what][1] += 1
        return yes

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "counts": {what: {"number": yes, "of": of} for what, (yes, of) in self.counts.items()},
            "largest_correct": self.largest,
            "missed": self.missed,
            "misnamed": self.misnamed,
            "accused": self.accused,
            "seconds": round(self.seconds, 1),
        }


def variants(case: Case) -> Iterator[tuple[Key, Case]]:
    """Every wrong case for a case of the grid, asked as it is or twice or in two calls."""
    for mistake in MISTAKES.values():
        if not mistake.common:
            continue
        asked = [case, two_calls(case, 0) if case.layer.stateful else again(case)]
        for question in asked:
            found = mistake.variants(question)
            if found:
                yield from (((mistake.id, label), wrong) for label, wrong in found.items())
                break


def apart(case: Case, wrong: Case) -> float:
    """How far the wrong case's results are from the right ones', in radii that the right ones have at most."""
    right = Function(lambda asked: computed(asked)[0])
    found = judge_answer(case, right.ask(case), Tolerance()) if case.calls == 1 else None
    widest = found.tally.widest if found is not None else 1e-6
    distance = 0.0
    for own, other in zip(computed(widened(case)), computed(widened(wrong)), strict=False):
        for y, z in zip(own, other, strict=False):
            if y.shape != z.shape or (np.isnan(y) != np.isnan(z)).any():
                return float("inf")
            with np.errstate(invalid="ignore"):
                distance = max(distance, float(np.nan_to_num(np.abs(y - z)).max(initial=0)))
    return distance / max(widest, 1e-300)


def mistakes(score: Score, cases: Sequence[Case], step: Callable[[str], None]) -> None:
    """Every mistake in every case that it applies to: caught, and named for the first few cases of each."""
    seen: Counter[tuple[str, str, str]] = Counter()
    named: Counter[tuple[str, str]] = Counter()
    for case in cases:
        step(case.id)
        for key, wrong in variants(case):
            kind = case.layer.kind
            basis = case if wrong.calls == 1 else (two_calls(case, 0) if case.layer.stateful else again(case))
            visible = apart(basis, wrong) > RADII
            candidate = Wrong([key])
            found = caught(candidate, case)
            score.count("mistakes caught, of all pairs of a mistake and a case", found)
            if visible and not score.count("mistakes caught, of those that are another function on the data", found):
                score.missed.append(f"{' '.join(key)} in {case.id}")
            if found or visible:
                seen[kind, *key] += found
            which = str(key) if isinstance(case.layer, Recurrent) else key[0]
            if found and visible and case.size <= 2_000 and not named[kind, which]:
                named[kind, which] += 1
                naming(score, candidate, case)
            baseline(score, case, wrong)
    for what, number in seen.items():
        if not score.count("mistakes seen by some case of the grid, of all kinds of layer and variants", number > 0):
            score.missed.append(f"{' '.join(what)}: by no case")


def naming(score: Score, candidate: Wrong, case: Case) -> None:
    found = findings(candidate, case)
    causes = diagnose(found, seconds=0).causes or in_effect(found).causes
    name = candidate.key[0][0]
    ids = [cause.id for cause in causes]
    score.count("named as the only cause, of those caught that were diagnosed", ids == [name])
    if not score.count("named, alone or among causes that explain the same answers", name in ids):
        score.misnamed.append(f"{' '.join(candidate.key[0])} in {case.id}: {', '.join(ids) or 'no cause'}")


def baseline(score: Score, case: Case, wrong: Case) -> None:
    """What allclose and the cosine say to the same pair, end to end, on our weights and on Keras's default ones."""
    if wrong.calls > 1:
        return
    ours = "keras" if "-keras" in case.id else "ours"
    right, other = computed(case)[0], computed(wrong)[0]
    for name, differs in verdicts(right, other).items():
        score.count(f"{name}, {ours}: mistakes caught", differs)


def verdicts(right: Sequence[Array], other: Sequence[Array]) -> dict[str, bool]:
    """Whether each of the usual comparisons sees a difference."""
    if [y.shape for y in right] != [y.shape for y in other]:
        return dict.fromkeys((*map(tolerance_name, TOLERANCES), f"cosine > {COSINE}"), True)
    a, b = (np.concatenate([np.ravel(y).astype(np.float64) for y in part]) for part in (right, other))
    found = {tolerance_name(t): not np.allclose(b, a, rtol=t[0], atol=t[1], equal_nan=True) for t in TOLERANCES}
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return {**found, f"cosine > {COSINE}": not (norm > 0 and a @ b > COSINE * norm)}


def tolerance_name(tolerance: tuple[float, float]) -> str:
    return f"allclose({tolerance[0]:g}, {tolerance[1]:g})"


# --- single weights ---


def single_weights(score: Score, cases: Sequence[Case], each: int, step: Callable[[str], None]) -> None:
    """One weight off by a little, in `each` cases of every kind of candidate."""
    suited = [c for c in cases if isinstance(c.layer, Recurrent) and c.layer.dtype == np.float32 and c.mask is None]
    suited = [c for c in suited if 2 <= c.layer.units <= 64 and "-normal" in c.id]
    rng = generator(0, "single weights")
    for relative, (way, takes) in itertools.product(RELATIVE, WAYS.items()):
        step(f"single weights off by {relative:g}, {way}")
        for n in range(each):
            case = suited[n % len(suited)]
            name = rng.choice([name for name, array in case.layer.weights.items() if array.any()])
            at = tuple(int(rng.integers(size)) for size in case.layer.weights[name].shape)
            spoil = spoiler(name, at, relative)
            candidate = Function(lambda asked, spoil=spoil: computed(spoil(asked))[0], takes)  # type: ignore[misc]
            own = case if takes & {"initial_state"} else replace(case, initial_state=None)
            score.count(f"single weights off by {relative:g} caught, candidate takes {way}", caught(candidate, own))


def spoiler(name: str, at: tuple[int, ...], relative: float) -> Callable[[Case], Case]:
    def spoil(case: Case) -> Case:
        array = case.layer.weights[name].copy()
        array[at] *= array.dtype.type(1 + relative)
        return replace(case, layer=case.layer.replace(**{**case.layer.weights, name: array}))

    return spoil


# --- correct implementations ---


def turned(case: Case, order: Callable[[int], Array]) -> list[Array]:
    """The same layer with its features and units in another order: every sum is taken in that order."""
    layer: Any = case.layer
    cell, u = layer.cell, layer.units
    rows, features = order(u), order(cell.input_dim)
    every = np.concatenate([n * u + rows for n in range(len(cell.gates))])
    new = {"Wx": cell.Wx[every][:, features], "Wh": cell.Wh[every][:, rows], "b": cell.b[..., every]}
    other = layer.replace(**{name: new[name] for name in layer.weights})
    back = np.argsort(rows)
    return [y[..., back] for y in computed(case.features_at(features).units_at(rows, layer=other))[0]]


def shuffled(n: int) -> Array:
    return np.random.default_rng(n).permutation(n)


def in_dtype(dtype: Any) -> Callable[[Case], list[Array]]:
    """Computed in a wider precision and rounded at the end."""

    def compute(case: Case) -> list[Array]:
        results = computed(case.cast(dtype, layer=case.layer.astype(dtype)))[0]
        return [y.astype(case.layer.dtype) for y in results]

    return compute


def correct(case: Case) -> Iterator[tuple[str, Candidate]]:
    """The correct implementations at hand of one case."""
    yield "rnn_scratch", Function(lambda asked: computed(asked)[0])
    if isinstance(case.layer, Recurrent):
        yield "rnn_scratch, sums backwards", Function(lambda asked: turned(asked, lambda n: np.arange(n)[::-1]))
        yield "rnn_scratch, sums shuffled", Function(lambda asked: turned(asked, shuffled))
    if case.layer.dtype == np.float32:
        yield "rnn_scratch in float64", Function(in_dtype(np.float64))
        yield "rnn_scratch in long double", Function(in_dtype(np.longdouble))
        if isinstance(case.layer, Recurrent):
            for name, peer in peers.of(case.layer, case.mask, case.initial_state).items():
                yield name, Function(lambda asked, peer=peer: [peer(asked.x, asked.layer)])  # type: ignore[misc]


def implementations(score: Score, cases: Sequence[Case], step: Callable[[str], None]) -> None:
    """Every correct implementation on every case, by every question; and Keras."""
    for case in cases:
        step(case.id)
        keras_layer = to_keras(case.layer, batch_size=case.batch if case.layer.stateful else None)
        own = from_keras(keras_layer)
        own.reset_state()
        backend = f"Keras on {library.backend_of(keras_layer)}"
        keras = (backend, Oracle(keras_layer, own), replace(case, layer=own))
        others = ((name, candidate, case) for name, candidate in correct(case))
        for name, candidate, asked in (keras, *others):
            plain = name in ("torch", "onnxruntime")
            for question in [asked] if plain else questions(asked, candidate.takes):
                if question.calls > 1 and (name != backend or not question.layer.stateful):
                    continue
                found = put(candidate, question)
                if found is None:
                    continue
                score.largest = max(score.largest, found.proof.worst)
                accused = found.verdict == "FAIL"
                score.count(f"correct evaluations accused, {name}", accused)
                score.count("correct evaluations accused", accused)
                score.accused += [f"{name} in {question.id}"] if accused else []
        if case.calls == 1 and case.layer.dtype == np.float32:
            right, other = computed(case)[0], in_dtype(np.float64)(case)
            for name, differs in verdicts(other, right).items():
                score.count(f"{name}: correct evaluations accused", differs)


# --- pairs, and what is no mistake of the catalogue ---


def pairs(score: Score, cases: Sequence[Case], number: int, step: Callable[[str], None]) -> None:
    """Two mistakes at once, which together are not the same function as any one."""
    step("pairs of mistakes")
    rng = generator(0, "pairs")
    plain = [c for c in cases if isinstance(c.layer, Recurrent) and c.layer.dtype == np.float32 and "-normal" in c.id]
    plain = [c for c in plain if 2 < c.layer.units <= 64 and c.timesteps > 2 and c.layer.return_sequences]  # type: ignore[attr-defined]
    done = 0
    for _ in range(20 * number):
        if done == number:
            return
        case = plain[int(rng.integers(len(plain)))]
        keys = [key for key, wrong in variants(case) if wrong.calls == 1 and not MISTAKES[key[0]].drawn]
        first, second = (keys[int(n)] for n in sorted(rng.choice(len(keys), 2, replace=False)))
        if first[0] == second[0]:
            continue
        try:
            wrong = Wrong([first, second]).wrong(case)
            computed(wrong)
        except (ValueError, IndexError, TypeError):  # two mistakes need not fit together
            continue
        alone = [WrongCases(case).composed([key]) or case for key in keys]
        if not all(differ(wrong, one) for one in (case, *alone)):
            continue
        done += 1
        found = findings(Wrong([first, second]), case)
        ids = [cause.id for cause in diagnose(found, seconds=4).causes]
        if not score.count("pairs of mistakes named", f"{first[0]} + {second[0]}" in ids):
            score.misnamed.append(f"{first} + {second} in {case.id}: {', '.join(ids) or 'no cause'}")


def changed(case: Case, **changes: Callable[[Array], Array]) -> list[Array]:
    """The layer with other weights."""
    own = case.layer.weights
    new = {name: change(own[name].copy()).astype(own[name].dtype) for name, change in changes.items() if name in own}
    return list(computed(replace(case, layer=case.layer.replace(**{**own, **new})))[0])


def output(case: Case, change: Callable[[Array], Array]) -> list[Array]:
    y, *rest = computed(case)[0]
    return [change(y).astype(y.dtype), *rest]


def activated(case: Case, f: Callable[[Array], Array]) -> list[Array]:
    layer: Any = case.layer
    twin = layer.mapped(lambda _, name, array: array)
    twin.cell.activation = replace(layer.cell.activation, f=lambda z, out=None: np.positive(f(z).astype(z.dtype), out))
    return list(computed(replace(case, layer=twin))[0])


def pade(z: Array) -> Array:
    """tanh by a continued fraction, off by 1e-4 from |z| = 2.5."""
    z = np.clip(z, -3.6, 3.6)
    s = z * z
    return np.asarray(z * (945 + s * (105 + s)) / (945 + s * (420 + s * 15)))


def exchanged(n: Array, axis: int = -1) -> Array:
    new = np.moveaxis(n.copy(), axis, 0)
    new[[0, 1]] = new[[1, 0]]
    return np.moveaxis(new, 0, axis)


def late(y: Array) -> Array:
    y = y.copy()
    y[:, y.shape[1] // 2 :] *= y.dtype.type(1.001)
    return y


def at_one(change: Callable[[Any], Any]) -> Callable[[Array], Array]:
    def one(array: Array) -> Array:
        middle = tuple(size // 2 for size in array.shape)
        array[middle] = change(array[middle])
        return array

    return one


DEFECTS: dict[str, Callable[[Case], list[Array]]] = {
    "weights times 1.0003": lambda c: changed(c, Wx=lambda W: W * 1.0003, Wh=lambda W: W * 1.0003),
    "Wx times 1.0003": lambda c: changed(c, Wx=lambda W: W * 1.0003),
    "biases off by 1e-4": lambda c: changed(c, b=lambda b: b + 1e-4),
    "a Pade tanh off by 1e-4": lambda c: activated(c, pade),
    "tanh times 1.0001": lambda c: activated(c, lambda z: 1.0001 * np.tanh(z)),
    "tanh of 1.001 z": lambda c: activated(c, lambda z: np.tanh(1.001 * z)),
    "a gain that sets in late": lambda c: output(c, late),
    "outputs times 1.001": lambda c: output(c, lambda y: y * 1.001),
    "outputs off by 1e-4": lambda c: output(c, lambda y: y + 1e-4),
    "outputs clipped at 0.5": lambda c: output(c, lambda y: np.clip(y, -0.5, 0.5)),
    "outputs in steps of 1/1000": lambda c: output(c, lambda y: np.round(y, 3)),
    "two units exchanged": lambda c: output(c, exchanged),
    "two rows of Wx exchanged": lambda c: changed(c, Wx=lambda W: exchanged(W, 0)),
    "two columns of Wh exchanged": lambda c: changed(c, Wh=lambda W: exchanged(W, 1)),
    "weights in eight bits": lambda c: changed(
        c, Wx=lambda W: np.round(W * 64) / 64, Wh=lambda W: np.round(W * 64) / 64
    ),
    "one weight 1 % off": lambda c: changed(c, Wx=at_one(lambda w: w * 1.01)),
    "one bias off by 0.001": lambda c: changed(c, b=at_one(lambda w: w + 1e-3)),
    "one column of Wx zero": lambda c: changed(c, Wx=lambda W: W * (np.arange(W.shape[1]) != 1)),
    "inputs clipped at 1": lambda c: list(computed(c.mapped(lambda x: np.clip(x, -1, 1)))[0]),
    "inputs times 1.0005": lambda c: list(computed(c.mapped(lambda x: (x * 1.0005).astype(x.dtype)))[0]),
}
"""Wrong, and no mistake of the catalogue."""


def outside(score: Score, cases: Sequence[Case], step: Callable[[str], None]) -> None:
    step("defects outside the catalogue")
    suited = [c for c in cases if isinstance(c.layer, Recurrent) and "seq-tanh-normal" in c.id and c.mask is None]
    chosen = [c for c in suited if c.layer.units == 8 and c.id.endswith("normal") and c.timesteps >= 10]
    chosen = chosen or [c for c in suited if c.layer.units >= 3 and c.timesteps >= 3][:3]
    for (name, defect), case in itertools.product(DEFECTS.items(), chosen):
        found = findings(Function(defect), case)
        failed = any(f.verdict == "FAIL" for f in found)
        score.count("defects outside the catalogue caught", failed)
        causes = [c.id for c in (diagnose(found, seconds=2).causes or in_effect(found).causes)] if failed else []
        if score.count("defects outside the catalogue given a cause", bool(causes)):
            score.misnamed.append(f"{name} in {case.id}: {', '.join(causes)}")


def merge(score: Score, other: Score) -> None:
    for what, (yes, of) in other.counts.items():
        score.counts[what][0] += yes
        score.counts[what][1] += of
    score.missed += other.missed
    score.misnamed += other.misnamed
    score.accused += other.accused
    score.largest = max(score.largest, other.largest)


def part(what: str, ids: frozenset[str], draws: int) -> Score:
    """One part of the score, over the grid's cases of those ids, in a process of its own."""
    score, cases = Score(), [case for case in grid() if case.id in ids]
    parts: dict[str, Callable[[], None]] = {
        "correct implementations": lambda: implementations(score, cases, quiet),
        "mistakes": lambda: mistakes(score, cases, quiet),
        "single weights": lambda: single_weights(score, cases, draws, quiet),
        "pairs of mistakes": lambda: pairs(score, cases, draws, quiet),
        "other defects": lambda: outside(score, cases, quiet),
    }
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts[what]()
    return score


def quiet(what: str) -> None:
    """Nobody looks on."""


LARGEST = 300_000
"""Cases of more inputs times units are left to `parity check`: every mistake in each would take hours."""


def run(cases: Sequence[Case] | None = None, step: Callable[[str], None] = quiet, draws: int = 100) -> Score:
    """The whole score over the grid, or over those cases of it, in as many processes as there are cores. draws: how
    many single weights of each kind, and how many pairs of mistakes."""
    start, score = time.monotonic(), Score()
    every = [case for case in (grid() if cases is None else cases) if case.size * case.layer.units <= LARGEST]
    floats = [case for case in every if case.layer.dtype == np.float32]
    kinds = {kind: [c for c in floats if c.layer.kind == kind] for kind in dict.fromkeys(c.layer.kind for c in floats)}
    work = [("pairs of mistakes", every), ("correct implementations", every)]
    work += [("mistakes", several) for several in kinds.values()]  # one kind whole: each mistake is to be seen in it
    work += [("single weights", every), ("other defects", every)]
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(part, what, frozenset(case.id for case in several), draws): what for what, several in work
        }
        for future in concurrent.futures.as_completed(futures):
            merge(score, future.result())
            step(futures[future])
    score.counts = defaultdict(no_count, sorted(score.counts.items()))
    score.seconds = time.monotonic() - start
    return score
