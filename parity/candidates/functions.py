"""Python functions as candidates, of whole sequences; how any function is called."""

import copy
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity.candidates.answer import Answer, Shown, as_output, as_outputs, shown
from parity.cases.case import ANY, Case
from parity.errors import CandidateError
from parity.terminal import briefly
from rnn_scratch import Sequential
from rnn_scratch.base import Array, Layer
from rnn_scratch.layers import Recurrent
from rnn_scratch.loop import Step, loop

ASKABLE = ("layer", "mask", "initial_state")
"""What a function may have a parameter for, beside its inputs."""

Parameters = Mapping[str, inspect.Parameter]
States = tuple[Array, ...]


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
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name: parameter for name, parameter in every.items() if parameter.kind not in unnamed}
    for name in function.keywords if isinstance(function, functools.partial) else ():
        named.pop(name, None)
    return named


class Call:
    """How a function is called: its inputs by their names where it has parameters of those, else first; the rest by
    name."""

    def __init__(self, function: Callable[..., Any], names: Parameters, inputs: tuple[str, ...]) -> None:
        self.function = function
        self.by_name = all(_nameable(names.get(name)) for name in inputs)
        taken = inputs if self.by_name else tuple(names)[: len(inputs)]
        rest = [name for name in names if name not in taken]
        required = [name for name in rest if names[name].default is inspect.Parameter.empty]
        _expect_askable(required, inputs)
        self.takes = frozenset(rest) & frozenset(ASKABLE)
        self.optional = self.takes - set(required)

    def __call__(self, inputs: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        """What it returns, or CandidateError for what it raises. given: the rest; None is not passed where there is a
        default for it."""
        named = {name: value for name, value in given.items() if value is not None or name not in self.optional}
        first = () if self.by_name else tuple(inputs.values())
        if self.by_name:
            named = {**inputs, **named}
        try:
            with np.errstate(all="ignore"):
                return self.function(*first, **named)
        except (Exception, SystemExit) as error:
            raise CandidateError(f"candidate: raised {briefly(error)}{_place(error)}") from error


def _expect_askable(required: Iterable[str], inputs: tuple[str, ...]) -> None:
    for name in required:
        if name not in ASKABLE:
            known = ", ".join((*inputs, *ASKABLE))
            raise CandidateError(f"candidate: parameter {name!r} is none of {known}; rename it or give it a default")


def _nameable(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY


def _place(error: BaseException) -> str:
    """Where in the candidate's own file it was: deeper than that are its libraries."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    frames = [frame for frame in frames if "site-packages" not in frame.filename]
    if not frames:
        return ""
    own = frames[0].filename
    lines = [frame.lineno for frame in frames if frame.filename == own]
    return f" ({os.path.relpath(own)}, line {lines[-1]})"


# --- of whole sequences ---


class Function:
    """A function `f(x[, layer][, mask][, initial_state])`, called by its parameters' names."""

    fixed = ANY
    callable = True

    def __init__(self, function: Callable[..., Any], names: Parameters) -> None:
        self.call = Call(function, names, Layer.input_names)
        self.takes = self.call.takes
        self.by_row = False
        """Whether it is a function of one sequence, called with one row after another, without the batch axis."""

    def of_one_sequence(self) -> "Function":
        """The same function, called so."""
        twin = copy.copy(self)
        twin.by_row = True
        return twin

    def ask(self, case: Case) -> Answer:
        return self._ask(case, self._arguments(case))

    def converse(self, case: Case) -> list[Answer]:
        if "layer" in self.takes and not self.by_row:
            return self._with_one_layer(case)
        if "initial_state" in self.takes and _returns_state(case.layer):
            return self._handing_on(case)
        raise CandidateError(
            "candidate: keeping state between calls needs a parameter `layer`, or `initial_state` and the states "
            "among its outputs"
        )

    def _with_one_layer(self, case: Case) -> list[Answer]:
        """All calls with one layer, which is to keep its state."""
        answers: list[Answer] = []
        given = self._arguments(case)
        layer: Layer = given["layer"]
        for n in range(case.calls):
            if answers and all(part.state is None for part in layer.every(Recurrent)):
                raise CandidateError("candidate: it keeps no state in its `layer` (layer.state)")
            call = case.call(n)
            answers.append(self._ask(call, {**self._arguments(call), "layer": layer}))
        return answers

    def _handing_on(self, case: Case) -> list[Answer]:
        """Each call with the states that the one before returned."""
        answers: list[Answer] = []
        for n in range(case.calls):
            call = case.call(n)
            if answers:
                outputs = answers[-1].outputs or ()
                call = replace(call, initial_state=outputs[-len(case.layer.state_units) :])
            answers.append(self._ask(call, self._arguments(call)))
        return answers

    def _ask(self, case: Case, given: Mapping[str, Any]) -> Answer:
        inputs = {name: x.copy() for name, x in case.inputs.items()}
        before = {**case.inputs, **copy.deepcopy(dict(given))}
        result = self._row_by_row(case, inputs, given) if self.by_row else self.call(inputs, given)
        named = shown(case, result) if isinstance(result, Mapping) else Shown(result, {}, {})
        notes = tuple(_changes({**inputs, **given}, before))
        return Answer(_outputs(case, named.last), layers=named.layers, sequences=named.sequences, notes=notes)

    def _row_by_row(self, case: Case, inputs: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        rows = [self.call(_row(inputs, n), _row(given, n)) for n in range(case.batch)]
        try:
            return _stacked(rows, len(case.output_shapes) > 1)
        except (KeyError, IndexError, ValueError) as error:
            raise CandidateError(f"candidate: what it returned for single sequences is not alike: {error}") from None

    def _arguments(self, case: Case) -> dict[str, Any]:
        states = case.initial_state
        state = states[0] if states is not None and len(states) == 1 else states
        everything = {"layer": case.layer, "mask": case.mask, "initial_state": state}
        return {name: copy.deepcopy(everything[name]) for name in ASKABLE if name in self.takes}


def _row(given: Mapping[str, Any], n: int) -> dict[str, Any]:
    """One row of every array."""
    return {name: _row_of(value, n) for name, value in given.items()}


def _row_of(value: Any, n: int) -> Any:
    if isinstance(value, tuple):
        return tuple(array[n] for array in value)
    return value[n] if isinstance(value, np.ndarray) else value


def _stacked(rows: list[Any], several: bool) -> Any:
    """What was returned for each row as it would have been for all of them. several: whether a list is of arrays."""
    first = rows[0]
    if isinstance(first, Mapping):
        return {name: _stacked([row[name] for row in rows], several) for name in first}
    if isinstance(first, tuple) or (several and isinstance(first, list)):
        return tuple(_stacked([row[n] for row in rows], False) for n in range(len(first)))
    return np.stack([as_output(row) for row in rows])


def _changes(after: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    for name, value in after.items():
        if not same(value, before[name]):
            yield f"the candidate changed its {name} in place; it was given a copy"


def _outputs(case: Case, result: Any) -> tuple[Array, ...]:
    # a list is one array, unless there are several to return
    if isinstance(result, list) and len(case.output_shapes) > 1:
        return as_outputs(tuple(result))
    return as_outputs(result)


def _returns_state(layer: Layer) -> bool:
    return bool(layer.state_units) and len(layer.output_shapes((1, 1, 1))) > len(layer.state_units)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, arrays or layers."""
    if isinstance(b, Layer):
        return isinstance(a, Layer) and all(same(a.weights.get(name), array) for name, array in b.weights.items())
    if isinstance(a, tuple):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    return b is None or (a is not None and np.array_equal(np.nan_to_num(a), np.nan_to_num(b)))


def scratch(x: Array, layer: Any, mask: Any = None, initial_state: Any = None) -> Any:
    """The built-in candidate: rnn_scratch itself, a model with what each of its layers puts out."""
    if isinstance(layer, Sequential) and mask is initial_state is None:
        return layer.outputs(x, sequences=True)
    return layer(x, mask=mask, initial_state=initial_state)


# --- of one layer's steps ---


def walk(case: Case, step: Step, steps: int) -> Array:
    """The first outputs of a recurrent layer of which only `step(t, states) -> (h_t, next states)` is known, t counted
    in the order of processing: (batch, steps, units). The loop, its mask and its first states are the layer's own."""
    assert isinstance(case.layer, Recurrent)
    y, _ = loop(step, case.start, steps, case.layer.mask_rule(case.mask))
    return np.asarray(y)
