"""Cases: a layer, inputs, a mask, an initial state. The built-in grid of them, and what else a candidate is asked."""

import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import combinations, product
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import InputError
from rnn_scratch import SimpleRNN
from rnn_scratch.activations import ACTIVATIONS, Activation
from rnn_scratch.cells import Cell
from rnn_scratch.layers import Layer, Recurrent

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One question: what does this layer make of these inputs?

    layer: rnn_scratch's, whose weights and settings are the ones meant. x: (batch, timesteps, input_dim) in the layer's
    dtype. mask: (batch, timesteps) or None. initial_state: a tuple of (batch, units), or None for zeros.
    keras: settings of the Keras layer that change how it computes and not what (`unroll`).
    rows: what each batch row is meant to show, for a probe.
    """

    id: str
    layer: Recurrent
    x: Array
    mask: Mask | None = None
    initial_state: tuple[Array, ...] | None = None
    keras: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    rows: Sequence[str] = ()

    @property
    def batch(self) -> int:
        return len(self.x)

    @property
    def timesteps(self) -> int:
        return int(self.x.shape[1])

    def steps(self, start: int, stop: int, states: tuple[Array, ...] | None) -> "Case":
        """A case of some of the steps, counted in the order of processing, from those states."""
        kept = slice(start, stop)
        if self.layer.go_backwards:
            kept = slice(self.timesteps - stop, self.timesteps - start)
        mask = None if self.mask is None else self.mask[:, kept]
        return replace(self, x=self.x[:, kept], mask=mask, initial_state=states)

    def first(self, steps: int) -> "Case":
        """The case cut to the first steps that are processed."""
        return self.steps(0, steps, self.initial_state)

    def processed(self) -> tuple[Array, Mask | None]:
        """x and mask in the order of processing."""
        if not self.layer.go_backwards:
            return self.x, self.mask
        return self.x[:, ::-1], None if self.mask is None else self.mask[:, ::-1]


def generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


# --- the grid ---

AXES: dict[str, tuple[Any, ...]] = {
    "batch": (1, 2, 8, 33),
    "timesteps": (1, 2, 3, 10, 100),
    "input_dim": (1, 4, 31),
    "units": (1, 2, 3, 8, 64, 257),
    "return_sequences": (True, False),
    "activation": tuple(dict.fromkeys(row.name for row in ACTIVATIONS.values() if row.name != "hard_sigmoid_keras2")),
    "weights": ("normal", "keras", "uniform", "chaotic"),
}
_SHAPE = ("batch", "timesteps", "input_dim", "units", "return_sequences", "weights")

VARIANTS: tuple[dict[str, Any], ...] = (
    {"go_backwards": True},
    *({"mask": mask, "state": state} for mask in ("leading", "mixed", "trailing", "all") for state in (False, True)),
    *({"mask": mask, "state": True, "zero_output_for_mask": True} for mask in ("leading", "trailing")),
    *({"mask": mask, "state": True, "go_backwards": True} for mask in ("leading", "mixed", "trailing")),
    {"state": True},
    {"return_state": True},
    {"return_state": True, "mask": "trailing", "state": True},
    {"use_bias": False},
    {"unroll": True},
    {"unroll": True, "mask": "mixed", "state": True},
    {"dtype": "float64"},
    {"dtype": "float16"},
)


def grid(select: Mapping[str, Sequence[Any]] | None = None, only: str | None = None, seed: int = 0) -> list[Case]:
    """The built-in cases: SimpleRNN in every size, weight and setting, covered and not multiplied out.

    How chosen: of batch, timesteps, input_dim, units, return_sequences and weights, every two values of every two axes
    meet in some case (a greedy pairwise cover; the last output of a chaotic network only after few steps). Then each
    setting and each activation in turn, as a sequence and as a last output, on a small shape of which no two sizes are
    equal; activations without bounds get a recurrent kernel that does not grow. `select` narrows the axes: the cover is
    made anew of what is left. `only` keeps the cases whose id matches that pattern. A case's data follow from its id
    and the seed.

    Raises InputError for a selection that no case meets.
    """
    axes = dict(AXES)
    for name, wanted in (select or {}).items():
        axes[name] = tuple(value for value in AXES[name] if value in wanted)
        if not axes[name] or set(wanted) - set(axes[name]):
            missing = ", ".join(str(value) for value in wanted if value not in AXES[name])
            raise InputError(
                f"{name}: no case of the grid has {missing or 'nothing'}; it has {', '.join(map(str, AXES[name]))}"
            )
    chosen = list(dict.fromkeys(_specifications(axes)))
    cases = [_build(dict(spec), seed) for spec in chosen]
    kept = [case for case in cases if only is None or fnmatchcase(case.id, only)]
    if not kept:
        raise InputError(
            f"selection: no case of the grid matches{f' {only!r}' if only else ''}; `parity check --list` shows them"
        )
    return kept


def _specifications(axes: Mapping[str, Sequence[Any]]) -> Iterator[tuple[tuple[str, Any], ...]]:
    plain = {name: axes[name] for name in _SHAPE}
    if "tanh" in axes["activation"]:
        for row in pairwise_cover(plain, unless=undecidable):
            yield tuple({**row, "activation": "tanh"}.items())
    shape: dict[str, Any] = {name: _nearest(axes[name], value) for name, value in _SMALL.items()}
    for sequences in axes["return_sequences"]:
        shape["return_sequences"] = sequences
        for variant in VARIANTS if "tanh" in axes["activation"] else ():
            yield tuple({**shape, "activation": "tanh", **variant}.items())
        short = {} if sequences else {"timesteps": _nearest(axes["timesteps"], 3)}  # a last output that bounds reach
        for activation in axes["activation"]:
            if not undecidable({**shape, **short}):
                yield tuple({**shape, **short, "activation": activation}.items())


_SMALL = {"batch": 2, "timesteps": 10, "input_dim": 4, "units": 8, "weights": "normal"}


def _nearest(values: Sequence[Any], wanted: Any) -> Any:
    return wanted if wanted in values else values[-1]


def undecidable(row: Mapping[str, Any]) -> bool:
    """Of the last output of a chaotic network nothing can be said after some steps, whoever computed it."""
    return row["weights"] == "chaotic" and not row["return_sequences"] and row["timesteps"] > 3


def pairwise_cover(
    axes: Mapping[str, Sequence[Any]], unless: Callable[[Mapping[str, Any]], bool] = lambda row: False
) -> list[dict[str, Any]]:
    """Rows over the axes in which every pair of values of every two axes occurs that can. Greedy, always the same."""
    every = (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))
    candidates = [(row, set(combinations(row.items(), 2))) for row in every if not unless(row)]
    missing = set[Any]().union(*(pairs for _, pairs in candidates))
    random.Random(0).shuffle(candidates)  # in order, ties would all fall to the first values
    rows = []
    while missing:
        row, pairs = max(candidates, key=lambda candidate: len(missing & candidate[1]))
        missing -= pairs
        rows.append(row)
    return rows


def _build(spec: dict[str, Any], seed: int) -> Case:
    name = _id(spec)
    rng = generator(seed, name)
    batch, timesteps, input_dim, units = (spec[axis] for axis in ("batch", "timesteps", "input_dim", "units"))
    dtype = spec.get("dtype", "float32")
    Wx, Wh, b = random_weights(rng, spec["weights"], units, input_dim)
    Wx, Wh, b = (array.astype(dtype) for array in (Wx, tamed(Wh, ACTIVATIONS[spec["activation"]]), b))
    layer = SimpleRNN(
        Wx,
        Wh,
        b if spec.get("use_bias", True) else None,
        activation=spec["activation"],
        return_sequences=spec["return_sequences"],
        return_state=spec.get("return_state", False),
        go_backwards=spec.get("go_backwards", False),
        zero_output_for_mask=spec.get("zero_output_for_mask", False),
    )
    draw = rng.random if spec["weights"] == "uniform" else rng.standard_normal
    state = (rng.uniform(-1, 1, (batch, units)).astype(dtype),) if spec.get("state") else None
    x = draw((batch, timesteps, input_dim)).astype(dtype)
    mask = make_mask(rng, spec["mask"], batch, timesteps) if "mask" in spec else None
    if mask is not None and spec["mask"] == "mixed":
        x[~mask] = np.nan  # what stands at a masked step is nobody's business
    keras = {"unroll": True} if spec.get("unroll") else {}
    return Case(name, layer, x, mask, state, keras)


def tamed(Wh: Array, activation: Activation) -> Array:
    """A recurrent kernel under which nothing overflows within the grid's steps, where the activation has no bounds."""
    if np.isfinite(activation.low) and np.isfinite(activation.high):
        return Wh
    if not np.isfinite(activation.slope):
        return -np.abs(Wh)  # exponential: more state, less of the next
    return Wh / max(1.0, float(np.linalg.norm(Wh, 2)) * activation.slope)


def _id(spec: Mapping[str, Any]) -> str:
    parts = [
        "simple_rnn",
        _shape_id(spec["batch"], spec["timesteps"], spec["input_dim"], spec["units"], spec["return_sequences"]),
        spec["activation"],
        spec["weights"],
        f"{spec['mask']}_mask" if "mask" in spec else "",
        "state" if spec.get("state") else "",
        *(flag for flag in ("go_backwards", "zero_output_for_mask", "return_state", "unroll") if spec.get(flag)),
        "" if spec.get("use_bias", True) else "no_bias",
        spec.get("dtype", ""),
    ]
    return "-".join(part for part in parts if part)


def case_id(layer: Recurrent, x: Array) -> str:
    """The id of a case that is not of the grid, by the same pattern."""
    batch, timesteps, input_dim = x.shape
    shape = _shape_id(batch, timesteps, input_dim, layer.units, layer.return_sequences)
    return f"{layer.cell.name}-{shape}-{layer.cell.activation.name}"


def _shape_id(batch: int, timesteps: int, input_dim: int, units: int, sequences: bool) -> str:
    return f"b{batch}-t{timesteps}-i{input_dim}-u{units}-{'seq' if sequences else 'last'}"


def randomized(layer: Layer, rng: np.random.Generator, kind: str = "normal") -> Layer:
    """The same layer with every weight drawn anew, in its own dtype (see `draw_weight`)."""
    cells = {name: cell for name, cell in cells_of(layer)}
    drawn = {}
    for name, array in layer.weights.items():
        prefix, _, own = name.rpartition(".")
        drawn[name] = draw_weight(rng, kind, own, array.shape, cells.get(prefix)).astype(array.dtype)
    return layer.replace(**drawn)


def cells_of(layer: Layer, prefix: str = "") -> Iterator[tuple[str, Cell]]:
    """The cells in a layer, each by the path of its weights ("" for that of the layer itself)."""
    if isinstance(layer, Recurrent):
        yield prefix, layer.cell
    for name, part in layer.parts.items():
        yield from cells_of(part, f"{prefix}.{name}" if prefix else name)


def draw_weight(rng: np.random.Generator, kind: str, name: str, shape: tuple[int, ...], cell: Cell | None) -> Array:
    """One array in float64. normal: N(0, 1/fan_in), biases N(0, 1/4), embeddings N(0, 1). keras: the distributions of
    Keras's default initializers (Glorot uniform, orthogonal, zeros, the forget gate's bias ones). uniform: [0, 1).
    chaotic: normal, the recurrent gain 2."""
    if kind == "uniform":
        return rng.random(shape)
    if kind == "keras":
        return keras_default(rng, name, shape, cell)
    if name == "b":
        return rng.standard_normal(shape) / 2
    gain = 2.0 if kind == "chaotic" and name == "Wh" else 1.0
    fan_in = 1 if name == "E" else shape[1]
    return gain * rng.standard_normal(shape) / np.sqrt(fan_in)


def keras_default(rng: np.random.Generator, name: str, shape: tuple[int, ...], cell: Cell | None) -> Array:
    if name == "b":
        b = np.zeros(shape)
        if cell is not None and "f" in cell.gates:
            b[cell.units : 2 * cell.units] = 1  # unit_forget_bias
        return b
    if name == "E":
        return rng.uniform(-0.05, 0.05, shape)
    if name == "Wh":
        q, r = np.linalg.qr(rng.standard_normal(shape))
        return np.asarray(q * np.sign(np.diag(r)))
    limit = np.sqrt(6 / sum(shape))
    return rng.uniform(-limit, limit, shape)


def make_mask(rng: np.random.Generator, kind: str, batch: int, timesteps: int) -> Mask:
    """leading, trailing: false at one end, for a number of steps that differs from row to row; mixed: false anywhere;
    all: false everywhere."""
    steps = np.arange(timesteps)[None, :]
    hidden = (1 + np.arange(batch)[:, None]) % timesteps
    if kind == "leading":
        return np.asarray(steps >= hidden)
    if kind == "trailing":
        return np.asarray(steps < timesteps - hidden)
    if kind == "all":
        return np.zeros((batch, timesteps), bool)
    mask = rng.random((batch, timesteps)) < 0.6
    mask[:, 1::4], mask[:, 2::4] = False, True  # whatever was drawn, some of each
    return mask


# --- what else a candidate that can be called is asked ---


def companions(case: Case, takes: frozenset[str], seed: int) -> Iterator[Case]:
    """Short and long sequences, other batch sizes, masks and states, beside the user's one case.

    In a long contracting network a dropped first step is invisible to anybody: hence one, two and three steps.
    """
    rng = generator(seed, f"{case.id} companions")
    units, dtype = case.layer.units, case.layer.dtype
    scale = _typical(case.x)

    def drawn(name: str, batch: int, timesteps: int, mask: Mask | None = None, state: bool = False) -> Case:
        x = (scale * rng.standard_normal((batch, timesteps, case.layer.input_dim))).astype(dtype)
        states = (
            tuple(rng.uniform(-1, 1, (batch, units)).astype(dtype) for _ in case.layer.cell.states) if state else None
        )
        return replace(case, id=f"{case.id} / {name}", x=x, mask=mask, initial_state=states)

    yield from (
        drawn(f"{t} timestep{'s' if t > 1 else ''}, batch {batch}", batch, t) for t, batch in ((1, 3), (2, 1), (3, 2))
    )
    if case.timesteps < LONG:
        yield drawn(f"{LONG} timesteps, batch 2", 2, LONG)
    if "initial_state" in takes:
        yield drawn("an initial state", 3, 4, state=True)
    if "mask" in takes:
        for kind in ("leading", "mixed", "trailing"):
            yield drawn(f"a {kind} mask", 3, 5, make_mask(rng, kind, 3, 5), state="initial_state" in takes)
        mask = make_mask(rng, "mixed", 3, 5)
        mask[1] = False
        hidden = drawn("a row all masked, NaN at masked steps", 3, 5, mask, state="initial_state" in takes)
        hidden.x[~mask] = np.nan
        yield hidden


LONG = 30


def _typical(x: Array) -> float:
    finite = np.abs(x[np.isfinite(x)].astype(np.float64))
    return float(np.sqrt(np.mean(finite[-100_000:] ** 2))) or 1.0 if finite.size else 1.0


def probes(case: Case, takes: frozenset[str], seed: int) -> Iterator[Case]:
    """Ordinary cases whose inputs leave rounding next to nothing to do, so that a single weight off by a little shows.

    Unit vectors, scaled by a power of two until the largest weight they meet is near 1, make a pre-activation of one
    weight and one bias. With `initial_state` likewise for the recurrent weights. With `layer`, weights on a dyadic
    lattice, whose sums are exact in any order; where no initial state can be set, two steps: the first sets one.
    """
    yield unit_inputs(case)
    if "initial_state" in takes:
        yield unit_states(case)
    if "layer" in takes:
        yield from lattices(case, "initial_state" in takes, seed)


MOST_ROWS = 300
LATTICE_BITS = {"float16": 5, "float32": 12, "float64": 12}


def unit_inputs(case: Case) -> Case:
    Wx = case.layer.cell.Wx
    x, features = _units_of(Wx)
    rows = tuple(f"the input is {x[i, j]:g} at feature {j}" for i, j in enumerate(features))
    x = np.concatenate([x, np.zeros_like(x[:1])])  # the bias alone
    return replace(
        case, id=f"{case.id} / unit inputs", x=x[:, None], mask=None, initial_state=None, rows=(*rows, "the input is 0")
    )


def unit_states(case: Case) -> Case:
    h, units = _units_of(case.layer.cell.Wh)
    rows = tuple(f"the initial state is {h[i, j]:g} at unit {j}" for i, j in enumerate(units))
    x = np.zeros((len(h), 1, case.layer.input_dim), case.layer.dtype)
    return replace(case, id=f"{case.id} / unit states", x=x, mask=None, initial_state=(h,), rows=rows)


def _units_of(W: Array) -> tuple[Array, NDArray[np.intp]]:
    """Unit vectors (rows, n) for the columns of W (m, n), each times the power of two that brings the column near 1."""
    n = W.shape[1]
    columns = np.arange(n) if n <= MOST_ROWS else np.linspace(0, n - 1, MOST_ROWS).astype(np.intp)
    largest = np.abs(W[:, columns].astype(np.float64)).max(axis=0)
    power = np.clip(-np.floor(np.log2(np.where(largest > 0, largest, 1))), -10, 10)
    units = np.zeros((len(columns), n), W.dtype)
    units[np.arange(len(columns)), columns] = np.exp2(power)
    return units, columns


def lattices(case: Case, takes_state: bool, seed: int) -> Iterator[Case]:
    """Cases with weights, inputs and states on dyadic lattices instead of the layer's own."""
    rng = generator(seed, f"{case.id} lattice")
    layer, bits = case.layer, LATTICE_BITS[case.layer.dtype.name]
    if not takes_state:
        yield from two_step_lattices(case, rng, bits)
        return
    Wx, Wh, b = (_lattice(rng, array.shape, bits) for array in (layer.cell.Wx, layer.cell.Wh, layer.cell.b))
    x, h = (_lattice(rng, (4, *shape), 2).astype(layer.dtype) for shape in ((1, layer.input_dim), (layer.units,)))
    shrink = np.exp2(
        -np.round(np.log2(layer.units + layer.input_dim) / 2)
    )  # sums near 1: a saturated unit shows nothing
    lattice = with_weights(layer, shrink * Wx, shrink * Wh, shrink * b)
    yield replace(case, id=f"{case.id} / lattice", layer=lattice, x=x, mask=None, initial_state=(h,))


def two_step_lattices(case: Case, rng: np.random.Generator, bits: int) -> Iterator[Case]:
    """Two steps: the first puts the state at a few units, Wx being zero but there; the second input is zero."""
    layer = case.layer
    units, input_dim = layer.units, layer.input_dim
    width = max(16, -(-units // (16 * input_dim)))
    groups = [np.arange(start, min(start + width, units)) for start in range(0, units, width)]
    x = np.zeros((input_dim, 2, input_dim), layer.dtype)
    x[np.arange(input_dim), 1 if layer.go_backwards else 0, np.arange(input_dim)] = 1
    for start in range(0, len(groups), input_dim):
        Wx, Wh = np.zeros((units, input_dim)), _lattice(rng, (units, units), bits)
        for feature, group in enumerate(groups[start : start + input_dim]):
            Wx[group, feature] = rng.choice([-0.75, -0.5, 0.5, 0.75], len(group))
        name = f"{case.id} / two-step lattice from unit {start * width}"
        yield replace(
            case, id=name, layer=with_weights(layer, Wx, Wh, np.zeros(units)), x=x, mask=None, initial_state=None
        )


def _lattice(rng: np.random.Generator, shape: Sequence[int], bits: int) -> Array:
    """Multiples of 2^-bits from 1/4 to 1, of either sign."""
    return rng.choice([-1.0, 1.0], shape) * rng.integers(2**bits // 4, 2**bits, shape, endpoint=True) * 2.0**-bits


def with_weights(layer: Recurrent, Wx: Array, Wh: Array, b: Array) -> Recurrent:
    """The same layer with those weights, its bias where it has one."""
    weights = {"Wx": Wx, "Wh": Wh, "b": b}
    return layer.replace(**{name: weights[name].astype(layer.dtype) for name in layer.cell.weights})
