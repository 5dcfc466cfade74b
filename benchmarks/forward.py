"""How fast is rnn_scratch beside the libraries? `python benchmarks/forward.py` prints a Markdown table for each layer.

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
from common import KINDS, SHAPES, Array, Run, Shape, best_times, markdown, problem

from parity import MissingExtraError, to_keras
from parity.adapters.keras.library import muted_start
from parity.kinds.cells import ELSEWHERE
from parity.scoring.peers import reordered

ROUNDS = 15
SAME = 1e-4


def scratch(layer: Any, x: Array) -> Run:
    return lambda: layer(x)


def keras_predict(layer: Any, x: Array) -> Run:
    """Keras's `predict_on_batch`: NumPy in, NumPy out, a graph of Keras's own making."""
    model = importlib.import_module("keras").Sequential([to_keras(layer)])
    return lambda: model.predict_on_batch(x)


def tf_function(layer: Any, x: Array, **options: Any) -> Run:
    """The Keras layer in a `tf.function` of one signature, its input a tensor already."""
    keras_layer, tf = to_keras(layer), importlib.import_module("tensorflow")
    tensor = tf.constant(x)
    compiled = tf.function(lambda x: keras_layer(x, training=False), **options).get_concrete_function(tensor)
    return lambda: compiled(tensor).numpy()


def keras_xla(layer: Any, x: Array) -> Run:
    return tf_function(layer, x, jit_compile=True)


def torch_rnn(layer: Any, x: Array) -> Run:
    torch = importlib.import_module("torch")
    rnn = getattr(torch.nn, ELSEWHERE[layer.kind].torch)(layer.input_dim, layer.units, batch_first=True).eval()
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    arrays = zip(names, reordered(layer, "torch"), strict=True)
    rnn.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays})
    tensor = torch.from_numpy(x)

    def run() -> Array:
        with torch.inference_mode():
            return rnn(tensor)[0].numpy()

    return run


def onnx_rnn(layer: Any, x: Array) -> Run:
    """ONNX Runtime's operator on the CPU. It knows time-major arrays only, so the graph transposes x for it."""
    onnx, ort = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    helper, tensors = onnx.helper, onnx.numpy_helper
    name = ELSEWHERE[layer.kind].onnx
    Wx, Wh, b, b_h = reordered(layer, "onnx")
    weights = {"W": Wx, "R": Wh, "B": np.concatenate([b, b_h])}
    options = {"linear_before_reset": 1} if name == "GRU" else {}
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["x_time_major"], perm=[1, 0, 2]),
            helper.make_node(name, ["x_time_major", "W", "R", "B"], ["y"], hidden_size=layer.units, **options),
        ],
        "rnn",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (x.shape[1], 1, len(x), layer.units))],
        [tensors.from_array(array[None], name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0][:, 0].swapaxes(0, 1)


def sigmoid(z: Array) -> Array:
    """In place."""
    z *= 0.5
    np.tanh(z, z)
    z *= 0.5
    z += 0.5
    return z


def simple_rnn_step(z: Array, p: Array, h: Array, c: Array, u: int) -> Array:
    z += p
    return np.tanh(z, z)


def lstm_step(z: Array, p: Array, h: Array, c: Array, u: int) -> Array:
    z += p
    i_f, g, o = sigmoid(z[..., : 2 * u]), np.tanh(z[..., 2 * u : 3 * u]), sigmoid(z[..., 3 * u :])
    c *= i_f[..., u:]
    g *= i_f[..., :u]
    c += g
    h = np.tanh(c)
    h *= o
    return h


def gru_step(z: Array, p: Array, h: Array, c: Array, u: int) -> Array:
    z_r = z[..., : 2 * u]
    z_r += p[..., : 2 * u]
    sigmoid(z_r)
    n = z[..., 2 * u :]
    n *= z_r[..., u:]
    n += p[..., 2 * u :]
    np.tanh(n, n)
    y = h - n
    y *= z_r[..., :u]
    y += n
    return y


STEPS = {"simple_rnn": simple_rnn_step, "lstm": lstm_step, "gru": gru_step}


def numpy_loop(layer: Any, x: Array) -> Run:
    """What one would write by hand and for speed: the projection hoisted, everything in place."""
    WxT, WhT, u, step = layer.Wx.T.copy(), layer.Wh.T.copy(), layer.units, STEPS[layer.kind]
    b, b_h = layer.b if layer.b.ndim == 2 else (layer.b, None)

    def run() -> Array:
        batch, timesteps, input_dim = x.shape
        p = x.swapaxes(0, 1).reshape(-1, input_dim).dot(WxT)
        p += b
        p = p.reshape(timesteps, batch, -1)
        y = np.empty((timesteps, batch, u), x.dtype)
        h, c, z = np.zeros_like(y[0]), np.zeros_like(y[0]), np.empty_like(p[0])
        for p_t, y_t in zip(p, y, strict=True):
            h.dot(WhT, z)
            if b_h is not None:
                z += b_h
            y_t[...] = h = step(z, p_t, h, c, u)
        return y.swapaxes(0, 1)

    return run


def floor(layer: Any, x: Array) -> Run:
    """The same products and functions, but of all steps at once, as if the states were known beforehand."""
    y: Array = layer(x)
    before = np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], axis=1).swapaxes(0, 1).reshape(-1, layer.units)
    WxT, WhT, u, step = layer.Wx.T.copy(), layer.Wh.T.copy(), layer.units, STEPS[layer.kind]
    b, b_h = layer.b if layer.b.ndim == 2 else (layer.b, None)
    # LSTM's c is not known beforehand: any numbers take as long, and those of this cell make the outputs right
    steps = np.asarray(carried(layer, x)).reshape(-1, u)

    def run() -> Array:
        batch, timesteps, input_dim = x.shape
        p = x.swapaxes(0, 1).reshape(-1, input_dim).dot(WxT)
        p += b
        z = before.dot(WhT)
        if b_h is not None:
            z += b_h
        return step(z, p, before, steps.copy(), u).reshape(timesteps, batch, -1).swapaxes(0, 1)

    return run


def carried(layer: Any, x: Array) -> list[Array]:
    """What the cell carries unseen before each step, zeros where it carries nothing."""
    states = layer.initial_states(len(x))
    found = []
    for x_t in x.swapaxes(0, 1):
        found.append(states[-1] if layer.cell.carried else np.zeros_like(states[0]))
        states = layer.cell.update(layer.cell.project(x_t), *states)
    return found


CONTESTANTS: dict[str, Callable[[Any, Array], Run]] = {
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


def contestants(shape: Shape, kind: str, missing: dict[str, str]) -> dict[tuple[Shape, str], Run]:
    """Those that are there and compute the same; the others go into `missing`, with what they lack."""
    layer, x = problem(shape, kind)
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
            raise SystemExit(f"{kind}, {name}, {shape}: does not compute what rnn_scratch computes; nothing was timed")
        runs[shape, name] = run
    return runs


def row(shape: Shape, times: dict[tuple[Shape, str], float]) -> list[str]:
    own = times[shape, "rnn_scratch"]
    ratios = [f"{times[shape, name] / own:.2f}" if (shape, name) in times else "-" for name in PEERS]
    return [str(shape), f"{own * 1e3:.3f}", *ratios]


@click.command()
@click.option("--layer", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="One or more; all if not given.")
@click.option("--only", type=click.IntRange(0, len(SHAPES) - 1), help="One shape, by its index from 0.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Turns for each contestant; the best call counts.")
@click.option("--json", "as_json", is_flag=True, help="The times in seconds instead of the tables.")
def main(kinds: tuple[str, ...], only: int | None, rounds: int, as_json: bool) -> None:
    """rnn_scratch in ms, the others as ratios to it: above 1, rnn_scratch is the faster one."""
    shapes, missing, figures = SHAPES if only is None else (SHAPES[only],), dict[str, str](), []
    for kind in kinds or KINDS:
        runs: dict[tuple[Shape, str], Run] = {}
        for shape in shapes:
            runs |= contestants(shape, kind, missing)
        times = best_times(runs, rounds)
        figures += [{"layer": kind, "shape": s, "contestant": n, "seconds": best} for (s, n), best in times.items()]
        if not as_json:
            header = [f"{kind}: batch, timesteps, input_dim, units", "rnn_scratch, ms", *PEERS]
            click.echo(markdown(header, [row(shape, times) for shape in shapes]) + "\n")
    if as_json:
        click.echo(json.dumps(figures, indent=2))
    if missing:
        click.echo(f"not here: {', '.join(missing)}; pip install '.[bench]'", err=True)


if __name__ == "__main__":
    main()
