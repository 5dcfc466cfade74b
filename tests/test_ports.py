"""Ports: what is written is what the other side loads, and is the same function."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import parity
from parity import cli, porting
from parity.cases.case import Case
from parity.cases.grid import grid
from parity.errors import CandidateError, InputError, UnsupportedError
from parity.given.candidate import as_candidate
from parity.kinds import registry
from parity.ports import c as c_port
from parity.ports import c_source, packing
from parity.ports import formats as ports
from parity.ports.layouts import KINDS, LAYOUTS
from rnn_scratch import GRU, Activation, Dense, Sequential
from rnn_scratch.layers import Layer

SMALL = {case.id: case for case in grid(only="*-b2-t10-i4-u8-*")}
CELLS = [case for case in SMALL.values() if case.layer.kind in KINDS]
PORTED = {
    "simple_rnn": "simple_rnn-b2-t10-i4-u8-seq-tanh-normal",
    "simple_rnn, backwards": "simple_rnn-b2-t10-i4-u8-seq-tanh-normal-go_backwards",
    "simple_rnn, no bias": "simple_rnn-b2-t10-i4-u8-seq-tanh-normal-no_bias",
    "lstm": "lstm-b2-t10-i4-u8-seq-tanh-normal",
    "lstm, hard_sigmoid": "lstm-b2-t10-i4-u8-seq-tanh-hard_sigmoid-normal",
    "gru": "gru-b2-t10-i4-u8-seq-tanh-normal",
    "gru, backwards": "gru-b2-t10-i4-u8-last-tanh-normal-go_backwards",
    "gru, reset before": "gru-b2-t10-i4-u8-seq-tanh-normal-reset_before",
    "bidirectional, concat": "bidirectional-b2-t10-i4-u8-seq-concat-normal",
    "bidirectional, ave": "bidirectional-b2-t10-i4-u8-last-ave-normal",
    "bidirectional, mul": "bidirectional-b2-t10-i4-u8-seq-mul-normal",
    "stack": "stack-b2-t10-i4-u8-seq-tanh-normal",
    "stack, last": "stack-b2-t10-i4-u8-last-tanh-normal",
}


def saved(folder, port, to):
    path = folder / f"port{ports.FORMATS[to].suffix}"
    path.write_bytes(port.data)
    return str(path)


def judged(folder, layer, to, layout=None, spoil=lambda layer: layer):
    """The port of a layer, spoilt before it was written if so, against that layer in Keras."""
    port = ports.write(spoil(layer), to, layout)
    candidate = porting.candidate(saved(folder, port, to), to, layer)
    return parity.check(candidate, parity.to_keras(layer), input_shape=(7, 4))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CELLS[::4], ids=lambda case: case.id)
def test_there_and_back(case, layout):
    layer, layout = case.layer, LAYOUTS[layout]
    try:
        arrays = packing.packed(layer, layout)
    except UnsupportedError:
        assert (layout.name, layer.kind) in (("tflite", "gru"), ("torch", "gru"))
        return
    blank = layer.replace(**{k: 0 * w for k, w in layer.weights.items()})
    for prefix in ("", "rnn.", "model/lstm/"):
        named = {prefix + name: array for name, array in arrays.items()}
        assert packing.recognised(layer, named)[0].name == layout.name
        back = packing.unpacked(blank, *packing.recognised(layer, named))
        assert all(np.array_equal(back.weights[name], array) for name, array in layer.weights.items())


@pytest.mark.parametrize("layout", ["torch", "onnx", "tflite"])
def test_the_layout_is_not_ours(layout):
    """A wrong gate order would be seen: no other layout's arrays are the notebook's."""
    layer = SMALL["lstm-b2-t10-i4-u8-seq-tanh-normal"].layer
    Wx = next(iter(packing.packed(layer, LAYOUTS[layout]).values())).reshape(-1, 4)
    assert np.array_equal(Wx, layer.Wx) == (layout == "torch")
    gru = SMALL["gru-b2-t10-i4-u8-seq-tanh-normal"].layer
    assert layout == "tflite" or np.array_equal(
        next(iter(packing.packed(gru, LAYOUTS[layout]).values())).reshape(-1, 4), gru.Wx
    ) == (layout == "onnx")


@pytest.mark.parametrize("to", ports.FORMATS)
@pytest.mark.parametrize("name", PORTED)
def test_a_port_is_the_same_function(tmp_path, name, to):
    if to == "torch":
        pytest.importorskip("torch")
    layer = SMALL[PORTED[name]].layer
    if to == "torch" and name in ("gru, reset before", "lstm, hard_sigmoid"):
        with pytest.raises(UnsupportedError, match="torch"):
            ports.write(layer, to)
        return
    report = judged(tmp_path, layer, to)
    assert report.verdict == "PASS", str(report)


def gates_swapped(layer):
    order = {"lstm": (0, 2, 1, 3), "gru": (1, 0, 2)}[layer.kind]

    def rows(array):
        parts = np.split(array, len(order), axis=-1)
        return np.concatenate([parts[n] for n in order], axis=-1)

    return layer.replace(Wx=rows(layer.Wx.T).T, Wh=rows(layer.Wh.T).T, b=rows(layer.b))


def not_transposed(layer):
    return layer.replace(**{**layer.weights, "Wh": layer.Wh.T.copy()})


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("name", "to", "spoil", "cause"),
    [
        ("simple_rnn", "onnx", not_transposed, "recurrent-kernel-not-transposed"),
        ("lstm", "onnx", gates_swapped, "gate-order-icfo"),
        ("gru", "onnx", gates_swapped, "gate-order-rzh"),
        ("lstm", "c", gates_swapped, "gate-order-icfo"),
        ("simple_rnn", "c", not_transposed, "recurrent-kernel-not-transposed"),
        ("gru", "safetensors", gates_swapped, "gate-order-rzh"),
        ("lstm", "npz", gates_swapped, "gate-order-icfo"),
    ],
)
def test_a_wrong_port_is_named(tmp_path, name, to, spoil, cause):
    layer = SMALL[PORTED[name]].layer
    report = judged(tmp_path, layer, to, spoil=spoil)
    assert report.verdict == "FAIL"
    assert cause in [found.id for found in report.causes], str(report)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_in_every_layout_are_a_candidate(tmp_path, layout):
    layer = SMALL[PORTED["lstm"]].layer
    assert judged(tmp_path, layer, "safetensors", layout).verdict == "PASS"
    bare = tmp_path / "bare.npz"  # as somebody else writes them, without a manifest
    np.savez(bare, **packing.packed(layer, LAYOUTS[layout]))
    assert parity.check(str(bare), parity.to_keras(layer), input_shape=(7, 4)).verdict == "PASS"


def test_weights_that_do_not_fit(tmp_path):
    layer = SMALL[PORTED["lstm"]].layer
    path = tmp_path / "weights.npz"
    torch = packing.packed(layer, LAYOUTS["torch"])
    two = {**torch, **{name.replace("l0", "l1"): array for name, array in torch.items()}}
    for arrays, said in (
        (two, r"in torch bias_hh_l0 \(32,\).*; received .*weight_ih_l1 \(32, 4\)"),
        ({"Wx": layer.Wx, "Wh": layer.Wh, "b": layer.b, "scale": layer.b[:1]}, r"received .*scale \(1,\)"),
        ({"Wx": layer.Wx}, "in a layout"),
        ({"Wx": layer.Wx, "Wh": layer.Wh, "b": layer.b[1:]}, "in a layout"),
        ({"Wx": layer.Wx, "Wh": layer.Wh, "b": layer.b.astype(int)}, "floating-point"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(CandidateError, match=said):
            parity.check(str(path), parity.to_keras(layer), input_shape=(7, 4))
    path.write_bytes(b"PK not so")
    with pytest.raises(CandidateError, match="expected weights"):
        as_candidate(str(path))
    with pytest.raises(CandidateError, match="cannot be read"):
        as_candidate(str(tmp_path / "none.safetensors"))


def sources(layer, to, layout=None):
    told = ports.write(layer, to, layout).manifest["layers"]
    return {array["name"]: array["from"] for found in told for array in found["arrays"]}


def test_the_manifest_says_where_each_bias_comes_from():
    lstm, gru = (SMALL[PORTED[name]].layer for name in ("lstm", "gru"))
    assert sources(lstm, "npz", "torch") == {
        "weight_ih_l0": "kernel",
        "weight_hh_l0": "recurrent_kernel",
        "bias_ih_l0": "bias",
        "bias_hh_l0": "zeros",
    }
    found = sources(gru, "npz", "torch")
    assert (found["bias_ih_l0"], found["bias_hh_l0"]) == ("bias[0]", "bias[1]")
    assert (sources(lstm, "onnx")["B"], sources(gru, "onnx")["B"]) == ("bias then zeros", "bias[0] then bias[1]")
    assert sources(lstm, "npz")["b"] == "bias"
    without = GRU(gru.Wx, gru.Wh, None)
    assert list(sources(without, "npz", "torch")) == ["weight_ih_l0", "weight_hh_l0"]
    assert ports.write(without, "npz").manifest["layers"][0]["settings"]["use_bias"] is False


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_two_layers_of_which_c_knows_one_name(tmp_path):
    layers = [keras.layers.LSTM(3, return_sequences=True, name="a.b"), keras.layers.LSTM(3, name="a_b")]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    scratch = parity.from_keras(model)
    port = ports.write(scratch, "c")
    report = parity.check(porting.candidate(saved(tmp_path, port, "c"), "c", scratch), model, input_shape=(7, 3))
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("program", ["gcc", "clang"])
def test_the_header_compiles_without_a_warning(tmp_path, program):
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")
    layer = SMALL[PORTED["stack"]].layer
    layer.name = "a layer's */ name \\ über\n#error"
    (tmp_path / "port.h").write_bytes(ports.write(layer, "c").data)
    name = c_source.identifier(layer.name)
    (tmp_path / "main.c").write_text(
        f'#include "port.h"\n#include <stdio.h>\nint main(void) {{\n'
        f"    float x[3 * 4] = {{1}}, y[3 * 8], work[{name.upper()}_WORK(3)];\n"
        f'    {name}_forward(3, x, y, work);\n    printf("%.9g\\n", y[23]);\n    return 0;\n}}\n'
    )
    command = [program, *c_port.FLAGS, "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    x = np.zeros((1, 3, 4), "f")
    x[0, 0, 0] = 1
    got = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert np.isclose(float(got), layer(x)[0, 2, 7], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("to", ["onnx", "c", "safetensors"])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "hard_sigmoid"])
def test_a_model_that_ends_with_an_activation(tmp_path, to, activation):
    layers = keras.layers
    model = keras.Sequential([keras.Input((None, 4)), layers.LSTM(3, return_sequences=True), layers.Activation("tanh")])
    for layer in (layers.Dense(5), layers.Activation(activation), layers.Dropout(0.5)):
        model.add(layer)
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) / 2 for w in model.get_weights()])
    scratch = parity.from_keras(model)
    assert scratch.units == 5
    port = ports.write(scratch, to)
    report = parity.check(porting.candidate(saved(tmp_path, port, to), to, scratch), model, input_shape=(7, 4))
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("to", ["onnx", "c", "torch", "npz"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_layers_without_a_size_of_their_own(tmp_path, to, first):
    """An Activation knows its width from what comes in, and a Dropout alone has nothing to write."""
    if to == "torch":
        pytest.importorskip("torch")
    layers = keras.layers
    sizeless = [layers.Activation("relu"), layers.TimeDistributed(layers.Dropout(0.5))]
    sized = [layers.GRU(3, return_sequences=True), layers.TimeDistributed(layers.Dense(5))]
    order = [*sizeless, *sized] if first else [*sized, *sizeless]
    model = keras.Sequential([keras.Input((None, 4)), *order])
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) / 2 for w in model.get_weights()])
    scratch = parity.from_keras(model)
    path = saved(tmp_path, ports.write(scratch, to), to)
    report = parity.check(porting.candidate(path, to, scratch), model, input_shape=(7, 4))
    assert report.verdict == "PASS", str(report)


def directions_of(forward, backward, **settings):
    """A model of one Bidirectional that Keras takes, with random weights."""
    layer = keras.layers.Bidirectional(forward, backward_layer=backward, **settings)
    model = keras.Sequential([keras.Input((None, 4)), layer])
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) / 2 for w in model.get_weights()])
    return model


UNLIKE = {
    "kinds": lambda of: (of.LSTM(3), of.GRU(3, go_backwards=True)),
    "sizes": lambda of: (of.LSTM(3), of.LSTM(2, go_backwards=True)),
    "one bias": lambda of: (of.LSTM(3, use_bias=False), of.LSTM(3, go_backwards=True)),
    "turned": lambda of: (of.GRU(3, go_backwards=True), of.GRU(3)),
}


@pytest.mark.parametrize("to", ["onnx", "torch", "c"])
@pytest.mark.parametrize("name", UNLIKE)
def test_directions_that_are_not_alike(tmp_path, name, to):
    """ONNX and torch have one operator for both, which goes forward first; C has a loop for each."""
    if to == "torch":
        pytest.importorskip("torch")
    model = directions_of(*UNLIKE[name](keras.layers))
    scratch = parity.from_keras(model)
    if to in ("onnx", "torch"):
        with pytest.raises(UnsupportedError, match=f"bidirectional.*: {to} .*; received "):
            ports.write(scratch, to)
        return
    path = saved(tmp_path, ports.write(scratch, to), to)
    report = parity.check(porting.candidate(path, to, scratch), model, input_shape=(7, 4))
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("to", ["onnx", "c"])
def test_a_model_that_says_no_size(to):
    with pytest.raises(UnsupportedError, match="activation: no layer in it says how many features it takes"):
        ports.write(Activation("tanh"), to)


@pytest.mark.parametrize(
    ("layer", "to", "said"),
    [
        (SMALL["stack-b2-t10-i4-u8-seq-tanh-normal-masking"].layer, "onnx", "masking: onnx carries no masks"),
        (SMALL["lstm-b2-t10-i4-u8-seq-tanh-normal-stateful"].layer, "c", "keeps no state"),
        (SMALL["lstm-b2-t10-i4-u8-seq-selu-normal"].layer, "onnx", "onnx carries tanh"),
        (SMALL["lstm-b2-t10-i4-u8-seq-selu-normal"].layer, "c", "the C port carries tanh"),
        (SMALL["lstm-b2-t10-i4-u8-seq-relu-normal"].layer, "torch", "torch's lstm has activation tanh"),
        (SMALL["simple_rnn-b2-t10-i4-u8-seq-tanh-normal-float16"].layer, "c", "computes in float16"),
        (SMALL["gru-b2-t10-i4-u8-seq-tanh-normal-return_state"].layer, "c", "returns no states"),
    ],
)
def test_what_cannot_be_carried_is_named(layer, to, said):
    with pytest.raises(UnsupportedError, match=said):
        ports.write(layer, to)


class Scale(Layer):
    """y = gamma x: a kind that no port knows."""

    kind = "scale"
    ndim = 3
    arrays = ("gamma",)

    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def forward(self, x, mask, states):
        return self.gamma * x, ()

    def replace(self, **weights):
        return Scale(**weights)


class Shift(Scale):
    """y = x + beta: a kind that registers."""

    kind = "shift"
    arrays = ("beta",)

    def __init__(self, beta):
        Layer.__init__(self)
        self.beta = beta

    def forward(self, x, mask, states):
        return x + self.beta, ()

    def replace(self, **weights):
        return Shift(**weights)


registry.arrays.register(Shift)(lambda layer, layout, suffix: {"offset": layer.beta})
registry.from_arrays.register(Shift)(lambda layer, layout, found, suffix: {"beta": found["offset"]})
registry.origin.register(Shift)(lambda layer, layout, name: {"from": "beta", "transposed": False})


@pytest.mark.parametrize("to", ["npz", "safetensors"])
def test_a_kind_that_registers_is_carried(tmp_path, to):
    gru = SMALL[PORTED["gru"]].layer
    model = Sequential([gru, Shift(np.arange(8, dtype="f"))])
    port = ports.write(model, to)
    assert [array["name"] for array in port.manifest["layers"][1]["arrays"]] == ["shift.offset"]
    blank = Sequential([gru, Shift(np.zeros(8, "f"))])
    candidate = porting.candidate(saved(tmp_path, port, to), to, model)
    x = np.ones((2, 3, 4), "f")
    answer = candidate.ask(Case("case", blank, x))
    assert np.array_equal(answer.outputs[0], model(x))
    with pytest.raises(UnsupportedError, match="shift: c does not carry shift"):
        ports.write(model, "c")


def test_what_a_library_keeps_beside_the_arrays_may_stand_there():
    class Counted(Shift):
        pass

    registry.unread.register(Counted)(lambda layer, layout: ("count",) if layout.name == "torch" else ())
    layer = Sequential([Dense(np.ones((3, 3), "f")), Shift(np.arange(3, dtype="f"))])
    arrays = {"net." + name: array for name, array in packing.packed(layer, LAYOUTS["torch"]).items()}
    arrays["net.shift.count"] = np.array(7)
    with pytest.raises(InputError, match=r"shift\.count"):
        packing.recognised(layer, arrays)
    layer = Sequential([layer.layers[0], Counted(np.arange(3, dtype="f"))])
    layout, found = packing.recognised(layer, arrays)
    assert layout.name == "torch"
    assert np.array_equal(packing.unpacked(layer, layout, found).weights["shift.beta"], np.arange(3))
    notebook = {**packing.packed(layer, LAYOUTS["notebook"]), "shift.count": np.array(7)}
    with pytest.raises(InputError, match=r"shift\.count"):
        packing.recognised(layer, notebook)


def test_an_array_that_is_wider_than_its_layer_is_read_as_it_is():
    shift = Shift(np.full(3, 1 / 3, "f"))
    shift._dtype = np.dtype("float16")
    arrays = packing.packed(shift, LAYOUTS["notebook"])
    assert np.array_equal(packing.unpacked(shift, LAYOUTS["notebook"], arrays).beta, shift.beta)


@pytest.mark.parametrize("to", ports.FORMATS)
def test_no_weight_is_left_out(to):
    """What is read back of a port without it would pass, with the layer's own weight in its place."""
    gru = SMALL[PORTED["gru"]].layer
    model = Sequential([gru, Scale(np.arange(1, 9, dtype="f"))])
    with pytest.raises(UnsupportedError, match=r"scale: \w+ does not carry scale"):
        ports.write(model, to)


class Scaled(Dense):
    """A kind that ports know, and one weight more."""

    @property
    def own_weights(self):
        return {**super().own_weights, "gamma": self.b}


@pytest.mark.parametrize("to", ports.FORMATS)
def test_weights_read_back_are_all_of_them(to):
    layer = Scaled(np.ones((2, 3), "f"), np.ones(2, "f"))
    arrays = packing.packed(layer, LAYOUTS["notebook"])
    with pytest.raises(InputError, match="no gamma in notebook"):
        packing.unpacked(layer, LAYOUTS["notebook"], arrays)
    with pytest.raises(UnsupportedError, match=rf"dense: {to} (does not carry|cannot .* there is no gamma)"):
        ports.write(layer, to)


def test_weights_for_a_kind_that_no_layout_knows():
    with pytest.raises(UnsupportedError, match="scale: notebook does not carry scale"):
        packing.recognised(Scale(np.ones(3, "f")), {"gamma": np.ones(3, "f")})


def test_a_wrong_format_or_layout():
    layer = GRU(np.ones((9, 2), "f"), np.ones((9, 3), "f"), np.ones((2, 9), "f"))
    with pytest.raises(InputError, match="expected npz, safetensors"):
        ports.write(layer, "json")
    with pytest.raises(InputError, match="expected notebook, keras"):
        ports.write(layer, "npz", "flax")
    with pytest.raises(InputError, match="has its own"):
        ports.write(layer, "onnx", "keras")


# --- the command, and the page ---


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["parity", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    layer = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), name="both")
    model = keras.Sequential([keras.Input((None, 5)), layer, keras.layers.Dense(2, name="top")])
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) / 2 for w in model.get_weights()])
    model.save("model.keras")
    for to, (name, shape) in {
        "npz": ("both.forward_lstm.Wx", [12, 5]),
        "onnx": ("both.forward_lstm.R", [1, 12, 3]),
        "c": ("top.kernel", [6, 2]),
    }.items():
        status, out, err = run(monkeypatch, capsys, "port", "model.keras", "--to", to)
        assert (status, err) == (0, "")
        assert "PASS" in out
        path = tmp_path / f"model{ports.FORMATS[to].suffix}"
        assert path.exists()
        told = json.loads((tmp_path / f"{path.name}.json").read_text())
        arrays = {array["name"]: array for found in told["layers"] for array in found["arrays"]}
        names = [
            key
            for key in arrays
            if key.split(".")[-1] == name.split(".")[-1] and key.split(".")[0] == name.split(".")[0]
        ]
        assert arrays[names[0]]["shape"] == shape
        assert told["layers"][0]["gates"] == (["i", "o", "f", "c"] if to == "onnx" else ["i", "f", "c", "o"])
    assert run(monkeypatch, capsys, "check", "model.keras", "--candidate", "model.onnx")[0] == 0
    assert run(monkeypatch, capsys, "check", "model.keras", "--candidate", "model.npz")[0] == 0
    for arguments, said in (
        (("--to", "tflite"), "expected npz, safetensors"),
        (("--to", "npz", "--layout", "torhc"), "expected notebook, keras"),
        (("--to", "c", "-o", "nowhere/a.h"), "cannot be written"),
    ):
        status, _, err = run(monkeypatch, capsys, "port", "model.keras", *arguments)
        assert (status, len(err.splitlines())) == (2, 1)
        assert said in err


def test_nothing_to_verify_with(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    layer = parity.to_keras(SMALL[PORTED["lstm"]].layer)
    path = tmp_path / "port.h"
    _, report, why = porting.port(layer, "c", str(path))
    assert (report, "C compiler" in why, path.exists()) == (None, True, True)
