"""The judge: Case + Candidate -> what was found. It knows neither Keras nor any cell in particular.

Judging is by residuals where the candidate's states can be seen: each step is computed in float64 from the candidate's
own previous state, on balls, so no error travels from one step to the next and the length of the sequence does not
matter. What a cell carries unseen (LSTM's c) goes along as a ball. A model is judged layer by layer, each from the
candidate's own inputs to it, where the candidate shows them; layers that it does not show are judged together with the
next one that it does. Where only a last output is seen, or layers stand unseen between, in the order of preference:
balls carried through (`forward`), the sequence that the candidate shows when its `layer` says so or when it is stepped
from its own states (`stepped`), and the spread of perturbed references (`prefixes`, `sampled`).
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.functions import Answer, Candidate, walk
from parity.candidates.matching import onnx_y
from parity.cases.case import Case
from parity.cases.drawing import generator
from parity.errors import CandidateError
from parity.judging.findings import Finding, Tally, Tolerance, largest
from parity.rounding.arithmetic import Arithmetic, chosen
from parity.rounding.balls import Ball, on_balls
from parity.rounding.perturbed import Run
from rnn_scratch import Bidirectional, Sequential
from rnn_scratch.layers import Layer, Recurrent

where: Any = np.where  # of balls it makes a ball

Array = NDArray[Any]
Mask = NDArray[np.bool_]

BLOCK = 1 << 16
"""Elements of state judged at a time: what stays in a core's cache, and what bounds the memory of a check."""

FORWARD_STEPS = 5
STEPPED_STEPS = 1000
RUNS = 16
RUN_STEPS = 2000
VACUOUS = 0.1
"""A tolerance of that part of the signal or more decides nothing."""


def examine(candidate: Candidate, case: Case, tolerance: Tolerance, arithmetic: Arithmetic | None = None) -> Finding:
    """Ask the candidate that question and judge what it answers, by the best method its answer allows; in the
    arithmetic of the layer's dtype, or in that one."""
    if case.calls > 1:
        return judge_calls(case, candidate.converse(case), tolerance)
    return judge_answer(case, candidate.ask(case), tolerance, arithmetic, Asker(candidate, case))


def rejudge(case: Case, answers: Sequence[Answer], tolerance: Tolerance) -> Finding:
    """Judge answers that were given before against that case, which need not be the one that was asked."""
    return judge_calls(case, answers, tolerance) if case.calls > 1 else judge_answer(case, answers[0], tolerance)


def judge_answer(
    case: Case,
    answer: Answer,
    tolerance: Tolerance,
    arithmetic: Arithmetic | None = None,
    asker: "Asker | None" = None,
    start: tuple[Array, ...] | None = None,
    proof: Tally | None = None,
) -> Finding:
    """One answer judged. asker: whom more may be asked. start: states that the candidate itself returned before, from
    which the call starts, if not from the case's own. proof: the tally to add to, if not a new one."""
    finding = Finding(case, notes=list(answer.notes), proof=proof or Tally(), answers=(answer,))
    answer = viewed(case, answer, finding)
    finding.wrong = finding.wrong or wrong_structure(case, answer)
    if finding.wrong:
        return finding
    returned = {array.dtype for array in (*(answer.outputs or ()), answer.sequence) if array is not None}
    dtype = last_dtype(case.layer)
    for other in returned - {dtype}:
        finding.notes.append(f"returned {other}: judged in {dtype}, the layer's precision")
    with np.errstate(all="ignore"):
        x = case.x if case.tokens else exact(case.x, arithmetic)
        given = case.start if start is None else start
        judge = Judge(case.layer, x, case.mask, given, finding, tolerance, arithmetic, asker)
        judge.start_given = start is None
        judge.judge(answer.outputs or (), answer)
    return finding


def viewed(case: Case, answer: Answer, finding: Finding) -> Answer:
    """The answer as the case's layer would have given it."""
    if case.view is None:
        return answer
    outputs = None
    with contextlib.suppress(IndexError, ValueError):  # arrays of any shape may come
        outputs = None if answer.outputs is None else case.view.undo(answer.outputs)
    if outputs is None:
        finding.wrong = "what was seen is no such view"
        return answer
    return replace(answer, outputs=outputs, sequence=None, layers={}, sequences={})


def exact(values: Array, arithmetic: Arithmetic | None = None) -> Ball:
    return Ball(values.astype(np.float64), chosen(values.dtype, arithmetic))


def last_dtype(layer: Layer) -> np.dtype[Any]:
    return last_dtype(layer.layers[-1]) if isinstance(layer, Sequential) else layer.dtype


def wrong_structure(case: Case, answer: Answer) -> str | None:
    """What is wrong with the number or the shapes of the arrays, if anything."""
    if answer.outputs is None:
        whole = case.sequence_shape
        found = whole if answer.sequence is None else answer.sequence.shape
        return None if found == whole else f"expected shape {whole}; received {found}"
    expected = list(case.output_shapes)
    received = [output.shape for output in answer.outputs]
    if received != expected and not (answer.partial and received == expected[: len(received)]):
        told = likeness(expected[0], received[0]) if received else ""
        return f"expected {_shapes(expected)}; received {_shapes(received)}{told}"
    if isinstance(case.layer, Sequential):
        for name, _, _, shape in case.part_shapes():
            seen = answer.layers.get(name)
            if seen is not None and seen.shape != shape:
                return f"layer {name}: expected shape {shape}; received {seen.shape}"
    return None


def likeness(expected: tuple[int, ...], received: tuple[int, ...]) -> str:
    """What another shape looks like, where that is plain."""
    if received == expected[1:]:
        return ", as one sequence without the batch axis has it"
    if received == (math.prod(expected),):
        return ", which is as many numbers, flat: say their shape"
    if received == onnx_y(expected):
        return ", which is ONNX's Y, (timesteps, directions, batch, units)"
    if len(expected) == 3 and received == (expected[0], 1, *expected[1:]):
        return ", which is ONNX's Y where batch was taken for time: transpose the first two axes of x and of Y"
    if len(received) > len(expected) and [n for n in received if n > 1] == [n for n in expected if n > 1]:
        return ", with an axis of 1 too many"
    return ""


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return f"shape {shapes[0]}" if len(shapes) == 1 else f"{len(shapes)} arrays of shapes {', '.join(map(str, shapes))}"


def judge_calls(case: Case, answers: Sequence[Answer], tolerance: Tolerance) -> Finding:
    """Several calls, one after another. Of a stateful layer each starts from the state that the candidate itself showed
    at the end of the one before; where it did not, the reference's goes on from call to call, on balls."""
    finding = Finding(case, answers=tuple(answers))
    steps, layer = case.timesteps // case.calls, case.layer
    states: tuple[Any, ...] = tuple(exact(s) for s in case.start)
    for n, answer in enumerate(answers):
        call, kept = case.call(n), layer.stateful and n > 0
        finding.wrong = finding.wrong or wrong_structure(call, answer)
        if finding.wrong:
            return finding
        start = ended(call, answers[n - 1]) if kept else None
        blind = kept and start is None
        if layer.stateful and ended(call, answer) is None:
            states = on_from(call, answer, states, finding, tolerance, n * steps, compare=blind)
        if not blind:
            found = judge_answer(call, answer, tolerance, start=start)
            finding.method += [method for method in found.method if method not in finding.method]
            finding.proof.merge(found.proof, n * steps)
            finding.evidence.merge(found.evidence, n * steps)
            finding.vacuous = finding.vacuous or found.vacuous
    return finding


def ended(case: Case, answer: Answer) -> tuple[Array, ...] | None:
    """The states after a call, where the candidate showed them all."""
    layer, outputs = case.layer, answer.outputs or ()
    if len(outputs) == len(case.output_shapes) > len(layer.state_units):
        return tuple(outputs[-len(layer.state_units) :])
    if isinstance(layer, Recurrent) and case.mask is None and len(layer.state_units) == 1 and outputs:
        return (outputs[0][:, -1] if layer.return_sequences else outputs[0],)
    return None


def on_from(
    call: Case, answer: Answer, states: tuple[Any, ...], finding: Finding, tolerance: Tolerance, at: int, compare: bool
) -> tuple[Any, ...]:
    """The states after a call from those before it, on balls, and what it puts out compared."""
    with np.errstate(all="ignore"):
        x = call.x if call.tokens else exact(call.x)
        y, states = on_balls(call.layer).forward(x, call.mask, states)
        if compare:
            finding.method += ["forward"] if "forward" not in finding.method else []
            judge = Judge(call.layer, x, call.mask, (), finding, tolerance)
            for got, ball in zip(answer.outputs or (), call.layer.results(y, states), strict=False):
                judge.compare_result(finding.proof, got, ball, at)
                if np.any(ball.radius >= VACUOUS * judge.signal(ball.mid)):
                    finding.vacuous = "what rounding may do to the unseen state is as wide as the signal"
    return states


@dataclass(frozen=True)
class Asker:
    """Whom to ask further questions of the same case."""

    candidate: Candidate
    case: Case

    def can(self, *takes: str) -> bool:
        return self.candidate.callable and self.candidate.takes >= set(takes)


@dataclass(frozen=True)
class Spread:
    """The reference, mid (batch, steps, n); how far perturbed runs of it spread, width (batch, steps, 1); and where
    that says anything, not being as wide as the signal nor out of the candidate's range, useful (batch, steps, 1)."""

    mid: Array
    width: Array
    useful: Array


class Judge:
    """One layer's answer to one question, judged; what is seen goes into the finding.

    x: (batch, timesteps, ...), a ball, or token ids. start: the states that the call starts from. arithmetic: that of
    the layer's dtype if None. asker: None for a layer inside a model, which cannot be asked by itself.
    """

    def __init__(
        self,
        layer: Layer,
        x: Any,
        mask: Mask | None,
        start: tuple[Array, ...],
        finding: Finding,
        tolerance: Tolerance,
        arithmetic: Arithmetic | None = None,
        asker: Asker | None = None,
    ) -> None:
        self.layer, self.x, self.mask, self.start = layer, x, mask, start
        self.finding, self.tolerance, self.asker = finding, tolerance, asker
        self.override = arithmetic
        self.arithmetic = chosen(last_dtype(layer), arithmetic)
        self.lifted = on_balls(layer, arithmetic)
        if isinstance(x, Ball) and x.dtype != layer.dtype:
            self.x = x.astype(layer.dtype)
        mids = (values(self.x), *start)
        self.finite = all(bool(np.isfinite(array).all()) for array in mids)
        self.batch, self.timesteps = self.x.shape[:2]
        self.last_step = self.timesteps - 1
        self.last_steps: tuple[Array, Array] | None = None
        self.start_given = True

    def judge(self, outputs: Sequence[Array], answer: Answer) -> None:
        if not outputs and answer.sequence is not None and not isinstance(self.layer, Recurrent):
            shown = self.inside(self.layer.with_sequences(), self.x, self.mask, self.start)
            shown.opaque((answer.sequence,))  # of a step function: a wrong layer in place of a recurrent one
        elif isinstance(self.layer, Sequential):
            self.chain(outputs, answer)
        elif isinstance(self.layer, Recurrent):
            self.recurrent(self.layer, outputs, answer.sequence)
        elif isinstance(self.layer, Bidirectional) and self.halves(self.layer, outputs, answer):
            return
        else:
            self.opaque(outputs)

    def inside(
        self, layer: Layer, x: Any, mask: Mask | None, start: tuple[Array, ...], finding: Finding | None = None
    ) -> "Judge":
        finding = finding or self.finding
        return Judge(layer, x, mask, start, finding, self.tolerance, self.override)

    # --- layers made of layers ---

    def chain(self, outputs: Sequence[Array], answer: Answer) -> None:
        """Layer by layer, from one that is seen to the next."""
        assert isinstance(self.layer, Sequential)
        x, mask = self.x, self.mask
        span: dict[str, tuple[Layer, tuple[Array, ...]]] = {}
        names = list(self.layer.parts)
        for name, (layer, own) in zip(names, self.layer.shares(self.start), strict=True):
            span[name] = layer, own
            seen = list(outputs) if name == names[-1] else [answer.layers[name]] if name in answer.layers else None
            if seen is None and name in answer.sequences:
                seen = [answer.sequences[name][:, -1]]
            if seen is None:
                continue
            part = Finding(self.finding.case)
            self.span(span, x, mask, seen, answer.sequences.get(name), part)
            self.finding.add_part(tuple(span), part)
            if name == names[-1]:
                return
            mask = self.mask_after([layer for layer, _ in span.values()], x, mask)
            dtype = last_dtype(layer)
            x = Ball(seen[0].astype(np.float64), chosen(dtype, self.override))
            x.relative = x.arithmetic.unit  # what goes on may be wider than what is returned
            span = {}

    def span(
        self,
        span: Mapping[str, tuple[Layer, tuple[Array, ...]]],
        x: Any,
        mask: Mask | None,
        seen: Sequence[Array],
        sequence: Array | None,
        part: Finding,
    ) -> None:
        """Layers of which the last one's outputs are seen. Those without states are carried, however long."""
        layers = list(span.values())
        while len(layers) > 1 and not layers[0][0].state_units:
            layer, _ = layers.pop(0)
            y, _ = on_balls(layer, self.override).forward(self._cast(layer, x), mask, ())
            mask, x = layer.compute_mask(x, mask), y
        if len(layers) == 1:
            ((layer, start),) = layers
            whole = self.asker if len(span) == len(self.layer.parts) == 1 else None
            judge = self.inside(layer, x, mask, start, part)
            judge.asker = whole
            judge.judge(seen, Answer(tuple(seen), sequence=sequence))
        else:
            model = Sequential([layer for layer, _ in layers])
            self.inside(model, x, mask, tuple(s for _, own in layers for s in own), part).opaque(seen)

    def _cast(self, layer: Layer, x: Any) -> Any:
        return x.astype(layer.dtype) if isinstance(x, Ball) and x.dtype != layer.dtype else x

    def mask_after(self, layers: Sequence[Layer], x: Any, mask: Mask | None) -> Mask | None:
        for n, layer in enumerate(layers):
            mask = layer.compute_mask(x, mask)
            if n + 1 < len(layers):
                start = tuple(exact(state, self.override) for state in layer.initial_states(self.batch))
                x, _ = on_balls(layer, self.override).forward(self._cast(layer, x), mask, start)
        return mask

    def halves(self, layer: Bidirectional, outputs: Sequence[Array], answer: Answer) -> bool:
        """Each direction by itself; False where they cannot be told apart."""
        parts = [part for part in layer.directions if isinstance(part, Recurrent)]
        apart = layer.apart(outputs) if len(parts) == 2 else None
        if apart is None:
            return False
        *y, states = apart
        shown: Mapping[str, Array] = answer.sequences
        if not layer.return_sequences and not shown and self.timesteps > FORWARD_STEPS and self.mask is None:
            shown = self.shown_halves(layer)
        n = len(parts[0].state_units)
        own = states[:n], states[n:]
        for name, part, (_, start), half, after in zip(
            layer.parts, parts, layer.shares(self.start), y, own, strict=True
        ):
            judge = self.inside(part, self.x, self.mask, start)
            before = self.finding.tally.first
            judge.recurrent(part, (half, *after), shown.get(name))
            if self.finding.tally.first is not before:
                order = ", timesteps in its order of processing" if part.go_backwards else ""
                self.finding.notes.append(f"first in the {name} half{order}; units counted within it")
        return True

    def shown_halves(self, layer: Bidirectional) -> Mapping[str, Array]:
        """The sequences of both directions, of a candidate with `layer` that shows them when its layer says so."""
        whole = self.shown()
        apart = None if whole is None else layer.with_sequences().apart(whole)
        if apart is None:
            return {}
        sequences = dict(zip(layer.parts, apart[:2], strict=True))
        self.remember(sequences=sequences)
        return sequences

    def opaque(self, outputs: Sequence[Array]) -> None:
        """A layer whose states cannot be seen from outside: balls carried through, or samples."""
        if self.layer.state_units and self.timesteps > FORWARD_STEPS:
            self.end_to_end(outputs)
        elif self.forward(outputs):
            self.finding.method.append("forward")
        else:  # balls that outgrew the signal accuse rightly, but prove nothing
            self.end_to_end(outputs)

    # --- one recurrent layer ---

    def recurrent(self, layer: Recurrent, outputs: Sequence[Array], sequence: Array | None) -> None:
        if sequence is None and layer.return_sequences and outputs:
            sequence = outputs[0]
        if sequence is not None and self.hidden_steps(layer):
            sequence = None
        if sequence is not None and (layer.return_sequences or not outputs or self.ends_in(sequence, outputs)):
            self.finding.method.append("stepwise" if outputs else "stepped")
            carried = self.stepwise(sequence)
            self.ends(sequence, outputs, self.finding.proof, carried)
        elif self.timesteps <= FORWARD_STEPS:
            if self.forward(outputs):
                self.finding.method.append("forward")
                shown = self.shown()
                if shown is not None and not self.hidden_steps(layer):  # from its own states the bounds are tighter
                    self.stepwise(shown[0])
            else:
                self.end_to_end(outputs)
        else:
            self.end_to_end(outputs)

    def hidden_steps(self, layer: Recurrent) -> bool:
        """Whether unmasked outputs are zeroed, as some backends do, so that they do not show the state."""
        rule = layer.mask_rule(self.mask)
        return rule.keep is not None and rule.shown is not None and bool((rule.keep & ~rule.shown).any())

    def processed(self, layer: Recurrent) -> Ball:
        x: Ball = self.x[:, ::-1] if layer.go_backwards else self.x
        return x

    def processed_mask(self, layer: Recurrent) -> Any:
        return self.mask[:, ::-1] if self.mask is not None and layer.go_backwards else self.mask

    def stepwise(self, sequence: Array) -> tuple[Ball, ...]:
        """Every step from the candidate's own previous state, all steps of a block at once but for what is carried.
        Returns what is carried after the last step."""
        layer, cell = self.layer, self.lifted.cell  # type: ignore[attr-defined]
        assert isinstance(layer, Recurrent)
        batch, timesteps, units = sequence.shape
        block = max(1, BLOCK // (batch * units))
        mask, x = self.processed_mask(layer), self.processed(layer)
        live = None if mask is None else last_live(mask)
        carried = tuple(self.exactly(state) for state in self.start[1:])
        self.last_steps = np.zeros((batch, units)), np.zeros((batch, units))
        for start in range(0, timesteps, block):
            steps = slice(start, min(start + block, timesteps))
            previous, relative = self.previous(sequence, live, steps)
            h = self.returned(rows(previous), rows(relative))
            p = cell.project(self._rows(x[:, steps]))
            if cell.carried:
                keep = None if mask is None else mask[:, steps, None]
                ball, carried = self.carry(cell, cell.gates_of(p, h), carried, keep, previous.shape)
            else:
                ball = cell.update(p, h)[0]
            self.keep_last(ball.reshape(*previous.shape), start)
            ball = self.masked(ball, previous, None if live is None else live[:, steps], steps)
            self.compare(self.finding.proof, sequence[:, steps], ball, start)
            if cell.carried and np.any(ball.radius >= self.signal(ball.mid)):
                bounded = cell.recurrent_activation.high <= 1
                why = "" if bounded else f" ({cell.recurrent_activation.name} is not bounded by 1)"
                self.finding.vacuous = (
                    f"after {steps.stop} steps what rounding may do to c, unseen, is as wide as the signal{why}"
                )
        return carried

    def keep_last(self, ball: Ball, start: int) -> None:
        """What the last unmasked step of each row should put out, once it is among these."""
        assert self.last_steps is not None
        last = self.last_live()[:, 0] - start
        here = np.flatnonzero((last >= 0) & (last < ball.shape[1]))
        for kept, array in zip(self.last_steps, (ball.mid, ball.radius), strict=True):
            kept[here] = array[here, last[here]]

    def last_live(self) -> NDArray[np.intp]:
        """Of each row the last unmasked step in the order of processing, or -1: (batch, 1)."""
        assert isinstance(self.layer, Recurrent)
        mask = self.processed_mask(self.layer)
        return np.full((self.batch, 1), self.last_step) if mask is None else last_live(mask, final=True)

    def _rows(self, x: Ball) -> Ball:
        return x.reshape(-1, x.shape[-1])

    def carry(
        self, cell: Any, gates: Sequence[Ball], carried: tuple[Ball, ...], keep: Any, shape: tuple[int, ...]
    ) -> tuple[Ball, tuple[Ball, ...]]:
        """The states that are not seen, step by step through gates that are known for all steps."""
        each = [gate.reshape(*shape) for gate in gates]
        visible = []
        for t in range(shape[1]):
            h, *new = cell.carry(*(gate[:, t] for gate in each), *carried)
            visible.append(h)
            carried = tuple(n if keep is None else where(keep[:, t], n, c) for n, c in zip(new, carried, strict=True))
        stacked: Any = np.stack(visible, axis=1)
        return stacked, carried

    def exactly(self, state: Array) -> Ball:
        ball = exact(state, self.arithmetic)
        ball.relative = 0.0 if self.start_given else self.arithmetic.unit
        return ball

    def previous(self, sequence: Array, live: NDArray[np.intp] | None, steps: slice) -> tuple[Array, Array]:
        """The state before each step, (batch, steps, units) float64, and its relative radius.

        Under a mask it is the last unmasked output, not the previous one. A candidate may keep its state wider than it
        returns it; the initial state was given to it, so that one is exact.
        """
        first = self.start[0]
        if live is None:
            head = first[:, None] if steps.start == 0 else sequence[:, steps.start - 1, None]
            before = np.concatenate([head, sequence[:, steps.start : steps.stop - 1]], axis=1)
            given = (np.arange(steps.start, steps.stop) == 0)[None, :, None]
        else:
            index = live[:, steps, None]
            given = index < 0
            before = np.where(given, first[:, None], np.take_along_axis(sequence, np.maximum(index, 0), axis=1))
        exact_start = given & self.start_given
        relative = np.broadcast_to(np.where(exact_start, 0.0, self.arithmetic.unit), (*before.shape[:2], 1))
        return before.astype(np.float64), relative

    def returned(self, previous: Array, relative: Array) -> Ball:
        """States as the candidate returned them. One that overflowed when it was returned may be a number inside."""
        h = Ball(previous, self.arithmetic, relative=relative)
        if self.finite and not np.isfinite(previous.max(initial=0) - previous.min(initial=0)):
            h.may_overflow = np.isinf(previous) & (relative > 0)
        return h

    def masked(self, ball: Ball, previous: Array, live: NDArray[np.intp] | None, steps: slice) -> Ball:
        """The rule of `Recurrent` for masked steps, on all steps of a block at once."""
        layer = self.layer
        assert isinstance(layer, Recurrent)
        if self.mask is None or live is None:
            return ball
        rule = layer.mask_rule(self.mask)
        before = rule.before_first(self.start[0][:, None])
        repeated = np.where(live[..., None] >= 0, previous, before)
        ball = ball.reshape(*previous.shape)
        ball = where(self.processed_mask(layer)[:, steps, None], ball, self.copied(repeated))
        zeros = self.copied(np.zeros_like(previous))
        return ball if rule.shown is None else where(rule.shown[:, steps, None], ball, zeros)

    def copied(self, array: Array) -> Ball:
        """Values that were handed on, perhaps kept wider than they are returned."""
        rad = self.arithmetic.unit * np.abs(array) + self.arithmetic.tiny
        return Ball(array.astype(np.float64), self.arithmetic, rad)

    def ends(self, sequence: Array, outputs: Sequence[Array], tally: Tally, carried: Sequence[Ball] = ()) -> None:
        """The last output, where the sequence was seen beside it, and the final states."""
        layer = self.layer
        assert isinstance(layer, Recurrent)
        if outputs and not layer.return_sequences:
            self.compare(tally, outputs[0][:, None], self.copied(sequence[:, -1]))
        live = self.last_live()
        kept = np.take_along_axis(sequence, np.maximum(live, 0)[..., None], axis=1)[:, 0]
        first = self.or_computed(self.copied(np.where(live < 0, self.start[0], kept)), live >= 0)
        states = (first, *carried)
        for state, ball in zip(outputs[1:], states, strict=False):
            self.compare(tally, state[:, None], self.at_least_tiny(ball))

    def or_computed(self, state: Ball, computed: NDArray[np.bool_]) -> Ball:
        """A final state that is the output of the last step, or one that was computed beside it, by the same step: a
        compiler may well do that."""
        if self.last_steps is None:
            return state
        mid, rad = self.last_steps
        wide = np.maximum(rad, np.abs(state.mid - mid) + state.radius)
        beside = computed & np.isfinite(wide)
        return Ball(np.where(beside, mid, state.mid), self.arithmetic, np.where(beside, wide, state.radius))

    def at_least_tiny(self, ball: Ball) -> Ball:
        rad = np.maximum(ball.radius, self.arithmetic.tiny)  # an initial state that came through has none
        return Ball(ball.mid, self.arithmetic, rad, may_overflow=ball.may_overflow)

    # --- balls carried through ---

    def forward(self, outputs: Sequence[Array]) -> bool:
        """The whole layer on balls, every result compared. False where the balls outgrew the signal."""
        start = tuple(self.exactly(state) for state in self.start)
        y, states = self.lifted.forward(self.x, self.mask, start)
        results = self.layer.results(y, states)
        for got, ball in zip(outputs, results, strict=False):
            self.compare_result(self.finding.proof, got, ball)
        width = largest(np.nan_to_num(results[0].radius))
        return not (self.last_step and self.layer.state_units and width >= VACUOUS * self.signal(results[0].mid))

    def signal(self, mid: Array) -> float:
        return largest(np.abs(np.nan_to_num(mid))) or 1.0

    # --- evidence ---

    def end_to_end(self, outputs: Sequence[Array]) -> None:
        """Outputs after many steps, the states unseen. They are proved where the candidate can be made to show a proved
        sequence that ends in that very output; otherwise there is the evidence of perturbed references."""
        layer = self.layer
        if isinstance(layer, Recurrent):
            for method, view in self.views(layer):
                self.finding.method.append(method)
                carried = self.stepwise(view)
                if self.ends_in(view, outputs, carried):
                    if method == "stepwise":
                        self.remember(sequence=view)
                    return
        if not (isinstance(layer, Recurrent) and layer.return_sequences):
            self.prefixes(layer, outputs)
        self.finding.method.append("sampled")
        for got, spread in zip(outputs, self.sampled(self.x, self.mask), strict=False):
            self.against_spread(got, spread, self.timesteps)

    def remember(self, **seen: Any) -> None:
        """What the candidate showed when it was asked for more is part of its answer."""
        if self.finding.answers:
            self.finding.answers = (replace(self.finding.answers[0], **seen),)

    def prefixes(self, layer: Layer, outputs: Sequence[Array]) -> None:
        """The same layer after fewer steps, and the last step from the state before it."""
        if not (self.asker and self.asker.candidate.callable and isinstance(layer, Recurrent)):
            return
        if self.finding.method:
            return
        before = None
        try:
            for t in (self.timesteps // 2, self.last_step - 1):
                case = self.asker.case.first(t + 1)
                seen = self.prefix(case)
                spreads = self.sampled(exact(case.x, self.override), case.mask)
                for got, spread in zip(seen, spreads, strict=False):
                    self.against_spread(got, spread, t + 1)
                before = seen, spreads
        except CandidateError as error:
            self.finding.notes.append(f"shorter sequences not asked: {error}")
            return
        self.finding.method.append("prefixes")
        if before and self.mask is None and not layer.cell.carried:
            self.residual(layer, before[0][0], outputs[0], before[1][0])

    def prefix(self, case: Case) -> Sequence[Array]:
        """What the candidate makes of the steps up to some step alone."""
        assert self.asker
        answer = self.asker.candidate.ask(case)
        if wrong := wrong_structure(case, answer):
            raise CandidateError(f"candidate: for {case.timesteps} steps, {wrong}")
        return answer.outputs or ()

    def views(self, layer: Recurrent) -> Iterator[tuple[str, Array]]:
        """The sequences that the candidate can be made to show: by the setting of its `layer`, or step by step."""
        if self.asker is None or not self.asker.candidate.callable or self.hidden_steps(layer):
            return
        shown = self.shown()
        if shown is not None:
            yield "stepwise", shown[0]
        if self.asker.can("initial_state") and (not layer.cell.carried or layer.return_state):
            with contextlib.suppress(CandidateError):
                yield "stepped", self.stepped(layer)

    def shown(self) -> tuple[Array, ...] | None:
        """The sequence that a candidate with `layer` returns when that layer says so, or None if it does not."""
        if self.asker is None or not self.asker.can("layer"):
            return None
        case = replace(self.asker.case, layer=self.asker.case.layer.with_sequences())
        with contextlib.suppress(CandidateError):
            answer = self.asker.candidate.ask(case)
            if answer.outputs and not wrong_structure(case, answer):
                return answer.outputs
        return None

    def ends_in(self, sequence: Array, outputs: Sequence[Array], carried: Sequence[Ball] = ()) -> bool:
        """Whether the outputs are those of the sequence's end, but for a rounding of what is handed on."""
        if sequence.shape[1] < self.timesteps:
            return False
        tally = Tally()
        self.ends(sequence, outputs, tally, carried)
        return tally.worst <= 1 and not tally.undecided

    def stepped(self, layer: Recurrent) -> Array:
        """The candidate called on one step at a time from its own last states: its sequence, the mask being ours."""
        assert self.asker
        asked, candidate = self.asker.case, self.asker.candidate

        def step(t: int, states: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
            case = replace(asked.steps(t, t + 1, states), mask=None)
            answer = candidate.ask(case)
            if wrong := wrong_structure(case, answer):
                raise CandidateError(f"candidate: for one step, {wrong}")
            assert answer.outputs is not None
            h = answer.outputs[0].reshape(states[0].shape)
            return h, (h, *answer.outputs[2:])

        if self.timesteps > STEPPED_STEPS:
            self.finding.notes.append(f"stepped through the first {STEPPED_STEPS:,} of {self.timesteps:,} steps")
        return walk(asked, step, min(self.timesteps, STEPPED_STEPS))

    def sampled(self, x: Any, mask: Mask | None) -> list[Spread]:
        """For each result, the float64 reference and how far runs of it spread that have every rounding replaced by
        the largest allowed one (`Run`)."""
        copies, batch = RUNS + 1, self.batch
        name = self.asker.case.id if self.asker else self.layer.name
        run = Run(copies, batch, generator(0, f"{name} signs"))
        arithmetic = chosen(self.layer.dtype, self.override).perturbed(run)

        def tiled(array: Array) -> Array:
            return np.tile(array, (copies, *[1] * (array.ndim - 1)))

        def shaken(ball: Ball) -> Ball:
            mid = Ball(tiled(ball.mid), arithmetic)
            moved = ball.rad is not None or np.any(ball.relative)
            return Ball(run.moved(mid.mid, tiled(ball.radius)), arithmetic) if moved else mid

        states = tuple(shaken(self.exactly(state)) for state in self.start)
        layer, steps = self.lifted, x.shape[1]
        backwards = isinstance(layer, Recurrent) and layer.go_backwards
        if isinstance(layer, Recurrent) and mask is None and not layer.return_sequences:
            for start in range(0, steps - RUN_STEPS, RUN_STEPS):  # copies of all steps at once would fill the memory
                part = slice(start, start + RUN_STEPS)
                if backwards:
                    part = slice(steps - part.stop, steps - part.start)
                _, states = layer.forward(shaken(x[:, part]), None, states)
            rest = steps - len(range(0, steps - RUN_STEPS, RUN_STEPS)) * RUN_STEPS
            x = x[:, :rest] if backwards else x[:, steps - rest :]
        inputs = shaken(x) if isinstance(x, Ball) else tiled(x)
        y, states = layer.forward(inputs, None if mask is None else tiled(mask), states)
        return [self.spread(ball.mid, run) for ball in self.layer.results(y, states)]

    def spread(self, tiles: Array, run: Run) -> Spread:
        steps = tiles.shape[1] if tiles.ndim > 2 else 1
        runs = tiles.reshape(run.copies, self.batch, steps, -1)
        mid = runs[0]
        width = np.abs(runs - mid).max(axis=(0, 3))[..., None]
        x = values(self.x)
        hidden: Any = np.isnan(x.astype(np.float64)).reshape(self.batch, -1).any(axis=1)
        came_in: Array = hidden[:, None, None] & np.isnan(mid).any(axis=-1, keepdims=True)
        width = np.where(came_in, 0, width) + self.arithmetic.tiny  # NaN of the inputs is not a matter of rounding
        fits: Array = np.abs(mid).max(axis=-1, keepdims=True) + width <= self.arithmetic.largest
        signal = max(self.signal(mid), self.visited())
        useful: Any = came_in | (fits & (width < VACUOUS * signal)) & ~run.lost[:, None, None]
        return Spread(mid, width, useful)

    def visited(self) -> float:
        """How large the sequence gets before its end, of which only the end is seen."""
        layer = self.layer
        if not isinstance(layer, Recurrent) or layer.return_sequences:
            return 0.0
        plain = layer.with_sequences().astype(np.float64)
        x, mask, few = values(self.x), self.mask, slice(None, RUN_STEPS)
        y, _ = plain.forward(
            x[:, few], None if mask is None else mask[:, few], tuple(s.astype(np.float64) for s in self.start)
        )
        return max(largest(np.abs(np.nan_to_num(array))) for array in (y, self.start[0].astype(np.float64)))

    def against_spread(self, got: Array, spread: Spread, steps: int) -> None:
        got = as_steps(got)
        ball = Ball(spread.mid, self.arithmetic, np.broadcast_to(spread.width, spread.mid.shape))
        first = 0 if got.shape[1] > 1 else steps - 1
        self.compare(self.finding.evidence, got, ball, first, spread.useful)
        if not spread.useful.all():
            rows: Array = np.asarray(spread.useful.all(axis=(1, 2)))
            self.finding.vacuous = (
                f"after {steps} steps correct implementations may differ by {float(spread.width.max()):.2g}: "
                f"of {int((~rows).sum())} of {len(rows)} rows nothing can be said end to end"
            )

    def residual(self, layer: Recurrent, before: Array, after: Array, spread: Spread) -> None:
        """The last step from the prefix's state, which may be as far from the candidate's own one as runs spread."""
        rad = self.arithmetic.unit * np.abs(before) + spread.width[:, 0]
        cell = self.lifted.cell  # type: ignore[attr-defined]
        x = self.processed(layer)[:, self.last_step]
        ball = cell.update(cell.project(x), Ball(before.astype(np.float64), self.arithmetic, rad))[0]
        self.compare(self.finding.evidence, after[:, None], ball, self.last_step, spread.useful)

    # --- comparison ---

    def compare_result(self, tally: Tally, got: Array, ball: Ball, timestep: int = 0) -> None:
        """One result of the layer, as returned: with or without an axis of time."""
        single = got.ndim == 2
        at = timestep + self.last_step if single else timestep
        self.compare(tally, as_steps(got), self.at_least_tiny(ball), at)

    def compare(
        self, tally: Tally, got: Array, ball: Ball, timestep: int | None = None, usable: Array | None = None
    ) -> None:
        """got: (batch, steps, units); the ball's rows are its batch and steps, flattened or not. usable: the elements
        to look at, broadcast to all; all if None."""
        mid, rad = ball.mid.reshape(got.shape), ball.radius.reshape(got.shape)
        overflow = None if ball.may_overflow is None else np.broadcast_to(ball.may_overflow, ball.shape)
        overflow = None if overflow is None else overflow.reshape(got.shape)
        tally.expect(mid, rad)
        rad = self.tolerance.widen(rad, mid)
        at = self.last_step if timestep is None else timestep
        if overflow is None and (usable is None or usable.all()) and tally.add(got, mid, rad, at):
            return
        decided = self.classes(got, mid, rad, overflow)
        tally.add(got, mid, rad, at, decided if usable is None else np.where(usable, decided, 0.0))

    def classes(self, got: Array, mid: Array, rad: Array, may_overflow: Array | None) -> Array:
        """0 where NaN or infinity agree, NaN where nobody can tell, 1 where the difference decides."""
        agree = np.isnan(got) & np.isnan(mid)
        agree |= np.isinf(got) & (
            (got == mid) | ((np.abs(mid) + rad > self.arithmetic.largest) & (np.sign(got) == np.sign(mid)))
        )
        if swallows_nan(self.layer):
            agree |= np.isnan(mid)
        unknown = np.isnan(rad) & np.isfinite(mid) & np.isfinite(got)
        if may_overflow is not None:
            within = (np.abs(got - mid) <= rad) & (rad < VACUOUS * np.abs(mid))
            unknown |= may_overflow & ~within  # tanh of what overflowed is finite, and may have the other sign
        return np.where(agree, 0.0, np.where(unknown, np.nan, 1.0))


def swallows_nan(layer: Layer) -> bool:
    """Whether some activation in it returns a number for NaN in implementations in use."""
    cell = getattr(layer, "cell", layer)
    own = (getattr(cell, name, None) for name in ("activation", "recurrent_activation"))
    return any(getattr(f, "swallows_nan", False) for f in own) or any(map(swallows_nan, layer.parts.values()))


def values(x: Any) -> Array:
    array: Array = x.mid if isinstance(x, Ball) else x
    return array


def as_steps(array: Array) -> Array:
    """(batch, steps, units), whatever axes stand between or are missing."""
    return array[:, None] if array.ndim == 2 else array.reshape(*array.shape[:2], -1)


def rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def last_live(mask: Mask, final: bool = False) -> NDArray[np.intp]:
    """For each step the index of the last unmasked one before it, or -1: (batch, timesteps). `final`: after the end,
    (batch, 1)."""
    index = np.maximum.accumulate(np.where(mask, np.arange(mask.shape[1]), -1), axis=1)
    return index[:, -1:] if final else np.concatenate([np.full_like(index[:, :1], -1), index[:, :-1]], axis=1)
