"""Keras as the one to agree with: its own outputs for a Case, and what is seen inside it."""

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard, TypeVar

import numpy as np

from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.library import (
    Array,
    Tensor,
    backend_of,
    flat_states,
    module_of,
    no_warnings,
    tensor,
    to_numpy,
)
from parity.adapters.keras.to_keras import around, to_keras
from parity.adapters.keras.tree import chain, is_cell, is_model, state_variables
from parity.candidates.answer import Answer
from parity.cases.case import ANY, Case
from parity.errors import OracleError, ParityError
from parity.kinds.registry import KerasLayer
from parity.terminal import briefly
from rnn_scratch import RNN, Bidirectional
from rnn_scratch.layers import Layer, Recurrent
from rnn_scratch.models import Model

BLOCK_STEPS = 50_000
"""TensorFlow's loop keeps memory for every step; longer sequences are asked for in blocks."""
GRAPH_STEPS = 50
"""Eager TensorFlow takes a millisecond a time step; tracing a graph takes as long as this many steps."""


Tensors = Mapping[str, Tensor]
T = TypeVar("T")


class KerasError(OracleError):
    """Keras itself raised while it computed the outputs to compare with."""


class Oracle:
    """A Keras layer or model that answers Cases with its own outputs, and beside them with what is seen inside.

    Cases with the layer's own weights are put to that very layer; those with other weights (probes), other settings or
    kept state to a twin of it. It is left as it was.
    """

    takes = frozenset({"layer", "mask", "initial_state"})
    callable = True
    fixed = ANY

    def __init__(self, layer: KerasLayer, scratch: Layer) -> None:
        self.layer, self.scratch = layer, scratch
        self.module = module_of(layer)
        self.parts = chain(layer) if is_model(layer) else [layer]
        # A stateful layer would keep the state of a question; a cell alone has no loop.
        self._asked_itself = not scratch.stateful and not is_cell(self.parts[0])

    def ask(self, case: Case) -> Answer:
        try:
            with no_warnings():
                return self._ask(case)
        except ParityError:
            raise
        except Exception as error:
            raise KerasError(f"Keras raised on {case.id}: {briefly(error)}") from error

    def _ask(self, case: Case) -> Answer:
        layer = case.layer
        if isinstance(layer, Model):
            return self._through(layer, case)
        if isinstance(layer, Recurrent):
            return self._looped(layer, case)
        (keras_layer,) = self._layers(case)
        seen: Mapping[str, Array] = {}
        if isinstance(layer, Bidirectional) and not layer.return_sequences and case.mask is None:
            seen = _halves(keras_layer, layer, case)
        return Answer(run(keras_layer, case), sequences=seen)

    def _is_own(self, layer: Layer) -> bool:
        return layer is self.scratch and self._asked_itself

    def _layers(self, case: Case) -> list[KerasLayer]:
        """The Keras layers that compute the case: its own, or others with the case's weights and no state kept."""
        if self._is_own(case.layer):
            return list(self.parts)
        twin = to_keras(_stateless(case.layer), module=self.module)
        return chain(twin) if isinstance(case.layer, Model) else [twin]

    # --- a model ---

    def _through(self, model: Model, case: Case) -> Answer:
        """The layers called in turn, as the model calls them; Keras hands the masks on with the tensors."""
        layers = dict(zip(model.nodes, self._layers(case), strict=True))

        def compute(inputs: Tensors) -> tuple[dict[str, list[Tensor]], Tensors]:
            values, outputs, sequences = dict(inputs), {}, {}
            for name, node in model.nodes.items():
                (x,) = (values[source] for source in node.inputs)
                if _hides_steps(node.layer):
                    sequences[name] = around(layers[name], node.layer.with_sequences())(x)
                values[name] = layers[name](x)
                outputs[name] = _as_list(values[name])
            return outputs, sequences

        first = next(iter(layers.values()))
        outputs, sequences = _computed(compute, first, case)
        arrays = {name: _in_dtypes_of(model.parts[name], several) for name, several in outputs.items()}
        returned = [array for name in model.output_names for array in arrays.pop(name)]
        inside = {name: several[0] for name, several in arrays.items()}
        steps = {name: _in_dtypes_of(model.parts[name], [y])[0] for name, y in sequences.items()}
        return Answer(tuple(returned), layers=inside, sequences=steps)

    # --- a recurrent layer ---

    def _looped(self, layer: Recurrent, case: Case) -> Answer:
        if case.mask is None and case.timesteps > BLOCK_STEPS:
            return self._in_blocks(layer, case)
        outputs = run(self.parts[0] if self._is_own(layer) else self._twin(layer), case)
        if layer.return_sequences:
            return Answer(outputs)
        return Answer(outputs, sequence=run(self._twin(layer.with_sequences()), case)[0])

    def _in_blocks(self, layer: Recurrent, case: Case) -> Answer:
        """The same steps, the state handed from block to block."""
        shown = layer.with_sequences()
        shown.return_state = True
        twin = self._twin(shown)
        states = case.start
        pieces = []
        for start in range(0, case.timesteps, BLOCK_STEPS):
            block = case.steps(start, min(start + BLOCK_STEPS, case.timesteps), states)
            piece, *new = run(twin, block)
            states = tuple(new)
            pieces.append(piece)
        sequence = np.concatenate(pieces, axis=1)
        output = sequence if layer.return_sequences else sequence[:, -1]
        return Answer((output, *states) if layer.return_state else (output,), sequence=sequence)

    def _twin(self, layer: Recurrent) -> KerasLayer:
        """A stateless layer of the same Keras around the same cell, or around one with the case's weights."""
        if isinstance(self.scratch, Recurrent) and layer.cell is self.scratch.cell:
            return around(self.parts[0], layer)
        return to_keras(_stateless(layer), module=self.module)

    # --- several calls ---

    def converse(self, case: Case) -> list[Answer]:
        """Calls one after another of the stateful layer itself, which gets its state back afterwards."""
        variables = state_variables(self.layer)
        held = [to_numpy(variable) for variable in variables]
        try:
            _assign(variables, [np.zeros_like(value) for value in held])
            return [self._call(case.call(n)) for n in range(case.calls)]
        except Exception as error:
            raise KerasError(f"Keras raised on {case.id}: {briefly(error)}") from error
        finally:
            _assign(variables, held)

    def _call(self, case: Case) -> Answer:
        y = tensor(self.layer, case.x)
        for layer in self.parts:
            y = layer(y)
        return Answer(tuple(map(to_numpy, _as_list(y))))


class Installed:
    """The Keras installed here as a candidate: for each case, layers of its own made of the case's layer."""

    takes = frozenset({"layer", "mask", "initial_state"})
    callable = True
    fixed = ANY

    def ask(self, case: Case) -> Answer:
        oracle, own = self._oracle(case)
        return replace(oracle.ask(own), sequence=None, layers={}, sequences={})

    def converse(self, case: Case) -> list[Answer]:
        oracle, own = self._oracle(case)
        return oracle.converse(own)

    def _oracle(self, case: Case) -> tuple[Oracle, Case]:
        layer = to_keras(case.layer, batch_size=case.batch if case.layer.stateful else None)
        own = from_keras(layer)
        return Oracle(layer, own), replace(case, layer=own)


def run(layer: KerasLayer, case: Case) -> tuple[Array, ...]:
    """A Keras layer's outputs as arrays."""
    given: dict[str, Any] = {}  # tf_keras takes no arrays beside its input
    if case.mask is not None:
        given["mask"] = tensor(layer, case.mask)
    if case.initial_state is not None:
        given["initial_state"] = _nested_states(layer, case)

    def compute(inputs: Tensors) -> Tensor:
        (x,) = inputs.values()
        return layer(x, **given)

    return tuple(to_numpy(part) for part in flat_states(_computed(compute, layer, case)))


def _nested_states(layer: KerasLayer, case: Case) -> list[Any]:
    """The initial states as tensors, those of stacked cells one element a cell."""
    states = tuple(tensor(layer, state) for state in case.initial_state or ())
    if not isinstance(case.layer, RNN):
        return list(states)
    cells = [list(own) for _, own in case.layer.shares(states)]
    return [own if len(own) > 1 else own[0] for own in cells]


def _computed(compute: Callable[[Tensors], T], layer: KerasLayer, case: Case) -> T:
    """What it makes of the case's inputs, in a graph where there are many steps: see GRAPH_STEPS."""
    inputs = {name: tensor(layer, array) for name, array in case.inputs.items()}
    unrolled = any(part.unroll for part in case.layer.every(Recurrent))
    if case.timesteps <= GRAPH_STEPS or unrolled or backend_of(layer) != "tensorflow":
        return compute(inputs)
    graph = importlib.import_module("tensorflow").function(compute, autograph=False)
    # not graph(inputs), which warns of being traced anew when many cases are asked
    found: T = graph.get_concrete_function(inputs)(inputs)
    return found


def _hides_steps(layer: Layer) -> TypeGuard[Recurrent]:
    return isinstance(layer, Recurrent) and not layer.return_sequences


def _halves(keras_layer: KerasLayer, layer: Bidirectional, case: Case) -> Mapping[str, Array]:
    """Every output of both directions, of which the layer shows the last ones."""
    found = {}
    halves = (keras_layer.forward_layer, keras_layer.backward_layer)
    states = [own for _, own in layer.shares(case.start)]
    for half, name, part, own in zip(halves, layer.parts, layer.directions, states, strict=True):
        alone = replace(case, layer=part, initial_state=own)
        found[name] = run(around(half, part.with_sequences()), alone)[0]
    return found


def _stateless(layer: Layer) -> Layer:
    twin = copy.deepcopy(layer)
    for part in twin.every(Recurrent):
        part.stateful, part.state = False, None
    return twin


def _as_list(y: Any) -> list[Tensor]:
    return list(y) if isinstance(y, tuple | list) else [y]


def _in_dtypes_of(part: Layer, outputs: Sequence[Tensor]) -> list[Array]:
    return [to_numpy(y).astype(part.dtype, copy=False) for y in outputs]


def _assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
