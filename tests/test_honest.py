"""Correct implementations of many kinds, beside a real Keras layer: none may ever FAIL."""

import copy
import functools

import keras
import numpy as np
import pytest
import tf_keras
from zoo import ORDERS, TANH, inputs, judge, loop, make_layer, ordered, rounded_once, textbook, wide_state

import parity
from rnn_scratch import SimpleRNN

pytestmark = pytest.mark.far_out

UNITS, INPUT_DIM, TIMESTEPS = 5, 3, 8


def keras_layer(units=UNITS, input_dim=INPUT_DIM, *, library=keras, **settings):
    """A built Keras layer with random weights and biases, none symmetric."""
    rng = np.random.default_rng(3)
    layer = library.layers.SimpleRNN(units, **settings)
    layer.build((4 if settings.get("stateful") else None, None, input_dim))
    scales = [1, 1 / np.sqrt(units), 0.5][: len(layer.get_weights())]
    layer.set_weights(
        [scale * rng.standard_normal(w.shape) for scale, w in zip(scales, layer.get_weights(), strict=True)]
    )
    return layer


def check(candidate, layer, shape=(TIMESTEPS, INPUT_DIM), **options):
    return parity.check(candidate, layer, input_shape=shape if "x" not in options else None, **options)


# --- formulas and orders: functions of x, layer, mask and initial_state ---


def by_step(make_step):
    """The loop around a step made for the layer."""
    return lambda x, layer, mask=None, initial_state=None: loop(make_step(layer), layer, x, mask, initial_state)


def hoisted(x, layer, mask=None, initial_state=None):
    """The input projection of all time steps at once."""
    p = x @ layer.Wx.T + layer.b
    step = iter(range(x.shape[1])) if not layer.go_backwards else iter(reversed(range(x.shape[1])))
    return loop(lambda _, h: np.tanh(p[:, next(step)] + h @ layer.Wh.T), layer, x, mask, initial_state)


def double_inside(x, layer, mask=None, initial_state=None):
    state = None if initial_state is None else initial_state.astype(np.float64)
    result = loop(wide_state(layer, np.float64), layer, x.astype(np.float64), mask, state)
    return tuple(map(np.float32, result)) if isinstance(result, tuple) else np.float32(result)


def double_outside(x, layer, mask=None, initial_state=None):
    state = None if initial_state is None else initial_state.astype(np.float64)
    return loop(wide_state(layer, np.float64), layer, x.astype(np.float64), mask, state)


FORMULAS = {
    "textbook": by_step(textbook),
    "hoisted": hoisted,
    "float64 inside": double_inside,
    "float64 output": double_outside,
    "rounded once": by_step(rounded_once),
    **{f"{name} sums": by_step(functools.partial(ordered, order=order)) for name, order in ORDERS.items()},
    **{f"tanh as {name}": by_step(functools.partial(textbook, f=f)) for name, f in TANH.items()},
}
SETTINGS = {
    "sequence": {"return_sequences": True},
    "last": {},
    "sequence and state": {"return_sequences": True, "return_state": True},
    "backwards, last and state": {"return_state": True, "go_backwards": True},
}


@pytest.mark.parametrize("settings", [SETTINGS["sequence"], SETTINGS["last"]], ids=["seq", "last"])
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_formulas(formula, settings):
    report = check(formula, keras_layer(**settings))
    assert report.verdict == "PASS", str(report)
    assert report.worst <= 0.7


@pytest.mark.parametrize(
    "settings",
    [
        *({"use_bias": False}, {"zero_output_for_mask": True}, {"unroll": True}, {"stateful": True}),
        *({"dtype": dtype} for dtype in ("float16", "float64")),
        *({"activation": activation} for activation in ("relu", "softmax", "gelu")),
    ],
    ids=lambda settings: "-".join(f"{name}={value}" for name, value in settings.items()),
)
@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_settings(settings, sequences):
    report = check(by_step(textbook), keras_layer(return_sequences=sequences, **settings))
    assert report.verdict == "PASS", str(report)


def test_as_many_units_as_features():
    report = check(by_step(textbook), keras_layer(4, 4, return_sequences=True), (6, 4))
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("activation", ["tanh", "hard_sigmoid", "relu"])
def test_layers_of_tf_keras(activation):
    layer = keras_layer(library=tf_keras, activation=activation, return_sequences=True)
    report = check(by_step(textbook), layer)
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_torch(nonlinearity, sequences):
    torch = pytest.importorskip("torch")
    layer = keras_layer(activation=nonlinearity, return_sequences=sequences)
    ours = parity.from_keras(layer)
    theirs = torch.nn.RNN(INPUT_DIM, UNITS, nonlinearity=nonlinearity, batch_first=True)
    with torch.no_grad():
        for name, value in (("weight_ih_l0", ours.Wx), ("weight_hh_l0", ours.Wh), ("bias_ih_l0", ours.b)):
            getattr(theirs, name).copy_(torch.tensor(value))
        theirs.bias_hh_l0.zero_()

    def candidate(x, initial_state=None):
        with torch.no_grad():
            y, _ = theirs(torch.tensor(x), *([] if initial_state is None else [torch.tensor(initial_state)[None]]))
        return y.numpy() if sequences else y[:, -1].numpy()

    report = check(candidate, layer)
    assert report.verdict == "PASS", str(report)


# --- masks ---

MASKS = {
    "right": np.arange(6) < np.array([[6], [4], [1]]),
    "left": np.arange(6) >= np.array([[0], [2], [5]]),
    "mixed": np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool),
    "all": np.zeros((3, 6), bool),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_masks(mask, state, settings):
    layer = keras_layer(**settings)
    rng = np.random.default_rng(0)
    options = {"initial_state": rng.uniform(-1, 1, (3, UNITS)).astype("f")} if state else {}
    x = rng.standard_normal((3, 6, INPUT_DIM))
    x[~mask] = np.nan if mask.any() else 1e30  # what is masked does not matter
    scratch = parity.from_keras(layer)
    call = functools.partial(loop, textbook(scratch), scratch, x.astype("f"), mask, options.get("initial_state"))
    with np.errstate(all="ignore"):
        outputs = call()
    report = parity.check(outputs, layer, x, mask=mask, **options)
    assert report.verdict == "PASS", str(report)


# --- forms of a candidate ---

LAYER = make_layer(UNITS, INPUT_DIM, return_sequences=True)


class Callable:
    def __call__(self, x, mask=None, initial_state=None):
        return LAYER(x, mask=mask, initial_state=initial_state)

    def method(self, x):
        return LAYER(x)


def step_function(x_t, state):
    return textbook(LAYER)(x_t, state)


FORMS = {
    "the layer itself": LAYER,
    "function of x": lambda x: LAYER(x),
    "function of x and initial_state": lambda x, initial_state: LAYER(x, initial_state=initial_state),
    "function with *args and **kwargs": lambda *args, **kwargs: LAYER(*args, **kwargs),
    "function with x, *args": lambda x, *args: LAYER(x),
    "positional only": lambda x, /, mask=None: LAYER(x, mask=mask),
    "callable object": Callable(),
    "bound method": Callable().method,
    "partial": functools.partial(loop, textbook(LAYER), LAYER),
    "partial with a keyword": functools.partial(lambda x, scale, mask=None: LAYER(x, mask=mask), scale=2),
    "list output": lambda x: LAYER(x).tolist(),
    "list of arrays": lambda x: list(LAYER(x)),
    "read-only output": lambda x: np.broadcast_to(LAYER(x), LAYER(x).shape),
    "Fortran output": lambda x: np.asfortranarray(LAYER(x)),
    "step function": step_function,
    "step function with state": lambda x_t, state: (step_function(x_t, state),) * 2,
    "step function with layer": lambda x_t, state, layer: textbook(layer)(x_t, state),
    "float64 step function": lambda x_t, state: wide_state(LAYER, np.float64)(x_t.astype("d"), state.astype("d")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms(form):
    report = check(form, parity.to_keras(LAYER))
    assert report.verdict == "PASS", str(report)
    assert report.worst <= 0.7


@pytest.mark.parametrize("form", ["callable object", "step function", "step function with state", "list output"])
def test_forms_of_which_only_the_last_output_is_asked(form):
    layer = copy.copy(LAYER)
    layer.return_sequences = False
    whole = FORMS[form]
    last = {"callable object": layer, "list output": lambda x: layer(x).tolist()}.get(form, whole)
    report = check(last, parity.to_keras(layer))
    assert report.verdict == "PASS", str(report)


def test_partial_keeps_a_layer_that_is_bound_in_it():
    """Whoever binds `layer` has said which; ours is not to replace it."""

    def forward(x, layer):
        return loop(layer["step"], LAYER, x)

    report = check(functools.partial(forward, layer={"step": textbook(LAYER)}), parity.to_keras(LAYER))
    assert report.verdict == "PASS", str(report)


def test_a_candidate_that_changes_x_in_place_is_told_so():
    def candidate(x):
        y = LAYER(x)
        x[...] = 0
        return y

    report = check(candidate, parity.to_keras(LAYER))
    assert report.verdict == "PASS", str(report)
    assert any("changed its x in place" in note for note in report.cases[0].notes)


def test_a_candidate_that_changes_the_layer_it_was_given_is_told_so():
    def candidate(x, layer):
        y = layer(x)
        layer.Wh[...] = 0
        return y

    report = check(candidate, parity.to_keras(LAYER))
    assert report.verdict == "PASS", str(report)
    assert any("changed its layer in place" in note for note in report.cases[0].notes)


def test_outputs_with_and_without_the_state():
    layer = keras_layer(return_sequences=True, return_state=True)
    scratch, x = parity.from_keras(layer), inputs(LAYER)
    y, h = scratch(x)
    assert parity.check((y, h), layer, x).verdict == "PASS"
    assert parity.check(y, layer, x).verdict == "PASS"


# --- numbers that are not ordinary ---


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("activation", "sequences"), [("tanh", True), ("relu", True), ("linear", True), ("tanh", False)]
)
def test_inputs_that_are_not_finite(value, activation, sequences):
    layer = keras_layer(activation=activation, return_sequences=sequences)
    x = inputs(LAYER, 3, TIMESTEPS)
    x[1, 3, 0] = value
    report = check(by_step(textbook), layer, x=x)
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e4, 1e20])
def test_inputs_of_any_size(scale):
    x = (scale * inputs(LAYER).astype("d")).astype("f")
    assert judge(by_step(functools.partial(ordered, order=ORDERS["flushed"]))(x, LAYER), LAYER, x).verdict == "PASS"
    report = check(by_step(textbook), parity.to_keras(LAYER), x=x)
    assert report.verdict == "PASS", str(report)


# --- long, chaotic, drifting ---


@pytest.mark.parametrize("order", ["sequential", "backwards", "pairwise"])
def test_gain_2_and_200_steps(order):
    """A correct float32 run ends up nowhere near the reference, and every one of its steps is right."""
    scratch = make_layer(64, 8, kind="chaotic", seed=1, return_sequences=True)
    scratch.b = 0 * scratch.b
    layer = parity.to_keras(scratch)
    x = inputs(scratch, 2, 200, scale=0.1)
    y = loop(ordered(scratch, ORDERS[order]), scratch, x)
    exact = scratch.cell.astype(np.float64)
    far = SimpleRNN(exact.Wx, exact.Wh, exact.b, return_sequences=True)(x)
    assert np.abs(y - far).max() > 1
    report = parity.check(y, layer, x)
    assert (report.verdict, report.cases[0].proved) == ("PASS", True), str(report)


@pytest.mark.parametrize("takes_state", [True, False], ids=["with initial_state", "x alone"])
@pytest.mark.parametrize("seed", range(4))
def test_gain_3_of_which_only_the_last_output_is_seen(takes_state, seed):
    layer = make_layer(16, 4, kind="chaotic", seed=seed)
    layer.Wh = np.float32(1.5) * layer.Wh
    x = inputs(layer, 3, 100, seed=seed)
    step = ordered(layer, ORDERS["backwards"])
    if takes_state:
        finding = judge(lambda x, initial_state=None: loop(step, layer, x, None, initial_state), layer, x)
        assert finding.verdict == "PASS"
    else:
        finding = judge(lambda x: loop(step, layer, x), layer, x)
        assert finding.verdict in ("PASS", "INCONCLUSIVE"), finding.tally.first


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_an_accumulator_of_50_000_steps(sequences):
    """Its rounding always errs the same way: by the end it is off by thousands of units in the last place."""
    one = np.ones((1, 1), np.float32)
    layer = SimpleRNN(one, one, activation="relu", return_sequences=sequences)
    x = np.full((1, 50_000, 1), 0.1, np.float32)
    sums = np.cumsum(x, axis=1, dtype=np.float32)
    y = sums if sequences else sums[:, -1]
    assert abs(sums[0, -1, 0] / (50_000 * float(x[0, 0, 0])) - 1) > 1e-5
    finding = judge(y, layer, x)
    assert finding.verdict == "PASS", finding.tally.first
    assert finding.tally.worst < 1


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_a_float32_state_with_float16_outputs(sequences):
    layer = keras_layer(dtype="float16", return_sequences=sequences)

    def candidate(x, layer, mask=None, initial_state=None):
        state = None if initial_state is None else initial_state.astype("f")
        return np.float16(loop(wide_state(layer, np.float32), layer, x.astype("f"), mask, state))

    report = check(candidate, layer, (20, INPUT_DIM))
    assert report.verdict == "PASS", str(report)


CALLED = {
    "layer first": lambda: lambda layer, x: layer(x),
    "by name only": lambda: lambda *, x, layer: layer(x),
    "other order": lambda: lambda mask, x, initial_state, layer: layer(x, mask=mask, initial_state=initial_state),
    "another name for x": lambda: lambda inputs, layer: layer(inputs),
    "a default state": lambda: (
        lambda x, layer, initial_state=0.0: layer(
            x, initial_state=np.broadcast_to(np.float32(initial_state), (len(x), layer.units))
        )
    ),
    "a step, state first": lambda: lambda state, x_t, layer: np.tanh(x_t @ layer.Wx.T + state @ layer.Wh.T + layer.b),
}


@pytest.mark.parametrize("name", CALLED)
def test_parameters_are_given_by_their_names(name):
    report = check(CALLED[name](), parity.to_keras(LAYER))
    assert report.verdict == "PASS", str(report)


def test_a_state_that_overflows_only_when_it_is_returned():
    """Float64 inside goes on from a number where float32 has infinity: nobody can tell, and nobody is accused."""
    layer = make_layer(8, activation="linear", kind="chaotic", return_sequences=True)
    layer.Wh = layer.Wh * np.float32(4)
    x = inputs(layer, 2, 100)
    with np.errstate(all="ignore"):
        y = loop(wide_state(layer, np.float64), layer, x).astype(np.float32)
    assert np.isinf(y).any()
    assert judge(y, layer, x).verdict != "FAIL"
