"""Keras's recurrent layers from scratch, in NumPy, as the textbook has them.

| layer     | equation                                      | Wx                   | Wh               | b            |
| --------- | --------------------------------------------- | -------------------- | ---------------- | ------------ |
| SimpleRNN | h_t = activation(Wx x_t + Wh h_{t-1} + b)     | (units, input_dim)   | (units, units)   | (units,)     |
| LSTM      | p = Wx x_t + Wh h_{t-1} + b                   | (4 units, input_dim) | (4 units, units) | (4 units,)   |
|           | i, f, o = recurrent_activation(p_i, p_f, p_o) | rows: i, f, c, o     |                  |              |
|           | c_t = f c_{t-1} + i activation(p_c)           |                      |                  |              |
|           | h_t = o activation(c_t)                       |                      |                  |              |
| GRU       | p = Wx x_t + b[0],  q = Wh h_{t-1} + b[1]     | (3 units, input_dim) | (3 units, units) | (2, 3 units) |
|           | z = recurrent_activation(p_z + q_z), r alike  | rows: z, r, h        |                  |              |
|           | n = activation(p_h + r q_h)                   |                      |                  |              |
|           | h_t = z h_{t-1} + (1 - z) n                   |                      |                  |              |
| the same, | p = Wx x_t + b, z and r alike                 | likewise             | likewise         | (3 units,)   |
| not reset | n = activation(p_h + Wh_h (r h_{t-1}))        |                      |                  |              |
| _after    | h_t = z h_{t-1} + (1 - z) n                   |                      |                  |              |
| Dense     | y = activation(W x + b), W (units, input_dim) |                      |                  | (units,)     |
| Embedding | y_t = E[x_t], E (input_dim, output_dim)       |                      |                  |              |

    layer = LSTM(Wx, Wh, b, return_sequences=True)
    y = layer(x)        # x (batch, timesteps, input_dim) -> y (batch, timesteps, units)

Weights have one row a unit (and gate); Keras's kernel and recurrent kernel are their transposes. States start at zero.
Beside these: Bidirectional, RNN (stacked cells), TimeDistributed, BatchNormalization (in inference), Masking, Dropout
and Activation; and Model, a graph of layers, of which Sequential is the chain.
"""

from rnn_scratch.cells import GRUCell, LSTMCell, SimpleRNNCell
from rnn_scratch.feedforward import Activation, Dense, Dropout, Embedding, Masking
from rnn_scratch.layers import GRU, LSTM, SimpleRNN
from rnn_scratch.models import Model, Node, Sequential
from rnn_scratch.normalization import BatchNormalization
from rnn_scratch.wrappers import RNN, Bidirectional, TimeDistributed

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "BatchNormalization",
    "Bidirectional",
    "Dense",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "Masking",
    "Model",
    "Node",
    "Sequential",
    "SimpleRNN",
    "SimpleRNNCell",
    "TimeDistributed",
]
