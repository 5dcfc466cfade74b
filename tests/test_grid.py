"""The built-in grid: what it covers, and that it is always the same."""

from itertools import combinations, product

import numpy as np
import pytest

import parity
from parity.api import check_grid
from parity.cases.drawing import make_mask
from parity.cases.grid import AXES, grid, pairwise_cover
from rnn_scratch import Bidirectional
from rnn_scratch.activations import ACTIVATIONS
from rnn_scratch.layers import Recurrent
from rnn_scratch.wrappers import MERGE_MODES

CASES = grid()


def test_at_least_100_cases_with_ids_of_their_own():
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids)) >= 100
    assert "simple_rnn-b2-t10-i4-u8-seq-tanh-normal" in ids


def test_every_value_and_setting_occurs():
    layers = [case.layer for case in CASES if isinstance(case.layer, Recurrent)]
    wrapped = [case.layer for case in CASES if not isinstance(case.layer, Recurrent)]
    assert {case.batch for case in CASES} == set(AXES["batch"])
    assert {case.timesteps for case in CASES} == set(AXES["timesteps"])
    assert {layer.input_dim for layer in layers} == set(AXES["input_dim"])
    assert {layer.units for layer in layers} == {*AXES["units"], 4}  # 4 where the kernel is square
    assert {layer.cell.activation.name for layer in layers} == {row.name for row in ACTIVATIONS.values()} - {
        "hard_sigmoid_keras2"
    }
    for setting in ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask"):
        assert {getattr(layer, setting) for layer in layers} == {True, False}
    assert {layer.cell.use_bias for layer in layers} == {True, False}
    assert {layer.dtype.name for layer in layers} == {"float16", "bfloat16", "float32", "float64"}
    assert any(layer.unroll for layer in layers)
    assert any(layer.stateful for layer in layers)
    assert {layer.kind for layer in layers} == {"simple_rnn", "lstm", "gru"}
    assert {layer.kind for layer in wrapped} == {"bidirectional", "sequential"}
    assert {layer.merge_mode for layer in wrapped if isinstance(layer, Bidirectional)} == set(MERGE_MODES)
    assert len(CASES) >= 300


@pytest.mark.parametrize("kind", ["leading", "mixed", "trailing", "all"])
def test_every_mask_with_and_without_an_initial_state(kind):
    masked = [case for case in CASES if f"{kind}_mask" in case.id]
    assert {case.initial_state is None for case in masked} == {True, False}
    assert {case.layer.return_sequences for case in masked} == {True, False}
    for case in masked:
        assert (~case.mask).any(axis=1).all()
        assert case.mask.any() == (kind != "all")


def test_masks_are_what_they_are_called():
    rng = np.random.default_rng(0)
    leading, trailing = (make_mask(rng, kind, 3, 6) for kind in ("leading", "trailing"))
    assert (np.diff(leading.astype(int)) >= 0).all()
    assert (np.diff(trailing.astype(int)) <= 0).all()
    mixed = make_mask(rng, "mixed", 3, 6)
    assert (np.diff(mixed.astype(int)) > 0).any()
    assert (np.diff(mixed.astype(int)) < 0).any()


def test_the_cover_meets_every_pair():
    axes = {"a": (1, 2, 3), "b": (True, False), "c": tuple("wxyz"), "d": (1, 2)}
    rows = pairwise_cover(axes)
    seen = {pair for row in rows for pair in combinations(row.items(), 2)}
    wanted = {((a, v), (b, w)) for a, b in combinations(axes, 2) for v, w in product(axes[a], axes[b])}
    assert seen == wanted
    assert len(rows) < 3 * 2 * 4 * 2 / 2


def test_data_follow_from_id_and_seed():
    again, other = grid(), grid(seed=1)
    for a, b, c in zip(CASES, again, other, strict=True):
        np.testing.assert_array_equal(a.x, b.x)
        assert not np.array_equal(a.x, c.x)


def test_a_selection_narrows_and_an_empty_one_is_refused():
    chosen = grid({"batch": (1, 8), "units": (64,), "timesteps": (10,), "return_sequences": (True,)})
    sizes = {(c.batch, c.layer.units, c.timesteps) for c in chosen if not isinstance(c.layer, Bidirectional)}
    assert sizes == {(1, 64, 10), (8, 64, 10)}
    with pytest.raises(parity.InputError, match="no case of the grid has 7"):
        grid({"batch": (7,)})


def test_a_selection_of_the_small_shape_alone_has_each_case_once():
    ids = [case.id for case in grid({"batch": (2,), "timesteps": (10,), "input_dim": (4,), "units": (8,)})]
    assert len(ids) == len(set(ids))


def test_keras_and_rnn_scratch_agree_on_all_of_it():
    report = check_grid(None, CASES)
    assert report.verdict == "PASS", str(report)
    assert report.worst < 1
    assert all(case.keras_worst <= 1 for case in report.cases)


def test_a_candidate_without_mask_and_state_is_not_asked_those():
    def forward(x, layer):
        return layer(x)

    some = [case for case in CASES if case.id.startswith("simple_rnn-b2-t10-i4-u8-seq-tanh")]
    report = check_grid(forward, some)
    assert report.verdict == "PASS"
    assert len(report.cases) < len(some)
    assert any("mask" in text for text in report.not_asked)


def test_an_error_in_one_case_loses_no_other():
    def forward(x, layer, mask=None, initial_state=None):
        if layer.activation == "relu":
            raise RuntimeError("no relu here")
        return layer(x, mask=mask, initial_state=initial_state)

    some = grid({"return_sequences": (True,), "activation": ("relu", "elu")})
    report = check_grid(forward, some)
    assert report.verdict == "ERROR"
    assert report.counts["PASS"] == len(some) - 3
