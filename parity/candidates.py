"""Candidates: whatever is to be judged, made to answer Cases. Each kind is a small wrapper Case -> Answer."""

import copy
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parity.cases import Case
from parity.errors import CandidateError

Array = NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """What came back for a Case.

    outputs: the output and, where the candidate gave them, the states after it; None where only `sequence` is known.
    sequence: the output of every step, (batch, timesteps, units) in the order of processing, where it was seen although
    the layer returns only the last one. partial: the states may be missing. notes: what to tell the user of the call.
    """

    outputs: tuple[Array, ...] | None
    sequence: Array | None = None
    partial: bool = False
    notes: tuple[str, ...] = ()


class Candidate(Protocol):
    """takes: of "layer", "mask", "initial_state", those it can be asked with. callable: it can be asked other questions
    than the user's own."""

    takes: frozenset[str]
    callable: bool

    def ask(self, case: Case) -> Answer: ...


def as_candidate(value: Any) -> Candidate:
    """A function `f(x[, layer][, mask][, initial_state])`, a step function `step(x_t, state[, layer])`, or outputs."""
    if not callable(value):
        return Outputs(value)
    names = parameters(value)
    if "state" in names:
        return StepFunction(value, names)
    return Function(value, names)


ASKABLE = ("layer", "mask", "initial_state")


def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters it can be called with; CandidateError for one that is required and unknown to us."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ("x",)
    bound = getattr(function, "keywords", {}) if isinstance(function, functools.partial) else {}
    named = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    named = [p for p in named if p.name not in bound]  # a layer bound by the user is not ours to replace
    given = 2 if "state" in signature.parameters else 1
    for parameter in named[given:]:
        if parameter.default is parameter.empty and parameter.name not in ASKABLE:
            raise CandidateError(
                f"candidate: parameter {parameter.name!r} is none of x, {', '.join(ASKABLE)}; "
                "rename it or give it a default"
            )
    if not signature.parameters:
        raise CandidateError(
            "candidate: expected a function of x (and of layer, mask, initial_state those it needs); it takes nothing"
        )
    return tuple(p.name for p in named)


class Function:
    """A function called by its parameters' names: the first is x."""

    callable = True

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.function = function
        self.takes = frozenset(names[1:]) & frozenset(ASKABLE)

    def ask(self, case: Case) -> Answer:
        x, given = case.x.copy(), self._arguments(case)
        before = copy.deepcopy(given)
        result = call(self.function, x, **given)
        outputs = result if isinstance(result, tuple | list) and case.layer.return_state else (result,)
        arrays = tuple(as_output(output) for output in outputs)
        changed = ["x"] if not same(x, case.x) else []
        changed += [name for name in given if not same(given[name], before[name])]
        return Answer(
            arrays, notes=tuple(f"the candidate changed its {name} in place; it was given a copy" for name in changed)
        )

    def _arguments(self, case: Case) -> dict[str, Any]:
        states = case.initial_state
        state = states[0] if states is not None and len(states) == 1 else states
        everything = {"layer": case.layer, "mask": case.mask, "initial_state": state}
        return {name: copy.deepcopy(everything[name]) for name in ASKABLE if name in self.takes}


class StepFunction:
    """`step(x_t, state)`, one time step: x_t (batch, input_dim), state (batch, units) -> h_t, or (h_t, state). The
    loop, with its mask, direction and first state, is ours."""

    callable = True
    takes: frozenset[str]

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.function = function
        self.takes = frozenset({"mask", "initial_state"}) | (frozenset(names[2:]) & frozenset({"layer"}))

    def ask(self, case: Case) -> Answer:
        x, _ = case.processed()
        given = {"layer": copy.deepcopy(case.layer)} if "layer" in self.takes else {}

        def step(t: int, state: Array) -> tuple[Array, Array]:
            result = call(self.function, x[:, t].copy(), state.copy(), **given)
            h, new = result if isinstance(result, tuple) and len(result) == 2 else (result, result)
            arrays = as_output(h), as_output(new)
            for name, array in zip(("h_t", "state"), arrays, strict=True):
                if array.shape != state.shape:
                    raise CandidateError(
                        f"candidate: {name}: expected shape {state.shape} (batch, units); received {array.shape}"
                    )
            return arrays

        return Answer(None, sequence=walk(case, step, case.timesteps))


def walk(case: Case, step: Callable[[int, Array], tuple[Array, Array]], steps: int) -> Array:
    """The first outputs of a layer of which only `step(t, state) -> (h_t, next state)` is known, t counted in the order
    of processing: (batch, steps, units). The loop, its mask and its first state are ours."""
    _, mask = case.processed()
    state = case.layer.initial_states(case.batch, case.initial_state)[0]
    last, outputs = np.zeros_like(state), []
    for t in range(steps):
        h, new = step(t, state)
        keep = np.ones((case.batch, 1), bool) if mask is None else mask[:, t, None]
        last = np.where(keep, h, 0 if case.layer.zero_output_for_mask else last)
        state = np.where(keep, new, state)
        outputs.append(last)
    return np.stack(outputs, axis=1)


class Outputs:
    """Outputs that were computed elsewhere, for the user's own inputs and no others."""

    callable = False
    takes = frozenset({"mask", "initial_state"})

    def __init__(self, value: Any) -> None:
        self.outputs = tuple(map(as_output, value)) if isinstance(value, tuple) else (as_output(value),)

    def ask(self, case: Case) -> Answer:
        return Answer(self.outputs, partial=True)


def scratch(x: Array, layer: Any, mask: Any = None, initial_state: Any = None) -> Any:
    """The built-in candidate: rnn_scratch itself."""
    return layer(x, mask=mask, initial_state=initial_state)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)
    except (Exception, SystemExit) as error:
        raise CandidateError(f"candidate: raised {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def as_output(value: Any) -> Array:
    """A copy as a NumPy array of a real floating dtype, or CandidateError."""
    if value is None:
        raise CandidateError("candidate: returned None; expected an array of outputs")
    try:
        array = np.array(value)
    except Exception as error:
        raise CandidateError(
            f"candidate: returned {type(value).__name__}, which is no array: {one_line(error)}"
        ) from error
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise CandidateError(f"candidate: returned {array.dtype}; expected an array of floating-point numbers")
    return array


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, arrays or layers."""
    if hasattr(a, "cell"):
        return all(same(x, y) for x, y in zip(a.cell.weights.values(), b.cell.weights.values(), strict=True))
    if isinstance(a, tuple):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    return a is None or bool(np.array_equal(a, b, equal_nan=True))


def load(spec: str) -> Any:
    """`file.py:name` or `package.module:name` -> the object of that name. CandidateError says what is missing."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise CandidateError(f"--candidate: expected FILE.py:NAME or MODULE:NAME; received {spec!r}")
    try:
        module = _module(place)
    except CandidateError:
        raise
    except (Exception, SystemExit) as error:
        raise CandidateError(f"--candidate: importing {place} raised {one_line(error)}") from error
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [n for n, v in vars(module).items() if isinstance(v, FunctionType)])
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise CandidateError(f"--candidate: {place} has no {name!r}{hint}")
    found = getattr(module, name)
    if not callable(found):
        raise CandidateError(f"--candidate: expected a function; {spec} is a {type(found).__name__}")
    return found


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        sys.path.insert(0, "")
        return importlib.import_module(place)
    if not path.is_file():
        raise CandidateError(f"--candidate: no file {place}")
    name = f"parity_candidate_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[name] = module  # dataclasses and pickle look a module up by its name
    spec.loader.exec_module(module)
    return module
