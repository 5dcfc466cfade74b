"""The pytest plugin, in test suites of its own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from zoo import make_layer

import parity

MINE = """
import numpy as np

def right(x, layer):
    return layer(x)

def wrong(x, layer):
    return layer.replace(Wx=layer.Wx, Wh=layer.Wh.T, b=layer.b)(x)
"""


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    layer = make_layer(return_sequences=True)
    path = tmp_path_factory.mktemp("golden") / "rnn.npz"
    parity.record(parity.to_keras(layer), str(path), input_shape=(5, layer.input_dim))
    return path.read_bytes()


@pytest.fixture
def suite(pytester, golden):
    """Writes a test file beside a golden file and a port, and runs it."""
    pytester.makepyfile(mine=MINE)
    (pytester.path / "golden").mkdir()
    (pytester.path / "golden" / "rnn.npz").write_bytes(golden)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")

    def run(source, *arguments):
        pytester.makepyfile(test_port=f"import pytest\nfrom mine import right, wrong\n{source}")
        return pytester.runpytest_subprocess(*arguments)

    return run


GOOD = "def test_good(assert_parity): assert_parity(right, 'golden/rnn.npz')\n"
BAD = "def test_bad(assert_parity): assert_parity(wrong, 'golden/rnn.npz')\n"


def test_a_golden_file_beside_the_test(suite):
    done = suite(GOOD + BAD, "--parity-seed=7")
    done.assert_outcomes(passed=1, failed=1)
    text = done.stdout.str()
    for said in (
        "FAIL  simple_rnn-",
        "cause: recurrent-kernel-not-transposed",
        "fix: transpose each gate's block",
        "again: pytest test_port.py::test_bad --parity-seed=7",
        "parity: 2 checks, cases: 1 PASS, 1 FAIL",
    ):
        assert said in text
    assert "parity/api.py" not in text  # hidden frames
    assert "pytest_plugin.py" not in text


def test_a_test_that_checks_nothing_fails(suite):
    done = suite("def test_nothing(assert_parity): pass\n" + GOOD)
    done.assert_outcomes(passed=1, failed=1)
    assert "checked nothing" in done.stdout.str()
    suite("def test_skipped(assert_parity): pytest.skip('not here')\n").assert_outcomes(skipped=1)


def test_a_layer_that_is_not_built(suite):
    source = """
import keras
def test_mine(assert_parity):
    report = assert_parity(right, keras.layers.SimpleRNN(4, return_sequences=True), input_shape=(10, 3))
    assert "given random weights" in str(report)
"""
    suite(source).assert_outcomes(passed=1)
    suite(source.replace("right,", "wrong,")).assert_outcomes(failed=1)


GRID = """
@pytest.mark.parity_grid(
    layer="simple_rnn", batch=[1, 2], units=[3, 8], timesteps=3, activation="tanh", case="*-normal"
)
def test_grid(assert_parity, parity_case): assert_parity({port}, parity_case)
"""


def test_the_grid(suite):
    done = suite(GRID.format(port="right"), "-v")
    outcomes = done.parseoutcomes()
    assert outcomes["passed"] > 3
    assert set(outcomes) == {"passed"}
    assert "test_grid[simple_rnn-b2-t3-i4-u8-seq-tanh-normal] PASSED" in done.stdout.str()
    assert suite(GRID.format(port="wrong")).parseoutcomes()["failed"] > 3


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("@pytest.mark.parity_grid(unit=[3])", "unit: no such name; did you mean units?"),
        ("@pytest.mark.parity_grid(units=[4])", "no case of the grid has 4"),
        ("@pytest.mark.parity_grid('lstm')", "expected @pytest.mark.parity_grid(layer=..."),
        ("", "expected @pytest.mark.parity_grid(layer=..."),
    ],
)
def test_a_marker_that_makes_no_sense(suite, marker, said):
    done = suite(f"{marker}\ndef test_grid(assert_parity, parity_case): pass\n")
    assert said in done.stdout.str() + done.stderr.str()
    assert done.ret != 0


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
@pytest.mark.parametrize(
    ("suffix", "said"), [("html", "<!doctype html>"), ("json", '"verdict"'), ("md", "## FAIL"), ("xml", "<testsuite")]
)
def test_the_runs_report(suite, pytester, workers, suffix, said):
    if workers and suffix != "json":
        pytest.skip("one format will do")
    done = suite(GOOD + BAD, f"--parity-report=report.{suffix}", *workers)
    done.assert_outcomes(passed=1, failed=1)
    assert f"report in report.{suffix}" in done.stdout.str()
    text = (pytester.path / f"report.{suffix}").read_text()
    assert said.lower() in text.lower()
    assert "test_port.py::test_bad" in text
    if suffix == "json":
        assert sorted(case["verdict"] for case in json.loads(text)["cases"]) == ["FAIL", "PASS"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--parity-report=/nowhere/r.html", "cannot be written"),
        ("--parity-report=r.pdf", "expected a name that ends with"),
        ("--parity-atol=nan", "expected a finite number"),
        ("--parity-only-mistake=bias-mising", "bias-missing"),
    ],
)
def test_options_that_make_no_sense(suite, option, said):
    done = suite(GOOD, option)
    assert said in done.stdout.str() + done.stderr.str()
    assert done.ret != 0


def test_the_runs_options_and_the_calls_own(suite):
    loose = "def test_loose(assert_parity): assert_parity(wrong, 'golden/rnn.npz', atol=3.0)\n"
    suite(loose).assert_outcomes(passed=1)
    suite(BAD, "--parity-atol=3").assert_outcomes(passed=1)
    suite(loose.replace("3.0", "0.0"), "--parity-atol=3").assert_outcomes(failed=1)
    done = suite(loose.replace("atol=", "atoll="))
    done.assert_outcomes(failed=1)
    assert "atoll: no such name; did you mean atol?" in done.stdout.str()


def test_a_missing_golden_file(suite, pytester):
    source = """
def layer():
    from zoo import make_layer
    import parity
    return parity.to_keras(make_layer(return_sequences=True))

def test_new(assert_parity):
    assert_parity(right, "golden/new.npz", record=layer, input_shape=(5, 4))
"""
    here = os.path.dirname(__file__)
    pytester.makeconftest(f"import sys; sys.path.insert(0, {here!r})")
    done = suite(source)
    done.assert_outcomes(failed=1)
    assert "no such golden file" in done.stdout.str()
    assert not (pytester.path / "golden" / "new.npz").exists()
    suite(source, "--parity-record").assert_outcomes(passed=1)
    assert (pytester.path / "golden" / "new.npz").exists()
    suite(source).assert_outcomes(passed=1)
    done = suite("def test_other(assert_parity): assert_parity(right, 'other.npz')\n", "--parity-record")
    done.assert_outcomes(failed=1)
    assert "needs record=" in done.stdout.str()


def test_an_interruption_keeps_the_results(suite, pytester):
    slow = "def test_slow(assert_parity):\n    import time; print('now'); time.sleep(60)\n"
    pytester.makepyfile(test_port=f"from mine import right, wrong\n{GOOD}{slow}")
    command = [sys.executable, "-m", "pytest", "-s", "--parity-report=r.json"]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.endswith("now\n"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert "INCOMPLETE" in out
    told = json.loads((pytester.path / "r.json").read_text())
    assert told["incomplete"]
    assert [case["verdict"] for case in told["cases"]] == ["PASS"]


def test_it_costs_nothing_to_others(pytester):
    pytester.makepyfile(
        test_other="""
import sys

def test_other():
    heavy = {"numpy", "keras", "tensorflow", "click", "rich", "rnn_scratch", "parity.api", "parity.cases"}
    assert not heavy & set(sys.modules)
    assert "parity.pytest_plugin" in sys.modules
"""
    )
    done = pytester.runpytest_subprocess("-p", "no:hypothesispytest")
    done.assert_outcomes(passed=1)
