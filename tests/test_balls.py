"""The operations of balls: each holds what any correct arithmetic makes of any values inside, and not much more."""

import operator
from functools import partial

import numpy as np
import pytest

from parity.rounding.arithmetic import ARITHMETIC
from parity.rounding.balls import Ball
from parity.rounding.factors import Factor

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow and division by zero are drawn as well

DTYPES = ("float16", "float32", "float64")
ROWS, COLUMNS = 40, 50


def exponents(dtype, scheme):
    """Of which magnitudes, in powers of two."""
    info = np.finfo(dtype)
    return {
        "ordinary": (-4, 4),
        "wide": (info.minexp // 2, info.maxexp // 2),
        "subnormal": (info.minexp - info.nmant, info.minexp + 3),
        "huge": (info.maxexp - 4, info.maxexp),
    }[scheme]


def numbers(rng, dtype, scheme, shape):
    """Of any sign, in the dtype; some are zero, and some repeat the one before with the other sign, so that they
    cancel."""
    low, high = exponents(dtype, scheme)
    values = rng.choice([-1.0, 1.0], shape) * (1 + rng.random(shape)) * 2.0 ** rng.uniform(low, high - 1, shape)
    values[rng.random(shape) < 0.02] = 0
    return values.astype(dtype)


def within(rng, mid, rad, dtype):
    """Numbers of the dtype within those radii, most of them at an end."""
    wide = mid.astype(np.float64)
    moved = (wide + rad * rng.choice([-1.0, 0.5, 1.0], mid.shape)).astype(dtype)
    return np.where(np.abs(moved.astype(np.float64) - wide) <= rad, moved, mid)


def drawn(rng, dtype, scheme, shape):
    """A ball, and numbers inside it as a candidate may have them."""
    mid = numbers(rng, dtype, scheme, shape)
    arithmetic = ARITHMETIC[dtype]
    rad = np.maximum(np.abs(mid.astype(np.float64)) * 10.0 ** rng.uniform(-9, 0.1, shape), arithmetic.tiny)
    rad = (rad if rng.random() < 0.6 else 0 * rad).astype(arithmetic.radii)
    ball = Ball(mid.astype(np.float64), arithmetic, rad if rad.any() else None)
    return ball, within(rng, mid, rad.astype(np.float64), dtype)


def plain(values):
    return values


def flushed(values):
    """As a processor has them that knows no subnormal numbers."""
    return np.where(np.abs(values) < np.finfo(values.dtype).tiny, values.dtype.type(0), values)


def outside(ball, got):
    """Where a result is neither inside nor known to be nobody's business."""
    excused = np.isnan(ball.mid) | np.isnan(ball.radius)
    if ball.may_overflow is not None:
        excused |= np.broadcast_to(ball.may_overflow, ball.shape)
    return ~(
        ball.contains(got) | excused | (np.isinf(got) & (np.abs(ball.mid) + ball.radius >= ball.arithmetic.largest))
    )


def ratio(ball, got):
    """How much of the radius is used."""
    used = np.abs(got.astype(np.float64) - ball.mid) / ball.radius
    return float(used[np.isfinite(used)].max(initial=0))


BINARY = {"sum": operator.add, "difference": operator.sub, "product": operator.mul, "quotient": operator.truediv}
PROCESSORS = {"gradual underflow": plain, "flush to zero": flushed}


def processors(dtype):
    """Float16 is flushed by nobody."""
    return [plain] if dtype == "float16" else list(PROCESSORS.values())


def columns(values):
    return values[0]


def number(values):
    return values.dtype.type(values[0, 0])


@pytest.mark.parametrize("scheme", ["ordinary", "wide", "subnormal", "huge"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_no_correct_operation_leaves_its_ball(name, dtype, scheme):
    operation, largest = BINARY[name], 0.0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        (a, a_got), (b, b_got) = (drawn(rng, dtype, scheme, (ROWS, COLUMNS)) for _ in range(2))
        other = numbers(rng, dtype, scheme, (ROWS, COLUMNS))
        flat = columns(other)
        c = number(other)
        forms = [
            (operation(a, b), a_got, b_got),
            (operation(a, other.astype(np.float64)), a_got, other),
            (operation(a, flat.astype(np.float64)), a_got, flat),
            (operation(flat.astype(np.float64), b), flat, b_got),
            (operation(a, float(c)), a_got, c),
            (operation(float(c), b), c, b_got),
        ]
        for ball, left, right in forms:
            for processor in processors(dtype):
                got = processor(np.asarray(operation(processor(left), processor(right))))
                assert got.dtype == dtype
                assert not outside(ball, got).any()
        exact = operation(Ball(a.mid, a.arithmetic), Ball(b.mid, b.arithmetic))
        largest = max(largest, ratio(exact, operation(a.mid.astype(dtype), b.mid.astype(dtype))))
    print(f"{name}, {dtype}, {scheme}: up to {largest:.2f} of the radius of what is exact before")
    assert dtype == "float64" or scheme not in ("ordinary", "wide") or largest > 0.2  # at float64 the midpoint is it


@pytest.mark.parametrize("scheme", ["ordinary", "wide", "subnormal", "huge"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_correct_square_root_leaves_its_ball(dtype, scheme):
    largest = 0.0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, a_got = drawn(rng, dtype, scheme, (ROWS, COLUMNS))
        for processor in processors(dtype):
            assert not outside(a.sqrt(), processor(np.sqrt(processor(a_got)))).any()
        exact = Ball(np.abs(a.mid), a.arithmetic).sqrt()
        largest = max(largest, ratio(exact, np.sqrt(np.abs(a.mid).astype(dtype))))
    print(f"square root, {dtype}, {scheme}: up to {largest:.2f}")
    assert dtype == "float64" or scheme not in ("ordinary", "wide") or largest > 0.2  # at float64 the midpoint is it


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_factor_that_the_precision_does_not_hold_is_rounded_too(dtype):
    """3.3 is no float: whoever multiplies by it multiplies by another number."""
    a = np.random.default_rng(0).uniform(1, 2, (50, 40)).astype(dtype)
    ball, factor = Ball(a.astype(np.float64), ARITHMETIC[dtype]), np.array([3.3] * 40)
    got = a * np.array(3.3, dtype)
    for product in (ball * 3.3, 3.3 * ball, ball * factor, factor * ball):
        assert product.contains(got).all()
    assert dtype == "float64" or not (np.abs(got - 3.3 * ball.mid) <= 1e-3 * ball.arithmetic.unit).all()
    assert dtype == "float64" or ratio(ball * 3.3, got) > 0.2


@pytest.mark.parametrize("factor", [1, -1, 2.0, 0.5, -0.25, np.float32(8), 0])
def test_a_factor_that_is_a_power_of_two_is_exact(factor):
    """But for what underflows."""
    mid = np.random.default_rng(0).standard_normal((3, 4))
    rad = np.full((3, 4), 2.0**-20, np.float32)
    product = Ball(mid, ARITHMETIC["float32"], rad) * factor
    np.testing.assert_array_equal(product.mid, mid * factor)
    np.testing.assert_allclose(product.radius, abs(factor) * rad, rtol=1e-15, atol=2.0**-120)


def test_negation_is_exact():
    mid, rad = np.array([[1.5, -0.1]]), np.array([[0.25, 0]], np.float32)
    ball = -Ball(mid, ARITHMETIC["float32"], rad, relative=2.0**-24)
    np.testing.assert_array_equal(ball.mid, -mid)
    np.testing.assert_array_equal(ball.radius, rad + 2.0**-24 * np.abs(mid))


def test_a_divisor_that_may_be_zero_leaves_nobody_able_to_tell():
    ball = Ball(np.ones((1, 2)), ARITHMETIC["float32"])
    divisor = Ball(np.array([[1e-3, 1.0]]), ARITHMETIC["float32"], np.full((1, 2), 1e-2, np.float32))
    quotient = ball / divisor
    assert quotient.may_overflow.tolist() == [[True, False]]
    assert np.isinf(quotient.radius).tolist() == [[True, False]]


def test_what_may_be_negative_has_no_certain_root():
    ball = Ball(np.array([[1e-3, 1.0]]), ARITHMETIC["float32"], np.full((1, 2), 1e-2, np.float32))
    assert ball.sqrt().may_overflow.tolist() == [[True, False]]


BALL = Ball(np.ones((2, 3)), ARITHMETIC["float32"])
SUM = BALL.dot(np.ones((3, 3)))
STRANGERS = {
    "a string": "3.3",
    "None": None,
    "a list": [1.0, 2.0, 3.0],
    "a complex number": 1j,
    "complex numbers": np.ones(3, complex),
    "objects": np.array([1.0, 2.0, 3.0], object),
    "a matrix of weights": Factor(np.ones((3, 3)), "float32", np.float32),
}


@pytest.mark.parametrize("swapped", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("name", BINARY)
def test_what_a_ball_does_not_know_how_to_round_it_refuses(name, stranger, swapped):
    operation = BINARY[name]
    with pytest.raises(TypeError) as raised:
        operation(stranger, BALL) if swapped else operation(BALL, stranger)
    assert "\n" not in str(raised.value)
    assert "balls, sums, arrays of real numbers and real numbers" in str(raised.value)


@pytest.mark.parametrize("value", [0.5, 3.3, "x", None])
def test_a_sum_that_is_not_rounded_yet_refuses_what_it_does_not_know(value):
    with pytest.raises(TypeError, match="balls, sums and arrays can be added"):
        SUM + value


@pytest.mark.parametrize(
    "operation", [abs, partial(pow, 2), lambda b: b**2, lambda b: b // 2, np.sqrt, np.exp, np.mean, np.dot, float]
)
def test_an_operation_without_a_rule_raises(operation):
    with pytest.raises(TypeError):
        operation(BALL)


def test_contains_tells_inside_from_outside():
    ball = Ball(np.array([1.0, 2.0, np.inf, np.nan]), ARITHMETIC["float32"], np.full(4, 0.25, np.float32))
    assert ball.contains(np.array([1.25, 2.3, np.inf, np.nan])).tolist() == [True, False, True, True]
    assert ball.contains(np.array([0.74, np.nan, -np.inf, 1.0])).tolist() == [False] * 4


def test_a_ball_shows_its_midpoints_and_radii():
    ball = Ball(np.array([[0.5, 2.0]]), ARITHMETIC["float32"], np.full((1, 2), 0.25, np.float32))
    assert repr(ball) == "Ball([[0.5 ± 0.25, 2 ± 0.25]], float32)"
    assert "..." in repr(Ball(np.zeros((100, 100)), ARITHMETIC["float64"]))
