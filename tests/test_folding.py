"""A port may fold a batch normalization into the layer after it, or back into the linear one before it: no correct fold
leaves the ball of the outputs behind both, and a wrong one does."""

import numpy as np
import pytest
from zoo import ORDERS

from parity.cases.case import Case
from parity.given.candidate import as_candidate
from parity.judging.judge import examine
from parity.judging.tally import Tolerance
from parity.rounding import operations
from parity.rounding.terms import Terms
from rnn_scratch import GRU, LSTM, BatchNormalization, Dense, Dropout, Sequential, SimpleRNN

F = np.float32
EPSILON = 1e-3


def size(rng, most):
    return round(2 ** rng.uniform(0, np.log2(most)))


def a_norm(rng, features):
    """A normalization, and by what its inputs are to be spread; means are often far larger than deviations."""
    variance = 10 ** rng.uniform(-3, 2, features)
    mean = np.sqrt(variance) * rng.standard_normal(features) * 10 ** rng.uniform(-1, 2.5)
    gamma, beta = rng.uniform(0.2, 2, features), rng.standard_normal(features) * 10 ** rng.uniform(-2, 1)
    return BatchNormalization(*(array.astype(F) for array in (gamma, beta, mean, variance)), epsilon=EPSILON)


def typical(rng, norm, *shape):
    """Inputs as the statistics say."""
    noise = rng.standard_normal((*shape, norm.input_dim))
    return (norm.mean + np.sqrt(norm.variance) * noise).astype(F)


def factor_and_constant(norm, dtype=F, epsilon=EPSILON, mean=True):
    gamma, beta, centre, variance = (a.astype(dtype) for a in (norm.gamma, norm.beta, norm.mean, norm.variance))
    factor = gamma / np.sqrt(variance + dtype(epsilon))
    return factor, beta - centre * factor if mean else beta


def draw(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(F)


# --- sums in some order, the bias among the first terms or the last ---


def plain(x, W, b):
    return x @ W.T + b


def in_order(order):
    def total(x, W, b):
        products = x.reshape(-1, 1, x.shape[-1]) * W
        first = np.broadcast_to(b[:, None], (len(products), len(W), 1))
        return order(np.concatenate([first, products], axis=-1)).reshape(*x.shape[:-1], len(W))

    return total


SUMS = {"plain": plain, **{name: in_order(ORDERS[name]) for name in ("sequential", "backwards", "descending")}}


# --- what a port makes of two layers ---


def ahead(W, b, factor, constant):
    """The norm in the weights of the layer after it."""
    return (W * factor).astype(F), (b + W @ constant).astype(F)


def back(W, b, factor, constant):
    """The norm in the weights of the linear layer before it."""
    return (W * factor[:, None]).astype(F), (b * factor + constant).astype(F)


def dense_after(rng, dtype, **fold):
    norm = a_norm(rng, size(rng, 64))
    W = draw(rng, size(rng, 64), norm.input_dim)
    b = rng.standard_normal(len(W)).astype(F)
    x = typical(rng, norm, 4, 6)
    between = [Dropout()] if rng.random() < 0.3 else []
    model = Sequential([norm, *between, Dense(W, b, activation=str(rng.choice(["linear", "relu", "tanh"])))])
    folded = ahead(W.astype(dtype), b.astype(dtype), *factor_and_constant(norm, dtype, **fold))
    return model, x, lambda total: model.layers[-1].activation(total(x, *folded))


def dense_before(rng, dtype, **fold):
    units = size(rng, 64)
    norm = a_norm(rng, units)
    W = draw(rng, units, size(rng, 64))
    x = (rng.standard_normal((4, 6, 1)) + rng.standard_normal((4, 6, W.shape[1]))).astype(F)
    b = (norm.mean * rng.uniform(0.5, 1.5)).astype(F)
    model = Sequential([Dense(W, b), norm])
    folded = back(W.astype(dtype), b.astype(dtype), *factor_and_constant(norm, dtype, **fold))
    return model, x, lambda total: total(x, *folded)


RECURRENT = {"simple_rnn": (SimpleRNN, 1, (1,)), "lstm": (LSTM, 4, (4,)), "gru": (GRU, 3, (2, 3))}


def recurrent_after(rng, dtype, **fold):
    norm, units = a_norm(rng, size(rng, 32)), size(rng, 16)
    kind, gates, bias = RECURRENT[str(rng.choice(list(RECURRENT)))]
    Wx, Wh = draw(rng, gates * units, norm.input_dim), draw(rng, gates * units, units)
    b = draw(rng, *bias[:-1], gates * units)
    layer = kind(Wx, Wh, b, return_sequences=bool(rng.random() < 0.7))
    x = typical(rng, norm, 3, 8 if layer.return_sequences else 4)
    own = b[0] if b.ndim == 2 else b
    W, shifted = ahead(Wx.astype(dtype), own.astype(dtype), *factor_and_constant(norm, dtype, **fold))
    twin = layer.replace(Wx=W, Wh=Wh, b=np.stack([shifted, b[1]]) if b.ndim == 2 else shifted)
    return Sequential([norm, layer]), x, lambda total: twin(x)


FOLDS = {"dense after": dense_after, "dense before": dense_before, "recurrent after": recurrent_after}


def judged(model, x, y):
    return examine(as_candidate(y), Case("folding", model, x), Tolerance())


def used(fold, seed):
    """How much of its radius a correct fold uses, in the worst of all orders."""
    rng = np.random.default_rng(seed)
    model, x, ported = FOLDS[fold](rng, (np.float32, np.float64)[seed % 2])
    found = [judged(model, x, ported(total)) for total in SUMS.values()]
    assert all(finding.verdict != "FAIL" for finding in found)
    return max(finding.tally.worst for finding in found)


@pytest.mark.parametrize("fold", FOLDS)
def test_no_correct_fold_leaves_the_ball(fold):
    worst = max(used(fold, seed) for seed in range(14))
    print(f"{fold}: up to {worst:.2f} radii")
    assert 0.02 < worst <= 1


WRONG = {"epsilon forgotten": {"epsilon": 0.0}, "mean not folded": {"mean": False}}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("fold", FOLDS)
def test_a_wrong_fold_is_outside(fold, wrong):
    verdicts = []
    for seed in range(8):
        model, x, ported = FOLDS[fold](np.random.default_rng(seed), np.float64, **wrong)
        verdicts.append(judged(model, x, ported(plain)).verdict)
    assert verdicts.count("FAIL") >= 6, verdicts


def one_constant(norm, x):
    factor, constant = factor_and_constant(norm)
    return x * factor + constant


def centred(norm, x):
    return (x - norm.mean) * (norm.gamma / np.sqrt(norm.variance + F(EPSILON))) + norm.beta


def divided(norm, x):
    return (x - norm.mean) / np.sqrt(norm.variance + F(EPSILON)) * norm.gamma + norm.beta


def reciprocal(norm, x):
    return (x - norm.mean) * (F(1) / np.sqrt(norm.variance + F(EPSILON))) * norm.gamma + norm.beta


@pytest.mark.parametrize("formula", [one_constant, centred, divided, reciprocal], ids=lambda f: f.__name__)
def test_no_formula_of_the_norm_leaves_its_ball(formula):
    worst = 0.0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        norm = a_norm(rng, size(rng, 64))
        x = typical(rng, norm, 4, 6)
        finding = judged(norm, x, formula(norm, x))
        assert finding.verdict == "PASS", finding.tally.first
        worst = max(worst, finding.tally.worst)
    print(f"{formula.__name__}: up to {worst:.2f} radii")
    assert worst > 0.1


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_in_other_precisions_it_is_its_own_port(dtype):
    """In 16 bits the layer computes in 32 and rounds once."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        norm = a_norm(rng, size(rng, 64)).astype(dtype)
        x = typical(rng, norm, 4, 6).astype(dtype)
        finding = judged(norm, x, norm(x))
        assert (finding.verdict, finding.notes) == ("PASS", []), finding.tally.first


def test_where_the_norm_is_shown_its_neighbour_gets_no_more():
    """A fold is granted only where nobody saw what is between."""
    model, x, ported = dense_after(np.random.default_rng(2), np.float32)
    finding = judged(model, x, ported(plain))
    alone = model.layers[-1]
    between = model.layers[0](x)
    direct = judged(alone, between, alone(between))
    assert direct.tally.widest < finding.tally.widest


# --- each term of it is needed: without it a correct fold is accused ---


def far_from_zero(features):
    """A norm whose mean is a thousand deviations, and inputs that are almost equal: roundings all go one way."""
    one = np.ones(features, F)
    norm = BatchNormalization(one, 0 * one, 1000 * one, one - F(EPSILON), epsilon=EPSILON)
    x = norm.mean + np.random.default_rng(0).standard_normal((4, 6, features)) / 8
    return norm, x.astype(F)


def needed(monkeypatch, model, x, y, owner, name, without):
    assert judged(model, x, y).verdict != "FAIL"
    monkeypatch.setattr(owner, name, without)
    assert judged(model, x, y).verdict == "FAIL"


def test_needs_the_constant_among_the_terms_of_the_layer_after(monkeypatch):
    norm, x = far_from_zero(2000)
    W, b = np.full((1, norm.input_dim), 0.1, F), np.zeros(1, F)
    y = SUMS["sequential"](x, *ahead(W, b, *factor_and_constant(norm)))
    needed(monkeypatch, Sequential([norm, Dense(W, b)]), x, y, Terms, "folded", lambda self, size, scale: self)


def test_needs_the_constant_among_the_terms_of_the_layer_before(monkeypatch):
    """It comes first, and each of the small terms after it is lost."""
    norm, _ = far_from_zero(1)
    x = np.full((4, 6, 2000), 1e-4, F)
    W, b = np.full((1, 2000), 0.1, F), np.zeros(1, F)
    y = SUMS["sequential"](x, *back(W, b, *factor_and_constant(norm)))
    model = Sequential([Dense(W, b), norm])
    needed(monkeypatch, model, x, y, operations, "constant_first", lambda constant, *_: 0 * constant)
