"""A kind of layer is one file: what it registers is found everywhere, and what it does not is refused by its name."""

import copy
import functools
import subprocess
import sys

import keras
import numpy as np
import pytest

import parity
from parity import UnsupportedError
from parity.golden.layers import describe, rebuild
from parity.kinds import registry
from parity.kinds.cells import ELSEWHERE
from rnn_scratch import LSTM, Dense, Embedding, Sequential, TimeDistributed
from rnn_scratch.base import Layer
from rnn_scratch.cells import CELLS, LSTMCell

OPEN = {name: value for name, value in vars(registry).items() if isinstance(value, registry.Open)}
TABLES = {name: value for name, value in vars(registry).items() if isinstance(value, registry.Table)}


class Scale(Layer):
    """A kind that nobody has a file for: y = s x."""

    kind = "scale"
    arrays = ("s",)

    def __init__(self, s, name=None):
        super().__init__(name, s.dtype)
        self.s = s

    def forward(self, x, mask, states):
        return x * self.s, ()

    def replace(self, **weights):
        return type(self)(**{"s": self.s, **weights}, name=self.name)

    @property
    def units(self):
        return len(self.s)


@pytest.fixture
def scale():
    return Scale(np.array([1, 2, 3], "f"))


def dense(units=3, features=3):
    return Dense(np.ones((units, features), "f"), np.zeros(units, "f"))


# --- refused by name ---


@pytest.mark.parametrize("name", OPEN)
def test_what_nobody_registered_is_refused_by_name(name, scale):
    with pytest.raises(UnsupportedError, match=f"scale: {name}: .*Scale"):
        OPEN[name](scale)


@pytest.mark.parametrize("name", TABLES)
def test_a_name_that_nobody_registered_is_refused(name):
    with pytest.raises(UnsupportedError, match=f"Nobody: {TABLES[name].name}"):
        TABLES[name]["Nobody"]
    assert "Nobody" not in TABLES[name]


@pytest.mark.parametrize("name", ["make", "fill"])
def test_a_subclass_does_not_go_to_keras_as_its_base(name):
    """It may compute anything."""

    class Doubled(Dense):
        pass

    layer = Doubled(np.ones((2, 3), "f"))
    with pytest.raises(UnsupportedError, match=f"dense: {name}: .*Doubled"):
        OPEN[name](layer, keras, {})
    assert OPEN[name].knows(dense())
    with pytest.raises(UnsupportedError, match="received Doubled"):
        parity.to_keras(Sequential([dense(), layer]))


@pytest.mark.parametrize("name", ["describe", "draw"])
def test_a_subclass_is_described_and_drawn_as_its_base(name):
    class Doubled(Dense):
        pass

    assert OPEN[name].knows(Doubled(np.ones((2, 3), "f")))


@pytest.mark.parametrize("wrap", [lambda layer: layer, lambda layer: Sequential([layer]), TimeDistributed])
def test_to_keras_refuses_wherever_it_stands(scale, wrap):
    with pytest.raises(UnsupportedError, match=r"received Scale|scale: make"):
        parity.to_keras(wrap(scale))


def test_a_layer_around_somebody_elses_cell_does_not_go_to_keras():
    class Bare(LSTMCell):
        pass

    layer = LSTM(np.ones((8, 3), "f"), np.ones((8, 2), "f"))
    assert type(parity.to_keras(layer)).__name__ == "LSTM"
    wrong = copy.copy(layer)
    wrong.cell = Bare(layer.Wx, layer.Wh, layer.b)
    with pytest.raises(UnsupportedError, match=r"lstm: .* a cell of rnn_scratch; received Bare"):
        parity.to_keras(wrong)


# --- one file suffices ---


@pytest.fixture
def known(monkeypatch):
    """What a file kinds/scale.py would register."""

    def take(layer, convert):
        return Scale(np.ones(3, "f"))

    monkeypatch.setitem(registry.take._texts, "Scale", take)
    monkeypatch.setitem(registry.rebuild._texts, "scale", lambda described, weights, parts: Scale(weights["s"]))
    for function in (registry.describe, registry.draw):
        monkeypatch.setattr(function, "_texts", copy_of(function))
    registry.describe.register(Scale)(lambda layer: {})
    registry.draw.register(Scale)(lambda layer, rng, distribution: {"s": 1 + rng.random(3)})


def copy_of(function):
    twin = functools.singledispatch(function._refusal)
    for kind, text in function._texts.registry.items():
        if kind is not object:
            twin.register(kind, text)
    return twin


def test_a_kind_is_found_once_it_is_registered(known, scale):
    assert registry.covered().endswith(", Scale, and Sequential or functional models of these one after another")
    model = Sequential([scale, dense()])
    again = rebuild(describe(model), model.weights)
    assert np.array_equal(again.weights["scale.s"], scale.s)
    x = np.ones((1, 2, 3), "f")
    assert np.array_equal(again(x), model(x))


# --- what stands there ---


def test_every_cell_has_its_names():
    assert ELSEWHERE.keys() == CELLS.keys()
    for cell, names in ELSEWHERE.items():
        assert registry.cell[f"{names.keras}Cell"] is CELLS[cell]
        assert names.keras in registry.take
        assert f"{names.keras}Cell" in registry.example


def test_what_is_covered_stands_in_one_order_whatever_was_imported_first():
    code = "import parity.kinds.{}; from parity.kinds import registry; print(registry.covered(), registry.make.kinds)"
    said = {
        subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True).stdout
        for first in ("registry", "dropout", "bare_cell")
    }
    assert len(said) == 1
    assert said.pop().startswith("SimpleRNN, LSTM, GRU, RNN, SimpleRNNCell, LSTMCell, GRUCell, Bidirectional, ")


def test_tables_of_embeddings_are_drawn_as_such():
    table = registry.draw(Embedding(np.zeros((400, 3), "f")), np.random.default_rng(0), "keras")["E"]
    assert 0.04 < np.abs(table).max() <= 0.05
