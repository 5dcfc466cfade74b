"""Layers in pairs: one of rnn_scratch, and the Keras layer that was given the same weights here, not by `parity`."""

from typing import Any

import keras
import numpy as np

from rnn_scratch import SimpleRNN


def draw(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def weights(units: int, input_dim: int, *, seed: int = 0, dtype: str = "float64") -> tuple[np.ndarray, ...]:
    """Wx, Wh, b: all different, none symmetric, no bias zero."""
    Wx, Wh, b = (draw(*shape, seed=seed, dtype=dtype) for shape in ((units, input_dim), (units, units), (units,)))
    return Wx / np.sqrt(input_dim).astype(dtype), Wh / np.sqrt(units).astype(dtype), b / np.asarray(2, dtype)


def pair(
    units: int = 7,
    input_dim: int = 4,
    *,
    dtype: str = "float64",
    use_bias: bool = True,
    activation: str | None = "tanh",
    batch: int = 3,
    seed: int = 0,
    library: Any = keras,
    **settings: Any,
) -> tuple[SimpleRNN, Any]:
    """The same layer twice: rnn_scratch's and Keras's. batch: what a stateful Keras layer must know to be built."""
    Wx, Wh, b = weights(units, input_dim, seed=seed, dtype=dtype)
    scratch = SimpleRNN(Wx, Wh, b if use_bias else None, activation=activation, **settings)
    if library is not keras and activation == "hard_sigmoid_keras2":
        activation = "hard_sigmoid"
    layer = library.layers.SimpleRNN(units, activation=activation, use_bias=use_bias, dtype=dtype, **settings)
    layer.build((batch if layer.stateful else None, None, input_dim))
    layer.set_weights([Wx.T, Wh.T, b] if use_bias else [Wx.T, Wh.T])
    return scratch, layer


def forward(x: Any, layer: Any, mask: Any = None, initial_state: Any = None) -> Any:
    """rnn_scratch as a candidate."""
    return layer(x, mask=mask, initial_state=initial_state)


def keras_outputs(layer: Any, x: Any, mask: Any = None, initial_state: Any = None) -> tuple[np.ndarray, ...]:
    tensor = keras.ops.convert_to_tensor
    states = None if initial_state is None else [tensor(initial_state)]
    outputs = layer(tensor(x), mask=None if mask is None else tensor(mask), initial_state=states)
    return tuple(np.asarray(part) for part in (outputs if isinstance(outputs, tuple | list) else (outputs,)))


def assert_same(got: Any, expected: Any, within: float = 1e-13) -> None:
    """As many arrays, of the same shapes and dtypes, finite in the same places and there equal to 13 digits."""
    got, expected = (value if isinstance(value, tuple) else (value,) for value in (got, expected))
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        scale = max(1, np.abs(theirs[np.isfinite(theirs)]).max(initial=0))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=within * scale)
