"""Saved models of both Keras, and what a user gets when something that they need is not installed."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras

import parity
from parity.adapters.keras.saved import load_model, saved_by
from parity.cases.drawing import named_dtype
from parity.errors import MissingExtraError, ModelError


def layers_of(library):
    layers = library.layers
    return [
        layers.Masking(),
        layers.Bidirectional(layers.LSTM(5, return_sequences=True, recurrent_activation="hard_sigmoid"), name="both"),
        layers.GRU(3),
        layers.Dense(2),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(1)
    for library in (keras, tf_keras):
        model = library.Sequential([library.Input((7, 4)), *layers_of(library)])
        model.set_weights([rng.standard_normal(weight.shape) / 2 for weight in model.get_weights()])
        model.save(folder / f"{library.__name__}.keras")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # that .h5 is a legacy format
            model.save(folder / f"{library.__name__}.h5")
    return folder


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_saved_model_belongs_to_the_keras_that_saved_it(folder, library, suffix):
    path = folder / f"{library}{suffix}"
    assert saved_by(path)[0] == {"keras": "3", "tf_keras": "2"}[library]
    report = parity.check(lambda x, layer: layer.outputs(x), path)
    assert report.verdict == "PASS", str(report)
    assert report.environment[library]
    slope = {"keras": "hard_sigmoid", "tf_keras": "hard_sigmoid_keras2"}[library]
    scratch = parity.from_keras(load_model(str(path)))
    assert scratch.parts["both"].parts["backward"].recurrent_activation == slope

    def other_slope(x, layer):
        other = {"hard_sigmoid": "hard_sigmoid_keras2", "hard_sigmoid_keras2": "hard_sigmoid"}[slope]
        for half in layer.parts["both"].parts.values():
            half.cell.recurrent_activation = type(half.cell)(
                **half.weights, recurrent_activation=other
            ).recurrent_activation
        return layer.outputs(x)

    assert parity.check(other_slope, path).verdict == "FAIL"


def test_a_keras_2_file_without_tf_keras(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(MissingExtraError, match=r"saved by Keras 2.*pip install 'keras-parity\[keras2\]'"):
        load_model(str(folder / "tf_keras.keras"))


def test_a_damaged_file_is_one_line(folder, tmp_path):
    whole = (folder / "keras.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ModelError, match=r"cut\.h5: Keras cannot load it") as caught:
        load_model(str(tmp_path / "cut.h5"))
    assert "\n" not in str(caught.value)


def test_bfloat16_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtraError, match="pip install ml_dtypes"):
        named_dtype("bfloat16")


@pytest.mark.parametrize(("backend", "module"), [("jax", "jax"), ("torch", "torch"), ("tensorflow", "tensorflow")])
def test_a_backend_that_is_not_installed(backend, module):
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = ['parity', 'check'];"
        "from parity.cli import main; main()"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR  ")
    assert len(done.stderr.splitlines()) == 1
    assert f"keras-parity[{backend}]" in done.stderr
    assert done.stdout == ""
