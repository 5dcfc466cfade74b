"""Mistakes with masks: ignored, taken for padding at the end, multiplied by, the wrong way round."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from parity.cases.case import Case
from parity.mistakes.changes import Altered, Change, Forward, altered, each, places, recurrent, setting
from parity.mistakes.entry import Family, Variants
from parity.mistakes.hiding import mask_shape, nothing_masked, right_padding, same_both_ways
from parity.mistakes.loops import looped
from rnn_scratch import Embedding, Masking
from rnn_scratch.base import Layer, Mask, States, Values
from rnn_scratch.layers import Recurrent
from rnn_scratch.loop import MaskRule

FAMILY = Family()


def _drops_mask(layer: Layer) -> Layer | None:
    """Masking and Embedding without the mask that they make."""
    makes_one = isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.mask_zero)
    return Altered(layer, drops_mask=True) if makes_one else None


def is_masked(case: Case) -> bool:
    """Whether something is masked, by the case or by a layer of the model."""
    return case.mask is not None or any(True for _ in places(case.layer, _drops_mask))


def _with_mask(change: Callable[[Mask], Mask | None]) -> Forward:
    """The right layer, given another mask where it is given one."""

    def forward(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        return layer.forward(x, None if mask is None else change(mask), states)

    return forward


# --- another mask ---


def _another_mask(case: Case, change: Callable[[Mask], Mask | None], label: str) -> Variants:
    """Another mask: the case's own, or what each recurrent layer makes of the one that it gets."""
    if case.mask is not None:
        return {label: replace(case, mask=change(case.mask))}
    return each(case, recurrent(altered(_with_mask(change))), label) if is_masked(case) else {}


@FAMILY.mistake(
    "mask-ignored",
    what="the port processes masked steps as any other",
    fix="at a masked step keep the state and repeat the output",
    source="tensorflow#49936",
    hides=nothing_masked,
)
def _mask_ignored(case: Case) -> Variants:
    if case.mask is not None:
        return {"": replace(case, mask=None)}
    return {**each(case, _drops_mask), **_another_mask(case, lambda mask: None, "by a layer")}


def _up_to_last(mask: Mask) -> Mask:
    """Every step up to the last unmasked one."""
    later = np.maximum.accumulate(mask[:, ::-1], axis=1)
    return np.asarray(later[:, ::-1])


@FAMILY.mistake(
    "mask-assumes-right-padding",
    what="the port honours only a mask at the end",
    fix="choose at every step by its own mask",
    source="tensorflow-onnx#1871",
    hides=mask_shape,
)
def _mask_assumes_right_padding(case: Case) -> Variants:
    return {
        **_another_mask(case, right_padding, "as many first steps as there are unmasked ones"),
        **_another_mask(case, _up_to_last, "every step up to the last unmasked one"),
    }


# --- another rule for masked steps ---


@FAMILY.mistake(
    "mask-zeroes-output",
    what="the port puts out zeros at masked steps; Keras repeats the output before",
    fix="repeat the last output at a masked step",
    source="onnxruntime#12492",
    hides=mask_shape,
)
def _mask_zeroes_output(case: Case) -> Variants:
    return each(case, setting("zero_output_for_mask", True)) if is_masked(case) else {}


def _ruled(wrong: Callable[..., MaskRule], **settings: bool) -> Change:
    """Recurrent layers with another rule for masked steps."""

    def forward(layer: Recurrent, x: Values, mask: Mask | None, states: States) -> tuple[Values, States]:
        return looped(layer, x, mask, states, rule=lambda right: wrong(**vars(right), **settings))

    return recurrent(altered(forward))


@dataclass(frozen=True)
class _Resets(MaskRule):
    """A masked step sets the state to zero; its output is the last one, or zero."""

    zero_output: bool = False

    def states(self, t: int | slice, new: States, old: States) -> States:
        return super().states(t, new, tuple(np.zeros_like(state) for state in new))

    def output(self, t: int | slice, h: Values, last: Values) -> Values:
        return super().output(t, h, np.zeros_like(h) if self.zero_output else last)


@FAMILY.mistake(
    "mask-resets-state",
    what="the port sets the state to zero at a masked step; Keras keeps it",
    fix="keep the state at a masked step",
    source="keras-onnx#386",
    hides=mask_shape,
)
def _mask_resets_state(case: Case) -> Variants:
    if not is_masked(case):
        return {}
    return {
        **each(case, _ruled(_Resets), "the output is repeated"),
        **each(case, _ruled(_Resets, zero_output=True), "the output is zero"),
    }


class _Multiplies(MaskRule):
    """A masked step multiplies what it makes by zero."""

    def states(self, t: int | slice, new: States, old: States) -> States:
        return super().states(t, new, tuple(state * 0.0 for state in new))  # NaN where that is NaN or infinite

    def output(self, t: int | slice, h: Values, last: Values) -> Values:
        return super().output(t, h, h * 0.0)


@FAMILY.mistake(
    "mask-multiplies",
    what="the port multiplies by the mask instead of choosing by it",
    fix="choose between the old and the new state by the mask; NaN times zero is NaN",
    hides=mask_shape,
)
def _mask_multiplies(case: Case) -> Variants:
    if not is_masked(case):
        return {}
    found = each(case, _ruled(_Multiplies), "the new state")
    if case.mask is not None and len(case.features) == 1:
        factor = case.mask[..., None]
        with np.errstate(invalid="ignore"):
            found["the inputs"] = case.mapped(lambda x: x * factor.astype(x.dtype), mask=None)
    return found


# --- the wrong way round ---


def _reversed(mask: Mask) -> Mask:
    return mask[:, ::-1]


def _mask_left_as_it_is(layer: Recurrent) -> Layer | None:
    return Altered(layer, _with_mask(_reversed)) if layer.go_backwards else None


@FAMILY.mistake(
    "mask-not-reversed",
    what="the port reverses the inputs of a go_backwards layer and not the mask",
    fix="reverse the mask along with the inputs",
    source="keras#1934, keras#3662",
    hides=same_both_ways,
)
def _mask_not_reversed(case: Case) -> Variants:
    if not is_masked(case):
        return {}
    if not isinstance(case.layer, Recurrent):
        return each(case, recurrent(_mask_left_as_it_is))
    if case.mask is None or not case.layer.go_backwards:
        return {}
    return {"": replace(case, mask=_reversed(case.mask))}
