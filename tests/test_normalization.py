"""BatchNormalization from scratch against Keras on TensorFlow: float64 digit by digit, the others within rounding."""

import keras
import ml_dtypes
import numpy as np
import pytest
import tf_keras
from helpers import assert_same, draw, weights

from parity.rounding.arithmetic import ARITHMETIC
from parity.rounding.balls import Ball, on_balls
from rnn_scratch import BatchNormalization, Dense, Masking, Sequential, SimpleRNN

BATCH, TIMESTEPS, FEATURES, UNITS = 3, 6, 5, 7
NORMALIZATIONS = {"whole": (True, True), "no scale": (False, True), "no center": (True, False), "bare": (False, False)}


def normalizations(scale=True, center=True, dtype="float64", library=keras, epsilon=1e-3, mean=1.0, ndim=3):
    """The same layer twice: rnn_scratch's and Keras's, which keeps to the number of axes that it was built for."""
    gamma, beta = (draw(FEATURES, seed=seed) if there else None for seed, there in ((1, scale), (2, center)))
    arrays = [gamma, beta, mean * draw(FEATURES, seed=3), draw(FEATURES, seed=4) ** 2]
    arrays = [None if array is None else array.astype(dtype) for array in arrays]
    layer = library.layers.BatchNormalization(scale=scale, center=center, epsilon=epsilon, dtype=dtype)
    layer.build((*[None] * (ndim - 1), FEATURES))
    layer.set_weights([array for array in arrays if array is not None])
    return BatchNormalization(*arrays, epsilon=epsilon), layer


@pytest.mark.parametrize("library", [keras, tf_keras], ids=lambda library: library.__name__)
@pytest.mark.parametrize("parts", NORMALIZATIONS)
def test_batch_normalization(parts, library):
    for shape in ((BATCH, FEATURES), (BATCH, 2, 3, FEATURES), (BATCH, TIMESTEPS, FEATURES)):
        scratch, layer = normalizations(*NORMALIZATIONS[parts], library=library, epsilon=0.01, ndim=len(shape))
        assert_same(scratch(draw(*shape)), np.asarray(layer(draw(*shape), training=False)))
    x = draw(BATCH, TIMESTEPS, FEATURES)
    assert_same(scratch(x, mask=x[..., 0] > 0), scratch(x))
    for name, array in scratch.weights.items():
        assert not np.allclose(scratch.replace(**{name: array + 0.1})(x), scratch(x))
    assert len(scratch.weights) == 2 + sum(NORMALIZATIONS[parts])
    other, _ = normalizations(*NORMALIZATIONS[parts], epsilon=0.02)
    assert not np.allclose(other(x), scratch(x))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_batch_normalization_of_16_bits_is_computed_in_32(dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    scratch, layer = normalizations(dtype=dtype, mean=30.0)
    x = draw(BATCH, TIMESTEPS, FEATURES).astype(dtype)
    y, expected = scratch(x), np.asarray(layer(keras.ops.convert_to_tensor(x), training=False))
    assert (y.dtype, expected.dtype) == (dtype, dtype)
    y, expected = y.astype("float64"), expected.astype("float64")
    unit = float(ml_dtypes.finfo(dtype).eps)
    assert np.abs(y - expected).max() <= unit * np.abs(expected).max()
    assert (y == expected).mean() > 0.9  # it was rounded once, at the end
    gamma, beta, mean, variance = (array.astype(dtype) for array in scratch.weights.values())
    within = (x - mean) / np.sqrt(variance + dtype.type(1e-3)) * gamma + beta
    assert (within.astype("float64") == expected).mean() < 0.9


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("mean", [1.0, 1000.0])
def test_batch_normalization_on_balls_contains_every_way_to_compute_it(dtype, mean):
    scratch, layer = normalizations(dtype=dtype, mean=mean)
    x = draw(BATCH, TIMESTEPS, FEATURES, dtype=dtype)
    ball, _ = on_balls(scratch).forward(Ball(x.astype("float64"), ARITHMETIC[dtype]), None, ())
    gamma, beta, mean, variance = scratch.weights.values()
    root = np.sqrt(variance + np.asarray(1e-3, dtype))
    ways = {
        "rnn_scratch": scratch(x),
        "Keras": np.asarray(layer(x, training=False)),
        "one thing after another": (x - mean) / root * gamma + beta,
        "a constant": x * (gamma / root) + (beta - mean * gamma / root),
    }
    assert [name for name, y in ways.items() if not ball.contains(y).all()] == []
    for wrong in (scratch.replace(beta=beta + mean / 64)(x), scratch(x) * np.asarray(1.1, dtype)):
        assert not ball.contains(wrong).all()
    assert ball.radius.max() < 0.1 * np.abs(ball.mid).max()


def test_batch_normalization_in_a_model():
    scratch, _ = normalizations()
    Wx, Wh, b = weights(UNITS, FEATURES)
    recurrent_layer = SimpleRNN(Wx, Wh, b)
    model = Sequential([Masking(dtype="float64"), scratch, recurrent_layer])
    x = draw(BATCH, TIMESTEPS, FEATURES)
    x[1, 4:] = 0
    mask = x.any(axis=-1)
    assert_same(model(x), recurrent_layer(scratch(x), mask=mask))
    assert not np.allclose(model(x), recurrent_layer(scratch(x)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": np.ones((2, 3))}, r"mean: expected shape \(features,\), at least 1; received \(2, 3\)"),
        ({"beta": np.ones(3)}, r"beta: expected shape \(5,\) \(mean has 5 features\); received \(3,\)"),
        ({"gamma": np.ones(5, "float32")}, "gamma: expected float64, the dtype of mean; received float32"),
    ],
    ids=["mean", "beta", "dtype"],
)
def test_batch_normalization_names_arrays_that_do_not_fit(change, message):
    scratch, _ = normalizations()
    with pytest.raises(ValueError, match=message):
        scratch.replace(**change)
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, ..., 5\); received \(3, 4\)"):
        scratch(draw(3, 4))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_copy_in_another_dtype_computes_in_it(dtype):
    one = np.ones(3, "f")
    for layer in (Dense(np.ones((3, 3), "f")), BatchNormalization(one, one, one, one)):
        for whole in (layer, Sequential([layer])):
            assert whole.astype(dtype).dtype == dtype
            assert whole.dtype == np.float32
