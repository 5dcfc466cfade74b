"""The loop over time as a wrong port has it: another step, other states before it, another rule for masked steps."""

from collections.abc import Callable
from typing import Any

from rnn_scratch.base import Mask, States, Values
from rnn_scratch.layers import Recurrent
from rnn_scratch.loop import MaskRule, loop

_Update = Callable[[Any, Values, States], States]
"""(cell, x_t, states before) -> states after."""

_Before = Callable[[list[States]], States]
"""All the states so far, the initial ones first -> those that the next step starts from."""


def _updated(cell: Any, x_t: Values, states: States) -> States:
    new: States = cell.update(cell.project(x_t), *states)
    return new


def _last(history: list[States]) -> States:
    return history[-1]


def looped(
    layer: Recurrent,
    x: Values,
    mask: Mask | None,
    states: States,
    *,
    update: _Update = _updated,
    before: _Before = _last,
    rule: Callable[[MaskRule], MaskRule] = lambda right: right,
) -> tuple[Values, States]:
    """`Recurrent`'s loop with another step, another choice of the states before it, another rule for masked steps."""
    x, history = layer.processed(x), list[States]()

    def step(t: int, states: States) -> tuple[Values, States]:
        history.append(states)
        new = update(layer.cell, x[:, t], before(history))
        return new[0], new

    return loop(step, states, x.shape[1], rule(layer.mask_rule(mask)), sequences=layer.return_sequences)
