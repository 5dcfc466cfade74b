"""Every command in the README and in docs/ is run; what is made from the code is what the code makes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import parity
from parity import cli, gate
from parity.ports import formats as ports

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
OTHERS = ("pip ", "pytest", "ruff ", "mypy", "python -m parity.", "python benchmarks/", "git ")
"""What begins the commands that CI, other tests or `python benchmarks/...` run."""

SLOW = {"parity check": "parity check --units 3 --batch 2 --timesteps 3", "parity score": None}


def commands():
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
            for line in block.splitlines():
                command = line.partition("  #")[0].strip()
                for part in command.split(" && "):
                    if part and not part.startswith((*OTHERS, "#")):
                        yield pytest.param(part, id=f"{page.name}: {part[:70]}")


MINE = (
    re.search(r"```python\n# mine.py\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    + """

def lstm(x, layer):
    return layer(x)
"""
)
PORT = "import parity, keras\nmodel = parity.from_keras(keras.saving.load_model('model.keras'))\n"
PROGRAM = """#!{python}
import sys
import numpy as np
x, layer = np.load(sys.argv[1]), np.load({weights!r})
h, hs = np.zeros((len(x), 8), "f"), []
for t in range(x.shape[1]):
    h = np.tanh(x[:, t] @ layer["Wx"].T + h @ layer["Wh"].T + layer["b"])
    hs.append(h)
np.save(sys.argv[2], np.stack(hs, axis=1))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the commands speak of."""
    folder = tmp_path_factory.mktemp("docs")
    model = keras.Sequential([keras.Input((10, 4)), keras.layers.SimpleRNN(8, return_sequences=True)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) / 2 for w in model.get_weights()])
    model.save(folder / "model.keras")
    scratch = parity.from_keras(model)
    x = np.random.default_rng(1).standard_normal((3, 10, 4)).astype("f")
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", scratch(x))
    golden = parity.record(model, str(folder / "golden.npz"))
    np.save(folder / "mine.npy", scratch(golden.cases[0].x))
    for name in ("golden", "case"):
        (folder / f"{name}.npz").write_bytes((folder / "golden.npz").read_bytes())
    for to, name in (("onnx", "model.onnx"), ("safetensors", "weights.safetensors")):
        (folder / name).write_bytes(ports.write(scratch, to).data)
    import tensorflow as tf

    fixed = keras.Input((10, 4), batch_size=1)
    data = tf.lite.TFLiteConverter.from_keras_model(keras.Model(fixed, model(fixed))).convert()
    (folder / "model.tflite").write_bytes(data)
    (folder / "mine.py").write_text(MINE)
    (folder / "port.py").write_text(PORT)
    weights = folder / "weights.npz"
    np.savez(weights, **scratch.weights)
    (folder / "rnn").write_text(PROGRAM.format(python=sys.executable, weights=str(weights)))
    (folder / "rnn").chmod(0o755)
    gate = '[[check]]\nmodel = "golden.npz"\ncandidate = "cmd:./rnn {inputs} {outputs}"\n'
    (folder / "parity.toml").write_text(gate)
    return folder


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_in_the_docs(folder, monkeypatch, capsys, command):
    """It does what it says: PASS, or FAIL of the README's own wrong port; never an error."""
    monkeypatch.chdir(folder)
    settings = re.match(r"(?:[A-Z_]+=\w+ )*", command)[0]
    command = SLOW.get(command.removeprefix(settings), command.removeprefix(settings))
    if command is None or settings or "..." in command:
        pytest.skip("run elsewhere")
    if command.startswith("parity check --candidate"):
        command += " --units 3 --batch 2 --timesteps 3"
    assert command.startswith("parity "), command
    if "--to torch" in command:
        pytest.importorskip("torch")
    if command.startswith("parity port") and "-o" not in command and not (folder / "model.onnx.json").exists():
        (folder / "model.onnx").unlink(missing_ok=True)  # which is no port, and would not be replaced
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert (captured.err, ended.value.code in ((0, 1) if "mine.py:forward" in command else (0,))) == ("", True), (
        captured.out + captured.err
    )


LSTM = """#!{python}
import sys
import numpy as np
sys.path.insert(0, {root!r})
from parity.golden import file as files
np.save(sys.argv[2], files.load("golden/lstm.npz").cases[0].layer(np.load(sys.argv[1])))
"""


def test_the_gates_example(tmp_path):
    """As it stands in docs/ci.md: every check passes, strictly, and each allowance is needed."""
    for name in ("golden", "device"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((4, 10, 4)), np.arange(10) < np.array([[10], [7], [4], [1]])
    for layer in (keras.layers.LSTM(8), keras.layers.GRU(8, return_sequences=True)):
        layer.build((None, 10, 4))
        layer.set_weights([rng.standard_normal(w.shape) / 2 for w in layer.get_weights()])
        masked = {"mask": mask} if isinstance(layer, keras.layers.GRU) else {}
        parity.record(layer, str(tmp_path / "golden" / f"{layer.name.partition('_')[0]}.npz"), x, **masked)
    np.save(tmp_path / "device" / "gru.npy", np.asarray(layer(x.astype("f"), mask=mask)))
    (tmp_path / "lstm").write_text(LSTM.format(python=sys.executable, root=str(ROOT)))
    (tmp_path / "lstm").chmod(0o755)
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.S)[1]
    (tmp_path / "parity.toml").write_text(text)
    reports = [gate.judge(check) for check in gate.read(str(tmp_path / "parity.toml"))]
    assert [report.verdict for report in reports] == ["PASS", "PASS"]
    assert len(reports[1].known) == text.count("[[check.allow]]")
    assert all(line.startswith("allowed not to be visible: ") for line in reports[1].known), reports[1].known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_pages_made_from_the_code():
    for module, name in (("parity.ports.layouts", "porting"), ("parity.mistakes", "mistakes")):
        made = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=True, cwd=ROOT)
        assert (ROOT / "docs" / f"{name}.md").read_text() == made.stdout, f"python -m {module} > docs/{name}.md"
