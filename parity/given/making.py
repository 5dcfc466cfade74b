"""Targets, made of what the user names: a Keras layer, a saved model, a golden file, a case of the grid."""

import os
from collections.abc import Sequence
from typing import Any

from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.library import environment
from parity.adapters.keras.oracle import Oracle
from parity.adapters.keras.precision import notes_on
from parity.adapters.keras.saved import load_model
from parity.adapters.keras.to_keras import to_keras
from parity.adapters.keras.tree import fixed_batch, is_model, static_input_shape, takes_tokens
from parity.adapters.keras.unbuilt import build_random
from parity.candidates.functions import Function, parameters, scratch
from parity.candidates.sized import Size
from parity.cases.case import ANY, Case, Fixed
from parity.errors import InputError, UnsupportedError
from parity.given.case import Inputs, make_case
from parity.given.target import Target
from parity.golden.file import Golden
from parity.golden.recorded import Recorded


def loaded(keras_layer: Any) -> Any:
    """A Keras layer or model, also where a path to a saved one is given."""
    if isinstance(keras_layer, str | os.PathLike):
        return load_model(os.fspath(keras_layer))
    return keras_layer


def of_layer(keras_layer: Any, inputs: Inputs, seed: int, fixed: Fixed = ANY, only: Sequence[str] = ()) -> Target:
    """Of a Keras layer or model, and what the user gives it. fixed: the batch and the timesteps that the candidate was
    built for, None where either is open. only: those of both of which it takes none but the user's own."""
    declared = static_input_shape(keras_layer) if is_model(keras_layer) else ANY
    axes = 1 if takes_tokens(keras_layer) else 2
    shape = inputs.shape(axes)
    built = shape is not None and build_random(keras_layer, shape, seed, inputs.batch(axes))
    told = ["the Keras layer was not built: it was given random weights and biases"] if built else []
    own = from_keras(keras_layer)
    if not own.state_units:
        kinds = ", ".join(part.kind for part in own.parts.values()) or own.kind
        raise UnsupportedError(f"{own.name}: expected at least one recurrent layer; it has {kinds}")
    own.reset_state()  # what a stateful layer holds now is the user's own: it is asked from zeros
    kept = fixed_batch(keras_layer) if own.stateful else None
    batch, timesteps = static_input_shape(keras_layer)
    case = make_case(own, inputs, (kept or batch, fixed[1] or timesteps), seed)
    sizes = (
        _declared(case, declared, kept)
        | _built_for(case, fixed)
        | _said(case, inputs.batch(axes), shape, only, declared)
    )
    policy = getattr(getattr(keras_layer, "dtype_policy", None), "name", own.dtype.name)
    return Target(
        Oracle(keras_layer, own),
        case,
        notes=(*told, *notes_on(keras_layer)),
        versions=environment(keras_layer),
        precision=str(policy),
        sizes=sizes,
    )


def _declared(case: Case, declared: Fixed, kept: int | None) -> dict[str, Size]:
    """By the Input of a model, and by the states of a stateful layer."""
    sizes = {}
    batch, timesteps = declared
    if timesteps:
        sizes["timesteps"] = Size(case.timesteps, f"the model declares {timesteps}")
    if batch:
        sizes["batch"] = Size(batch, f"the model declares {batch}")
    if kept:
        sizes["batch"] = Size(kept, f"the stateful layer was built for {kept}")
    return sizes


def _built_for(case: Case, fixed: Fixed) -> dict[str, Size]:
    """By the candidate itself, which sees to its batch."""
    if not fixed[1]:
        return {}
    return {"timesteps": Size(case.timesteps, f"the candidate was built for {fixed[1]} timesteps")}


def _said(
    case: Case, batch: int | None, shape: tuple[int, ...] | None, only: Sequence[str], declared: Fixed
) -> dict[str, Size]:
    """By the user. InputError where there is nothing that says which: neither inputs nor a model."""
    known = {"batch": batch or declared[0], "timesteps": shape or declared[1]}
    for name in only:
        if not known[name]:
            expected = "(batch, timesteps, input_dim)" if name == "batch" else "(timesteps, input_dim)"
            raise InputError(f"fixed: {name}: expected inputs, or an input_shape {expected}, to say how many")
    return {name: Size(getattr(case, name), f"--fixed {name}") for name in only}


def of_golden(golden: Golden, fixed: Fixed = ANY, only: Sequence[str] = ()) -> Target:
    """Of a file in which Keras's answers are recorded. fixed, only: as of a layer."""
    first, *others = golden.cases
    versions = golden.provenance.get("environment", {})
    told = [f"{name} {value}" for name, value in versions.items() if name not in ("python", "numpy")]
    sizes = {name: Size(getattr(first, name), why) for name, why in golden.provenance.get("sizes", {}).items()}
    sizes |= _built_for(first, fixed) | {name: Size(getattr(first, name), f"--fixed {name}") for name in only}
    return Target(Recorded(golden), first, tuple(others), versions={"recorded by": ", ".join(told)}, sizes=sizes)


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
