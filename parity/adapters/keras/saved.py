"""Saved Keras models: of Keras 3, and of Keras 2, whose files Keras 3 as a rule cannot load."""

import importlib
import json
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from parity.adapters.keras.library import keras, muted_start
from parity.errors import MissingExtraError, ModelError
from parity.terminal import briefly


def load_model(path: str) -> Any:
    """A saved Keras model, in safe mode (no Lambda code is run). One saved by Keras 2 is read through tf_keras where
    that is installed, whose layers it was made of (its hard_sigmoid is another function).

    Raises ModelError for anything else, and MissingExtraError where a file needs tf_keras.
    """
    file = Path(path)
    _expect_saved(file, path)
    module = _keras_2(path) if saved_by(file).startswith("2.") else keras()
    try:
        with muted_start():  # other backends than TensorFlow start it here
            return module.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        name = "Keras" if module.__name__ == "keras" else module.__name__
        raise ModelError(f"{path}: {name} cannot load it: {briefly(error)}") from error


def _expect_saved(file: Path, path: str) -> None:
    """ModelError, with the path as the user gave it, for what cannot be a saved model."""
    if file.is_dir():
        raise ModelError(f"{path}: {_folder(file)}")
    if file.exists() and not file.is_file():
        raise ModelError(f"{path}: expected a file; it is a pipe or a device")
    if not file.is_file():
        raise ModelError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise ModelError(f"{path}: the file is empty")
    if file.suffix == ".keras" and not zipfile.is_zipfile(file):
        raise ModelError(f"{path}: not a Keras file, or cut short (a .keras file is a zip archive)")
    if file.suffix not in (".keras", ".h5", ".hdf5"):
        raise ModelError(f"{path}: expected a model saved by Keras (.keras or .h5)")


def _folder(folder: Path) -> str:
    """What a folder is, and what to give in its place."""
    if (folder / "saved_model.pb").exists():
        return (
            "a SavedModel folder, a graph without its layers; expected the model as Keras saves it (.keras or .h5): "
            "model.save('model.keras')"
        )
    return "expected a model saved by Keras (.keras or .h5); it is a folder"


def saved_by(file: Path) -> str:
    """The version of Keras in the file, "" where it says none."""
    try:
        return _version_in_zip(file) if file.suffix == ".keras" else _version_in_h5(file)
    except Exception:  # whatever is wrong with the file, Keras says it when it loads it
        return ""


def _version_in_zip(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))


def _version_in_h5(file: Path) -> str:
    with importlib.import_module("h5py").File(file) as archive:
        version = archive.attrs.get("keras_version", "")
        return version.decode() if isinstance(version, bytes) else str(version)


def _keras_2(path: str) -> ModuleType:
    try:
        with muted_start():
            return importlib.import_module("tf_keras")
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: saved by Keras 2, which needs tf_keras: pip install 'keras-parity[keras2]'"
        ) from error
