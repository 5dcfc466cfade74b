"""The same layers in other libraries, where those are installed: SimpleRNN, LSTM and GRU from zeros, in float32."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from rnn_scratch.layers import Recurrent

Array = Any
TORCH = {"simple_rnn": ("RNN", [0]), "lstm": ("LSTM", [0, 1, 2, 3]), "gru": ("GRU", [1, 0, 2])}
ONNX = {"simple_rnn": ("RNN", [0]), "lstm": ("LSTM", [0, 3, 1, 2]), "gru": ("GRU", [0, 1, 2])}


def reordered(layer: Recurrent, order: list[int]) -> tuple[Array, ...]:
    """Wx, Wh and both biases with the gates in that order."""
    cell = layer.cell
    rows = np.concatenate([np.arange(n * layer.units, (n + 1) * layer.units) for n in order])
    b, b_h = cell.b if cell.b.ndim == 2 else (cell.b, np.zeros_like(cell.b))
    return cell.Wx[rows], cell.Wh[rows], b[rows], b_h[rows]


def torch_layer(x: Array, layer: Recurrent) -> Array:
    import torch

    name, order = TORCH[layer.kind]
    module = getattr(torch.nn, name)(layer.cell.input_dim, layer.units, batch_first=True)
    keys = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    arrays = reordered(layer, order)
    module.load_state_dict({key: torch.from_numpy(a.copy()) for key, a in zip(keys, arrays, strict=True)})
    with torch.inference_mode():
        y = module(torch.from_numpy(x))[0].numpy()
    return y if layer.return_sequences else y[:, -1]


def onnx_layer(x: Array, layer: Recurrent) -> Array:
    import onnx
    import onnxruntime

    make, (name, order) = onnx.helper, ONNX[layer.kind]
    Wx, Wh, b, b_h = reordered(layer, order)
    weights = {"W": Wx, "R": Wh, "B": np.concatenate([b, b_h])}
    options: dict[str, Any] = {"linear_before_reset": int(layer.cell.settings["reset_after"])} if name == "GRU" else {}
    graph = make.make_graph(
        [make.make_node(name, ["x", "W", "R", "B"], ["y"], hidden_size=layer.units, **options)],
        "one layer",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, None, layer.cell.input_dim])],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array[None].copy(), key) for key, array in weights.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": np.ascontiguousarray(x.swapaxes(0, 1))})[0][:, 0].swapaxes(0, 1)
    return y if layer.return_sequences else y[:, -1]


def installed() -> dict[str, Callable[..., Array]]:
    """Those of the libraries that are there."""
    peers = {"torch": torch_layer, "onnxruntime": onnx_layer}
    needs = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime")}
    return {
        name: peer for name, peer in peers.items() if all(importlib.util.find_spec(module) for module in needs[name])
    }


def of(layer: Recurrent, mask: Array = None, initial_state: Array = None) -> dict[str, Callable[..., Array]]:
    """Those that compute it: in time order, from zeros, in float32. PyTorch has no GRU with reset_after=False."""
    plain = mask is None and initial_state is None and not layer.go_backwards and not layer.return_state
    settings = layer.cell.settings
    gates = settings.get("recurrent_activation", "sigmoid")
    usual = layer.dtype == np.float32 and (settings["activation"], gates) == ("tanh", "sigmoid")
    if not (plain and usual and layer.kind in TORCH):
        return {}
    before = not layer.cell.settings.get("reset_after", True)
    return {name: peer for name, peer in installed().items() if not (before and name == "torch")}
