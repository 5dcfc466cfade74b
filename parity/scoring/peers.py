"""The same layers in other libraries, where those are installed: SimpleRNN, LSTM and GRU from zeros, in float32."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from parity.kinds.cells import ELSEWHERE
from parity.ports.layouts import KINDS, LAYOUTS
from rnn_scratch.base import Array
from rnn_scratch.layers import Recurrent

Peer = Callable[..., Array]


def of(layer: Recurrent, mask: Any = None, initial_state: Any = None) -> dict[str, Peer]:
    """Those that compute it: in time order, from zeros, in float32. PyTorch has no GRU with reset_after=False."""
    plain = mask is None and initial_state is None and not layer.go_backwards and not layer.return_state
    if not (plain and layer.kind in ELSEWHERE and layer.dtype == np.float32 and _is_usual(layer)):
        return {}
    found = _installed()
    if not layer.cell.settings.get("reset_after", True):
        found.pop("torch", None)
    return found


def _is_usual(layer: Recurrent) -> bool:
    settings = layer.cell.settings
    gates = settings.get("recurrent_activation", "sigmoid")
    return (settings["activation"], gates) == ("tanh", "sigmoid")


def _installed() -> dict[str, Peer]:
    """Those of the libraries that are there."""
    found: dict[str, Peer] = {}
    if importlib.util.find_spec("torch"):
        found["torch"] = torch_layer
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        found["onnxruntime"] = onnx_layer
    return found


def reordered(layer: Recurrent, layout: str) -> tuple[Array, ...]:
    """Wx, Wh and both biases with the gates in that layout's order."""
    cell, u = layer.cell, layer.units
    order = [KINDS[layer.kind].index(gate) for gate in LAYOUTS[layout].gates[layer.kind]]
    rows = np.concatenate([np.arange(n * u, (n + 1) * u) for n in order])
    b, b_h = cell.b if cell.b.ndim == 2 else (cell.b, np.zeros_like(cell.b))
    return cell.Wx[rows], cell.Wh[rows], b[rows], b_h[rows]


def torch_layer(x: Array, layer: Recurrent) -> Array:
    import torch

    kind = getattr(torch.nn, ELSEWHERE[layer.kind].torch)
    module = kind(layer.cell.input_dim, layer.units, batch_first=True)
    keys = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    arrays = zip(keys, reordered(layer, "torch"), strict=True)
    module.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in arrays})
    with torch.inference_mode():
        y: Array = module(torch.from_numpy(x))[0].numpy()
    return y if layer.return_sequences else y[:, -1]


def onnx_layer(x: Array, layer: Recurrent) -> Array:
    import onnx
    import onnxruntime

    make, name = onnx.helper, ELSEWHERE[layer.kind].onnx
    Wx, Wh, b, b_h = reordered(layer, "onnx")
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
    # time first is the only layout that ONNX Runtime's operators know
    y: Array = session.run(None, {"x": np.ascontiguousarray(x.swapaxes(0, 1))})[0][:, 0].swapaxes(0, 1)
    return y if layer.return_sequences else y[:, -1]
