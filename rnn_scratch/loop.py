"""The loop over time, and what a masked step does in it. It knows of no cell in particular, nor of a layer.

`loop` is what a recurrent layer means. `fast_loop` is the same without a mask, on arrays, in place.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rnn_scratch.base import Array, Mask, States, Values

Step = Callable[[int, States], tuple[Values, States]]
"""step(t, states) -> h_t and the states after it; t counts in the order of processing."""


@dataclass(frozen=True)
class MaskRule:
    """What a masked step does, as Keras has it: it leaves the states as they are and puts out the last output again.

    Before the first unmasked step there is no last output; zeros stand for it, or on some backends the initial state
    (`leading_state`). What is then shown of a step may be zeros (zero_output_for_mask); what is repeated is not those.
    Masked steps are chosen around, never multiplied: NaN in one does not leak.

    keep: (batch, timesteps) in the order of processing, true where a step counts; None for everywhere. shown: likewise
    where the output is shown, and not zeros. t, in the methods: a step, or a slice of them, each array then having an
    axis of time.
    """

    keep: Mask | None = None
    shown: Mask | None = None
    leading_state: bool = False

    def before_first(self, initial: Values) -> Values:
        """What stands for the last output where there is none yet. initial: the first of the initial states."""
        return initial if self.leading_state else np.zeros_like(initial)

    def states(self, t: int | slice, new: States, old: States) -> States:
        """The states after a step, of those it makes and those before it."""
        if self.keep is None:
            return new
        keep = self.keep[:, t, None]
        return tuple([np.where(keep, n, o) for n, o in zip(new, old, strict=True)])

    def output(self, t: int | slice, h: Values, last: Values) -> Values:
        """The output of a step, of what it makes and the output before it."""
        return h if self.keep is None else np.where(self.keep[:, t, None], h, last)

    def visible(self, t: int | slice, y: Values) -> Values:
        """What is shown of an output."""
        return y if self.shown is None else np.where(self.shown[:, t, None], y, np.zeros_like(y))


def loop(
    step: Step, states: States, timesteps: int, rule: MaskRule, *, sequences: bool = True
) -> tuple[Values, States]:
    """All outputs, (batch, timesteps, units), or the last one without `sequences`; and the final states."""
    y, outputs = rule.before_first(states[0]), []
    with np.errstate(invalid="ignore"):  # NaN and infinity may stand at masked steps
        for t in range(timesteps):
            h, new = step(t, states)
            y = rule.output(t, h, y)
            states = rule.states(t, new, states)
            y_t = rule.visible(t, y)
            if sequences:
                outputs.append(y_t)
    return (np.stack(outputs, axis=1) if sequences else y_t), states


def fast_loop(
    update: Callable[..., States], p: Array, states: States, units: int, *, sequences: bool = True
) -> tuple[Array, tuple[Array, ...]]:
    """`loop` without a mask, from what is known of all steps beforehand. p: (timesteps, batch, n), overwritten.

    update(p_t, *states, out) -> the states after a step, the output written to `out`.
    """
    # h_t may overwrite p_t where they are of one size: a new array for a long sequence costs more than its sums.
    y = p if p.shape[-1] == units else np.empty((*p.shape[:2], units), p.dtype)
    for p_t, y_t in zip(p, y, strict=True):
        states = update(p_t, *states, y_t)
    # the states are copied, and the last output, or each would keep the whole sequence in memory
    return (y.swapaxes(0, 1) if sequences else y[-1].copy()), tuple(state.copy() for state in states)
