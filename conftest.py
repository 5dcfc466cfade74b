"""Here so that the working tree is what the tests import, and so that TensorFlow starts quietly and behind Keras."""

import os
import signal

import pytest

pytest_plugins = ["pytester"]

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever ~/.keras/keras.json says
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; the tests interrupt what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup, which what the tests start would inherit
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def nothing_far_out(monkeypatch, request):
    """Questions far out take as long as all others; the tests of them, and of what must not be accused, ask them."""
    if "far_out" not in request.keywords:
        monkeypatch.setattr("parity.checking.asking.far_out", lambda *_: iter(()))
        monkeypatch.setattr("parity.recording.far_out", lambda *_: iter(()))


@pytest.fixture(autouse=True)
def little_time_for_a_fail(monkeypatch, request):
    """Pairs of mistakes and the smallest case take their time at every FAIL; the tests of them ask for it."""
    if "pairs" not in request.keywords:
        monkeypatch.setattr("parity.explaining.causes.SECONDS", 0.0)
        monkeypatch.setattr("parity.explaining.smallest.SECONDS", 0.05)
