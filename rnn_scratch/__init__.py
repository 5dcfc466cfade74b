"""Keras's recurrent layers from scratch, in NumPy, as the textbook has them.

| layer     | equation                                          | Wx                 | Wh             | b        |
| --------- | ------------------------------------------------- | ------------------ | -------------- | -------- |
| SimpleRNN | h_t = activation(Wx x_t + Wh h_{t-1} + b), h_0 = 0 | (units, input_dim) | (units, units) | (units,) |

    layer = SimpleRNN(Wx, Wh, b, return_sequences=True)
    y = layer(x)        # x (batch, timesteps, input_dim) -> y (batch, timesteps, units)

Weights have one row a unit; Keras's kernel and recurrent kernel are their transposes.
"""

from rnn_scratch.layers import SimpleRNN

__all__ = ["SimpleRNN"]
