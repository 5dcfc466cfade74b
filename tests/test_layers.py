"""SimpleRNN from scratch against Keras on TensorFlow.

Float64 is compared digit by digit with what Keras puts out: TensorFlow's float64 is real, so 1e-13 is rounding. Float32
is left to `parity`, which knows what rounding may do. Facts that are exact are tested for equality.
"""

import warnings
from itertools import combinations, product

import keras
import numpy as np
import pytest
import tf_keras
from helpers import assert_same, draw, forward, keras_outputs, pair, weights

import parity
from rnn_scratch import (
    SimpleRNN,
)
from rnn_scratch.activations import ACTIVATIONS
from rnn_scratch.cells import CELLS
from rnn_scratch.layers import PROFILES, recurrent
from rnn_scratch.loop import MaskRule, loop

BATCH, TIMESTEPS, INPUT_DIM, UNITS = 3, 6, 4, 7

# --- shapes ---

TIMES_AND_FEATURES = ((1, 5), (4, 31), (6, 9), (10, 4), (12, 1))


def core():
    """Every batch with every number of units, as a sequence and as a last output; time and features go round."""
    for (i, batch), (j, units), sequences in product(
        enumerate((1, 2, 8, 33)), enumerate((1, 3, 7, 16, 64)), (True, False)
    ):
        timesteps, input_dim = TIMES_AND_FEATURES[(i + j) % len(TIMES_AND_FEATURES)]
        yield batch, timesteps, input_dim, units, sequences
    yield from ((5, 5, 5, 5, sequences) for sequences in (True, False))  # nothing here is caught by its shape


def shape_id(case):
    batch, timesteps, input_dim, units, sequences = case
    return f"b{batch}-t{timesteps}-i{input_dim}-u{units}-{'seq' if sequences else 'last'}"


shapes = pytest.mark.parametrize("case", list(core()), ids=shape_id)


@shapes
def test_shapes_in_float64(case):
    batch, timesteps, input_dim, units, sequences = case
    scratch, layer = pair(units, input_dim, return_sequences=sequences)
    x = draw(batch, timesteps, input_dim)
    assert scratch(x).shape == ((batch, timesteps, units) if sequences else (batch, units))
    assert_same(scratch(x), keras_outputs(layer, x))


@shapes
def test_shapes_in_float32(case):
    batch, timesteps, input_dim, units, sequences = case
    _, layer = pair(units, input_dim, dtype="float32", return_sequences=sequences)
    parity.assert_parity(forward, layer, draw(batch, timesteps, input_dim, dtype="float32"))


WRONG_WEIGHTS = {
    "Wx_rows_exchanged": lambda Wx, Wh, b: (Wx[::-1], Wh, b),
    "Wh_transposed": lambda Wx, Wh, b: (Wx, Wh.T, b),
    "no_bias": lambda Wx, Wh, b: (Wx, Wh, None),
    "bias_twice": lambda Wx, Wh, b: (Wx, Wh, 2 * b),
    "no_recurrence": lambda Wx, Wh, b: (Wx, 0 * Wh, b),
}


@pytest.mark.parametrize("wrong", WRONG_WEIGHTS)
@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_other_weights_are_told_apart(wrong, sequences):
    """The failing twin of the two tests above."""
    _, layer = pair(UNITS, INPUT_DIM, dtype="float32", return_sequences=sequences)
    Wx, Wh, b = weights(UNITS, INPUT_DIM, dtype="float32")
    other = SimpleRNN(*WRONG_WEIGHTS[wrong](Wx, Wh, b), return_sequences=sequences)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM, dtype="float32")
    with pytest.raises(AssertionError):
        assert_same(other(x), keras_outputs(layer, x), within=1e-3)
    assert parity.check(lambda x: other(x), layer, x).verdict == "FAIL"


def test_an_empty_batch_gives_an_empty_output():
    for sequences in (True, False):
        scratch, layer = pair(return_sequences=sequences, return_state=True)
        x = np.zeros((0, TIMESTEPS, INPUT_DIM))
        assert_same(scratch(x), keras_outputs(layer, x))


# --- activations, bias ---


KERAS_ROUNDS = {"gelu": 1e-7, "leaky_relu": 1e-7}
"""TensorFlow's own float64 gelu and leaky_relu take a constant through float32."""


@pytest.mark.parametrize("name", [*sorted(key for key in ACTIVATIONS if key), None], ids=str)
def test_every_activation(name):
    library = tf_keras if name == "hard_sigmoid_keras2" else keras
    x = draw(BATCH, 2 if name == "exponential" else TIMESTEPS, INPUT_DIM) / 2  # exponentials of exponentials overflow
    scratch, layer = pair(activation=name, library=library, return_sequences=True)
    assert_same(scratch(x), keras_outputs(layer, x), within=KERAS_ROUNDS.get(name, 1e-13))
    _, layer = pair(activation=name, library=library, dtype="float32", return_sequences=True)
    parity.assert_parity(forward, layer, x)


def test_activations_are_told_apart():
    """Each makes something else of the same weights, so the test above compares what it says."""
    arrays, x = weights(UNITS, INPUT_DIM), 4 * draw(BATCH, 2, INPUT_DIM)
    outputs = {name: SimpleRNN(*arrays, activation=name)(x) for name in ACTIVATIONS if name not in (None, "swish")}
    assert not [(a, b) for a, b in combinations(outputs, 2) if np.allclose(outputs[a], outputs[b], rtol=0, atol=1e-2)]


def test_without_bias():
    scratch, layer = pair(use_bias=False, return_sequences=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    assert_same(scratch(x), keras_outputs(layer, x))
    assert set(scratch.cell.weights) == {"Wx", "Wh"}
    assert np.array_equal(scratch(np.zeros_like(x)), np.zeros((BATCH, TIMESTEPS, UNITS)))
    with_bias, _ = pair(return_sequences=True)
    with pytest.raises(AssertionError):
        assert_same(with_bias(x), keras_outputs(layer, x), within=1e-3)


# --- direction, states ---


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_go_backwards(sequences):
    scratch, layer = pair(go_backwards=True, return_sequences=sequences, return_state=True)
    forwards, _ = pair(return_sequences=sequences, return_state=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    assert_same(scratch(x), keras_outputs(layer, x))
    for backward, reversed_input in zip(scratch(x), forwards(x[:, ::-1]), strict=True):
        assert np.array_equal(backward, reversed_input)
    assert not np.allclose(scratch(x)[0], forwards(x)[0], atol=1e-3)


def test_go_backwards_puts_out_in_the_order_of_processing():
    scratch, layer = pair(go_backwards=True, return_sequences=True, return_state=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    y, h = scratch(x)
    assert np.array_equal(y[:, :1], scratch(x[:, -1:])[0])  # element 0 has seen the last step and no other
    assert np.array_equal(y[:, -1], h)
    with pytest.raises(AssertionError):
        assert_same(y[:, ::-1], keras_outputs(layer, x)[0], within=1e-3)


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_return_state(sequences):
    scratch, layer = pair(return_sequences=sequences, return_state=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    result = scratch(x)
    assert isinstance(result, tuple)
    assert_same(result, keras_outputs(layer, x))
    y, h = result
    assert np.array_equal(y[:, -1] if sequences else y, h)
    plain, _ = pair(return_sequences=sequences)
    assert np.array_equal(plain(x), y)


def test_last_output_is_the_last_of_the_sequence():
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    sequence, last = (pair(return_sequences=sequences)[0](x) for sequences in (True, False))
    assert np.array_equal(sequence[:, -1], last)


@pytest.mark.parametrize("timesteps", [1, 2, 6])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
def test_initial_state(timesteps, go_backwards):
    scratch, layer = pair(go_backwards=go_backwards, return_sequences=True, return_state=True)
    x, h = draw(BATCH, timesteps, INPUT_DIM), draw(BATCH, UNITS)
    expected = keras_outputs(layer, x, initial_state=h)
    assert_same(scratch(x, initial_state=h), expected)
    with pytest.raises(AssertionError):
        assert_same(scratch(x), expected, within=1e-3)


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_an_initial_state_of_one_row_is_every_rows(kind):
    layer = getattr(keras.layers, kind)(UNITS, return_sequences=True, dtype="float64")
    layer.build((None, None, INPUT_DIM))
    scratch, x = parity.from_keras(layer), draw(BATCH, TIMESTEPS, INPUT_DIM)
    state = tuple(draw(1, UNITS) for _ in scratch.state_units)
    assert_same(scratch(x, initial_state=state), keras.ops.convert_to_numpy(layer(x, initial_state=list(state))))
    assert (
        parity.check(
            lambda x, layer, initial_state: layer(x, initial_state=initial_state), layer, x, initial_state=state
        ).verdict
        == "PASS"
    )


def test_jax_spreads_a_state_of_one_row_only_unrolled():
    scratch, _ = pair(UNITS, INPUT_DIM)
    x, state = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(1, UNITS)
    expected = scratch(x, initial_state=state)
    scratch.profile = PROFILES["jax"]
    with pytest.raises(ValueError, match=r"initial_state: expected shape \(3, 7\)"):
        scratch(x, initial_state=state)
    scratch.unroll = True
    assert np.array_equal(scratch(x, initial_state=state), expected)


def test_initial_state_in_every_form():
    scratch, _ = pair()
    x, h = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS)
    expected = scratch(x, initial_state=h)
    for form in ([h], (h,), [h.tolist()], keras.ops.convert_to_tensor(h)):
        assert np.array_equal(scratch(x, initial_state=form), expected)
    assert np.array_equal(scratch(x, initial_state=np.zeros_like(h)), scratch(x))
    whole = np.arange(BATCH * UNITS).reshape(BATCH, UNITS)
    assert np.array_equal(scratch(x, initial_state=whole), scratch(x, initial_state=whole.astype(float)))


def test_a_sequence_in_two_halves():
    """The state of the first half carries everything that the second needs."""
    scratch, _ = pair(return_sequences=True, return_state=True)
    x, half = draw(BATCH, TIMESTEPS, INPUT_DIM), TIMESTEPS // 2
    whole, end = scratch(x)
    first, h = scratch(x[:, :half])
    second, same_end = scratch(x[:, half:], initial_state=h)
    assert_same((np.concatenate([first, second], axis=1), same_end), (whole, end))


def test_without_a_batch_axis():
    scratch, _ = pair(return_sequences=True, return_state=True, go_backwards=True, zero_output_for_mask=True)
    x, h, mask = draw(1, TIMESTEPS, INPUT_DIM), draw(1, UNITS), MASKS["mixed"][:1]
    expected = scratch(x, mask=mask, initial_state=h)
    for state in (h[0], [h[0]], (h[0],)):
        for mine, batched in zip(scratch(x[0], mask=mask[0], initial_state=state), expected, strict=True):
            assert np.array_equal(mine, batched[0])
    plain, _ = pair()
    assert plain(x[0]).shape == (UNITS,)
    assert np.array_equal(plain(x[0]), plain(x)[0])


def test_rows_of_a_batch_do_not_meet():
    scratch, _ = pair(return_sequences=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    other = x.copy()
    other[1] += 1
    assert np.array_equal(scratch(x)[[0, 2]], scratch(other)[[0, 2]])
    assert not np.array_equal(scratch(x)[1], scratch(other)[1])


# --- masks ---

MASKS = {
    "leading": np.array([[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]], bool),
    "mixed": np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 1], [1, 1, 0, 1, 1, 0]], bool),
    "trailing": np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]], bool),
    "all": np.zeros((BATCH, TIMESTEPS), bool),
    "one_row": np.array([[1] * 6, [0] * 6, [1] * 6], bool),
}
switch = pytest.mark.parametrize


@switch("kind", MASKS)
@switch("state", [False, True], ids=["zero_state", "state"])
@switch("sequences", [True, False], ids=["seq", "last"])
@switch("zeroed", [False, True], ids=["repeat", "zero_output"])
@switch("go_backwards", [False, True], ids=["forwards", "backwards"])
def test_masks(kind, state, sequences, zeroed, go_backwards):
    scratch, layer = pair(
        return_sequences=sequences, return_state=True, zero_output_for_mask=zeroed, go_backwards=go_backwards
    )
    x, h = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS) if state else None
    expected = keras_outputs(layer, x, MASKS[kind], h)
    assert_same(scratch(x, mask=MASKS[kind], initial_state=h), expected)
    with pytest.raises(AssertionError):
        assert_same(scratch(x, initial_state=h), expected, within=1e-3)


@switch("kind", ["leading", "mixed", "trailing", "all"])
@switch("sequences", [True, False], ids=["seq", "last"])
def test_masks_in_float32(kind, sequences):
    _, layer = pair(dtype="float32", return_sequences=sequences, return_state=True)
    x, h = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS)
    parity.assert_parity(forward, layer, x, mask=MASKS[kind], initial_state=h)


WRONG_MASKS = {
    "not_reversed": ({"go_backwards": True}, lambda mask: mask[:, ::-1], {}),
    "inverted": ({}, np.logical_not, {}),
    "output_not_zeroed": ({"zero_output_for_mask": True}, np.copy, {"zero_output_for_mask": False}),
    "output_zeroed": ({}, np.copy, {"zero_output_for_mask": True}),
    "last_output_not_zeroed": (
        {"zero_output_for_mask": True, "return_sequences": False},
        np.copy,
        {"zero_output_for_mask": False},
    ),
}


@switch("wrong", WRONG_MASKS)
def test_wrong_masks_are_told_apart(wrong):
    settings, change, other = WRONG_MASKS[wrong]
    settings = {"return_sequences": True, **settings}
    (scratch, layer), (mistaken, _) = pair(**settings), pair(**{**settings, **other})
    x, h, mask = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS), MASKS["mixed"]
    expected = keras_outputs(layer, x, mask, h)
    assert_same(scratch(x, mask=mask, initial_state=h), expected)
    with pytest.raises(AssertionError):
        assert_same(mistaken(x, mask=change(mask), initial_state=h), expected, within=1e-3)


def test_masked_steps_before_the_first_one_put_out_zero_and_keep_the_state():
    """Where Keras's backends disagree: JAX and NumPy would put out the initial state."""
    scratch, layer = pair(return_sequences=True, return_state=True)
    x, h = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS)
    for outputs in (scratch(x, mask=MASKS["all"], initial_state=h), keras_outputs(layer, x, MASKS["all"], h)):
        assert not outputs[0].any()
        assert np.array_equal(outputs[1], h)
    y, _ = scratch(x, mask=MASKS["leading"], initial_state=h)
    assert not y[2, :3].any()
    assert_same(y[2, 3:], scratch(x[2:, 3:], initial_state=h[2:])[0][0])


def test_masked_steps_repeat_the_output():
    scratch, _ = pair(return_sequences=True, return_state=True)
    zeroing, _ = pair(return_sequences=True, return_state=True, zero_output_for_mask=True)
    x, mask = draw(BATCH, TIMESTEPS, INPUT_DIM), MASKS["mixed"]
    y, h = scratch(x, mask=mask)
    assert np.array_equal(y[0, 1], y[0, 0])
    assert np.array_equal(y[2, 5], y[2, 4])
    assert np.array_equal(h[2], y[2, 4])
    zeroed, same_h = zeroing(x, mask=mask)
    assert np.array_equal(zeroed, np.where(mask[..., None], y, 0))
    assert np.array_equal(same_h, h)


@switch("settings", [{}, {"go_backwards": True}, {"zero_output_for_mask": True}], ids=str)
def test_a_mask_of_ones_is_no_mask(settings):
    scratch, _ = pair(return_sequences=True, **settings)
    x, h = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS)
    ones = np.ones((BATCH, TIMESTEPS), bool)
    assert np.array_equal(scratch(x, mask=ones, initial_state=h), scratch(x, initial_state=h))


@switch("dtype", ["bool", "int8", "uint8", "int64", "float32", "float64"])
def test_mask_dtypes(dtype):
    scratch, layer = pair(return_sequences=True)
    x, mask = draw(BATCH, TIMESTEPS, INPUT_DIM), MASKS["mixed"]
    given = (mask * 0.5 if dtype.startswith("float") else mask).astype(dtype)  # a half is true, as in Keras
    assert np.array_equal(scratch(x, mask=given), scratch(x, mask=mask))
    assert_same(scratch(x, mask=given), keras_outputs(layer, x, given))


@switch("bad", [np.nan, np.inf, -np.inf], ids=str)
@switch("kind", ["leading", "mixed", "trailing", "all"])
@switch("zeroed", [False, True], ids=["repeat", "zero_output"])
@switch("go_backwards", [False, True], ids=["forwards", "backwards"])
def test_what_stands_at_masked_steps_never_leaks(bad, kind, zeroed, go_backwards):
    scratch, layer = pair(
        return_sequences=True, return_state=True, zero_output_for_mask=zeroed, go_backwards=go_backwards
    )
    x, h, mask = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS), MASKS[kind]
    spoiled = np.where(mask[..., None], x, bad)
    with np.errstate(invalid="ignore"):
        got = scratch(spoiled, mask=mask, initial_state=h)
    for mine, clean in zip(got, scratch(x, mask=mask, initial_state=h), strict=True):
        assert np.array_equal(mine, clean)
    assert_same(got, keras_outputs(layer, spoiled, mask, h))


@switch("bad", [np.nan, np.inf], ids=str)
def test_what_stands_at_masked_steps_gives_no_warning(bad):
    scratch, _ = pair()
    mask = MASKS["mixed"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scratch(np.where(mask[..., None], X, bad), mask=mask)


def test_nan_at_unmasked_steps_is_kept():
    scratch, layer = pair(return_sequences=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    x[1, 3, 2] = np.nan
    y = scratch(x)
    assert np.isnan(y[1, 3:]).all()
    assert np.isfinite(y[[0, 2]]).all()
    assert np.isfinite(y[1, :3]).all()
    assert_same(y, keras_outputs(layer, x))


# --- stateful ---

STATEFUL = {
    "forwards": ({}, None),
    "backwards": ({"go_backwards": True}, None),
    "masked": ({}, MASKS["mixed"]),
    "masked_at_the_end": ({}, MASKS["trailing"]),
    "all_masked": ({}, MASKS["all"]),
    "backwards_masked": ({"go_backwards": True, "zero_output_for_mask": True}, MASKS["mixed"]),
}


@switch("sequences", [True, False], ids=["seq", "last"])
@switch("name", STATEFUL)
def test_stateful(name, sequences):
    """Calls in a row, a reset between the third and the fourth; after each, outputs and the stored state."""
    settings, mask = STATEFUL[name]
    scratch, layer = pair(stateful=True, return_sequences=sequences, **settings)
    for number, timesteps in enumerate((TIMESTEPS, TIMESTEPS, 2, 3, 1)):
        if number == 3:
            scratch.reset_state()
            layer.reset_state()
        x = draw(BATCH, timesteps, INPUT_DIM, seed=number)
        now = mask if mask is not None and timesteps == TIMESTEPS else None
        assert_same(scratch(x, mask=now), keras_outputs(layer, x, now))
        assert_same(scratch.state, (np.asarray(layer.states[0]),))


def test_stateful_keeps_and_reset_forgets():
    scratch, _ = pair(stateful=True)
    stateless, _ = pair()
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    first, second = scratch(x), scratch(x)
    assert np.array_equal(first, stateless(x))
    assert np.array_equal(second, stateless(x, initial_state=first))
    assert not np.allclose(first, second, atol=1e-3)
    scratch.reset_state()
    assert scratch.state is None
    assert np.array_equal(scratch(x), first)
    assert stateless.state is None


def test_an_initial_state_overrides_the_stored_one():
    scratch, layer = pair(stateful=True, return_state=True)
    x, h = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS)
    for state in (None, h, None):
        assert_same(scratch(x, initial_state=state), keras_outputs(layer, x, initial_state=state))
        assert_same(scratch.state, (np.asarray(layer.states[0]),))


def test_masked_steps_freeze_the_stored_state():
    scratch, _ = pair(stateful=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    scratch(x)
    (before,) = scratch.state
    scratch(x, mask=MASKS["all"])
    assert np.array_equal(scratch.state[0], before)
    scratch(x, mask=MASKS["one_row"])
    assert np.array_equal(scratch.state[0][1], before[1])
    assert not np.allclose(scratch.state[0][[0, 2]], before[[0, 2]], atol=1e-3)


# --- precision ---


@switch("dtype", ["float16", "float32", "float64"])
@switch("sequences", [True, False], ids=["seq", "last"])
def test_dtypes(dtype, sequences):
    scratch, layer = pair(dtype=dtype, return_sequences=sequences, return_state=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM, dtype=dtype)
    assert [part.dtype for part in scratch(x)] == [np.dtype(dtype)] * 2
    assert [part.dtype for part in scratch(x, mask=MASKS["mixed"])] == [np.dtype(dtype)] * 2
    parity.assert_parity(forward, layer, x)


def test_one_precision_is_not_another():
    """The failing twin: what a narrower layer puts out is not taken for the wider one's."""
    x = draw(BATCH, TIMESTEPS, INPUT_DIM, dtype="float32")
    for wide, narrow in (("float32", "float16"), ("float64", "float32")):
        _, layer = pair(dtype=wide, return_sequences=True)
        assert parity.check(lambda x, layer, to=narrow: _as(layer, to)(x), layer, x).verdict == "FAIL"


def _as(layer, dtype):
    arrays = {name: array.astype(dtype) for name, array in layer.cell.weights.items()}
    return SimpleRNN(**arrays, activation=layer.activation, **layer.settings)


@switch("given", ["int32", "int64", "uint8", "bool", "float16", "float32", "float64"])
@switch("dtype", ["float32", "float64"])
def test_inputs_are_cast_to_the_dtype_of_the_weights(given, dtype):
    scratch, layer = pair(dtype=dtype, return_sequences=True)
    x = (3 * np.abs(draw(BATCH, TIMESTEPS, INPUT_DIM))).astype(given)
    assert scratch(x).dtype == dtype
    assert np.array_equal(scratch(x), scratch(x.astype(dtype)))
    assert np.array_equal(scratch(x.tolist()), scratch(np.asarray(x.tolist()).astype(dtype)))
    if dtype == "float64" and given != "float64":  # exact in float32, to which Keras casts in between
        assert_same(scratch(x), keras_outputs(layer, x))


# --- what a call leaves alone ---


@switch("mask", [None, MASKS["mixed"]], ids=["no_mask", "mask"])
def test_arrays_belong_to_whoever_made_them(mask):
    Wx, Wh, b = weights(UNITS, INPUT_DIM)
    scratch = SimpleRNN(Wx, Wh, b, stateful=True, return_sequences=True, return_state=True)
    x, h = draw(BATCH, TIMESTEPS, INPUT_DIM), draw(BATCH, UNITS)
    given = [Wx, Wh, b, x, h, *([] if mask is None else [mask])]
    before = [array.copy() for array in given]
    y, state = scratch(x, mask=mask, initial_state=h)
    kept = y.copy(), state.copy()
    assert all(np.array_equal(array, was) for array, was in zip(given, before, strict=True))
    scratch(2 * x, mask=mask)
    assert np.array_equal(y, kept[0])
    assert np.array_equal(state, kept[1])
    y, state = scratch(x, mask=mask, initial_state=h)
    y[...] = 99
    assert np.array_equal(state, kept[1])
    for array in (Wx, Wh, b, state):
        array[...] = 99
    assert np.array_equal(scratch.state[0], kept[1])
    assert np.array_equal(scratch(x, mask=mask, initial_state=h)[0], kept[0])


def test_calls_repeat_to_the_bit():
    scratch, _ = pair(return_sequences=True)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM)
    assert np.array_equal(scratch(x), scratch(x))


# --- refused ---

GOOD = dict(zip(("Wx", "Wh", "b"), weights(UNITS, INPUT_DIM), strict=True))
X = draw(BATCH, TIMESTEPS, INPUT_DIM)

BAD_WEIGHTS = {
    "Wx_vector": ({"Wx": np.ones(4)}, "Wx: expected shape (units, input_dim), both at least 1; received (4,)"),
    "Wx_no_units": ({"Wx": np.ones((0, 4))}, "Wx: expected shape (units, input_dim), both at least 1; received (0, 4)"),
    "Wh_not_square": ({"Wh": np.ones((7, 4))}, "Wh: expected shape (7, 7) (Wx has 7 units); received (7, 4)"),
    "Wh_of_other_units": ({"Wh": np.ones((4, 4))}, "Wh: expected shape (7, 7) (Wx has 7 units); received (4, 4)"),
    "Wx_transposed": ({"Wx": np.ones((4, 7))}, "Wh: expected shape (4, 4) (Wx has 4 units); received (7, 7)"),
    "b_of_other_units": ({"b": np.ones(4)}, "b: expected shape (7,) (Wx has 7 units); received (4,)"),
    "b_column": ({"b": np.ones((7, 1))}, "b: expected shape (7,) (Wx has 7 units); received (7, 1)"),
    "integers": (
        {"Wx": np.ones((7, 4), int)},
        "Wx: expected one of float16, bfloat16, float32, float64; received int64",
    ),
    "complex": (
        {"Wh": np.ones((7, 7), complex)},
        "Wh: expected one of float16, bfloat16, float32, float64; received complex128",
    ),
    "strings": ({"b": np.array(["a"] * 7)}, "b: expected one of float16, bfloat16, float32, float64; received <U1"),
    "mixed_Wh": ({"Wh": np.ones((7, 7), "f4")}, "Wh: expected float64, the dtype of Wx; received float32"),
    "mixed_b": ({"b": np.ones(7, "f2")}, "b: expected float64, the dtype of Wx; received float16"),
    "activation": ({"activation": "celu"}, "activation: expected one of elu, exponential, gelu, "),
    "activation_function": ({"activation": np.tanh}, "received <ufunc 'tanh'>"),
}


@switch("name", BAD_WEIGHTS)
def test_bad_weights_are_named(name):
    change, message = BAD_WEIGHTS[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        SimpleRNN(**{**GOOD, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_INPUTS = {
    "features": ((X[:, :, :3],), {}, "x: expected shape (batch, timesteps, 4); received (3, 6, 3)"),
    "features_unbatched": ((X[0, :, :3],), {}, "x: expected shape (batch, timesteps, 4); received (1, 6, 3)"),
    "vector": ((X[0, 0],), {}, "x: expected shape (batch, timesteps, 4); received (4,)"),
    "four_axes": ((X[None],), {}, "x: expected shape (batch, timesteps, 4); received (1, 3, 6, 4)"),
    "no_timesteps": ((X[:, :0],), {}, "x: expected at least 1 timestep; received (3, 0, 4)"),
    "complex": ((X * 1j,), {}, "x: expected real numbers; received complex128"),
    "strings": ((X.astype(str),), {}, "x: expected real numbers; received <U"),
    "objects": ((X.astype(object),), {}, "x: expected real numbers; received object"),
    "mask_timesteps": (
        (X,),
        {"mask": np.ones((3, 5), bool)},
        "mask: expected shape (3, 6) (batch, timesteps); received (3, 5)",
    ),
    "mask_batch": (
        (X,),
        {"mask": np.ones((1, 6), bool)},
        "mask: expected shape (3, 6) (batch, timesteps); received (1, 6)",
    ),
    "mask_transposed": (
        (X,),
        {"mask": np.ones((6, 3), bool)},
        "mask: expected shape (3, 6) (batch, timesteps); received (6, 3)",
    ),
    "mask_three_axes": (
        (X,),
        {"mask": np.ones((3, 6, 1), bool)},
        "mask: expected shape (3, 6) (batch, timesteps); received (3, 6, 1)",
    ),
    "mask_strings": ((X,), {"mask": np.full((3, 6), "x")}, "mask: expected booleans; received <U1"),
    "state_units": (
        (X,),
        {"initial_state": np.ones((3, 4))},
        "initial_state: expected shape (3, 7) (batch, units); received (3, 4)",
    ),
    "state_batch": (
        (X,),
        {"initial_state": np.ones((2, 7))},
        "initial_state: expected shape (3, 7) (batch, units); received (2, 7)",
    ),
    "state_vector": (
        (X,),
        {"initial_state": np.ones(7)},
        "initial_state: expected shape (3, 7) (batch, units); received (7,)",
    ),
    "two_states": ((X,), {"initial_state": (np.ones((3, 7)),) * 2}, "initial_state: expected 1 (h); received 2"),
    "state_complex": (
        (X,),
        {"initial_state": np.ones((3, 7), complex)},
        "initial_state: expected real numbers; received complex128",
    ),
}


@switch("name", BAD_INPUTS)
def test_bad_inputs_are_named(name):
    args, options, message = BAD_INPUTS[name]
    scratch = SimpleRNN(**GOOD)
    assert scratch(X).shape == (BATCH, UNITS)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        scratch(*args, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stateful_layer_refuses_another_batch():
    scratch = SimpleRNN(**GOOD, stateful=True)
    scratch(X)
    with pytest.raises(ValueError, match=r"initial_state: expected shape \(2, 7\) \(batch, units\); received \(3, 7\)"):
        scratch(X[:2])
    scratch.reset_state()
    assert scratch(X[:2]).shape == (2, UNITS)


def test_weights_that_are_set_are_used_and_checked():
    Wx, Wh, b = weights(5, 3)
    x = draw(2, 6, 3)
    bare = SimpleRNN(Wx, Wh)
    bare.b = b
    np.testing.assert_array_equal(bare(x), SimpleRNN(Wx, Wh, b)(x))
    assert "b" in bare.cell.weights
    twin = bare.replace()
    twin.Wh = Wh.T
    np.testing.assert_array_equal(bare.Wh, Wh)
    assert not np.array_equal(twin(x), bare(x))
    with pytest.raises(ValueError, match=r"Wh: expected shape \(5, 5\)"):
        bare.Wh = Wh[:4]


# --- the loop over time ---


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", CELLS)
def test_the_fast_loop_is_the_loop_to_the_bit(kind, dtype, sequences):
    kind, rng = CELLS[kind], np.random.default_rng(5)
    rows = len(kind.gates) * UNITS
    settings = {"return_sequences": sequences, "return_state": True, "go_backwards": True}
    cell = kind(rng.normal(size=(rows, INPUT_DIM)).astype(dtype), rng.normal(size=(rows, UNITS)).astype(dtype))
    layer = recurrent(cell, settings)
    x = draw(BATCH, TIMESTEPS, INPUT_DIM, dtype=dtype)
    states = layer.initial_states(BATCH, tuple(draw(BATCH, units, dtype=dtype) for units in layer.state_units))
    turned = np.ascontiguousarray(x[:, ::-1].swapaxes(0, 1))
    p = cell.project(turned.reshape(-1, INPUT_DIM)).reshape(TIMESTEPS, BATCH, rows)

    def step(t, states):
        new = cell.update(p[t], *states)
        return new[0], new

    y, after = loop(step, states, TIMESTEPS, MaskRule(), sequences=sequences)
    fast, fast_after = layer.forward(x, None, states)
    assert fast.dtype == y.dtype == dtype
    assert np.array_equal(fast, y)
    assert all(np.array_equal(a, b) for a, b in zip(fast_after, after, strict=True))
    twin, _ = loop(step, tuple(-state for state in states), TIMESTEPS, MaskRule())
    assert not np.array_equal(fast, twin if sequences else twin[:, -1])


def test_the_mask_rule_on_all_steps_at_once_is_that_of_each_step():
    keep = np.array([[False, True, False, True], [True, True, False, False]])
    rule, every = MaskRule(keep, shown=keep[::-1], leading_state=True), slice(None)
    h, last = draw(2, 4, UNITS), draw(2, 4, UNITS)
    steps = range(4)
    assert_same(rule.output(every, h, last), np.stack([rule.output(t, h[:, t], last[:, t]) for t in steps], axis=1))
    assert_same(rule.visible(every, h), np.stack([rule.visible(t, h[:, t]) for t in steps], axis=1))
    assert_same(rule.visible(every, h), np.where(rule.shown[..., None], h, 0))
    (states,) = rule.states(every, (h,), (last,))
    assert_same(states, rule.output(every, h, last))
