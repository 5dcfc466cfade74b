"""What a candidate is and what it answers, whatever kind it is; and how arrays of any library become an answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from parity.cases.case import Case, Fixed
from parity.errors import CandidateError
from parity.terminal import briefly
from rnn_scratch.base import Array, Layer, Shape
from rnn_scratch.layers import Recurrent
from rnn_scratch.models import Model


@dataclass(frozen=True)
class Answer:
    """What came back for a Case.

    outputs: the output and, where the candidate gave them, the states after it; None where only `sequence` is known.
    sequence: the output of every step, (batch, timesteps, units) in the order of processing, where it was seen although
    the layer returns only the last one.
    layers: of a model, what its nodes put out, by their names, where that was seen. sequences: likewise every step of
    those recurrent layers that return only the last one.
    partial: the states may be missing. notes: what to tell the user of the call.
    """

    outputs: tuple[Array, ...] | None
    sequence: Array | None = None
    layers: Mapping[str, Array] = field(default_factory=dict)
    sequences: Mapping[str, Array] = field(default_factory=dict)
    partial: bool = False
    notes: tuple[str, ...] = ()


class Candidate(Protocol):
    """Whatever is judged.

    takes: of "layer", "weights" (those of a layer whose settings stay), "mask", "initial_state", those it can be asked
    with. callable: it can be asked other questions than the user's own. fixed: the batch and the timesteps that it was
    built for, None where either is open.
    """

    takes: frozenset[str]
    callable: bool
    fixed: Fixed

    def ask(self, case: Case) -> Answer: ...

    def converse(self, case: Case) -> list[Answer]:
        """What it answers to each of the calls of a case, its state kept between them; CandidateError if it cannot."""
        ...


# --- by the names of nodes ---


@dataclass(frozen=True)
class Shown:
    """last: what the output node put out, as it came. layers, sequences: as in an Answer."""

    last: Any
    layers: Mapping[str, Array]
    sequences: Mapping[str, Array]


def shown(case: Case, result: Mapping[Any, Any]) -> Shown:
    """A dict of outputs by node, read. CandidateError for names that are none of the model's."""
    names = list(case.layer.parts) if isinstance(case.layer, Model) else [case.layer.name]
    last = names[-1]
    _expect_nodes(result, names)
    layers: dict[str, Array] = {}
    sequences: dict[str, Array] = {}
    for name, layer, whole, shape in _node_shapes(case):
        if name not in result or (name == last and isinstance(result[name], tuple)):
            continue  # an output and states are no array
        layers[name] = as_output(result[name])
        if isinstance(layer, Recurrent) and layers[name].shape == whole != shape:
            sequences[name] = layers[name]
            layers[name] = layers[name][:, -1]
    return Shown(layers.pop(last, result[last]), layers, sequences)


def _expect_nodes(result: Mapping[Any, Any], names: list[str]) -> None:
    unknown = [str(name) for name in result if name not in names]
    if unknown:
        raise CandidateError(f"candidate: {', '.join(unknown)}: no such layer; the model has {', '.join(names)}")
    if names[-1] not in result:
        raise CandidateError(f"candidate: expected the output among its outputs by layer, as {names[-1]!r}")


def _node_shapes(case: Case) -> Iterator[tuple[str, Layer, Shape, Shape]]:
    """A layer by itself is a model of one node, by its own name."""
    if isinstance(case.layer, Model):
        yield from case.part_shapes()
    else:
        yield case.layer.name, case.layer, case.sequence_shape, case.output_shapes[0]


# --- arrays ---


def as_output(value: Any) -> Array:
    """A copy as a NumPy array of a real floating dtype, or CandidateError."""
    if value is None:
        raise CandidateError("candidate: returned None; expected an array of outputs")
    try:
        array = np.array(_on_host(value) if hasattr(value, "detach") else value)
    except Exception as error:
        kind = type(value).__name__
        raise CandidateError(f"candidate: returned {kind}, which is no array: {briefly(error)}") from error
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise CandidateError(f"candidate: returned {array.dtype}; expected an array of floating-point numbers")
    return array


def as_outputs(value: Any) -> tuple[Array, ...]:
    """A tuple of outputs, or the only one."""
    return tuple(as_output(output) for output in (value if isinstance(value, tuple) else (value,)))


def _on_host(tensor: Any) -> Any:
    """A torch tensor's array, without its gradient; NumPy itself knows no bfloat16."""
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
