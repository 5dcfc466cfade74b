"""Here so that the working tree is what the tests import, and so that TensorFlow starts quietly and behind Keras."""

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever ~/.keras/keras.json says
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(autouse=True)
def no_pairs_of_mistakes(monkeypatch, request):
    """Looking for pairs takes its time at every FAIL; the tests of it ask for it."""
    if "pairs" not in request.keywords:
        monkeypatch.setattr("parity.diagnosis.SECONDS", 0.0)
