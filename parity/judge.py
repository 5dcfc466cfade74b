"""The judge: Case + Candidate -> what was found. It knows neither Keras nor any cell in particular.

Judging is by residuals where the candidate's states can be seen: each step is computed in float64 from the candidate's
own previous state, on balls, so no error travels from one step to the next and the length of the sequence does not
matter. Where only a last output is seen, in the order of preference: balls carried through (`forward`), the sequence
that the candidate shows when its `layer` says so or when it is stepped from its own states (`stepped`), and the spread
of perturbed references (`prefixes`, `sampled`).
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates import Answer, Candidate, walk
from parity.cases import Case, generator
from parity.errors import CandidateError
from parity.findings import Finding, Tally, Tolerance, largest
from parity.rounding import ARITHMETIC, Arithmetic, Ball, on_balls

Array = NDArray[Any]

BLOCK = 1 << 16
"""Elements of state judged at a time: what stays in a core's cache, and what bounds the memory of a check."""

FORWARD_STEPS = 5
STEPPED_STEPS = 1000
RUNS = 16
VACUOUS = 0.1
"""An end-to-end tolerance of that part of the signal or more decides nothing."""


@dataclass(frozen=True)
class Spread:
    """The reference after some step, mid (batch, units); how far runs of it spread, width (batch, 1); and where that
    says anything, not being as wide as the signal nor out of the candidate's range, useful (batch,)."""

    mid: Array
    width: Array
    useful: NDArray[np.bool_]


def examine(candidate: Candidate, case: Case, tolerance: Tolerance) -> Finding:
    """Ask the candidate that question and judge what it answers, by the best method its answer allows."""
    answer = candidate.ask(case)
    finding = Finding(case, notes=list(answer.notes))
    finding.wrong = wrong_structure(case, answer)
    if finding.wrong:
        return finding
    returned = {array.dtype for array in (*(answer.outputs or ()), answer.sequence) if array is not None}
    for dtype in returned - {case.layer.dtype}:
        finding.notes.append(f"returned {dtype}: judged in {case.layer.dtype}, the layer's precision")
    with np.errstate(all="ignore"):
        Judge(candidate, case, tolerance, finding).judge(answer)
    return finding


def wrong_structure(case: Case, answer: Answer) -> str | None:
    """What is wrong with the number or the shapes of the arrays, if anything."""
    layer, (batch, timesteps, _) = case.layer, case.x.shape
    if answer.outputs is None:
        return None
    state = (batch, layer.units)
    expected = [(batch, timesteps, layer.units) if layer.return_sequences else state]
    expected += [state] * len(layer.cell.states) if layer.return_state else []
    received = [output.shape for output in answer.outputs]
    if received == expected or (answer.partial and received == expected[:1]):
        return None
    return f"expected {_shapes(expected)}; received {_shapes(received)}"


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return f"shape {shapes[0]}" if len(shapes) == 1 else f"{len(shapes)} arrays of shapes {', '.join(map(str, shapes))}"


class Judge:
    """One answer to one question, judged; what is seen goes into the finding."""

    def __init__(self, candidate: Candidate, case: Case, tolerance: Tolerance, finding: Finding) -> None:
        self.candidate, self.case, self.tolerance, self.finding = candidate, case, tolerance, finding
        self.layer = case.layer
        self.arithmetic: Arithmetic = ARITHMETIC[self.layer.dtype.name]
        self.cell = on_balls(self.layer.cell, self.arithmetic)
        self.x, self.mask = case.processed()
        self.start = self.layer.initial_states(case.batch, case.initial_state)[0]
        self.finite = bool(np.isfinite(self.x).all() and np.isfinite(self.start).all())
        self.last_step = case.timesteps - 1

    def judge(self, answer: Answer) -> None:
        outputs = answer.outputs or ()
        sequence = outputs[0] if answer.sequence is None and self.layer.return_sequences else answer.sequence
        if sequence is not None:
            self.finding.method.append("stepped" if answer.outputs is None else "stepwise")
            self.stepwise(sequence)
            self.ends(sequence, outputs, self.finding.proof)
        elif self.case.timesteps <= FORWARD_STEPS:
            balls = self.carried()
            for got, ball in zip(outputs, balls[: len(outputs)], strict=True):
                self.compare(self.finding.proof, got[:, None], ball)
            if self.last_step and np.any(balls[0].radius >= VACUOUS * (np.abs(balls[0].mid).max(initial=0) or 1)):
                self.end_to_end(outputs)  # balls that outgrew the signal accuse rightly, but prove nothing
            else:
                self.finding.method.append("forward")
                shown = self.shown()
                if shown is not None:  # from its own states the bounds are tighter still
                    self.stepwise(shown)
        else:
            self.end_to_end(outputs)

    # --- proofs ---

    def stepwise(self, sequence: Array) -> None:
        """Every step from the candidate's own previous state, all steps of a block at once."""
        batch, timesteps, units = sequence.shape
        block = max(1, BLOCK // (batch * units))
        live = None if self.mask is None else last_live(self.mask)
        for start in range(0, timesteps, block):
            steps = slice(start, min(start + block, timesteps))
            previous, relative = self.previous(sequence, live, steps)
            x = np.asarray(self.x[:, steps], np.float64)
            ball = self.step(rows(x), self.returned(rows(previous), rows(relative)))
            ball = self.masked(ball, previous, None if live is None else live[:, steps], steps)
            self.compare(self.finding.proof, sequence[:, steps], ball, start)

    def previous(self, sequence: Array, live: NDArray[np.intp] | None, steps: slice) -> tuple[Array, Array]:
        """The state before each step, (batch, steps, units) float64, and its relative radius.

        Under a mask it is the last unmasked output, not the previous one. A candidate may keep its state wider than it
        returns it; the initial state was given to it, so that one is exact.
        """
        if live is None:
            head = self.start[:, None] if steps.start == 0 else sequence[:, steps.start - 1, None]
            before = np.concatenate([head, sequence[:, steps.start : steps.stop - 1]], axis=1)
            given = (np.arange(steps.start, steps.stop) == 0)[None, :, None]
        else:
            index = live[:, steps, None]
            given = index < 0
            before = np.where(given, self.start[:, None], np.take_along_axis(sequence, np.maximum(index, 0), axis=1))
        relative = np.broadcast_to(np.where(given, 0.0, self.arithmetic.unit), (*before.shape[:2], 1))
        return before.astype(np.float64), relative

    def returned(self, previous: Array, relative: Array) -> Ball:
        """States as the candidate returned them. One that overflowed when it was returned may be a number inside."""
        h = Ball(previous, self.arithmetic, relative=relative)
        if self.finite and not np.isfinite(previous.max(initial=0) - previous.min(initial=0)):
            h.may_overflow = np.isinf(previous) & (relative > 0)
        return h

    def step(self, x: Array, h: Ball) -> Ball:
        """The cell's own two methods, on balls. x: (rows, input_dim)."""
        visible: Ball = self.cell.update(self.cell.project(Ball(x, self.arithmetic)), h)[0]
        return visible

    def masked(self, ball: Ball, previous: Array, live: NDArray[np.intp] | None, steps: slice) -> Ball:
        """At a masked step the output is the last one again, zero before any; always zero with zero_output_for_mask."""
        if self.mask is None or live is None:
            return ball
        repeated = (live[..., None] >= 0) & (not self.layer.zero_output_for_mask)
        return choose(self.mask[:, steps, None], ball, self.copied(np.where(repeated, previous, 0.0)))

    def copied(self, values: Array) -> Ball:
        """Values that were handed on, perhaps kept wider than they are returned."""
        rad = self.arithmetic.unit * np.abs(values) + self.arithmetic.tiny
        return Ball(values.astype(np.float64), self.arithmetic, rad)

    def ends(self, sequence: Array, outputs: Sequence[Array], tally: Tally) -> None:
        """The last output, where the sequence was seen beside it, and the final state."""
        if outputs and not self.layer.return_sequences:
            self.compare(tally, outputs[0][:, None], self.copied(sequence[:, -1]))
        for state in outputs[1:]:
            live = (
                np.full((len(sequence), 1), self.last_step) if self.mask is None else last_live(self.mask, final=True)
            )
            kept = np.take_along_axis(sequence, np.maximum(live, 0)[..., None], axis=1)[:, 0]
            self.compare(tally, state[:, None], self.copied(np.where(live < 0, self.start, kept)))

    def carried(self) -> tuple[Ball, Ball]:
        """The last output and the final state as balls, carried through all the steps."""
        state, output = Ball(self.start.astype(np.float64), self.arithmetic), self.copied(np.zeros_like(self.start))
        for t in range(self.case.timesteps):
            new = self.step(np.asarray(self.x[:, t], np.float64), state)
            output, state = self.advance(t, new, output, state)
        rad = np.maximum(state.radius, self.arithmetic.tiny)  # an initial state that came through has none
        return output, Ball(state.mid, self.arithmetic, rad, may_overflow=state.may_overflow)

    def advance(self, t: int, new: Ball, output: Ball, state: Ball) -> tuple[Ball, Ball]:
        if self.mask is None:
            return new, new
        repeated = self.copied(np.zeros_like(new.mid)) if self.layer.zero_output_for_mask else output
        keep = np.resize(self.mask[:, t, None], (len(new.mid), 1))
        return choose(keep, new, repeated), choose(keep, new, state)

    # --- evidence ---

    def end_to_end(self, outputs: Sequence[Array]) -> None:
        """A last output after many steps. It is proved where the candidate can be made to show a proved sequence that
        ends in that very output; otherwise there is the evidence of perturbed references."""
        for method, view in self.views():
            self.finding.method.append(method)
            self.stepwise(view)
            if self.ends_in(view, outputs):
                return
        seen = {self.last_step: outputs}
        if self.candidate.callable and not self.finding.method:
            try:
                seen |= {t: self.prefix(t) for t in (self.case.timesteps // 2, self.last_step - 1)}
                self.finding.method.append("prefixes")
            except CandidateError as error:
                self.finding.notes.append(f"shorter sequences not asked: {error}")
        self.finding.method.append("sampled")
        spreads = dict(self.sampled(seen))
        for t in sorted(seen):
            self.against_spread(t, seen[t], spreads[t])
        if self.mask is None and "prefixes" in self.finding.method:
            self.residual(seen[self.last_step - 1][0], outputs[0], spreads[self.last_step - 1][0])

    def views(self) -> Iterator[tuple[str, Array]]:
        """The sequences that the candidate can be made to show: by the setting of its `layer`, or step by step."""
        if not self.candidate.callable:
            return
        shown = self.shown()
        if shown is not None:
            yield "stepwise", shown
        with contextlib.suppress(CandidateError):
            if "initial_state" in self.candidate.takes:
                yield "stepped", self.stepped()

    def shown(self) -> Array | None:
        """The sequence that a candidate with `layer` returns when that layer says so, or None if it does not."""
        if "layer" not in self.candidate.takes:
            return None
        layer = self.layer.replace()
        layer.return_sequences, layer.return_state = True, False
        case = replace(self.case, layer=layer)
        with contextlib.suppress(CandidateError):
            answer = self.candidate.ask(case)
            if answer.outputs and not wrong_structure(case, answer):
                return answer.outputs[0]
        return None

    def ends_in(self, sequence: Array, outputs: Sequence[Array]) -> bool:
        """Whether the outputs are those of the sequence's end, but for a rounding of what is handed on."""
        if sequence.shape[1] < self.case.timesteps:
            return False
        tally = Tally()
        self.ends(sequence, outputs, tally)
        return tally.worst <= 1 and not tally.undecided

    def stepped(self) -> Array:
        """The candidate called on one step at a time from its own last state: its sequence, the mask being ours."""

        def step(t: int, state: Array) -> tuple[Array, Array]:
            case = replace(self.case.steps(t, t + 1, (state,)), mask=None)
            answer = self.candidate.ask(case)
            if wrong := wrong_structure(case, answer):
                raise CandidateError(f"candidate: for one step, {wrong}")
            assert answer.outputs is not None
            h = answer.outputs[0].reshape(state.shape)
            return h, h

        if self.case.timesteps > STEPPED_STEPS:
            self.finding.notes.append(f"stepped through the first {STEPPED_STEPS:,} of {self.case.timesteps:,} steps")
        return walk(self.case, step, min(self.case.timesteps, STEPPED_STEPS))

    def prefix(self, t: int) -> Sequence[Array]:
        """What the candidate makes of the steps up to and with t alone."""
        case = self.case.first(t + 1)
        answer = self.candidate.ask(case)
        if wrong := wrong_structure(case, answer):
            raise CandidateError(f"candidate: for {t + 1} steps, {wrong}")
        return answer.outputs or ()

    def sampled(self, steps: Collection[int]) -> Iterator[tuple[int, tuple[Spread, Spread]]]:
        """For each of those steps, the output and the state of the float64 reference, and how far runs of it spread
        that have every rounding replaced by the largest allowed one.

        Half of the runs have random signs. The others keep each unit's sign for good (the first two all alike): what
        accumulates drifts coherently, and random signs would grant it too little.
        """
        batch, copies = self.case.batch, RUNS + 1
        rng = generator(0, f"{self.case.id} signs")
        shape = (copies, batch, self.layer.units)
        fixed = rng.choice([-1.0, 1.0], (copies, 1, self.layer.units))
        fixed[0], fixed[1], fixed[2] = 0, 1, -1
        random = np.arange(copies)[:, None, None] > RUNS // 2
        state = np.tile(self.start.astype(np.float64), (copies, 1))
        output, signal = np.zeros_like(state), largest(np.abs(state))
        lost = np.zeros(batch, bool)
        for t in range(max(steps) + 1):
            x = np.tile(np.asarray(self.x[:, t], np.float64), (copies, 1))
            ball = self.step(x, Ball(state, self.arithmetic))
            if ball.may_overflow is not None:
                lost |= ball.may_overflow.reshape(shape).any(axis=(0, 2))
            signs = np.where(random, rng.integers(0, 2, shape) * 2.0 - 1, fixed).reshape(state.shape)
            # not just the product: the reference stays itself where a radius is infinite
            moved = np.where(signs == 0, 0, signs * ball.radius)
            new = Ball(ball.mid + moved, self.arithmetic)
            kept_output, kept_state = self.advance(t, new, Ball(output, self.arithmetic), Ball(state, self.arithmetic))
            output, state = kept_output.mid, kept_state.mid
            signal = max(signal, largest(np.abs(state[:batch])))
            if t in steps:
                yield (
                    t,
                    (self.spread(output.reshape(shape), signal, lost), self.spread(state.reshape(shape), signal, lost)),
                )

    def spread(self, runs: Array, signal: float, lost: NDArray[np.bool_]) -> Spread:
        mid = runs[0]
        width = np.abs(runs - mid).max(axis=(0, 2))[:, None]
        came_in: Array = np.isnan(self.x).any(axis=(1, 2)) & np.isnan(mid).any(axis=1)
        came_in = came_in[:, None]
        width = np.where(came_in, 0, width) + self.arithmetic.tiny  # NaN of the inputs is not a matter of rounding
        fits: Array = np.abs(mid).max(axis=1, keepdims=True) + width <= self.arithmetic.largest
        useful = np.asarray(came_in | (fits & (width < VACUOUS * (signal or 1))))
        return Spread(mid, width, useful[:, 0] & ~lost)

    def against_spread(self, t: int, outputs: Sequence[Array], spreads: Sequence[Spread]) -> None:
        for got, spread in zip(outputs, spreads[: len(outputs)], strict=True):
            ball = Ball(spread.mid, self.arithmetic, np.broadcast_to(spread.width, spread.mid.shape))
            self.compare(self.finding.evidence, got[:, None], ball, t, spread.useful)
            if not spread.useful.all():
                self.finding.vacuous = (
                    f"after {t + 1} steps correct implementations may differ by {float(spread.width.max()):.2g}: "
                    f"of {int((~spread.useful).sum())} of {len(spread.useful)} rows nothing can be said end to end"
                )

    def residual(self, before: Array, after: Array, spread: Spread) -> None:
        """The last step from the prefix's state, which may be as far from the candidate's own one as runs spread."""
        rad = self.arithmetic.unit * np.abs(before) + spread.width
        state = Ball(before.astype(np.float64), self.arithmetic, rad)
        ball = self.step(np.asarray(self.x[:, self.last_step], np.float64), state)
        self.compare(self.finding.evidence, after[:, None], ball, self.last_step, spread.useful)

    # --- comparison ---

    def compare(
        self, tally: Tally, got: Array, ball: Ball, timestep: int | None = None, usable: Array | None = None
    ) -> None:
        """got: (batch, steps, units); the ball's rows are its batch and steps, flattened or not. usable: the batch rows
        to look at, all if None."""
        mid, rad = ball.mid.reshape(got.shape), ball.radius.reshape(got.shape)
        overflow = None if ball.may_overflow is None else ball.may_overflow.reshape(got.shape)
        rad = self.tolerance.widen(rad, mid)
        at = self.last_step if timestep is None else timestep
        if overflow is None and (usable is None or usable.all()) and tally.add(got, mid, rad, at):
            return
        decided = self.classes(got, mid, rad, overflow)
        tally.add(got, mid, rad, at, decided if usable is None else np.where(usable[:, None, None], decided, 0.0))

    def classes(self, got: Array, mid: Array, rad: Array, may_overflow: Array | None) -> Array:
        """0 where NaN or infinity agree, NaN where nobody can tell, 1 where the difference decides."""
        agree = np.isnan(got) & np.isnan(mid)
        agree |= np.isinf(got) & (
            (got == mid) | ((np.abs(mid) + rad > self.arithmetic.largest) & (np.sign(got) == np.sign(mid)))
        )
        if self.cell.activation.swallows_nan:
            agree |= np.isnan(mid)
        unknown = np.isnan(rad) & np.isfinite(mid) & np.isfinite(got)
        if may_overflow is not None:
            within = (np.abs(got - mid) <= rad) & (rad < VACUOUS * np.abs(mid))
            unknown |= may_overflow & ~within  # tanh of what overflowed is finite, and may have the other sign
        return np.where(agree, 0.0, np.where(unknown, np.nan, 1.0))


def rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def choose(keep: Array, a: Ball, b: Ball) -> Ball:
    """Rows of a where `keep`, of b elsewhere; all (batch, units) or all (batch, steps, units)."""
    shape = b.mid.shape
    overflow = None
    if a.may_overflow is not None or b.may_overflow is not None:
        lost = [np.zeros(shape, bool) if ball.may_overflow is None else ball.may_overflow for ball in (a, b)]
        overflow = np.where(keep, lost[0].reshape(shape), lost[1].reshape(shape))
    mid, rad = np.where(keep, a.mid.reshape(shape), b.mid), np.where(keep, a.radius.reshape(shape), b.radius)
    return Ball(mid, a.arithmetic, rad, may_overflow=overflow)


def last_live(mask: NDArray[np.bool_], final: bool = False) -> NDArray[np.intp]:
    """For each step the index of the last unmasked one before it, or -1: (batch, timesteps). `final`: after the end,
    (batch, 1)."""
    index = np.maximum.accumulate(np.where(mask, np.arange(mask.shape[1]), -1), axis=1)
    return index[:, -1:] if final else np.concatenate([np.full_like(index[:, :1], -1), index[:, :-1]], axis=1)
