"""SimpleRNN, LSTM and GRU: one cell in a loop; and what each cell is called elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Of a cell. keras: its layer's class, whose cell's is that and "Cell". onnx: the operator. torch: the class in
    torch.nn. equation: one step, in Keras's letters."""

    keras: str
    onnx: str
    torch: str
    equation: str


NAMES: Mapping[str, Names] = {
    "simple_rnn": Names("SimpleRNN", "RNN", "RNN", "h_t = tanh(Wx x_t + Wh h_{t-1} + b)"),
    "lstm": Names(
        "LSTM",
        "LSTM",
        "LSTM",
        "i, f, o = sigmoid(Wx x_t + Wh h_{t-1} + b); c~ = tanh(Wx x_t + Wh h_{t-1} + b); "
        "c_t = f c_{t-1} + i c~; h_t = o tanh(c_t)",
    ),
    "gru": Names(
        "GRU",
        "GRU",
        "GRU",
        "z, r = sigmoid(Wx x_t + Wh h_{t-1} + b); "
        "h~ = tanh(Wx x_t + b + r (Wh h_{t-1} + b_h)) with reset_after, tanh(Wx x_t + Wh (r h_{t-1}) + b) without; "
        "h_t = z h_{t-1} + (1 - z) h~",
    ),
}
"""By the cell's name in rnn_scratch."""
