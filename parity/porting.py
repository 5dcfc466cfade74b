"""Ports: a Keras layer or model written as the other side loads it, and checked as it will be run there."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from parity import disk
from parity.adapters.keras import library
from parity.adapters.keras.from_keras import from_keras
from parity.adapters.keras.saved import load_model
from parity.api import check
from parity.errors import MissingExtraError
from parity.overwriting import refuse_overwriting
from parity.ports import formats
from parity.ports.formats import FORMATS, Port
from parity.report import provenance
from parity.report.data import Report
from rnn_scratch.base import Layer


def port(
    keras_layer: Any, to: str, path: str, *, layout: str | None = None, seed: int = 0
) -> tuple[Port, Report | None, str]:
    """Write a layer's or model's weights, or the whole of it, as the other side loads it; check what was written.

    keras_layer: as for `check`, built. to: npz, safetensors, torch, onnx or c. path: of the file; its manifest goes
    beside it, as `path`.json, where that is a file. layout: of npz and safetensors, a name of `parity.ports.layouts`.
    Returns what was written; the report of the check, in which the port is read back and run as its user would; and,
    where there is nothing to run it with, None and why. Raises what `check` raises, and UnsupportedError for what
    cannot be carried.
    """
    manifest = f"{path}.json" if disk.is_file_or_new(path) else None
    refuse_overwriting({"path": path, "its manifest": manifest}, {"keras_layer": keras_layer})
    with disk.writing(path) as write, disk.writing(manifest) as write_manifest:
        if isinstance(keras_layer, str | os.PathLike):
            keras_layer = load_model(os.fspath(keras_layer))
        own = from_keras(keras_layer)
        own.reset_state()
        versions = {**provenance.environment(), **library.environment(keras_layer)}
        made = formats.write(own, to, layout, versions)
        report, why = _checked(made, to, keras_layer, seed)
        write(made.data)
        write_manifest((json.dumps(made.manifest, indent=1) + "\n").encode())
    return made, report, why


def candidate(path: str, to: str, layer: Layer) -> Any:
    """What was written, as a candidate. Raises MissingExtraError where there is nothing to run it with."""
    return FORMATS[to].candidate(path, layer)


def _checked(made: Port, to: str, keras_layer: Any, seed: int) -> tuple[Report | None, str]:
    """The report on a file of those bytes, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        copy = Path(folder) / f"port{FORMATS[to].suffix}"
        copy.write_bytes(made.data)
        try:
            return check(candidate(str(copy), to, made.layer), keras_layer, seed=seed), ""
        except MissingExtraError as error:
            return None, str(error)
