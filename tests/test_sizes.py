"""A question stays within the sizes that the model declares and that the port takes."""

import keras
import numpy as np
import pytest

import parity
from parity.cli import cli
from parity.gate import read, run
from parity.golden.file import load

L = keras.layers
STEPS, FEATURES, UNITS = 6, 3, 4
X = np.random.default_rng(1).standard_normal((2, STEPS, FEATURES)).astype("f")


def trained(layer, shape=(None, None, FEATURES)):
    if not layer.built:
        layer.build(shape)
    rng = np.random.default_rng(3)
    layer.set_weights([rng.standard_normal(w.shape) / 2 for w in layer.get_weights()])
    return layer


def model(timesteps=STEPS, batch=None, functional=False):
    inputs, layer = keras.Input((timesteps, FEATURES), batch_size=batch), L.SimpleRNN(UNITS, return_sequences=True)
    made = keras.Model(inputs, layer(inputs)) if functional else keras.Sequential([inputs, layer])
    return trained(made)


class Port:
    """For so many steps and rows, whatever it is given; keeps what it was given."""

    def __init__(self, weights, steps=STEPS, rows=None):
        self.weights, self.steps, self.rows, self.asked = weights, steps, rows, []

    def __call__(self, x):
        self.asked.append(x.shape[:2])
        kernel, recurrent, bias = self.weights
        x = x[: self.rows]
        h, ys = np.zeros((len(x), UNITS), "f"), []
        for t in range(self.steps):
            h = np.tanh(x[:, min(t, x.shape[1] - 1)] @ kernel + h @ recurrent + bias)
            ys.append(h)
        return np.stack(ys, 1)


@pytest.mark.parametrize("functional", [True, False])
def test_the_timesteps_that_a_model_declares_are_all_that_is_asked(functional):
    declared = model(functional=functional)
    port = Port(declared.get_weights())
    report = parity.check(port, declared)
    assert report.verdict == "PASS", str(report)
    assert {steps for _, steps in port.asked} == {STEPS}
    assert f"timesteps other than {STEPS} (the model declares {STEPS})" in report.not_asked
    wrong = declared.get_weights()
    wrong[1] = wrong[1].T
    assert parity.check(Port(wrong), declared).verdict == "FAIL"


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_that_a_model_declares_is_asked_so_many_rows_at_a_time(batch):
    declared = model(None, batch)
    port = lambda x: Port(declared.get_weights(), x.shape[1], batch)(x)  # noqa: E731
    report = parity.check(port, declared, np.repeat(X, 2, 0))
    assert report.verdict == "PASS", str(report)
    assert any(told.startswith(f"batches other than {batch} (the model declares") for told in report.not_asked)


def test_a_port_of_one_length_is_told_how_to_say_so():
    free = model(None)
    report = parity.check(Port(free.get_weights()), free, X)
    assert report.verdict == "FAIL"
    assert any(told.endswith("--fixed timesteps") for told in report.known), report.known
    report = parity.check(Port(free.get_weights()), free, X, fixed="timesteps")
    assert report.verdict == "PASS", str(report)
    assert f"timesteps other than {STEPS} (--fixed timesteps)" in report.not_asked


def test_a_port_of_one_batch_is_told_how_to_say_so():
    free = model(None)
    kernel = free.get_weights()
    port = lambda x: np.resize(Port(kernel, x.shape[1])(x), (2, x.shape[1], UNITS))  # noqa: E731
    report = parity.check(port, free, X)
    assert report.verdict == "FAIL"
    assert any(told.endswith("--fixed batch") for told in report.known), report.known
    assert parity.check(port, free, X, fixed=["batch"]).verdict == "PASS"
    assert parity.check(port, free, input_shape=(2, STEPS, FEATURES), fixed=("batch", "timesteps")).verdict == "PASS"


def test_what_is_fixed_has_to_be_known():
    with pytest.raises(parity.InputError, match="fixed: batch: expected inputs, or an input_shape"):
        parity.check(Port(model().get_weights()), model(None), input_shape=(STEPS, FEATURES), fixed="batch")
    with pytest.raises(parity.InputError, match="fixed: expected of timesteps, batch; received 'units'"):
        parity.check(Port(model().get_weights()), model(None), X, fixed="units")


def test_the_command_line_and_the_file_of_checks(tmp_path, monkeypatch):
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    model(None).save("m.keras")
    arrays = ", ".join(f"np.array({w.tolist()}, 'f')" for w in model(None).get_weights())
    lines = [f"W = [{arrays}]", "def port(x):", "    x = x[:2]", "    h, ys = np.zeros((len(x), 4), 'f'), []"]
    lines += ["    for t in range(6):", "        h = np.tanh(x[:, min(t, x.shape[1] - 1)] @ W[0] + h @ W[1] + W[2])"]
    lines += ["        ys.append(h)", "    return np.stack(ys, 1)"]
    (tmp_path / "port.py").write_text("\n".join(["import numpy as np", *lines]))
    words = ["check", "m.keras", "--candidate", "port.py:port", "--input-shape", "2,6,3"]
    assert CliRunner().invoke(cli, words, standalone_mode=False).return_value == 1
    done = CliRunner().invoke(cli, [*words, "--fixed", "timesteps,batch"], standalone_mode=False)
    assert done.return_value == 0, done.output
    np.save("x.npy", X)
    (tmp_path / "parity.toml").write_text(
        '[[check]]\nmodel = "m.keras"\ncandidate = "port.py:port"\ninputs = "x.npy"\nfixed = ["timesteps", "batch"]\n'
    )
    checks = read("parity.toml")
    assert "--fixed timesteps,batch" in checks[0].command
    assert [report.verdict for _, report in run(checks)] == ["PASS"]


def test_the_plugins_option_is_a_call_option_too(assert_parity):
    free = model(None)
    assert_parity(Port(free.get_weights()), free, X, fixed="timesteps")


def test_a_golden_file_keeps_the_sizes(tmp_path):
    declared, path = model(batch=1), str(tmp_path / "g.npz")
    parity.record(declared, path)
    port = Port(declared.get_weights(), rows=1)
    assert parity.check(port, path).verdict == "PASS"
    assert set(port.asked) == {(1, STEPS)}
    assert {case.batch for case in load(path).cases if not case.rows} == {1}


@pytest.mark.parametrize("batch", [2, 5])
def test_a_stateful_layer_is_asked_in_its_own_batch(tmp_path, batch):
    layer = trained(L.GRU(UNITS, return_sequences=True, stateful=True), (batch, None, FEATURES))
    parity.record(layer, str(tmp_path / "g.npz"), input_shape=(STEPS, FEATURES))
    cases = load(str(tmp_path / "g.npz")).cases
    assert {case.batch for case in cases if not case.rows} == {batch}
    assert any(case.calls == 2 for case in cases)
    assert parity.check(lambda x, layer: layer(x), layer).verdict == "PASS"


def test_one_sequence_without_the_batch_axis():
    free = model(None)
    report = parity.check(lambda x, layer: layer(x), free, X[0])
    assert report.verdict == "PASS"
    assert report.cases[0].id == parity.check(lambda x, layer: layer(x), free, X[:1]).cases[0].id
    unbuilt = L.LSTM(UNITS, return_sequences=True)
    assert parity.check(lambda x, layer: layer(x), unbuilt, X[0]).verdict == "PASS"
    tokens = trained(keras.Sequential([keras.Input((None,)), L.Embedding(9, 3), L.GRU(4)]))
    assert parity.check(lambda x, layer: layer(x), tokens, np.array([1, 5, 2])).verdict == "PASS"
