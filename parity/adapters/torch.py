"""PyTorch modules, and files of their weights, as candidates. The only place that imports torch to judge one."""

import inspect
import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity.adapters.keras.library import to_numpy
from parity.candidates.answer import Answer, as_output, shown
from parity.cases.case import ANY, Case
from parity.errors import CandidateError
from parity.extras import needed
from parity.terminal import briefly
from rnn_scratch.base import Array

Tensor = Any
"""torch's, which is not imported before a module comes."""

_STATES = ("hx", "h0", "h_0", "state", "states", "hidden", "initial_state", "initial_states")
_CARRIED = ("cx", "c0", "c_0", "cell_state")
"""What a parameter for the states may be called; for LSTM's c, where it has one of its own."""


def is_module(value: object) -> bool:
    """Whether it is a torch.nn.Module; without torch there is none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def state_dict(path: str) -> dict[str, Array]:
    """The arrays in a file of `torch.save(module.state_dict(), path)`, of which nothing but weights is unpickled.
    ValueError for any other object."""
    library = needed("torch", "a .pt file", "torch")
    try:
        found = library.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("it holds more than weights; save them alone: torch.save(module.state_dict(), path)") from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):  # a training checkpoint
        found = found["state_dict"]
    if not (isinstance(found, Mapping) and found and all(map(library.is_tensor, found.values()))):
        raise ValueError(f"expected a state dict; it holds a {type(found).__name__}")
    return {str(name): to_numpy(value) for name, value in found.items()}


class Module:
    """A torch.nn.Module, called with x alone, in evaluation mode and without gradients, on its own device and in its
    own dtype; with the initial states too where its forward has a parameter for them, zeros where it must have them and
    the case has none.

    A state is (batch, units), or, where it takes none of those, (1, batch, units) as PyTorch's own layers have it.
    """

    callable = True
    fixed = ANY

    def __init__(self, module: Any) -> None:
        self.module = module
        known = _parameters(module)
        h, c = _first(_STATES, known), _first(_CARRIED, known)
        self.names = [name for name in (h, c) if name is not None] if h else []
        self.required = any(not known[name] for name in self.names)
        self.takes = frozenset({"initial_state"} if self.names else ())
        own = isinstance(module, sys.modules["torch"].nn.RNNBase)
        self.axes = (True,) if own else (False, True)
        """Whether a state gets an axis before its own: what is to be tried, and once it took one, that."""

    def ask(self, case: Case) -> Answer:
        if not self.names or (case.initial_state is None and not self.required):
            return _answered(case, self._call(case))
        errors = []
        for axis in self.axes:
            try:
                result = self._call(case, axis)
            except CandidateError as error:
                errors.append(error)
                continue
            self.axes = (axis,)
            return _answered(case, result)
        raise errors[0]

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a torch module keeps no state between calls")

    def _call(self, case: Case, axis: bool | None = None) -> Any:
        """What it returns, or CandidateError for what it raises. axis: of its states; None for a call without any."""
        try:
            return self._evaluated(self._tensor(case.x), {} if axis is None else self._states(case, axis))
        except Exception as error:
            raise CandidateError(f"candidate: raised {briefly(error)}") from error

    def _evaluated(self, x: Tensor, states: Mapping[str, Any]) -> Any:
        import torch

        training = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode():
                return self.module(x, **states)
        finally:
            for part, before in training:
                if isinstance(part, torch.jit.ScriptModule):
                    part.train(before)  # its attributes cannot be set
                else:
                    part.training = before  # not train(), which would set those of its parts as well

    def _tensor(self, array: Array) -> Tensor:
        import torch

        like = next(iter(self.module.parameters()), torch.zeros(()))
        found = torch.from_numpy(np.array(array)).to(like.device)
        return found.to(like.dtype) if found.is_floating_point() else found.long()

    def _states(self, case: Case, axis: bool) -> dict[str, Any]:
        """The states by the names of its parameters: each by its own, or all as one."""
        states = tuple(self._tensor(state[None] if axis else state) for state in case.start)
        if len(self.names) == len(states):
            return dict(zip(self.names, states, strict=True))
        return {self.names[0]: states if len(states) > 1 else states[0]}


def _parameters(module: Any) -> dict[str, bool]:
    """Those of its forward: whether each has a default. None of what TorchScript tells nothing of."""
    forward = getattr(module, "forward", None)
    if isinstance(module, sys.modules["torch"].jit.ScriptModule):
        schema = getattr(forward, "schema", None)
        return {argument.name: argument.has_default_value() for argument in (schema.arguments if schema else ())}
    found = inspect.signature(module.forward).parameters
    return {name: parameter.default is not inspect.Parameter.empty for name, parameter in found.items()}


def _first(names: Iterable[str], known: Mapping[str, bool]) -> str | None:
    """The first parameter that is called one of those names."""
    return next((name for name in known if name in names), None)


# --- what it returned ---


def _answered(case: Case, result: Any) -> Answer:
    """Arrays, in any nesting, or a dict of them by the names of layers."""
    if not isinstance(result, Mapping):
        return _trimmed(case, result)
    named = shown(case, result)
    return replace(_trimmed(case, named.last), layers=named.layers, sequences=named.sequences)


def _trimmed(case: Case, result: Any) -> Answer:
    """PyTorch's layers always return their states, with an axis of layers and directions before them."""
    outputs = [as_output(value) for value in _flat(result)]
    expected = case.output_shapes
    if len(expected) == 1 and len(outputs) > 1:
        return Answer((outputs[0],))
    states = [h[0] if h.shape == (1, *shape) else h for h, shape in zip(outputs[1:], expected[1:], strict=False)]
    return Answer((outputs[0], *states, *outputs[len(expected) :]), partial=True)


def _flat(result: Any) -> Iterator[Any]:
    """y, (h, c) as y, h, c."""
    if not isinstance(result, tuple | list):
        yield result
        return
    for part in result:
        yield from _flat(part)
