"""Weights and settings from Keras and back, bit for bit; what cannot be carried is refused by its name."""

import functools
import itertools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tf_keras
from helpers import assert_same, draw, forward, keras_outputs, pair, weights

import parity
from parity import InputError, UnsupportedError
from rnn_scratch import Activation, Dense, SimpleRNN
from rnn_scratch.activations import ACTIVATIONS

UNITS, INPUT_DIM, TIMESTEPS = 7, 4, 6
SETTINGS = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask", "unroll")
LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
libraries = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)


def built(layer, batch=None):
    """With weights of which no two are equal, biases included."""
    layer.build((batch, INPUT_DIM) if type(layer).__name__ == "SimpleRNNCell" else (batch, TIMESTEPS, INPUT_DIM))
    return filled(layer)


def filled(layer):
    values = itertools.count(1)
    layer.set_weights(
        [np.array([next(values) for _ in range(w.size)], w.dtype).reshape(w.shape) / 100 for w in layer.get_weights()]
    )
    return layer


def model(library, *layers):
    return filled(library.Sequential([library.Input((TIMESTEPS, INPUT_DIM)), *layers]))


def functional(library, layer):
    inputs = library.Input((TIMESTEPS, INPUT_DIM))
    return filled(library.Model(inputs, layer(inputs)))


# --- from Keras ---

FORMS = {
    "layer": lambda library: built(library.layers.SimpleRNN(UNITS)),
    "cell": lambda library: built(library.layers.SimpleRNNCell(UNITS)),
    "rnn_of_cell": lambda library: built(library.layers.RNN(library.layers.SimpleRNNCell(UNITS))),
    "sequential": lambda library: model(library, library.layers.SimpleRNN(UNITS)),
    "sequential_of_cell": lambda library: model(library, library.layers.RNN(library.layers.SimpleRNNCell(UNITS))),
    "nested_sequential": lambda library: model(library, library.Sequential([library.layers.SimpleRNN(UNITS)])),
    "functional": lambda library: functional(library, library.layers.SimpleRNN(UNITS)),
}


@libraries
@pytest.mark.parametrize("form", FORMS)
def test_every_weight_is_transposed_bit_for_bit(form, library):
    source = FORMS[form](library)
    kernel, recurrent_kernel, bias = source.get_weights()
    scratch = parity.from_keras(source)
    for mine, theirs in ((scratch.Wx, kernel.T), (scratch.Wh, recurrent_kernel.T), (scratch.b, bias)):
        assert mine.dtype == theirs.dtype == np.float32
        assert np.array_equal(mine, theirs)
    assert not np.array_equal(scratch.Wh, recurrent_kernel)
    assert (scratch.activation, scratch.settings) == ("tanh", dict.fromkeys(SETTINGS, False))


@libraries
@pytest.mark.parametrize("form", FORMS)
def test_every_form_passes_the_check(form, library):
    source = FORMS[form](library)
    assert parity.check(forward, source, input_shape=(3, INPUT_DIM)).verdict == "PASS"
    assert parity.check(lambda x, layer: forward(x, layer) + 1e-3, source, input_shape=(3, INPUT_DIM)).verdict == "FAIL"


@libraries
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(dtype, library):
    layer = built(library.layers.SimpleRNN(UNITS, dtype=dtype))
    assert [array.dtype for array in parity.from_keras(layer).cell.weights.values()] == [np.dtype(dtype)] * 3


def test_without_bias():
    layer = built(keras.layers.SimpleRNN(UNITS, use_bias=False))
    scratch = parity.from_keras(layer)
    assert not scratch.cell.use_bias
    assert not scratch.b.any()
    assert parity.from_keras(built(keras.layers.SimpleRNN(UNITS))).cell.use_bias


@libraries
@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_is_carried_and_no_other(setting, library):
    layer = built(library.layers.SimpleRNN(UNITS, **{setting: True}), batch=3)
    assert parity.from_keras(layer).settings == {name: name == setting for name in SETTINGS}
    of_cell = built(library.layers.RNN(library.layers.SimpleRNNCell(UNITS), **{setting: True}), batch=3)
    assert parity.from_keras(of_cell).settings == {name: name == setting for name in SETTINGS}


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "hard_sigmoid_keras2"], ids=str)
def test_activations(name):
    layer = built(keras.layers.SimpleRNN(UNITS, activation=name))
    assert parity.from_keras(layer).activation == ACTIVATIONS[name].name


@pytest.mark.parametrize("name", ["tanh", "relu", "sigmoid", "swish", "softmax", "elu", "gelu", "mish", None], ids=str)
def test_activations_of_keras_2(name):
    layer = built(tf_keras.layers.SimpleRNN(UNITS, activation=name))
    assert parity.from_keras(layer).activation == ACTIVATIONS[name].name


def test_hard_sigmoid_has_another_slope_in_keras_2():
    (scratch, theirs), (other, keras_3) = (
        pair(library=library, activation=name)
        for library, name in ((tf_keras, "hard_sigmoid_keras2"), (keras, "hard_sigmoid"))
    )
    assert parity.from_keras(theirs).activation == "hard_sigmoid_keras2"
    assert parity.from_keras(keras_3).activation == "hard_sigmoid"
    x = draw(3, TIMESTEPS, INPUT_DIM)
    assert_same(parity.from_keras(theirs)(x), keras_outputs(theirs, x))
    assert_same(parity.from_keras(keras_3)(x), keras_outputs(keras_3, x))
    assert not np.allclose(scratch(x), other(x), atol=1e-3)


@libraries
def test_what_changes_nothing_at_inference_is_ignored(library):
    plain = built(library.layers.SimpleRNN(UNITS))
    layer = built(
        library.layers.SimpleRNN(
            UNITS,
            dropout=0.9,
            recurrent_dropout=0.9,
            unroll=True,
            kernel_regularizer="l2",
            bias_constraint="non_neg",
            recurrent_initializer="zeros",
            trainable=False,
        )
    )
    assert_weights_equal(parity.from_keras(layer), parity.from_keras(plain))
    x = draw(3, TIMESTEPS, INPUT_DIM, dtype="float32")
    assert np.array_equal(parity.from_keras(layer)(x), parity.from_keras(plain)(x))
    parity.assert_parity(forward, layer, x)


@libraries
def test_the_kept_state_comes_along(library):
    fresh, layer = pair(library=library, stateful=True)
    assert not any(state.any() for state in parity.from_keras(layer).state or ())
    x = draw(3, TIMESTEPS, INPUT_DIM)
    keras_outputs(layer, x)
    scratch = parity.from_keras(layer)
    assert np.array_equal(scratch.state[0], np.asarray(layer.states[0]))
    expected = keras_outputs(layer, x)
    assert_same(scratch(x), expected)
    with pytest.raises(AssertionError):
        assert_same(fresh(x), expected, within=1e-3)


def test_the_keras_layer_is_left_as_it_was():
    layer = built(keras.layers.SimpleRNN(UNITS, stateful=True), batch=3)
    x = draw(3, TIMESTEPS, INPUT_DIM, dtype="float32")
    keras_outputs(layer, x)
    before = [*layer.get_weights(), np.asarray(layer.states[0]).copy()]
    scratch = parity.from_keras(layer)
    parity.check(forward, layer, x)
    scratch.Wx[...] = 0
    scratch.state[0][...] = 0
    for array, was in zip([*layer.get_weights(), np.asarray(layer.states[0]).copy()], before, strict=True):
        assert np.array_equal(array, was)


def test_the_weights_of_a_built_model_stay_although_a_layer_within_has_none():
    """They were drawn anew: Dropout within TimeDistributed looked like a layer that is not built."""
    layers = (
        keras.layers.SimpleRNN(UNITS, return_sequences=True),
        keras.layers.TimeDistributed(keras.layers.Dropout(0.5)),
    )
    source = model(keras, *layers, keras.layers.Dense(2))
    before = source.get_weights()
    report = parity.check(lambda x, layer: layer(x), source, input_shape=(3, INPUT_DIM))
    assert not any("not built" in note for note in report.cases[0].notes)
    for array, was in zip(source.get_weights(), before, strict=True):
        assert np.array_equal(array, was)


# --- to Keras and round ---


def assert_weights_equal(a, b):
    assert a.cell.use_bias == b.cell.use_bias
    for name in ("Wx", "Wh", "b"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("units", [1, UNITS])
def test_from_scratch_to_keras_and_back(units, dtype, use_bias):
    Wx, Wh, b = weights(units, INPUT_DIM, dtype=dtype)
    scratch = SimpleRNN(Wx, Wh, b if use_bias else None, activation="relu", return_sequences=True, go_backwards=True)
    layer = parity.to_keras(scratch)
    assert type(layer) is keras.layers.SimpleRNN
    assert (layer.dtype, layer.built, layer.use_bias) == (dtype, True, use_bias)
    for array, expected in zip(layer.get_weights(), [Wx.T, Wh.T, b], strict=use_bias):
        assert array.dtype == dtype
        assert np.array_equal(array, expected)
    back = parity.from_keras(layer)
    assert_weights_equal(back, scratch)
    assert (back.activation, back.settings) == (scratch.activation, scratch.settings)
    x = draw(2, 3, INPUT_DIM, dtype=dtype)
    assert np.array_equal(back(x), scratch(x))


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no_bias"])
@libraries
def test_from_keras_to_scratch_and_back(library, use_bias):
    layer = built(library.layers.SimpleRNN(UNITS, use_bias=use_bias, activation="selu", return_state=True))
    back = parity.to_keras(parity.from_keras(layer))
    assert len(back.get_weights()) == (3 if use_bias else 2)
    for array, was in zip(back.get_weights(), layer.get_weights(), strict=True):
        assert array.dtype == was.dtype
        assert np.array_equal(array, was)
    assert (back.activation.__name__, back.return_state, back.return_sequences) == ("selu", True, False)


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_goes_to_keras_and_no_other(setting):
    layer = parity.to_keras(SimpleRNN(*weights(UNITS, INPUT_DIM), **{setting: True}), batch_size=3)
    assert {name: getattr(layer, name) for name in SETTINGS} == {name: name == setting for name in SETTINGS}


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "hard_sigmoid_keras2"], ids=str)
def test_activations_go_to_keras(name):
    layer = parity.to_keras(SimpleRNN(*weights(UNITS, INPUT_DIM), activation=name))
    assert layer.activation is keras.activations.get(name)


@pytest.mark.parametrize("layer", [lambda name: Dense(np.ones((2, 3), "f"), activation=name), Activation])
def test_hard_sigmoid_of_keras_2_goes_to_keras_2_alone(layer):
    scratch = layer("hard_sigmoid_keras2")
    theirs = parity.to_keras(scratch, module=tf_keras)
    x = np.linspace(-4, 4, 36, dtype="f").reshape(3, 4, 3)
    assert_same(scratch(x), theirs(x).numpy())
    assert parity.from_keras(theirs).activation.name == "hard_sigmoid_keras2"
    with pytest.raises(UnsupportedError, match=r"hard_sigmoid of slope 0\.2 .*tf_keras"):
        parity.to_keras(scratch)


def test_the_kept_state_goes_to_keras():
    scratch = SimpleRNN(*weights(UNITS, INPUT_DIM), stateful=True)
    x = draw(3, TIMESTEPS, INPUT_DIM)
    scratch(x)
    layer = parity.to_keras(scratch)
    assert np.array_equal(np.asarray(layer.states[0]), scratch.state[0])
    assert_same(scratch(x), keras_outputs(layer, x))


def test_further_settings_go_to_keras():
    layer = parity.to_keras(SimpleRNN(*weights(UNITS, INPUT_DIM)), unroll=True, name="mine")
    assert (layer.unroll, layer.name) == (True, "mine")


def test_what_keras_cannot_have():
    arrays = weights(UNITS, INPUT_DIM)
    with pytest.raises(UnsupportedError, match=r"hard_sigmoid of slope 0\.2 .*tf_keras"):
        parity.to_keras(SimpleRNN(*arrays, activation="hard_sigmoid_keras2"))
    with pytest.raises(InputError, match="batch_size="):
        parity.to_keras(SimpleRNN(*arrays, stateful=True))
    with pytest.raises(UnsupportedError, match=r"expected a layer of rnn_scratch .* received ndarray"):
        parity.to_keras(arrays[0])


# --- refused ---


class Doubled(keras.layers.SimpleRNN):
    def call(self, *args, **kwargs):
        return 2 * super().call(*args, **kwargs)


class DoubledCell(keras.layers.SimpleRNNCell):
    pass


def model_4d(layer):
    return filled(keras.Sequential([keras.Input((3, 2, 4)), layer]))


def branch(library):
    inputs = library.Input((TIMESTEPS, INPUT_DIM))
    halves = [library.layers.GRU(UNITS, name=name)(inputs) for name in ("left", "right")]
    return library.Model(inputs, library.layers.Add()(halves))


def skip(library):
    inputs = library.Input((TIMESTEPS, INPUT_DIM))
    y = library.layers.GRU(INPUT_DIM, return_sequences=True)(inputs)
    return library.Model(inputs, library.layers.Add(name="sum")([inputs, y]))


def two_inputs(library):
    inputs = [library.Input((TIMESTEPS, INPUT_DIM)) for _ in range(2)]
    return library.Model(inputs, library.layers.Add()([library.layers.LSTM(UNITS)(x) for x in inputs]))


def state_in_the_middle():
    inputs = keras.Input((TIMESTEPS, INPUT_DIM))
    y, _ = L.GRU(UNITS, return_sequences=True, return_state=True)(inputs)
    return keras.Model(inputs, L.Dense(2)(y))


SameName = type("SimpleRNN", (Doubled,), {})


def halved(z):
    return z / 2


def of(activation, library=keras):
    return built(library.layers.SimpleRNN(UNITS, activation=activation))


def through_operation(after):
    layer = keras.layers.SimpleRNN(UNITS)
    return functional(keras, (lambda x: 2 * layer(x)) if after else (lambda x: layer(x[:, ::-1])))


def called_twice(library):
    layer = library.layers.SimpleRNN(INPUT_DIM, return_sequences=True)
    return functional(library, lambda x: layer(layer(x)))


def masked_graph(how):
    """A functional model in which Keras's own operations make the mask, or the user's do."""
    sequence, ids = keras.Input((TIMESTEPS, INPUT_DIM)), keras.Input((TIMESTEPS,), dtype="int32")
    last, every = L.LSTM(UNITS), L.GRU(UNITS, return_sequences=True)
    own = keras.ops.any(keras.ops.not_equal(sequence, 0.5), axis=-1)
    inputs, outputs = {
        "masking": lambda: (sequence, last(L.Masking()(sequence))),
        "embedding": lambda: (ids, last(L.Dropout(0.1)(L.Embedding(9, 3, mask_zero=True)(ids)))),
        "below": lambda: (sequence, last(L.TimeDistributed(L.Dense(6))(L.Masking()(sequence)))),
        "passed_on": lambda: (sequence, L.TimeDistributed(L.Dense(2))(every(L.Masking()(sequence)))),
        "its_own": lambda: (sequence, last(sequence, mask=own)),
        "its_own_beside": lambda: (sequence, last(L.Masking()(sequence), mask=own)),
        "returned": lambda: (sequence, keras.ops.not_equal(last(sequence), 0.0)),
    }[how]()
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("how", "kinds"),
    [
        ("masking", "masking lstm"),
        ("embedding", "embedding dropout lstm"),
        ("passed_on", "masking gru"),
        ("below", "masking time_distributed"),
    ],
)
def test_operations_that_make_masks_are_no_layers(how, kinds, loaded, tmp_path):
    source = masked_graph(how)
    if loaded:
        source.save(tmp_path / "model.keras")
        source = keras.models.load_model(tmp_path / "model.keras")
    found = [part.kind for part in parity.from_keras(source).parts.values()]
    assert found[: len(kinds.split())] == kinds.split()
    assert parity.check(lambda x, layer: layer(x), source).verdict == "PASS"


@pytest.mark.parametrize(
    ("how", "told"), [("its_own", "takes 2 inputs"), ("its_own_beside", "a branch"), ("returned", "NotEqual")]
)
def test_an_operation_on_which_an_output_depends_is_refused(how, told):
    with pytest.raises(parity.UnsupportedError, match=told):
        parity.from_keras(masked_graph(how))


def in_training(library):
    layers = library.layers
    return functional(library, lambda x: layers.GRU(UNITS)(layers.Dropout(0.5, name="noise")(x, training=True)))


L = keras.layers
REFUSED = {
    "in_training": (lambda: in_training(keras), r"noise \(Dropout\) is called with training=True"),
    "in_training_keras2": (lambda: in_training(tf_keras), r"noise \(Dropout\) is called with training=True"),
    "conv": (lambda: model(keras, L.Conv1D(3, 2, name="head"), L.SimpleRNN(UNITS)), r"head \(Conv1D\) is not covered"),
    "conv_keras2": (
        lambda: model(tf_keras, tf_keras.layers.Conv1D(3, 2, name="head"), tf_keras.layers.LSTM(UNITS)),
        r"head \(Conv1D\) is not covered",
    ),
    "lambda_layer": (lambda: model(keras, L.Lambda(lambda x: x, name="odd"), L.GRU(UNITS)), r"odd \(Lambda\)"),
    "empty_model": (lambda: keras.Sequential(), "it has no layers"),
    "bidirectional_of_a_stack": (
        lambda: built(L.Bidirectional(L.RNN([L.LSTMCell(2), L.LSTMCell(3)]))),
        "Bidirectional of rnn is not covered",
    ),
    "time_distributed_recurrent": (lambda: model_4d(L.TimeDistributed(L.LSTM(2))), "TimeDistributed of LSTM"),
    "branch": (lambda: branch(keras), "branch.*left and right"),
    "branch_keras2": (lambda: branch(tf_keras), "branch.*left and right"),
    "skip": (lambda: skip(keras), "branch"),
    "two_inputs": (lambda: two_inputs(keras), "expected one input; it has 2"),
    "state_in_the_middle": (
        lambda: state_in_the_middle(),
        "expected the outputs of its last layer|several outputs|branch",
    ),
    "operation_after": (lambda: through_operation(after=True), "[mM]ultiply"),
    "operation_before": (lambda: through_operation(after=False), "[gG]et_?[iI]tem"),
    "called_twice": (lambda: called_twice(keras), "called"),
    "called_twice_keras2": (lambda: called_twice(tf_keras), "called"),
    "time_major_keras2": (lambda: built(tf_keras.layers.SimpleRNN(UNITS, time_major=True)), "time_major"),
    "subclass": (lambda: built(Doubled(UNITS)), "Doubled"),
    "subclass_of_same_name": (lambda: built(SameName(UNITS)), "SimpleRNN"),
    "cell_subclass": (lambda: built(L.RNN(DoubledCell(UNITS))), "RNN of DoubledCell"),
    "celu": (lambda: of("celu"), "activation celu is not covered; covered: elu"),
    "hard_tanh": (lambda: of("hard_tanh"), "activation hard_tanh is not covered"),
    "lambda": (lambda: of(lambda z: z), "activation <lambda> is not one of Keras's own"),
    "function": (lambda: of(halved), "activation halved is not one of Keras's own"),
    "function_keras2": (lambda: of(halved, tf_keras), "activation halved is not one of Keras's own"),
    "numpy": (lambda: of(np.tanh), "activation tanh is not one of Keras's own"),
    "partial": (
        lambda: of(functools.partial(keras.activations.leaky_relu, negative_slope=0.5)),
        "activation partial is not one of Keras's own",
    ),
    "layer_as_activation": (lambda: of(L.LeakyReLU(0.5)), "activation LeakyReLU is not covered"),
    "approximate_gelu": (lambda: of(keras.ops.gelu), r"activation \S*gelu"),
    "two_dtypes": (lambda: built(L.RNN(L.SimpleRNNCell(UNITS, dtype="float64"))), "float32/float64"),
    "None": (lambda: None, "NoneType"),
    "array": (lambda: np.zeros(3), "ndarray"),
    "class": (lambda: L.SimpleRNN, "type"),
    "scratch": (lambda: SimpleRNN(*weights(2, 3)), "SimpleRNN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_refused_by_name(name):
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message) as caught:
        parity.from_keras(make())
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@libraries
def test_layers_without_weights_are_refused(library):
    for layer in (library.layers.SimpleRNN(UNITS), library.layers.SimpleRNNCell(UNITS)):
        with pytest.raises(InputError, match=f"{layer.name}: expected a built layer"):
            parity.from_keras(layer)
    with pytest.raises(InputError, match="expected a built layer"):
        parity.from_keras(library.Sequential([library.layers.SimpleRNN(UNITS)]))


@pytest.mark.parametrize("index", range(3), ids=["kernel", "recurrent_kernel", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_weights_that_are_not_finite_are_refused(index, value):
    layer = built(keras.layers.SimpleRNN(UNITS))
    arrays = layer.get_weights()
    arrays[index].flat[-1] = value
    layer.set_weights(arrays)
    name = ("kernel", "recurrent_kernel", "bias")[index]
    with pytest.raises(InputError, match=f": {name}: expected finite weights; received NaN or infinity"):
        parity.from_keras(layer)


# --- what an import brings in ---

HEAVY = {"numpy", "keras", "tensorflow", "tf_keras", "torch", "jax", "onnx"}
IMPORTS = {
    "import parity": set(),
    "import parity; dir(parity); parity.__all__; parity.ParityError": set(),
    "import rnn_scratch": {"numpy"},
    "import parity; parity.check; parity.assert_parity; parity.Report": {"numpy"},
    "import parity; parity.from_keras; parity.to_keras": {"numpy"},
    "import numpy, rnn_scratch; rnn_scratch.SimpleRNN(numpy.eye(2), numpy.eye(2))(numpy.ones((1, 3, 2)))": {"numpy"},
    "import keras": {"numpy", "keras", "tensorflow"},
}


@pytest.mark.parametrize("code", IMPORTS)
def test_what_an_import_brings_in(code):
    """In a fresh interpreter; `import keras`, last, shows that it would be seen."""
    show = f"{code}\nimport sys\nprint(*sorted({HEAVY} & set(sys.modules)))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", show], cwd=root, capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert found == IMPORTS[code] if "keras" not in IMPORTS[code] else found >= IMPORTS[code]


def test_an_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="module 'parity' has no attribute 'chek'"):
        _ = parity.chek
    assert set(parity.__all__) <= set(dir(parity))
    assert all(getattr(parity, name) is not None for name in parity.__all__)
