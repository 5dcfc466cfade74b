"""The command line: its statuses, its lines, its JSON."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import parity
from parity import cli

MINE = """
import numpy as np

def forward(x, layer):
    h = np.zeros((len(x), layer.units), x.dtype)
    hs = []
    for x_t in x.swapaxes(0, 1):
        h = np.tanh(x_t @ layer.Wx.T + h @ layer.Wh.T + layer.b)
        hs.append(h)
    return np.stack(hs, axis=1) if layer.return_sequences else h

def transposed(x, layer):
    layer.Wh = layer.Wh.T.copy()
    return forward(x, layer)

def nan(x, layer):
    return forward(x, layer) * np.nan

def none(x, layer): return None
def integers(x, layer): return [1, 2]
def strings(x, layer): return ["a"]
def raises(x, layer): raise KeyError("two\\nlines")
def garbles(x, layer): raise ValueError("\\ud800 \\x07 \\x1b[31m \\u202e")
def odd(x, layer): raise GeneratorExit("odd")
def x_only(x): return x
def strange(x, layer, temperature): return x
number = 3
"""

GRID = ("--batch", "1,8", "--units", "3", "--timesteps", "10", "--activation", "tanh", "--case", "*-tanh-normal")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Models, arrays and candidates as a user has them, in one folder."""
    folder = tmp_path_factory.mktemp("files")
    layers = keras.layers
    models = {
        "sequence": [layers.SimpleRNN(6, return_sequences=True, bias_initializer="random_normal")],
        "last": [layers.SimpleRNN(6, bias_initializer="random_normal")],
        "convolved": [layers.Conv1D(3, 2), layers.LSTM(3)],
        "dense": [layers.Dense(3)],
        "behind": [layers.SimpleRNN(3), layers.Reshape((3, 1))],
        "lambda": [layers.Lambda(lambda x: x), layers.SimpleRNN(3)],
    }
    for name, stack in models.items():
        keras.Sequential([keras.Input((7, 5)), *stack]).save(folder / f"{name}.keras")
    keras.Sequential([keras.Input((None, 5)), layers.SimpleRNN(6)]).save(folder / "long.keras")
    model = keras.saving.load_model(folder / "sequence.keras")
    poisoned = keras.saving.load_model(folder / "sequence.keras")
    poisoned.set_weights([weight * np.nan for weight in poisoned.get_weights()])
    poisoned.save(folder / "poisoned.keras")
    whole = (folder / "sequence.keras").read_bytes()
    (folder / "truncated.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.keras").touch()
    (folder / "text.keras").write_text("hello")
    x = np.random.default_rng(3).standard_normal((3, 7, 5)).astype("float32")
    y = np.asarray(model(x))
    wrong = y.copy()
    wrong[1, 3, 2] += 1e-3
    arrays = {"x": x, "y": y, "wrong": wrong, "integers": y.astype(int), "narrow": x[..., :4], "no_steps": x[:, :0]}
    arrays |= {"mask": np.ones((3, 6), bool), "state": np.zeros((2, 6)), "words": np.array(["a"])}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "empty.npy").touch()
    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:200])
    (folder / "mine.py").write_text(MINE)
    (folder / "program").write_text("#!/bin/sh")
    (folder / "program").chmod(0o755)
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "imports.py").write_text("import no_such_module\n")
    return folder


@pytest.fixture
def run(files, monkeypatch, capsys):
    """Runs `parity` with those arguments in the folder of files: its status and both streams."""

    def call(*arguments):
        monkeypatch.chdir(files)
        monkeypatch.setattr(sys, "argv", ["parity", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


GOOD = {
    "a model against rnn_scratch": ("sequence.keras",),
    "a model that returns the last output": ("last.keras",),
    "a model and a function": ("sequence.keras", "--candidate", "mine.py:forward"),
    "outputs from elsewhere": ("sequence.keras", "--inputs", "x.npy", "--outputs", "y.npy"),
    "the grid, narrowed": GRID,
    "the grid, every activation at 64 units": (
        "--batch",
        "1,8",
        "--units",
        "64",
        "--timesteps",
        "10",
        "--return-sequences",
        "true",
    ),
    "the grid and a function": (*GRID, "--candidate", "mine.py:forward"),
    "a tolerance": ("sequence.keras", "--inputs", "x.npy", "--outputs", "wrong.npy", "--atol", "0.1"),
}


@pytest.mark.parametrize("arguments", GOOD.values(), ids=GOOD.keys())
def test_pass_is_status_0(run, arguments):
    status, out, err = run("check", *arguments)
    assert (status, err) == (0, "")
    assert out.startswith("PASS  ")


BAD = {
    "one element off by 1e-3": ("sequence.keras", "--inputs", "x.npy", "--outputs", "wrong.npy"),
    "outputs of another shape": ("sequence.keras", "--inputs", "x.npy", "--outputs", "x.npy"),
    "a transposed recurrent kernel": ("sequence.keras", "--candidate", "mine.py:transposed"),
    "the same over the grid": (*GRID, "--candidate", "mine.py:transposed"),
    "NaN": ("sequence.keras", "--candidate", "mine.py:nan"),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_fail_is_status_1(run, arguments):
    status, out, err = run("check", *arguments)
    assert (status, err) == (1, "")
    assert out.startswith("FAIL  ")


def test_fail_names_the_first_bad_element(run):
    _, out, _ = run("check", "sequence.keras", "--inputs", "x.npy", "--outputs", "wrong.npy")
    assert "first at timestep 3, batch 1, unit 2: got " in out


SEQUENCE = "sequence.keras"
ERRORS = {
    "missing.keras": (("missing.keras",), "missing.keras: no such file"),
    "empty.keras": (("empty.keras",), "empty.keras: the file is empty"),
    "truncated.keras": (("truncated.keras",), "not a Keras file, or cut short"),
    "text.keras": (("text.keras",), "not a Keras file, or cut short"),
    "mine.py as a model": (("mine.py",), "expected a model saved by Keras"),
    "a model without a recurrent layer": (("dense.keras",), "it has dense"),
    "a recurrent layer that is not covered": (("convolved.keras",), "(Conv1D) is not covered"),
    "a layer behind it": (("behind.keras",), "(Reshape) is not covered"),
    "a model with Lambda code": (("lambda.keras",), "Keras cannot load it"),
    "NaN in the weights": (("poisoned.keras",), "kernel: expected finite weights"),
    "features": ((SEQUENCE, "--inputs", "narrow.npy"), "expected shape (batch, timesteps, 5); received (3, 7, 4)"),
    "more than memory holds": (("long.keras", "--input-shape", "10000000000000,5"), "GiB; this machine has"),
    "no timesteps": ((SEQUENCE, "--inputs", "no_steps.npy"), "at least 1 timestep"),
    "inputs that are objects": ((SEQUENCE, "--inputs", "objects.npy"), "objects.npy: expected an .npy file of numbers"),
    "inputs that are words": ((SEQUENCE, "--inputs", "words.npy"), "x: expected real numbers"),
    "an empty .npy": ((SEQUENCE, "--inputs", "empty.npy"), "empty.npy: expected an .npy file"),
    "a cut .npy": ((SEQUENCE, "--inputs", "cut.npy"), "cut.npy: expected an .npy file"),
    "a missing .npy": ((SEQUENCE, "--inputs", "missing.npy"), "missing.npy"),
    "a mask of another shape": ((SEQUENCE, "--inputs", "x.npy", "--mask", "mask.npy"), "mask: expected shape (3, 7)"),
    "a state of another shape": (
        (SEQUENCE, "--inputs", "x.npy", "--initial-state", "state.npy"),
        "initial_state: expected shape (3, 6)",
    ),
    "outputs without inputs": ((SEQUENCE, "--outputs", "y.npy"), "expected --inputs too"),
    "integer outputs": ((SEQUENCE, "--inputs", "x.npy", "--outputs", "integers.npy"), "returned int64"),
    "outputs and a candidate": (
        (SEQUENCE, "--inputs", "x.npy", "--outputs", "y.npy", "--candidate", "mine.py:forward"),
        "expected one of them",
    ),
    "a candidate file that is missing": ((SEQUENCE, "--candidate", "no.py:f"), "no file no.py"),
    "a name that is missing": ((SEQUENCE, "--candidate", "mine.py:forwrad"), "did you mean forward?"),
    "a candidate without a name": ((SEQUENCE, "--candidate", "mine.py"), "expected FILE.py:NAME"),
    "a notebook": ((SEQUENCE, "--candidate", "a.ipynb:f"), "is a notebook: make a file of it"),
    "a program without cmd:": ((SEQUENCE, "--candidate", "./program"), "expected 'cmd:./program {inputs} {outputs}'"),
    "a bad model and a bad name": (("dense.keras", "--candidate", "mine.py:forwrad"), "it has dense"),
    "a candidate that is no function": ((SEQUENCE, "--candidate", "mine.py:number"), "is a int"),
    "a syntax error": ((SEQUENCE, "--candidate", "broken.py:f"), "SyntaxError"),
    "an import that fails": ((SEQUENCE, "--candidate", "imports.py:f"), "ModuleNotFoundError"),
    "None": ((SEQUENCE, "--candidate", "mine.py:none"), "returned None"),
    "integers": ((SEQUENCE, "--candidate", "mine.py:integers"), "returned int64"),
    "strings": ((SEQUENCE, "--candidate", "mine.py:strings"), "returned <U1"),
    "a candidate that raises": ((SEQUENCE, "--candidate", "mine.py:raises"), "lines' (mine.py, line "),
    "what no terminal can print": ((SEQUENCE, "--candidate", "mine.py:garbles"), r"\ud800 \x07 \u202e"),
    "what is no Exception": ((SEQUENCE, "--candidate", "mine.py:odd"), "raised GeneratorExit: odd"),
    "no time at all": ((SEQUENCE, "--candidate", "mine.py:forward", "--timeout", "0"), "more than 0"),
    "one file for two reports": ((SEQUENCE, "--json", "r", "--html", "./r"), "--html: ./r: expected a file of its own"),
    "a report over the model": ((SEQUENCE, "--json", SEQUENCE), "it is that of MODEL"),
    "a report over the candidate's file": (
        (SEQUENCE, "--candidate", "mine.py:forward", "--html", "./mine.py"),
        "it is that of --candidate",
    ),
    "a report over the inputs": ((SEQUENCE, "--inputs", "x.npy", "--markdown", "x.npy"), "it is that of --inputs"),
    "the same over the grid": ((*GRID, "--candidate", "mine.py:raises"), "raised KeyError"),
    "a parameter nobody knows": ((SEQUENCE, "--candidate", "mine.py:strange"), "'temperature' is none of x"),
    "a grid without `layer`": (("--candidate", "mine.py:x_only"), "a function with a parameter `layer`"),
    "units that the grid lacks": (("--units", "5"), "no case of the grid has 5"),
    "no case": (("--case", "nothing*"), "no case of the grid matches"),
    "not a number": (("--batch", "x"), "expected integers"),
    "an option that is not there": (("--bogus",), "No such option"),
    "a selection for a model": ((SEQUENCE, "--units", "3"), "--units selects cases of the grid"),
    "inputs for the grid": (("--inputs", "x.npy"), "expected a model to go with it"),
    "a negative tolerance": ((SEQUENCE, "--atol", "-1"), "atol: expected a finite number"),
    "a tolerance of NaN": ((SEQUENCE, "--rtol", "nan"), "rtol: expected a finite number"),
    "a report nobody can write": ((SEQUENCE, "--json", "no/such/folder.json"), "cannot be written"),
}


@pytest.mark.parametrize(("arguments", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_bad_input_is_one_line_and_status_2(run, arguments, expected):
    status, out, err = run("check", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("ERROR  ")
    assert err.count("\n") == 1
    assert expected in err


def test_json(run, files):
    status, _, _ = run("check", SEQUENCE, "--inputs", "x.npy", "--outputs", "wrong.npy", "--json", "report.json")
    report = json.loads((files / "report.json").read_text())
    explained = ["causes", "known", "smallest", "not_visible", "no_difference"]
    assert list(report) == [
        "schema",
        "verdict",
        "subject",
        "environment",
        "cases",
        *explained,
        "not_asked",
        "counts",
        "command",
        "incomplete",
    ]
    assert (status, report["schema"], report["verdict"]) == (1, 1, "FAIL")
    assert {"keras", "tensorflow", "numpy", "backend"} <= set(report["environment"])
    (case,) = report["cases"]
    keys = ["id", "verdict", "proved", "method", "worst", "max_abs", "rms", "keras_worst", "first_divergence"]
    assert list(case) == [*keys, "notes", "layers", "worst_elements", "explained", "command"]
    assert (case["verdict"], case["proved"], case["method"]) == ("FAIL", True, ["stepwise"])
    assert case["worst"] > 100
    assert case["keras_worst"] < 1
    assert case["max_abs"] == pytest.approx(1e-3, rel=1e-2)
    first = case["first_divergence"]
    assert list(first) == ["batch", "timestep", "unit", "expected", "got", "radius"]
    assert (first["batch"], first["timestep"], first["unit"]) == (1, 3, 2)
    assert report["counts"]["FAIL"] == 1
    assert "masks" in report["not_asked"]


def test_a_case_of_the_grid_has_a_command_of_its_own(run, files, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    status, _, _ = run("check", *GRID, "--candidate", "mine.py:transposed", "--json", "grid.json")
    cases = json.loads((files / "grid.json").read_text())["cases"]
    failed = next(case for case in cases if case["verdict"] == "FAIL")
    words = shlex.split(failed["command"])
    assert words == ["parity", "check", *GRID, "--candidate", "mine.py:transposed", "--case", failed["id"]]
    again, out, _ = run(*words[1:])
    assert (status, again) == (1, 1)
    assert out.startswith(f"FAIL  {failed['id']}  first at")
    assert {case["command"] for case in cases if case["verdict"] == "PASS"} <= {""}


def test_reports_are_written_before_anything_is_printed(run, files, monkeypatch):
    monkeypatch.setattr(cli, "say", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("check", SEQUENCE, "--inputs", "x.npy", "--outputs", "y.npy", "--json", "first.json")
    assert json.loads((files / "first.json").read_text())["subject"] == f"y.npy against {SEQUENCE}"


def test_json_has_no_nan(run, files):
    run("check", SEQUENCE, "--candidate", "mine.py:nan", "--json", "nan.json")

    def refuse(constant):
        raise AssertionError(constant)

    (case,) = json.loads((files / "nan.json").read_text(), parse_constant=refuse)["cases"]
    assert case["worst"] == "Infinity"
    assert case["first_divergence"]["got"] == "NaN"


def test_an_error_is_in_the_json_too(run, files):
    run("check", "missing.keras", "--json", "error.json")
    report = json.loads((files / "error.json").read_text())
    assert report["verdict"] == "ERROR"
    assert "no such file" in report["cases"][0]["notes"][0]


def test_no_half_written_report_is_left(run, files):
    run("check", "--units", "5", "--json", "never.json")
    assert not [path for path in files.iterdir() if "never.json" in path.name and path.name != "never.json"]


def test_list_and_verbose(run):
    status, out, _ = run("check", *GRID, "--list")
    assert status == 0
    ids = out.split()
    assert ids
    assert {name.partition("-")[0] for name in ids} >= {"simple_rnn", "lstm", "gru"}
    _, out, _ = run("check", *GRID, "--verbose")
    assert "simple_rnn-b8-t10" in out


def test_one_case_of_the_grid_has_the_same_data_alone(run):
    from parity.cases.grid import grid

    every = {case.id: case for case in grid()}
    name = "simple_rnn-b2-t10-i4-u8-seq-relu-normal"
    (alone,) = grid({"activation": ("relu",), "return_sequences": (True,)}, only=name)
    np.testing.assert_array_equal(alone.x, every[name].x)
    np.testing.assert_array_equal(alone.layer.cell.Wh, every[name].layer.cell.Wh)


def test_as_a_process_nothing_but_the_report_is_printed(files):
    """TensorFlow's start-up messages come from C++, which only a process shows."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment["PYTHONPATH"] = str(Path(parity.__file__).parent.parent)
    command = [sys.executable, "-m", "parity", "check", *GRID, "--json", "process.json"]
    done = subprocess.run(command, cwd=files, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads((files / "process.json").read_text())["verdict"] == "PASS"


SLOW = """
import time

def slow(x, layer):
    if layer.units == 8:
        print("slow", flush=True)
        time.sleep(60)
    return layer(x)
"""


def test_an_interruption_keeps_the_results_so_far(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    command = [
        sys.executable,
        "-m",
        "parity",
        "check",
        "--candidate",
        "slow.py:slow",
        "--json",
        "r.json",
        "--batch",
        "2",
    ]
    command += ["--timesteps", "3", "--units", "3,8", "--input-dim", "4", "--case", "*-seq-tanh-normal"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "slow\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    told = json.loads((tmp_path / "r.json").read_text())
    assert process.returncode == 2
    assert "incomplete: interrupted after " in out
    assert (told["verdict"], told["incomplete"][:11]) == ("ERROR", "interrupted")
    assert {case["verdict"] for case in told["cases"]} == {"PASS"}
    assert not any("-u8-" in case["id"] for case in told["cases"])
