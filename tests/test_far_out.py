"""Far out: what a port clips where inputs and cell states are large, and what a NaN may spoil."""

import dataclasses

import keras
import numpy as np
import pytest

import parity
from parity.cases.case import Case
from parity.cases.far_out import far_out, is_far_out
from parity.cases.reach import reach

pytestmark = pytest.mark.far_out

D = 4


def layer(kind: str = "LSTM", **settings):
    keras.utils.set_random_seed(3)
    made = getattr(keras.layers, kind)(6, return_sequences=True, **settings)
    made.build((None, None, D))
    rng = np.random.default_rng(4)
    made.set_weights([rng.normal(0, 0.4, w.shape).astype(w.dtype) for w in made.get_weights()])
    return made


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def port(made, clip_x=lambda x: x, clip_z=lambda z: z, clip_c=lambda c: c, tanh=np.tanh):
    """A hand-written LSTM, with what is given left undone."""
    K, R, b = made.get_weights()

    def forward(x):
        h = c = np.zeros((len(x), 6), "f")
        ys = []
        for x_t in clip_x(x).swapaxes(0, 1):
            i, f, g, o = np.split(clip_z(x_t @ K + h @ R + b), 4, axis=1)
            c = clip_c(sigmoid(f) * c + sigmoid(i) * tanh(g))
            h = sigmoid(o) * tanh(c)
            ys.append(h)
        return np.stack(ys, 1)

    return forward


def at(limit):
    return lambda value: np.clip(value, -limit, limit)


def pade(z):
    q = z * z
    over, under = 135135 + q * (17325 + q * (378 + q)), 135135 + q * (62370 + q * (3150 + 28 * q))
    return np.clip(z * over / under, -1, 1)


def test_a_right_port_passes_and_how_far_it_was_asked_is_said():
    made = layer()
    report = parity.check(port(made), made, input_shape=(9, D))
    assert report.verdict == "PASS"
    (said,) = [line for line in report.not_asked if "cell states beyond" in line]
    assert "pre-activations beyond" in said
    assert int(said.rpartition(" ")[2]) >= 20


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"clip_c": at(10)}, "cell-clipped"),
        ({"clip_z": at(6)}, "pre-activations-clipped"),
        ({"clip_x": at(8)}, "inputs-clipped"),
        ({"tanh": pade}, "pade-activation"),
        ({"tanh": lambda z: np.tanh(at(4)(z))}, "activation-ends"),
    ],
)
def test_what_is_wrong_only_far_out_fails_and_is_named(wrong, cause):
    made = layer()
    report = parity.check(port(made, **wrong), made, 0.1 * np.ones((2, 5, D), "f"))
    assert report.verdict == "FAIL"
    assert [found.id for found in report.causes] == [cause]


def test_a_last_output_shows_a_clipped_cell_too():
    made = layer()
    made.return_sequences = False
    whole = port(made, clip_c=at(6))
    assert parity.check(lambda x: whole(x)[:, -1], made, input_shape=(6, D)).verdict == "FAIL"


def asked(made, x, takes=frozenset({"initial_state"})):
    own = parity.from_keras(made)
    return list(far_out(Case("c", own, {"x": own.as_inputs(x)}), takes, 0))


def test_every_gate_is_driven_both_ways_and_cell_states_grow():
    made = layer()
    found = asked(made, np.ones((2, 5, D), "f"))
    assert all(map(is_far_out, found))
    large = found[0]
    z = large.x.reshape(-1, D) @ made.get_weights()[0]
    for gate in np.split(z, 4, axis=1):
        assert gate.max() > 20
        assert gate.min() < -20
    assert not large.x[0].any()
    assert any(reach(case).c > 25 for case in found)
    assert any(case.initial_state and np.abs(case.initial_state[1]).max() > 25 for case in found)


def test_token_ids_are_not_scaled():
    own = keras.Sequential([keras.Input((6,), dtype="int32"), keras.layers.Embedding(9, D), keras.layers.LSTM(3)])
    for case in asked(own, np.ones((2, 6), "i")):
        assert case.x.dtype.kind == "i"
        assert 0 <= case.x.min() <= case.x.max() < 9


def test_what_grows_exponentially_is_not_asked_far_out():
    assert not asked(layer("SimpleRNN", activation="exponential"), np.ones((2, 5, D), "f"))


def test_nan_may_not_spoil_other_rows_nor_be_swallowed():
    made = layer()
    right = port(made)

    def spoils(x):
        y = right(x)
        return y + 0 * x.mean() if x.shape[1] == 4 else y

    assert parity.check(spoils, made, input_shape=(9, D)).verdict == "FAIL"


@pytest.mark.parametrize(
    ("activation", "f", "verdict"),
    [("relu", lambda z: np.fmax(z, 0), "PASS"), ("tanh", lambda z: np.tanh(np.nan_to_num(z)), "FAIL")],
)
def test_nan_is_swallowed_only_where_implementations_do(activation, f, verdict):
    made = layer("SimpleRNN", activation=activation)
    K, R, b = made.get_weights()

    def swallows(x):
        h, ys = np.zeros((len(x), 6), "f"), []
        for x_t in x.swapaxes(0, 1):
            h = f(x_t @ K + h @ R + b)
            ys.append(h)
        return np.stack(ys, 1)

    assert parity.check(swallows, made, input_shape=(9, D)).verdict == verdict


def test_the_gates_of_onnx_runtime_swallow_nan(tmp_path):
    pytest.importorskip("onnxruntime")
    model = keras.Sequential([keras.Input((None, D)), layer()])
    parity.port(model, "onnx", str(tmp_path / "m.onnx"))
    assert parity.check(str(tmp_path / "m.onnx"), model, input_shape=(9, D)).verdict == "PASS"


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_right_code_is_not_accused_far_out_in_other_precisions(kind, dtype):
    made = layer(kind, dtype=dtype)
    assert parity.check(lambda x, layer: layer(x), made, input_shape=(5, D)).verdict == "PASS"


def test_a_question_that_nobody_can_tell_lowers_no_verdict(monkeypatch):
    from parity.checking import asking

    examined = asking._Asking._examined

    def disputed(self, case, of_keras):
        both = examined(self, case, of_keras)
        if not is_far_out(case):
            return both
        return both._replace(candidate=dataclasses.replace(both.candidate, disputed="nobody knows"))

    monkeypatch.setattr(asking._Asking, "_examined", disputed)
    made = layer()
    report = parity.check(port(made), made, input_shape=(5, D))
    assert report.verdict == "PASS"
    assert any("far out, large inputs" in line and "nobody knows" in line for line in report.not_asked)


def test_golden_files_hold_the_far_out_questions(tmp_path):
    made = layer()
    path = str(tmp_path / "g.npz")
    recorded = parity.record(made, path, input_shape=(5, D))
    assert any(map(is_far_out, recorded.cases))
    assert parity.check(port(made), path).verdict == "PASS"
    assert parity.check(port(made, clip_c=at(10)), path).verdict == "FAIL"


def test_a_port_that_clips_on_purpose_says_its_domain():
    made, asked = layer(), []
    clipped = port(made, clip_x=at(2))

    def candidate(x):
        asked.append(x)
        return clipped(x)

    report = parity.check(candidate, made, input_shape=(6, D), domain=(-2, 2))
    assert report.verdict == "PASS"
    assert max(np.abs(x).max() for x in asked) <= 2
    assert any("inputs beyond 1.9" in line or "inputs beyond 2" in line for line in report.not_asked)
    assert parity.check(clipped, made, input_shape=(6, D), domain="-3,3").verdict == "FAIL"


@pytest.mark.parametrize("domain", [(1, 0), (0,), "a,b", (0, np.inf), 3])
def test_a_domain_is_two_numbers(domain):
    made = layer()
    with pytest.raises(parity.InputError, match="domain: expected two finite numbers"):
        parity.check(port(made), made, input_shape=(6, D), domain=domain)
