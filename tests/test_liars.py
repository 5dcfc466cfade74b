"""Wrong implementations of many kinds: each must FAIL, or the report say what was not asked. The honest twin passes."""

import numpy as np
import pytest
from zoo import inputs, loop, make_layer, textbook, with_settings

import parity
from parity.api import check_grid
from parity.cases.grid import grid

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

UNITS, INPUT_DIM, TIMESTEPS = 5, 3, 12
BFLOAT16 = np.uint32(0xFFFF0000)


def honest(x, layer, mask=None, initial_state=None):
    return loop(textbook(layer), layer, x, mask, initial_state)


def check(candidate, layer, **options):
    """layer: rnn_scratch's, beside which stands the Keras layer with its weights."""
    shape = None if "x" in options else (TIMESTEPS, layer.input_dim)
    return parity.check(candidate, parity.to_keras(layer), input_shape=shape, **options)


def changed(layer, **weights):
    """The same layer with other weights, each a function of the right one."""
    return layer.replace(**{name: change(getattr(layer, name)).astype(layer.dtype) for name, change in weights.items()})


def weights(**changes):
    return lambda x, layer, mask=None, initial_state=None: honest(x, changed(layer, **changes), mask, initial_state)


def function(f):
    return lambda x, layer, mask=None, initial_state=None: loop(textbook(layer, f), layer, x, mask, initial_state)


def output(change):
    """What an honest one returns, spoilt."""

    def candidate(x, layer, mask=None, initial_state=None):
        result = honest(x, layer, mask, initial_state)
        return (change(result[0]), *result[1:]) if isinstance(result, tuple) else change(result)

    return candidate


def only_if(right):
    """Honest where right(x, mask, initial_state), and off by a thousandth where not."""

    def candidate(x, layer, mask=None, initial_state=None):
        y = honest(x, layer, mask, initial_state)
        return y if right(x, mask, initial_state) else y + np.float32(1e-3)

    return candidate


def bfloat16(array):
    return (array.astype(np.float32).view(np.uint32) & BFLOAT16).view(np.float32)


def one(array, change):
    """The same array with one element changed, not in a corner."""
    array = array.copy()
    at = tuple(size // 2 for size in array.shape)
    array[at] = change(array[at])
    return array


# --- functions of x, layer, mask and initial_state ---


def first_step_dropped(x, layer, mask=None, initial_state=None):
    y = honest(
        x[:, 1:] if x.shape[1] > 1 else 0 * x,
        layer,
        mask if mask is None else mask[:, -x.shape[1] + 1 :],
        initial_state,
    )
    return np.concatenate([y[:, :1], y], axis=1) if layer.return_sequences and x.shape[1] > 1 else y


def last_step_dropped(x, layer, mask=None, initial_state=None):
    steps = max(1, x.shape[1] - 1)
    y = honest(x[:, :steps], layer, mask if mask is None else mask[:, :steps], initial_state)
    return np.concatenate([y, y[:, -1:]], axis=1) if layer.return_sequences and steps < x.shape[1] else y


def state_before_last(x, layer, mask=None, initial_state=None):
    """h_{t-2} in place of h_{t-1}."""
    older = []

    def step(x_t, h):
        older.append(h)
        return textbook(layer)(x_t, older[-2] if len(older) > 1 else h)

    return loop(step, layer, x, mask, initial_state)


def rows_mixed(x, layer, mask=None, initial_state=None):
    return honest(np.roll(x, 1, axis=0), layer, mask, initial_state)


def batch_mean(x, layer, mask=None, initial_state=None):
    """One row leaks into the others."""
    return loop(
        lambda x_t, h: textbook(layer)(x_t, h + np.float32(1e-3) * h.mean(axis=0)), layer, x, mask, initial_state
    )


def reversed_in_time(x, layer, mask=None, initial_state=None):
    return honest(x[:, ::-1], layer, mask, initial_state)


ALWAYS_WRONG = {
    "Wh transposed": weights(Wh=np.transpose),
    "bias dropped": weights(b=lambda b: 0 * b),
    "bias off by 1e-5": weights(b=lambda b: b + 1e-5),
    "one Wx off by 1e-3 of it": weights(Wx=lambda W: one(W, lambda w: w * 1.001)),
    "one Wh off by 1e-3 of it": weights(Wh=lambda W: one(W, lambda w: w * 1.001)),
    "one b off by 1e-3 of it": weights(b=lambda b: one(b, lambda w: w * 1.001)),
    "one Wx off by 1e-3": weights(Wx=lambda W: one(W, lambda w: w + 1e-3)),
    "one Wh off by 1e-3": weights(Wh=lambda W: one(W, lambda w: w + 1e-3)),
    "weights in bfloat16": weights(Wx=bfloat16, Wh=bfloat16, b=bfloat16),
    "weights in float16": weights(Wx=np.float16, Wh=np.float16, b=np.float16),
    "relu for tanh": function(lambda z: np.maximum(z, 0)),
    "hard tanh": function(lambda z: np.clip(z, -1, 1)),
    "first step dropped": first_step_dropped,
    "last step dropped": last_step_dropped,
    "h_{t-2} used": state_before_last,
    "rows mixed": rows_mixed,
    "a row leaks": batch_mean,
    "reversed in time": reversed_in_time,
    "NaN": output(lambda y: np.full_like(y, np.nan)),
    "infinity": output(lambda y: np.full_like(y, np.inf)),
    "one NaN": output(lambda y: one(y, lambda _: np.nan)),
    "one infinity": output(lambda y: one(y, lambda _: -np.inf)),
    "zeros": output(np.zeros_like),
    "one element off by 1e-3": output(lambda y: one(y, lambda v: v + 1e-3)),
    "rounded to float16": output(np.float16),
    "rounded to 4 digits": output(lambda y: y.round(4)),
    "right up to 3 steps": only_if(lambda x, *_: x.shape[1] <= 3),
    "right up to 10 steps": only_if(lambda x, *_: x.shape[1] <= 10),
    "right from 4 steps": only_if(lambda x, *_: x.shape[1] >= 4),
    "right for batch 1": only_if(lambda x, *_: len(x) == 1),
    "right above batch 1": only_if(lambda x, *_: len(x) > 1),
}
SHAPES = {
    "time-major": output(lambda y: y.swapaxes(0, 1)),
    "one row": output(lambda y: y[:1]),
    "without batch axis": output(lambda y: y[0]),
    "one more axis": output(lambda y: y[..., None]),
    "one unit too few": output(lambda y: y[..., :-1]),
    "flat": output(np.ravel),
}
TAKES = {
    "x, layer": lambda f: lambda x, layer: f(x, layer),
    "and initial_state": lambda f: lambda x, layer, initial_state=None: f(x, layer, initial_state=initial_state),
}


WAYS = {"seq": ("x, layer", True), "last": ("x, layer", False), "last and state": ("and initial_state", False)}


@pytest.mark.parametrize(("takes", "sequences"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("liar", [*ALWAYS_WRONG.values(), *SHAPES.values()], ids=[*ALWAYS_WRONG, *SHAPES])
def test_always_wrong(liar, takes, sequences):
    report = check(TAKES[takes](liar), make_layer(UNITS, INPUT_DIM, return_sequences=sequences))
    assert report.verdict == "FAIL", str(report)


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("takes", [*TAKES.values(), lambda f: f], ids=[*TAKES, "and mask"])
def test_the_honest_twin_passes(takes, sequences):
    report = check(takes(honest), make_layer(UNITS, INPUT_DIM, return_sequences=sequences))
    assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_square_kernel_transposed(sequences):
    layer = make_layer(UNITS, UNITS, return_sequences=sequences)
    assert check(weights(Wx=np.transpose), layer).verdict == "FAIL"
    assert check(honest, layer).verdict == "PASS"


# --- other activations ---

LOOKALIKES = {
    "gelu": lambda z: 0.5 * z * (1 + np.tanh(np.float32(0.7978845608) * (z + np.float32(0.044715) * z**3))),
    "hard_sigmoid": lambda z: np.clip(np.float32(0.2) * z + np.float32(0.5), 0, 1),
    "sigmoid": lambda z: np.clip(z / 6 + np.float32(0.5), 0, 1),
    "leaky_relu": lambda z: np.where(z < 0, np.float32(0.3) * z, z),
    "elu": lambda z: np.where(z < 0, np.float32(1.01) * np.expm1(z), z),
    "silu": lambda z: z * np.clip(z / 6 + np.float32(0.5), 0, 1),
    "relu6": lambda z: np.maximum(z, 0),
    "softplus": lambda z: np.maximum(z, 0),
    "softmax": lambda z: 1 / (1 + np.exp(-z)),
}


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("name", LOOKALIKES)
def test_activations_that_look_alike(name, sequences):
    layer = make_layer(UNITS, INPUT_DIM, activation=name, return_sequences=sequences)
    assert check(function(LOOKALIKES[name]), layer, x=10 * inputs(layer)).verdict == "FAIL"
    assert check(honest, layer, x=10 * inputs(layer)).verdict == "PASS"


# --- masks and states ---


def mask_ignored(x, layer, mask=None, initial_state=None):
    return honest(x, layer, None, initial_state)


def mask_multiplies_the_input(x, layer, mask=None, initial_state=None):
    return honest(x if mask is None else x * mask[..., None], layer, None, initial_state)


def mask_zeroes_the_output(x, layer, mask=None, initial_state=None):
    y = honest(x, with_settings(layer, return_sequences=True), mask, initial_state)
    y = y if mask is None else y * mask[..., None]
    return y if layer.return_sequences else y[:, -1]


def mask_zeroes_the_state(x, layer, mask=None, initial_state=None):
    live = iter(np.ones(x.shape[1::-1]) if mask is None else mask.T)
    return loop(lambda x_t, h: textbook(layer)(x_t, h) * next(live)[:, None].astype("f"), layer, x, None, initial_state)


def is_padding(mask):
    return mask is None or (np.diff(mask.astype(int), axis=1) <= 0).all()


MASK_LIARS = {
    "mask ignored": mask_ignored,
    "mask multiplies the input": mask_multiplies_the_input,
    "mask zeroes the output": mask_zeroes_the_output,
    "mask zeroes the state": mask_zeroes_the_state,
    "right for right padding": only_if(lambda x, mask, state: is_padding(mask)),
    "right for a zero state": only_if(lambda x, mask, state: state is None or not state.any()),
    "state ignored": lambda x, layer, mask=None, initial_state=None: honest(x, layer, mask),
}


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("liar", MASK_LIARS.values(), ids=MASK_LIARS)
def test_masks_and_states(liar, sequences):
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=sequences)
    assert check(liar, layer).verdict == "FAIL"


@pytest.mark.parametrize("liar", MASK_LIARS.values(), ids=MASK_LIARS)
def test_what_it_does_not_take_is_not_asked(liar):
    """The same liars without the parameters they lie about: right, as far as anybody asked."""
    report = check(lambda x, layer: liar(x, layer), make_layer(UNITS, INPUT_DIM, return_sequences=True))
    assert report.verdict == "PASS"
    assert {"masks", "initial states other than zero"} <= set(report.not_asked)


# --- what is kept between calls ---


def on_first_call(right, wrong):
    calls = []

    def candidate(x, layer):
        calls.append(x)
        return (right if len(calls) == 1 else wrong)(x, layer)

    return candidate


def keeps_state():
    kept = {}

    def candidate(x, layer):
        layer = with_settings(layer, return_sequences=True)
        y = honest(x, layer, None, kept.get(len(x)))
        kept[len(x)] = y[:, -1]
        return y

    return candidate


def test_right_on_the_first_call_only():
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=True)
    off = output(lambda y: y + np.float32(1e-3))
    assert check(on_first_call(honest, off), layer).verdict == "FAIL"
    assert check(on_first_call(honest, honest), layer).verdict == "PASS"


def test_wrong_only_when_asked_the_same_again():
    layer, seen = make_layer(UNITS, INPUT_DIM, return_sequences=True), set()

    def candidate(x, layer):
        known = (x.tobytes(), layer.Wx.tobytes()) in seen
        seen.add((x.tobytes(), layer.Wx.tobytes()))
        return honest(x, layer) + np.float32(1e-3 * known)

    report = check(candidate, layer)
    assert report.verdict == "FAIL"
    assert any("kept between calls" in note for note in report.cases[0].notes)


def test_state_kept_between_calls():
    report = check(keeps_state(), make_layer(UNITS, INPUT_DIM, return_sequences=True))
    assert report.verdict == "FAIL", str(report)


# --- final states ---

STATE_LIARS = {
    "state missing": lambda y, h: y,
    "state twice": lambda y, h: (y, h, h),
    "state of zeros": lambda y, h: (y, 0 * h),
    "state off by 1e-5": lambda y, h: (y, h + np.float32(1e-5)),
    "state of the wrong row": lambda y, h: (y, h[::-1]),
    "state with a time axis": lambda y, h: (y, h[:, None]),
    "state first": lambda y, h: (h, y),
}


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("name", STATE_LIARS)
def test_final_states(name, sequences):
    if name == "state first" and not sequences:
        pytest.skip("the last output is the state")
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=sequences, return_state=True)
    assert check(lambda x, layer: STATE_LIARS[name](*honest(x, layer)), layer).verdict == "FAIL"
    assert check(lambda x, layer: honest(x, layer), layer).verdict == "PASS"


def test_outputs_without_the_state_say_that_the_state_was_not_asked():
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=True, return_state=True)
    x = inputs(layer)
    report = check(honest(x, layer)[0], layer, x=x)
    assert report.verdict == "PASS"
    assert any("state" in what and "final" in what for what in report.not_asked)


# --- outputs computed elsewhere: the first bad step ---


@pytest.mark.parametrize("timestep", [0, 4, TIMESTEPS - 1])
def test_first_divergence_of_one_bad_element(timestep):
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=True)
    x = inputs(layer, 3, TIMESTEPS)
    y = honest(x, layer)
    assert check(y, layer, x=x).verdict == "PASS"
    y[1, timestep, 2] += 1e-4
    report = check(y, layer, x=x)
    first = report.first_divergence
    assert (report.verdict, first.timestep, first.batch, first.unit) == ("FAIL", timestep, 1, 2)
    assert first.got == y[1, timestep, 2]
    assert abs(first.expected - first.got) == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
def test_first_divergence_of_what_goes_wrong_from_some_step_on(go_backwards):
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=True, go_backwards=go_backwards)
    x, wrong = inputs(layer, 3, TIMESTEPS), changed(layer, Wh=np.transpose)
    y, count = None, iter(range(TIMESTEPS))
    y = loop(lambda x_t, h: textbook(layer if next(count) < 7 else wrong)(x_t, h), layer, x)
    report = check(y, layer, x=x)
    assert (report.verdict, report.first_divergence.timestep) == ("FAIL", 7)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        *((name, 0) for name in ("bias dropped", "relu for tanh", "first step dropped", "reversed in time", "NaN")),
        *(("Wh transposed", 1), ("h_{t-2} used", 1), ("last step dropped", TIMESTEPS - 1)),
    ],
)
def test_first_divergence_of_a_liar(name, first):
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=True)
    x = inputs(layer, 3, TIMESTEPS)
    report = check(ALWAYS_WRONG[name](x, layer), layer, x=x)
    assert (report.verdict, report.first_divergence.timestep) == ("FAIL", first)


def test_only_an_array_says_that_nothing_else_was_asked():
    layer = make_layer(UNITS, INPUT_DIM)
    x = inputs(layer)
    report = check(honest(x, layer), layer, x=x)
    assert any("second call" in what for what in report.not_asked)


# --- one weight, in every size of the grid ---

SIZES = [(1, 1), (1, 31), (2, 4), (3, 1), (8, 4), (8, 31), (64, 1), (64, 31), (257, 1), (257, 31)]
KINDS = {"relative": lambda w: w * np.float32(1.001), "absolute": lambda w: w + np.float32(1e-3)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("takes", TAKES)
@pytest.mark.parametrize(("units", "input_dim"), SIZES, ids=lambda size: str(size))
def test_one_weight_off_by_a_thousandth(units, input_dim, takes, kind):
    """Any one of them, by the probes alone: the sequence itself is too short and too wide to show it."""
    layer = make_layer(units, input_dim, return_sequences=True)
    rng = np.random.default_rng([units, input_dim])
    for name in ("Wx", "Wh") if units * input_dim < 1000 else ("Wh",):
        at = tuple(rng.integers(0, size) for size in getattr(layer, name).shape)

        def liar(x, layer, initial_state=None, name=name, at=at):
            layer = layer.replace()
            array = getattr(layer, name).copy()
            array[at] = KINDS[kind](array[at])
            setattr(layer, name, array)
            return honest(x, layer, None, initial_state)

        report = probe(TAKES[takes](liar), layer)
        assert report.verdict == "FAIL", (name, at, str(report))
    assert probe(TAKES[takes](honest), layer).verdict == "PASS"


def probe(candidate, layer):
    return parity.check(candidate, parity.to_keras(layer), inputs(layer, 1, 1))


# --- through the grid ---

GRID = [case for case in grid() if case.id.startswith("simple_rnn-b2-t10-i4-u8")]
CASES = [case for case in GRID if case.layer.activation == "tanh" and case.layer.dtype == "float32" and not case.needs]


@pytest.mark.parametrize(
    "name",
    ["Wh transposed", "bias dropped", "one Wx off by 1e-3 of it", "one Wh off by 1e-3 of it", "NaN", "rows mixed"],
)
def test_grid(name):
    report = check_grid(ALWAYS_WRONG[name], CASES)
    verdicts = [case.verdict for case in report.cases]
    biased = [case.layer.cell.use_bias for case in CASES]
    assert verdicts == ["FAIL" if name != "bias dropped" or bias else "PASS" for bias in biased], str(report)


def test_grid_honest():
    report = check_grid(honest, CASES)
    assert report.verdict == "PASS", str(report)
    assert len(report.cases) == len(CASES) > 4


def test_grid_without_masks_says_so():
    masked = [case for case in GRID if case.mask is not None][:1]
    report = check_grid(lambda x, layer: honest(x, layer), CASES[:1] + masked)
    assert report.verdict == "PASS"
    assert any("mask" in what for what in report.not_asked)


MASK_LIARS = {
    "a row all masked": lambda y, x, mask: np.where(mask.any(axis=1)[:, None, None], y, np.float32(0.5)),
    "NaN at a masked step": lambda y, x, mask: y + 0 * x.sum(axis=-1, keepdims=True),
}


@pytest.mark.parametrize("name", MASK_LIARS)
def test_what_only_some_masks_show(name):
    layer = make_layer(UNITS, INPUT_DIM, return_sequences=True)

    def liar(x, layer, mask=None):
        y = layer(x, mask=mask)
        return y if mask is None else MASK_LIARS[name](y, x, mask)

    assert check(liar, layer).verdict == "FAIL"
    assert check(lambda x, layer, mask=None: layer(x, mask=mask), layer).verdict == "PASS"
