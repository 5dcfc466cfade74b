"""The catalogue, the diagnosis of a FAIL and the blind spots of a PASS: on the catalogue's own wrong layers, and on
ports that somebody wrote by hand."""

import importlib
import itertools
import pkgutil

import keras
import numpy as np
import pytest
from zoo import make_layer

import parity
from parity.cases.case import Case
from parity.cases.drawing import randomized
from parity.cases.grid import grid
from parity.explaining.blind_spots import adequacy
from parity.explaining.causes import diagnose, is_pair
from parity.explaining.facts import facts
from parity.explaining.functions import computed, differ
from parity.explaining.weights_in_effect import in_effect
from parity.given.candidate import as_candidate
from parity.judging.judge import examine
from parity.judging.tally import Tolerance
from parity.mistakes import __path__ as mistakes_package
from parity.mistakes.catalogue import FAMILIES, MISTAKES
from parity.mistakes.wrong_cases import WrongCases
from parity.scoring.asking import Function, Wrong, findings, questions
from parity.scoring.counts import Score
from parity.scoring.defects import DEFECTS
from parity.scoring.mistakes import mistakes
from rnn_scratch import GRU, LSTM, SimpleRNN

IDS = [
    "kernel-not-transposed",
    "recurrent-kernel-not-transposed",
    "kernels-swapped",
    "bias-missing",
    "bias-added-twice",
    "recurrence-missing",
    "recurrent-bias-instead-of-sum",
    "activation-missing",
    "activation-twice",
    "activation-wrong",
    "approximate-activation",
    "time-reversed",
    "go-backwards-ignored",
    "backward-output-reordered",
    "off-by-one-step",
    "last-step-only-wrong-end",
    "first-output-for-last",
    "time-major",
    "state-not-reset",
    "state-reset-between-calls",
    "state-leaks-across-batch",
    "initial-state-ignored",
    "mask-ignored",
    "mask-assumes-right-padding",
    "mask-zeroes-output",
    "mask-resets-state",
    "mask-multiplies",
    "mask-not-reversed",
    "reduced-precision",
    "weights-transposed-on-save",
    "stale-weights",
    "gate-order-iofc",
    "gate-order-icfo",
    "gate-order-ifoc",
    "gate-order-cfoi",
    "gate-order-of-one-array",
    "hidden-and-cell-swapped",
    "forget-bias-added",
    "cell-activation-missing",
    "hard-sigmoid-for-sigmoid",
    "sigmoid-for-hard-sigmoid",
    "hard-sigmoid-keras2",
    "hard-sigmoid-keras3",
    "coupled-gates",
    "peepholes-added",
    "gate-order-rzh",
    "reset-before",
    "reset-after",
    "recurrent-bias-missing",
    "bias-rows-swapped",
    "bias-rows-summed",
    "update-gate-complemented",
    "halves-swapped",
    "directions-exchanged",
    "backward-half-not-reversed",
    "merge-mode-wrong",
    "mask-zero-output-missing",
    "layer-skipped",
    "layers-swapped",
]

SMALL = [
    case
    for case in grid({"batch": [2], "timesteps": [10, 3], "weights": ["normal"]})
    if case.layer.dtype == np.float32 and case.x.size <= 400
]


def keras2(case):
    """hard_sigmoid as Keras 2 has it; nothing in the grid is of Keras 2."""
    cell = case.layer.cell
    return LSTM(cell.Wx, cell.Wh, cell.b, recurrent_activation="hard_sigmoid_keras2", return_sequences=True)


def first_case(name):
    """The first small case of the grid on which the mistake is another function."""
    for case in SMALL:
        if name == "hard-sigmoid-keras3" and case.layer.kind == "lstm":
            case = type(case)("keras 2", keras2(case), case.x)
        for question in questions(case, frozenset({"layer", "mask", "initial_state"})):
            if question.rows or question.id.endswith("lattice"):
                continue
            for label, wrong in MISTAKES[name].variants(question).items():
                if differ(question, wrong):
                    return case, label
    raise AssertionError(f"no case of the grid shows {name}")


def test_every_mistake_that_is_known_is_in_the_catalogue():
    assert set(IDS) <= set(MISTAKES)
    assert all(MISTAKES[name].common for name in IDS)
    assert all(m.what and m.fix and not m.fix.endswith(".") for m in MISTAKES.values())


def test_every_family_is_in_the_catalogue_and_no_id_stands_twice():
    modules = [
        importlib.import_module(f"parity.mistakes.{m.name}")
        for m in pkgutil.iter_modules(mistakes_package)
        if m.name != "__main__"
    ]
    families = [module.FAMILY for module in modules if "FAMILY" in vars(module)]
    assert set(families) == set(FAMILIES)
    assert [mistake.id for family in FAMILIES for mistake in family.mistakes] == list(MISTAKES)


def test_two_mistakes_together():
    """The second one is made of what the first left; what changes nothing is left out."""
    rng = np.random.default_rng(0)
    layer = SimpleRNN(*(rng.standard_normal(shape).astype("f") for shape in ((3, 3), (3, 3), 3)))
    wrong = WrongCases(Case("c", layer, np.zeros((1, 2, 3), "f")))
    transposed, swapped, none = ("recurrent-kernel-not-transposed", ""), ("kernels-swapped", ""), ("reset-after", "")
    np.testing.assert_array_equal(wrong.composed([transposed, swapped]).layer.Wx, layer.Wh.T)
    np.testing.assert_array_equal(wrong.composed([swapped, transposed]).layer.Wx, layer.Wh)
    np.testing.assert_array_equal(wrong.composed([transposed, none]).layer.Wh, layer.Wh.T)
    np.testing.assert_array_equal(wrong.composed([none, transposed]).layer.Wh, layer.Wh.T)
    assert wrong.composed([none]) is wrong.composed([]) is None


@pytest.mark.parametrize("name", IDS)
def test_a_mistake_is_caught_and_named(name, monkeypatch):
    monkeypatch.setattr("parity.explaining.fitted.FIT_SECONDS", 60.0)  # a limit for users, not for a busy machine
    case, label = first_case(name)
    found = findings(Wrong([(name, label)]), case)
    assert any(finding.verdict == "FAIL" for finding in found)
    causes = diagnose(found).causes or in_effect(found).causes
    assert name in [cause.id for cause in causes]
    honest = findings(Wrong([]), case)
    assert all(finding.verdict == "PASS" for finding in honest)
    assert [blind for blind in adequacy(honest, name).blind if not blind.same] == []


# --- ports by hand ---


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gru_by_hand(order="zrh", reset_after=True, complement=False):
    """A GRU as one writes it, with the blocks of the gates in that order."""

    def forward(x, layer):
        u, Wx, Wh, (b, b_h) = layer.units, layer.Wx, layer.Wh, layer.b
        at = {gate: slice(n * u, (n + 1) * u) for n, gate in enumerate(order)}
        h, outputs = np.zeros((len(x), u), "f"), []
        for t in range(x.shape[1]):
            p, q = x[:, t] @ Wx.T + b, h @ Wh.T + b_h
            z, r = (sigmoid(p[:, at[gate]] + q[:, at[gate]]) for gate in "zr")
            after = r * q[:, at["h"]] if reset_after else (r * h) @ Wh[at["h"]].T + b_h[at["h"]]
            n = np.tanh(p[:, at["h"]] + after)
            h = (1 - z) * h + z * n if complement else z * h + (1 - z) * n
            outputs.append(h)
        return np.stack(outputs, axis=1) if layer.return_sequences else h

    return forward


def lstm_by_hand(order="ifco", forget=0.0, activation=np.tanh):
    def forward(x, layer):
        u = layer.units
        at = {gate: slice(n * u, (n + 1) * u) for n, gate in enumerate(order)}
        h, c, outputs = np.zeros((len(x), u), "f"), np.zeros((len(x), u), "f"), []
        for t in range(x.shape[1]):
            z = x[:, t] @ layer.Wx.T + h @ layer.Wh.T + layer.b
            i, f, o = sigmoid(z[:, at["i"]]), sigmoid(z[:, at["f"]] + np.float32(forget)), sigmoid(z[:, at["o"]])
            c = f * c + i * np.tanh(z[:, at["c"]])
            h = o * activation(c)
            outputs.append(h)
        return np.stack(outputs, axis=1) if layer.return_sequences else h

    return forward


def rnn_by_hand(change=lambda h: h, before=lambda states: states[-1]):
    def forward(x, layer):
        states, outputs = [np.zeros((len(x), layer.units), "f")], []
        for t in range(x.shape[1]):
            states.append(np.tanh(x[:, t] @ layer.Wx.T + before(states) @ layer.Wh.T + layer.b))
            outputs.append(change(states[-1]))
        return np.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]

    return forward


def time_major(x, layer):
    return layer(x.swapaxes(0, 1)).swapaxes(0, 1) if layer.return_sequences else layer(x.swapaxes(0, 1))


def half(array):
    return array.astype("float16").astype("f")


PORTS = {
    "gate-order-rzh": ("gru", gru_by_hand("rzh")),
    "gate-order-rhz": ("gru", gru_by_hand("rhz")),
    "reset-before": ("gru", gru_by_hand(reset_after=False)),
    "update-gate-complemented": ("gru", gru_by_hand(complement=True)),
    "gate-order-iofc": ("lstm", lstm_by_hand("iofc")),
    "gate-order-cfoi": ("lstm", lstm_by_hand("cfoi")),
    "forget-bias-added": ("lstm", lstm_by_hand(forget=1.0)),
    "cell-activation-missing": ("lstm", lstm_by_hand(activation=lambda c: c)),
    "activation-twice": ("simple_rnn", rnn_by_hand(change=np.tanh)),
    "off-by-one-step": ("simple_rnn", rnn_by_hand(before=lambda states: states[max(0, len(states) - 2)])),
    "recurrence-missing": ("simple_rnn", rnn_by_hand(before=lambda states: states[0])),
    "time-major": ("simple_rnn", time_major),
    "time-reversed": ("simple_rnn", lambda x, layer: layer(x[:, ::-1])),
    "reduced-precision": (
        "simple_rnn",
        lambda x, layer: layer.replace(Wx=half(layer.Wx), Wh=half(layer.Wh), b=half(layer.b))(x),
    ),
}


def keras_layer(kind, units=5, input_dim=3, seed=0, **settings):
    settings = {"return_sequences": True, **settings}
    gates = {"simple_rnn": 1, "lstm": 4, "gru": 3}[kind]
    blank = (np.zeros(s, "f") for s in ((gates * units, input_dim), (gates * units, units)))
    bias = np.zeros((2, 3 * units) if kind == "gru" else gates * units, "f")
    layer = {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}[kind](*blank, bias, **settings)
    return parity.to_keras(randomized(layer, np.random.default_rng(seed)))


@pytest.mark.parametrize("takes", ["x and layer", "x", "outputs"])
@pytest.mark.parametrize("name", PORTS)
def test_a_port_by_hand(name, takes):
    kind, port = PORTS[name]
    k = keras_layer(kind)
    own = parity.from_keras(k)
    x = np.random.default_rng(1).standard_normal((4, 12, 3)).astype("f")
    candidate = {"x and layer": port, "x": lambda x: port(x, own), "outputs": port(x, own)}[takes]
    report = parity.check(candidate, k, x)
    assert report.verdict == "FAIL"
    assert name in [cause.id for cause in report.causes], str(report)
    assert f"cause: {name}: " in str(report)
    assert "fix: " in str(report)


@pytest.mark.parametrize("right", [gru_by_hand(), lstm_by_hand(), rnn_by_hand()])
def test_the_right_port_by_hand(right):
    kind = {"gru_by_hand": "gru", "lstm_by_hand": "lstm"}.get(right.__qualname__.split(".")[0], "simple_rnn")
    report = parity.check(right, keras_layer(kind), input_shape=(12, 3))
    assert (report.verdict, report.causes) == ("PASS", ())


def test_a_last_output_alone_is_enough():
    k = keras_layer("gru", return_sequences=False)
    assert [c.id for c in parity.check(gru_by_hand("rzh"), k, input_shape=(12, 3)).causes] == ["gate-order-rzh"]


def test_outputs_of_the_wrong_shape_are_explained():
    k = keras_layer("simple_rnn", return_sequences=False)
    x = np.random.default_rng(1).standard_normal((4, 12, 3)).astype("f")
    y = parity.from_keras(k)(x.swapaxes(0, 1))
    report = parity.check(y, k, x)
    assert (report.verdict, [c.id for c in report.causes]) == ("FAIL", ["time-major"])


def test_two_causes_that_cannot_be_told_apart_are_both_named_and_what_would():
    k = keras_layer("gru")
    W, R, b = k.get_weights()
    k.set_weights([W, R, np.stack([0 * b[0], b[1]])])
    own = parity.from_keras(k)
    report = parity.check(lambda x: own.replace(b=0 * own.b)(x), k, input_shape=(12, 3))
    assert [c.id for c in report.causes] == ["bias-missing", "recurrent-bias-missing"]
    assert "with these weights they are the same function; other weights would tell them apart" in str(report)


# --- pairs, and what is none ---


@pytest.mark.pairs
@pytest.mark.parametrize(
    ("kind", "pair"),
    [
        ("gru", [("gate-order-rzh", ""), ("bias-rows-swapped", "")]),
        ("lstm", [("recurrent-kernel-not-transposed", ""), ("forget-bias-added", "")]),
        ("simple_rnn", [("bias-missing", ""), ("time-reversed", "")]),
    ],
)
def test_a_pair_of_mistakes(kind, pair):
    pair = sorted(pair, key=lambda key: list(MISTAKES).index(key[0]))
    case = next(c for c in SMALL if c.id == f"{kind}-b2-t10-i4-u8-seq-tanh-normal")
    found = diagnose(findings(Wrong(pair), case), seconds=60)
    assert [cause.id for cause in found.causes] == [" + ".join(name for name, _ in pair)]
    early = diagnose(findings(Wrong(pair), case), seconds=0)
    assert (early.causes, early.stopped) == ((), True)


@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru"])
def test_a_defect_outside_the_catalogue_fails_and_has_no_cause(kind, name):
    case = next(c for c in SMALL if c.id == f"{kind}-b2-t10-i4-u8-seq-tanh-normal")
    found = findings(Function(DEFECTS[name]), case)
    assert any(finding.verdict == "FAIL" for finding in found)
    assert (diagnose(found).causes, in_effect(found).causes) == ((), ())
    assert list(facts(found))


def known(port, kind="simple_rnn", **options):
    report = parity.check(port, keras_layer(kind), **{"input_shape": (12, 3), **options})
    assert (report.verdict, report.causes) == ("FAIL", ())
    return "\n".join(report.known)


def spoilt(name, at, factor=1.01):
    def port(x, layer):
        array = getattr(layer, name).copy()
        array[at] *= np.float32(factor)
        return layer.replace(**{**layer.weights, name: array})(x)

    return port


def test_one_weight_is_named():
    text = known(spoilt("Wx", (2, 1)))
    assert "Wx[2, 1] alone explains the probes" in text
    assert "recovered by least squares: Wx[2, 1] is" in text
    assert "Wh is the layer's own" in text
    assert "of 5 units unit 2 is off" in text
    assert "the error comes by the input" in text
    assert "the differences go along with the inputs" in text
    text = known(spoilt("Wh", (3, 0)))
    assert "recovered by least squares: Wh[3, 0] is" in text
    assert "the first step is right" in text
    assert "unit inputs and one step from zeros are right: what is off is the state before" in text
    assert "the differences go along with the state before" in text
    text = known(spoilt("b", 1))
    assert "b[1] alone explains the probes" in text
    assert "by a constant (it is off for an input and a state of zeros): the bias" in text


def test_one_gate_is_named():
    assert "a wrong gate z alone would explain the questions of one step" in known(spoilt("b", np.s_[0, :5], 5), "gru")


def test_rows_that_are_off():
    def port(x, layer):
        y = layer(x)
        y[min(1, len(y) - 1)] += np.float32(1e-3)
        return y

    x = np.random.default_rng(1).standard_normal((4, 12, 3)).astype("f")
    assert "of 4 batch rows row 1 is off" in known(port, x=x, input_shape=None)


def remade(name, change):
    """A port that has one array made of the layer's own."""
    return lambda x, layer: layer.replace(**{**layer.weights, name: change(layer.weights[name])})(x)


MADE_OF = {
    "Wx: features in another order": (remade("Wx", lambda W: W[:, [2, 0, 1]]), "its columns in the order 2, 0, 1"),
    "Wx: units in another order": (remade("Wx", lambda W: W[::-1]), "its rows in the order"),
    "Wx: features scaled": (remade("Wx", lambda W: W * np.float32([1, 2, 0.5])), "its columns times 1, 2, 0.5"),
    "Wx: scaled": (remade("Wx", lambda W: np.float32(1.3) * W), "1.3 times the layer's"),
    "Wx: quantised": (remade("Wx", lambda W: np.round(3 * W).astype("f") / 3), "values alone: quantised"),
    "Wx: clipped": (remade("Wx", lambda W: np.clip(W, -0.5, 0.5)), "the layer's clipped to -0.5 and 0.5"),
    "b: other signs": (
        remade("b", lambda b: b * np.float32([-1, 1, -1, -1, -1] * (b.shape[-1] // 5))),
        "with other signs",
    ),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("simple_rnn", name) for name in MADE_OF), ("gru", "Wx: scaled"), ("gru", "b: other signs")],
)
def test_an_array_made_of_the_layers_own_is_no_stale_one(kind, name, monkeypatch):
    """To copy it once more would not mend the port."""
    monkeypatch.setattr("parity.explaining.fitted.FIT_SECONDS", 60.0)
    port, told = MADE_OF[name]
    array = name.partition(":")[0]
    assert any(array in line and told in line for line in known(port, kind).splitlines())


def test_one_row_alone_that_is_off_accuses_no_weight():
    def last_row_twice(x, layer):
        y = layer(x)
        y[-1] *= np.float32(1.01 if len(y) > 1 else 1)
        return y

    text = known(last_row_twice)
    assert "in every question the last batch row alone is off" in text
    assert "alone explains the probes" not in text
    assert "the error comes by" not in text


def test_one_step_alone_that_is_off_accuses_no_path():
    def last_step_copied(x, layer):
        y = layer(x)
        y[:, -1] = y[:, -2] if x.shape[1] > 1 else y[:, -1]
        return y

    text = known(last_step_copied)
    assert "of 12 steps step 11 is off" in text
    assert "the error comes by" not in text


def test_a_stale_array_is_named(monkeypatch):
    monkeypatch.setattr("parity.explaining.fitted.FIT_SECONDS", 60.0)
    k = keras_layer("simple_rnn")
    other = parity.from_keras(k).replace(Wh=np.random.default_rng(9).standard_normal((5, 5)).astype("f") / 2)
    right = parity.from_keras(k)
    report = parity.check(lambda x: right.replace(Wh=other.Wh)(x), k, input_shape=(12, 3))
    assert [(c.id, c.detail) for c in report.causes] == [("stale-weights", "Wh")]


@pytest.mark.parametrize("kind", ["simple_rnn", "gru", "lstm"])
def test_shifted_inputs_are_no_stale_bias(kind, monkeypatch):
    monkeypatch.setattr("parity.explaining.fitted.FIT_SECONDS", 60.0)
    right, shift = parity.from_keras(keras_layer(kind)), np.array([0.4, -0.25, 0.75], "f")
    report = parity.check(lambda x: right(x - shift), keras_layer(kind), input_shape=(12, 3))
    assert report.causes == ()
    assert "in effect b is b - Wx (0.4, -0.25, 0.75): are the inputs shifted by that?" in "\n".join(report.known)


def test_turned_inputs_are_no_stale_kernel(monkeypatch):
    monkeypatch.setattr("parity.explaining.fitted.FIT_SECONDS", 60.0)
    right = parity.from_keras(keras_layer("simple_rnn"))
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    report = parity.check(lambda x: right(x @ turn.astype("f")), keras_layer("simple_rnn"), input_shape=(12, 3))
    assert report.causes == ()
    assert "in effect Wx is Wx A, A of shape (3, 3): are the inputs A x" in "\n".join(report.known)


def test_the_first_output_given_for_the_last_is_named():
    layer = keras.layers.LSTM(4)
    layer.build((None, None, 3))
    every = parity.from_keras(layer).with_sequences()
    report = parity.check(lambda x: every(x)[:, 0], layer, input_shape=(8, 3))
    assert [cause.id for cause in report.causes] == ["first-output-for-last"]


def test_no_pair_is_of_mistakes_of_which_one_leaves_nothing_of_the_other():
    assert all(name in MISTAKES for mistake in MISTAKES.values() for name in mistake.moot)
    assert not is_pair(("time-reversed", ""), ("recurrence-missing", "Wh taken as zero"))
    assert not is_pair(("recurrence-missing", "Wh taken as zero"), ("time-reversed", ""))
    assert is_pair(("bias-missing", ""), ("recurrence-missing", "Wh taken as zero"))


def test_what_the_verdict_grants_is_granted_to_causes():
    layer = keras_layer("lstm")
    right = parity.from_keras(layer)
    order = np.arange(20).reshape(4, 5)[[0, 2, 1, 3]].ravel()
    wrong = {name: array[order] for name, array in right.weights.items()}
    port = right.replace(**{name: (np.round(array * 8192) / 8192).astype("f") for name, array in wrong.items()})
    report = parity.check(lambda x: port(x), layer, input_shape=(12, 3), atol=1e-3)
    assert "gate-order-icfo" in [cause.id for cause in report.causes]
    assert "every element is within what is granted" in str(report)
    assert parity.check(lambda x: port(x), layer, input_shape=(12, 3)).causes == ()


def test_no_difference_holds_for_every_variant():
    layer = keras.layers.LSTM(4, return_sequences=True)
    layer.build((None, None, 6))
    report = parity.check(lambda x, layer: layer(x), layer, input_shape=(8, 6))
    assert "gate-order-of-one-array" not in [blind.id for blind in report.no_difference]  # of the bias alone it is none
    layer.set_weights([*layer.get_weights()[:2], np.zeros(16)])
    report = parity.check(lambda x, layer: layer(x), layer, input_shape=(8, 6))
    assert ("bias-added-twice", "every bias is zero") in [(blind.id, blind.why) for blind in report.no_difference]


STEPS = {
    "recurrent kernel not transposed": (
        lambda x_t, state, layer: np.tanh(x_t @ layer.Wx.T + state @ layer.Wh + layer.b),
        ["recurrent-kernel-not-transposed"],
    ),
    "a kernel off by a little": (
        lambda x_t, state, layer: np.tanh(x_t @ layer.Wx.T * np.float32(1.0003) + state @ layer.Wh.T + layer.b),
        [],
    ),
}


@pytest.mark.parametrize("sequences", [True, False], ids=["seq", "last"])
@pytest.mark.parametrize("name", STEPS)
def test_causes_of_a_step_function(name, sequences):
    """All that is seen of it is its sequence."""
    step, causes = STEPS[name]
    report = parity.check(step, keras_layer("simple_rnn", return_sequences=sequences), input_shape=(12, 3))
    assert (report.verdict, [cause.id for cause in report.causes]) == ("FAIL", causes)

    def right(x_t, state, layer):
        return np.tanh(x_t @ layer.Wx.T + state @ layer.Wh.T + layer.b)

    report = parity.check(right, keras_layer("simple_rnn", return_sequences=True), input_shape=(12, 3), strict=True)
    assert (report.verdict, report.blind) == ("PASS", ())


def test_a_model_of_which_the_last_output_alone_is_seen():
    layers = [keras.layers.GRU(5, return_sequences=True), keras.layers.LSTM(4), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    rng = np.random.default_rng(3)
    model.set_weights([rng.standard_normal(weight.shape) / 2 for weight in model.get_weights()])
    own = parity.from_keras(model)
    report = parity.check(lambda x: own(x) * np.float32(1.01), model, input_shape=(12, 3))
    assert (report.verdict, report.causes) == ("FAIL", ())
    (wrong,) = MISTAKES["gate-order-rzh"].variants(Case("m", own, np.zeros((1, 1, 3), "f"))).values()
    report = parity.check(lambda x: wrong.layer(x), model, input_shape=(12, 3))
    assert [cause.id for cause in report.causes] == ["gate-order-rzh"]


def test_a_mask_that_one_layer_loses():
    layers = [keras.layers.GRU(5, return_sequences=True), keras.layers.LSTM(4)]
    model = keras.Sequential([keras.Input((None,)), keras.layers.Embedding(9, 3, mask_zero=True), *layers])
    rng = np.random.default_rng(3)
    model.set_weights([rng.standard_normal(weight.shape) / 2 for weight in model.get_weights()])

    def port(x, layer):
        names, (embedding, gru, lstm) = layer.parts, layer.parts.values()
        e = embedding(x)
        h = gru(e, mask=x != 0)
        return dict(zip(names, (e, h, lstm(h)), strict=True))

    names = list(parity.from_keras(model).parts)
    report = parity.check(port, model)
    assert [(cause.id, cause.detail) for cause in report.causes] == [("mask-ignored", f"by a layer, in {names[2]}")]


@pytest.mark.pairs
def test_a_candidate_that_keeps_its_state_and_has_another_mistake():
    own = parity.from_keras(keras_layer("simple_rnn"))
    kept = {}

    def port(x):
        wrong = own.replace(Wh=own.Wh.T.copy())
        y = wrong(x, initial_state=kept.get(len(x)))
        kept[len(x)] = y[:, -1]
        return y

    report = parity.check(port, keras_layer("simple_rnn"), input_shape=(12, 3))
    assert [cause.id for cause in report.causes] == ["recurrent-kernel-not-transposed + state-not-reset"]
    assert any("it keeps something between calls" in line for line in report.known)


def test_a_mistake_that_does_not_apply_is_said_not_to():
    k = keras_layer("simple_rnn")
    own = parity.from_keras(k)
    for factor in (1, 2):
        report = parity.check(
            lambda x, factor=factor: own(x) * np.float32(factor), k, input_shape=(12, 3), only_mistake="reset-after"
        )
        assert any("does not apply here" in line for line in report.known)


@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru"])
def test_inputs_that_saturate_hide_a_mistake_and_do_not_make_it_none(kind):
    k = keras_layer(kind)
    own = parity.from_keras(k)
    x = 1e4 * np.random.default_rng(0).standard_normal((4, 8, 3)).astype("f")
    report = parity.check(np.asarray(own(x)), k, x)
    assert "bias-missing" not in [blind.id for blind in report.no_difference]


# --- what a PASS is worth ---


def test_blind_spots():
    """With two units and a symmetric recurrent kernel no transposition shows; with zero biases none is missed."""
    k = keras_layer("simple_rnn", units=2)
    W, _, b = k.get_weights()
    R = np.array([[0.6, -0.5], [-0.5, 0.3]], "f")
    k.set_weights([W, R, 0 * b])
    own = parity.from_keras(k)
    report = parity.check(lambda x: own(x), k, input_shape=(12, 3))
    assert report.verdict == "PASS"
    text = str(report)
    assert "units = 2 and the recurrent kernel is symmetric" in text
    assert (
        "bias-missing, bias-added-twice (every bias is zero)" in text.partition("no difference with these weights: ")[2]
    )
    ids = {blind.id for blind in report.blind}
    assert ids >= {"recurrent-kernel-not-transposed", "bias-missing", "bias-added-twice"}
    k.set_weights([W, R + np.float32(1e-9), b])
    k.set_weights([W, np.array([[0.6, -0.5], [-0.5 + 1e-7, 0.3]], "f"), b])
    own = parity.from_keras(k)
    report = parity.check(lambda x: own(x), k, input_shape=(12, 3))
    assert [blind.id for blind in report.not_visible] == ["recurrent-kernel-not-transposed"]
    assert "not visible in this check: recurrent-kernel-not-transposed (units = 2 and" in str(report)
    strict = parity.check(lambda x: own(x), k, input_shape=(12, 3), strict=True)
    assert (strict.verdict, strict.exit_status) == ("INCONCLUSIVE", 3)
    assert "because of --strict" in str(strict)
    sees = parity.check(lambda x, layer: layer(x), k, input_shape=(12, 3), strict=True)  # other weights are asked
    assert sees.verdict == "PASS"


@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru"])
def test_an_honest_port_has_no_blind_spots(kind):
    report = parity.check(lambda x, layer: layer(x), keras_layer(kind), input_shape=(50, 3), strict=True)
    assert (report.verdict, report.not_visible) == ("PASS", ())


def test_one_step_hides_the_recurrence():
    k = keras_layer("gru")
    x = np.random.default_rng(1).standard_normal((4, 1, 3)).astype("f")
    report = parity.check(parity.from_keras(k)(x), k, x)
    hidden = {blind.id: blind.why for blind in report.not_visible}
    assert "one timestep" in hidden["recurrence-missing"]
    assert "gate-order-rzh" not in hidden


def test_the_grid_sees_every_mistake():
    """At least one case for each mistake, layer and variant; all pairs that differ by 10 radii are caught."""
    score = Score()
    with np.errstate(all="ignore"):
        mistakes(score, SMALL[::24], lambda what: None)
    seen = score.counts["mistakes caught, of those that are another function on the data"]
    assert seen[0] == seen[1] > 300
    named = score.counts["named, alone or among causes that explain the same answers"]
    assert named[0] >= 0.95 * named[1] > 50


# --- candidates that are not functions of their arguments ---


def test_a_random_candidate():
    rng = np.random.default_rng(0)
    with pytest.raises(parity.CandidateError, match=r"two calls with the same arguments differ by .* it is random"):
        parity.check(lambda x, layer: layer(x) + np.float32(rng.normal()), keras_layer("lstm"), input_shape=(6, 3))


def test_rounding_that_differs_from_call_to_call_is_not_random():
    turns = itertools.cycle([np.float32(1), np.float32(1 + 1e-7)])
    report = parity.check(lambda x, layer: layer(x) * next(turns), keras_layer("lstm"), input_shape=(6, 3))
    assert report.verdict == "PASS"


@pytest.mark.parametrize("kind", ["simple_rnn", "gru", "lstm"])
def test_a_candidate_that_keeps_its_state(kind):
    k = keras_layer(kind)
    own = parity.from_keras(k)
    own.stateful = True
    x = np.random.default_rng(1).standard_normal((1, 6, 3)).astype("f")
    report = parity.check(lambda x: own(x) if len(x) == 1 else own.replace()(x), k, x)
    assert report.verdict == "FAIL"
    assert "something is kept between calls" in str(report)


def test_state_kept_is_the_cause():
    k = keras_layer("simple_rnn")
    own = parity.from_keras(k)
    held = {}

    def port(x):
        start = held.get(len(x))
        y = own(x, initial_state=start)
        held[len(x)] = y[:, -1]
        return y

    report = parity.check(port, k, np.random.default_rng(1).standard_normal((4, 6, 3)).astype("f"))
    assert (report.verdict, [cause.id for cause in report.causes]) == ("FAIL", ["state-not-reset"])
    assert "something is kept between calls" in str(report)


def test_only_mistake():
    k = keras_layer("gru")
    report = parity.check(gru_by_hand("rzh"), k, input_shape=(6, 3), only_mistake="bias-missing")
    assert (report.causes, report.known[0]) == ((), "cause: not bias-missing; no other mistake was looked for")
    report = parity.check(gru_by_hand("rzh"), k, input_shape=(6, 3), only_mistake="gate-order-rzh")
    assert [c.id for c in report.causes] == ["gate-order-rzh"]
    with pytest.raises(parity.InputError, match="no mistake has the id 'gate-order-zrx'; the nearest are gate-order-"):
        parity.check(gru_by_hand(), k, input_shape=(6, 3), only_mistake="gate-order-zrx")


def test_wrong_layers_are_within_their_own_balls():
    """Each wrong case, computed in float32, satisfies itself: else no diagnosis could find it."""
    for case in SMALL[::16]:
        for mistake in MISTAKES.values():
            for label, wrong in mistake.variants(case).items():
                results = computed(wrong)[0]
                found = examine(as_candidate(results), wrong if wrong.view is None else case, Tolerance())
                assert wrong.view is not None or found.verdict != "FAIL", (case.id, mistake.id, label)


def test_the_example_of_the_readme_layer():
    report = parity.check(
        lambda x, layer: layer.replace(Wh=layer.Wh.T)(x),
        parity.to_keras(make_layer(return_sequences=True)),
        input_shape=(10, 4),
    )
    assert [c.id for c in report.causes] == ["recurrent-kernel-not-transposed"]
