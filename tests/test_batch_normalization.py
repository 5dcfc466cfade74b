"""BatchNormalization as a kind: from Keras and back, golden files, ports; and models of which a port folds it away."""

import shutil

import keras
import numpy as np
import pytest
import tf_keras

import parity
from parity import InputError, UnsupportedError, porting
from parity.api import check_file
from parity.candidates.weights import Weights
from parity.cases.case import Case
from parity.errors import CandidateError
from parity.golden.layers import describe, rebuild
from parity.kinds import registry
from parity.ports import formats as ports
from parity.ports import packing
from parity.ports.layouts import LAYOUTS
from rnn_scratch import BatchNormalization, Bidirectional, Dense, Sequential

TIMESTEPS, INPUT_DIM, EPSILON = 6, 3, 0.01
libraries = pytest.mark.parametrize("library", [keras, tf_keras], ids=lambda library: library.__name__)


# --- models with statistics as training leaves them ---


def recurrent(library, kind, units=3, **settings):
    layers = library.layers
    if kind == "bidirectional":
        return layers.Bidirectional(layers.GRU(units, return_sequences=True, **settings))
    return {"lstm": layers.LSTM, "gru": layers.GRU, "simple_rnn": layers.SimpleRNN}[kind](
        units, return_sequences=True, **settings
    )


def model(kind="lstm", library=keras, scale=True, center=True, dtype="float32", features=4, seed=0):
    layers, settings = library.layers, {"dtype": policy(library, dtype)}
    normal = {"epsilon": EPSILON, "scale": scale, "center": center, **settings}
    built = library.Sequential(
        [
            library.Input((TIMESTEPS, INPUT_DIM)),
            layers.Dense(features, **settings),
            layers.BatchNormalization(**normal),
            recurrent(library, kind, **settings),
            layers.BatchNormalization(**normal),
            layers.Dense(2, **settings),
        ]
    )
    return trained(built, np.random.default_rng(seed))


def policy(library, dtype):
    return library.mixed_precision.Policy(dtype) if library is tf_keras else dtype


def trained(built, rng):
    """The mean far from zero, and the variance of the units behind a recurrent layer small."""
    y = rng.standard_normal((16, TIMESTEPS, INPUT_DIM)).astype("f")
    for layer in built.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([*given(layer, rng), *statistics(np.asarray(y, "f"))])
        else:
            shapes = [weight.shape for weight in layer.get_weights()]
            layer.set_weights([20 * rng.standard_normal(s) if s == (4,) else drawn(rng, s) for s in shapes])
        y = np.asarray(keras.ops.convert_to_numpy(layer(y)))
    return built


def drawn(rng, shape):
    return rng.standard_normal(shape) / np.sqrt(shape[0])


def given(layer, rng):
    n = layer.moving_mean.shape[0]
    gamma, beta = rng.uniform(0.3, 2, n), rng.standard_normal(n)
    return [array for array, there in ((gamma, layer.scale), (beta, layer.center)) if there]


def statistics(y):
    return y.mean(axis=(0, 1)), y.var(axis=(0, 1))


# --- ports by hand: of each layer its name and a function, until what is folded away ---


def one_constant(norm, x):
    factor, constant = factor_and_constant(norm)
    return x * factor + constant


def centred(norm, x):
    return norm.gamma * ((x - norm.mean) / np.sqrt(norm.variance + np.float32(norm.epsilon))) + norm.beta


def factor_and_constant(norm, epsilon=True, mean=True):
    factor = norm.gamma / np.sqrt(norm.variance + np.float32(norm.epsilon if epsilon else 0))
    return factor, norm.beta - norm.mean * factor if mean else norm.beta


def ahead(layer, factor, constant):
    """The layer that takes what the norm before it took."""
    if isinstance(layer, Bidirectional):
        twin = {name: ahead(part, factor, constant).weights for name, part in layer.parts.items()}
        return layer.replace(**{f"{part}.{name}": array for part in twin for name, array in twin[part].items()})
    matrix = "W" if isinstance(layer, Dense) else "Wx"
    W, b = layer.weights[matrix], layer.weights["b"]
    moved = W @ constant
    b = b + np.stack([moved, 0 * moved]) if b.ndim == 2 else b + moved
    return layer.replace(**{**layer.weights, matrix: W * factor, "b": b})


def back(dense, factor, constant):
    """The layer that puts out what the norm behind it put out."""
    return dense.replace(W=dense.W * factor[:, None], b=dense.b * factor + constant)


def unfolded(layer, formula):
    for name, part in layer.parts.items():
        yield name, (lambda x, norm=part: formula(norm, x)) if isinstance(part, BatchNormalization) else part


def folded(layer, backwards, **wrong):
    """backwards: into a linear layer before it, if that is one; else into the layer after it."""
    steps = list(layer.parts.items())
    while steps:
        (name, part), *steps = steps
        if isinstance(part, BatchNormalization):
            after, taker = steps[0]
            steps[0] = after, ahead(taker, *factor_and_constant(part, **wrong))
        elif backwards and isinstance(part, Dense) and steps and isinstance(steps[0][1], BatchNormalization):
            (name, norm), *steps = steps
            yield name, back(part, *factor_and_constant(norm, **wrong))
        else:
            yield name, part


def outputs(x, steps, shown):
    found = {}
    for name, step in steps:
        x = found[name] = step(x)
    return found if shown else x


PORTS = {
    "rnn_scratch": lambda x, layer: layer(x),
    "one constant": lambda x, layer: outputs(x, unfolded(layer, one_constant), shown=False),
    "centred": lambda x, layer: outputs(x, unfolded(layer, centred), shown=False),
    "centred, shown": lambda x, layer: outputs(x, unfolded(layer, centred), shown=True),
    "ahead": lambda x, layer: outputs(x, folded(layer, False), shown=False),
    "ahead, shown": lambda x, layer: outputs(x, folded(layer, False), shown=True),
    "back": lambda x, layer: outputs(x, folded(layer, True), shown=False),
    "back, shown": lambda x, layer: outputs(x, folded(layer, True), shown=True),
}
WRONG = {"epsilon forgotten": {"epsilon": False}, "mean not folded": {"mean": False}}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn", "bidirectional"])
def test_a_right_port_passes(kind, port):
    report = parity.check(PORTS[port], model(kind), input_shape=(TIMESTEPS, INPUT_DIM))
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("backwards", [False, True], ids=["ahead", "back"])
@pytest.mark.parametrize("kind", ["lstm", "bidirectional"])
def test_a_wrong_fold_fails(kind, backwards, wrong):
    def port(x, layer):
        return outputs(x, folded(layer, backwards, **WRONG[wrong]), shown=False)

    assert parity.check(port, model(kind), input_shape=(TIMESTEPS, INPUT_DIM)).verdict == "FAIL"


@pytest.mark.parametrize("formula", [one_constant, centred])
def test_a_wrong_norm_is_found_where_it_stands(formula):
    def port(x, layer):
        names = list(layer.parts)
        wrong = layer.replace(**{**layer.weights, f"{names[3]}.beta": layer.weights[f"{names[3]}.gamma"]})
        return outputs(x, unfolded(wrong, formula), shown=True)

    report = parity.check(port, model(), input_shape=(TIMESTEPS, INPUT_DIM))
    rows = report.to_dict()["cases"][0]["layers"]
    assert [row["verdict"] for row in rows] == ["PASS", "PASS", "PASS", "FAIL", "PASS"]


# --- from Keras and back ---

PARTS = {"whole": (True, True), "no scale": (False, True), "no center": (True, False), "bare": (False, False)}


@libraries
@pytest.mark.parametrize("dtype", ["float16", "mixed_float16", "mixed_bfloat16", "float64"])
def test_policies(library, dtype):
    built = model("gru", library, dtype=dtype)
    layer = parity.from_keras(built)
    again = parity.from_keras(parity.to_keras(layer, module=library))
    for name, array in layer.weights.items():
        assert array.dtype == again.weights[name].dtype
        assert np.array_equal(array, again.weights[name])
    norm = layer.layers[1]
    assert norm.dtype.name == dtype.removeprefix("mixed_")
    kept = [np.asarray(weight) for weight in built.layers[1].get_weights()]
    assert all(np.array_equal(*pair) for pair in zip(norm.weights.values(), kept, strict=True))  # not one was rounded
    report = parity.check(lambda x, layer: layer.outputs(x), built, input_shape=(TIMESTEPS, INPUT_DIM))
    assert report.verdict == "PASS", str(report)


@libraries
@pytest.mark.parametrize("parts", PARTS)
def test_there_and_back(parts, library):
    scale, center = PARTS[parts]
    built = model("simple_rnn", library, scale, center)
    layer = parity.from_keras(built)
    norm = layer.layers[1]
    assert (norm.epsilon, norm.scale, norm.center) == (EPSILON, scale, center)
    twin = parity.to_keras(layer, module=library)
    for one, other in zip(built.get_weights(), twin.get_weights(), strict=True):
        assert np.array_equal(one, other)
    x = np.random.default_rng(1).standard_normal((2, TIMESTEPS, INPUT_DIM)).astype("f")
    assert np.array_equal(np.asarray(built(x)), np.asarray(twin(x)))
    again = rebuild(describe(layer), layer.weights)
    assert np.array_equal(again(x), layer(x))
    for layout in LAYOUTS.values():
        if layout.name in ("torch", "keras", "notebook"):
            blank = layer.replace(**{name: 0 * array for name, array in layer.weights.items()})
            back = packing.unpacked(blank, layout, packing.packed(layer, layout))
            assert all(np.array_equal(back.weights[name], array) for name, array in layer.weights.items())


@libraries
def test_masks_pass_through_it_and_time_distributed_holds_it(library):
    layers = library.layers
    inner = layers.TimeDistributed(layers.BatchNormalization())
    built = library.Sequential(
        [library.Input((TIMESTEPS, INPUT_DIM)), layers.Masking(), layers.BatchNormalization(), layers.LSTM(3)]
    )
    trained(built, np.random.default_rng(0))
    x = np.ones((2, TIMESTEPS, INPUT_DIM), "f")
    x[1, 3:] = 0
    assert parity.check(lambda x, layer: layer(x), built, x).verdict == "PASS"
    unmasked = parity.check(lambda x, layer: Sequential(layer.layers[1:])(x), built, x)
    assert unmasked.verdict == "FAIL"
    held = library.Sequential([library.Input((TIMESTEPS, INPUT_DIM)), layers.GRU(4, return_sequences=True), inner])
    inner.set_weights([np.full(4, 2.0), np.ones(4), np.full(4, 0.1), np.full(4, 0.01)])
    assert parity.check(lambda x, layer: layer(x), held, input_shape=(TIMESTEPS, INPUT_DIM)).verdict == "PASS"


def built_norm(library=keras, **settings):
    layer = library.layers.BatchNormalization(**settings)
    layer.build((2, TIMESTEPS, INPUT_DIM))
    return layer


@libraries
def test_the_last_axis_by_either_name(library):
    for axis in (-1, 2):
        assert parity.from_keras(built_norm(library, axis=axis)).units == INPUT_DIM
    for axis in (1, -2):
        with pytest.raises(UnsupportedError, match=r"BatchNormalization over axis -?\d of 3 is not covered"):
            parity.from_keras(built_norm(library, axis=axis))


def test_what_cannot_be_taken_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="axis 1, 2 of 3 is not covered"):
        parity.from_keras(built_norm(tf_keras, axis=[1, 2]))
    with pytest.raises(UnsupportedError, match="virtual_batch_size is not covered"):
        parity.from_keras(built_norm(tf_keras, virtual_batch_size=2))
    with pytest.raises(InputError, match="expected a built layer"):
        parity.from_keras(keras.layers.BatchNormalization())
    for value, said in ((np.nan, "expected finite weights"), (-0.5, "expected no negative numbers; received -0.5")):
        layer = built_norm()
        layer.moving_variance.assign([1, value, 1])
        with pytest.raises(InputError, match=f"moving_variance: {said}"):
            parity.from_keras(layer)


@libraries
def test_renormalization_is_a_matter_of_training(library):
    layer = built_norm(library, renorm=True)
    layer.set_weights([np.arange(1, 4) + n for n in range(len(layer.get_weights()))])
    x = np.random.default_rng(0).standard_normal((2, TIMESTEPS, INPUT_DIM)).astype("f")
    np.testing.assert_allclose(parity.from_keras(layer)(x), np.asarray(layer(x, training=False)), atol=1e-5)


def test_a_model_that_is_not_built_gets_statistics_that_can_be():
    built = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.GRU(3)])
    report = parity.check(lambda x, layer: layer(x), built, input_shape=(TIMESTEPS, INPUT_DIM))
    assert report.verdict == "PASS", str(report)
    mean, variance = built.layers[0].get_weights()[2:]
    assert mean.all()
    assert (variance > 0).all()
    assert not np.allclose(variance, 1)


@pytest.mark.parametrize("distribution", ["normal", "keras", "uniform", "chaotic"])
def test_drawn_statistics(distribution):
    one = np.ones(50, "f")
    drawn = registry.draw(BatchNormalization(one, one, one, one), np.random.default_rng(0), distribution)
    assert drawn["variance"].min() > 0
    if distribution == "keras":  # what Keras starts with
        assert [set(array) for array in drawn.values()] == [{1}, {0}, {0}, {1}]


# --- golden files and ports ---


def test_a_golden_file(tmp_path):
    path = str(tmp_path / "golden.npz")
    parity.record(model(dtype="mixed_float16"), path, input_shape=(TIMESTEPS, INPUT_DIM))
    assert check_file(lambda x, layer: layer.outputs(x), path).verdict == "PASS"
    parity.record(model(), path, input_shape=(TIMESTEPS, INPUT_DIM))
    assert check_file(PORTS["ahead"], path).verdict == "PASS"
    wrong = check_file(lambda x, layer: outputs(x, folded(layer, True, epsilon=False), shown=False), path)
    assert wrong.verdict == "FAIL"


@pytest.mark.parametrize("parts", ["whole", "no scale", "bare"])
@pytest.mark.parametrize("to", ports.FORMATS)
def test_a_port_is_the_same_function(tmp_path, to, parts):
    if to == "c" and shutil.which("cc") is None:
        pytest.skip("no C compiler")
    if to == "torch":
        pytest.importorskip("torch")
    built = model("gru", keras, *PARTS[parts])
    layer = parity.from_keras(built)
    port = ports.write(layer, to)
    path = tmp_path / f"port{ports.FORMATS[to].suffix}"
    path.write_bytes(port.data)
    report = parity.check(porting.candidate(str(path), to, layer), built, input_shape=(TIMESTEPS, INPUT_DIM))
    assert report.verdict == "PASS", str(report)
    told = port.manifest["layers"][1]
    assert told["settings"] == {"epsilon": EPSILON, "scale": PARTS[parts][0], "center": PARTS[parts][1]}
    assert told["arrays"][-1]["from"] == "moving_variance"


def last_norm():
    """The norm of a model as a whole one of a single layer."""
    rng = np.random.default_rng(0)
    gamma, beta, mean, variance = (rng.uniform(0.5, 2, 4).astype("f") for _ in range(4))
    return BatchNormalization(gamma, beta, mean, variance), [gamma, beta, mean, variance]


def test_a_state_dict_of_torchs_own():
    torch = pytest.importorskip("torch")
    norm, arrays = last_norm()
    module = torch.nn.BatchNorm1d(4, eps=norm.epsilon).eval()
    names = ("weight", "bias", "running_mean", "running_var")
    with torch.no_grad():
        for name, array in zip(names, arrays, strict=True):
            getattr(module, name).copy_(torch.from_numpy(array))
    found = {f"norm.{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    assert "norm.num_batches_tracked" in found
    blank = norm.replace(**{name: np.ones(4, "f") for name in norm.arrays})
    layout, own = packing.recognised(blank, found)
    assert layout.name == "torch"
    back = packing.unpacked(blank, layout, own)
    assert all(np.array_equal(back.weights[name], norm.weights[name]) for name in norm.arrays)
    x = np.random.default_rng(1).standard_normal((5, 4)).astype("f")
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), back(x[:, None])[:, 0], atol=1e-5)


def test_what_torch_writes_for_what_there_is_not(tmp_path):
    norm, (gamma, _, mean, variance) = last_norm()
    norm = BatchNormalization(gamma, None, mean, variance)
    arrays = packing.packed(norm, LAYOUTS["torch"])
    assert np.array_equal(arrays["bias"], np.zeros(4))
    port = ports.write(norm, "npz", "torch")
    assert [array["from"] for array in port.manifest["layers"][0]["arrays"]] == [
        "gamma",
        "zeros",
        "moving_mean",
        "moving_variance",
    ]
    with pytest.raises(InputError, match="bias: expected zeros, for batch_normalization has no beta"):
        packing.unpacked(norm, LAYOUTS["torch"], {**arrays, "bias": mean})
    path = tmp_path / "weights.npz"
    np.savez(path, **{**arrays, "bias": mean})
    with pytest.raises(CandidateError, match="expected zeros"):
        Weights(str(path)).ask(Case("case", norm, np.ones((1, 2, 4), "f")))
