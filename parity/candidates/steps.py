"""Step functions as candidates: one time step of a layer or of a whole model, in a loop of ours."""

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parity.candidates.answer import Answer, as_output
from parity.candidates.functions import Call, Parameters, States, walk
from parity.cases.case import ANY, Case
from parity.errors import CandidateError
from rnn_scratch import RNN, Bidirectional
from rnn_scratch.base import Array, Layer
from rnn_scratch.layers import Recurrent
from rnn_scratch.models import Model

_INPUTS = ("x", "x_t", "xt")
_STATE = re.compile(r"(states?|hidden|cell|hx|cx|h|c)(_?(\d+|prev|t|in|state))?")

Indices = tuple[int, ...]


def state_parameters(names: Parameters) -> tuple[str, ...]:
    """Those of a function's parameters that are states by their names; none where it takes whole sequences: there they
    have defaults."""
    found = tuple(name for name in names if name not in _INPUTS and _STATE.fullmatch(name))
    required = any(names[name].default is inspect.Parameter.empty for name in found)
    return found if len(names) > 1 and (required or "state" in found) else ()


class StepFunction:
    """A function `step(x_t, state[, layer])`: x_t (batch, input_dim), state (batch, units), a tuple of them where the
    cell has several, or each by a parameter of its own, `step(x_t, h, c)` -> h_t and the new states, or the new states
    alone. Of a model with several recurrent layers each state is a tuple over the layers. The loop, with its mask,
    direction and first state, is ours."""

    fixed = ANY
    callable = True

    def __init__(self, function: Callable[..., Any], names: Parameters, states: tuple[str, ...]) -> None:
        self.input = next((name for name in names if name in _INPUTS), next(n for n in names if n not in states))
        self.states = states
        self.call = Call(function, names, (self.input, *states))
        self.takes = frozenset({"mask", "initial_state"}) | (self.call.takes & frozenset({"layer"}))

    def ask(self, case: Case) -> Answer:
        if isinstance(case.layer, Recurrent):
            return Answer(None, sequence=walk(case, self._stepping(case, case.processed()[0]), case.timesteps))
        expect_steps(case)
        x = case.x[:, ::-1] if case.layer.every(Recurrent)[0].go_backwards else case.x
        step, states, outputs = self._stepping(case, x), case.start, []
        for t in range(case.timesteps):
            y, states = step(t, states)
            outputs.append(y)
        whole = len(case.output_shapes[0]) > 2
        return Answer((np.stack(outputs, axis=1) if whole else outputs[-1],), partial=True)

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a step function keeps no state of its own between calls")

    def _stepping(self, case: Case, x: Array) -> Callable[[int, States], tuple[Array, States]]:
        """One step of the candidate. x: in the order of processing."""
        given = {"layer": copy.deepcopy(case.layer)} if "layer" in self.takes else {}
        layers = _layers(case.layer)
        places = arranged(self.states, layers)
        order = [n for place in places.values() for n in flat(place)]
        last, shape = layers[-1][0], (len(x), case.output_shapes[0][-1])

        def step(t: int, states: States) -> tuple[Array, States]:
            inputs = {name: _filled(place, states) for name, place in places.items()}
            result = self.call({self.input: x[:, t].copy(), **inputs}, given)
            h, new = _stepped(result, states, order)
            y = new[last] if h is None else h
            _expect_like("h_t", y, shape)
            return y, new

        return step


def expect_steps(case: Case) -> None:
    """CandidateError for a model that is no chain of steps: one that goes both ways, or has masks."""
    layer = case.layer
    recurrent = layer.every(Recurrent)
    both_ways = layer.every(Bidirectional) or any(part.go_backwards for part in recurrent[1:])
    masked = any(part.kind == "masking" or getattr(part, "mask_zero", False) for _, part in layer.walk())
    fits = isinstance(layer, Model | RNN) and recurrent and not both_ways and not masked
    if not fits or case.mask is not None:
        raise CandidateError(
            f"candidate: a step function fits recurrent layers that go one way, without masks; received {layer.kind}: "
            "give a function of the whole sequence"
        )


def _layers(layer: Layer) -> list[Indices]:
    """The numbers of each recurrent layer's states, among all."""
    found, start = [], 0
    for part in layer.every(Recurrent):
        found.append(tuple(range(start, start + len(part.state_units))))
        start += len(part.state_units)
    return found


# --- which states by which parameter ---


def arranged(names: Sequence[str], layers: Sequence[Indices]) -> Mapping[str, Any]:
    """What each parameter gets: the number of a state, or a tuple of such. One alone gets all, layer by layer; of
    several those called c or cell get the second state of each layer, the others the first."""
    if len(names) == 1:
        return {names[0]: _alone([_alone(layer) for layer in layers])}
    found = _first_and_second(names, layers)
    states = sum(map(len, layers))
    each_once = sorted(flat(tuple(found.values()))) == list(range(states))
    if set(found) != set(names) or not each_once:
        raise CandidateError(f"candidate: expected parameters for {states} states; received {', '.join(names)}")
    return {name: found[name] for name in names}


def _first_and_second(names: Sequence[str], layers: Sequence[Indices]) -> dict[str, Any]:
    """The first state of each layer, and the second where there is one, by the parameters for them."""
    second = [name for name in names if name.startswith("c")]
    first = [name for name in names if name not in second]
    seconds = [layer[1] for layer in layers if len(layer) > 1]
    return _given(first, [layer[0] for layer in layers]) | _given(second, seconds)


def _given(names: Sequence[str], states: Sequence[int]) -> dict[str, Any]:
    """One parameter gets them all, as many as there are states one each."""
    if len(names) == 1 and states:
        return {names[0]: _alone(states)}
    return dict(zip(names, states, strict=False))


def _alone(values: Sequence[Any]) -> Any:
    """The only one, or a tuple of them."""
    return values[0] if len(values) == 1 else tuple(values)


def flat(values: Any) -> Iterator[Any]:
    """What is in tuples and lists, however they are nested."""
    if isinstance(values, tuple | list):
        for value in values:
            yield from flat(value)
    else:
        yield values


def _filled(place: Any, states: States) -> Any:
    if isinstance(place, tuple):
        return tuple(_filled(part, states) for part in place)
    return states[place].copy()


# --- what came back ---


def _stepped(result: Any, before: States, order: Sequence[int]) -> tuple[Array | None, States]:
    """The output and the new states of what a step returned: (h_t, states), or the states alone, among which h_t is
    then. CandidateError where they are not like those before. order: that of the states in the parameters."""
    arrays = [as_output(array) for array in flat(result)]
    new = arrays[-len(before) :]
    if len(arrays) not in (len(before), len(before) + 1):
        raise CandidateError(f"candidate: state: expected {len(before)} arrays; received {len(arrays)}")
    states = tuple(array for _, array in sorted(zip(order, new, strict=True), key=lambda pair: pair[0]))
    for array, old in zip(states, before, strict=True):
        _expect_like("state", array, old.shape)
    return (arrays[0] if len(arrays) > len(before) else None), states


def _expect_like(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise CandidateError(f"candidate: {name}: expected shape {shape} (batch, units); received {array.shape}")
