"""Candidates: whatever is to be judged, made to answer Cases. Each kind is a small wrapper Case -> Answer."""

import copy
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parity.cases.case import Case
from parity.errors import CandidateError
from parity.terminal import briefly
from rnn_scratch import Sequential
from rnn_scratch.layers import Layer, Recurrent
from rnn_scratch.loop import Step, loop

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
    """takes: of "layer", "weights" (those of a layer whose settings stay), "mask", "initial_state", those it can be
    asked with. callable: it can be asked other questions than the user's own. fixed: the batch and the timesteps that
    it was built for, None where either is open."""

    takes: frozenset[str]
    callable: bool
    fixed: tuple[int | None, int | None]

    def ask(self, case: Case) -> Answer: ...

    def converse(self, case: Case) -> list[Answer]:
        """What it answers to each of the calls of a case, its state kept between them; CandidateError if it cannot."""
        ...


ANY: tuple[int | None, int | None] = (None, None)

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
            raise CandidateError(f"candidate: raised {briefly(error)}{place(error)}") from error


def place(error: BaseException) -> str:
    """Where in the candidate's own file it was: deeper than that are its libraries."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    frames = [frame for frame in frames if "site-packages" not in frame.filename]
    lines = [frame.lineno for frame in frames if frame.filename == frames[0].filename]
    return f" ({os.path.relpath(frames[0].filename)}, line {lines[-1]})" if lines else ""


class Function:
    """A function called by its parameters' names."""

    fixed = ANY
    callable = True

    def __init__(self, function: Callable[..., Any], names: Parameters) -> None:
        self.call = Call(function, names, "x")
        self.takes = self.call.takes

    def ask(self, case: Case) -> Answer:
        return self._ask(case, self._arguments(case))

    def converse(self, case: Case) -> list[Answer]:
        """One layer for all calls, which may keep its state; without `layer`, the returned states handed on."""
        if "layer" not in self.takes and not ("initial_state" in self.takes and _returns_state(case.layer)):
            raise CandidateError(
                "candidate: keeping state between calls needs a parameter `layer`, or `initial_state` and the states "
                "among its outputs"
            )
        answers: list[Answer] = []
        given = self._arguments(case)
        for n in range(case.calls):
            call = case.call(n)
            if answers and "layer" not in self.takes:
                states = (answers[-1].outputs or ())[-len(case.layer.state_units) :]
                call = replace(call, initial_state=states)
            elif answers and not any(part.state is not None for part in given["layer"].every(Recurrent)):
                raise CandidateError("candidate: it keeps no state in its `layer` (layer.state)")
            given |= {name: value for name, value in self._arguments(call).items() if name != "layer"}
            answers.append(self._ask(call, given))
        return answers

    def _ask(self, case: Case, given: dict[str, Any]) -> Answer:
        x = case.x.copy()
        before = copy.deepcopy(given)
        result = self.call(x, **given)
        layers: dict[str, Array] = {}
        sequences: dict[str, Array] = {}
        if isinstance(result, Mapping):
            layers, sequences, result = by_layer(case, result)
        several = isinstance(result, tuple) or (isinstance(result, list) and len(case.output_shapes) > 1)
        arrays = tuple(as_output(output) for output in (result if several else (result,)))
        changed = ["x"] if not same(x, case.x) else []
        changed += [name for name in given if not same(given[name], before[name])]
        notes = tuple(f"the candidate changed its {name} in place; it was given a copy" for name in changed)
        return Answer(arrays, layers=layers, sequences=sequences, notes=notes)

    def _arguments(self, case: Case) -> dict[str, Any]:
        states = case.initial_state
        state = states[0] if states is not None and len(states) == 1 else states
        everything = {"layer": case.layer, "mask": case.mask, "initial_state": state}
        return {name: copy.deepcopy(everything[name]) for name in ASKABLE if name in self.takes}


def by_layer(case: Case, result: Mapping[Any, Any]) -> tuple[dict[str, Array], dict[str, Array], Any]:
    """A dict of layer name to output -> those before the last; the whole sequences among them, of layers that return
    only their last output; the last. CandidateError for names that are none of the model's."""
    layer = case.layer
    parts = layer.parts if isinstance(layer, Sequential) else {layer.name: layer}
    last = list(parts)[-1]
    unknown = [str(name) for name in result if name not in parts]
    if unknown:
        raise CandidateError(f"candidate: {', '.join(unknown)}: no such layer; the model has {', '.join(parts)}")
    if last not in result:
        raise CandidateError(f"candidate: expected the output among its outputs by layer, as {last!r}")
    single = [(layer.name, layer, case.sequence_shape, case.output_shapes[0])]
    layers, sequences = {}, {}
    for name, part, whole, shape in case.part_shapes() if isinstance(layer, Sequential) else single:
        if name not in result or (name == last and isinstance(result[name], tuple)):
            continue
        layers[name] = as_output(result[name])
        if isinstance(part, Recurrent) and layers[name].shape == whole != shape:
            sequences[name] = layers[name]
            layers[name] = layers[name][:, -1]
    return layers, sequences, layers.pop(last, result[last])


def _returns_state(layer: Layer) -> bool:
    return bool(layer.state_units) and len(layer.output_shapes((1, 1, 1))) > len(layer.state_units)


States = tuple[Array, ...]


class StepFunction:
    """`step(x_t, state)`, one time step: x_t (batch, input_dim), state (batch, units), a tuple of them where the cell
    has several -> h_t and the new state, or the new state alone. The loop, with its mask, direction and first state, is
    ours."""

    fixed = ANY
    callable = True
    takes: frozenset[str]

    def __init__(self, function: Callable[..., Any], names: Parameters) -> None:
        self.call = Call(function, names, "x" if "x" in names else "x_t", "state")
        self.takes = frozenset({"mask", "initial_state"}) | (self.call.takes & frozenset({"layer"}))

    def ask(self, case: Case) -> Answer:
        if not isinstance(case.layer, Recurrent):
            raise CandidateError(f"candidate: a step function fits one recurrent layer; received {case.layer.kind}")
        x, _ = case.processed()
        given = {"layer": copy.deepcopy(case.layer)} if "layer" in self.takes else {}

        def step(t: int, states: States) -> tuple[Array, States]:
            state = states if len(states) > 1 else states[0]
            h, new = step_result(self.call(x[:, t].copy(), copy.deepcopy(state), **given), len(states))
            for name, array in zip(("h_t", *["state"] * len(new)), (h, *new), strict=True):
                if array.shape != states[0].shape:
                    raise CandidateError(
                        f"candidate: {name}: expected shape {states[0].shape} (batch, units); received {array.shape}"
                    )
            return h, new

        return Answer(None, sequence=walk(case, step, case.timesteps))

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a step function keeps no state of its own between calls")


def step_result(result: Any, states: int) -> tuple[Array, States]:
    """h_t and the new states: of (h_t, state), or of the state alone, whose first array is h_t."""
    parts = tuple(result) if isinstance(result, tuple | list) else (result,)
    if len(parts) == 2 and (states == 1 or isinstance(parts[1], tuple | list)):
        h, new = parts
    else:
        h, new = parts[0], parts
    new = tuple(as_output(array) for array in (new if isinstance(new, tuple | list) else (new,)))
    if len(new) != states:
        raise CandidateError(f"candidate: state: expected {states} arrays; received {len(new)}")
    return as_output(h), new


def walk(case: Case, step: Step, steps: int) -> Array:
    """The first outputs of a recurrent layer of which only `step(t, states) -> (h_t, next states)` is known, t counted
    in the order of processing: (batch, steps, units). The loop, its mask and its first states are the layer's own."""
    layer = case.layer
    assert isinstance(layer, Recurrent)
    states = layer.initial_states(case.batch, case.initial_state)
    y, _ = loop(step, states, steps, layer.mask_rule(case.mask))
    return np.asarray(y)


class Outputs:
    """Outputs that were computed elsewhere, for the user's own inputs; or, by the ids of cases, for those."""

    callable = False
    fixed = ANY
    takes = frozenset({"mask", "initial_state"})

    def __init__(self, value: Any) -> None:
        self.known = {name: several(own) for name, own in value.items()} if isinstance(value, Mapping) else {}
        self.outputs = () if isinstance(value, Mapping) else several(value)

    @property
    def single(self) -> bool:
        return all(len(outputs) == 1 for outputs in (self.known.values() if self.known else (self.outputs,)))

    def ask(self, case: Case) -> Answer:
        if self.known and case.id not in self.known:
            raise CandidateError(f"--outputs: expected those of {case.id}; there are some of {', '.join(self.known)}")
        return Answer(self.known.get(case.id, self.outputs), partial=True)

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("outputs of one call")


def several(value: Any) -> tuple[Array, ...]:
    return tuple(map(as_output, value)) if isinstance(value, tuple) else (as_output(value),)


def scratch(x: Array, layer: Any, mask: Any = None, initial_state: Any = None) -> Any:
    """The built-in candidate: rnn_scratch itself, a model with what each of its layers puts out."""
    if isinstance(layer, Sequential) and mask is initial_state is None:
        return layer.outputs(x, sequences=True)
    return layer(x, mask=mask, initial_state=initial_state)


def as_output(value: Any) -> Array:
    """A copy as a NumPy array of a real floating dtype, or CandidateError."""
    if value is None:
        raise CandidateError("candidate: returned None; expected an array of outputs")
    try:
        array = np.array(on_host(value) if hasattr(value, "detach") else value)
    except Exception as error:
        raise CandidateError(
            f"candidate: returned {type(value).__name__}, which is no array: {briefly(error)}"
        ) from error
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise CandidateError(f"candidate: returned {array.dtype}; expected an array of floating-point numbers")
    return array


def on_host(tensor: Any) -> Any:
    """A torch tensor's array, without its gradient; NumPy itself knows no bfloat16."""
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, arrays or layers."""
    if isinstance(b, Layer):
        return isinstance(a, Layer) and all(same(a.weights.get(name), array) for name, array in b.weights.items())
    if isinstance(a, tuple):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    return b is None or (a is not None and np.array_equal(np.nan_to_num(a), np.nan_to_num(b)))
