"""How fast is rnn_scratch.SimpleRNN beside the libraries? `python benchmarks/forward.py` prints a Markdown table.

float32, return_sequences=True, every library with the threads it takes by default. Each is handed the arrays in the
form that it likes and may keep its output there (a view with the axes swapped is free, as it is for rnn_scratch), and
each must have computed the same before it is timed.
"""

import importlib
import json
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from common import SHAPES, Array, Run, Shape, best_times, markdown, problem

from parity import MissingExtraError, to_keras
from parity.adapters.keras import muted_start
from rnn_scratch import SimpleRNN

ROUNDS = 15
SAME = 1e-4


def scratch(layer: SimpleRNN, x: Array) -> Run:
    return lambda: layer(x)  # type: ignore[return-value]


def keras_predict(layer: SimpleRNN, x: Array) -> Run:
    """Keras's `predict_on_batch`: NumPy in, NumPy out, a graph of Keras's own making."""
    model = importlib.import_module("keras").Sequential([to_keras(layer)])
    return lambda: model.predict_on_batch(x)


def tf_function(layer: SimpleRNN, x: Array, **options: Any) -> Run:
    """The Keras layer in a `tf.function` of one signature, its input a tensor already."""
    keras_layer, tf = to_keras(layer), importlib.import_module("tensorflow")
    tensor = tf.constant(x)
    compiled = tf.function(lambda x: keras_layer(x, training=False), **options).get_concrete_function(tensor)
    return lambda: compiled(tensor).numpy()


def keras_xla(layer: SimpleRNN, x: Array) -> Run:
    return tf_function(layer, x, jit_compile=True)


def torch_rnn(layer: SimpleRNN, x: Array) -> Run:
    torch = importlib.import_module("torch")
    rnn = torch.nn.RNN(layer.input_dim, layer.units, batch_first=True).eval()
    arrays = {"weight_ih_l0": layer.Wx, "weight_hh_l0": layer.Wh, "bias_ih_l0": layer.b, "bias_hh_l0": 0 * layer.b}
    rnn.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    tensor = torch.from_numpy(x)

    def run() -> Array:
        with torch.inference_mode():
            return rnn(tensor)[0].numpy()

    return run


def onnx_rnn(layer: SimpleRNN, x: Array) -> Run:
    """ONNX Runtime's RNN operator on the CPU. It knows time-major arrays only, so the graph transposes x for it."""
    onnx, ort = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    helper, tensors = onnx.helper, onnx.numpy_helper
    bias = np.concatenate([layer.b, np.zeros_like(layer.b)])
    weights = {"W": layer.Wx, "R": layer.Wh, "B": bias}
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["x_time_major"], perm=[1, 0, 2]),
            helper.make_node("RNN", ["x_time_major", "W", "R", "B"], ["y"], hidden_size=layer.units),
        ],
        "rnn",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (x.shape[1], 1, len(x), layer.units))],
        [tensors.from_array(array[None], name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0][:, 0].swapaxes(0, 1)


def numpy_loop(layer: SimpleRNN, x: Array) -> Run:
    """What one would write by hand and for speed: the projection hoisted, every step written to where it belongs."""
    WxT, WhT, b = layer.Wx.T.copy(), layer.Wh.T.copy(), layer.b

    def run() -> Array:
        batch, timesteps, input_dim = x.shape
        p = x.swapaxes(0, 1).reshape(-1, input_dim).dot(WxT)
        p += b
        y = p.reshape(timesteps, batch, -1)
        h, z = np.zeros_like(y[0]), np.empty_like(y[0])
        for y_t in y:
            h.dot(WhT, z)
            np.add(z, y_t, z)
            h = np.tanh(z, y_t)
        return y.swapaxes(0, 1)

    return run


def floor(layer: SimpleRNN, x: Array) -> Run:
    """The same products, sums and tanh, but of all steps at once, as if the states were known beforehand."""
    y: Array = layer(x)  # type: ignore[assignment]
    before = np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], axis=1).swapaxes(0, 1).reshape(-1, layer.units)
    WxT, WhT, b = layer.Wx.T.copy(), layer.Wh.T.copy(), layer.b

    def run() -> Array:
        batch, timesteps, input_dim = x.shape
        p = x.swapaxes(0, 1).reshape(-1, input_dim).dot(WxT)
        p += b
        p += before.dot(WhT)
        return np.tanh(p, p).reshape(timesteps, batch, -1).swapaxes(0, 1)

    return run


CONTESTANTS: dict[str, Callable[[SimpleRNN, Array], Run]] = {
    "rnn_scratch": scratch,
    "Keras predict_on_batch": keras_predict,
    "tf.function": tf_function,
    "XLA": keras_xla,
    "torch": torch_rnn,
    "ONNX Runtime": onnx_rnn,
    "NumPy loop": numpy_loop,
    "floor": floor,
}
PEERS = list(CONTESTANTS)[1:]


def contestants(shape: Shape, missing: dict[str, str]) -> dict[tuple[Shape, str], Run]:
    """Those that are there and compute the same; the others go into `missing`, with what they lack."""
    layer, x = problem(shape)
    expected, runs = layer(x), {}
    for name, contestant in CONTESTANTS.items():
        try:
            with muted_start():  # also what the libraries print when they compile
                run = contestant(layer, x)
                got = run()
        except (ImportError, MissingExtraError) as error:
            missing[name] = str(error)
            continue
        if got.shape != expected.shape or not np.allclose(got, expected, rtol=0, atol=SAME):
            raise SystemExit(f"{name}, {shape}: does not compute what rnn_scratch computes; nothing was timed")
        runs[shape, name] = run
    return runs


def row(shape: Shape, times: dict[tuple[Shape, str], float]) -> list[str]:
    own = times[shape, "rnn_scratch"]
    ratios = [f"{times[shape, name] / own:.2f}" if (shape, name) in times else "-" for name in PEERS]
    return [str(shape), f"{own * 1e3:.3f}", *ratios]


@click.command()
@click.option("--only", type=click.IntRange(0, len(SHAPES) - 1), help="One shape, by its index from 0.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Turns for each contestant; the best call counts.")
@click.option("--json", "as_json", is_flag=True, help="The times in seconds instead of the table.")
def main(only: int | None, rounds: int, as_json: bool) -> None:
    """rnn_scratch.SimpleRNN in ms, the others as ratios to it: above 1, rnn_scratch is the faster one."""
    shapes, missing, runs = SHAPES if only is None else (SHAPES[only],), dict[str, str](), {}
    for shape in shapes:
        runs |= contestants(shape, missing)
    times = best_times(runs, rounds)
    if as_json:
        figures = [{"shape": shape, "contestant": name, "seconds": best} for (shape, name), best in times.items()]
        click.echo(json.dumps(figures, indent=2))
    else:
        header = ["batch, timesteps, input_dim, units", "rnn_scratch, ms", *PEERS]
        click.echo(markdown(header, [row(shape, times) for shape in shapes]))
    if missing:
        click.echo(f"not here: {', '.join(missing)}; pip install '.[bench]'", err=True)


if __name__ == "__main__":
    main()
