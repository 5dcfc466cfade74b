"""`parity.check` and `parity.assert_parity`: what is asked, what is concluded, what is left alone."""

import keras
import numpy as np
import pytest

import parity
from parity.adapters.keras import oracle as keras_oracle
from parity.cases.case import Case
from parity.judging import proof


def layer(units=5, input_dim=4, **settings):
    made = keras.layers.SimpleRNN(units, **{"return_sequences": True, "bias_initializer": "random_normal", **settings})
    made.build((3 if settings.get("stateful") else None, None, input_dim))
    rng = np.random.default_rng(5)
    made.set_weights([rng.standard_normal(weight.shape) / np.sqrt(len(weight)) for weight in made.get_weights()])
    return made


def forward(x, layer, mask=None, initial_state=None):
    return layer(x, mask=mask, initial_state=initial_state)


X = np.random.default_rng(1).standard_normal((3, 7, 4)).astype("float32")


def test_one_report_says_it_all():
    report = parity.check(forward, layer(), X)
    assert report.verdict == "PASS"
    assert 0 < report.worst < 1
    assert report.first_divergence is None
    assert report.to_dict()["cases"][0]["proved"] is True
    assert "PASS  simple_rnn-b3-t7-i4-u5-seq-tanh" in str(report)


def test_assert_parity_carries_the_report():
    parity.assert_parity(forward, layer(), X)
    with pytest.raises(AssertionError, match="first at timestep 0, batch 0, unit 0") as failure:
        parity.assert_parity(lambda x, layer: -forward(x, layer), layer(), X)
    assert failure.value.report.verdict == "FAIL"


def test_an_unbuilt_layer_is_built_with_random_weights_and_biases():
    fresh = keras.layers.SimpleRNN(5, return_sequences=True)
    report = parity.check(forward, fresh, input_shape=(6, 4))
    assert report.verdict == "PASS"
    assert "was not built" in report.cases[0].notes[0]
    assert np.all(fresh.get_weights()[2] != 0)


def test_an_unbuilt_layer_without_a_shape_is_refused():
    with pytest.raises(parity.InputError, match="pass input_shape"):
        parity.check(forward, keras.layers.SimpleRNN(5))


def test_outputs_need_their_inputs():
    with pytest.raises(parity.InputError, match="expected the inputs"):
        parity.check(np.zeros((3, 7, 5)), layer())


def test_a_case_with_a_mask_needs_a_candidate_that_takes_one():
    with pytest.raises(parity.CandidateError, match="this case has mask"):
        parity.check(lambda x, layer: layer(x), layer(), X, mask=np.ones((3, 7), bool))


def test_what_was_not_asked_is_said():
    k = layer()
    of_outputs = parity.check(np.asarray(k(X)), k, X).not_asked
    of_function = parity.check(forward, k, X).not_asked
    assert {"masks", "initial states other than zero"} <= set(of_outputs)
    assert any("any inputs but these" in text for text in of_outputs)
    assert not {"masks", "initial states other than zero"} & set(of_function)


def test_a_question_that_the_candidate_refuses_is_not_asked():
    def only_batch_3(x, layer):
        if len(x) != 3:
            raise ValueError("built for a batch of 3")
        return layer(x)

    report = parity.check(only_batch_3, layer(), X)
    assert report.verdict == "PASS"
    assert any("built for a batch of 3" in text for text in report.not_asked)


def test_where_keras_and_the_reference_disagree_nothing_is_concluded():
    """Keras's gelu at float64 goes through float32: 4e-9 off."""
    for candidate in (forward, lambda x, layer: -forward(x, layer)):
        report = parity.check(candidate, layer(activation="gelu", dtype="float64"), X)
        assert report.verdict == "INCONCLUSIVE"
        assert report.cases[0].keras_worst > 1e3
        assert "nothing is concluded" in report.cases[0].notes[0]


@pytest.mark.parametrize(("atol", "verdict"), [(0.0, "FAIL"), (1e-3, "PASS"), (1e-9, "FAIL")])
def test_a_tolerance_is_granted_and_never_proved(atol, verdict):
    report = parity.check(lambda x, layer: layer(x) + np.float32(1e-4), layer(), X, atol=atol)
    assert report.verdict == verdict
    assert report.cases[0].proved is (atol == 0)


@pytest.mark.parametrize("tolerance", [{"atol": -1}, {"rtol": float("nan")}, {"atol": float("inf")}])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(parity.InputError, match="finite number"):
        parity.check(forward, layer(), X, **tolerance)


def test_the_keras_layer_is_left_as_it_was():
    k = layer(stateful=True)
    k(X)
    weights, state = k.get_weights(), np.asarray(k.states[0]).copy()
    assert parity.check(forward, k, X).verdict == "PASS"
    np.testing.assert_array_equal(np.asarray(k.states[0]).copy(), state)
    for before, after in zip(weights, k.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_candidate_cannot_spoil_the_check():
    def spoils(x, layer):
        y = layer(x)
        x[:], layer.Wh[:] = 0, 0
        return y

    given = X.copy()
    report = parity.check(spoils, layer(), given)
    np.testing.assert_array_equal(given, X)
    assert report.verdict == "PASS"
    assert {"the candidate changed its x in place; it was given a copy"} < set(report.cases[0].notes)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_keras_in_blocks_is_keras(monkeypatch, sequences, backwards):
    k = layer(return_sequences=sequences, go_backwards=backwards, return_state=True)
    own = parity.from_keras(k)
    oracle = keras_oracle.Oracle(k, own)
    state = np.random.default_rng(2).standard_normal((3, 5)).astype("float32")
    case = Case("blocks", own, X, initial_state=(state,))
    whole = oracle.ask(case)
    monkeypatch.setattr(keras_oracle, "BLOCK_STEPS", 3)
    for a, b in zip(whole.outputs, oracle.ask(case).outputs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mask", [False, True])
def test_blocks_of_time_change_no_verdict(monkeypatch, mask):
    k = layer()
    steps = np.random.default_rng(3).random((3, 7)) < 0.6 if mask else None
    wrong = np.array(k(X, mask=steps))
    wrong[1, 4, 2] += 1e-3
    whole = parity.check(wrong, k, X, mask=steps)
    monkeypatch.setattr(proof, "BLOCK", 1)
    parts = parity.check(wrong, k, X, mask=steps)
    assert parts.worst == pytest.approx(whole.worst)
    assert parts.cases[0].rms == pytest.approx(whole.cases[0].rms)
    for report in (whole, parts):
        first = report.first_divergence
        assert (report.verdict, first.batch, first.timestep, first.unit) == ("FAIL", 1, 4, 2)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (lambda x: None, "returned None"),
        (lambda x: [1, 2], "returned int64"),
        (lambda x: ["a"], "returned <U1"),
        (lambda x: {}, "expected the output among its outputs by layer"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
        (lambda x, temperature: x, "'temperature' is none of x"),
        (lambda: 0, "it takes nothing"),
        (np.zeros((3, 7, 5), int), "returned int64"),
    ],
    ids=["none", "integers", "strings", "dict", "raises", "parameter", "no-parameter", "integer-outputs"],
)
def test_a_candidate_that_is_none_is_a_named_exception(candidate, message):
    with pytest.raises(parity.CandidateError, match=message):
        parity.check(candidate, layer(), X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X[..., :3]}, r"x: expected shape \(batch, timesteps, 4\)"),
        ({"x": X[:, :0]}, "at least 1 timestep"),
        ({"x": X[:0]}, "at least 1 batch row"),
        ({"x": X[0, 0]}, "x: expected shape"),
        ({"x": np.array([["a"]])}, "expected real numbers"),
        ({"x": X, "mask": np.ones((3, 6), bool)}, "mask: expected shape"),
        ({"x": X, "initial_state": np.zeros((2, 5))}, "initial_state: expected shape"),
        ({"input_shape": (3, 7, 4, 1)}, "input_shape: expected"),
        ({"input_shape": (7, 3)}, "x: expected shape"),
    ],
    ids=["features", "no-steps", "no-rows", "no-batch-axis", "words", "mask", "state", "rank", "input-shape"],
)
def test_bad_inputs_are_a_named_exception(arguments, message):
    with pytest.raises(parity.InputError, match=message):
        parity.check(forward, layer(), **arguments)


def only_whole(x, layer, fits):
    """Right where the length fits; of the wrong shape elsewhere."""
    return layer(x) if x.shape[1] in fits else np.zeros((1, 1), "float32")


def test_a_function_of_one_length_is_judged_by_that_length():
    """A graph exported with its number of steps cannot be asked for prefixes."""
    k = layer(return_sequences=False)
    own = parity.from_keras(k)

    def fixed(x):
        if x.shape[1] != 7:
            raise ValueError("built for 7 steps")
        return own(x)

    report = parity.check(fixed, k, X)
    assert report.verdict == "PASS"
    assert report.cases[0].proved is False
    assert any("shorter sequences not asked" in note for note in report.cases[0].notes)
    assert any("built for 7 steps" in text for text in report.not_asked)


def test_a_prefix_of_the_wrong_shape_is_a_failure_and_no_crash():
    k = layer(return_sequences=False)
    own = parity.from_keras(k)
    report = parity.check(lambda x: only_whole(x, own, {7}), k, X)
    assert report.verdict == "FAIL"


def test_a_proof_of_another_question_is_no_proof_of_this_one():
    """Honest as a sequence and when short; the last output of a long chaotic run is made up."""
    k = layer(units=16, return_sequences=False)
    k.set_weights([k.get_weights()[0], 3 * k.get_weights()[1], k.get_weights()[2]])

    def made_up(x, layer):
        y = layer(x)
        return y if layer.return_sequences or x.shape[1] <= 5 else 0 * y

    x = np.random.default_rng(4).standard_normal((2, 100, 4))
    assert parity.check(made_up, k, x).verdict != "PASS"
    report = parity.check(forward, k, x)
    assert (report.verdict, report.cases[0].proved) == ("PASS", True)


def test_a_dead_layer_is_proved_dead():
    k = layer(return_sequences=False, activation="relu")
    k.set_weights([k.get_weights()[0], k.get_weights()[1], np.full(5, -100, "float32")])
    report = parity.check(forward, k, X[:, :3])
    assert (report.verdict, report.cases[0].proved) == ("PASS", True)
    assert parity.check(lambda x, layer: layer(x) + np.float32(1e-3), k, X[:, :3]).verdict == "FAIL"


@pytest.mark.parametrize(("size", "verdict"), [(1e-9, "INCONCLUSIVE"), (1e-4, "FAIL")])
def test_zeros_are_no_port_of_a_layer_that_puts_out_next_to_nothing(size, verdict):
    k = layer(use_bias=False)
    report = parity.check(np.zeros((3, 7, 5), "float32"), k, X * np.float32(size))
    assert (report.verdict, report.cases[0].proved) == (verdict, verdict == "FAIL")
    assert ("zeros would have passed too" in str(report)) == (verdict == "INCONCLUSIVE")


def test_outputs_of_another_dtype_are_judged_in_the_layers_and_said_to_be():
    k = layer()
    report = parity.check(np.asarray(k(X)).astype("float64"), k, X)
    assert report.verdict == "PASS"
    assert "returned float64: judged in float32, the layer's precision" in report.cases[0].notes
    assert parity.check(np.asarray(k(X)).astype("float16"), k, X).verdict == "FAIL"


@pytest.mark.parametrize("shape", [(0, 4), 5, (7,), (7.0, 4), (7, -4)], ids=str)
def test_an_input_shape_that_is_none_is_refused(shape):
    with pytest.raises(parity.InputError, match="input_shape: expected"):
        parity.check(forward, layer(), input_shape=shape)


@pytest.mark.parametrize("seed", [-1, 0.5, "x"])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(parity.InputError, match="seed: expected"):
        parity.check(forward, layer(), X, seed=seed)


def test_a_question_of_ours_that_nobody_can_answer_is_not_held_against_the_case():
    """Three steps are proved; the 30 asked beside them end in chaos."""
    k = layer(units=16, return_sequences=False)
    kernel, recurrent_kernel, bias = k.get_weights()
    k.set_weights([kernel, 6 * recurrent_kernel, 0 * bias])
    own = parity.from_keras(k)
    report = parity.check(lambda x: own(x), k, X[:, :3] / 100)
    assert (report.verdict, report.cases[0].proved) == ("PASS", True), str(report)
    assert any("30 timesteps" in text and "nothing can be said" in text for text in report.not_asked), report.not_asked


def test_a_model_that_begins_with_a_layer_for_each_step_needs_no_shape():
    layers = [keras.layers.TimeDistributed(keras.layers.Dense(3)), keras.layers.SimpleRNN(2, return_sequences=True)]
    model = keras.Sequential([keras.Input((None, 5)), *layers])
    report = parity.check(lambda x, layer: layer.outputs(x), model)
    assert report.verdict == "PASS", str(report)
