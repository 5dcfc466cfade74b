"""What a candidate argument is: a function, a module, a file, a command; each its own kind of candidate."""

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from parity.adapters import torch
from parity.adapters.keras.oracle import Installed
from parity.candidates.answer import Candidate
from parity.candidates.functions import Function, parameters, scratch
from parity.candidates.graphs import Graph
from parity.candidates.objects import Object, is_factory, made_by, reset_of, resetting
from parity.candidates.outputs import Outputs
from parity.candidates.processes import SECONDS
from parity.candidates.programs import Program
from parity.candidates.steps import StepFunction, state_parameters
from parity.candidates.weights import Weights
from parity.errors import CandidateError
from parity.golden.file import Golden
from parity.terminal import briefly

_FILES: Mapping[str, Callable[[str, float], Candidate]] = {
    ".onnx": Graph,
    ".tflite": Graph,
    ".npz": lambda path, seconds: Weights(path),
    ".safetensors": lambda path, seconds: Weights(path),
    ".pt": lambda path, seconds: Weights(path),
    ".pth": lambda path, seconds: Weights(path),
}
"""By the suffix of a file: the candidate of its path and of the seconds for one question."""


def as_candidate(value: Any, seconds: float | None = None) -> Candidate:
    """What the argument is: a function `f(x[, layer][, mask][, initial_state])`, a step function
    `step(x_t, state[, layer])`, a torch.nn.Module, outputs; a class, or a function without arguments, that makes one of
    them for each question; or what `--candidate` names: `FILE.py:NAME`, `cmd:...`, an
    .onnx or .tflite file, weights in an .npz or .safetensors file. seconds: how long a program or graph may take for
    one question."""
    if isinstance(value, str | os.PathLike):
        return _named(os.fspath(value), SECONDS if seconds is None else seconds)
    if hasattr(value, "ask") and hasattr(value, "converse"):
        made: Candidate = value
        return made
    if is_factory(value):
        return made_by(value, as_candidate)
    # a module can be called as well: it comes before functions
    if not callable(value):
        return Outputs(value)
    candidate = torch.Module(value) if torch.is_module(value) else _function(value)
    return _with_a_state(value, candidate)


def _function(value: Callable[..., Any]) -> Candidate:
    names = parameters(value)
    states = state_parameters(names)
    return StepFunction(value, names, states) if states else Function(value, names)


def _with_a_state(value: Any, candidate: Candidate) -> Candidate:
    """The candidate that it is, as an object where it is one, or a method of one, which may keep a state."""
    owner = value.__self__ if inspect.ismethod(value) else value
    if isinstance(candidate, StepFunction) or isinstance(owner, type | FunctionType | functools.partial):
        return candidate
    name = reset_of(owner)
    return Object(candidate, None) if name is None else resetting(owner, name, candidate)


def candidate_of_file(value: Any, golden: Golden, seconds: float | None) -> Candidate:
    """What the argument is beside a file of cases: outputs by the numbers of its cases, too; None for the Keras
    installed here, or, where Keras's answers are not in the file, for rnn_scratch."""
    if value is None:
        return Installed() if golden.answers else as_candidate(scratch)
    if isinstance(value, Mapping):
        ids = {n: case.id for n, case in enumerate(golden.cases)}
        return Outputs({ids[n]: outputs for n, outputs in value.items() if n in ids})
    return as_candidate(value, seconds)


def _named(spec: str, seconds: float) -> Candidate:
    """What `--candidate` names."""
    if spec.startswith("cmd:"):
        return Program(spec.removeprefix("cmd:"), seconds)
    suffix = Path(spec).suffix.lower()
    if suffix in _FILES:
        return _FILES[suffix](spec, seconds)
    if ":" not in spec or suffix.startswith(".ipynb:"):
        _refuse_otherwise_written(spec, suffix)
    return as_candidate(_load(spec))


def _refuse_otherwise_written(spec: str, suffix: str) -> None:
    """CandidateError for what is a candidate if it is written in another way: a notebook, a program."""
    if suffix.startswith(".ipynb"):
        raise CandidateError(
            f"--candidate: {spec} is a notebook: make a file of it, `jupyter nbconvert --to script ...`, "
            "and give FILE.py:NAME"
        )
    if suffix != ".py" and os.path.isfile(spec) and os.access(spec, os.X_OK):
        path = shlex.quote(spec if os.path.dirname(spec) else f"./{spec}")
        raise CandidateError(f"--candidate: {spec} is a program: expected 'cmd:{path} {{inputs}} {{outputs}}'")


def _load(spec: str) -> Any:
    """`file.py:name` or `package.module:name` -> the object of that name. CandidateError says what is missing."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise CandidateError(f"--candidate: expected FILE.py:NAME or MODULE:NAME; received {spec!r}")
    try:
        module = _module(place)
    except CandidateError:
        raise
    except (Exception, SystemExit) as error:
        raise CandidateError(f"--candidate: importing {place} raised {briefly(error)}") from error
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise CandidateError(f"--candidate: {place} has no {name!r}{_nearest(name, module)}")
    if not callable(found):
        raise CandidateError(f"--candidate: expected a function; {spec} is a {type(found).__name__}")
    return found


def _nearest(name: str, module: ModuleType) -> str:
    functions = [known for known, value in vars(module).items() if isinstance(value, FunctionType)]
    near = difflib.get_close_matches(name, functions)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        sys.path.insert(0, "")
        return importlib.import_module(place)
    if not path.is_file():
        raise CandidateError(f"--candidate: no file {place}")
    name = f"parity_candidate_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[name] = module  # dataclasses and pickle look a module up by its name
    spec.loader.exec_module(module)
    return module
