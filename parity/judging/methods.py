"""By which method an answer is judged: what its layer says of itself, and what was seen, decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.answer import Answer
from parity.judging.evidence import end_to_end, remember, shown
from parity.judging.findings import Finding
from parity.judging.proof import ends, ends_in, forward, hides_steps, stepwise
from parity.judging.query import Query, cast, exact, last_dtype
from parity.rounding.arithmetic import chosen
from parity.rounding.balls import Ball, on_balls
from rnn_scratch import Sequential
from rnn_scratch.base import Layer, Mask, Values
from rnn_scratch.layers import Recurrent
from rnn_scratch.models import Model

Array = NDArray[Any]


def judge(query: Query, finding: Finding, outputs: Sequence[Array], answer: Answer) -> None:
    """What the layer put out, into the finding."""
    layer = query.layer
    if isinstance(layer, Recurrent):
        _recurrent(query, finding, outputs, answer.sequence)
    elif not outputs and answer.sequence is not None:
        # of a step function: a wrong layer in place of a recurrent one
        whole = query.inside(layer.with_sequences(), query.x, query.mask, query.start)
        _opaque(whole, finding, (answer.sequence,))
    elif isinstance(layer, Model):
        _model(query, layer, finding, outputs, answer)
    elif not _apart(query, finding, outputs, answer):
        _opaque(query, finding, outputs)


def _opaque(query: Query, finding: Finding, outputs: Sequence[Array]) -> bool:
    """A layer whose states cannot be seen from outside: balls carried through, which is told, or samples."""
    endless = query.layer.state_units and query.long
    # balls that outgrew the signal accuse rightly, but prove nothing
    if endless or not forward(query, finding, outputs):
        end_to_end(query, finding, outputs)
        return False
    finding.method.append("forward")
    return True


# --- one recurrent layer ---


def _recurrent(query: Query, finding: Finding, outputs: Sequence[Array], sequence: Array | None) -> None:
    if sequence is None and query.recurrent.return_sequences and outputs:
        sequence = outputs[0]
    if sequence is not None and _shows_the_states(query, sequence, outputs):
        finding.method.append("stepwise" if outputs else "stepped")
        walk = stepwise(query, finding, sequence)
        ends(query, sequence, outputs, finding.proof, walk)
        return
    if _opaque(query, finding, outputs) and not hides_steps(query):
        sequences = shown(query)
        if sequences is not None:  # from its own states the bounds are tighter
            stepwise(query, finding, sequences[0])


def _shows_the_states(query: Query, sequence: Array, outputs: Sequence[Array]) -> bool:
    """Whether each step of the sequence can be judged from the one before, and it is that of the outputs."""
    if hides_steps(query):
        return False
    return query.recurrent.return_sequences or not outputs or ends_in(query, sequence, outputs)


# --- layers side by side ---


def _apart(query: Query, finding: Finding, outputs: Sequence[Array], answer: Answer) -> bool:
    """Each part by itself; False where they cannot be told apart."""
    layer = query.layer
    apart = layer.apart(outputs)
    if apart is None or not all(isinstance(part, Recurrent) for part in layer.parts.values()):
        return False
    sequences = answer.sequences or _shown_apart(query, finding)
    for (name, part), (_, start) in zip(layer.parts.items(), layer.shares(query.start), strict=True):
        before = finding.tally.first
        _recurrent(query.inside(part, query.x, query.mask, start), finding, apart[name], sequences.get(name))
        if finding.tally.first is not before:
            order = ", timesteps in its order of processing" if getattr(part, "go_backwards", False) else ""
            finding.notes.append(f"first in the {name} half{order}; units counted within it")
    return True


def _shown_apart(query: Query, finding: Finding) -> Mapping[str, Array]:
    """The sequence of each part, of a candidate with `layer` that shows them when its layer says so; none where they
    are not needed."""
    if not query.long or query.mask is not None or _returns_sequences(query.layer):
        return {}
    whole = shown(query)
    apart = None if whole is None else query.layer.with_sequences().apart(whole)
    if apart is None:
        return {}
    sequences = {name: results[0] for name, results in apart.items()}
    remember(finding, sequences=sequences)
    return sequences


def _returns_sequences(layer: Layer) -> bool:
    recurrent = [part for part in layer.parts.values() if isinstance(part, Recurrent)]
    return all(part.return_sequences for part in recurrent)


# --- models ---


@dataclass(frozen=True)
class _Span:
    """Layers one after another of which only the last one's outputs are seen.

    x, mask: what goes into the first. layers: by name, each with the states that it starts from.
    """

    x: Values
    mask: Mask | None
    layers: Mapping[str, tuple[Layer, tuple[Array, ...]]] = field(default_factory=dict)

    def then(self, name: str, layer: Layer, start: tuple[Array, ...]) -> "_Span":
        return replace(self, layers={**self.layers, name: (layer, start)})


def _model(query: Query, model: Model, finding: Finding, outputs: Sequence[Array], answer: Answer) -> None:
    """Node by node, from those that are seen to the next."""
    spans = dict.fromkeys(model.input_names, _Span(query.x, query.mask))
    nodes = model.nodes.items()
    for (name, node), (layer, start) in zip(nodes, model.shares(query.start), strict=True):
        (fed,) = node.inputs
        spans[name] = span = spans[fed].then(name, layer, start)
        seen = outputs if name in model.output_names else _seen(answer, name)
        if seen is None:
            continue
        part = Finding(finding.case)
        _judge_span(query, model, span, part, seen, answer.sequences.get(name))
        finding.add_part(tuple(span.layers), part)
        if name not in model.output_names:
            spans[name] = _Span(_handed_on(query, layer, seen[0]), _mask_after(query, span))


def _seen(answer: Answer, name: str) -> Sequence[Array] | None:
    """What a layer inside a model put out, where that was seen."""
    if name in answer.layers:
        return [answer.layers[name]]
    return [answer.sequences[name][:, -1]] if name in answer.sequences else None


def _handed_on(query: Query, layer: Layer, seen: Array) -> Ball:
    arithmetic = chosen(last_dtype(layer), query.override)
    # what goes on may be wider than what is returned
    return Ball(seen.astype(np.float64), arithmetic, relative=arithmetic.unit)


def _judge_span(
    query: Query, model: Model, span: _Span, part: Finding, seen: Sequence[Array], sequence: Array | None
) -> None:
    """Layers without states are carried on balls, however long; then one is left, or several behind one output."""
    rest = _carried_through(query, span)
    layers = [layer for layer, _ in rest.layers.values()]
    start = tuple(state for _, own in rest.layers.values() for state in own)
    if len(layers) > 1:
        _opaque(query.inside(Sequential(layers), rest.x, rest.mask, start), part, seen)
        return
    own = query.inside(layers[0], rest.x, rest.mask, start)
    if len(model.parts) == 1:  # then whom to ask of the model is whom to ask of the layer
        own = replace(own, asker=query.asker)
    judge(own, part, seen, Answer(tuple(seen), sequence=sequence))


def _carried_through(query: Query, span: _Span) -> _Span:
    """What is left of a span from the first layer that has states, or its last."""
    layers, x, mask = dict(span.layers), span.x, span.mask
    for name, (layer, _) in list(span.layers.items())[:-1]:
        if layer.state_units:
            break
        y, _ = on_balls(layer, query.override).forward(cast(x, layer), mask, ())
        mask, x = layer.compute_mask(x, mask), y
        del layers[name]
    return _Span(x, mask, layers)


def _mask_after(query: Query, span: _Span) -> Mask | None:
    """The mask that the last layer of a span hands on."""
    x, mask = span.x, span.mask
    *before, (last, _) = span.layers.values()
    for layer, _ in before:
        mask = layer.compute_mask(x, mask)
        start = tuple(exact(state, query.override) for state in layer.initial_states(query.batch))
        x, _ = on_balls(layer, query.override).forward(cast(x, layer), mask, start)
    return last.compute_mask(x, mask)
