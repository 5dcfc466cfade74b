"""Targets and settings: one path for a Keras layer, a saved model, a golden file and the grid."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

import parity
from parity import api
from parity.adapters.keras import library
from parity.adapters.keras.oracle import Oracle
from parity.api import check_file, check_grid
from parity.cases.grid import grid
from parity.checking import asking, conclusions
from parity.errors import CandidateError, InputError, OracleError
from parity.given import making
from parity.given.case import Inputs
from parity.given.settings import Settings
from parity.golden.file import load
from parity.judging import judge
from parity.recording import record

X = np.random.default_rng(1).standard_normal((3, 7, 4)).astype("float32")
CASES = grid(only="simple_rnn-b2-t10-i4-u8-seq-*elu-normal")


def model():
    made = keras.Sequential([keras.Input((None, 4)), keras.layers.SimpleRNN(5, return_sequences=True)])
    rng = np.random.default_rng(5)
    made.set_weights([rng.standard_normal(weight.shape) / 2 for weight in made.get_weights()])
    return made


def right(x, layer):
    return layer(x)


def wrong(x, layer):
    y = np.array(layer(x))
    y[:, 3:] += np.float32(0.01)
    return y


@pytest.mark.parametrize("candidate", [right, wrong])
def test_a_layer_a_saved_model_and_a_golden_file_of_it_are_one_target(tmp_path, candidate):
    layer = model()
    layer.save(tmp_path / "model.keras")
    record(layer, str(tmp_path / "golden.npz"), X)
    whole = parity.check(candidate, layer, X)
    others = [
        parity.check(candidate, tmp_path / "model.keras", X),
        parity.check(candidate, tmp_path / "golden.npz"),
        check_file(candidate, str(tmp_path / "golden.npz")),
    ]
    for report in others:
        assert report.verdict == whole.verdict == ("PASS" if candidate is right else "FAIL")
        assert report.cases[0].id == whole.cases[0].id
        assert report.first_divergence == whole.first_divergence
        assert [cause.id for cause in report.causes] == [cause.id for cause in whole.causes]


def test_what_each_maker_says_of_its_target(tmp_path):
    layer = model()
    record(layer, str(tmp_path / "golden.npz"), X)
    made = making.of_layer(layer, Inputs(X), 0)
    assert made.further is None
    assert made.companions
    assert made.versions["keras"] == keras.__version__
    assert made.precision == layer.dtype_policy.name
    recorded = making.of_golden(load(str(tmp_path / "golden.npz")))
    assert recorded.further
    assert f"keras {keras.__version__}" in recorded.versions["recorded by"]
    of_grid = making.of_case(CASES[0])
    assert (of_grid.further, of_grid.companions) == (None, False)
    alone = making.without_keras(CASES[0], "there is none")
    assert alone.unasked in alone.notes[0]
    assert not alone.versions


@pytest.mark.parametrize("candidate", [right, wrong])
def test_nothing_goes_back_to_keras_after_judging(monkeypatch, candidate):
    def gone(*args, **settings):
        raise AssertionError("Keras was asked")

    def without_keras(asked, versions):
        for owner, name in ((library, "keras"), (Oracle, "ask"), (Oracle, "converse")):
            monkeypatch.setattr(owner, name, gone)
        return conclusions.report_on(asked, versions)

    monkeypatch.setattr(api, "report_on", without_keras)
    report = parity.check(candidate, model(), X)
    assert report.verdict == ("PASS" if candidate is right else "FAIL")
    assert report.environment["keras"] == keras.__version__


@pytest.mark.parametrize(
    "folder", [Path(asking.__file__).parent, Path(judge.__file__).parent], ids=["asking", "judging"]
)
def test_asking_and_judging_name_no_library(folder):
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith(("keras", "parity.adapters", "parity.kinds"))], path


def test_what_the_oracle_raises_is_that_targets_alone(monkeypatch):
    def broken(self, case):
        if case.id == CASES[1].id or case.batch == len(X):
            raise OracleError(f"raised on {case.id}")
        return ask(self, case)

    ask = Oracle.ask
    monkeypatch.setattr(Oracle, "ask", broken)
    report = check_grid(right, CASES[:3])
    assert [case.verdict for case in report.cases] == ["PASS", "ERROR", "PASS"]
    assert report.cases[1].notes == (f"raised on {CASES[1].id}",)
    with pytest.raises(OracleError, match="raised on"):
        parity.check(right, model(), X)
    with pytest.raises(OracleError, match="raised on"):
        check_grid(right, CASES[1:2])
    with pytest.raises(CandidateError, match=r"raised on .* \(likewise the other 1 cases\)"):
        check_grid(right, [CASES[1], CASES[1]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed: expected an integer, 0 or more; received -1"),
        ({"atol": float("nan")}, "atol: expected a finite number, 0 or more; received nan"),
        ({"rtol": -1e-3}, "rtol: expected a finite number, 0 or more; received -0.001"),
        ({"only_mistake": "bias-mising"}, "no mistake has the id 'bias-mising'; the nearest are bias-missing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_way_to_a_check_refuses_the_same_settings(tmp_path, given, message):
    record(model(), str(tmp_path / "golden.npz"), X, cases=("inputs",))
    for ask in (
        lambda: Settings.of(**given),
        lambda: parity.check(right, model(), X, **given),
        lambda: check_grid(right, CASES, **given),
        lambda: check_file(right, str(tmp_path / "golden.npz"), **given),
    ):
        with pytest.raises(InputError) as refused:
            ask()
        assert message in str(refused.value)


def test_an_option_that_there_is_not_is_no_setting():
    with pytest.raises(TypeError, match="toleranse"):
        check_grid(right, CASES, toleranse=1.0)
