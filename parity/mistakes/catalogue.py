"""The catalogue: mistakes that people make when they port recurrent layers, as functions Case -> wrong Cases.

One list serves the diagnosis of a FAIL (which wrong Case does the candidate satisfy?), the adequacy of a PASS (which
wrong Cases would have passed too?) and the harness's own score. To add a mistake is to add one entry.
"""

import copy
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.cases.case import Case, View, changed, draw_weight, generator, state_kept
from parity.mistakes import changes as wrong
from parity.mistakes.changes import Altered, Change, altered, cell, each, mixed_in, recurrent, setting, weights
from rnn_scratch import Activation as ActivationLayer
from rnn_scratch import Bidirectional, Dense, Dropout, Embedding, Masking, Sequential
from rnn_scratch.activations import ACTIVATIONS
from rnn_scratch.cells import Cell, GRUCell, LSTMCell
from rnn_scratch.layers import Layer, Recurrent

Array = NDArray[Any]
Variants = dict[str, Case]


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    id: the name in reports. what: what the port does, and what Keras does. fix: what to do about it. source: where it
    was seen. variants: the wrong Cases for a right one, by what tells one from another ("" where there is one); none
    where the mistake does not apply. hides: why a case that it applies to may not show it. drawn: its wrong values are
    drawn at random, so that a candidate can have made it and yet not have those. mixes_rows: what it makes of one batch
    row depends on the others.
    """

    id: str
    what: str
    fix: str
    source: str
    variants: Callable[[Case], Variants] = field(repr=False)
    hides: Callable[[Case], str | None] = field(default=lambda case: None, repr=False)
    drawn: bool = False
    mixes_rows: bool = False


MISTAKES: dict[str, Mistake] = {}


def mistake(
    name: str, what: str, fix: str, source: str = "", hides: Callable[[Case], str | None] | None = None, **more: Any
) -> Callable[[Callable[[Case], Variants]], Callable[[Case], Variants]]:
    """Enters a function Case -> wrong Cases in the catalogue."""

    def enter(variants: Callable[[Case], Variants]) -> Callable[[Case], Variants]:
        MISTAKES[name] = Mistake(name, what, fix, source, variants, hides or (lambda case: None), **more)
        return variants

    return enter


def enter(name: str, change: Change | dict[str, Change], what: str, fix: str, source: str = "", **more: Any) -> None:
    """Enters a change of the layers, or several by what tells them apart."""
    changes = change if isinstance(change, dict) else {"": change}

    def variants(case: Case) -> Variants:
        return {key: wrong for label, one in changes.items() for key, wrong in each(case, one, label).items()}

    mistake(name, what, fix, source, **more)(variants)


# --- what hides mistakes ---


def cells(case: Case) -> list[Cell]:
    return [layer.cell for layer in case.layer.every(Recurrent)]


def symmetric(case: Case) -> str | None:
    blocks = [W for own in cells(case) for W in np.split(own.Wh.astype(np.float64), len(own.gates))]
    if all(np.allclose(W, W.T, rtol=0, atol=1e-6 * np.abs(W).max()) for W in blocks):
        units = {own.units for own in cells(case)}
        return f"units = {', '.join(map(str, sorted(units)))} and the recurrent kernel is symmetric"
    return one_step(case)


def zero_bias(case: Case) -> str | None:
    return "every bias is zero" if not any(own.b.any() for own in cells(case)) else None


def one_step(case: Case) -> str | None:
    return "there is one timestep, and the state is zero" if case.timesteps == 1 and not case.initial_state else None


def one_row(case: Case) -> str | None:
    return "there is one batch row" if case.batch == 1 else None


def mask_shape(case: Case) -> str | None:
    if case.mask is None:
        return None
    if case.mask.all():
        return "no step is masked"
    trailing = np.all(case.mask == right_padding(case.mask))
    return "the mask is only trailing" if trailing else None


def right_padding(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(np.arange(mask.shape[1]) < mask.sum(axis=1, keepdims=True))


# --- weights ---


def blocks(array: Array, gates: int, change: Callable[[Array], Array]) -> Array:
    """The array with each gate's block changed."""
    return np.concatenate([change(block) for block in np.split(array, gates)])


def square_kernel(own: Cell) -> dict[str, Array] | None:
    if own.units != own.input_dim or own.units == 1:
        return None
    return {"Wx": blocks(own.Wx, len(own.gates), np.transpose)}


def dense(change: Callable[[Dense], Layer | None]) -> Change:
    return lambda layer: change(layer) if isinstance(layer, Dense) else None


def with_W(layer: Dense, W: Array) -> Layer | None:
    same = W.shape == layer.W.shape
    return layer.mapped(lambda _, name, array: W.astype(array.dtype) if name == "W" else array) if same else None


enter(
    "kernel-not-transposed",
    {
        "": weights(square_kernel),
        "Dense": dense(lambda layer: with_W(layer, layer.W.T) if len(layer.W) > 1 else None),
    },
    "the port uses the kernel Wx without its transposition; Keras stores it (input_dim, units)",
    "transpose each gate's block of Wx",
    "discuss.pytorch.org 110741, SO 48361376",
)
enter(
    "recurrent-kernel-not-transposed",
    weights(lambda own: {"Wh": blocks(own.Wh, len(own.gates), np.transpose)} if own.units > 1 else None),
    "the port uses the recurrent kernel Wh without its transposition; it is square, so no shape check sees it",
    "transpose each gate's block of Wh",
    "keras#8720, LPCNet#123",
    hides=symmetric,
)
enter(
    "kernels-swapped",
    weights(lambda own: {"Wx": own.Wh, "Wh": own.Wx} if own.units == own.input_dim else None),
    "the port uses the kernel where the recurrent kernel belongs, and the other way round",
    "exchange Wx and Wh",
)
enter(
    "bias-missing",
    {
        "": weights(lambda own: {"b": np.zeros_like(own.b)} if own.use_bias else None),
        "Dense": dense(lambda layer: layer.replace(b=np.zeros_like(layer.b)) if layer.use_bias else None),
    },
    "the port leaves the bias out",
    "add b",
    "tvm PR#3410, hls4ml#594",
    hides=zero_bias,
)
enter(
    "bias-added-twice",
    weights(lambda own: {"b": own.b + own.b} if own.use_bias else None),
    "the port adds the bias twice, as when both of PyTorch's biases are set to Keras's one",
    "set one of the two biases to zero",
    "SO 48361376, keras#8860",
    hides=zero_bias,
)
enter(
    "recurrence-missing",
    {
        "Wh taken as zero": weights(lambda own: {"Wh": np.zeros_like(own.Wh)}),
        "each step from a state of zeros": recurrent(altered(wrong.stateless_steps)),
    },
    "the port never uses the state of the step before",
    "hand h (and c) on from step to step",
    "ONNX node tests have T = 1",
    hides=one_step,
)


def two_biases(own: Cell) -> bool:
    return isinstance(own, GRUCell) and own.reset_after and own.use_bias


def bias_rows(change: Callable[[Array], Sequence[Array]]) -> Change:
    return weights(lambda own: {"b": np.stack(list(change(own.b)))} if two_biases(own) else None)


enter(
    "recurrent-bias-instead-of-sum",
    bias_rows(lambda b: (0 * b[0], b[1])),
    "the port uses only the recurrent one of the two biases",
    "add the first row of b beside Wx x too",
    "SO 48361376",
    hides=zero_bias,
)


def transposed_on_save(own: Any, *names: str) -> dict[str, Array] | None:
    """Keras's kernels, row-major, read as column-major."""

    def read(array: Array) -> Array:
        kernel = array.T
        return np.reshape(np.ravel(kernel), kernel.shape, order="F").T

    return {name: read(getattr(own, name)) for name in names}


enter(
    "weights-transposed-on-save",
    {
        "both kernels": weights(lambda own: transposed_on_save(own, "Wx", "Wh")),
        "kernel": weights(lambda own: transposed_on_save(own, "Wx")),
        "recurrent kernel": weights(lambda own: transposed_on_save(own, "Wh") if len(own.gates) > 1 else None),
        "Dense": dense(lambda layer: with_W(layer, transposed_on_save(layer, "W")["W"])),  # type: ignore[index]
    },
    "the port reads Keras's row-major bytes as column-major",
    "read the bytes in row-major (C) order, or save them in column-major (F) order",
    "konduit 124",
)


@mistake(
    "stale-weights",
    "one whole array is not the layer's own",
    "copy that array from the layer again",
    drawn=True,
)
def stale_weights(case: Case) -> Variants:
    found: Variants = {}
    own = dict(case.layer.weights)
    for path, array in own.items():
        rng = generator(0, f"stale {path} {array.shape}")
        drawn = draw_weight(rng, "normal", path.rpartition(".")[2], array.shape, None).astype(array.dtype)
        found[path] = replace(case, layer=case.layer.replace(**{**own, path: drawn}))
    return found


# --- gates ---


def reordered(order: str, *names: str) -> Change:
    """The port takes the blocks for gates in that order; each gate's rows then come from where it looks for them."""

    def change(own: Cell) -> dict[str, Array] | None:
        if sorted(own.gates) != sorted(order) or "".join(own.gates) == order:
            return None
        if "b" in names and not own.use_bias and names != ("Wx", "Wh", "b"):
            return None
        at = [order.index(gate) for gate in own.gates]
        rows = np.concatenate([np.arange(n * own.units, (n + 1) * own.units) for n in at])
        return {name: getattr(own, name)[..., rows] if name == "b" else getattr(own, name)[rows] for name in names}

    return weights(change)


ORDERS = {
    "iofc": ("ONNX's", "onnx LSTM"),
    "icfo": ("TensorFlow 1's", "tensorflow#29308"),
    "ifoc": ("CoreML's", "coremltools PR#93"),
    "cfoi": ("DL4J's", "konduit 124"),
    "rzh": ("PyTorch's", "keras#8720"),
}
"""The orders of other libraries."""


def enter_orders(right: str) -> None:
    for letters in itertools.permutations(right):
        order = "".join(letters)
        whose, source = ORDERS.get(order, ("no known library's", ""))
        if order != right:
            enter(
                f"gate-order-{order}",
                reordered(order, "Wx", "Wh", "b"),
                f"the port reads the gates as {' '.join(order)} ({whose} order); Keras stores {' '.join(right)}",
                f"reorder the blocks of Wx, Wh and b from {' '.join(right)} to {' '.join(order)}",
                source,
            )


enter_orders("ifco")
enter_orders("zrh")
enter(
    "gate-order-of-one-array",
    {
        f"{' and '.join(names)} as {' '.join(order)}": reordered(order, *names)
        for order in ORDERS
        for names in (("b",), ("Wx",), ("Wh",), ("Wx", "Wh"))
    },
    "the port reorders the gates of some of Wx, Wh and b and not of the others",
    "reorder the blocks of all three alike",
    hides=zero_bias,
)


# --- activations ---


def cell_with(name: str, activation: Any) -> Callable[[Any], Cell | None]:
    def change(own: Any) -> Any:
        present = getattr(own, name, None)
        new = activation(present) if present is not None else None
        if new is None or new is present:
            return None
        twin = own.mapped(lambda _, array: array)
        setattr(twin, name, new)
        return twin

    return change


def layer_with(activation: Any) -> Change:
    def change(layer: Any) -> Layer | None:
        if not isinstance(layer, Dense | ActivationLayer):
            return None
        new = activation(layer.activation)
        if new is None or new is layer.activation:
            return None
        twin = layer.mapped(lambda _, name, array: array)
        twin.activation = new
        return twin

    return change


def to(name: str, only: Sequence[str] = (), never: Sequence[str] = ()) -> Callable[[Any], Any]:
    """An activation for another, or for those only, or for all but those."""

    def change(present: Any) -> Any:
        if present.name == name or (only and present.name not in only) or present.name in never:
            return None
        return ACTIVATIONS[name]

    return change


NONLINEAR = ("tanh", "relu", "sigmoid", "hard_sigmoid", "softsign", "elu")

enter(
    "activation-missing",
    {
        "": cell(cell_with("activation", to("linear"))),
        "of what goes into c": cell(
            lambda own: (
                mixed_in(wrong.BareGate, own) if isinstance(own, LSTMCell) and own.activation.name != "linear" else None
            )
        ),
        "Dense": layer_with(to("linear")),
    },
    "the port leaves the activation out",
    "apply the layer's activation",
    "keras#3819",
)
enter(
    "activation-wrong",
    {
        **{name: cell(cell_with("activation", to(name, never=("linear",)))) for name in NONLINEAR},
        **{
            f"{name} for linear": cell(cell_with("activation", to(name, only=("linear",)))) for name in ("tanh", "relu")
        },
        **{f"Dense, {name}": layer_with(to(name)) for name in ("tanh", "relu", "sigmoid", "softmax")},
        **{
            f"{name} for the recurrent activation": cell(cell_with("recurrent_activation", to(name)))
            for name in ("tanh", "relu", "linear")
        },
    },
    "the port uses another activation than the layer's",
    "use the layer's activation",
    "keras#13399",
)


def monotone_twice(present: Any) -> Any:
    plain = not present.turns and not present.couples_units and np.isfinite(present.slope)
    return wrong.twice(present) if plain and present.name not in ("linear", "relu", "relu6") else None


def output_twice(layer: Recurrent) -> Layer | None:
    f = monotone_twice(layer.cell.activation)
    plain = layer.cell.activation
    return None if f is None else Altered(layer, wrong.through_output(lambda y: plain(y)))


enter(
    "activation-twice",
    {
        "after the layer": recurrent(output_twice),
        "in each step": cell(cell_with("activation", monotone_twice)),
    },
    "the port applies the activation twice",
    "apply the activation once, within the step",
    "keras#3819",
)


def approximate(which: str) -> dict[str, Change]:
    def one(own: str, new: Any) -> Callable[[Any], Any]:
        return lambda present: new if present.name == own else None

    return {
        f"{new.name} for {own}": cell(cell_with(which, one(own, new)))
        for own, several in wrong.APPROXIMATE.items()
        for new in several
    }


enter(
    "approximate-activation",
    {
        **approximate("activation"),
        **{f"{label}, recurrent": change for label, change in approximate("recurrent_activation").items()},
    },
    "the port uses a fast approximation of the activation, far outside rounding",
    "use an activation that is right to the last few bits",
    "hls4ml, embedded ports",
)


def hard(name: str, new: dict[str, str], only: str, what: str, fix: str, source: str) -> None:
    changes = {label: cell(cell_with("recurrent_activation", to(f, only=[only]))) for label, f in new.items()}
    enter(name, changes, what, fix, source)


hard(
    "hard-sigmoid-for-sigmoid",
    {"max(0, min(1, z / 6 + 0.5))": "hard_sigmoid", "max(0, min(1, 0.2 z + 0.5))": "hard_sigmoid_keras2"},
    "sigmoid",
    "the port uses hard_sigmoid for the recurrent activation, as Keras before 2.3 did; the layer has sigmoid",
    "use sigmoid for the gates",
    "SO 49759614",
)
enter(
    "sigmoid-for-hard-sigmoid",
    cell(cell_with("recurrent_activation", to("sigmoid", only=["hard_sigmoid", "hard_sigmoid_keras2"]))),
    "the port uses sigmoid for the recurrent activation; the layer has hard_sigmoid",
    "use hard_sigmoid for the gates",
    "SO 49759614",
)
hard(
    "hard-sigmoid-keras2",
    {"": "hard_sigmoid_keras2"},
    "hard_sigmoid",
    "the port's hard_sigmoid has the slope 0.2 of Keras 2; Keras 3 has 1/6",
    "use max(0, min(1, z / 6 + 0.5))",
    "tensorflow#65381, keras PR#19477",
)
hard(
    "hard-sigmoid-keras3",
    {"": "hard_sigmoid"},
    "hard_sigmoid_keras2",
    "the port's hard_sigmoid has the slope 1/6 of Keras 3; this layer is of Keras 2, which has 0.2",
    "use max(0, min(1, 0.2 z + 0.5))",
    "tensorflow#65381, keras PR#19477",
)


# --- LSTM and GRU ---


def of(kind: type, mixin: type, unless: Callable[[Any], bool] = lambda own: False) -> Change:
    """The cells of that kind with another method."""
    return cell(lambda own: mixed_in(mixin, own) if isinstance(own, kind) and not unless(own) else None)


def forget_bias(own: Cell) -> dict[str, Array] | None:
    if not isinstance(own, LSTMCell):
        return None
    b = own.b.copy()
    b[own.units : 2 * own.units] += 1
    return {"b": b}


enter(
    "forget-bias-added",
    weights(forget_bias),
    "the port adds 1 to the forget gate; Keras's bias holds that already",
    "do not add a forget bias",
    "tvm PR#3410, tensorflow#29622",
)
enter(
    "cell-activation-missing",
    of(LSTMCell, wrong.BareCell),
    "the port computes h = o c; Keras computes h = o activation(c)",
    "apply the activation to c before it is multiplied with o",
    "discuss.pytorch.org 110741",
)
enter(
    "coupled-gates",
    {"": of(LSTMCell, wrong.Coupled), "1 - f for the input gate": of(LSTMCell, wrong.CoupledInput)},
    "the port takes 1 - i for the forget gate",
    "compute both gates from their own weights",
    "ONNX input_forget",
)
enter(
    "peepholes-added",
    recurrent(lambda layer: Altered(layer, wrong.peepholes) if isinstance(layer.cell, LSTMCell) else None),
    "the port feeds c to the gates (peepholes); Keras's LSTM does not",
    "compute the gates from x and h alone",
    "ONNX peepholes",
)
enter(
    "reset-before",
    of(GRUCell, wrong.ResetBefore, unless=lambda own: not own.reset_after),
    "the port applies the reset gate to h before the product with Wh; this layer has reset_after=True",
    "multiply r with Wh h + b', after the product",
    "coremltools#1124, nntrainer PR#1644",
)
enter(
    "reset-after",
    of(GRUCell, wrong.ResetAfter, unless=lambda own: own.reset_after),
    "the port applies the reset gate after the product with Wh; this layer has reset_after=False",
    "multiply r with h, before the product with Wh",
    "coremltools#1124, nntrainer PR#1644",
)
enter(
    "recurrent-bias-missing",
    bias_rows(lambda b: (b[0], 0 * b[1])),
    "the port ignores the second row of the bias, which stands beside Wh h",
    "add the second row of b to Wh h, inside of what the reset gate multiplies",
    "hls4ml#594, tfjs#2442",
    hides=zero_bias,
)
enter(
    "bias-rows-swapped",
    bias_rows(lambda b: (b[1], b[0])),
    "the port exchanges the two rows of the bias",
    "the first row of b stands beside Wx x, the second beside Wh h",
    "nnom PR#82",
    hides=zero_bias,
)
enter(
    "bias-rows-summed",
    of(GRUCell, wrong.SummedBias, unless=lambda own: not two_biases(own)),
    "the port adds both rows of the bias into one; the reset gate multiplies only the second",
    "keep the second row of b beside Wh h",
    "frugally-deep#99",
    hides=zero_bias,
)
enter(
    "update-gate-complemented",
    of(GRUCell, wrong.ComplementedUpdate),
    "the port exchanges z and 1 - z; Keras computes h = z h_{t-1} + (1 - z) n",
    "take z of the old state and 1 - z of the new one",
    "Haiku's convention",
)


@mistake(
    "hidden-and-cell-swapped",
    "the port takes the initial h for c and the initial c for h",
    "the first state is h, the second c",
    "coremltools PR#33",
)
def hidden_and_cell_swapped(case: Case) -> Variants:
    if not (isinstance(case.layer, Recurrent) and isinstance(case.layer.cell, LSTMCell)):
        return {}
    found: Variants = {}
    if case.initial_state:
        found["given"] = replace(case, initial_state=case.initial_state[::-1])
    if case.layer.return_state:
        view = View(lambda y: (y[0], y[2], y[1]), lambda y: (y[0], y[2], y[1]) if len(y) == 3 else None)
        found["returned"] = replace(case, view=view)
    return found


# --- time ---


def in_time_order(y: tuple[Array, ...]) -> tuple[Array, ...]:
    return (y[0][:, ::-1], *y[1:])


TURNED = View(in_time_order, in_time_order)


def single(case: Case) -> bool:
    """Whether the layer is one recurrent layer, whose views and masks are the case's own."""
    return isinstance(case.layer, Recurrent)


def turned(case: Case, change: Change, label: str = "") -> Variants:
    """The change, and the output turned round in time."""
    if single(case):
        new = change(case.layer) or case.layer
        return {label: replace(case, layer=new, view=TURNED)}

    def both(layer: Layer) -> Layer | None:
        new = change(layer)
        return None if new is None else Altered(new, wrong.through_output(lambda y: y[:, ::-1]))

    return each(case, both, label)


@mistake(
    "time-reversed",
    "the port walks the inputs from the last to the first",
    "walk the inputs from the first to the last",
    "keras#1431",
    hides=one_step,
)
def time_reversed(case: Case) -> Variants:
    change = setting("go_backwards", True, unless=lambda layer: layer.go_backwards)
    found = each(case, change)
    if found and single(case) and case.layer.return_sequences:  # type: ignore[attr-defined]
        found |= turned(case, change, "and puts the outputs back in time order")
    return found


def forwards_twice(layer: Layer) -> Layer | None:
    """Both directions walk forwards, and nothing is turned round."""
    if not isinstance(layer, Bidirectional) or not layer.return_sequences:
        return None
    forwards = changed(Altered(layer), setting("go_backwards", False)).parts["inner"]
    twin: Layer = mixed_in(wrong.Unturned, forwards)
    return twin


enter(
    "go-backwards-ignored",
    {"": setting("go_backwards", False), "and turns nothing round": forwards_twice},
    "the port ignores go_backwards",
    "walk the inputs from the last to the first",
    "tvm#15829",
    hides=one_step,
)


@mistake(
    "backward-output-reordered",
    "the port puts the outputs of a go_backwards layer back in time order; Keras leaves them as they were processed",
    "leave the outputs in the order in which they were computed",
    "keras#3448, tensorflow#40345, keras-onnx#523",
    hides=one_step,
)
def backward_output_reordered(case: Case) -> Variants:
    def applies(layer: Layer) -> bool:
        return isinstance(layer, Recurrent) and layer.go_backwards and layer.return_sequences

    if single(case):
        return {"": replace(case, view=TURNED)} if applies(case.layer) else {}
    if not isinstance(case.layer, Sequential):
        return {}
    flips = Altered(case.layer, wrong.through_output(lambda y: y[:, ::-1]))
    return each(
        case,
        lambda layer: Altered(layer, flips._forward) if applies(layer) else layer if layer_of_both(layer) else None,
    )


def layer_of_both(layer: Layer) -> bool:
    return isinstance(layer, Bidirectional)


def skipping(case: Case, first: bool) -> Case:
    """One step at either end of the processing as if it were masked."""
    mask = case.every_mask.copy()
    mask[:, 0 if first != case.backwards else -1] = False
    return replace(case, mask=mask)


@mistake(
    "off-by-one-step",
    "the port is off by one time step",
    "step t takes x_t and the state after step t-1, and its own output is the output of step t",
)
def off_by_one_step(case: Case) -> Variants:
    if case.calls > 1:
        return {}
    found = {
        **each(case, recurrent(altered(wrong.shifted)), "the output of step t-1 given for step t"),
        **each(case, recurrent(altered(wrong.two_before)), "the state of step t-2 used in step t"),
    }
    if single(case):
        found["the first step skipped"] = skipping(case, first=True)
        found["the last step skipped"] = skipping(case, first=False)
    return found


@mistake(
    "last-step-only-wrong-end",
    "the port takes the last output of a backward pass from the wrong end: after its first step",
    "take the output after the step processed last, which is time step 0",
    "keras#3448, dynet#1646",
    hides=one_step,
)
def last_step_only_wrong_end(case: Case) -> Variants:
    def change(layer: Recurrent) -> Layer | None:
        applies = layer.go_backwards and not layer.return_sequences
        return Altered(layer, wrong.wrong_end) if applies else None

    return each(case, recurrent(change))


@mistake(
    "time-major",
    "the port reads (batch, timesteps, ...) as (timesteps, batch, ...)",
    "give the batch axis first, or transpose the first two axes of the inputs and of the outputs",
    "coremltools#303",
    mixes_rows=True,
)
def time_major(case: Case) -> Variants:
    batch, steps = case.batch, case.timesteps
    if case.calls > 1 or max(batch, steps) == 1:
        return {}

    def swap(y: tuple[Array, ...]) -> tuple[Array, ...]:
        return (y[0].swapaxes(0, 1) if y[0].ndim > 2 else y[0], *y[1:])

    def reshape(y: tuple[Array, ...]) -> tuple[Array, ...] | None:
        fits = y[0].ndim > 2 and y[0].shape[:2] in ((batch, steps), (steps, batch))
        return (y[0].reshape(y[0].shape[1], y[0].shape[0], *y[0].shape[2:]), *y[1:]) if fits else y

    found: Variants = {}
    if len(case.output_shapes[0]) > 2:
        found["only its outputs"] = replace(case, view=View(swap, swap))
    if case.mask is not None or case.initial_state is not None:
        return found
    turned = case.mapped(lambda x: x.swapaxes(0, 1), rows=())
    found |= {"": replace(turned, view=View(swap, swap)), "only its inputs": turned}
    if batch != steps and min(batch, steps) > 1:
        view = View(reshape, reshape)  # type: ignore[arg-type]
        lying = case.mapped(lambda x: x.reshape(steps, batch, *x.shape[2:]), view=view, rows=())
        found["the bytes as they lie"] = lying
    return found


# --- states ---


@mistake(
    "state-not-reset",
    "the port keeps the state of one call for the next",
    "start each call from the initial state, or from zeros",
    "tensorflow#47813",
)
def state_not_reset(case: Case) -> Variants:
    if case.calls == 1 or case.layer.stateful or case.initial_state is not None or not case.layer.state_units:
        return {}
    return {"": replace(case, layer=state_kept(case.layer))}


@mistake(
    "state-reset-between-calls",
    "the port forgets the state between the calls of a stateful layer",
    "keep the state after each call for the next one",
    "keras#6321",
)
def state_reset_between_calls(case: Case) -> Variants:
    applies = case.calls > 1 and case.layer.stateful
    return {"": replace(case, layer=state_kept(case.layer, False))} if applies else {}


@mistake(
    "state-leaks-across-batch",
    "the port lets one batch row's state reach another row",
    "keep a state of its own for every batch row",
    "onnxruntime PR#3893",
    hides=one_row,
    mixes_rows=True,
)
def state_leaks_across_batch(case: Case) -> Variants:
    if case.batch == 1 or case.calls > 1:
        return {}
    ways = {
        "each row goes on from the end of the row before": wrong.row_after_row,
        "each row gets the state of the row before": wrong.next_row,
        "all rows get the state of the first": wrong.first_row,
    }
    return {
        key: new
        for label, way in ways.items()
        for key, new in each(case, recurrent(altered(way(case.batch))), label).items()
    }


@mistake(
    "initial-state-ignored",
    "the port starts from zeros although an initial state is given",
    "start from the initial state",
    "frugally-deep#148",
    hides=lambda case: "the initial state is zero" if not np.any(case.initial_state) else None,
)
def initial_state_ignored(case: Case) -> Variants:
    if case.initial_state is None:
        return {}
    found = {"": replace(case, initial_state=None)}
    if single(case) and len(case.initial_state) > 1:
        for n, name in enumerate(case.layer.state_names):
            states = tuple(0 * s if n == k else s for k, s in enumerate(case.initial_state))
            found[f"{name} only"] = replace(case, initial_state=states)
    return found


# --- masks ---


def drops_mask(layer: Layer) -> Layer | None:
    """Masking and Embedding without the mask that they make."""
    applies = isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.mask_zero)
    return Altered(layer, drops_mask=True) if applies else None


def masks(case: Case) -> bool:
    """Whether something is masked, by the case or by a layer of the model."""
    return case.mask is not None or any(True for _ in wrong.places(case.layer, drops_mask))


def masked(case: Case, change: Callable[[Array], Array | None], label: str = "", alone: bool = False) -> Variants:
    """Another mask: the case's own, or what each recurrent layer makes of the one that it gets. alone: not the same
    for the layers together."""
    if case.mask is not None and (single(case) or not alone):
        return {label: replace(case, mask=change(case.mask))}
    return each(case, recurrent(altered(wrong.with_mask(change))), label) if masks(case) else {}


@mistake(
    "mask-ignored",
    "the port processes masked steps as any other",
    "at a masked step keep the state and repeat the output",
    "tensorflow#49936",
    hides=lambda case: "no step is masked" if case.mask is not None and case.mask.all() else None,
)
def mask_ignored(case: Case) -> Variants:
    if case.mask is not None:
        return {"": replace(case, mask=None)}
    return {**each(case, drops_mask), **masked(case, lambda mask: None, "by a layer")}


@mistake(
    "mask-assumes-right-padding",
    "the port honours only a mask at the end",
    "choose at every step by its own mask",
    "tensorflow-onnx#1871",
    hides=mask_shape,
)
def mask_assumes_right_padding(case: Case) -> Variants:
    def up_to_last(mask: Array) -> Array:
        return np.asarray(np.flip(np.maximum.accumulate(np.flip(mask, axis=1), axis=1), axis=1))

    return {
        **masked(case, right_padding, "as many first steps as there are unmasked ones"),
        **masked(case, up_to_last, "every step up to the last unmasked one"),
    }


@mistake(
    "mask-zeroes-output",
    "the port puts out zeros at masked steps; Keras repeats the output before",
    "repeat the last output at a masked step",
    "onnxruntime#12492",
    hides=mask_shape,
)
def mask_zeroes_output(case: Case) -> Variants:
    return each(case, setting("zero_output_for_mask", True)) if masks(case) else {}


@mistake(
    "mask-resets-state",
    "the port sets the state to zero at a masked step; Keras keeps it",
    "keep the state at a masked step",
    "keras-onnx#386",
    hides=mask_shape,
)
def mask_resets_state(case: Case) -> Variants:
    if not masks(case):
        return {}
    return {
        **each(case, recurrent(altered(wrong.resets(False))), "the output is repeated"),
        **each(case, recurrent(altered(wrong.resets(True))), "the output is zero"),
    }


@mistake(
    "mask-multiplies",
    "the port multiplies by the mask instead of choosing by it",
    "choose between the old and the new state by the mask; NaN times zero is NaN",
    "",
    hides=mask_shape,
)
def mask_multiplies(case: Case) -> Variants:
    if not masks(case):
        return {}
    found = each(case, recurrent(altered(wrong.multiplies)), "the new state")
    if case.mask is not None and len(case.features) == 1:
        factor = case.mask[..., None]
        with np.errstate(invalid="ignore"):
            found["the inputs"] = case.mapped(lambda x: x * factor.astype(x.dtype), mask=None)
    return found


@mistake(
    "mask-not-reversed",
    "the port reverses the inputs of a go_backwards layer and not the mask",
    "reverse the mask along with the inputs",
    "keras#1934, keras#3662",
    hides=lambda case: (
        "the mask is the same both ways"
        if case.mask is not None and np.array_equal(case.mask, case.mask[:, ::-1])
        else None
    ),
)
def mask_not_reversed(case: Case) -> Variants:
    def reverse(mask: Array) -> Array:
        return mask[:, ::-1]

    if not masks(case):
        return {}
    if single(case):
        backwards = case.layer.go_backwards  # type: ignore[attr-defined]
        return {"": replace(case, mask=reverse(case.mask))} if backwards and case.mask is not None else {}
    with_reverse = altered(wrong.with_mask(reverse))
    return each(case, recurrent(lambda layer: with_reverse(layer) if layer.go_backwards else None))


# --- precision ---


def narrow_weights(bits: int, *names: str) -> Change:
    return weights(lambda own: {name: wrong.to_bits(getattr(own, name), bits) for name in names})


def precision_mistakes(name: str, bits: int) -> Callable[[Case], Variants]:
    kernels = narrow_weights(bits, "Wx", "Wh")
    products = wrong.rounding_products(bits)

    def both(layer: Any) -> Layer | None:
        new = kernels(layer)
        return None if new is None else cell(lambda own: mixed_in(products, own))(new)

    changes: dict[str, Change] = {
        f"weights in {name}": narrow_weights(bits, "Wx", "Wh", "b"),
        f"kernels in {name}": kernels,
        f"states in {name}": cell(lambda own: mixed_in(wrong.rounding_states(bits), own)),
        f"factors of products in {name}": both,
        f"outputs in {name}": recurrent(altered(wrong.through_output(lambda y: wrong.rounded(y, bits)))),
    }

    def variants(case: Case) -> Variants:
        found = {key: new for label, one in changes.items() for key, new in each(case, one, label).items()}
        if case.numpy_floats:
            found[f"inputs in {name}"] = case.mapped(lambda x: wrong.to_bits(x, bits))
        return found

    return variants


_PRECISIONS = {name: precision_mistakes(name, bits) for name, bits in (("float16", 11), ("bfloat16", 8))}
_PRECISIONS["float32"] = precision_mistakes("float32", 24)


@mistake(
    "reduced-precision",
    "the port rounds some of its numbers to a narrower precision",
    "compute in the layer's precision",
    "tensorflow#127346",
)
def reduced_precision(case: Case) -> Variants:
    """float16 stands for TF32 too: both have 11 bits."""
    narrower = {"float64": ("float32", "float16", "bfloat16"), "float32": ("float16", "bfloat16")}
    found: Variants = {}
    for name in narrower.get(case.layer.dtype.name, ()):
        found |= _PRECISIONS[name](case)
    return {
        label.replace("float16", "float16 or TF32") if " float16" in label else label: c for label, c in found.items()
    }


# --- wrappers and stacks ---


def both_directions(change: Callable[[Bidirectional], Layer | None]) -> Change:
    return lambda layer: change(layer) if isinstance(layer, Bidirectional) else None


enter(
    "halves-swapped",
    both_directions(
        lambda layer: mixed_in(wrong.HalvesSwapped, layer) if layer.merge_mode in ("concat", None) else None
    ),
    "the port puts the backward half first",
    "the forward half comes first",
)


def with_directions(choose: Callable[[Recurrent, Recurrent], tuple[Recurrent, Recurrent]]) -> Change:
    """The weights of the directions, given those that they should have; where they are of one shape."""

    def change(layer: Bidirectional) -> Layer | None:
        own = layer.directions
        kinds = {(type(part.cell), tuple(w.shape for w in part.weights.values())) for part in own}
        if len(kinds) > 1:
            return None
        twin = copy.copy(layer)
        twin.parts = {
            name: part.replace(**other.weights)
            for (name, part), other in zip(layer.parts.items(), choose(*own), strict=True)
        }
        return twin

    return both_directions(change)


enter(
    "directions-exchanged",
    {
        "": with_directions(lambda forward, backward: (backward, forward)),
        "the forward weights in both": with_directions(lambda forward, backward: (forward, forward)),
        "the backward weights in both": with_directions(lambda forward, backward: (backward, backward)),
    },
    "the port gives a direction the other one's weights",
    "the first half of the weights is the forward layer's, the second the backward layer's",
)
enter(
    "backward-half-not-reversed",
    both_directions(lambda layer: mixed_in(wrong.Unturned, layer) if layer.return_sequences else None),
    "the port leaves the backward half in the order of processing; Keras turns it round before merging",
    "turn the backward half round in time before merging",
    "keras#3448",
    hides=one_step,
)


def merged_by(mode: str | None) -> Change:
    def change(layer: Bidirectional) -> Layer | None:
        forward, backward = layer.directions
        fits = mode in ("concat", None) or forward.units == backward.units
        if mode == layer.merge_mode or not fits:
            return None
        twin = layer.mapped(lambda _, name, array: array)
        twin.merge_mode = mode
        return twin

    return both_directions(change)


@mistake(
    "merge-mode-wrong",
    "the port merges the two directions in another way than the layer's merge_mode",
    "merge as the layer's merge_mode says",
)
def merge_mode_wrong(case: Case) -> Variants:
    """Inside a model the width must stay: what comes next would refuse another."""
    modes = ("concat", "sum", "mul", "ave") if isinstance(case.layer, Bidirectional) else ("sum", "mul", "ave")
    found = {key: new for mode in modes for key, new in each(case, merged_by(mode), mode).items()}
    return found if isinstance(case.layer, Bidirectional) or single_width(case) else {}


def single_width(case: Case) -> bool:
    """Whether every Bidirectional layer in it has a merge mode that leaves the width."""
    modes = [layer.merge_mode for layer in case.layer.every(Bidirectional)]
    return not set(modes) & {"concat", None}


def unzeroed(layer: Bidirectional) -> Layer | None:
    if not layer.return_sequences:
        return None
    return changed(Altered(layer), setting("zero_output_for_mask", False)).parts["inner"]


@mistake(
    "mask-zero-output-missing",
    "the port repeats outputs at masked steps; Bidirectional puts out zeros there",
    "put out zeros at masked steps of a Bidirectional sequence",
    "tensorflow#49738",
    hides=mask_shape,
)
def mask_zero_output_missing(case: Case) -> Variants:
    return each(case, both_directions(unzeroed)) if masks(case) else {}


def rearranged(case: Case, parts: dict[str, Layer]) -> Case | None:
    """The model of those layers, if their sizes fit."""
    assert isinstance(case.layer, Sequential)
    few = case.rows_at(np.arange(1))
    try:
        model = Sequential(list(parts.values()), name=case.layer.name)
        model.parts = parts
        with np.errstate(all="ignore"):
            y = model(few.x)
    except (ValueError, IndexError, TypeError):
        return None
    shapes = tuple(array.shape for array in (y if isinstance(y, tuple) else (y,)))
    return replace(case, layer=model) if shapes == few.output_shapes else None


def stack(case: Case) -> dict[str, Layer]:
    if not isinstance(case.layer, Sequential):
        return {}
    return {name: layer for name, layer in case.layer.parts.items() if not isinstance(layer, Dropout)}


def movable(parts: dict[str, Layer]) -> list[str]:
    return [name for name, layer in parts.items() if not isinstance(layer, Embedding)]  # nothing else takes tokens


@mistake("layer-skipped", "the port leaves a layer of the model out", "run every layer of the model")
def layer_skipped(case: Case) -> Variants:
    parts = stack(case)
    rest = {name: {k: v for k, v in parts.items() if k != name} for name in movable(parts) if len(parts) > 1}
    models = {name: rearranged(case, others) for name, others in rest.items()}
    return {name: model for name, model in models.items() if model is not None}


@mistake("layers-swapped", "the port runs two layers in each other's place", "run the layers in the model's order")
def layers_swapped(case: Case) -> Variants:
    def swaps() -> Iterator[tuple[str, Case | None]]:
        parts = stack(case)
        for a, b in itertools.combinations(movable(parts), 2):
            layers = {**parts, a: parts[b], b: parts[a]}
            yield f"{a} and {b}", rearranged(case, layers)

    return {name: model for name, model in swaps() if model is not None}


def is_common(name: str) -> bool:
    """Whether people make it: orders of gates that no library has are only there to be named."""
    return not re.fullmatch("gate-order-[a-z]{3,4}", name) or name.removeprefix("gate-order-") in ORDERS


# --- the page ---


def page() -> str:
    """docs/mistakes.md."""
    rows = [
        f"| `{m.id}` | {escaped(m.what)} | {escaped(m.fix)} | {escaped(m.source)} |"
        for m in MISTAKES.values()
        if not re.fullmatch(r"gate-order-[a-z]{3,4}", m.id)
    ]
    orders = ", ".join(f"`{name}`" for name in MISTAKES if re.fullmatch(r"gate-order-[a-z]{3,4}", name))
    return "\n".join(
        [
            "# Mistakes that are known by name\n",
            "Made from the catalogue in `parity/mistakes/`: `python -m parity.mistakes > docs/mistakes.md`. After a",
            "FAIL, a mistake is named as the cause where the candidate is within rounding of it in every answer that",
            "it gave; after a PASS, one that would have passed too is named as not visible. `--only-mistake ID` looks",
            "for one alone.\n",
            "| id | what the port does | what to do | source |",
            "| --- | --- | --- | --- |",
            *rows,
            f"\nEvery order of gates is one more, by its letters: {orders}.",
        ]
    )


def escaped(text: str) -> str:
    return text.replace("|", "\\|")
