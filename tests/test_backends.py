"""What holds behind every backend of Keras. `KERAS_BACKEND=jax pytest -m backends` runs these on another one."""

import os
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

import parity
from parity.api import check_grid
from parity.cases.grid import grid
from parity.judging.findings import SAMPLED_FAIL
from rnn_scratch.layers import PROFILES

pytestmark = pytest.mark.backends

BACKEND = os.environ["KERAS_BACKEND"]
CRASHES = {
    # keras-team/keras: torch.flip is handed a tuple of masks
    "torch": ("*-unroll*go_backwards*",),
}
CASES = grid({"timesteps": [10], "units": [8], "batch": [2], "input_dim": [4]})
SETTINGS = [case for case in CASES if fnmatchcase(case.id, "*-b2-t10-i4-u8-seq-tanh*-normal-*")]
LAST = [case for case in CASES if fnmatchcase(case.id, "*-b2-t10-i4-u8-last-tanh-normal-*mask*")]


def test_the_backend_in_use_is_the_one_asked_for() -> None:
    assert keras.backend.backend() == BACKEND


@pytest.mark.parametrize("case", [*SETTINGS, *LAST], ids=lambda case: case.id)
def test_each_layer_and_setting(case: Any) -> None:
    report = check_grid(None, [case])
    assert report.verdict == "PASS", str(report)
    assert report.worst is not None
    assert report.worst <= 1
    assert report.cases[0].keras_worst is not None
    assert report.cases[0].keras_worst <= 1


def wrong(x: Any, layer: Any, mask: Any = None, initial_state: Any = None) -> Any:
    """Half of a gate's recurrent weights are off."""
    Wh = layer.Wh.copy()
    Wh[: layer.units] *= 1.01
    return layer.replace(Wh=Wh)(x, mask=mask, initial_state=initial_state)


@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru"])
def test_a_wrong_port_fails(kind: str) -> None:
    (case,) = (case for case in SETTINGS if case.id == f"{kind}-b2-t10-i4-u8-seq-tanh-normal-state")
    assert check_grid(wrong, [case]).verdict == "FAIL"


TRAPS = {
    "a leading mask and a state": {},
    "the same, unrolled": {"unroll": True},
    "unroll and zero_output_for_mask": {"unroll": True, "zero_output_for_mask": True},
    "unroll, zero_output_for_mask and go_backwards": {
        "unroll": True,
        "zero_output_for_mask": True,
        "go_backwards": True,
    },
}


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("settings", TRAPS.values(), ids=TRAPS)
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_traps_of_the_backends(kind: str, settings: dict[str, Any], sequences: bool) -> None:
    """The reference does as the backend in use does, defects included."""
    if BACKEND == "torch" and "go_backwards" in settings:
        pytest.skip("Keras on torch cannot reverse a mask with unroll")
    keras.utils.set_random_seed(5)
    layer = getattr(L, kind)(5, return_sequences=sequences, **settings)
    states = 2 if kind == "LSTM" else 1
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 4, 2)).astype(np.float32)
    mask = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    initial = tuple(rng.uniform(-1, 1, (3, 5)).astype(np.float32) for _ in range(states))
    layer.build(x.shape)
    layer.set_weights([rng.standard_normal(weight.shape) / 2 for weight in layer.get_weights()])
    scratch = parity.from_keras(layer)
    assert scratch.profile is PROFILES[BACKEND]
    given = {
        "mask": keras.ops.convert_to_tensor(mask),
        "initial_state": [keras.ops.convert_to_tensor(s) for s in initial],
    }
    expected = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(x), **given))
    got = scratch(x, mask=mask, initial_state=initial)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("kind", "wrap"), [("LSTM", False), ("GRU", False), ("GRU", True)])
def test_a_final_state_that_the_backend_computes_beside_the_output(kind: str, wrap: bool) -> None:
    """XLA puts out a GRU's last h twice, a rounding apart."""
    settings = {"return_sequences": True, "return_state": True, "zero_output_for_mask": True}
    layer = getattr(L, kind)(5, **settings)
    layer = L.Bidirectional(layer) if wrap else layer
    layer.build((3, 7, 4))
    rng = np.random.default_rng(17)
    layer.set_weights([rng.standard_normal(weight.shape) / 2 for weight in layer.get_weights()])
    x = rng.standard_normal((3, 7, 4)).astype(np.float32)
    mask = np.arange(7) >= np.array([[0], [2], [4]])
    report = parity.check(lambda x, layer, mask=None: layer(x, mask=mask), layer, x, mask=mask)
    assert report.verdict == "PASS", str(report)

    def stale_state(x: Any, layer: Any, mask: Any = None) -> Any:
        y, *states = layer(x, mask=mask)
        return (y, states[0] * np.float32(1.001), *states[1:])

    assert parity.check(stale_state, layer, x, mask=mask).verdict == "FAIL"


def test_what_keras_cannot_run_is_not_asked() -> None:
    """On torch Keras cannot reverse a mask with unroll; the user's own question has none."""
    layer = L.SimpleRNN(5, return_sequences=True, unroll=True, go_backwards=True)
    report = parity.check(lambda x, layer, mask=None: layer(x, mask=mask), layer, input_shape=(6, 3))
    assert report.verdict == "PASS", str(report)
    assert any("Keras raised" in what for what in report.not_asked) == (BACKEND == "torch")


def bidirectional() -> Any:
    return [
        L.Embedding(11, 6, mask_zero=True),
        L.Bidirectional(L.LSTM(5, return_sequences=True)),
        L.Bidirectional(L.GRU(3)),
        L.Dense(2),
    ]


def masking() -> Any:
    return [L.Masking(), L.GRU(5, return_sequences=True), L.Dropout(0.5), L.LSTM(3), L.Dense(2, activation="softmax")]


MODELS = {
    "embedding, two Bidirectional, dense": ((None,), "int32", bidirectional),
    "masking, stack": ((None, 4), "float32", masking),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    shape, dtype, layers = MODELS[name]
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers()])
    rng = np.random.default_rng(11)
    model.set_weights([rng.standard_normal(weight.shape) / 2 for weight in model.get_weights()])
    report = parity.check(lambda x, layer: layer.outputs(x), model)
    assert report.verdict == "PASS", str(report)
    (case,) = report.cases
    assert [layer.verdict for layer in case.layers] == ["PASS"] * len(model.layers)
    assert case.keras_worst is not None
    assert case.keras_worst <= SAMPLED_FAIL

    def shifted(x: Any, layer: Any) -> Any:
        outputs = dict(layer.outputs(x))
        second = list(outputs)[1]
        outputs[second] = outputs[second] * np.float32(1.001)
        return outputs

    report = parity.check(shifted, model)
    verdicts = {layer.name: (layer.verdict, layer.inputs_differed) for layer in report.cases[0].layers}
    assert report.verdict == "FAIL"
    assert verdicts[model.layers[1].name] == ("FAIL", False)
    assert verdicts[model.layers[-1].name][1]


def test_a_stateful_layer_over_several_calls() -> None:
    model = keras.Sequential([keras.Input(batch_shape=(2, None, 4)), L.SimpleRNN(5, stateful=True)])
    rng = np.random.default_rng(13)
    model.set_weights([rng.standard_normal(weight.shape) / 2 for weight in model.get_weights()])
    report = parity.check(lambda x, layer: layer(x), model)
    assert report.verdict == "PASS", str(report)
    assert not any("between calls" in what for what in report.not_asked)

    def forgets(x: Any, layer: Any) -> Any:
        layer.reset_state()
        return layer(x)

    report = parity.check(forgets, model)
    assert report.verdict == "FAIL"
    assert "2 calls" in " ".join(report.cases[0].notes)


def test_float64_is_judged_in_the_precision_that_was_measured() -> None:
    layer = L.LSTM(5, dtype="float64")
    report = parity.check(lambda x, layer: layer(x), layer, input_shape=(6, 3))
    assert report.verdict == "PASS", str(report)
    told = any("float32's precision" in note for note in report.cases[0].notes)
    assert told == (BACKEND != "tensorflow")
