"""PyTorch modules as candidates. The only place that imports torch to judge one."""

import inspect
import sys
from typing import Any

import numpy as np

from parity.candidates import ANY, Answer, Array, as_output, one_line
from parity.cases import Case
from parity.errors import CandidateError

STATES = ("hx", "h0", "state", "states", "hidden", "initial_state", "initial_states")


def is_module(value: Any) -> bool:
    """Whether it is a torch.nn.Module; without torch there is none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


class Module:
    """A torch.nn.Module, called with x alone, in evaluation mode and without gradients, on its own device and in its
    own dtype; with the initial states too where its forward has a parameter for them and the case has some."""

    callable = True
    fixed = ANY

    def __init__(self, module: Any) -> None:
        self.module = module
        names = list(inspect.signature(module.forward).parameters)
        self.state = next((name for name in names if name in STATES), None)
        self.takes = frozenset({"initial_state"} if self.state else ())

    def ask(self, case: Case) -> Answer:
        import torch

        kept = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode():
                result = self.module(self.tensor(case.x), **self.given(case))
        except Exception as error:
            raise CandidateError(f"candidate: raised {one_line(error)}") from error
        finally:
            for part, training in kept:
                part.training = training
        outputs = tuple(as_output(value) for value in flat(result))
        return trimmed(case, outputs)

    def tensor(self, array: Array) -> Any:
        import torch

        like = next(iter(self.module.parameters()), torch.zeros(()))
        found = torch.from_numpy(np.array(array)).to(like.device)
        return found.to(like.dtype) if found.is_floating_point() else found.long()

    def given(self, case: Case) -> dict[str, Any]:
        if self.state is None or case.initial_state is None:
            return {}
        axis = isinstance(self.module, sys.modules["torch"].nn.RNNBase)  # PyTorch's own: (layers, batch, units)
        states = tuple(self.tensor(state[None] if axis else state) for state in case.initial_state)
        return {self.state: states if len(states) > 1 else states[0]}

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: a torch module keeps no state between calls")


def flat(result: Any) -> list[Any]:
    """y, (h, c) as y, h, c."""
    return [leaf for part in result for leaf in flat(part)] if isinstance(result, tuple | list) else [result]


def trimmed(case: Case, outputs: tuple[Array, ...]) -> Answer:
    """PyTorch's layers always return their states, with an axis of layers and directions before them."""
    expected = case.layer.output_shapes(case.x.shape)
    if len(outputs) <= len(expected) or len(expected) > 1:
        states = [h[0] if h.shape == (1, *shape) else h for h, shape in zip(outputs[1:], expected[1:], strict=False)]
        return Answer((outputs[0], *states, *outputs[len(expected) :]), partial=True)
    return Answer(outputs[:1])
