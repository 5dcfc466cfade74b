"""The table of activations: each function against Keras's, each figure beside it against the function."""

from itertools import pairwise

import keras
import numpy as np
import pytest
import tf_keras

from rnn_scratch.activations import ACTIVATIONS, get

ROWS = {row.name: row for row in ACTIVATIONS.values()}
ELEMENTWISE = {name: row for name, row in ROWS.items() if not row.couples_units}
UNIT = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
FLUSHED = {"float16": 2.0**-24, "float32": 2.0**-126, "float64": 2.0**-1022}
"""What an operation may flush to zero."""

KERAS_ROUNDS = {("gelu", "float64"): 5e-9, ("leaky_relu", "float64"): 3e-9}
"""TensorFlow takes a constant of theirs through float32 in float64 too: off by that much of |z|."""

elementwise = pytest.mark.parametrize("row", ELEMENTWISE.values(), ids=ELEMENTWISE)
dtypes = pytest.mark.parametrize("dtype", UNIT)


def keras_function(name):
    if name == "hard_sigmoid_keras2":
        return tf_keras.activations.hard_sigmoid
    return keras.activations.get(name)


def of_keras(name, z):
    return np.asarray(keras_function(name)(keras.ops.convert_to_tensor(z)))


def arguments(dtype):
    """Float16: all in half its range. Float32: one in 499 up to 128, by their bits. Float64: a fine grid, powers."""
    if dtype == "float16":
        z = np.arange(2**16, dtype=np.uint16).view(np.float16)
        return z[np.abs(z) <= 2.0**15]
    if dtype == "float32":
        z = np.arange(0, np.float32(128).view(np.uint32), 499, dtype=np.uint32).view(np.float32)
    else:
        z = np.concatenate([np.linspace(0, 40, 40_001), 2.0 ** np.arange(-300, 9), [1.0 / 3, 1e-5]])
    return np.concatenate([-z[::-1], z])


def allowed(row, z, y):
    """The bound as the table's own text has it, with what may be flushed to zero. y: f(z) in float64."""
    u = UNIT[z.dtype.name]
    ulp = np.spacing(np.abs(y).astype(z.dtype)).astype(np.float64)
    ulps = row.ulps64 if row.ulps64 is not None and z.dtype == np.float64 else row.ulps
    return ulps * ulp + row.absolute * u + row.linear * u * np.abs(z.astype(np.float64)) + 2 * FLUSHED[z.dtype.name]


def worst(row, z, got):
    """The largest error of an implementation, in what it is allowed, where the result is in the range."""
    with np.errstate(over="ignore", under="ignore"):
        y = row.f(z.astype(np.float64))
        inside = np.abs(y) < np.finfo(z.dtype).max / 2
        z, y, got = z[inside], y[inside], got[inside].astype(np.float64)
        return float((np.abs(got - y) / allowed(row, z, y)).max())


# --- the functions ---


@dtypes
@elementwise
def test_of_keras(row, dtype):
    """TensorFlow's implementation is within the allowance around ours."""
    z = arguments(dtype)
    got = of_keras(row.name, z)
    assert got.dtype == dtype
    if (row.name, dtype) in KERAS_ROUNDS:
        assert np.all(np.abs(got - row.f(z)) <= KERAS_ROUNDS[row.name, dtype] * np.abs(z))
    else:
        assert worst(row, z, got) <= 1


@dtypes
@elementwise
def test_of_numpy(row, dtype):
    """So is our own, in the dtype of its argument, and without a warning where the result is a number."""
    z = arguments(dtype)
    if row.name == "exponential":
        z = z[z < np.log(np.finfo(dtype).max)]
    with np.errstate(under="ignore"):
        got = row.f(z)
    assert got.dtype == dtype
    assert worst(row, z, got) <= 1


NEIGHBOURS = [
    ("relu", "leaky_relu"),
    ("relu", "relu6"),
    ("hard_sigmoid", "hard_sigmoid_keras2"),
    ("sigmoid", "hard_sigmoid"),
    ("tanh", "softsign"),
    ("elu", "selu"),
    ("silu", "gelu"),
    ("silu", "mish"),
    ("softplus", "relu"),
]


@pytest.mark.parametrize(("name", "other"), NEIGHBOURS)
def test_another_function_is_not_within_the_allowance(name, other):
    z = arguments("float32")
    assert worst(ROWS[name], z, of_keras(other, z)) > 1e3


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softsign", "softplus", "elu", "selu", "silu", "gelu", "mish"])
def test_an_approximation_is_not_within_the_allowance(name):
    """Off by 1e-5: what a rational approximation or a table of values makes."""
    row, z = ROWS[name], np.linspace(-2, 2, 1001, dtype=np.float32)
    assert worst(row, z, row.f(z) + np.float32(1e-5)) > 1


def test_gelu_of_keras_is_the_exact_one():
    z = arguments("float32")
    approximate = np.asarray(keras.activations.gelu(keras.ops.convert_to_tensor(z), approximate=True))
    assert worst(ROWS["gelu"], z, approximate) > 10


SOFTMAX_ROWS = {
    "near": np.random.default_rng(0).standard_normal((500, 7)),
    "far": 30 * np.random.default_rng(1).standard_normal((500, 7)),
    "wide": np.random.default_rng(2).standard_normal((50, 300)),
    "equal": np.full((2, 5), 3.0),
    "large": np.array([[1000.0, 999.0, -1000.0], [-1000.0, -999.0, -998.0]]),
}


@pytest.mark.parametrize("name", SOFTMAX_ROWS)
@dtypes
def test_softmax(name, dtype):
    """Over the last axis. Its error is relative: one of exp(z - max) each, of a sum of n, and of a division."""
    z = SOFTMAX_ROWS[name].astype(dtype)
    wide = z.astype(np.longdouble)
    expected = np.exp(wide - wide.max(axis=-1, keepdims=True))
    expected /= expected.sum(axis=-1, keepdims=True)
    spread = wide.max(axis=-1, keepdims=True) - wide.min(axis=-1, keepdims=True)
    bound = UNIT[dtype] * (14 + z.shape[1] + 2 * spread) * expected + 4 * FLUSHED[dtype]
    for got in (ROWS["softmax"].f(z), of_keras("softmax", z)):
        assert got.dtype == dtype
        assert np.all(np.abs(got - expected) <= bound)
    over_the_wrong_axis = of_keras("softmax", z.T).T
    assert not np.all(np.abs(over_the_wrong_axis - expected) <= bound)


def test_softmax_of_one_unit_is_one():  # Keras's too, with a warning
    assert np.array_equal(ROWS["softmax"].f(np.array([[-5.0], [0.0], [800.0]])), np.ones((3, 1)))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_out_is_filled_and_returned(row):
    for dtype in UNIT:
        z = np.linspace(-4, 4, 12).reshape(3, 4).astype(dtype)
        before, out = z.copy(), np.full_like(z, np.nan)
        assert row.f(z, out) is out
        assert np.array_equal(out, row.f(z))
        assert np.array_equal(row(z), out)
        assert np.array_equal(z, before)


@elementwise
def test_nan_stays_nan(row):
    z = np.array([0.5, np.nan, -0.5])
    with np.errstate(invalid="ignore"):
        assert np.array_equal(np.isnan(row.f(z)), [False, True, False])


# --- the figures beside them ---

GRID = np.linspace(-40, 40, 400_001)


@elementwise
@dtypes
def test_range(row, dtype):
    """Nothing is outside `low` and `high` but for rounding, and the function comes near both."""
    z = arguments(dtype)
    z = z[z < 10] if row.name == "exponential" else z
    with np.errstate(under="ignore"):
        y = row.f(z).astype(np.float64)
    room = allowed(row, z, y)
    assert np.all(y >= row.low - room)
    assert np.all(y <= row.high + room)
    for end, nearest in ((row.low, y.min()), (row.high, y.max())):
        if np.isfinite(end):
            assert abs(nearest - end) < 0.03
        else:
            assert abs(nearest) > 7


@elementwise
def test_low_and_high_enclose_the_true_extremes(row):
    """To the last digits of float64, at and around each turn."""
    for turn in row.turns:
        y = row.f(turn + np.linspace(-1e-4, 1e-4, 20_001))
        assert row.low <= y.min() + 2.0**-53
        assert abs(y.min() - row.low) < 1e-6


@elementwise
def test_turns(row):
    """Monotone between them, and turning at each."""
    pieces = np.split(GRID, np.searchsorted(GRID, sorted(row.turns)))
    assert len(pieces) == len(row.turns) + 1
    signs = []
    for piece in pieces:
        y = row.f(piece)
        step, rounding = np.diff(y), 4 * np.spacing(np.abs(y[1:])) + 1e-15
        assert np.all(step >= -rounding) or np.all(step <= rounding)
        signs.append(np.sign(y[-1] - y[0]))
    assert all(a == -b for a, b in pairwise(signs))
    for turn in row.turns:
        left, at, right = row.f(np.array([turn - 1e-6, turn, turn + 1e-6]))
        assert min(left, right) > at  # each of ours turns upwards; a turn misplaced by 5e-7 would show


def test_functions_without_turns_have_none_to_miss():
    """The failing twin: without its turn silu is not monotone."""
    step = np.diff(ROWS["silu"].f(GRID))
    assert (step > 1e-9).any()
    assert (step < -1e-9).any()


@elementwise
def test_slope(row):
    """No two points are further apart than `slope` times their distance, and some are nearly that far."""
    if not np.isfinite(row.slope):
        assert row.f(np.array([90.0])) - row.f(np.array([89.0])) > 1e6
        return
    z = np.linspace(-12, 12, 240_001)
    steepest = 0.0
    for distance in (1, 37, 2_000):
        quotient = np.abs(row.f(z[distance:]) - row.f(z[:-distance])) / (z[distance:] - z[:-distance])
        steepest = max(steepest, quotient.max())
    assert steepest <= row.slope + 1e-9
    assert steepest > row.slope * (1 - 1e-4)


def test_slope_of_softmax():
    """Arguments that each move by at most e move no output by more than e / 2, and some by nearly that."""
    row, rng = ROWS["softmax"], np.random.default_rng(0)
    z, e = rng.standard_normal((2000, 5)), 1e-3
    moved = np.abs(row.f(z + e * rng.choice([-1, 1], z.shape)) - row.f(z)).max()
    assert moved <= row.slope * e
    even = np.abs(row.f(np.array([[e, -e]])) - row.f(np.zeros((1, 2)))).max()
    assert row.slope * e * 0.999 < even <= row.slope * e


# --- names ---


@pytest.mark.parametrize(("alias", "name"), [(None, "linear"), ("swish", "silu")])
def test_aliases(alias, name):
    assert get(alias) is get(name)
    assert keras.activations.get(alias) is keras.activations.get(name)


def test_every_name_is_one_of_keras():
    for name in ACTIVATIONS:
        assert get(name) is ACTIVATIONS[name]
        assert keras_function(name) is not None
        if name not in (None, "hard_sigmoid_keras2"):
            assert keras.activations.get(name).__name__ == get(name).name


@pytest.mark.parametrize("name", ["celu", "Tanh", "tanh ", "", "glu", 3, True, ("tanh",)])
def test_unknown_names_are_refused_by_name(name):
    with pytest.raises(ValueError, match=r"activation: expected one of elu, exponential, .*tanh; received") as caught:
        get(name)
    assert repr(name) in str(caught.value)


def test_functions_are_refused():
    with pytest.raises(ValueError, match="received <ufunc 'tanh'>"):
        get(np.tanh)


def test_rows_say_what_they_are():
    assert all(ACTIVATIONS[row.name] is row for row in ROWS.values())
    assert [name for name, row in ROWS.items() if row.couples_units] == ["softmax"]
    assert {name for name, row in ROWS.items() if row.turns} == {"silu", "gelu", "mish"}
