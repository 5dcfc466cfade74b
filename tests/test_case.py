"""A case: its inputs have names, and however it is cut, all of them are cut alike."""

import numpy as np
import pytest

from parity.cases.case import Case
from rnn_scratch import LSTM, SimpleRNN

RNG = np.random.default_rng(0)


def simple_rnn(**settings):
    arrays = (RNG.standard_normal(shape).astype("f") for shape in ((3, 2), (3, 3), (3,)))
    return SimpleRNN(*arrays, return_sequences=True, **settings)


def two_inputs(**settings):
    """Which no layer takes as yet: 4 rows, 6 steps, of 2 and of 5 features."""
    inputs = {name: RNG.standard_normal((4, 6, n)).astype("f") for name, n in (("left", 2), ("right", 5))}
    mask, state = RNG.random((4, 6)) < 0.5, RNG.standard_normal((4, 3)).astype("f")
    return Case("two", simple_rnn(**settings), inputs, mask, (state,), rows=tuple("abcd"))


def test_one_array_is_the_input_x():
    x = np.zeros((4, 6, 2), "f")
    case = Case("one", simple_rnn(), x)
    assert list(case.inputs) == ["x"]
    assert case.x is x
    assert list(case.on(x[:2]).inputs) == ["x"]
    assert (case.batch, case.timesteps, case.features, case.output_shapes) == (4, 6, (2,), ((4, 6, 3),))


def test_of_several_inputs_none_is_x():
    with pytest.raises(ValueError, match="too many values"):
        _ = two_inputs().x


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("cut", "rows", "steps"),
    [
        (lambda case: case.first(2), slice(None), slice(2)),
        (lambda case: case.steps(1, 3, None), slice(None), slice(1, 3)),
        (lambda case: case.rows_at(np.array([3, 1])), [3, 1], slice(None)),
    ],
)
def test_all_inputs_and_the_mask_are_cut_alike(cut, rows, steps, backwards):
    case = two_inputs(go_backwards=backwards)
    part = cut(case)
    along = slice(None, None, -1 if backwards else 1)
    for name, x in case.inputs.items():
        np.testing.assert_array_equal(part.inputs[name][:, along], x[rows][:, along][:, steps])
    np.testing.assert_array_equal(part.mask[:, along], case.mask[rows][:, along][:, steps])


def test_calls_are_the_parts_one_after_another():
    case = two_inputs()
    halves = [Case("two", case.layer, case.inputs, case.mask, calls=2).call(n) for n in (0, 1)]
    for name, x in case.inputs.items():
        np.testing.assert_array_equal(np.concatenate([half.inputs[name] for half in halves], axis=1), x)
    assert [half.calls for half in halves] == [1, 1]
    twice = case.twice()
    assert twice.calls == 2
    for name, x in case.inputs.items():
        np.testing.assert_array_equal(twice.call(1).inputs[name], x)


@pytest.mark.parametrize("backwards", [False, True])
def test_padding_comes_after_what_is_processed(backwards):
    case = two_inputs(go_backwards=backwards)
    padded = case.padded(9)
    assert padded.timesteps == 9
    for name, x in case.inputs.items():
        np.testing.assert_array_equal(padded.first(6).inputs[name], x)
        assert not padded.steps(6, 9, None).inputs[name].any()


def test_the_dtype_of_numbers_changes_and_token_ids_stay():
    case = two_inputs()
    mixed = Case("mixed", case.layer, {"ids": np.arange(6)[None], "x": case.inputs["left"]}, None, case.initial_state)
    cast = mixed.cast(np.float64)
    assert {name: x.dtype for name, x in cast.inputs.items()} == {"ids": np.dtype(int), "x": np.dtype(float)}
    assert cast.initial_state[0].dtype == np.float64


def test_all_that_is_given_has_a_name():
    assert list(two_inputs().arrays) == ["left", "right", "mask", "initial_state/0"]


def test_without_an_initial_state_it_starts_from_zeros():
    arrays = (RNG.standard_normal(shape).astype("f") for shape in ((12, 2), (12, 3), (12,)))
    case = Case("one", LSTM(*arrays), np.zeros((4, 6, 2), "f"))
    assert [(state.shape, state.any()) for state in case.start] == [((4, 3), False)] * 2
    assert case.every_mask.all()
