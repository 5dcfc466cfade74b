"""Objects that keep a state of their own, what makes them, and functions of one sequence."""

import keras
import numpy as np
import pytest

import parity

L = keras.layers
X = np.random.default_rng(1).standard_normal((3, 5, 3)).astype("f")


def layer(stateful=False):
    made = L.GRU(4, return_sequences=True, stateful=stateful)
    made.build((3 if stateful else None, None, 3))
    rng = np.random.default_rng(3)
    made.set_weights([rng.standard_normal(w.shape) / 2 for w in made.get_weights()])
    return made


OWN = parity.from_keras(layer())


class Stream:
    """Goes on from its last call, where that had as many rows."""

    def __init__(self, spoil=lambda h: h):
        self.h, self.spoil = None, spoil

    def __call__(self, x):
        start = self.h if self.h is not None and len(self.h) == len(x) else None
        y = OWN(x, initial_state=start)
        self.h = self.spoil(y[:, -1])
        return y


class Resettable(Stream):
    def reset_state(self):
        self.h = None


def lost(h):
    return None


def spoiled(h):
    return h[:, ::-1]


def ids(report):
    return [cause.id for cause in report.causes]


def test_an_object_is_called_again_as_the_stateful_layer_is():
    report = parity.check(Stream(), layer(True), X)
    assert report.verdict == "PASS", str(report)
    assert any("give it a method reset_state()" in told for told in report.not_asked)
    report = parity.check(Stream(lost), layer(True), X)
    assert (report.verdict, ids(report)) == ("FAIL", ["state-reset-between-calls"])
    report = parity.check(Stream(spoiled), layer(True), X)
    assert report.verdict == "FAIL"
    assert "state-not-reset" not in ids(report)


def test_a_function_that_keeps_a_state_is_held_against_it_too():
    stream, spoil = Stream(), Stream(spoiled)
    assert parity.check(lambda x: stream(x), layer(True), X).verdict == "PASS"
    assert parity.check(lambda x: spoil(x), layer(True), X).verdict == "FAIL"


@pytest.mark.parametrize("candidate", [Stream, lambda: Stream(), Resettable(), Resettable().__call__])
def test_what_can_be_made_anew_is_asked_everything(candidate):
    report = parity.check(candidate, layer(True), X)
    assert report.verdict == "PASS", str(report)
    assert not any("keeps its state" in told for told in report.not_asked)
    report = parity.check(candidate, layer(), X)
    assert report.verdict == "PASS", str(report)
    assert "keeps its state between calls, which the layer does not" in str(report)


@pytest.mark.parametrize("spoil", [lost, spoiled])
def test_what_is_made_anew_and_keeps_its_state_wrongly_fails(spoil):
    assert parity.check(lambda: Stream(spoil), layer(True), X).verdict == "FAIL"
    assert parity.check(Resettable(spoil), layer(True), X).verdict == "FAIL"


def test_an_object_that_keeps_its_state_and_the_layer_does_not():
    report = parity.check(Stream(), layer(), X)
    assert (report.verdict, ids(report)) == ("FAIL", ["state-not-reset"])
    assert any("give it a method reset_state()" in told for told in report.known)


def test_what_makes_no_candidate_is_told_so():
    class Needs:
        def __init__(self, weights): ...

    with pytest.raises(parity.CandidateError, match=r"Needs\(\) raised TypeError.*without arguments"):
        parity.check(Needs, layer(), X)


def one(x):
    """A function of one sequence that raises on a batch."""
    if x.ndim != 2:
        raise ValueError("expected (timesteps, input_dim)")
    return OWN(x)


def scanned(x):
    """One that takes the rows of a batch for timesteps, and says nothing."""
    h, ys = np.zeros(4, "f"), []
    cell = OWN.cell
    for x_t in x:
        p, q = x_t @ cell.Wx.T + cell.b[0], h @ cell.Wh.T + cell.b[1]
        z, r = (1 / (1 + np.exp(-(p[..., s] + q[..., s]))) for s in (slice(0, 4), slice(4, 8)))
        h = z * h + (1 - z) * np.tanh(p[..., 8:] + r * q[..., 8:])
        ys.append(h)
    return np.stack(ys)


@pytest.mark.parametrize("candidate", [one, scanned])
def test_a_function_of_one_sequence_is_asked_row_by_row(candidate):
    report = parity.check(candidate, layer(), X)
    assert report.verdict == "PASS", str(report)
    assert "a function of one sequence (timesteps, input_dim): it was asked row by row" in str(report)


def test_a_function_of_one_sequence_that_is_wrong_fails():
    report = parity.check(lambda x: one(x)[::-1], layer(), X)
    assert report.verdict == "FAIL"
    assert "row by row" in str(report)
    assert parity.check(lambda x: OWN(x)[::-1], layer(), X).verdict == "FAIL"


def tflite(tmp_path, stateful):
    import tensorflow as tf

    inputs = keras.Input((5, 3), batch_size=3)
    own = L.GRU(4, return_sequences=True, stateful=stateful)
    model = keras.Model(inputs, own(inputs))
    model.set_weights(layer().get_weights())
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return str(path), model


def test_a_tflite_file_keeps_its_state_as_the_stateful_layer_does_or_fails(tmp_path):
    pytest.importorskip("tensorflow")
    path, model = tflite(tmp_path, True)
    report = parity.check(path, model, X)
    assert report.verdict == "PASS", str(report)
    path, plain = tflite(tmp_path, False)
    assert parity.check(path, model, X).verdict == "FAIL"
    path, _ = tflite(tmp_path, True)
    report = parity.check(path, plain, X)
    assert report.verdict == "PASS", str(report)
    assert "reset its variables, or make a new Interpreter, before each sequence" in str(report)
