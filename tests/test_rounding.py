"""The bound: no correct evaluation leaves its ball, and every term of it is needed."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zoo import (
    ORDERS,
    TANH,
    fused_multiply_add,
    inputs,
    judge,
    loop,
    make_layer,
    ordered,
    random_weights,
    rounded_once,
    textbook,
    wide_state,
    with_settings,
)

from parity.cases.drawing import make_mask
from parity.judging import proof
from parity.rounding import arithmetic, functions, magnitudes
from parity.rounding.arithmetic import ARITHMETIC
from parity.rounding.balls import Ball
from parity.rounding.magnitudes import binade, granularity, largest_finite
from parity.rounding.perturbed import Run
from rnn_scratch import SimpleRNN, SimpleRNNCell
from rnn_scratch.activations import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow and NaN are what is tested here

NAMES = sorted({row.name for row in ACTIVATIONS.values()})
UNIT = 2.0**-24


def slow_settings(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# --- no correct evaluation leaves its ball ---


def spread_evenly(low, high):
    """Weights of any sign whose decimal exponents are spread evenly."""
    return lambda rng, *shape: rng.choice([-1, 1], shape) * 10 ** rng.uniform(low, high, shape)


def by_shape(make):
    return lambda rng, units, input_dim: (make(rng, units, input_dim), make(rng, units, units), make(rng, units))


def gain(factor):
    return by_shape(lambda rng, *shape: factor * rng.standard_normal(shape) / math.sqrt(shape[-1]))


SCHEMES = {
    "keras": lambda rng, *sizes: random_weights(rng, "keras", *sizes),
    "uniform": by_shape(lambda rng, *shape: rng.random(shape)),
    "gain .01": gain(0.01),
    "gain 1": gain(1),
    "gain 2": gain(2),
    "sparse": by_shape(lambda rng, *shape: rng.standard_normal(shape) * (rng.random(shape) < 0.2)),
    "dyadic": by_shape(lambda rng, *shape: rng.integers(-64, 65, shape) / 64),
}
EXTREMES = {
    "float16": {"wide": by_shape(spread_evenly(-6, 4)), "subnormal": by_shape(spread_evenly(-8, -5))},
    "float32": {
        "wide": by_shape(spread_evenly(-30, 15)),
        "tiny": by_shape(spread_evenly(-30, -20)),
        "subnormal": by_shape(spread_evenly(-45, -37)),
        "huge": by_shape(spread_evenly(10, 30)),
    },
    "float64": {"wide": by_shape(spread_evenly(-300, 150)), "subnormal": by_shape(spread_evenly(-323, -300))},
}
SIZE = st.floats(0, 6).map(lambda power: round(2**power))


def steps(dtype):
    """Orders of summation; exact products need a wider dtype to be exact in."""
    return [*ORDERS, *{"float16": ["rounded once"], "float32": ["rounded once", "fused multiply-add"]}.get(dtype, [])]


def configurations(dtype):
    return st.fixed_dictionaries(
        {
            "dtype": st.just(dtype),
            "scheme": st.sampled_from([*SCHEMES, *EXTREMES[dtype]]),
            "units": SIZE,
            "input_dim": SIZE,
            "timesteps": st.integers(1, 30),
            "batch": st.integers(1, 4),
            "activation": st.sampled_from(NAMES),
            "use_bias": st.booleans(),
            "scale": st.sampled_from([0.01, 1, 10]),
            "state": st.booleans(),
            "mask": st.sampled_from([None, None, "leading", "mixed", "trailing"]),
            "orders": st.lists(st.sampled_from(steps(dtype)), min_size=3, max_size=3, unique=True),
            "seed": st.integers(0, 2**32 - 1),
        }
    )


def question(config):
    """A layer, inputs, a mask and a state as the configuration says."""
    rng = np.random.default_rng(config["seed"])
    dtype, batch, units = config["dtype"], config["batch"], config["units"]
    scheme = {**SCHEMES, **EXTREMES[dtype]}[config["scheme"]]
    Wx, Wh, b = (array.astype(dtype) for array in scheme(rng, units, config["input_dim"]))
    layer = SimpleRNN(Wx, Wh, b if config["use_bias"] else None, activation=config["activation"], return_state=True)
    x = (config["scale"] * rng.standard_normal((batch, config["timesteps"], config["input_dim"]))).astype(dtype)
    mask = make_mask(rng, config["mask"], batch, config["timesteps"]) if config["mask"] else None
    state = rng.uniform(-1, 1, (batch, units)).astype(dtype) if config["state"] else None
    return layer, x, mask, state


def evaluations(layer, names):
    yield "rnn_scratch", lambda x, mask, state: layer(x, mask=mask, initial_state=state)
    for name in names:
        yield name, partial(loop, STEPS[name](layer), layer)


STEPS = {
    **{name: partial(ordered, order=order) for name, order in ORDERS.items()},
    "rounded once": rounded_once,
    "fused multiply-add": fused_multiply_add,
}


def stays_inside(config):
    layer, x, mask, state = question(config)
    short = min(5, x.shape[1])
    for steps, sequences in ((x.shape[1], True), (short, False)):
        asked = with_settings(layer, return_sequences=sequences)
        arrays = x[:, :steps], None if mask is None else mask[:, :steps], state
        for name, evaluate in evaluations(asked, config["orders"]):
            finding = judge(evaluate(*arrays), asked, *arrays)
            assert finding.verdict != "FAIL", (name, finding.tally.first)
            assert finding.tally.worst <= 1, (name, finding.method)


@slow_settings(1000)
@given(config=configurations("float32"))
def test_no_correct_float32_evaluation_leaves_its_ball(config):
    stays_inside(config)


@slow_settings(100)
@given(config=configurations("float16"))
def test_no_correct_float16_evaluation_leaves_its_ball(config):
    stays_inside(config)


@slow_settings(100)
@given(config=configurations("float64"))
def test_no_correct_float64_evaluation_leaves_its_ball(config):
    stays_inside(config)


# --- every term is needed: without it an honest evaluation is accused ---


def without(monkeypatch, dtype, **fields):
    monkeypatch.setitem(arithmetic.ARITHMETIC, dtype, replace(ARITHMETIC[dtype], **fields))


def passes_only_with(term, ask):
    """ask() -> Finding. It passes; and is accused once term() has been taken away."""
    finding = ask()
    assert finding.verdict == "PASS", finding.tally.first
    term()
    assert ask().verdict == "FAIL"


def no_radius_of_the_state(monkeypatch):
    update = SimpleRNNCell.update

    def exact(self, p, h, out=None):
        return update(self, p, Ball(h.mid, h.arithmetic) if isinstance(h, Ball) else h, out)

    monkeypatch.setattr(SimpleRNNCell, "update", exact)


def test_needs_the_rounding_of_sums(monkeypatch):
    layer = make_layer(8, 64, activation="linear", return_sequences=True)
    x = inputs(layer)
    y = loop(ordered(layer, ORDERS["sequential"]), layer, x)
    passes_only_with(lambda: without(monkeypatch, "float32", accumulation=2.0**-80), lambda: judge(y, layer, x))


def test_needs_the_radius_of_a_state_kept_wider_than_it_is_returned(monkeypatch):
    """Float32 inside, float16 outside; the state is a vector that turns, so some units come near zero."""
    layer = make_layer(64, kind="keras", dtype="float16", activation="linear", return_sequences=True)
    x, h = inputs(layer, timesteps=50, scale=0), np.ones((3, 64), np.float16)
    y = loop(wide_state(layer, np.float32), layer, x, None, h).astype(np.float16)
    passes_only_with(lambda: no_radius_of_the_state(monkeypatch), lambda: judge(y, layer, x, None, h))


def test_needs_the_radius_of_a_wider_state_that_is_returned_as_zero():
    """Float32 inside: 1.8e-8 comes out as 0, and is 1.8e-5 after the next step all the same."""
    one = np.ones((1, 1), np.float16)
    layer = SimpleRNN(0.3 * one, 1000 * one, activation="relu", return_sequences=True)
    x = np.zeros((1, 4, 1), np.float16)
    x[0, 0] = 2.0**-24
    y = loop(wide_state(layer, np.float32), layer, x).astype(np.float16)
    assert y[0, 0] == 0 < y[0, 1]
    assert judge(y, layer, x).verdict == "PASS"


def test_needs_the_radius_carried_from_step_to_step(monkeypatch):
    """The first step cancels, the others copy what it left: small numbers with large errors."""
    Wx = make_layer(8, 64).Wx
    layer = SimpleRNN(np.concatenate([Wx, -(1 - 2.0**-8) * Wx], axis=1), np.eye(8, dtype="f"), activation="linear")
    x = np.tile(inputs(layer, timesteps=5)[..., :64], 2)
    x[:, 1:] = 0
    y = loop(ordered(layer, ORDERS["sequential"]), layer, x)
    assert judge(y, layer, x).method == ["forward"]
    passes_only_with(lambda: no_radius_of_the_state(monkeypatch), lambda: judge(y, layer, x))


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_needs_the_rounding_of_a_copied_state(monkeypatch, sequences):
    """A final state may come back in float32 beside an output in float16."""
    layer = make_layer(dtype="float16", return_sequences=True, return_state=True)
    x = inputs(layer)
    y, h = loop(wide_state(layer, np.float32), layer, x)

    def exact(query, values):
        return Ball(values.astype(np.float64), query.arithmetic, np.full(values.shape, query.arithmetic.tiny))

    monkeypatch.setattr(proof, "or_computed", lambda state, computed, walk: state)
    passes_only_with(
        lambda: monkeypatch.setattr(proof, "copied", exact),
        lambda: judge((y.astype(np.float16), h), layer, x),
    )


def test_needs_the_step_of_a_state_computed_beside_the_output(monkeypatch):
    """A compiler may sum the last step twice, in two orders."""
    layer = make_layer(64, activation="linear", return_sequences=True)
    x = inputs(layer)
    y = loop(ordered(layer, ORDERS["sequential"]), layer, x)
    h = ordered(layer, ORDERS["backwards"])(x[:, -1], y[:, -2])
    assert not np.array_equal(h, y[:, -1])
    layer.return_state = True
    passes_only_with(
        lambda: monkeypatch.setattr(proof, "or_computed", lambda state, computed, walk: state),
        lambda: judge((y, h), layer, x),
    )


def test_needs_flush_to_zero(monkeypatch):
    Wx, Wh = (np.float32(1e-20) * weights for weights in (make_layer().Wx, make_layer().Wh))
    layer = SimpleRNN(Wx, Wh, activation="linear", return_sequences=True)
    x = inputs(layer, scale=1e-20)
    y = loop(ordered(layer, ORDERS["flushed"]), layer, x)
    assert not y.any()
    assert layer(x).any()
    assert judge(y, layer, x).proof.worst <= 1
    assert judge(y, layer, x).verdict == "INCONCLUSIVE"  # as any zeros would be
    without(monkeypatch, "float32", tiny=2.0**-1000)
    assert judge(y, layer, x).verdict == "FAIL"


def test_needs_the_stores_of_float16(monkeypatch):
    layer = make_layer(64, dtype="float16", activation="linear", return_sequences=True)
    x = inputs(layer)
    y = layer(x)
    passes_only_with(lambda: without(monkeypatch, "float16", stores=0), lambda: judge(y, layer, x))


def test_needs_the_references_own_rounding(monkeypatch):
    """The candidate adds exactly (float32's products are exact in float64): all that is seen is the reference's."""
    layer = make_layer(8, 64, activation="linear", return_sequences=True)
    wide = layer.replace(**{name: array.astype(np.float64) for name, array in layer.cell.weights.items()})
    x = inputs(layer, timesteps=1).astype(np.float64)
    wide.Wx = np.concatenate([wide.Wx[:, :32], -wide.Wx[:, :32] * (1 + 2.0**-20)], axis=1).astype("f").astype("d")
    x[:, :, 32:] = x[:, :, :32]
    wide.b = 1e-9 * wide.b.astype("f")
    y = loop(rounded_once(wide), wide, x)
    without(monkeypatch, "float64", accumulation=2.0**-80)
    monkeypatch.setattr(magnitudes, "granularity", lambda array: 0.0)
    passes_only_with(lambda: monkeypatch.setattr(arithmetic, "REFERENCE_UNIT", 0.0), lambda: judge(y, wide, x))


def one_unit(activation, z, dtype="float32"):
    """A layer that does nothing but f, and inputs z: multiples of 2^-18 below 64, so nothing is rounded before f."""
    one = np.ones((1, 1), dtype)
    z = (np.round(np.asarray(z) * 2**18) / 2**18).astype(dtype)
    layer = SimpleRNN(one, 0 * one, activation=activation, return_sequences=True)
    return layer, z[:, None, None]


def table(monkeypatch, name, **fields):
    monkeypatch.setitem(ACTIVATIONS, name, replace(ACTIVATIONS[name], **fields))


def test_needs_the_references_own_functions(monkeypatch):
    """NumPy's float64 tanh against the C library's: both correct, not the same bits."""
    table(monkeypatch, "tanh", ulps=0, ulps64=0, absolute=0)
    layer, x = one_unit("tanh", np.linspace(-4, 4, 20_001), "float64")
    y = np.vectorize(math.tanh)(x)
    passes_only_with(lambda: monkeypatch.setattr(functions, "FUNCTION_ERROR", 0.0), lambda: judge(y, layer, x))


def eigen_tanh(z):
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.math.tanh(z).numpy()


_erf = np.vectorize(math.erf, otypes=[np.float64])
FORMULAS = {
    # activation, allowance: a correct float32 formula that needs it, and for which z
    ("tanh", "ulps"): (eigen_tanh, 6.3, 6.8),
    ("tanh", "absolute"): (TANH["two_sigmoids"], -0.01, 0.01),
    ("leaky_relu", "ulps"): (lambda z: np.where(z < 0, np.float32(0.2) * z, z), -5, 0),
    ("sigmoid", "absolute"): (lambda z: 1 / (1 + np.exp(-z)), -5, 5),
    ("hard_sigmoid", "absolute"): (lambda z: np.clip(z * np.float32(1 / 6) + np.float32(0.5), 0, 1), -3, 3),
    ("hard_sigmoid_keras2", "absolute"): (lambda z: np.clip(z * np.float32(0.2) + np.float32(0.5), 0, 1), -3, 3),
    ("softsign", "ulps"): (lambda z: z / (1 + np.abs(z)), -5, 5),
    ("softplus", "ulps"): (lambda z: np.log1p(np.exp(z)), -0.01, 0.01),
    ("softplus", "linear"): (lambda z: np.log(1 + np.exp(z)), -12, -8),
    ("exponential", "ulps"): (np.exp, -5, 5),
    ("elu", "absolute"): (lambda z: np.where(z < 0, np.exp(z) - 1, z), -0.01, 0),
    ("selu", "ulps"): (lambda z: np.float32(1.0507009873554805) * z, 20, 30),
    ("selu", "absolute"): (
        lambda z: np.float32(1.0507009873554805) * np.float32(1.6732632423543772) * (np.exp(z) - 1),
        -0.01,
        0,
    ),
    ("silu", "linear"): (lambda z: z * (np.float32(0.5) * np.tanh(np.float32(0.5) * z) + np.float32(0.5)), -12, -6),
    ("gelu", "linear"): (lambda z: np.float32(0.5) * z * (1 + _erf(z * math.sqrt(0.5)).astype("f")), -4, -2),
    ("mish", "linear"): (lambda z: z * np.tanh(np.log(1 + np.exp(z))), -12, -6),
}


@pytest.mark.parametrize(("name", "field"), FORMULAS)
def test_needs_the_allowance_of_an_activation(monkeypatch, name, field):
    formula, low, high = FORMULAS[name, field]
    z = np.linspace(low, high, 20_001)
    x = one_unit(name, z)[1]
    y = formula(x)
    assert y.dtype == np.float32

    def ask():
        return judge(y, one_unit(name, z)[0], x)

    passes_only_with(lambda: table(monkeypatch, name, **{field: 0}), ask)


def test_needs_the_allowance_of_softmax(monkeypatch):
    layer = make_layer(16, activation="softmax", return_sequences=True)
    layer = layer.replace(Wx=np.round(4 * layer.Wx), Wh=0 * layer.Wh, b=0 * layer.b)
    x = np.round(inputs(layer))
    passes_only_with(
        lambda: monkeypatch.setattr(functions, "coupled_allowance", lambda z, e, y, a: np.full_like(y, a.tiny)),
        lambda: judge(layer(x), layer, x),
    )


def test_needs_the_coupling_of_softmax(monkeypatch):
    """Unit 0 cancels and is uncertain; unit 1 is certain, but its softmax moves with unit 0's."""
    rng = np.random.default_rng(0)
    Wx = np.zeros((2, 65), np.float32)
    Wx[0, :64] = 1e3 * rng.standard_normal(64)
    Wx[0, 64] = -Wx[0, :64].sum(dtype=np.float64)
    layer = SimpleRNN(Wx, np.zeros((2, 2), np.float32), activation="softmax", return_sequences=True)
    x = np.ones((1, 1, 65), np.float32)
    y = loop(ordered(layer, ORDERS["sequential"]), layer, x)
    coupled = functions.coupled_reach

    def alone(z, e, y):
        """Each unit as if the others were certain."""
        e = np.eye(z.shape[-1]) * e[..., None, :]
        reach = [coupled(z, e[..., unit, :], y)[..., unit] for unit in range(z.shape[-1])]
        return np.stack(reach, axis=-1)

    passes_only_with(lambda: monkeypatch.setattr(functions, "coupled_reach", alone), lambda: judge(y, layer, x))


def test_needs_runs_whose_signs_are_all_alike(monkeypatch):
    """What accumulates drifts one way; runs with random signs alone would grant it a hundredth of that."""
    one = np.ones((1, 1), np.float32)
    layer = SimpleRNN(one, one, activation="relu")
    x = np.full((1, 3000, 1), 0.1, np.float32)
    y = layer(x)
    assert judge(y, layer, x).method == ["sampled"]
    signs = Run.signs

    def random_only(self, shape):
        drawn = signs(self, shape).reshape(self.copies, -1)
        half = self.copies // 2 + 1
        drawn[1:half] = np.where(self.rng.random(drawn[1:half].shape) < 0.5, -1, 1)
        return drawn.reshape(shape)

    finding = judge(y, layer, x)
    assert (finding.verdict, finding.proved) == ("PASS", False)
    monkeypatch.setattr(Run, "signs", random_only)
    assert judge(y, layer, x).evidence.worst > 1 > 5 * finding.evidence.worst


# --- what makes it tight: without it a lie of one unit in the last place passes ---


def fails_only_with(rule, ask):
    assert ask().verdict == "FAIL"
    rule()
    assert ask().verdict == "PASS"


def nudged(y):
    """The smallest change there is, at the element where it is smallest."""
    at = np.unravel_index(np.abs(np.where(y == 0, np.inf, y)).argmin(), y.shape)
    y[at] = np.nextafter(y[at], np.float32(np.inf))
    return y


def lattice(**options):
    rng = np.random.default_rng(0)
    Wx, Wh, b = (rng.integers(-64, 65, shape).astype("f") / 64 for shape in ((8, 4), (8, 8), (8,)))
    layer = SimpleRNN(Wx, Wh, b, **options)
    x, h = (rng.integers(-4, 5, shape).astype("f") / 4 for shape in ((3, 1, 4), (3, 8)))
    return layer, x, h


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_needs_to_see_that_a_sum_is_exact(monkeypatch, activation):
    layer, x, h = lattice(activation=activation, return_sequences=True)
    assert judge(layer(x, initial_state=h), layer, x, None, h).tally.max_abs == 0
    y = nudged(layer(x, initial_state=h))
    fails_only_with(
        lambda: monkeypatch.setattr(magnitudes, "granularity", lambda array: 0.0),
        lambda: judge(y, layer, x, None, h),
    )


def test_needs_the_initial_state_to_be_exact(monkeypatch):
    layer, x, h = lattice(activation="linear", return_sequences=True)
    previous = proof.previous_states

    def inexact(query, *args):
        before, relative = previous(query, *args)
        return before, np.full_like(relative, query.arithmetic.unit)

    y = nudged(layer(x, initial_state=h))
    fails_only_with(lambda: monkeypatch.setattr(proof, "previous_states", inexact), lambda: judge(y, layer, x, None, h))


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("order", ORDERS)
def test_on_a_lattice_every_order_gives_the_same_bits(activation, order):
    layer, x, h = lattice(activation=activation, return_sequences=True)
    y = loop(ordered(layer, ORDERS[order]), layer, x, None, h)
    np.testing.assert_array_equal(y, layer(x, initial_state=h))
    assert judge(y, layer, x, None, h).tally.worst == 0


# --- an activation over an interval ---

SMOOTH = [name for name in NAMES if name != "softmax"]


@pytest.mark.parametrize("name", SMOOTH)
def test_reach_holds_whatever_the_function_does_inside(name):
    """Between the end points, at them, and at the turns."""
    f, rng = ACTIVATIONS[name], np.random.default_rng(0)
    z = rng.normal(0, 4, 2000)
    e = 10 ** rng.uniform(-9, 1, z.shape)
    reach = functions.reach(f, z, e, f.f(z))
    for inside in (
        *(z + e * part for part in (-1, -0.9, -0.5, 0.1, 0.7, 1)),
        *(np.clip(c, z - e, z + e) for c in f.turns),
    ):
        assert np.all(np.abs(f.f(inside) - f.f(z)) <= reach * (1 + 1e-9) + 1e-15)


@pytest.mark.parametrize("name", [name for name in SMOOTH if ACTIVATIONS[name].turns])
def test_needs_the_turns(name):
    """The interval ends just past the turn: the function is lower inside than at either end."""
    f = ACTIVATIONS[name]
    (turn,) = f.turns
    e = np.array([4.0])
    z = turn - e + 0.1
    y = f.f(z)
    moved = np.abs(f.f(np.array([turn])) - y)
    assert functions.reach(f, z, e, y) >= moved > functions.reach(replace(f, turns=()), z, e, y)
    around = turn + np.linspace(-1e-2, 1e-2, 5)
    assert np.argmin(f.f(around)) == 2
    assert f.low <= f.f(np.array([turn])) <= f.low + 2e-7


@pytest.mark.parametrize("name", SMOOTH)
def test_slope_and_range_are_those_of_the_function(name):
    f, z = ACTIVATIONS[name], np.linspace(-20, 20, 400_001)
    y = f.f(z)
    assert np.all((y >= f.low - 1e-9) & (y <= f.high + 1e-9))
    if np.isfinite(f.slope):
        largest = np.abs(np.diff(y) / np.diff(z)).max()
        assert 0.99 * f.slope <= largest <= f.slope * (1 + 1e-6)


def test_softmax_reach_holds_for_every_corner():
    rng = np.random.default_rng(0)
    z, e = rng.normal(0, 3, (50, 4)), 10 ** rng.uniform(-9, 3, (50, 4))
    f = ACTIVATIONS["softmax"].f
    reach = functions.coupled_reach(z, e, f(z))
    for corner in np.ndindex(3, 3, 3, 3):
        assert np.all(np.abs(f(z + e * (np.array(corner) - 1)) - f(z)) <= reach * (1 + 1e-12))


# --- balls and sums against exact arithmetic ---


@st.composite
def sums(draw, dtype="float32", exponents=(-20, 20)):
    """Factors a (n,) and W (n, m), a bias (m,), and radii, of widely different magnitudes."""
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    element = st.builds(
        lambda significand, exponent: significand * 2.0**exponent, st.integers(-4095, 4095), st.integers(*exponents)
    )
    array = [draw(st.lists(element, min_size=size, max_size=size)) for size in (n, n * m, m, n)]
    a, W, b, rad = (np.array(part, dtype) for part in array)
    return a, W.reshape(n, m), b, np.abs(rad).astype(np.float64) * 2.0**-20


def exact_sum(a, W, b):
    a, W, b = (np.vectorize(Fraction, otypes="O")(array.astype(np.float64)) for array in (a, W, b))
    return list(a @ W + b)


def contains(radius, exact, value):
    return all(abs(e - Fraction(float(v))) <= Fraction(float(r)) for r, e, v in zip(radius, exact, value, strict=True))


@slow_settings(300)
@given(case=sums(), subnormal=st.booleans())
def test_a_sum_contains_the_exact_value_and_every_order(case, subnormal):
    a, W, b, _ = case
    if subnormal:
        a, b = (a * np.float32(2.0**-75)), (b * np.float32(2.0**-140))
        W = W * np.float32(2.0**-60)
    z = Ball(a[None].astype(np.float64), ARITHMETIC["float32"]).dot(W.astype(np.float64)) + b.astype(np.float64)
    exact, radius = exact_sum(a, W, b), z.rounding[0]
    assert contains(radius, exact, z.mid[0])
    magnitudes_ = exact_sum(np.abs(a), np.abs(W), np.abs(b))
    assert all(Fraction(float(s)) >= m or m < 2.0**-120 for s, m in zip(z.size[0], magnitudes_, strict=True))
    products = np.concatenate([b[:, None], a * W.T], axis=1)
    for order in ORDERS.values():
        got = order(products)
        assert all(
            abs(Fraction(float(g)) - Fraction(float(mid))) <= Fraction(float(r))
            for g, mid, r in zip(got, z.mid[0], radius, strict=True)
        )


@slow_settings(300)
@given(case=sums(dtype="float64", exponents=(-6, 0)))
def test_where_every_term_is_a_multiple_nothing_but_underflow_is_granted(case):
    a, W, b, _ = case
    z = Ball(a[None], ARITHMETIC["float64"]).dot(W) + b
    assert np.all(z.rounding <= 4 * z.terms * ARITHMETIC["float64"].tiny * (2 + z.scale))
    assert [Fraction(float(mid)) for mid in z.mid[0]] == exact_sum(a, W, b)
    if z.grain < np.inf:
        terms = [Fraction(float(x)) * Fraction(float(w)) for x, row in zip(a, W, strict=True) for w in row]
        assert all(term % Fraction(z.grain) == 0 for term in [*terms, *map(Fraction, b.tolist())])


@slow_settings(300)
@given(case=sums(), corner=st.integers(0, 63))
def test_a_sum_of_balls_contains_the_sum_of_any_of_their_values(case, corner):
    a, W, b, rad = case
    ball = Ball(a[None].astype(np.float64), ARITHMETIC["float32"], rad[None])
    z = ball.dot(W.astype(np.float64)) + b.astype(np.float64)
    signs = [1 if corner >> j & 1 else -1 for j in range(len(a))]
    moved = [Fraction(float(x)) + s * Fraction(float(r)) for x, s, r in zip(a, signs, rad, strict=True)]
    exact = [
        sum((x * Fraction(float(w)) for x, w in zip(moved, column, strict=True)), Fraction(float(c)))
        for column, c in zip(W.T, b, strict=True)
    ]
    assert contains(z.spread[0] + z.rounding[0], exact, z.mid[0])


def test_a_relative_radius_is_that_part_of_the_midpoint():
    mid = np.array([[1.0, -2.0], [3.0, 0.0]])
    ball = Ball(mid, ARITHMETIC["float32"], relative=np.array([[0.0], [UNIT]]))
    np.testing.assert_array_equal(ball.radius, [[0, 0], [3 * UNIT, 0]])
    both = Ball(mid, ARITHMETIC["float32"], np.ones_like(mid), relative=UNIT)
    np.testing.assert_array_equal(both.radius, 1 + UNIT * np.abs(mid))
    spread = ball.dot(np.array([[1.0], [-1.0]])).spread
    assert spread[0] == 0
    assert spread[1] == pytest.approx(3 * UNIT, rel=1e-5)


def test_zero_terms_are_not_counted():
    a = Ball(np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]), ARITHMETIC["float32"])
    z = a.dot(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])) + np.array([0.0, 5.0])
    assert z.terms.tolist() == [[1, 1], [0, 1]]


@slow_settings(200)
@given(
    integers=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=100),
    exponent=st.integers(-100, 100),
)
def test_granularity_is_the_largest_power_of_two_that_divides_them_all(integers, exponent):
    grain = granularity(np.ldexp(np.array(integers, np.float64), exponent))
    if not any(integers):
        assert grain == np.inf
        return
    ratios = [Fraction(number) * Fraction(2) ** exponent / Fraction(grain) for number in integers]
    assert all(ratio.denominator == 1 for ratio in ratios)
    assert any(ratio.numerator % 2 for ratio in ratios)
    assert math.frexp(grain)[0] == 0.5


@pytest.mark.parametrize(
    ("values", "grain"),
    [
        *(([0.0, 0.0], np.inf), ([], np.inf), ([1.0, np.nan], 0.0), ([np.inf], 0.0)),
        *(([6.0, 0.75], 0.25), ([*([8.0] * 70), 0.5], 0.5)),
    ],
)
def test_granularity_at_the_edges(values, grain):
    assert granularity(np.array(values)) == grain


@pytest.mark.parametrize(
    ("y", "power"), [(1, 1), (1.99, 1), (3, 2), (0.3, 0.25), (0, 0), (5e-324, 0), (2.0**-1022, 2.0**-1022)]
)
def test_binade(y, power):
    assert binade(np.array([y], np.float64)) == power


def test_largest_finite_leaves_out_what_is_not():
    assert largest_finite(np.array([1.0, np.inf, np.nan, 3.0])) == 3
    assert largest_finite(np.array([])) == 0


# --- NaN, infinity and overflow are classes, not distances ---


def special(value, activation="tanh", **settings):
    layer = make_layer(3, 2, activation=activation, return_sequences=True, **settings)
    x = inputs(layer, 2, 4)
    x[0, 1, 0] = value
    return layer, x


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_what_the_reference_has_too_is_agreement(name, value):
    layer, x = special(value, name)
    assert judge(layer(x), layer, x).verdict == "PASS"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_what_only_the_candidate_has_is_a_failure(name, value):
    layer, x = special(0.5, name)
    y = layer(x)
    y[1, 2, 1] = value
    finding = judge(y, layer, x)
    assert finding.verdict == "FAIL"
    assert finding.tally.first["timestep"] == 2
    assert finding.tally.worst == np.inf


def test_a_number_where_the_reference_has_nan_is_a_failure():
    layer, x = special(np.nan)
    y = layer(x)
    y[np.isnan(y)] = 0
    finding = judge(y, layer, x)
    assert finding.verdict == "FAIL"
    assert finding.tally.first["timestep"] == 1


@pytest.mark.parametrize("wrong", [0.0, -np.inf, np.nan])
def test_anything_else_where_the_reference_is_infinite_is_a_failure(wrong):
    layer, x = special(np.inf, "relu")
    y = layer(x)
    y[np.isposinf(y)] = wrong
    assert judge(y, layer, x).verdict == "FAIL"


@pytest.mark.parametrize("name", [name for name in NAMES if ACTIVATIONS[name].swallows_nan])
def test_a_maximum_may_swallow_nan(name):
    """max(0, NaN) is 0 in some libraries; what follows must follow from that 0."""
    layer, x = special(np.nan, name)
    f = layer.cell.activation
    y = loop(textbook(layer, lambda z: f(np.nan_to_num(z, nan=-9))), layer, x)
    assert np.isfinite(y).all()
    assert judge(y, layer, x).verdict == "PASS"


def overflowing(activation, dtype="float32"):
    """z = L - 2L + 2L for L near the largest float: finite, but not in every order."""
    L = float(np.finfo(dtype).max) * 0.75
    layer = SimpleRNN(*(np.array(w, dtype) for w in ([[-L, L, L]], [[0.0]])), activation=activation)
    layer.return_sequences = True
    return layer, np.ones((1, 1, 3), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_where_some_order_overflows_nobody_can_tell(dtype):
    layer, x = overflowing("linear", dtype)
    good, infinite = np.array([[[layer.Wx[0, 1]]]]), np.array([[[np.inf]]])
    assert judge(good, layer, x).verdict == "PASS"
    finding = judge(infinite.astype(dtype), layer, x)
    assert (finding.verdict, finding.proof.undecided) == ("INCONCLUSIVE", 1)


def test_where_no_order_overflows_infinity_is_a_failure():
    layer, x = overflowing("linear")
    layer.Wx = layer.Wx / 4
    assert judge(np.array([[[np.inf]]], "f"), layer, x).verdict == "FAIL"


def test_what_must_overflow_must_be_infinite():
    layer, x = overflowing("linear")
    x[..., 0] = 0
    assert judge(np.array([[[np.inf]]], "f"), layer, x).verdict == "PASS"
    assert judge(np.array([[[-np.inf]]], "f"), layer, x).verdict != "PASS"
    assert judge(np.array([[[0.0]]], "f"), layer, x).verdict != "PASS"


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "softmax"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_overflow_is_no_excuse_for_any_number(activation, dtype):
    layer, _ = overflowing(activation, dtype)
    layer = layer.replace(Wx=np.array([[-1, 1, 1], [1, 1, 1]], dtype) * layer.Wx[0, 1], Wh=np.zeros((2, 2), dtype))
    x = np.full((1, 3, 3), 100, dtype)
    assert judge(layer(x), layer, x).verdict != "FAIL"
    assert judge(np.full_like(layer(x), 0.75), layer, x).verdict != "PASS"


def test_a_float16_sum_that_overflowed_on_the_way_is_not_accused():
    """72000 - 20000 - 60000: infinite once the first is stored; tanh makes 1 of it instead of -1."""
    one = np.ones((1, 1), np.float16)
    layer = SimpleRNN(300 * one, -60000 * one, -20000 * one[0], return_sequences=True)
    x = 240 * one[None]
    y = layer(x, initial_state=one)
    assert y == 1
    finding = judge(y, layer, x, None, one)
    assert (finding.verdict, finding.proof.undecided) == ("INCONCLUSIVE", 1)


# --- balls that outgrew the signal ---


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("activation", ["tanh", "linear", "silu"])
def test_a_ball_as_wide_as_the_signal_proves_nothing(activation, dtype):
    layer = make_layer(257, activation=activation, dtype=dtype, kind="chaotic")
    layer.Wh = layer.Wh * np.array(1.5, dtype)
    x = inputs(layer, 2, 5, scale=0.1)
    assert judge(layer(x), layer, x).verdict != "FAIL"
    assert judge(0 * layer(x), layer, x).verdict != "PASS"


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softsign"])
def test_a_saturated_unit_is_certain_however_uncertain_its_argument(activation):
    """z is 1000 give or take 1.5: no doubt about tanh. Half of it is no answer."""
    layer = SimpleRNN(np.full((1, 256), 4, np.float16), np.zeros((1, 1), np.float16), activation=activation)
    layer.return_sequences = True
    x = np.ones((1, 1, 256), np.float16)
    x[..., ::3] = np.float16(0.996)
    assert judge(layer(x), layer, x).verdict == "PASS"
    assert judge(layer(x) * np.float16(0.95), layer, x).verdict == "FAIL"
