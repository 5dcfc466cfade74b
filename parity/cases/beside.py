"""What else a candidate that can be called is asked, beside the user's one case."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity.cases.case import ANY, Case, Fixed
from parity.cases.drawing import draw_states, generator, inputs_like, make_mask, randomized
from rnn_scratch import Sequential
from rnn_scratch.base import Mask

LONG = 30
"""Timesteps of the longest companion."""

WEIGHTS = frozenset({"layer", "weights"})
"""Of what a candidate may take: either lets it be asked with other weights."""


class _Companions:
    """Draws the companions of a case, one after another, all from one generator."""

    def __init__(self, case: Case, takes: frozenset[str], seed: int, fixed: Fixed) -> None:
        self.case, self.takes = case, takes
        self.batch, self.timesteps = fixed
        self.rng = generator(seed, f"{case.id} companions")

    def drawn(self, name: str, batch: int, timesteps: int, mask: Mask | None = None, state: bool = False) -> Case:
        batch, timesteps = self.batch or batch, self.timesteps or timesteps
        x = inputs_like(self.case, self.rng, batch, timesteps)
        # drawn whether used or not: what is drawn later follows from it
        states = draw_states(self.case.layer, self.rng, batch)
        return self.case.on(x, id=f"{self.case.id} / {name}", mask=mask, initial_state=states if state else None)

    def lengths(self) -> Iterator[Case]:
        """One, two and three steps: in a long contracting network a dropped first step is invisible to anybody."""
        if self.timesteps:
            yield self._of_size(3, self.timesteps)
            return
        for batch, timesteps in ((3, 1), (1, 2), (2, 3)):
            yield self._of_size(batch, timesteps)
        if self.case.timesteps < LONG:
            yield self._of_size(2, LONG)

    def _of_size(self, batch: int, timesteps: int) -> Case:
        steps = "timestep" if timesteps == 1 else "timesteps"
        return self.drawn(f"{timesteps} {steps}, batch {self.batch or batch}", batch, timesteps)

    def _mask(self, kind: str) -> Mask:
        return make_mask(self.rng, kind, self.batch or 3, self.timesteps or 5)

    def other_weights(self) -> Iterator[Case]:
        if self.takes & WEIGHTS:
            other = randomized(self.case.layer, self.rng)
            yield replace(self.drawn("other weights", 3, 4), layer=other)

    def states_and_masks(self) -> Iterator[Case]:
        state = "initial_state" in self.takes
        told = ", an initial state" if state else ""
        if state:
            yield self.drawn("an initial state", 3, 4, state=True)
        if "mask" not in self.takes:
            return
        for kind in ("leading", "mixed", "trailing"):
            mask = self._mask(kind)
            yield self.drawn(f"a {kind} mask{told}", 3, 5, mask, state)
        mask = self._mask("mixed")
        mask[len(mask) // 2] = False
        hidden = self.drawn(f"a row all masked, NaN at masked steps{told}", 3, 5, mask, state)
        hidden.x[~mask] = np.nan
        yield hidden


def companions(case: Case, takes: frozenset[str], seed: int, fixed: Fixed = ANY) -> Iterator[Case]:
    """Short and long sequences, other batch sizes, masks and states; of a model other weights instead of these two,
    since it masks by its inputs and starts from zeros. takes: what the candidate can be asked with. fixed: the only
    batch and timesteps that are asked, None where either is open."""
    asked = _Companions(case, takes, seed, fixed)
    yield from asked.lengths()
    if isinstance(case.layer, Sequential):
        yield from asked.other_weights()
    else:
        yield from asked.states_and_masks()


def two_calls(case: Case, seed: int, fixed: Fixed = ANY) -> Case:
    """Of a stateful layer: what it keeps between two calls."""
    x = inputs_like(case, generator(seed, f"{case.id} calls"), fixed[0] or case.batch, 2 * (fixed[1] or 2))
    return case.on(x, id=f"{case.id} / 2 calls, the state kept", mask=None, initial_state=None, calls=2)
