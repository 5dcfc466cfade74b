"""Which input of a graph is x, which of its outputs is the state: by name where there are names, else by shape where
that leaves no choice."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.candidates.answer import Answer
from parity.cases.case import Case
from parity.errors import CandidateError
from rnn_scratch.base import Array, Shape
from rnn_scratch.models import Model

OpenShape = tuple[int | None, ...]


@dataclass(frozen=True)
class Slot:
    """An input or output of a graph; shape None where that is open."""

    name: str
    shape: OpenShape | None
    dtype: np.dtype[np.generic]

    def __str__(self) -> str:
        if self.shape is None:
            return self.name
        sizes = ["?" if n is None else str(n) for n in self.shape]
        return f"{self.name} ({', '.join(sizes)})"

    def has_axes(self, number: int) -> bool:
        return self.shape is not None and len(self.shape) == number

    def fits(self, array: Array) -> bool:
        if self.shape is None:
            return True
        if len(self.shape) != array.ndim:
            return False
        return all(n in (None, m) for n, m in zip(self.shape, array.shape, strict=True))


_NAMES = {
    "x": r"x|inputs?|input_?1|inputs?_?0|x_?0|args_?0|keras_tensor(_\d+)?|input_layer(_\d+)?|serving_default_.*",
    "mask": r".*mask.*",
    "h": r"h|h_?([0nt]|init)|(initial_?)?h|hx|y_h|hn|state_?h|h_?state|(initial_?)?(hidden|hidden_?state)|hidden",
    "c": r"c|c_?([0nt]|init)|(initial_?)?c|cx|y_c|cn|state_?c|c_?state|(initial_?)?cell(_?state)?",
    "y": r"y|y_?[0]|outputs?|outputs?_?0|sequence|identity|statefulpartitionedcall",
    "state": r"(initial_?)?states?(_?\d+)?|states?_?(in|out|n)",
}


def _meaning(name: str) -> str | None:
    """Which of `_NAMES` a name says; "Identity:0" and "rnn/x" are "identity" and "x"."""
    bare = re.sub(r":\d+$", "", name).rpartition("/")[2].lower()
    return next((what for what, pattern in _NAMES.items() if re.fullmatch(pattern, bare)), None)


def _numbered(names: Sequence[str]) -> bool:
    """Whether they are one name and its numbers, in their order: output_0, output_1; Identity, Identity_1."""
    split = [re.fullmatch(r"(.*?)_?(\d*)(?::\d+)?", name) for name in names]
    stems = {found[1] for found in split if found}
    numbers = [int(found[2] or 0) for found in split if found]
    return len(stems) == 1 and len(numbers) == len(names) and numbers == sorted(set(numbers))


# --- inputs ---


def input_roles(slots: Sequence[Slot]) -> dict[str, str]:
    """Input name -> "x", "mask" or "state0", "state1"; CandidateError, with the list, where that is unclear."""
    roles = _Roles(slots)
    roles.masks_by_name()
    roles.states_by_name()
    roles.x()
    roles.mask_by_dtype()
    roles.state_by_shape()
    if roles.rest or "x" not in roles.found.values():
        raise CandidateError(
            f"candidate: which of its inputs is which is unclear: expected x, and of mask and initial_state those it "
            f"needs; received {_listed(slots)}"
        )
    return roles.found


class _Roles:
    """Which input is which, as far as it is clear: what is clearest comes first. rest: those that are open as yet."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.said = {slot.name: _meaning(slot.name) for slot in slots}
        self.found: dict[str, str] = {}
        self.rest = list(slots)

    def _take(self, slot: Slot, role: str) -> None:
        self.found[slot.name] = role
        self.rest.remove(slot)

    def _saying(self, what: str) -> list[Slot]:
        return [slot for slot in self.rest if self.said[slot.name] == what]

    def masks_by_name(self) -> None:
        for slot in self._saying("mask"):
            self._take(slot, "mask")

    def states_by_name(self) -> None:
        states = [slot for what in ("h", "state", "c") for slot in self._saying(what)]
        names = [slot.name for slot in states]
        all_differ = len({self.said[name] for name in names}) == len(names)
        if all_differ or _numbered(names):
            for n, slot in enumerate(states):
                self._take(slot, f"state{n}")

    def x(self) -> None:
        """The only one left, or the only one of that name, or the only one of three axes."""
        sequences = [slot for slot in self.rest if slot.shape is None or slot.has_axes(3)]
        for candidates in (self.rest, self._saying("x"), sequences):
            if len(candidates) == 1:
                self._take(candidates[0], "x")
                return

    def mask_by_dtype(self) -> None:
        booleans = [slot for slot in self.rest if slot.dtype == bool]
        masks = [slot for slot in booleans if slot.shape is None or slot.has_axes(2)]
        if len(masks) == 1 and "mask" not in self.found.values():
            self._take(masks[0], "mask")

    def state_by_shape(self) -> None:
        if set(self.said.values()) & {"h", "state", "c"}:
            return  # another input says that it is the state
        if len(self.rest) == 1 and self.rest[0].has_axes(2):
            self._take(self.rest[0], "state0")


def feeds(case: Case, slots: Sequence[Slot], roles: Mapping[str, str]) -> dict[str, Array]:
    """What is fed to each input, in its dtype; states of zeros and a mask of ones where the case has none."""
    given = {**case.inputs, "mask": case.every_mask}
    given |= {f"state{n}": state for n, state in enumerate(case.start)}
    fed = {}
    for slot in slots:
        role = roles[slot.name]
        if role not in given:
            known = ", ".join(f"{name} {array.shape}" for name, array in given.items())
            raise CandidateError(f"candidate: expected inputs for {known}; received {_listed(slots)}")
        array = given[role]
        if role.startswith("state") and slot.has_axes(3):
            array = array[None]  # one layer, one direction
        if not slot.fits(array):
            raise CandidateError(f"candidate: its input {slot} cannot take {role} of shape {array.shape}")
        fed[slot.name] = array.astype(slot.dtype)
    return fed


def _listed(slots: Sequence[Slot]) -> str:
    return ", ".join(map(str, slots))


# --- outputs ---


def answer(case: Case, arrays: Mapping[str, Array]) -> Answer:
    """The outputs of a graph as an Answer: which is the output, which the states, which that of a layer before."""
    return _by_node(case, arrays) or _by_result(case, arrays)


def _by_node(case: Case, arrays: Mapping[str, Array]) -> Answer | None:
    """Of several outputs that are all called like nodes of the model, the last one's among them."""
    nodes = list(case.layer.parts) if isinstance(case.layer, Model) else []
    named = [name for name in nodes if name in arrays]
    if len(named) != len(arrays) or len(named) < 2 or named[-1] != nodes[-1]:
        return None
    *before, last = named
    return Answer((arrays[last],), layers={name: arrays[name] for name in before})


def _by_result(case: Case, arrays: Mapping[str, Array]) -> Answer:
    expected = case.output_shapes
    found = _assigned(case, arrays)
    if 0 not in found:
        received = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise CandidateError(
            f"candidate: which of its outputs is which is unclear: expected {', '.join(map(str, expected))}; "
            f"received {received}"
        )
    outputs: list[Array] = []
    notes = []
    while len(outputs) in found:  # a state without the one before it would be taken for that
        name, shape = found[len(outputs)], expected[len(outputs)]
        outputs.append(_reshaped(arrays[name], shape))
        if arrays[name].shape == onnx_y(shape):
            notes.append(f"its output {name} was read as ONNX's Y, (timesteps, 1, batch, units)")
    compared = [found[n] for n in range(len(outputs))]
    left = [name for name in arrays if name not in compared]
    if left:
        notes.append(f"not compared: the candidate's outputs {', '.join(left)}")
    return Answer(tuple(outputs), partial=True, notes=tuple(notes))


def _assigned(case: Case, arrays: Mapping[str, Array]) -> Mapping[int, str]:
    """Which result -> the name of the output, for those that are clear."""
    expected = case.output_shapes
    if len(arrays) == 1:
        return {0: next(iter(arrays))}
    if len(arrays) == len(expected) and _numbered(list(arrays)):
        return dict(enumerate(arrays))
    results = _Results(arrays, expected)
    results.by_name(_result_names(case))
    results.by_shape()
    results.y()
    return results.found


class _Results:
    """Which output is which result, as far as it is clear. free: outputs that are none as yet; open: results that no
    output is as yet, with their shapes."""

    def __init__(self, arrays: Mapping[str, Array], expected: Sequence[Shape]) -> None:
        self.found: dict[int, str] = {}
        self.free, self.open = dict(arrays), dict(enumerate(expected))

    def _take(self, n: int, name: str) -> None:
        self.found[n] = name
        del self.free[name], self.open[n]

    def _fitting(self, n: int) -> list[str]:
        return [name for name, array in self.free.items() if _fits(array, self.open[n])]

    def by_name(self, names: Sequence[tuple[str, ...]]) -> None:
        """By the whole name, else by what it says."""
        for n, called in enumerate(names):
            fitting = self._fitting(n)
            said = [name for name in fitting if name == called[0]]
            said = said or [name for name in fitting if _meaning(name) == called[-1]]
            if len(said) == 1:
                self._take(n, said[0])

    def by_shape(self) -> None:
        """Where one output alone fits, and fits nothing else."""
        for n in list(self.open):
            fitting = self._fitting(n)
            if len(fitting) == 1 and self._fitted(fitting[0]) == [n]:
                self._take(n, fitting[0])

    def _fitted(self, name: str) -> list[int]:
        return [n for n, shape in self.open.items() if _fits(self.free[name], shape)]

    def y(self) -> None:
        """The output, whatever its shape, if one is called that or is all that is left."""
        named = [name for name in self.free if _meaning(name) == "y"]
        for only in (named, list(self.free)):
            if 0 in self.open and len(only) == 1:
                self._take(0, only[0])


def _result_names(case: Case) -> list[tuple[str, ...]]:
    """What each result may be called: y, then the states, by their letters or as forward_h."""
    results, states = len(case.output_shapes), case.layer.state_names
    if results <= len(states):
        states = ()
    called = [(name.replace(".", "_"), name.rpartition(".")[2]) for name in states]
    return [("y",), *[("y_back",)] * (results - len(called) - 1), *called]


def _reshaped(array: Array, expected: Shape) -> Array:
    """Without the leading axis that ONNX gives a state, one direction; its Y as batch, timesteps, units."""
    if array.shape == onnx_y(expected):
        return array[:, 0].swapaxes(0, 1)
    return array[0] if array.shape == (1, *expected) else array


def onnx_y(shape: Shape) -> Shape | None:
    """The shape that ONNX's Y has of a sequence (batch, timesteps, units) in one direction."""
    return (shape[1], 1, shape[0], shape[2]) if len(shape) == 3 else None


def _fits(array: Array, shape: Shape) -> bool:
    return array.shape in (shape, (1, *shape), onnx_y(shape))
