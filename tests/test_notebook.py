"""The notebook that the project began with: what it once printed, and that it still runs from top to bottom."""

import json
from pathlib import Path

import numpy as np
import pytest

import parity
from rnn_scratch import SimpleRNN

ROOT = Path(__file__).parents[1]
TRANSCRIPT = json.loads((ROOT / "tests/data/transcript.json").read_text())
INPUTS, PRINTED, WX, WH, B = (np.array(TRANSCRIPT[key]) for key in ("inputs", "hidden_states", "Wx", "Wh", "b"))
HALF_A_UNIT = 0.5 * 10.0 ** -TRANSCRIPT["decimals"]
NOTEBOOK = ROOT / "examples/simple_rnn.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def loop(x, layer, initial_state=None):
    """The from-scratch loop, for a batch."""
    h = np.zeros((len(x), layer.units), x.dtype) if initial_state is None else initial_state
    states = []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ layer.Wx.T + h @ layer.Wh.T + layer.b)
        states.append(h)
    return np.stack(states, axis=1)


# --- the transcript ---


def test_the_transcript_is_whole():
    assert [array.shape for array in (INPUTS, PRINTED, WX, WH, B)] == [(10, 4), (10, 8), (8, 4), (8, 8), (8,)]


def test_every_printed_state_to_the_eighth_decimal():
    layer = SimpleRNN(WX, WH, B, return_sequences=True)
    for states in (layer(INPUTS), loop(INPUTS[None], layer)[0]):
        assert np.abs(states - PRINTED).max() <= HALF_A_UNIT * (1 + 1e-6)


WRONG = {
    "Wh_transposed": (WX, WH.T, B),
    "no_bias": (WX, WH, None),
    "one_weight_off_by_1e-4": (WX, WH + 1e-4 * (np.arange(64).reshape(8, 8) == 9), B),
    "float32": (WX.astype("f4"), WH.astype("f4"), B.astype("f4")),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_weights_print_something_else(name):
    assert np.abs(SimpleRNN(*WRONG[name], return_sequences=True)(INPUTS) - PRINTED).max() > HALF_A_UNIT


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_keras_with_those_weights_is_the_same_function(dtype):
    layer = parity.to_keras(SimpleRNN(*(array.astype(dtype) for array in (WX, WH, B)), return_sequences=True))
    assert layer.count_params() == 8 * 4 + 8 * 8 + 8
    report = parity.assert_parity(loop, layer, INPUTS[None])
    assert report.cases[0].proved
    mistaken = parity.to_keras(SimpleRNN(*(array.astype(dtype) for array in (WX, WH.T, B)), return_sequences=True))
    assert parity.check(lambda x: loop(x, parity.from_keras(layer)), mistaken, INPUTS[None]).verdict == "FAIL"


# --- the notebook ---


def source(cell):
    return "".join(cell["source"])


def streams(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


@pytest.fixture
def run(capsys):
    """Runs cells in order and returns what each printed, and the names they leave."""

    def run(sources):
        names, printed = {}, []
        for number, text in enumerate(sources):
            exec(compile(text, f"cell {number}", "exec"), names)
            printed.append(capsys.readouterr().out)
        return printed, names

    return run


def test_it_runs_from_top_to_bottom(run):
    printed, names = run(map(source, CELLS))
    everything = "".join(printed)
    assert "inputs (10, 4)" in everything
    assert "hidden states (10, 8)" in everything
    assert "largest difference below 1e-15: True" in everything
    assert names["model"].input_shape == (8, 2, 10)
    assert names["model"].count_params() == 3 * 10 + 3 * 3 + 3 == 42
    assert "parameters: 42" in everything
    assert names["report"].verdict == "PASS"
    assert printed[-2].startswith("PASS")
    assert printed[-1] == "FAIL\n"


def test_a_mistake_in_its_loop_would_show(run):
    right, wrong = "h @ layer.Wh.T", "h @ layer.Wh"
    assert any(right in source(cell) for cell in CELLS)
    printed, names = run(source(cell).replace(right, wrong) for cell in CELLS)
    assert names["report"].verdict == "FAIL"
    assert printed[-2].startswith("FAIL")


def test_its_kept_outputs_are_those_of_its_cells(run):
    """But for versions, and the tables that Keras draws otherwise in a notebook."""
    printed, _ = run(map(source, CELLS))
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    for cell, now in zip(CELLS, printed, strict=True):
        kept = streams(cell)
        if "print(report)" in source(cell):
            assert kept.split("  ")[0] == now.split("  ")[0] == "PASS"
        elif "summary()" in source(cell):
            assert kept == "parameters: 42\n"
            assert "42" in json.dumps(cell["outputs"][:-1])
        else:
            assert kept == now


def test_its_kept_outputs_name_no_machine():
    text = NOTEBOOK.read_text()
    for sign in ("stderr", "Traceback", "Warning", "WARNING", "/home/", "/tmp", "/work", "/usr", "site-packages"):
        assert sign not in text
