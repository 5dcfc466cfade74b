"""PyTorch modules as candidates. The only place that imports torch to judge one."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity.candidates.functions import ANY, Answer, Array, as_output, by_layer
from parity.candidates.matching import arrays_of
from parity.cases.case import Case
from parity.errors import CandidateError
from parity.terminal import briefly

STATES = ("hx", "h0", "h_0", "state", "states", "hidden", "initial_state", "initial_states")
CARRIED = ("cx", "c0", "c_0", "cell_state")
"""What a parameter for the states may be called; for LSTM's c, where it has one of its own."""


def is_module(value: Any) -> bool:
    """Whether it is a torch.nn.Module; without torch there is none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def parameters(module: Any) -> dict[str, bool]:
    """Those of its forward: whether each has a default. None of what TorchScript tells nothing of."""
    forward = getattr(module, "forward", None)
    if isinstance(module, sys.modules["torch"].jit.ScriptModule):
        schema = getattr(forward, "schema", None)
        return {argument.name: argument.has_default_value() for argument in (schema.arguments if schema else ())}
    found = inspect.signature(module.forward).parameters
    return {name: parameter.default is not inspect.Parameter.empty for name, parameter in found.items()}


class Module:
    """A torch.nn.Module, called with x alone, in evaluation mode and without gradients, on its own device and in its
    own dtype; with the initial states too where its forward has a parameter for them, zeros where it must have them and
    the case has none. A state is (batch, units), or, where it takes none of those, (1, batch, units) as PyTorch's own
    layers have it."""

    callable = True
    fixed = ANY

    def __init__(self, module: Any) -> None:
        self.module = module
        known = parameters(module)
        h, c = (next((name for name in known if name in names), None) for names in (STATES, CARRIED))
        self.names = tuple(filter(None, (h, c))) if h else ()
        self.required = any(not known[name] for name in self.names)
        self.takes = frozenset({"initial_state"} if self.names else ())
        own = isinstance(module, sys.modules["torch"].nn.RNNBase)
        self.axes = (True,) if own else (False, True)

    def ask(self, case: Case) -> Answer:
        given = bool(self.names) and (self.required or case.initial_state is not None)
        errors = []
        for axis in self.axes if given else (False,):
            try:
                result = self.run(case, self.given(case, axis) if given else {})
            except Exception as error:
                errors.append(CandidateError(f"candidate: raised {briefly(error)}"))
                continue
            self.axes = (axis,) if given else self.axes
            return answered(case, result)
        raise errors[0]

    def run(self, case: Case, states: Mapping[str, Any]) -> Any:
        import torch

        kept = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode():
                return self.module(self.tensor(case.x), **states)
        finally:
            for part, training in kept:
                part.train(training) if isinstance(part, torch.jit.ScriptModule) else setattr(
                    part, "training", training
                )

    def tensor(self, array: Array) -> Any:
        import torch

        like = next(iter(self.module.parameters()), torch.zeros(()))
        found = torch.from_numpy(np.array(array)).to(like.device)
        return found.to(like.dtype) if found.is_floating_point() else found.long()

    def given(self, case: Case, axis: bool) -> dict[str, Any]:
        arrays = [array for name, array in arrays_of(case).items() if name.startswith("state")]
        states = tuple(self.tensor(state[None] if axis else state) for state in arrays)
        if len(self.names) == len(states):
            return dict(zip(self.names, states, strict=True))
        return {self.names[0]: states if len(states) > 1 else states[0]}

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a torch module keeps no state between calls")


def answered(case: Case, result: Any) -> Answer:
    """What a module returned: arrays, in any nesting, or a dict of them by the names of layers."""
    if not isinstance(result, Mapping):
        return trimmed(case, tuple(as_output(value) for value in flat(result)))
    layers, sequences, last = by_layer(case, result)
    answer = trimmed(case, tuple(as_output(value) for value in flat(last)))
    return replace(answer, layers=layers, sequences=sequences)


def flat(result: Any) -> list[Any]:
    """y, (h, c) as y, h, c."""
    return [leaf for part in result for leaf in flat(part)] if isinstance(result, tuple | list) else [result]


def trimmed(case: Case, outputs: tuple[Array, ...]) -> Answer:
    """PyTorch's layers always return their states, with an axis of layers and directions before them."""
    expected = case.output_shapes
    if len(outputs) <= len(expected) or len(expected) > 1:
        states = [h[0] if h.shape == (1, *shape) else h for h, shape in zip(outputs[1:], expected[1:], strict=False)]
        return Answer((outputs[0], *states, *outputs[len(expected) :]), partial=True)
    return Answer(outputs[:1])
