"""Candidates: whatever is to be judged, made to answer Cases. Each kind is a small wrapper Case -> Answer."""

import copy
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parity.cases import Case
from parity.errors import CandidateError
from rnn_scratch.layers import Recurrent

Array = NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """What came back for a Case.

    outputs: the output and, where the candidate gave them, the states after it; None where only `sequence` is known.
    sequence: the output of every step, (batch, timesteps, units) in the order of processing, where it was seen although
    the layer returns only the last one. layers: of a model, what its layers put out, by their names, where that was
    seen. sequences: likewise every step of those recurrent layers that return only the last one. partial: the states
    may be missing. notes: what to tell the user of the call.
    """

    outputs: tuple[Array, ...] | None
    sequence: Array | None = None
    layers: Mapping[str, Array] = field(default_factory=dict)
    sequences: Mapping[str, Array] = field(default_factory=dict)
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
    return StepFunction(value, names) if "state" in names else Function(value, names)


ASKABLE = ("layer", "mask", "initial_state")
Parameters = Mapping[str, inspect.Parameter]


def parameters(function: Callable[..., Any]) -> Parameters:
    """The named parameters that are ours to give: not those that a partial has bound."""
    try:
        every = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions tell nothing
        return {}
    if not every:
        raise CandidateError(
            "candidate: expected a function of x (and of layer, mask, initial_state those it needs); it takes nothing"
        )
    bound = function.keywords if isinstance(function, functools.partial) else {}
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: p for name, p in every.items() if p.kind not in unnamed and name not in bound}


class Call:
    """How a function is called: its inputs by their names where it has those, else first; the rest by name."""

    def __init__(self, function: Callable[..., Any], names: Parameters, *inputs: str) -> None:
        self.function = function
        keyword = [
            name for name in inputs if name in names and names[name].kind is not inspect.Parameter.POSITIONAL_ONLY
        ]
        self.inputs = inputs if len(keyword) == len(inputs) else ()
        rest = [name for name in names if name not in inputs] if self.inputs else list(names)[len(inputs) :]
        for name in rest:
            if names[name].default is inspect.Parameter.empty and name not in ASKABLE:
                raise CandidateError(
                    f"candidate: parameter {name!r} is none of {', '.join((*inputs, *ASKABLE))}; "
                    "rename it or give it a default"
                )
        self.takes = frozenset(rest) & frozenset(ASKABLE)
        self.optional = frozenset(name for name in self.takes if names[name].default is not inspect.Parameter.empty)

    def __call__(self, *values: Any, **given: Any) -> Any:
        """What it returns, or CandidateError for what it raises. None is not passed where there is a default for it."""
        given = {name: value for name, value in given.items() if value is not None or name not in self.optional}
        try:
            with np.errstate(all="ignore"):
                if self.inputs:
                    return self.function(**dict(zip(self.inputs, values, strict=True)), **given)
                return self.function(*values, **given)
        except (Exception, SystemExit) as error:
            raise CandidateError(f"candidate: raised {one_line(error)}") from error


class Function:
    """A function called by its parameters' names."""

    callable = True

    def __init__(self, function: Callable[..., Any], names: Parameters) -> None:
        self.call = Call(function, names, "x")
        self.takes = self.call.takes

    def ask(self, case: Case) -> Answer:
        x, given = case.x.copy(), self._arguments(case)
        before = copy.deepcopy(given)
        result = self.call(x, **given)
        several = isinstance(result, tuple) or (isinstance(result, list) and case.layer.return_state)
        arrays = tuple(as_output(output) for output in (result if several else (result,)))
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

    def __init__(self, function: Callable[..., Any], names: Parameters) -> None:
        self.call = Call(function, names, "x" if "x" in names else "x_t", "state")
        self.takes = frozenset({"mask", "initial_state"}) | (self.call.takes & frozenset({"layer"}))

    def ask(self, case: Case) -> Answer:
        x, _ = case.processed()
        given = {"layer": copy.deepcopy(case.layer)} if "layer" in self.takes else {}

        def step(t: int, state: Array) -> tuple[Array, Array]:
            result = self.call(x[:, t].copy(), state.copy(), **given)
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


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def as_output(value: Any) -> Array:
    """A copy as a NumPy array of a real floating dtype, or CandidateError."""
    if value is None:
        raise CandidateError("candidate: returned None; expected an array of outputs")
    try:
        array = np.array(value.detach().cpu() if hasattr(value, "detach") else value)  # torch's, with its gradient
    except Exception as error:
        raise CandidateError(
            f"candidate: returned {type(value).__name__}, which is no array: {one_line(error)}"
        ) from error
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise CandidateError(f"candidate: returned {array.dtype}; expected an array of floating-point numbers")
    return array


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, arrays or layers."""
    if isinstance(b, Recurrent):
        cell, other = getattr(a, "cell", None), b.cell
        return cell is not None and all(same(getattr(cell, name), array) for name, array in other.weights.items())
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
