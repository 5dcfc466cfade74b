"""Golden files: recorded with Keras, checked without."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from test_failures import resealed

import parity
from parity import cli
from parity.api import check_file
from parity.cases.case import Case
from parity.disk import arrays_in
from parity.errors import CandidateError, InputError
from parity.golden.file import Golden, load, packed
from parity.recording import GROUPS, record

LAYERS = keras.layers
DATA = Path(__file__).parent / "data"
MODELS = {
    "simple_rnn": lambda: [LAYERS.SimpleRNN(6, return_sequences=True)],
    "lstm": lambda: [LAYERS.LSTM(6)],
    "gru": lambda: [LAYERS.GRU(6, return_sequences=True, return_state=True)],
    "backwards": lambda: [LAYERS.GRU(6, reset_after=False, go_backwards=True, return_sequences=True)],
    "stateful": lambda: [LAYERS.SimpleRNN(6, return_sequences=True, stateful=True)],
    "bidirectional": lambda: [LAYERS.Bidirectional(LAYERS.LSTM(6), merge_mode="sum")],
    "stack": lambda: [LAYERS.Masking(), LAYERS.LSTM(6, return_sequences=True), LAYERS.GRU(4), LAYERS.Dense(2)],
    "half": lambda: [LAYERS.SimpleRNN(6, dtype="float16")],
    "brain": lambda: [LAYERS.SimpleRNN(6, dtype="mixed_bfloat16", return_sequences=True)],
}


def built(name):
    x = keras.Input((None, 5), batch_size=3 if name == "stateful" else None)
    layers = MODELS[name]()
    model = keras.Model(x, layers[0](x)) if name == "gru" else keras.Sequential([x, *layers])  # several outputs
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(weight.shape) / 2 for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """A model and what was recorded of it, by name."""
    folder, made = tmp_path_factory.mktemp("golden"), {}

    def get(name):
        if name not in made:
            path = folder / f"{name}.npz"
            made[name] = built(name), str(path)
            record(made[name][0], str(path), cases=GROUPS)
        return made[name]

    return get


def right(x, layer, mask=None, initial_state=None):
    layer.reset_state() if not layer.stateful else None
    return layer(x, mask=mask, initial_state=initial_state)


@pytest.mark.parametrize("name", MODELS)
def test_a_right_port_passes_from_the_file(golden, name):
    model, path = golden(name)
    report = check_file(right if name != "stack" else (lambda x, layer: layer.outputs(x)), path)
    assert report.verdict == "PASS", str(report)
    assert report.environment["recorded by"].startswith("keras-parity")
    online = parity.check(right if name != "stack" else (lambda x, layer: layer.outputs(x)), model)
    assert (online.cases[0].method, online.cases[0].proved) == (report.cases[0].method, report.cases[0].proved)


@pytest.mark.parametrize("name", ["simple_rnn", "stateful", "stack", "brain", "gru"])
def test_the_keras_installed_here_is_still_the_one_that_recorded(golden, name):
    report = check_file(None, golden(name)[1])
    assert report.verdict == "PASS", str(report)


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("simple_rnn", lambda layer: layer.replace(**{**layer.weights, "Wh": layer.Wh.T}), "recurrent-kernel-not-"),
        ("gru", lambda layer: layer.replace(**{**layer.weights, "b": layer.b[::-1]}), "bias-rows-swapped"),
        ("lstm", lambda layer: layer.replace(**{**layer.weights, "b": 0 * layer.b}), "bias-missing"),
    ],
)
def test_a_wrong_port_is_named_from_the_file(golden, name, change, cause):
    def wrong(x, layer):
        return change(layer)(x)

    report = check_file(wrong, golden(name)[1])
    assert report.verdict == "FAIL"
    assert any(found.id.startswith(cause) for found in report.causes), str(report)


def test_adequacy_from_the_file(golden, tmp_path):
    layer = LAYERS.SimpleRNN(6, return_sequences=True)
    layer.build((None, 7, 5))
    path = str(tmp_path / "zero.npz")
    record(layer, path, input_shape=(7, 5))
    report = check_file(lambda x, layer: layer(x), path)
    assert "bias-missing" in [blind.id for blind in report.no_difference]
    assert check_file(right, golden("simple_rnn")[1]).no_difference == ()


def test_outputs_of_some_cases(golden):
    model, path = golden("simple_rnn")
    cases = load(path).cases
    outputs = {n: np.array(model(cases[n].x)) for n in (0, 1)}
    report = check_file(outputs, path)
    assert report.verdict == "PASS", str(report)
    assert check_file(outputs[0], path).verdict == "PASS"
    outputs[1][0, 0, 3] += 1e-3
    report = check_file(outputs, path)
    assert report.verdict == "FAIL"
    assert report.first_divergence.unit == 3
    with pytest.raises(CandidateError, match="expected those of"):
        check_file({1: outputs[1]}, path)


@pytest.mark.parametrize("name", ["gru", "simple_rnn", "lstm"])
@pytest.mark.parametrize("huge", [3e38, np.inf, np.nan])
def test_outputs_of_any_size(golden, name, huge):
    """A FAIL, and no error of the search for its cause."""
    model, path = golden(name)
    y = model(load(path).cases[0].x)
    y = tuple(map(np.array, y)) if isinstance(y, tuple | list) else (np.array(y),)
    y[0].flat[::3] = huge
    assert check_file({0: y}, path).verdict == "FAIL"


def test_what_a_candidate_does_not_take_is_not_asked(golden):
    report = check_file(lambda x: np.asarray(golden("simple_rnn")[0](x)), golden("simple_rnn")[1])
    assert report.verdict == "PASS"
    told = "; ".join(report.not_asked)
    assert "initial_state" in told
    assert "other weights" in told
    assert "more than 50 timesteps" in told


@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "gru"])
def test_a_candidate_of_masks_or_states_alone_is_asked_for_them(golden, name):
    """A port that takes a mask and ignores it, or a state, is told so by the file too."""
    path = golden(name)[1]
    layer = load(path).cases[0].layer
    for right, wrong in (
        (lambda x, mask: layer(x, mask=mask), lambda x, mask: layer(x)),
        (lambda x, initial_state: layer(x, initial_state=initial_state), lambda x, initial_state: layer(x)),
    ):
        assert check_file(right, path).verdict == "PASS"
        assert check_file(wrong, path).verdict == "FAIL"


@pytest.mark.parametrize(
    ("array", "spoil", "said"),
    [
        ("0/0/outputs/0", lambda y: y[:, :-1], r"outputs/0: expected \(4, 6\); received float32 \(4, 5\)"),
        ("0/0/sequence", lambda y: y[0], "sequence: expected"),
        ("0/0/outputs/0", lambda y: y.astype(int), "received int64"),
    ],
)
def test_a_recorded_answer_of_another_shape(golden, tmp_path, array, spoil, said):
    path = tmp_path / "golden.npz"
    path.write_bytes(Path(golden("lstm")[1]).read_bytes())

    def change(index, arrays):
        arrays[array] = spoil(arrays[array])
        index["dtypes"][array] = arrays[array].dtype.name

    resealed(path, lambda index, arrays: None)
    assert load(str(path)).answers
    resealed(path, change)
    with pytest.raises(InputError, match=said):
        load(str(path))


def test_the_files_own_inputs(golden):
    with pytest.raises(InputError, match="has its own inputs"):
        parity.check(right, golden("simple_rnn")[1], np.zeros((2, 3, 5)))
    assert parity.check(right, golden("simple_rnn")[1]).verdict == "PASS"


def test_cases_choose_and_cost(golden, tmp_path):
    model, full = golden("simple_rnn")
    small = tmp_path / "small.npz"
    record(model, str(small), cases=["inputs"])
    assert len(load(str(small)).cases) == 1
    assert small.stat().st_size < os.path.getsize(full) / 2
    with pytest.raises(InputError, match="expected of inputs, companions"):
        record(model, str(small), cases=["everything"])


def test_the_same_twice(golden, tmp_path):
    model, path = golden("gru")
    record(model, str(tmp_path / "again.npz"), cases=GROUPS)
    with open(path, "rb") as file:
        assert (tmp_path / "again.npz").read_bytes() == file.read()


def test_provenance(golden):
    found = load(golden("brain")[1]).provenance
    assert found["environment"]["keras"] == keras.__version__
    assert found["environment"]["backend"] == keras.backend.backend()
    assert (found["dtype_policy"], found["seed"]) == ("mixed_bfloat16", 0) or found["dtype_policy"]
    assert found["hard_sigmoid_slope"] == 1 / 6
    assert found["arithmetic"]["bfloat16"]["unit"] == 2**-8


# --- the command line ---


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["parity", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


def test_record_and_check_on_the_command_line(run, tmp_path):
    model = built("simple_rnn")
    model.save(tmp_path / "model.keras")
    status, out, err = run("record", "model.keras", "-o", "golden.npz", "--seed", 3)
    assert (status, err) == (0, "")
    assert f"{(tmp_path / 'golden.npz').stat().st_size:,} bytes" in out
    with np.load(tmp_path / "golden.npz") as archive:
        x = archive["0/x"]
    y = np.asarray(model(x))
    np.save(tmp_path / "mine.npy", y)
    np.savez(tmp_path / "mine.npz", **{"0": y})
    np.savez(tmp_path / "other.npz", a=y)
    for name in ("mine.npy", "mine.npz"):
        assert run("check", "golden.npz", "--outputs", name)[0] == 0
    np.save(tmp_path / "wrong.npy", y * np.float32(1.01))
    assert run("check", "golden.npz", "--outputs", "wrong.npy")[0] == 1
    assert run("check", "golden.npz")[0] == 0
    for arguments, said in (
        (("--outputs", "other.npz"), "numbers of cases"),
        (("--outputs", "none.npy"), "cannot be read"),
        (("--outputs", "mine.npy", "--candidate", "a.py:b"), "expected one of them"),
        (("--inputs", "mine.npy"), "the file has its own"),
    ):
        status, _, err = run("check", "golden.npz", *arguments)
        assert (status, len(err.splitlines())) == (2, 1)
        assert said in err


def test_a_path_that_cannot_be_written_is_said_first(run, tmp_path):
    status, _, err = run("record", "no-such-model.keras", "-o", tmp_path / "nowhere" / "golden.npz")
    assert status == 2
    assert "cannot be written" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_record_leaves_nothing(tmp_path, number):
    built("lstm").save(tmp_path / "model.keras")
    code = (
        "import sys, time; from parity import recording; import parity.cli;"
        "recording._provenance = lambda *a: (print('here', flush=True), time.sleep(60));"
        f"sys.argv = ['parity', 'record', {str(tmp_path / 'model.keras')!r}, '-o', {str(tmp_path / 'golden.npz')!r}];"
        "parity.cli.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.split("\n") == ["", "ERROR  interrupted", ""]  # the first after ^C
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


WITHOUT_KERAS = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "tf_keras", "jax", "torch", "ml_dtypes"):
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Nothing())
sys.argv = ["parity", "check", *sys.argv[1:]]
from parity.cli import main
main()
"""


def test_without_keras_and_tensorflow(golden, tmp_path):
    """In a process in which neither can be imported: the verdict, the cause and the blind spots."""
    model, path = golden("gru")
    x = load(path).cases[0].x
    y = [np.asarray(part) for part in model(x)]
    np.savez(tmp_path / "right.npz", **{f"0/{n}": part for n, part in enumerate(y)})
    reset_before = parity.from_keras(model)
    reset_before.cell.b = reset_before.cell.b[::-1]
    np.savez(tmp_path / "wrong.npz", **{f"0/{n}": part for n, part in enumerate(reset_before(x))})

    def check(*arguments, file=path):
        command = [sys.executable, "-c", WITHOUT_KERAS, str(file), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = check("--outputs", tmp_path / "right.npz")
    assert (done.returncode, done.stderr) == (0, "")
    done = check("--outputs", tmp_path / "wrong.npz")
    assert done.returncode == 1
    assert "cause: bias-rows-swapped" in done.stdout
    done = check()
    assert done.returncode == 2
    assert "pip install 'keras-parity[tensorflow]'" in done.stderr
    done = check("--outputs", tmp_path / "wrong.npz", "--save-failure", tmp_path / "case.npz")
    (tmp_path / "port.py").write_text(
        "def right(x, layer): return layer(x)\n"
        "def wrong(x, layer): return layer.replace(**{**layer.weights, 'b': layer.b[::-1]})(x)\n"
    )
    for name, status in (("right", 0), ("wrong", 1)):
        done = check("--candidate", f"{tmp_path / 'port.py'}:{name}", file=tmp_path / "case.npz")
        assert (done.returncode, done.stderr) == (status, "")
        assert "Keras was not asked: Keras and its backend tensorflow are needed: pip install" in done.stdout


def test_several_inputs_are_kept_by_name(tmp_path):
    """As yet no layer takes several: the file is written, and refused when it is read, by their names."""
    layer = parity.from_keras(built("lstm"))
    left, right = np.zeros((1, 2, layer.input_dim), "f"), np.ones((1, 2, layer.input_dim), "f")
    data = packed(Golden((Case("two", layer, {"left": left, "right": right}),)))
    arrays = arrays_in(data)
    assert {name for name in arrays if name.startswith("0/")} == {"0/inputs/left", "0/inputs/right"}
    assert np.array_equal(arrays["0/inputs/right"], right)
    (tmp_path / "two.npz").write_bytes(data)
    with pytest.raises(InputError, match="two: inputs left, right: expected x, which lstm"):
        load(str(tmp_path / "two.npz"))


def test_a_single_input_stands_as_it_always_has(golden):
    arrays = arrays_in(Path(golden("lstm")[1]).read_bytes())
    assert "0/x" in arrays
    assert not any("inputs" in name for name in arrays)


@pytest.mark.parametrize("name", ["chain", "masked", "lstm"])
def test_a_file_that_0_1_0_recorded_is_read_after(name):
    """Release 0.1.0 wrote them: most kinds of layers, masks, states, probes, lattices and two calls."""
    path = str(DATA / f"{name}-0.1.0.npz")
    assert check_file(right, path).verdict == "PASS"
    own = load(path).cases[0].layer.weights
    off = {key: array * array.dtype.type(1.01) for key, array in own.items()}
    wrong = check_file(lambda x, layer: right(x, layer.replace(**off)), path)
    assert wrong.verdict == "FAIL"
