"""Targets, made of what the user names: a Keras layer, a saved model, a golden file, a case of the grid."""

import os
from typing import Any

from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.library import environment
from parity.adapters.keras.oracle import Oracle
from parity.adapters.keras.precision import notes_on
from parity.adapters.keras.saved import load_model
from parity.adapters.keras.to_keras import to_keras
from parity.adapters.keras.tree import static_input_shape
from parity.adapters.keras.unbuilt import build_random
from parity.candidates.answer import ANY, Fixed
from parity.candidates.functions import Function, parameters, scratch
from parity.cases.case import Case
from parity.errors import UnsupportedError
from parity.given.case import Inputs, make_case
from parity.given.target import Target
from parity.golden.file import Golden
from parity.golden.recorded import Recorded


def loaded(keras_layer: Any) -> Any:
    """A Keras layer or model, also where a path to a saved one is given."""
    if isinstance(keras_layer, str | os.PathLike):
        return load_model(os.fspath(keras_layer))
    return keras_layer


def of_layer(keras_layer: Any, inputs: Inputs, seed: int, fixed: Fixed = ANY) -> Target:
    """Of a Keras layer or model, and what the user gives it. fixed: the batch and the timesteps that the candidate was
    built for, None where either is open."""
    built = inputs.shape is not None and build_random(keras_layer, inputs.shape, seed)
    told = ["the Keras layer was not built: it was given random weights and biases"] if built else []
    own = from_keras(keras_layer)
    if not own.state_units:
        kinds = ", ".join(part.kind for part in own.parts.values()) or own.kind
        raise UnsupportedError(f"{own.name}: expected at least one recurrent layer; it has {kinds}")
    own.reset_state()  # what a stateful layer holds now is the user's own: it is asked from zeros
    batch, timesteps = static_input_shape(keras_layer)
    case = make_case(own, inputs, (batch, fixed[1] or timesteps), seed)
    policy = getattr(getattr(keras_layer, "dtype_policy", None), "name", own.dtype.name)
    return Target(
        Oracle(keras_layer, own),
        case,
        notes=(*told, *notes_on(keras_layer)),
        versions=environment(keras_layer),
        precision=str(policy),
    )


def of_golden(golden: Golden) -> Target:
    """Of a file in which Keras's answers are recorded."""
    first, *others = golden.cases
    versions = golden.provenance.get("environment", {})
    told = [f"{name} {value}" for name, value in versions.items() if name not in ("python", "numpy")]
    return Target(Recorded(golden), first, tuple(others), versions={"recorded by": ", ".join(told)})


def of_case(case: Case) -> Target:
    """Of a case of the grid, whose layer is made in the Keras here."""
    layer = to_keras(case.layer, batch_size=case.batch if case.layer.stateful else None)
    own = from_keras(layer)  # with the precision and the rules for masks of the backend in use
    own.reset_state()
    return Target(
        Oracle(layer, own),
        case.cast(own.dtype, layer=own),
        companions=False,
        notes=tuple(notes_on(layer)),
        versions=environment(),
    )


def without_keras(case: Case, why: str) -> Target:
    """Of a case where there is no Keras: the reference answers in its place."""
    reference = Function(scratch, parameters(scratch))
    return Target(reference, case, companions=False, notes=(f"Keras was not asked: {why}",), unasked=why)
