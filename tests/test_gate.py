"""The gate: every check of a repository in one file."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from zoo import make_layer

import parity
from parity import cli, gate, options
from parity.errors import InputError
from parity.explaining.blind_spots import Adequacy
from parity.report.data import Blind, CaseReport, Cause, Report
from parity.report.merging import merged

ROOT = Path(__file__).parent.parent
PORT = r"""
import os, signal, time

def right(x, layer):
    return layer(x)

def wrong(x, layer):
    return layer.replace(Wx=layer.Wx, Wh=layer.Wh.T, b=layer.b)(x)

def unbiased(x, layer):
    return layer.replace(Wx=layer.Wx, Wh=layer.Wh, b=0 * layer.b)(x)

def dies(x, layer):
    os.kill(os.getpid(), signal.SIGKILL)

def leaves(x, layer):
    os._exit(0)

def leaves_a_child(x, layer):
    if os.fork():
        os._exit(3)
    time.sleep(20)

def interrupts(x, layer):
    raise KeyboardInterrupt

class Odd(BaseException):
    pass

def odd(x, layer):
    raise Odd("two\nlines")

def slow(x, layer):
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a gate")
    (folder / "port.py").write_text(PORT)
    layer = make_layer(return_sequences=True)
    zero = layer.replace(Wx=layer.Wx, Wh=layer.Wh, b=0 * layer.b)
    for name, made in (("golden", layer), ("zero", zero)):
        golden = parity.record(parity.to_keras(made), str(folder / f"{name}.npz"), input_shape=(5, made.input_dim))
        np.save(folder / f"{name}.npy", made(golden.cases[0].x))
    x = golden.cases[0].x
    np.save(folder / "x.npy", x)
    return folder


def written(folder, text, name="parity.toml"):
    path = folder / name
    path.write_text(text)
    return str(path)


def checks(*candidates, model="golden.npz", rest=""):
    return "\n".join(
        f'[[check]]\nname = "{n} {candidate}"\nmodel = "{model}"\ncandidate = "port.py:{candidate}"\n{rest}'
        for n, candidate in enumerate(candidates)
    )


def together(path):
    return gate.together(gate.run(gate.read(path)))


@pytest.mark.parametrize("number", [2, 5])  # in one process, and in several
def test_right_and_wrong(folder, number):
    assert together(written(folder, checks(*["right"] * number))).verdict == "PASS"
    reports = gate.run(gate.read(written(folder, checks(*["right"] * (number - 1), "wrong"))))
    assert [report.verdict for _, report in reports] == ["PASS"] * (number - 1) + ["FAIL"]
    report = gate.together(reports)
    assert report.verdict == "FAIL"
    assert [cause.id for cause in report.causes] == ["recurrent-kernel-not-transposed"]
    assert report.counts["cases"] == number
    assert len({case.id for case in report.cases}) == number


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (("PASS", "PASS"), 0),
        (("PASS", "INCONCLUSIVE"), 3),
        (("INCONCLUSIVE", "FAIL"), 1),
        (("INCONCLUSIVE", "ERROR"), 2),
        (("FAIL", "ERROR", "INCONCLUSIVE", "PASS"), 2),
    ],
)
def test_the_status_is_that_of_the_worst(verdicts, status):
    reports = [(str(n), Report((CaseReport("a", verdict),))) for n, verdict in enumerate(verdicts)]
    assert merged(reports).exit_status == status


def test_outputs_and_options(folder):
    text = '[[check]]\nmodel = "golden.npz"\noutputs = "golden.npy"\nseed = 3\nrtol = 1e-6\n'
    report = together(written(folder, text))
    assert (report.verdict, report.cases[0].proved) == ("PASS", False)
    assert together(written(folder, text.replace("golden.npy", "zero.npy"))).verdict == "FAIL"


@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ("dies", "its process ended by SIGKILL"),
        ("leaves", "its process ended with status 0"),
        ("leaves_a_child", "its process ended with status 3"),
        ("interrupts", "its process ended with status 130"),
        ("odd", "raised Odd: two lines"),
    ],
)
def test_what_a_candidate_does_to_its_process_is_its_own_checks_error(folder, candidate, said, number):
    report = together(written(folder, checks(candidate, *["right"] * (number - 1))))
    assert report.verdict == "ERROR"
    assert [case.verdict for case in report.cases] == ["ERROR"] + ["PASS"] * (number - 1)
    assert report.cases[0].notes == (f"check: {said}",)


def test_a_function_without_an_end_is_stopped(folder, monkeypatch):
    monkeypatch.setattr(gate, "QUESTIONS", 2)
    late, never = gate.run(gate.read(written(folder, checks("right", "slow", rest="timeout = 2.0\n"))))
    assert late[1].verdict == "PASS"
    assert never[1].cases[0].notes == ("check: had no end after 4 s",)


@pytest.mark.parametrize(
    ("candidate", "seconds"),
    [("port.py:right", 100), ("cmd:./rnn {inputs} {outputs}", math.inf), ("model.onnx", math.inf), (None, math.inf)],
)
def test_the_limit_of_a_check(candidate, seconds):
    check = gate.Check("a", ".", "m.npz", candidate, options={"timeout": 2.0})
    assert gate.limit(check) == seconds
    assert gate.limit(replace(check, options={})) == math.inf


def test_few_checks_few_processes(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    golden, model = gate.Check("a", ".", "m.npz"), gate.Check("b", ".", "m.keras")
    assert [gate.processes([golden] * n) for n in (1, 3, 4, 20, 99)] == [1, 1, 2, 7, 8]
    assert [gate.processes([model] * n) for n in (1, 2, 20)] == [1, 2, 8]


def test_an_error_is_one_checks_own(folder):
    text = checks("right", "nothing_there") + '\n[[check]]\nmodel = "none.npz"\ncandidate = "port.py:right"\n'
    verdicts = [report.verdict for _, report in gate.run(gate.read(written(folder, text)))]
    assert verdicts == ["PASS", "ERROR", "ERROR"]


ALLOW = '[[check.allow]]\nmistake = "{}"\nreason = "a test"\n'


def judged(folder, text):
    """The only check of a file, judged here."""
    (check,) = gate.read(written(folder, text))
    return gate.judge(check)


def blind(monkeypatch, *ids, visible=(), same=False):
    from parity.checking import conclusions

    found = tuple(Blind(name, "what it does", same=same) for name in ids)
    monkeypatch.setattr(conclusions, "adequacy", lambda *a: Adequacy(found, tuple(visible)))


def test_allowed_blind_spots(folder, monkeypatch):
    blind(monkeypatch, "bias-missing")
    strict = checks("right", rest="strict = true\n")
    assert judged(folder, strict).verdict == "INCONCLUSIVE"
    report = judged(folder, strict + ALLOW.format("bias-missing"))
    assert report.verdict == "PASS"
    assert "allowed not to be visible: bias-missing (a test)" in report.known
    for found, said in (
        ({"visible": ["bias-missing"]}, "allowed, but visible here: bias-missing; take it out of the file"),
        ({}, "allowed, but not looked for here: bias-missing; it does not apply to this layer, or to what was asked"),
    ):
        blind(monkeypatch, **found)
        assert judged(folder, strict + ALLOW.format("bias-missing")).known == (said,)
    blind(monkeypatch, "bias-missing", same=True)
    (said,) = judged(folder, strict + ALLOW.format("bias-missing")).known
    assert said == "allowed, but no difference with these weights: bias-missing; it needs no allowance"


def test_allowances_as_they_are(folder):
    allow = "".join(map(ALLOW.format, ("bias-missing", "peepholes-added")))
    report = judged(folder, checks("right") + allow)
    assert [line.partition(": ")[0] for line in report.known] == [
        "allowed, but visible here",
        "allowed, but not looked for here",
    ]
    (line,) = judged(folder, checks("right", model="zero.npz") + ALLOW.format("bias-missing")).known
    assert line.startswith("allowed, but no difference")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"expected at least one \[\[check\]\]"),
        ("check = 3", r"expected at least one \[\[check\]\]"),
        ("[[check]", "expected TOML"),
        ("[[chek]]\n", "chek: no such name; did you mean check"),
        ('[[check]]\ncandidate = "a"', "check 1: model: expected a golden file"),
        (checks("right", rest="tolerance = 1\n"), "check 1: tolerance: no such name"),
        (checks("right", rest="strct = true\n"), "did you mean strict"),
        (checks("right", rest="atol = nan\n"), "atol: expected a finite number"),
        (checks("right", rest="rtol = -1.0\n"), "rtol: expected a finite number"),
        (checks("right", rest="atol = inf\n"), "atol: expected a finite number"),
        (checks("right", rest="timeout = 0\n"), "timeout: expected a finite number, more than 0"),
        (checks("right", rest='strict = "yes"\n'), "strict: expected true or false"),
        (checks("right", rest="seed = 1.5\n"), "seed: expected an integer"),
        (checks("right", rest='outputs = "a.npy"\n'), "candidate and outputs: expected one of them"),
        (checks("right").replace("0 right", "a") + checks("right").replace("0 right", "a"), "'a' stands twice"),
        (checks("right") + '[[check.allow]]\nmistake = "bias-missing"\n', "the reason why"),
        (checks("right", rest='only_mistake = "bias-mising"\n'), "check 1: only_mistake: no mistake has the id"),
        (checks("right") + ALLOW.format("bias-mising"), "did you mean bias-missing"),
        (checks("right") + ALLOW.replace("reason", "because").format("bias-missing"), "because: no such name"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, text, said):
    with pytest.raises(InputError, match=said) as refused:
        gate.read(written(folder, text))
    assert "\n" not in str(refused.value)


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["parity", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_the_command(folder, monkeypatch, capsys):
    path = written(folder, checks("right", "unbiased"))
    status, out, err = run(
        monkeypatch,
        capsys,
        "check",
        path,
        "--json",
        folder / "r.json",
        "--junit",
        folder / "r.xml",
        "--markdown",
        folder / "r.md",
    )
    assert (status, err) == (1, "")
    assert "1 unbiased" in out
    assert "bias-missing" in out
    told = json.loads((folder / "r.json").read_text())
    assert [case["verdict"] for case in told["cases"]] == ["PASS", "FAIL"]
    assert [case["command"].rpartition("parity check ")[2] for case in told["cases"]] == [
        f"golden.npz --candidate port.py:{name}" for name in ("right", "unbiased")
    ]
    assert "1 unbiased" in (folder / "r.xml").read_text()
    assert "bias-missing" in (folder / "r.md").read_text()
    assert run(monkeypatch, capsys, "check", written(folder, checks("right")))[0] == 0
    for more, said in (
        (("--candidate", "a.py:b"), "--candidate"),
        (("--units", "3"), "--units"),
        (("--strict",), "--strict: expected none beside a file of checks"),
        (("--save-failure", "f.npz"), "--save-failure: expected none beside"),
        (("--input-shape", "3,4"), "--input-shape: expected none beside"),
        (("--json", path), "it is that of MODEL"),
        (("--html", "/nowhere/r.html"), "cannot be written"),
    ):
        status, _, err = run(monkeypatch, capsys, "check", path, *more)
        assert (status, len(err.splitlines())) == (2, 1)
        assert said in err


def ends(group):
    """Whether nothing is left of a group of processes; multiprocessing's own tracker takes a moment."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("candidates", [("right", "slow"), ("right", "right", "right", "slow", "slow")])
def test_an_interruption_keeps_what_there_is(folder, candidates):
    path = written(folder, checks(*candidates), "interrupted.toml")
    command = [sys.executable, "-m", "parity", "check", path, "--json", str(folder / "i.json")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(8)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert ends(process.pid)
    assert process.returncode == 2
    assert "interrupted" in out
    told = json.loads((folder / "i.json").read_text())
    assert told["incomplete"].startswith("interrupted: ")
    verdicts = [case["verdict"] for case in told["cases"]]
    assert len(verdicts) == len(candidates)
    assert verdicts[0] == "PASS"
    assert verdicts[-1] == "ERROR"


# --- several reports in one ---


def test_merged():
    good, bad = Report((CaseReport("a", "PASS"),)), Report((CaseReport("b", "FAIL"),))
    assert merged([("one", good), ("two", bad)]).verdict == "FAIL"
    assert merged([("one", good)]).verdict == "PASS"
    assert merged([("one", good)], incomplete="early").verdict == "ERROR"
    assert merged([]).verdict == "ERROR"
    assert [case.id for case in merged([("one", good), ("two", bad)]).cases] == ["one: a", "two: b"]


def test_what_several_reports_say_is_told_with_whose_it_is():
    def report(name, *causes):
        found = tuple(Cause(cause, "the port", "fix it", largest=largest) for cause, largest in causes)
        blind = (Blind("deaf", "it is", "zeros"),) if name == "e" else ()
        told = {"known": ("a line",), "smallest": f"small {name}", "command": f"repeat {name}", "blind": blind}
        return name, Report((CaseReport(name, "FAIL" if causes else "PASS"),), (), causes=found, **told)

    one, two = ("swapped", 0.1), ("missing", 0.2)
    found = merged(
        [report("a", one), report("b", ("swapped", 0.3), two), report("c", one), report("d", one), report("e")]
    )
    assert [(c.id, c.within, c.largest) for c in found.causes] == [
        ("swapped", "a, b and 2 more", 0.3),
        ("missing", "b", 0.2),
    ]
    assert found.known == ("a, b and 3 more: a line",)
    assert [(blind.id, blind.within) for blind in found.blind] == [("deaf", "e")]
    assert "not visible in this check: deaf (zeros, in e)" in str(found)
    assert found.smallest == "a: small a"
    assert [case.command for case in found.cases] == [f"repeat {name}" for name in "abcde"]
    assert "cause: missing: the port" in found.cases[1].explained[2]
    assert found.cases[4].explained == ()


def test_the_command_that_repeats_a_check(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    options = {"seed": 1, "rtol": 1.0, "strict": True}
    check = gate.Check("a", str(folder), "golden.npz", "port.py:right", options=options)
    again = "KERAS_BACKEND=jax parity check golden.npz --candidate port.py:right --seed 1 --rtol 1.0 --strict"
    assert check.command == f"cd '{os.path.relpath(folder)}' && {again}"
    monkeypatch.chdir(folder)
    assert check.command == again


def test_options_are_defined_once():
    for option in options.OPTIONS:
        if option.default is not None:
            assert option.checked(option.default, "") == option.default
    for value in (math.nan, math.inf, -1.0, "1", True):
        with pytest.raises(InputError):
            options.NAMED["atol"].checked(value, "")


# --- the action ---


@pytest.fixture
def action(folder, tmp_path):
    """The action's script as the runner runs it, with a `python` that writes down what it is to install, in a workspace
    with folders that are called as our packages are, and what an earlier run left. Returns the status."""
    text = (ROOT / "action.yml").read_text()
    script = textwrap.dedent(text.partition("      run: |\n")[2])
    commands = {
        "python": f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/installed\n',
        "parity": f"#!{sys.executable}\nfrom parity.cli import main\nif __name__ == '__main__':\n    main()\n",
    }
    for name, text in commands.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    work = tmp_path / "work"
    for name in ("parity", "rnn_scratch"):
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text("raise SystemExit(7)")
    (work / "parity.md").write_text("an earlier run's")

    def run(config, install=""):
        told = {"GITHUB_STEP_SUMMARY": "summary", "GITHUB_OUTPUT": "output"}
        environment = {name: str(tmp_path / value) for name, value in told.items()}
        environment |= {"INSTALL": install, "CONFIG": config, "GITHUB_ACTION_PATH": "/an action"}
        environment |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        command = ["bash", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=work, env={**os.environ, **environment}, check=False).returncode

    return run


@pytest.mark.parametrize(("candidate", "status"), [("right", 0), ("wrong", 1)])
def test_the_actions_script(folder, tmp_path, action, candidate, status):
    """The summary is there, red or green."""
    assert action(written(folder, checks(candidate), "$(touch gotcha).toml")) == status
    assert (tmp_path / "output").read_text() == f"status={status}\n"
    summary = (tmp_path / "summary").read_text()
    assert {0: "## PASS", 1: "## FAIL"}[status] in summary
    assert "an earlier run's" not in summary
    assert (tmp_path / "work" / "parity.xml").exists()
    assert not (tmp_path / "work" / "gotcha").exists()


@pytest.mark.parametrize(
    ("install", "packages"),
    [("", ["/an action[report]"]), ("one[a] two\nthree\n", ["one[a]", "two", "three"])],
)
def test_what_the_action_installs(folder, tmp_path, action, install, packages):
    assert action("nothing.toml", install) == 2
    assert (tmp_path / "installed").read_text().splitlines() == ["-m", "pip", "install", "--quiet", *packages]
    assert "an earlier run's" not in (tmp_path / "summary").read_text()
