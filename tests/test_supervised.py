"""The command as a process: what a candidate does to it, what is left of it, what a shell does with it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from zoo import make_layer

import parity
from parity import cli

ROOT = Path(__file__).parent.parent
MINE = """
import os, signal, subprocess, sys, threading, time

def right(x, layer): return layer(x)
def leaves(x, layer): os._exit(0)
def dies(x, layer): os.kill(os.getpid(), signal.SIGKILL)
def becomes(x, layer): os.execvp("true", ["true"])

def leaves_a_child(x, layer):
    if os.fork():
        os._exit(0)
    time.sleep(60)

def goes_on(x, layer):
    threading.Thread(target=time.sleep, args=(60,)).start()
    return layer(x)

def daemon(x, layer):
    if not os.path.exists("pid"):
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        open("pid", "w").write(str(child.pid))
    return layer(x)

def waits(x, layer):
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    layer = make_layer(return_sequences=True)
    parity.record(parity.to_keras(layer), str(tmp_path / "g.npz"), input_shape=(5, layer.input_dim), cases=())
    return tmp_path


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
ASK = '"$PYTHON" -m parity check g.npz --candidate mine.py:'


def shell(folder, line):
    """The status and both streams."""
    settings = {"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 50}
    done = subprocess.run(["bash", "-c", line], **settings)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [("leaves", "status 0"), ("dies", "by SIGKILL"), ("becomes", "status 0"), ("leaves_a_child", "status 0")],
)
def test_a_candidate_that_ends_its_process_is_an_error(folder, name, said):
    status, out, err = shell(folder, f"{ASK}{name} --json r.json")
    assert (status, out) == (2, "")
    assert err == f"ERROR  the process of the check ended with {said} before there was a verdict\n".replace(
        "with by", "by"
    )
    assert json.loads((folder / "r.json").read_text())["verdict"] == "ERROR"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["g.npz", "mine.py", "r.json"]


def test_neither_a_thread_nor_a_child_outlives_the_command(folder):
    assert shell(folder, f"{ASK}goes_on")[0] == 0
    assert shell(folder, f"{ASK}daemon")[0] == 0
    if sys.platform == "linux":
        assert not Path(f"/proc/{(folder / 'pid').read_text()}").exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_is_an_interruption(folder, number):
    command = [sys.executable, "-m", "parity", "check", "g.npz", "--candidate", "mine.py:waits", "--json", "r.json"]
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "here\n"
    started = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (2, "ERROR  interrupted")
    assert time.monotonic() - started < 20
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".r.json")]


def test_streams(folder):
    status, out, err = shell(folder, f"{ASK}right --json -")
    assert (status, json.loads(out)["verdict"], err[:4]) == (0, "PASS", "PASS")
    assert not (folder / "-").exists()
    status, _, err = shell(folder, f"set -o pipefail; {ASK}right | true")
    assert (status, err) == (0, "")
    status, _, err = shell(folder, f"{ASK}right --json - --html -")
    assert (status, "standard output (-) is given to another option" in err) == (2, True)
    if Path("/dev/full").exists():
        status, _, err = shell(folder, f"{ASK}right > /dev/full")
        assert (status, err) == (2, "ERROR  the system: No space left on device\n")


def test_what_the_shell_is_told(folder):
    status, out, err = shell(folder, '"$PYTHON" -m parity')
    assert (status, err) == (0, "")
    assert "check " in out
    script = "import sys; sys.argv[0] = 'parity'; from parity.cli import main; main()"
    status, out, _ = shell(folder, f'_PARITY_COMPLETE=bash_source "$PYTHON" -c "{script}"')
    assert (status, "_PARITY_COMPLETE=bash_complete" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "among"),
    [
        ("check --layer l", "lstm"),
        ("check --layer gru,si", "gru,simple_rnn"),
        ("check --only-mistake gate-order-", "gate-order-icfo"),
        ("port m.keras --to o", "onnx"),
        ("port m.keras --layout kera", "keras"),
        ("score --layer st", "stack"),
    ],
)
def test_values_are_completed(words, among):
    complete = ShellComplete(cli.cli, {}, "parity", "_PARITY_COMPLETE")
    *before, incomplete = words.split()
    assert among in [item.value for item in complete.get_completions(before, incomplete)]


@pytest.mark.parametrize("words", ["check m", "check --candidate m", "check --json m", "record m", "port x -o m"])
def test_files_are_completed(words):
    complete = ShellComplete(cli.cli, {}, "parity", "_PARITY_COMPLETE")
    *before, incomplete = words.split()
    assert [item.type for item in complete.get_completions(before, incomplete)] == ["file"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('mkfifo f.npz; "$PYTHON" -m parity check f.npz', "f.npz: cannot be read: expected a file"),
        ('mkfifo f.toml; "$PYTHON" -m parity check f.toml', "f.toml: cannot be read: expected a file"),
        ('mkfifo f.keras; "$PYTHON" -m parity check f.keras', "f.keras: expected a file; it is a pipe"),
        (f"{ASK}right --outputs /dev/zero".replace("--candidate mine.py:right", ""), "it is a pipe or a device"),
        ('printf "a = %s" $(printf "[%.0s" {1..3000}) > d.toml; "$PYTHON" -m parity check d.toml', "expected TOML"),
        ('mkdir d; touch d/saved_model.pb; "$PYTHON" -m parity check d', "a SavedModel folder"),
    ],
)
def test_what_is_no_file_is_one_line(folder, line, said):
    status, _, err = shell(folder, line)
    assert (status, err.count("\n")) == (2, 1)
    assert said in err
