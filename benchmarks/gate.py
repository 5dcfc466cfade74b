"""What do the gate and the plugin cost? `python benchmarks/gate.py` prints the figures.

The gate on 20 golden checks, from a cold start; and what the plugin adds to `pytest --collect-only` of a suite that
does not use it, in paired runs.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from parity import record, to_keras
from rnn_scratch import LSTM

PORT = "def right(x, layer):\n    return layer(x)\n"
PAIRS = 20


def seconds(command: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def gate() -> str:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "port.py").write_text(PORT)
        layer = LSTM(
            *(rng.standard_normal(n).astype("f") / 4 for n in ((128, 8), (128, 32), 128)), return_sequences=True
        )
        checks = []
        for n in range(20):
            record(to_keras(layer), str(Path(folder, f"{n}.npz")), input_shape=(20, 8), seed=n)
            checks.append(f'[[check]]\nmodel = "{n}.npz"\ncandidate = "port.py:right"\n')
        Path(folder, "parity.toml").write_text("\n".join(checks))
        times = [seconds([sys.executable, "-m", "parity", "check", "parity.toml"], folder) for _ in range(3)]
    return f"the gate on 20 golden checks of an LSTM of 32 units: {min(times):.2f} s (best of 3)"


def plugin() -> str:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_other.py").write_text("def test_other():\n    pass\n")
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        without = [*command, "-p", "no:parity"]
        pairs = [(seconds(command, folder), seconds(without, folder)) for _ in range(PAIRS)]
    added = statistics.median(a - b for a, b in pairs)
    return f"the plugin adds {1e3 * added:.1f} ms to `pytest --collect-only` (median of {PAIRS} pairs)"


if __name__ == "__main__":
    print(gate())
    print(plugin())
