"""Which input of a graph is x, which of its outputs is the state: by name where there are names, else by shape where
that leaves no choice."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.candidates.functions import Answer, Array
from parity.cases.case import Case
from parity.errors import CandidateError
from rnn_scratch import Sequential

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Slot:
    """An input or output of a graph; shape None where that is open."""

    name: str
    shape: Shape | None
    dtype: np.dtype[np.generic]

    def __str__(self) -> str:
        shape = "" if self.shape is None else f" ({', '.join('?' if n is None else str(n) for n in self.shape)})"
        return f"{self.name}{shape}"

    def fits(self, array: Array) -> bool:
        return self.shape is None or (
            len(self.shape) == array.ndim and all(n in (None, m) for n, m in zip(self.shape, array.shape, strict=True))
        )


NAMES = {
    "x": r"x|inputs?|input_?1|inputs?_?0|x_?0|args_?0|keras_tensor(_\d+)?|input_layer(_\d+)?|serving_default_.*",
    "mask": r".*mask.*",
    "h": r"h|h_?([0nt]|init)|(initial_?)?h|hx|y_h|hn|state_?h|h_?state|(initial_?)?(hidden|hidden_?state)|hidden",
    "c": r"c|c_?([0nt]|init)|(initial_?)?c|cx|y_c|cn|state_?c|c_?state|(initial_?)?cell(_?state)?",
    "y": r"y|y_?[0]|outputs?|outputs?_?0|sequence|identity|statefulpartitionedcall",
    "state": r"(initial_?)?states?(_?\d+)?|states?_?(in|out|n)",
}


def meaning(name: str) -> str | None:
    """Which of NAMES a name says; "Identity:0" and "rnn/x" are "identity" and "x"."""
    bare = re.sub(r":\d+$", "", name).rpartition("/")[2].lower()
    return next((what for what, pattern in NAMES.items() if re.fullmatch(pattern, bare)), None)


def numbered(names: Sequence[str]) -> bool:
    """Whether they are one name and its numbers, in their order: output_0, output_1; Identity, Identity_1."""
    split = [re.fullmatch(r"(.*?)_?(\d*)(?::\d+)?", name) for name in names]
    stems = {found[1] for found in split if found}
    numbers = [int(found[2] or 0) for found in split if found]
    return len(stems) == 1 and len(numbers) == len(names) and numbers == sorted(set(numbers))


# --- inputs ---


def input_roles(slots: Sequence[Slot]) -> dict[str, str]:
    """Input name -> "x", "mask" or "state0", "state1"; CandidateError, with the list, where that is unclear."""
    said = {slot.name: meaning(slot.name) for slot in slots}
    roles = {name: "mask" for name, what in said.items() if what == "mask"}
    states = [name for what in ("h", "state", "c") for name in said if said[name] == what]
    if len({said[name] for name in states}) == len(states) or numbered(states):
        roles |= {name: f"state{n}" for n, name in enumerate(states)}
    rest = [slot for slot in slots if slot.name not in roles]
    named = [slot for slot in rest if said[slot.name] == "x"]
    sequences = [slot for slot in rest if slot.shape is None or len(slot.shape) == 3]
    for only in (rest, named, sequences):
        if len(only) == 1:
            roles[only[0].name] = "x"
            rest.remove(only[0])
            break
    masks = [slot for slot in rest if slot.dtype == bool and (slot.shape is None or len(slot.shape) == 2)]
    if len(masks) == 1 and "mask" not in roles.values():
        roles[masks[0].name] = "mask"
        rest.remove(masks[0])
    if len(rest) == 1 and rest[0].shape is not None and len(rest[0].shape) == 2 and not states:
        roles[rest.pop().name] = "state0"
    if rest or "x" not in roles.values():
        raise CandidateError(
            f"candidate: which of its inputs is which is unclear: expected x, and of mask and initial_state those it "
            f"needs; received {listed(slots)}"
        )
    return roles


def feeds(case: Case, slots: Sequence[Slot], roles: Mapping[str, str]) -> dict[str, Array]:
    """What is fed to each input, in its dtype; states of zeros and a mask of ones where the case has none."""
    given = arrays_of(case)
    fed = {}
    for slot in slots:
        array = given.get(roles[slot.name])
        if array is None:
            known = ", ".join(f"{name} {array.shape}" for name, array in given.items())
            raise CandidateError(f"candidate: expected inputs for {known}; received {listed(slots)}")
        if roles[slot.name].startswith("state") and slot.shape is not None and len(slot.shape) == 3:
            array = array[None]  # one layer, one direction
        if not slot.fits(array):
            raise CandidateError(f"candidate: its input {slot} cannot take {roles[slot.name]} of shape {array.shape}")
        fed[slot.name] = array.astype(slot.dtype)
    return fed


def arrays_of(case: Case) -> dict[str, Array]:
    """All that a graph or program may take, what a case does not have filled in: x, mask, state0, state1, ..."""
    return {**case.inputs, "mask": case.every_mask} | {f"state{n}": state for n, state in enumerate(case.start)}


def listed(slots: Sequence[Slot]) -> str:
    return ", ".join(map(str, slots))


# --- outputs ---


def answer(case: Case, arrays: Mapping[str, Array]) -> Answer:
    """The outputs of a graph as an Answer: which is the output, which the states, which that of a layer before."""
    layer = case.layer
    expected = case.output_shapes
    if isinstance(layer, Sequential) and len(arrays) > 1 and set(arrays) <= set(layer.parts):
        *before, last = (name for name in layer.parts if name in arrays)
        if last == list(layer.parts)[-1]:
            return Answer((arrays[last],), layers={name: arrays[name] for name in before})
    found = dict(assigned(arrays, expected, result_names(case)))
    if 0 not in found:
        received = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise CandidateError(
            f"candidate: which of its outputs is which is unclear: expected {', '.join(map(str, expected))}; "
            f"received {received}"
        )
    outputs, notes = [], []
    for n in range(len(expected)):
        if n not in found:
            break
        array = arrays[found[n]]
        outputs.append(reshaped(array, expected[n]))
        if array.shape == onnx_y(expected[n]):
            notes.append(f"its output {found[n]} was read as ONNX's Y, (timesteps, 1, batch, units)")
    left = [name for name in arrays if name not in [found[n] for n in range(len(outputs))]]
    notes += [f"not compared: the candidate's outputs {', '.join(left)}"] if left else []
    return Answer(tuple(outputs), partial=True, notes=tuple(notes))


def result_names(case: Case) -> list[tuple[str, ...]]:
    """What each result may be called: y, then the states, by their letters or as forward_h."""
    layer = case.layer
    results, states = len(case.output_shapes), layer.state_names
    called = [(name.replace(".", "_"), name.rpartition(".")[2]) for name in states] if results > len(states) else []
    return [("y",), *[("y_back",)] * (results - len(called) - 1), *called]


def reshaped(array: Array, expected: tuple[int, ...]) -> Array:
    """Without the leading axis that ONNX gives a state, one direction; its Y as batch, timesteps, units."""
    if array.shape == onnx_y(expected):
        return array[:, 0].swapaxes(0, 1)
    return array[0] if array.shape == (1, *expected) else array


def onnx_y(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that ONNX's Y has of a sequence (batch, timesteps, units) in one direction."""
    return (shape[1], 1, shape[0], shape[2]) if len(shape) == 3 else None


def assigned(
    arrays: Mapping[str, Array], expected: Sequence[tuple[int, ...]], names: Sequence[tuple[str, ...]]
) -> Iterator[tuple[int, str]]:
    """(which result, the name of the output) for those that are clear."""
    if len(arrays) == 1:
        yield 0, next(iter(arrays))
        return
    if len(arrays) == len(expected) and numbered(list(arrays)):
        yield from enumerate(arrays)
        return
    free = dict(arrays)
    open_results = dict(enumerate(expected))
    for n, called in enumerate(names):
        said = [key for key in free if key == called[0] and fits(free[key], expected[n])]
        said = said or [key for key in free if meaning(key) == called[-1] and fits(free[key], expected[n])]
        if len(said) == 1:
            del free[said[0]], open_results[n]
            yield n, said[0]
    for n, shape in list(open_results.items()):
        fitting = [key for key in free if fits(free[key], shape)]
        if len(fitting) == 1 and sum(fits(free[fitting[0]], other) for other in open_results.values()) == 1:
            del free[fitting[0]], open_results[n]
            yield n, fitting[0]
    named = [key for key in free if meaning(key) == "y"]
    if 0 in open_results and (len(free) == 1 or len(named) == 1):
        yield 0, named[0] if len(named) == 1 else next(iter(free))


def fits(array: Array, shape: tuple[int, ...]) -> bool:
    return array.shape in (shape, (1, *shape), onnx_y(shape))
