"""A file of weights as a candidate, in whatever layout: the layer that is asked about, with those weights in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from parity.adapters import torch
from parity.candidates.answer import Answer, as_output
from parity.cases.case import ANY, Case
from parity.disk import LARGEST, arrays_in, expect_file
from parity.errors import CandidateError, InputError, ParityError
from parity.extras import needed
from parity.ports.layouts import LAYOUTS, Arrays
from parity.ports.manifest import MANIFEST
from parity.ports.packing import recognised, unpacked
from rnn_scratch.models import Model


class Weights:
    """A file of weights as a candidate: the layer that is asked about, with those weights in it."""

    callable = True
    fixed = ANY
    takes = frozenset({"mask", "initial_state"})

    def __init__(self, path: str) -> None:
        self.path = path
        self.arrays, layout = read(path)
        self.layout = layout if layout in LAYOUTS else None

    def ask(self, case: Case) -> Answer:
        try:
            layer = unpacked(case.layer, *recognised(case.layer, self.arrays, self.layout))
        except InputError as error:
            raise CandidateError(f"--candidate: {self.path}: {error}") from None
        with np.errstate(all="ignore"):
            if isinstance(layer, Model):
                return _outputs_of(layer, case)
            y = case.put_to(layer)
        outputs = y if isinstance(y, tuple) else (y,)
        return Answer(tuple(as_output(output) for output in outputs))

    def converse(self, case: Case) -> list[Answer]:
        raise CandidateError("candidate: weights alone keep no state")


def _outputs_of(model: Model, case: Case) -> Answer:
    """The answer with what each layer puts out."""
    found = dict(model.outputs(case.x))
    (last,) = model.output_names
    y = found.pop(last)
    return Answer(y if isinstance(y, tuple) else (y,), layers=found)


def read(path: str) -> tuple[Arrays, str | None]:
    """The arrays of an .npz, .safetensors or .pt file, and the layout that its manifest names. CandidateError for a
    file that is none."""
    try:
        arrays, manifest = _read(Path(path))
    except ParityError:
        raise
    except OSError as error:
        raise CandidateError(f"--candidate: {path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CandidateError(f"--candidate: {path}: expected weights: {reason[:200]}") from None
    return arrays, str(manifest.get("layout")) if isinstance(manifest, dict) else None


def _read(path: Path) -> tuple[Arrays, Any]:
    """The arrays and the manifest, {} where there is none."""
    expect_file(path)
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    if path.suffix == ".npz":
        arrays = arrays_in(path.read_bytes())
        text = arrays.pop(MANIFEST, None)
        return arrays, {} if text is None else json.loads(text.tobytes())
    if path.suffix in (".pt", ".pth"):
        return torch.state_dict(str(path)), {}
    library = needed("safetensors", "a .safetensors file", "safetensors")
    with library.safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    return arrays, json.loads(metadata.get("manifest", "{}"))
