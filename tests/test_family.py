"""LSTM, GRU, the wrappers and whole models: the forward pass against the real Keras, and the check on right and wrong
implementations of them."""

import functools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from keras import layers as L  # noqa: N812

import parity
from parity.adapters.keras.oracle import Oracle
from parity.candidates.functions import scratch
from parity.cases.case import Case
from parity.cases.drawing import make_mask, randomized
from parity.cases.probes import probes
from parity.given.candidate import as_candidate
from parity.judging.judge import examine
from parity.judging.tally import Tolerance
from parity.scoring import peers
from rnn_scratch import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    GRUCell,
    LSTMCell,
    Masking,
    Sequential,
    SimpleRNN,
    SimpleRNNCell,
    TimeDistributed,
)

GATES = {"simple_rnn": 1, "lstm": 4, "gru": 3, "gru_before": 3}
CELLS = {
    "simple_rnn": SimpleRNNCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
    "gru_before": functools.partial(GRUCell, reset_after=False),
}
LAYERS = {
    "simple_rnn": SimpleRNN,
    "lstm": LSTM,
    "gru": GRU,
    "gru_before": functools.partial(GRU, reset_after=False),
}


def blank(kind, units, input_dim):
    rows = GATES[kind] * units
    b = np.zeros((2, rows) if kind == "gru" else rows, "f")
    return np.zeros((rows, input_dim), "f"), np.zeros((rows, units), "f"), b


def make(kind, units=5, input_dim=3, seed=0, dtype="float32", use_bias=True, **settings):
    Wx, Wh, b = (array.astype(dtype) for array in blank(kind, units, input_dim))
    layer = LAYERS[kind](Wx, Wh, b if use_bias else None, **settings)
    return randomized(layer, np.random.default_rng(seed))


def cell(kind, units, input_dim, seed):
    return randomized(RNN(CELLS[kind](*blank(kind, units, input_dim))), np.random.default_rng(seed)).layers[0].cell


def inputs(batch=2, timesteps=7, features=3, seed=1, dtype="float32"):
    return np.random.default_rng(seed).standard_normal((batch, timesteps, features)).astype(dtype)


def states_for(layer, batch, seed=2):
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(-1, 1, (batch, units)).astype(layer.dtype) for units in layer.state_units)


def keras_outputs(layer, x, mask=None, initial_state=None):
    """Keras's own, through the adapter."""
    k = parity.to_keras(layer)
    return Oracle(k, parity.from_keras(k)).ask(Case("case", layer, x, mask, initial_state)).outputs


def assert_like_keras(layer, x, mask=None, initial_state=None):
    atol = {"float32": 2e-6, "float64": 1e-14}[layer.dtype.name]
    got = layer(x, mask=mask, initial_state=initial_state)
    expected = keras_outputs(layer, x, mask, initial_state)
    got = got if isinstance(got, tuple) else (got,)
    assert [y.shape for y in got] == [y.shape for y in expected] == list(layer.output_shapes(x.shape))
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


SETTINGS = {
    "plain": {},
    "return_state": {"return_state": True},
    "go_backwards": {"go_backwards": True},
    "unroll": {"unroll": True},
    "no_bias": {"use_bias": False},
    "float64": {"dtype": "float64"},
    "relu": {"activation": "relu"},
    "hard_sigmoid": {"recurrent_activation": "hard_sigmoid"},
    "softmax": {"recurrent_activation": "softmax"},
}
KINDS = ["lstm", "gru", "gru_before"]


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_settings(kind, setting, sequences):
    layer = make(kind, return_sequences=sequences, **SETTINGS[setting])
    x = inputs(dtype=layer.dtype.name)
    assert_like_keras(layer, x)
    assert_like_keras(layer, x, initial_state=states_for(layer, 2))


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize(
    ("batch", "timesteps", "features", "units"), [(1, 1, 2, 3), (3, 1, 4, 2), (1, 9, 5, 1), (33, 4, 1, 16)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind, batch, timesteps, features, units, sequences):
    layer = make(kind, units, features, return_sequences=sequences)
    assert_like_keras(layer, inputs(batch, timesteps, features))


@pytest.mark.parametrize(
    "settings", [{}, {"go_backwards": True}, {"zero_output_for_mask": True, "return_state": True}], ids=str
)
@pytest.mark.parametrize("mask", ["leading", "mixed", "trailing", "all"])
@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks(kind, sequences, mask, settings):
    layer = make(kind, return_sequences=sequences, **settings)
    x = inputs(4)
    steps = make_mask(np.random.default_rng(3), mask, 4, 7)
    x[~steps] = np.nan
    assert_like_keras(layer, x, steps)
    assert_like_keras(layer, x, steps, states_for(layer, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_without_the_batch_axis(kind):
    layer = make(kind, return_sequences=True, return_state=True)
    x = inputs(1)
    for alone, several in zip(layer(x[0]), layer(x), strict=True):
        assert np.array_equal(alone, several[0])


@pytest.mark.parametrize("kind", ["simple_rnn", *KINDS])
def test_stateful_over_calls(kind):
    layer = make(kind, stateful=True, return_sequences=True)
    whole = make(kind, return_sequences=True)(inputs())
    pieces = [layer(inputs()[:, part]) for part in (slice(0, 3), slice(3, 7))]
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    layer.reset_state()
    assert np.array_equal(layer(inputs()[:, :3]), whole[:, :3])


def both(forward="lstm", backward="lstm", units=(4, 4), **settings):
    merge = {"merge_mode": settings.pop("merge_mode", "concat")}
    f, b = (
        make(kind, n, 3, seed, **settings)
        for seed, (kind, n) in enumerate(zip((forward, backward), units, strict=True))
    )
    b.go_backwards = True
    return Bidirectional(f, b, **merge)


WRAPPERS = {
    **{
        f"bidirectional_{mode}": lambda mode=mode, **s: both(merge_mode=mode, **s)
        for mode in ("concat", "sum", "mul", "ave", None)
    },
    "bidirectional_of_two_kinds": lambda **s: both("gru", "simple_rnn", (4, 2), **s),
    "stack": lambda **s: RNN([cell("lstm", 4, 3, 0), cell("gru", 2, 4, 1)], **s),
    "stack_of_three": lambda **s: RNN(
        [cell("simple_rnn", 4, 3, 0), cell("gru_before", 2, 4, 1), cell("lstm", 5, 2, 2)], **s
    ),
}


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("settings", [{}, {"return_state": True}], ids=["y", "states"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(name, settings, sequences):
    layer = WRAPPERS[name](return_sequences=sequences, **settings)
    x = inputs(4)
    assert_like_keras(layer, x)
    assert_like_keras(layer, x, initial_state=states_for(layer, 4))
    for kind in ("leading", "trailing", "mixed"):
        assert_like_keras(layer, x, make_mask(np.random.default_rng(4), kind, 4, 7))


def dense(units, input_dim, seed, **settings):
    blank = Dense(np.zeros((units, input_dim), "f"), np.zeros(units, "f"), **settings)
    return randomized(blank, np.random.default_rng(seed))


def embedding(rows=11, width=3, seed=5, **settings):
    return randomized(Embedding(np.zeros((rows, width), "f"), **settings), np.random.default_rng(seed))


def ids(batch=2, timesteps=7):
    x = np.random.default_rng(6).integers(0, 11, (batch, timesteps)).astype("int32")
    x[1, 4:] = 0
    return x


def padded():
    x = inputs()
    x[1, 5:] = 0
    return x


MODELS = {
    "embedding, bidirectional, dense": (
        lambda: [
            embedding(mask_zero=True),
            both(return_sequences=True),
            make("gru", 2, 8),
            dense(5, 2, 7, activation="softmax"),
        ],
        ids,
    ),
    "embedding without mask": (
        lambda: [embedding(), make("lstm", return_sequences=True), TimeDistributed(dense(2, 5, 8))],
        ids,
    ),
    "masking, stack, dropout, activation": (
        lambda: [
            Masking(),
            make("simple_rnn", return_sequences=True),
            Dropout(),
            RNN([cell("lstm", 4, 5, 9), cell("gru", 2, 4, 10)], return_sequences=True),
            Activation("tanh"),
        ],
        padded,
    ),
    "backwards, state returned": (
        lambda: [make("gru", return_sequences=True, go_backwards=True), make("lstm", 2, 5, return_state=True)],
        inputs,
    ),
    "no merge": (
        lambda: [
            make("lstm", return_sequences=True),
            Bidirectional(make("gru", 2, 5), make("gru", 2, 5, 3, go_backwards=True), merge_mode=None),
        ],
        inputs,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    layers, x = MODELS[name]
    model = Sequential(layers())
    x = x()
    assert_like_keras(model, x)
    outputs = model.outputs(x)
    last = list(outputs.values())[-1]
    for mine, theirs in zip(*(y if isinstance(y, tuple) else (y,) for y in (last, model(x))), strict=True):
        assert np.array_equal(mine, theirs)
    seen = Oracle(parity.to_keras(model), model).ask(Case("case", model, x)).layers
    for layer, y in seen.items():
        np.testing.assert_allclose(outputs[layer], y, rtol=0, atol=2e-6)
    back = parity.from_keras(parity.to_keras(model))
    assert list(back.parts) == list(model.parts)
    assert all(np.array_equal(back.weights[key], array) for key, array in model.weights.items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: LSTM(np.zeros((6, 3)), np.zeros((6, 2))), "Wx: expected a multiple of 4 rows"),
        (lambda: GRU(np.zeros((6, 3)), np.zeros((6, 2)), np.zeros(6)), r"b: expected shape \(2, 6\)"),
        (
            lambda: GRU(np.zeros((6, 3)), np.zeros((6, 2)), np.zeros((2, 6)), reset_after=False),
            r"b: expected shape \(6,\)",
        ),
        (lambda: LSTM(np.zeros((8, 3)), np.zeros((8, 3))), r"Wh: expected shape \(8, 2\)"),
        (lambda: embedding()(np.array([[0, 11]])), "token ids from 0 to 10; received 11"),
        (lambda: embedding()(np.array([[-1, 1]])), "token ids from 0 to 10; received -1"),
        (lambda: embedding()(np.array([[0.5, 1]])), "whole numbers"),
        (lambda: embedding()(np.array([[2**32 + 1, 1]])), "received 4294967297"),
        (lambda: embedding()(np.array([[np.nan, 1]])), "whole numbers"),
        (lambda: both(merge_mode="max"), "merge_mode: expected one of"),
        (lambda: both(units=(4, 2), merge_mode="sum"), "backward: expected 4 units to sum; received 2"),
        (lambda: RNN([cell("lstm", 4, 3, 0), cell("gru", 2, 3, 1)]), "cells: expected input_dim 4"),
        (lambda: RNN([]), "cells: expected at least one"),
        (lambda: TimeDistributed(make("lstm")), "expected one without states"),
        (lambda: Sequential([]), "layers: expected at least one"),
        (lambda: Sequential([make("lstm"), dense(2, 99, 0)]), "layers: dense takes 99 features; lstm puts out"),
        (lambda: Sequential([make("lstm"), make("gru")]), "layers: gru takes .* lstm puts out 2 axes"),
        (lambda: Sequential([make("lstm", return_state=True), dense(2, 3, 0)]), "layers: expected one output of lstm"),
        (lambda: dense(2, 3, 0)(np.zeros((4, 2))), r"x: expected shape \(batch, ..., 3\)"),
        (
            lambda: make("lstm")(inputs(), initial_state=np.zeros((2, 5))),
            r"initial_state: expected 2 \(h, c\); received 1",
        ),
    ],
)
def test_bad_input_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# --- the check on correct implementations: none ever leaves its ball ---


def reversed_sums(x, layer, mask=None, initial_state=None):
    """The same layer with its features and units in the opposite order: every sum is taken the other way round."""
    wx, wh, b = layer.cell.Wx, layer.cell.Wh, layer.cell.b
    n, u = len(layer.cell.gates), layer.units
    Wx = wx.reshape(n, u, -1)[:, ::-1, ::-1].reshape(wx.shape)
    Wh = wh.reshape(n, u, u)[:, ::-1, ::-1].reshape(wh.shape)
    turned = b.reshape(-1, n, u)[..., ::-1].reshape(b.shape)
    other = layer.replace(**{"Wx": Wx, "Wh": Wh, **({"b": turned} if layer.cell.use_bias else {})})
    given = initial_state if isinstance(initial_state, tuple) else (initial_state,)
    states = None if initial_state is None else tuple(s[:, ::-1] for s in given)
    y = other(x[..., ::-1], mask=mask, initial_state=states)
    return tuple(part[..., ::-1] for part in y) if isinstance(y, tuple) else y[..., ::-1]


def random_case(kind, seed):
    """Sizes log-uniform, weights and inputs of several scales, sequences and last outputs, now and then a mask."""
    rng = np.random.default_rng([seed, len(kind)])
    batch, timesteps, features, units = (int(np.exp(rng.uniform(0, np.log(top)))) for top in (5, 13, 65, 65))
    sequences = bool(rng.random() < 0.7)
    settings = {"return_sequences": sequences, "go_backwards": bool(rng.random() < 0.2)}
    if kind == "bidirectional":
        layer = Bidirectional(
            *(LSTM(*blank("lstm", units, features), **{**settings, "go_backwards": back}) for back in (False, True))
        )
    elif kind == "stack":
        layer = RNN([LSTMCell(*blank("lstm", units, features)), GRUCell(*blank("gru", 3, units))], **settings)
        timesteps = min(timesteps, 5)
    else:
        layer = LAYERS[kind](*blank(kind, units, features), **settings)
    layer = randomized(layer, rng, str(rng.choice(["normal", "keras", "uniform", "chaotic"])))
    scale = np.float32(rng.choice([0.1, 0.5, 1, 1, 2]))
    layer = layer.replace(**{name: scale * array for name, array in layer.weights.items()})
    x = (rng.choice([0.01, 1, 10]) * rng.standard_normal((batch, timesteps, features))).astype("f")
    mask = make_mask(rng, "mixed", batch, timesteps) if rng.random() < 0.2 else None
    states = states_for(layer, batch, seed) if rng.random() < 0.3 else None
    return Case(f"{kind} {seed}", layer, x, mask, states)


@pytest.mark.parametrize("kind", [*LAYERS, "bidirectional", "stack"])
def test_correct_evaluations_never_leave_their_ball(kind):
    """300 random configurations; by rnn_scratch, in the opposite order, by Keras, and by the libraries that are there:
    `pytest -rP -k never_leave_their_ball` prints how many and how far off."""
    outside, largest = [], Counter()
    evaluations = Counter()
    for seed in range(300):
        case = random_case(kind, seed)
        candidates = {"rnn_scratch": scratch}
        if kind in LAYERS:
            candidates["the opposite order"] = reversed_sums
            candidates |= peers.of(case.layer, case.mask, case.initial_state)
        asked = [(name, as_candidate(function), case) for name, function in candidates.items()]
        if seed % 3 == 0:
            k = parity.to_keras(case.layer)
            own = parity.from_keras(k)
            asked.append(("Keras", Oracle(k, own), replace(case, layer=own)))
        for name, candidate, question in asked:
            finding = examine(candidate, question, Tolerance())
            evaluations[name] += 1
            largest[name] = max(largest[name], finding.proof.worst)
            if finding.verdict == "FAIL":
                outside.append((case.id, name, finding.tally.first))
    print({name: f"{number}, largest {largest[name]:.3g}" for name, number in evaluations.items()})
    assert not outside, outside[:3]
    assert evaluations["rnn_scratch"] == 300
    assert evaluations["Keras"] == 100
    assert all(0 < ratio <= 1 for ratio in largest.values())


# --- wrong ones ---


def gates(layer, order):
    u = layer.units
    rows = np.concatenate([np.arange(g * u, (g + 1) * u) for g in order])
    return layer.replace(
        **{name: array[..., rows] if name == "b" else array[rows] for name, array in layer.weights.items()}
    )


def per_gate_transposed(layer):
    n, u = len(layer.cell.gates), layer.units
    return layer.replace(Wh=layer.Wh.reshape(n, u, u).swapaxes(1, 2).reshape(n * u, u))


def bias(layer, change):
    b = layer.b.copy()
    change(b, layer.units)
    return layer.replace(b=b)


def off_by_a_thousandth(layer):
    Wh = layer.Wh.copy()
    Wh[layer.units, 0] *= 1.001
    return layer.replace(Wh=Wh)


def other_reset(layer):
    reset_after = not layer.reset_after
    b = layer.b.sum(axis=0) if layer.b.ndim == 2 else np.stack([layer.b, 0 * layer.b])
    return GRU(layer.Wx, layer.Wh, b, reset_after=reset_after, **layer.settings)


def without_cell_activation(layer):
    class Bare(LSTMCell):
        def carry(self, i, f, g, o, c, out=None):
            c = f * c + i * g
            return o * c, c

        def update(self, p, h, c, out=None):
            return self.carry(*self.gates_of(p, h), c)

    twin = layer.replace()
    twin.cell = Bare(layer.Wx, layer.Wh, layer.b)
    return twin


WRONG = {
    ("lstm", "gate-order-iofc"): lambda layer: gates(layer, (0, 3, 1, 2)),
    ("lstm", "gate-order-icfo"): lambda layer: gates(layer, (0, 2, 1, 3)),
    ("lstm", "recurrent-kernel-not-transposed"): per_gate_transposed,
    ("lstm", "forget-bias-added"): lambda layer: bias(layer, lambda b, u: b[u : 2 * u].__iadd__(1)),
    ("lstm", "cell-activation-missing"): without_cell_activation,
    ("lstm", "one-weight"): off_by_a_thousandth,
    ("gru", "gate-order-rzh"): lambda layer: gates(layer, (1, 0, 2)),
    ("gru", "recurrent-kernel-not-transposed"): per_gate_transposed,
    ("gru", "recurrent-bias-missing"): lambda layer: bias(layer, lambda b, u: b[1].fill(0)),
    ("gru", "bias-rows-swapped"): lambda layer: layer.replace(b=layer.b[::-1]),
    ("gru", "reset-before"): other_reset,
    ("gru", "one-weight"): off_by_a_thousandth,
    ("gru_before", "reset-after"): other_reset,
}


@pytest.mark.parametrize(("kind", "name"), WRONG, ids=str)
@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
def test_a_wrong_port_fails_and_names_no_other_as_wrong(kind, name, sequences):
    layer = make(kind, return_sequences=sequences)
    case = Case("case", layer, inputs())

    def port(x, layer, mask=None, initial_state=None):
        return WRONG[kind, name](layer)(x, mask=mask, initial_state=initial_state)

    def verdicts(candidate):
        asked = [case, *probes(case, candidate.takes, 0)]
        return {examine(candidate, question, Tolerance()).verdict for question in asked}

    assert verdicts(as_candidate(scratch)) == {"PASS"}
    assert "FAIL" in verdicts(as_candidate(port))


# --- candidates of several kinds ---


def test_a_step_function_of_two_states():
    layer = make("lstm", return_sequences=True)
    k = parity.to_keras(layer)

    def step(x_t, state, layer):
        return layer.cell.update(layer.cell.project(x_t), *state)

    def swapped(x_t, state, layer):
        h, c = layer.cell.update(layer.cell.project(x_t), *state[::-1])
        return h, (h, c)

    assert parity.check(step, k, inputs()).verdict == "PASS"
    assert parity.check(swapped, k, inputs()).verdict == "FAIL"


def test_the_layer_table_says_where_it_starts():
    model = Sequential([embedding(mask_zero=True), both(return_sequences=True), make("gru", 2, 8), dense(4, 2, 7)])
    k = parity.to_keras(model)

    def right(x, layer):
        return layer.outputs(x)

    def wrong(x, layer):
        outputs, y = {}, x
        for name, part in layer.parts.items():
            y = part(y, mask=x != 0) if part.state_units else part(y)
            y = y * np.float32(1 + 1e-4) if name == "gru" else y
            outputs[name] = y
        return outputs

    def table(candidate):
        (case,) = parity.check(candidate, k, input_shape=(7,)).cases
        return case.verdict, [(layer.name, layer.verdict, layer.inputs_differed) for layer in case.layers]

    names = ["embedding", "bidirectional", "gru", "dense"]
    assert table(right) == ("PASS", [(name, "PASS", False) for name in names])
    assert table(wrong) == (
        "FAIL",
        [*((name, "PASS", False) for name in names[:2]), ("gru", "FAIL", False), ("dense", "PASS", True)],
    )
    last = parity.check(lambda x, layer: layer(x), k, input_shape=(7,))
    assert last.verdict == "PASS"
    assert [layer.verdict for layer in last.cases[0].layers][:3] == ["not seen"] * 3
    assert parity.check(lambda x, layer: layer(x) * np.float32(1.01), k, input_shape=(7,)).verdict == "FAIL"
    with pytest.raises(parity.CandidateError, match="nobody: no such layer; the model has embedding"):
        parity.check(lambda x, layer: {"nobody": layer(x)}, k, input_shape=(7,))


def test_narrower_weights_are_compatible_with_that_and_fail():
    layer = make("gru", 8, 4, return_sequences=True)

    def rounded(x, layer):
        return layer.replace(**{name: array.astype("float16").astype("f") for name, array in layer.weights.items()})(x)

    report = parity.check(rounded, parity.to_keras(layer), inputs(features=4))
    assert report.verdict == "FAIL"
    assert any(note.startswith("compatible with") for note in report.cases[0].notes)
    report = parity.check(lambda x, layer: layer(x) * np.float32(1.5), parity.to_keras(layer), inputs(features=4))
    assert not any(note.startswith("compatible with") for note in report.cases[0].notes)


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_policies(kind, policy):
    layer = getattr(L, kind)(5, return_sequences=True, dtype=policy, recurrent_initializer="zeros")
    report = parity.check(lambda x, layer: layer(x), layer, input_shape=(6, 3))
    assert report.verdict == "PASS", str(report)
    scratch_layer = parity.from_keras(layer)
    assert scratch_layer.dtype.name == policy.removeprefix("mixed_")

    def wrong(x, layer):
        return layer.replace(Wh=layer.Wh * layer.dtype.type(0.5))(x)

    assert parity.check(wrong, layer, input_shape=(6, 3)).verdict == "FAIL"
