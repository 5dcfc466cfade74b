"""Step functions: states by the usual names, of one layer and of a whole model."""

import keras
import numpy as np
import pytest

import parity
from parity.errors import CandidateError

L = keras.layers


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(x, h, c, weights):
    kernel, recurrent_kernel, bias = weights
    i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def trained(model):
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype("f") for w in model.get_weights()])
    return model


def layer(kind="LSTM"):
    made = getattr(L, kind)(4, return_sequences=True)
    made.build((None, None, 3))
    return trained(made)


W = layer().get_weights()


def h_and_c(x_t, h, c):
    return lstm(x_t, h, c, W)


def with_output(x_t, hidden, cell):
    h, c = lstm(x_t, hidden, cell, W)
    return h, (h, c)


def cell_first(x_t, c0, h0):
    h, c = lstm(x_t, h0, c0, W)
    return c, h


def one_tuple(x, states):
    return lstm(x, *states, W)


@pytest.mark.parametrize("step", [h_and_c, with_output, cell_first, one_tuple])
def test_states_by_the_usual_names(step):
    report = parity.check(step, layer(), input_shape=(9, 3))
    assert (report.verdict, report.cases[0].proved) == ("PASS", True)


@pytest.mark.parametrize("step", [lambda x_t, h, c: (c, h), lambda x_t, h, c: h_and_c(x_t, c, h)])
def test_states_exchanged_fail(step):
    assert parity.check(step, layer(), input_shape=(9, 3)).verdict == "FAIL"


def test_a_state_with_a_default_is_of_a_whole_sequence():
    simple = layer("SimpleRNN")
    scratch = parity.from_keras(simple)
    assert parity.check(lambda x, h0=None: scratch(x), simple, input_shape=(9, 3)).verdict == "PASS"


def model(last=True):
    layers = [L.LSTM(4, return_sequences=True), L.LSTM(5, return_sequences=not last), L.Dense(2)]
    return trained(keras.Sequential([keras.Input((9, 3)), *layers]))


STACK = [model().get_weights()[n : n + 3] for n in (0, 3, 6)]


def by_layers(x_t, states):
    (h, c), (h2, c2) = states
    h, c = lstm(x_t, h, c, STACK[0])
    h2, c2 = lstm(h, h2, c2, STACK[1])
    return h2 @ STACK[2][0] + STACK[2][1], [(h, c), (h2, c2)]


def by_names(x_t, h, c):
    y, ((h0, c0), (h1, c1)) = by_layers(x_t, list(zip(h, c, strict=True)))
    return y, (h0, h1), (c0, c1)


def without_its_states(x_t, states):
    y, _ = by_layers(x_t, states)
    return y, states


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("step", [by_layers, by_names])
def test_a_step_of_a_whole_model(step, last):
    assert parity.check(step, model(last)).verdict == "PASS"
    assert parity.check(without_its_states, model(last)).verdict == "FAIL"


def test_what_is_no_chain_of_steps_is_refused():
    both = trained(keras.Sequential([keras.Input((9, 3)), L.Bidirectional(L.LSTM(4)), L.Dense(2)]))
    with pytest.raises(CandidateError, match="recurrent layers that go one way"):
        parity.check(by_layers, both)
    with pytest.raises(CandidateError, match="expected parameters for 2 states; received h, h0"):
        parity.check(lambda x_t, h, h0: h, layer(), input_shape=(9, 3))
