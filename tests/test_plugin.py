"""The pytest plugin, in test suites of its own."""

import json
import os
import re
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

def raises(x, layer):
    return right(x, layer)["one"]

def leaves(x, layer):
    import os; os._exit(3)
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
        pytester.makepyfile(test_port=f"import pytest\nfrom mine import leaves, raises, right, wrong\n{source}")
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
        "worst: timestep ",
        "pytest test_port.py::test_bad --parity-seed=7\n",
        "parity: 2 checks, cases: 1 PASS, 1 FAIL",
    ):
        assert said in text
    assert "parity/api.py" not in text  # hidden frames
    assert "pytest_plugin.py" not in text
    assert "pytest_check.py" not in text


def test_a_test_that_checks_nothing_fails(suite):
    done = suite("def test_nothing(assert_parity): pass\n" + GOOD)
    done.assert_outcomes(passed=1, failed=1)
    assert "checked nothing" in done.stdout.str()
    suite("def test_skipped(assert_parity): pytest.skip('not here')\n").assert_outcomes(skipped=1)


def test_an_error_says_where_and_how_to_repeat_it(suite):
    done = suite("def test_raises(assert_parity): assert_parity(raises, 'golden/rnn.npz')\n")
    done.assert_outcomes(failed=1)
    text = done.stdout.str()
    assert "ERROR  candidate: raised IndexError" in text
    assert "(mine.py, line 10)" in text
    assert "pytest test_port.py::test_raises\n" in text
    assert "pytest_plugin.py" not in text
    assert "pytest_check.py" not in text


def test_the_line_that_repeats_a_test_is_from_where_pytest_was_started(suite, pytester, monkeypatch):
    pytester.makepyfile(test_port=f"from mine import right, wrong\n{BAD}")
    monkeypatch.chdir(pytester.path / "golden")
    done = subprocess.run([sys.executable, "-m", "pytest", "../test_port.py"], capture_output=True, text=True)
    again = next(line for line in done.stdout.splitlines() if "again: " in line).partition("again: ")[2]
    assert again == "KERAS_BACKEND=tensorflow pytest ../test_port.py::test_bad"
    again = again.replace("pytest", f"{sys.executable} -m pytest", 1)
    assert "1 failed" in subprocess.run(again, shell=True, capture_output=True, text=True).stdout


def test_strict_is_in_the_headline(suite):
    source = """
import keras, numpy as np
def test_one_step(assert_parity):
    assert_parity(right, keras.layers.SimpleRNN(5, return_sequences=True), np.zeros((2, 1, 3), "f"), seed=1)
    layer = keras.layers.SimpleRNN(5, return_sequences=True)
    layer.build((None, 1, 3))
    x = np.zeros((2, 1, 3), "f")
    assert_parity(np.asarray(layer(x)), layer, x)
"""
    suite(source).assert_outcomes(passed=1)
    done = suite(source.replace("seed=1", "seed=1, strict=False"), "--parity-strict")
    done.assert_outcomes(failed=1)
    assert "INCONCLUSIVE  simple_rnn-" in done.stdout.str()
    assert "PASS  simple_rnn-" not in done.stdout.str()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("'golden/rnn.npz', np.zeros((9, 9, 9))", "x: golden/rnn.npz has its own inputs"),
        ("'golden/rnn.npz', mask='rubbish'", "mask: golden/rnn.npz has its own inputs"),
        ("'golden/rnn.npz', initial_state=1", "initial_state: golden/rnn.npz has"),
        ("'golden/rnn.npz', input_shape=(3, 4)", "input_shape: golden/rnn.npz has"),
        ("'golden/rnn.npz', record='rubbish'", "record: expected a Keras layer, or a function that"),
        ("CASE, np.zeros((9, 9, 9))", "x: a case of the grid has its own inputs"),
        ("CASE, input_shape=(3, 4)", "input_shape: a case of the grid has"),
        ("CASE, record=3", "record: a case of the grid has"),
    ],
)
def test_what_has_its_own_inputs_takes_no_others(suite, call, said):
    source = (
        "import numpy as np\nfrom parity.cases import grid\nCASE = grid({'units': [3]}, '*-seq-tanh-normal', 0)[0]\n"
    )
    done = suite(f"{source}def test_it(assert_parity): assert_parity(right, {call})\n")
    done.assert_outcomes(failed=1)
    assert said in done.stdout.str()


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


def test_what_a_candidate_cannot_be_asked_is_skipped(suite, pytester):
    marker = "@pytest.mark.parity_grid(layer='simple_rnn', batch=1, units=[3], return_sequences=True)"
    source = f"{marker}\ndef test_grid(assert_parity, parity_case): assert_parity(right, parity_case)\n"
    done = suite(source, "--parity-report=r.json", "-rs")
    outcomes = done.parseoutcomes()
    assert set(outcomes) == {"passed", "skipped"}
    assert "not asked: a case with mask: the candidate has no such parameter" in done.stdout.str()
    told = read(pytester)
    assert told["verdict"] == "PASS"
    assert any("a case with mask" in line for line in told["not_asked"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("@pytest.mark.parity_grid(case=3)", "case: expected a pattern of ids"),
        ("@pytest.mark.parity_grid(unit=[3])", "unit: no such name; did you mean units?"),
        ("@pytest.mark.parity_grid(units=[4])", "no case of the grid has 4"),
        ("@pytest.mark.parity_grid('lstm')", "expected @pytest.mark.parity_grid(layer=..."),
        ("", "expected @pytest.mark.parity_grid(layer=..."),
    ],
)
def test_a_marker_that_makes_no_sense(suite, marker, said):
    done = suite(f"{marker}\ndef test_grid(assert_parity, parity_case): pass\n")
    assert "test_port.py::test_grid: parity_grid: " in done.stdout.str()
    assert said in done.stdout.str()
    assert "pytest_plugin.py" not in done.stdout.str()
    assert "another exception" not in done.stdout.str()
    assert done.ret != 0


def test_a_marker_on_a_test_without_the_case(suite):
    marker = "@pytest.mark.parity_grid(layer='simple_rnn')\n"
    done = suite(f"{marker}def test_grid(assert_parity): pass\n")
    assert "expected a test that takes parity_case" in done.stdout.str()
    suite(f"{marker}class TestIt:\n    def test_other(self): pass\n").assert_outcomes(passed=1)


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
        ("--parity-only-mistake=bias-mising", "ERROR: --parity-only_mistake: no mistake has the id"),
        ("--parity-sed=3", "ERROR: --parity-sed: no such name; did you mean --parity-seed?"),
        ("--parity-timeout=0", "more than 0"),
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
    assert "no such golden file; --parity-record writes it" in done.stdout.str()
    assert not (pytester.path / "golden" / "new.npz").exists()
    suite(source, "--parity-record").assert_outcomes(passed=1)
    assert (pytester.path / "golden" / "new.npz").exists()
    suite(source).assert_outcomes(passed=1)
    done = suite("def test_other(assert_parity): assert_parity(right, 'other.npz')\n", "--parity-record")
    done.assert_outcomes(failed=1)
    assert "or --parity-record where the call has record=" in done.stdout.str()


# --- the run's report says no PASS where a test failed ---


def read(pytester):
    return json.loads((pytester.path / "r.json").read_text())


NO_VERDICT = {
    "checks nothing": "def test_it(assert_parity): pass\n",
    "raises before": "def test_it(assert_parity): raise ValueError('before')\n",
    "raises in record": "def test_it(assert_parity): assert_parity(right, 'new.npz', record=lambda: 1 / 0)\n",
    "another fixture raises": """
@pytest.fixture
def other(): raise ValueError('other')
def test_it(other, assert_parity): assert_parity(right, 'golden/rnn.npz')
""",
    "raises after a check": GOOD.replace("test_good", "test_it").rstrip() + "; raise ValueError('after')\n",
}


@pytest.mark.parametrize("source", NO_VERDICT.values(), ids=NO_VERDICT)
def test_a_test_that_fails_without_a_verdict_is_an_error(suite, pytester, source):
    done = suite(GOOD + source, "--parity-report=r.json", "--parity-record")
    assert done.ret == 1
    told = read(pytester)
    assert told["verdict"] == "ERROR"
    assert [case["verdict"] for case in told["cases"] if "test_good" in case["id"]] == ["PASS"]
    (failed,) = [case for case in told["cases"] if case["verdict"] == "ERROR"]
    assert failed["id"].startswith("test_port.py::test_it")
    assert failed["notes"][0].startswith("failed without a verdict: ")


def test_a_process_that_dies_is_an_error(suite, pytester):
    source = "def test_leaves(assert_parity): assert_parity(leaves, 'golden/rnn.npz')\n"
    suite(GOOD + source, "--parity-report=r.json", "-n", "1")
    told = read(pytester)
    assert told["verdict"] == "ERROR"
    assert sorted(case["verdict"] for case in told["cases"]) == ["ERROR", "PASS"]
    suite(source, "--parity-report=r.json")
    assert (pytester.path / "r.json").read_bytes() == b""  # not the old report


EXPECTED = """
def test_expected(assert_parity):
    with pytest.raises(AssertionError): assert_parity(wrong, 'golden/rnn.npz')

@pytest.mark.xfail
def test_xfail(assert_parity): assert_parity(wrong, 'golden/rnn.npz')
"""


def test_what_a_test_expects_does_not_count(suite, pytester):
    suite(GOOD + EXPECTED, "--parity-report=r.json").assert_outcomes(passed=2, xfailed=1)
    told = read(pytester)
    assert told["verdict"] == "PASS"
    assert len(told["cases"]) == 1
    suite(GOOD + EXPECTED + BAD, "--parity-report=r.json").assert_outcomes(passed=2, xfailed=1, failed=1)
    assert read(pytester)["verdict"] == "FAIL"


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_run_that_stops_early_says_so(suite, pytester, workers):
    more = "".join(GOOD.replace("test_good", f"test_good_{n}") for n in range(9))
    suite(BAD + more, "-x", "--parity-report=r.json", *workers)
    assert "stopping after 1 failures" in read(pytester)["incomplete"]
    suite(GOOD + BAD, "-x", "--parity-report=r.json")
    assert read(pytester)["incomplete"] == ""


def test_a_file_that_cannot_be_collected_makes_the_run_incomplete(suite, pytester):
    pytester.makepyfile(test_broken="import nothing_there")
    suite(GOOD, "--parity-report=r.json", "--continue-on-collection-errors").assert_outcomes(passed=1, errors=1)
    assert read(pytester)["incomplete"] == "test_broken.py could not be collected"


def test_a_run_that_checks_nothing_is_no_pass(suite, pytester):
    (pytester.path / "r.json").write_text("old")
    suite(GOOD, "--parity-report=r.json", "-k", "nothing")
    told = read(pytester)
    assert told["verdict"] == "ERROR"
    assert told["cases"][0]["notes"] == ["nothing was checked"]


def test_the_report_is_where_it_was_asked_for(suite, pytester):
    moves = GOOD.rstrip() + "; import os; os.chdir('golden')\n"
    suite(moves, "--parity-report=r.json").assert_outcomes(passed=1)
    assert read(pytester)["verdict"] == "PASS"
    done = suite(GOOD, "--parity-report=r.xml", "--junitxml=./r.xml")
    assert "expected a file of its own" in done.stderr.str()


def test_the_report_is_not_written_over_what_a_test_reads(suite, pytester):
    (pytester.path / "settings.json").write_text("{}")
    program = "cmd:cat {inputs} {outputs} settings.json"
    judged = f"assert_parity('{program}', 'golden/rnn.npz')"
    done = suite(
        f"def test_it(assert_parity):\n  with pytest.raises(BaseException): {judged}\n", "--parity-report=settings.json"
    )
    assert (pytester.path / "settings.json").read_text() == "{}"
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "settings.json: not written: it is a file that the tests read" in done.stdout.str()


def test_the_report_follows_a_link_and_keeps_the_mode(suite, pytester):
    real = pytester.path / "real.json"
    real.write_text("old")
    real.chmod(0o600)
    (pytester.path / "r.json").symlink_to("real.json")
    for _ in range(2):
        suite(GOOD, "--parity-report=r.json").assert_outcomes(passed=1)
        assert (pytester.path / "r.json").is_symlink()
        assert real.stat().st_mode & 0o777 == 0o600
        assert json.loads(real.read_text())["verdict"] == "PASS"


def test_two_checks_in_a_test_have_names_of_their_own(suite, pytester):
    suite(
        "def test_two(assert_parity):\n" + 2 * "    assert_parity(right, 'golden/rnn.npz')\n", "--parity-report=r.xml"
    )
    names = re.findall(r'testcase name="([^"]*)"', (pytester.path / "r.xml").read_text())
    assert len(set(names)) == 2


def test_an_interruption_keeps_the_results(suite, pytester):
    twice = GOOD.replace("def test_good", "def test_slow").rstrip()
    slow = f"{twice}; import time; print('now'); time.sleep(60)\n"
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
    told = read(pytester)
    assert told["incomplete"].startswith("the run was interrupted")
    assert [case["verdict"] for case in told["cases"]] == ["PASS", "PASS"]


def test_it_costs_nothing_to_others(pytester):
    pytester.makepyfile(
        test_other="""
import sys

def test_other():
    heavy = {"numpy", "keras", "tensorflow", "click", "rich", "rnn_scratch", "parity.api", "parity.cases.case"}
    assert not heavy & set(sys.modules)
    assert "parity.pytest_plugin" in sys.modules
"""
    )
    done = pytester.runpytest_subprocess("-p", "no:hypothesispytest")
    done.assert_outcomes(passed=1)
