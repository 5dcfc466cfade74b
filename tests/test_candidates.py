"""Candidates that are no Python function: programs, ONNX and TFLite graphs, torch modules; real ones, and what becomes
of those that crash, hang or lie."""

import json
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

import parity
from parity.candidates import graphs, matching, processes
from parity.candidates.answer import Answer
from parity.candidates.matching import Slot
from parity.cases.case import Case
from parity.errors import CandidateError, MissingExtraError
from parity.given.candidate import as_candidate
from parity.judging.structure import wrong_structure
from parity.ports import c_source
from parity.ports import formats as ports
from parity.ports.layouts import LAYOUTS, pack

pytestmark = pytest.mark.far_out

HERE = Path(__file__).parent
L = keras.layers
STACKS = {
    "simple_rnn": lambda: [L.SimpleRNN(6, return_sequences=True)],
    "lstm": lambda: [L.LSTM(6)],
    "gru": lambda: [L.GRU(6, return_sequences=True)],
    "bidirectional": lambda: [L.Bidirectional(L.LSTM(6, return_sequences=True))],
    "stack": lambda: [L.LSTM(6, return_sequences=True), L.GRU(4), L.Dense(3, activation="tanh")],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A saved model of each name, in a folder whose name has a space and an umlaut."""
    folder, made = tmp_path_factory.mktemp("with ü space"), {}

    def get(name):
        if name not in made:
            model = keras.Sequential([keras.Input((7, 5)), *STACKS[name]()], name=name)
            rng = np.random.default_rng(len(name))
            model.set_weights([rng.standard_normal(weight.shape) / 2 for weight in model.get_weights()])
            made[name] = model
        return made[name], folder

    return get


def open_length(model):
    """The same layers for any number of timesteps."""
    return keras.Sequential([keras.Input((None, 5)), *model.layers], name=model.name)


def onnx_of(model, path, spoil=lambda layer: layer):
    path.write_bytes(ports.write(spoil(parity.from_keras(open_length(model))), "onnx").data)
    return str(path)


def fixed_onnx(model, path):
    """As torch.onnx.export writes it: for 7 timesteps."""
    graph = onnx.load(onnx_of(model, path))
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    onnx.save(graph, str(path))
    return str(path)


def tflite_of(model, path):
    import tensorflow as tf

    x = keras.Input((7, 5), batch_size=1)
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras.Model(x, model(x))).convert())
    return str(path)


def program_of(model, folder, spoil=lambda layer: layer, flags=("-O2",)):
    """`cmd:` of a C program around the port's header."""
    layer = spoil(parity.from_keras(model))
    name = c_source.identifier(layer.name)
    (folder / f"{name}.h").write_bytes(ports.write(layer, "c").data)
    shape = layer.output_shapes((1, 7, 5))[0]
    told = {"PORT": f'"{name}.h"', "UNITS": shape[-1], "SEQUENCES": int(len(shape) > 2)}
    told |= {"FORWARD": f"{name}_forward", "WORK": f"{name.upper()}_WORK"}
    program = folder / f"{name} program"
    command = ["cc", *flags, *(f"-D{key}={value}" for key, value in told.items()), f"-I{folder}"]
    subprocess.run([*command, str(HERE / "rnn.c"), "-o", str(program), "-lm"], check=True)
    return f"cmd:{shlex.quote(str(program))} {{inputs}} {{outputs}}"


# --- real ones pass ---


@pytest.mark.parametrize("name", STACKS)
def test_an_onnx_graph(models, name):
    model, folder = models(name)
    report = parity.check(onnx_of(model, folder / f"{name}.onnx"), open_length(model))
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("name", STACKS)
def test_a_tflite_model(models, name):
    model, folder = models(name)
    report = parity.check(tflite_of(model, folder / f"{name}.tflite"), model)
    assert report.verdict == "PASS", str(report)
    assert any("built for 7 timesteps" in told for told in report.not_asked)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("onnx", "simple_rnn"), ("onnx", "lstm"), ("onnx", "bidirectional"), ("tflite", "gru"), ("onnx", "stack")],
)
def test_a_graph_built_for_some_timesteps_against_a_golden_file(models, tmp_path, name, kind):
    """It is asked the same short probes as with Keras, filled up; a port of other weights fails."""
    model, _ = models(name)
    path = {"onnx": fixed_onnx, "tflite": tflite_of}[kind](model, tmp_path / f"{name}.{kind}")
    parity.record(model, str(tmp_path / "golden.npz"))
    report, online = parity.check(path, str(tmp_path / "golden.npz")), parity.check(path, model)
    assert (report.verdict, online.verdict) == ("PASS", "PASS"), str(report)
    assert ("reference stands in" in str(report)) == (name in ("simple_rnn", "lstm", "gru"))
    assert "reference stands in" not in str(online)
    weights = model.get_weights()
    weights[0] = weights[0] * 1.01
    other = keras.models.clone_model(model)
    other.set_weights(weights)
    path = {"onnx": fixed_onnx, "tflite": tflite_of}[kind](other, tmp_path / f"wrong.{kind}")
    assert parity.check(path, str(tmp_path / "golden.npz")).verdict == "FAIL"
    parity.record(open_length(model), str(tmp_path / "golden.npz"))
    with pytest.raises(CandidateError, match="has 50: record one with --input-shape 7,5"):
        parity.check(path, str(tmp_path / "golden.npz"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("name", STACKS)
def test_a_c_program(models, name):
    model, folder = models(name)
    report = parity.check(program_of(model, folder), open_length(model))
    assert report.verdict == "PASS", str(report)


@pytest.mark.backends  # where CI has torch
@pytest.mark.parametrize("name", ["lstm", "gru", "simple_rnn"])
def test_a_torch_module(models, name):
    torch = pytest.importorskip("torch")
    model, _ = models(name)
    layer = parity.from_keras(model)
    kind = {"simple_rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
    module = kind(5, 6, batch_first=True)
    arrays = pack(layer.cell, LAYOUTS["torch"])
    module.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    sequences = keras.Sequential([keras.Input((None, 5)), *model.layers])
    sequences.layers[-1].return_sequences = True
    assert parity.check(module, sequences.layers[-1]).verdict == "PASS"
    sequences.layers[-1].return_sequences = layer.return_sequences

    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.drop = module, torch.nn.Dropout(0.5)

        def forward(self, sequence):
            y, _ = self.rnn(self.drop(sequence))
            return y if layer.return_sequences else y[:, -1]

    port = Last()
    assert parity.check(port, open_length(model)).verdict == "PASS"  # without its dropout
    assert port.training
    with torch.no_grad():
        module.bias_hh_l0[1] += 0.01
    assert parity.check(port, open_length(model)).verdict == "FAIL"


# --- wrong ones are named ---


def gates_swapped(layer):
    i, f, c, o = (np.arange(6) + 6 * n for n in range(4))
    rows = np.concatenate([i, c, f, o])
    return layer.replace(Wx=layer.Wx[rows], Wh=layer.Wh[rows], b=layer.b[rows])


def not_transposed(layer):
    return layer.replace(**{**layer.weights, "Wh": layer.Wh.T.copy()})


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("name", "spoil", "cause"),
    [("lstm", gates_swapped, "gate-order-icfo"), ("simple_rnn", not_transposed, "recurrent-kernel-not-transposed")],
)
@pytest.mark.parametrize("kind", ["onnx", "c"])
def test_a_wrong_port_is_named(models, name, spoil, cause, kind):
    model, folder = models(name)
    wrong = onnx_of(model, folder / "wrong.onnx", spoil) if kind == "onnx" else program_of(model, folder, spoil)
    report = parity.check(wrong, open_length(model))
    assert report.verdict == "FAIL"
    assert [found.id for found in report.causes] == [cause], str(report)


def test_shapes_that_tell(models):
    """An array of another shape is a FAIL, with the mistake that explains it."""
    model, folder = models("bidirectional")
    other = keras.Sequential(
        [keras.Input((None, 5)), L.Bidirectional(L.LSTM(6, return_sequences=True), merge_mode="sum")]
    )
    other.set_weights(model.get_weights())
    report = parity.check(onnx_of(other, folder / "sum.onnx"), open_length(model))
    assert report.verdict == "FAIL"
    assert any(found.id.startswith("merge-mode") for found in report.causes), str(report)
    model, folder = models("gru")
    graph = onnx.load(onnx_of(model, folder / "gru.onnx"))
    last = graph.graph.node[-1]
    turn = onnx.helper.make_node("Transpose", [last.input[0]], ["y"], perm=[1, 0, 2])
    graph.graph.node.remove(last)
    graph.graph.node.append(turn)
    del graph.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(graph, str(folder / "turned.onnx"))
    report = parity.check(str(folder / "turned.onnx"), open_length(model))
    assert report.verdict == "FAIL"
    assert [found.id for found in report.causes] == ["time-major"], str(report)


@pytest.mark.parametrize("name", ["simple_rnn", "gru"])
def test_onnx_y_as_it_is(models, name, tmp_path):
    """A graph that puts out the node's own Y, (timesteps, directions, batch, units)."""
    model, _ = models(name)
    path = tmp_path / "raw.onnx"
    for spoil, verdict in ((lambda layer: layer, "PASS"), (lambda layer: layer.replace(Wh=layer.Wh * 2), "FAIL")):
        graph = onnx.load(onnx_of(model, path, spoil))
        (node,) = (node for node in graph.graph.node if node.op_type in ("RNN", "GRU"))
        node.output[0] = "y"
        for other in [n for n in graph.graph.node if n is not node and n.output[0] != node.input[0]]:
            graph.graph.node.remove(other)
        del graph.graph.output[0].type.tensor_type.shape.dim[:]
        onnx.save(graph, str(path))
        report = parity.check(str(path), open_length(model))
        assert report.verdict == verdict, str(report)
        assert "was read as ONNX's Y" in str(report)


@pytest.mark.parametrize(
    ("received", "said"),
    [
        ((7, 6), ", as one sequence without the batch axis has it"),
        ((168,), ", which is as many numbers, flat: say their shape"),
        ((7, 1, 4, 6), ", which is ONNX's Y, (timesteps, directions, batch, units)"),
        (
            (4, 1, 7, 6),
            ", which is ONNX's Y where batch was taken for time: transpose the first two axes of x and of Y",
        ),
        ((4, 7, 1, 6), ", with an axis of 1 too many"),
        ((4, 6), ""),
    ],
)
def test_what_a_wrong_shape_looks_like(received, said):
    case = Case("one", lstm(return_sequences=True), np.zeros((4, 7, 5), "f"))
    found = wrong_structure(case, Answer((np.zeros(received, "f"),)))
    assert found == f"expected shape (4, 7, 6); received shape {received}{said}"


# --- programs that misbehave ---

PROGRAM = """
import sys, time, os, subprocess
import numpy as np
what, source, target = sys.argv[1:4]
x = np.load(source)
if what == "hang": time.sleep(600)
if what == "child":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)
if what == "crash": print("one\\n\\x1b[31mtwo", file=sys.stderr, flush=True); os.abort()
if what == "status": sys.exit("usage: three arguments")
if what == "flood": [sys.stdout.write("x" * 65536) for _ in range(10000)]
if what == "noise": [sys.stderr.write("x" * 65536) for _ in range(10000)]
if what == "garbage": open(target, "wb").write(b"hello")
if what == "cut": np.save(target, x); os.truncate(target, os.path.getsize(target) - 1)
if what == "objects": np.save(target, np.array([{}]), allow_pickle=True)
if what == "integers": np.save(target, np.ones((4, 7, 6), int))
if what == "shape": np.save(target, np.ones((2, 2), "f"))
if what == "nan": np.save(target, np.full((len(x), x.shape[1], 6), np.nan, "f"))
if what == "huge": open(target, "wb").truncate(1 << 30)
if what == "growing": open(target, "wb").truncate(1 << 30); time.sleep(600)
if what == "pipe": os.mkfifo(target)
if what == "device": os.symlink("/dev/zero", target)
if what == "folder": os.mkdir(target)
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("hang", "had no answer after 1.5 s"),
        ("child", "had no answer after 1.5 s"),
        ("crash", "ended by SIGABRT; it said: one | ?[31mtwo"),
        ("status", "ended with status 1; it said: usage: three arguments"),
        ("flood", "wrote more than 16 MiB"),
        ("noise", "wrote more than 16 MiB"),
        ("nothing", "it wrote none"),
        ("garbage", "expected an .npy file"),
        ("cut", "it holds"),
        ("objects", "not unpickled"),
        ("integers", "returned int64"),
        ("huge", "bytes of outputs; expected at most"),
        ("growing", "bytes of outputs; expected at most"),
        ("pipe", "expected a regular file"),
        ("device", "expected a regular file"),
        ("folder", "expected a regular file"),
    ],
)
def test_a_program_that_misbehaves(models, tmp_path, what, said):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"cmd:{sys.executable} {tmp_path / 'program.py'} {what} {{inputs}} {{outputs}}"
    seconds = 1.5 if what in ("hang", "child") else 60.0
    before = threading.active_count()
    with pytest.raises(CandidateError) as told:
        parity.check(command, open_length(models("simple_rnn")[0]), timeout=seconds)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 800
    time.sleep(0.2)
    assert threading.active_count() <= before


def test_a_program_that_leaves_a_daemon(models, tmp_path):
    """Which holds its standard error open: nothing waits for that."""
    model, folder = models("simple_rnn")
    program = program_of(model, folder).removeprefix("cmd:").replace("{inputs} {outputs}", '"$1" "$2"')
    (tmp_path / "run.sh").write_text(f"setsid sleep 3 & echo $! >> {tmp_path / 'pids'}\n{program}\n")
    start, before = time.monotonic(), threading.active_count()
    answer = as_candidate(f"cmd:sh {tmp_path / 'run.sh'} {{inputs}} {{outputs}}").ask(
        Case("one", parity.from_keras(model), np.zeros((1, 7, 5), "f"))
    )
    assert time.monotonic() - start < 1
    assert answer.outputs[0].shape == (1, 7, 6)
    assert threading.active_count() <= before
    assert subprocess.run(["kill", (tmp_path / "pids").read_text().strip()], check=False).returncode == 0


@pytest.mark.parametrize("what", ["shape", "nan"])
def test_a_readable_answer_that_is_wrong_is_a_fail(models, tmp_path, what):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"cmd:{sys.executable} {tmp_path / 'program.py'} {what} {{inputs}} {{outputs}}"
    assert parity.check(command, open_length(models("simple_rnn")[0])).verdict == "FAIL"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("./rnn {inputs}", "it has no {outputs}"),
        ("./rnn {outputs}", "it has no {inputs}"),
        ("./rnn {input} {outputs}", "{input}: expected {inputs}"),
        ("./rnn '{inputs} {outputs}", "No closing quotation"),
        ("./rnn {inputs} {outputs} {weigths}", "{weigths}: expected {weights}"),
    ],
)
def test_a_command_that_makes_no_sense(command, said):
    with pytest.raises(CandidateError, match=said.replace("{", r"\{")):
        as_candidate(f"cmd:{command}")


def test_other_braces_stay_as_they_are(models, tmp_path):
    model, folder = models("simple_rnn")
    program = program_of(model, folder).removeprefix("cmd:").replace("{inputs} {outputs}", "")
    script = "A=" + program + '; "${A}" "$1" "$2"'
    command = "cmd:sh -c " + shlex.quote(script) + " {x} {inputs} {outputs}"
    assert parity.check(command, open_length(model)).verdict == "PASS"


def test_a_program_that_is_not_there(models):
    with pytest.raises(CandidateError, match="cannot be run: No such file"):
        parity.check("cmd:./nowhere {inputs} {outputs}", models("simple_rnn")[0])


TAKES = """
import sys
import numpy as np
x, mask, state = (np.load(path) for path in sys.argv[1:4])
weights = np.load(sys.argv[5])
h, hs = state, []
for t in range(x.shape[1]):
    keep = mask[:, t, None].astype(bool)
    new = np.tanh(np.where(keep, x[:, t], 0) @ weights["Wx"].T + h @ weights["Wh"].T + weights["b"])
    h = np.where(keep, new, h)
    hs.append(h if keep.any() or t else h * 0)
y = np.stack(hs, axis=1)
first = np.cumsum(mask, axis=1) == 0
y[first] = 0
np.save(sys.argv[4], y)
"""


def test_a_program_that_takes_everything(models, tmp_path):
    (tmp_path / "program.py").write_text(TAKES)
    command = (
        f"cmd:{sys.executable} {tmp_path / 'program.py'} {{inputs}} {{mask}} {{initial_state}} {{outputs}} {{weights}}"
    )
    report = parity.check(command, open_length(models("simple_rnn")[0]))
    assert report.verdict == "PASS", str(report)
    assert not any("masks" in told or "initial states" in told for told in report.not_asked)


# --- which input, which output ---

F, B = np.dtype("float32"), np.dtype(bool)


@pytest.mark.parametrize(
    ("slots", "roles"),
    [
        ([("anything", (None, 7, 5), F)], ["x"]),
        ([("h", (None, 6), F), ("data", (None, None, 5), F)], ["state0", "x"]),
        ([("x", (None, 7, 5), F), ("c0", (None, 6), F), ("h0", (None, 6), F)], ["x", "state1", "state0"]),
        ([("serving_default_x:0", (1, 7, 5), F), ("serving_default_mask:0", (1, 7), B)], ["x", "mask"]),
        ([("a", (None, 7, 5), F), ("b", (None, 7), B)], ["x", "mask"]),
        (
            [("X", (None, 7, 5), F), ("initial_h", (1, None, 6), F), ("initial_c", (1, None, 6), F)],
            ["x", "state0", "state1"],
        ),
        ([("X", (None, 7, 5), F), ("c_init", (1, None, 6), F), ("h_init", (1, None, 6), F)], ["x", "state1", "state0"]),
    ],
)
def test_inputs_by_name_and_by_shape(slots, roles):
    slots = [Slot(*slot) for slot in slots]
    assert matching.input_roles(slots) == dict(zip([slot.name for slot in slots], roles, strict=True))


@pytest.mark.parametrize(
    "slots",
    [
        [("a", (None, 7, 5), F), ("b", (None, 7, 5), F)],
        [("a", (None, 7, 5), F), ("b", (None, 6), F), ("c_", (None, 6), F)],
        [("x", (None, 7, 5), F), ("training", (), B)],
        [],
    ],
)
def test_inputs_that_are_unclear_are_listed(slots):
    with pytest.raises(CandidateError, match="which of its inputs is which is unclear") as told:
        matching.input_roles([Slot(*slot) for slot in slots])
    assert all(str(Slot(*slot)) in str(told.value) for slot in slots)


def arrays(**shapes):
    return {name: np.full(shape, n, "f") for n, (name, shape) in enumerate(shapes.items())}


def lstm(**settings):
    layer = L.LSTM(6, **settings)
    layer.build((None, 7, 5))
    return parity.from_keras(layer)


@pytest.mark.parametrize(
    ("settings", "found", "picked"),
    [
        ({}, arrays(Y=(4, 6)), [0]),
        ({"return_sequences": True}, arrays(hn=(1, 4, 6), out=(4, 7, 6)), [1]),
        ({"return_sequences": True}, arrays(out=(7, 4, 6)), [0]),  # of another shape: a FAIL, not a refusal
        ({"return_sequences": True, "return_state": True}, arrays(y=(4, 7, 6), cn=(1, 4, 6), hn=(1, 4, 6)), [0, 2, 1]),
        ({"return_state": True}, arrays(output_0=(4, 6), output_1=(4, 6), output_2=(4, 6)), [0, 1, 2]),
        ({}, arrays(y=(4, 6), h=(4, 6)), [0]),
    ],
)
def test_outputs_by_name_and_by_shape(settings, found, picked):
    answer = matching.answer(Case("one", lstm(**settings), np.zeros((4, 7, 5), "f")), found)
    assert [array.flat[0] for array in answer.outputs] == picked


@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_the_states_of_both_directions(tmp_path, merge_mode):
    x = keras.Input((None, 5))
    layer = L.Bidirectional(L.LSTM(6, return_sequences=True, return_state=True), merge_mode=merge_mode)
    model = keras.Model(x, layer(x))
    path = tmp_path / "both.onnx"
    path.write_bytes(ports.write(parity.from_keras(model), "onnx").data)
    report = parity.check(str(path), model)
    assert report.verdict == "PASS", str(report)
    assert "not compared" not in str(report)


def test_outputs_that_are_unclear_are_listed():
    case = Case("one", lstm(), np.zeros((4, 7, 5), "f"))
    with pytest.raises(CandidateError, match=r"unclear: expected \(4, 6\); received a \(4, 6\), b \(4, 6\)"):
        matching.answer(case, arrays(a=(4, 6), b=(4, 6)))


def test_outputs_by_the_names_of_layers(models):
    model, _ = models("stack")
    layer = parity.from_keras(model)
    names = list(layer.parts)
    found = arrays(**{names[0]: (2, 7, 6), names[2]: (2, 3)})
    answer = matching.answer(Case("one", layer, np.zeros((2, 7, 5), "f")), found)
    assert (list(answer.layers), answer.outputs[0].shape) == ([names[0]], (2, 3))


# --- graphs that misbehave ---


def test_a_graph_built_for_a_batch(models, tmp_path):
    """Of 3 rows: asked three at a time, the last time with one row and two that do not count."""
    model, _ = models("gru")
    graph = onnx.load(onnx_of(model, tmp_path / "gru.onnx"))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(graph, str(tmp_path / "three.onnx"))
    report = parity.check(str(tmp_path / "three.onnx"), open_length(model))
    assert report.verdict == "PASS", str(report)


def test_files_that_are_no_graphs(models, tmp_path):
    model, _ = models("gru")
    whole = Path(onnx_of(model, tmp_path / "gru.onnx")).read_bytes()
    for name, data in (("cut.onnx", whole[: len(whole) // 2]), ("empty.onnx", b""), ("text.tflite", b"hello there")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CandidateError) as told:
            parity.check(str(tmp_path / name), model)
        assert name in str(told.value)
        assert "\n" not in str(told.value)
    with pytest.raises(CandidateError, match="no file"):
        as_candidate(str(tmp_path / "none.onnx"))


def test_a_missing_runtime_names_the_extra(monkeypatch, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "onnxruntime.py").write_text("raise ImportError('none')")
    started = subprocess.Popen

    def without(command, env=None, **options):
        env = {**(env or {}), "PYTHONPATH": f"{tmp_path / 'site'}:{(env or {})['PYTHONPATH']}"}
        return started(command, env=env, **options)

    monkeypatch.setattr(processes.subprocess, "Popen", without)
    with pytest.raises(MissingExtraError, match=r"keras-parity\[onnx\]"):
        as_candidate(str(tmp_path / "model.onnx"))


def test_a_module_in_the_way_is_not_imported(models, tmp_path, monkeypatch):
    """A user's own onnx.py or torch.py beside the port."""
    model, _ = models("gru")
    path = onnx_of(model, tmp_path / "gru.onnx")
    for name in ("onnxruntime", "numpy", "onnx"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('in the way')")
    monkeypatch.chdir(tmp_path)
    assert isinstance(as_candidate(path), graphs.Graph)


# --- damaged files: 2,000 of them by `python tests/test_candidates.py` ---


def damaged(whole, rng):
    """Bit flips, cuts, numbers where others stood, and repeated pieces."""
    data = bytearray(whole)
    kind = rng.integers(4)
    if kind == 0:
        for at in rng.integers(0, len(data), 1 + rng.integers(3)):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[int(rng.integers(len(data))) :]
    elif kind == 2:
        at = int(rng.integers(len(data)))
        data[at : at + 8] = rng.bytes(8)
    else:
        start, stop = sorted(rng.integers(0, len(data), 2))
        data[start:start] = data[start:stop]
    return bytes(data)


def verdict_on(candidate, layer):
    """PASS, FAIL, INCONCLUSIVE or ERROR; anything else is a defect."""
    try:
        return parity.check(candidate, layer, input_shape=(7, 5), timeout=20).verdict
    except parity.ParityError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return "ERROR"


@pytest.mark.parametrize(("suffix", "number"), [(".onnx", 12), (".safetensors", 60), (".npz", 60)])
def test_damaged_weights(tmp_path, suffix, number):
    rng, layer = np.random.default_rng(0), L.GRU(6, return_sequences=True)
    layer.build((None, 7, 5))
    port = ports.write(parity.from_keras(layer), suffix.strip("."))
    path, found = tmp_path / f"port{suffix}", []
    for _ in range(number):
        path.write_bytes(damaged(port.data, rng))
        found.append(verdict_on(str(path), layer))
    assert "ERROR" in found
    path.write_bytes(port.data)
    assert verdict_on(str(path), layer) == "PASS"


def test_a_flipped_bit_of_a_weight_is_a_fail(tmp_path):
    layer = L.GRU(6, return_sequences=True)
    layer.build((None, 7, 5))
    scratch = parity.from_keras(layer)
    for suffix in (".onnx", ".safetensors"):
        data = bytearray(ports.write(scratch, suffix.strip(".")).data)
        at = bytes(data).index(np.ascontiguousarray(scratch.Wh)[2].tobytes())
        data[at + 6] ^= 0x40  # of the second weight the exponent
        path = tmp_path / f"port{suffix}"
        path.write_bytes(data)
        assert verdict_on(str(path), layer) == "FAIL"


def main(number=500, kinds=(".onnx", ".safetensors", "golden", ".npy")):  # pragma: no cover
    """So many damaged files of each kind, through the command line's own functions; what became of them, and the most
    memory that this process or one that it started has had."""
    import tempfile
    from collections import Counter

    from parity.api import check_file
    from parity.disk import load_array
    from parity.golden import file as files

    rng, layer = np.random.default_rng(0), L.GRU(6, return_sequences=True)
    layer.build((None, 7, 5))
    scratch = parity.from_keras(layer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parity.record(layer, str(folder / "golden.npz"), input_shape=(7, 5))
        np.save(folder / "y.npy", scratch(files.load(str(folder / "golden.npz")).cases[0].x))
        whole = {".onnx": ports.write(scratch, "onnx").data, ".safetensors": ports.write(scratch, "safetensors").data}
        whole |= {"golden": (folder / "golden.npz").read_bytes(), ".npy": (folder / "y.npy").read_bytes()}
        for kind, data in ((kind, whole[kind]) for kind in kinds):
            found = Counter()
            for _ in range(number):
                path = folder / f"damaged{kind if kind.startswith('.') else '.npz'}"
                path.write_bytes(spoilt := damaged(data, rng))
                if spoilt == data:
                    continue
                try:
                    if kind == "golden":
                        found[check_file(lambda x, layer: layer(x), str(path)).verdict] += 1
                    elif kind == ".npy":
                        y = load_array("--outputs", str(path))
                        found[check_file(y, str(folder / "golden.npz")).verdict] += 1
                    else:
                        found[verdict_on(str(path), layer)] += 1
                except parity.ParityError as error:
                    assert "\n" not in str(error)  # noqa: PT017
                    found["ERROR"] += 1
            print(json.dumps({kind: found}), flush=True)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        print(f"{resource.getrusage(who).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main(500, sys.argv[1:] or (".onnx", ".safetensors", "golden", ".npy"))
