"""PyTorch modules as candidates: however their forward takes a state, and whatever it returns."""

import keras
import numpy as np
import pytest

import parity
from parity.errors import CandidateError
from parity.given.candidate import as_candidate
from parity.ports.layouts import LAYOUTS, pack
from parity.ports.packing import packed

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.backends  # where CI has torch


@pytest.fixture(scope="module", params=["LSTM", "GRU"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def layer(kind):
    made = getattr(keras.layers, kind)(6, return_sequences=True, name="layer")
    made.build((None, 7, 5))
    rng = np.random.default_rng(0)
    made.set_weights([rng.standard_normal(weight.shape) / 2 for weight in made.get_weights()])
    return made


@pytest.fixture(scope="module")
def rnn(layer, kind):
    made = getattr(nn, kind)(5, 6, batch_first=True)
    arrays = pack(parity.from_keras(layer).cell, LAYOUTS["torch"])
    made.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    return made


class Port(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn


class Required(Port):
    def forward(self, x, hx):
        return self.rnn(x, hx)[0]


class Optional(Port):
    def forward(self, x, h0=None):
        return self.rnn(x, h0)


class Separate(Port):
    def forward(self, x, h0=None, c0=None):
        return self.rnn(x, h0 if c0 is None else (h0, c0))


class Flat(Port):
    """Takes the states as (batch, units), as Keras has them."""

    def forward(self, x, state=None):
        if state is None:
            return self.rnn(x)[0]
        several = isinstance(state, tuple)
        if (state[0] if several else state).ndim != 2:
            raise ValueError("expected (batch, units)")
        return self.rnn(x, tuple(part[None] for part in state) if several else state[None])[0]


class Named(Port):
    def forward(self, x):
        return {"layer": self.rnn(x)}


class Ignores(Port):
    def forward(self, x, hx=None):
        return self.rnn(x)[0]


class Stacked(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.drop = rnn, nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.rnn(x)[0])


@pytest.mark.parametrize("port", [Required, Optional, Separate, Flat])
def test_the_states_that_a_module_takes(layer, rnn, port, tmp_path):
    parity.record(layer, str(tmp_path / "golden.npz"), input_shape=(7, 5))
    for against in (layer, str(tmp_path / "golden.npz")):
        report = parity.check(port(rnn), against)
        assert report.verdict == "PASS", str(report)
        assert not any("initial" in told for told in report.not_asked)


def test_a_state_that_is_ignored(layer, rnn):
    assert parity.check(Ignores(rnn), layer).verdict == "FAIL"


def test_a_module_that_returns_its_layers(layer, rnn):
    report = parity.check(Named(rnn), layer, input_shape=(7, 5))
    assert report.verdict == "PASS", str(report)

    class Other(Port):
        def forward(self, x):
            return {"other": self.rnn(x)[0]}

    with pytest.raises(CandidateError, match="other: no such layer; the model has layer"):
        parity.check(Other(rnn), layer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript(layer, rnn):
    """Scripted and traced; PyTorch's own layer, scripted, has no forward that could be called."""
    port = Stacked(rnn)
    for made in (torch.jit.script(port), torch.jit.trace(port.eval(), torch.zeros(2, 7, 5))):
        made.train()
        report = parity.check(made, layer)
        assert report.verdict == "PASS", str(report)
        assert made.training
    with pytest.raises(CandidateError, match="no attribute 'forward'"):
        parity.check(torch.jit.script(rnn), layer)


def test_what_a_module_raises_is_that_of_the_first_try(layer, rnn):
    class Raises(Port):
        def forward(self, x, hx):
            raise ValueError(f"{hx[0].shape if isinstance(hx, tuple) else hx.shape}")

    with pytest.raises(CandidateError, match=r"ValueError: torch.Size\(\[4, 6\]\)"):
        parity.check(Raises(rnn), layer)


def test_a_class_that_needs_arguments_is_no_candidate(rnn):
    with pytest.raises(CandidateError, match=r"Stacked\(\) raised TypeError.*make an object of it"):
        as_candidate(Stacked)


def test_a_file_of_a_state_dict(tmp_path, layer):
    arrays = {name: torch.tensor(array) for name, array in packed(parity.from_keras(layer), LAYOUTS["torch"]).items()}
    for name, saved in {"a.pt": arrays, "b.pth": {"state_dict": arrays, "epoch": 3}}.items():
        torch.save(saved, tmp_path / name)
        assert parity.check(str(tmp_path / name), layer, input_shape=(7, 5)).verdict == "PASS"
    first = next(iter(arrays))
    torch.save({**arrays, first: arrays[first] + 1}, tmp_path / "wrong.pt")
    assert parity.check(str(tmp_path / "wrong.pt"), layer, input_shape=(7, 5)).verdict == "FAIL"
    torch.save(torch.nn.RNN(2, 3), tmp_path / "module.pt")
    with pytest.raises(parity.CandidateError, match="it holds more than weights"):
        parity.check(str(tmp_path / "module.pt"), layer)
