"""Cases: a layer, inputs, a mask, an initial state. The built-in grid of them, and what else a candidate is asked."""

import copy
import importlib
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import InputError, MissingExtraError
from rnn_scratch import Bidirectional, Dense, Embedding, Masking, Sequential
from rnn_scratch.activations import ACTIVATIONS, Activation
from rnn_scratch.cells import Cell, GRUCell, LSTMCell, SimpleRNNCell
from rnn_scratch.layers import SETTINGS, Layer, Recurrent, recurrent
from rnn_scratch.wrappers import MERGE_MODES

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """How results are looked at: in another order, say.

    show: the results of a layer, a tuple of arrays, as they are seen. undo: what was seen, as the layer's own results
    again, or None where that cannot be. Shapes of what is no such view may come as well.
    """

    show: Callable[[tuple[Array, ...]], tuple[Array, ...]]
    undo: Callable[[tuple[Array, ...]], tuple[Array, ...] | None]


@dataclass(frozen=True)
class Case:
    """One question: what does this layer make of these inputs?

    layer: rnn_scratch's, whose weights and settings are the ones meant. inputs: by name, each (batch, timesteps,
    input_dim) in the layer's dtype, or token ids (batch, timesteps); one array by itself is the input `x`.
    mask: (batch, timesteps) or None. initial_state: a tuple of (batch, units) for each state, or None for zeros.
    calls: into how many calls, one after another, the timesteps are divided (a stateful layer keeps its state between).
    rows: what each batch row is meant to show, for a probe. view: how the results are looked at, if not as they are.
    """

    id: str
    layer: Layer
    inputs: Mapping[str, Array]
    mask: Mask | None = None
    initial_state: tuple[Array, ...] | None = None
    calls: int = 1
    rows: Sequence[str] = ()
    view: View | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Mapping):
            object.__setattr__(self, "inputs", {"x": self.inputs})

    # --- what it is ---

    @property
    def x(self) -> Array:
        """The only input."""
        (x,) = self.inputs.values()
        return x

    @property
    def _any(self) -> Array:
        """One of the inputs, for what all of them have in common."""
        return next(iter(self.inputs.values()))

    @property
    def batch(self) -> int:
        return len(self._any)

    @property
    def timesteps(self) -> int:
        return int(self._any.shape[1])

    @property
    def features(self) -> tuple[int, ...]:
        """The axes of the input after batch and timesteps; none of token ids."""
        return self.x.shape[2:]

    @property
    def size(self) -> int:
        """Of all inputs together."""
        return sum(x.size for x in self.inputs.values())

    @property
    def tokens(self) -> bool:
        """Whether there are only token ids, which are not rounded."""
        return all(x.dtype.kind in "iu" for x in self.inputs.values())

    @property
    def numpy_floats(self) -> bool:
        """Whether all inputs are floats that NumPy itself knows: bfloat16 is of the kind V."""
        return all(x.dtype.kind == "f" for x in self.inputs.values())

    @property
    def zero(self) -> bool:
        return not any(x.any() for x in self.inputs.values())

    @property
    def backwards(self) -> bool:
        return bool(getattr(self.layer, "go_backwards", False))

    @property
    def start(self) -> tuple[Array, ...]:
        """The states from which the layer starts, zeros where none are given."""
        return self.layer.initial_states(self.batch, self.initial_state)

    @property
    def every_mask(self) -> Mask:
        """The mask; all true where there is none."""
        return np.ones((self.batch, self.timesteps), bool) if self.mask is None else self.mask

    @property
    def arrays(self) -> dict[str, Array]:
        """All that is given, by name: the inputs, `mask`, `initial_state/0`, ..."""
        mask = {} if self.mask is None else {"mask": self.mask}
        states = {f"initial_state/{n}": state for n, state in enumerate(self.initial_state or ())}
        return {**self.inputs, **mask, **states}

    # --- what is to come of it ---

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the outputs, and of the states where the layer returns them."""
        return tuple(self.layer.output_shapes(self.x.shape))

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """Of the outputs of every step, returned or not."""
        return self.layer.with_sequences().output_shapes(self.x.shape)[0]

    def part_shapes(self) -> Iterator[tuple[str, Layer, tuple[int, ...], tuple[int, ...]]]:
        """Each part's name, itself, and the shapes of its outputs at every step and as it returns them. In a model a
        part takes what the one before puts out; in any other layer all take the inputs."""
        shape: tuple[int, ...] = self.x.shape
        for name, part in self.layer.parts.items():
            own = part.output_shapes(shape)[0]
            yield name, part, part.with_sequences().output_shapes(shape)[0], own
            shape = own if isinstance(self.layer, Sequential) else shape

    def put_to(self, layer: Layer) -> Any:
        """What a layer of rnn_scratch answers."""
        return layer(self.x, mask=self.mask, initial_state=self.initial_state)

    # --- the same question on other inputs ---

    def on(self, inputs: Array | Mapping[str, Array], **changes: Any) -> "Case":
        named = inputs if isinstance(inputs, Mapping) else {"x": inputs}
        return replace(self, inputs=named, **changes)

    def mapped(self, change: Callable[[Array], Array], **changes: Any) -> "Case":
        """With every input changed."""
        return self.on({name: change(x) for name, x in self.inputs.items()}, **changes)

    def cast(self, dtype: Any, **changes: Any) -> "Case":
        """Inputs and states in that dtype; token ids stay."""
        states = None if self.initial_state is None else tuple(state.astype(dtype) for state in self.initial_state)
        return self.mapped(lambda x: x if x.dtype.kind in "iu" else x.astype(dtype), initial_state=states, **changes)

    def features_at(self, kept: NDArray[np.intp], **changes: Any) -> "Case":
        """Those features of the inputs, in that order."""
        return self.mapped(lambda x: np.ascontiguousarray(x[..., kept]), **changes)

    def units_at(self, kept: NDArray[np.intp], **changes: Any) -> "Case":
        """Those units of the initial state, in that order."""
        states = None if self.initial_state is None else tuple(state[:, kept] for state in self.initial_state)
        return replace(self, initial_state=states, **changes)

    def rows_at(self, rows: NDArray[np.intp]) -> "Case":
        """The case of those batch rows."""
        mask = None if self.mask is None else self.mask[rows]
        states = None if self.initial_state is None else tuple(state[rows] for state in self.initial_state)
        named = tuple(self.rows[n] for n in rows) if self.rows else ()
        return self.mapped(lambda x: x[rows], mask=mask, initial_state=states, rows=named)

    # --- along the timesteps ---

    def steps(self, start: int, stop: int, states: tuple[Array, ...] | None) -> "Case":
        """A case of some of the steps, counted in the order of processing, from those states."""
        if self.backwards:
            start, stop = self.timesteps - stop, self.timesteps - start
        return self._cut(slice(start, stop), initial_state=states)

    def first(self, steps: int) -> "Case":
        """The case cut to the first steps that are processed."""
        return self.steps(0, steps, self.initial_state)

    def call(self, number: int) -> "Case":
        """One of the calls, as a case of its own."""
        steps = self.timesteps // self.calls
        return self._cut(slice(number * steps, (number + 1) * steps), calls=1)

    def twice(self, **changes: Any) -> "Case":
        """Two calls with the same inputs, one after another."""
        mask = None if self.mask is None else np.concatenate([self.mask, self.mask], axis=1)
        return self.mapped(lambda x: np.concatenate([x, x], axis=1), mask=mask, calls=2, **changes)

    def padded(self, steps: int) -> "Case":
        """The case with inputs of zeros after its own, in the order of processing, up to so many steps."""
        more = steps - self.timesteps
        along = (more, 0) if self.backwards else (0, more)
        return self.mapped(lambda x: np.pad(x, [(0, 0), along, *[(0, 0)] * (x.ndim - 2)]))

    def processed(self) -> tuple[Array, Mask | None]:
        """x and mask in the order of processing."""
        if not self.backwards:
            return self.x, self.mask
        return self.x[:, ::-1], None if self.mask is None else self.mask[:, ::-1]

    def at(self, step: int) -> Array:
        """x at one timestep."""
        return np.asarray(self.x[:, step])

    def _cut(self, kept: slice, **changes: Any) -> "Case":
        mask = None if self.mask is None else self.mask[:, kept]
        return self.mapped(lambda x: x[:, kept], mask=mask, **changes)


def generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


# --- the grid ---

AXES: dict[str, tuple[Any, ...]] = {
    "layer": ("simple_rnn", "lstm", "gru", "bidirectional", "stack"),
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
    {"square": True},
    {"stateful": True},
    {"dtype": "float64"},
    {"dtype": "float16"},
    {"dtype": "bfloat16"},
)

GATED: tuple[dict[str, Any], ...] = tuple(
    {"recurrent_activation": name} for name in ("hard_sigmoid", "softsign", "tanh", "relu6")
)
CELLS: dict[str, tuple[type[Cell], tuple[dict[str, Any], ...]]] = {
    "simple_rnn": (SimpleRNNCell, ()),
    "lstm": (LSTMCell, GATED),
    "gru": (
        GRUCell,
        (
            *GATED,
            {"reset_after": False},
            {"reset_after": False, "use_bias": False},
            {"reset_after": False, "mask": "mixed", "state": True, "go_backwards": True},
            {"reset_after": False, "dtype": "float16"},
        ),
    ),
}
"""The cells of the grid, and the variants that only they have."""


def grid(select: Mapping[str, Sequence[Any]] | None = None, only: str | None = None, seed: int = 0) -> list[Case]:
    """The built-in cases: SimpleRNN, LSTM and GRU in every size, weight and setting, covered and not multiplied out;
    Bidirectional in every merge mode, and stacks of layers.

    How chosen, for each of the three: of batch, timesteps, input_dim, units, return_sequences and weights, every two
    values of every two axes meet in some case (a greedy pairwise cover; the last output of a chaotic network only after
    few steps). Then each setting and each activation in turn, as a sequence and as a last output, on a small shape of
    which no two sizes are equal; activations without bounds get a recurrent kernel that does not grow. `select` narrows
    the axes: the cover is made anew of what is left. `only` keeps the cases whose id matches that pattern. A case's
    data follow from its id and the seed.

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
    chosen = dict.fromkeys(spec for layer in axes["layer"] for spec in _specifications(layer, axes))
    specs = [dict(spec) for spec in chosen]
    kept = [_build(spec, seed) for spec in specs if only is None or fnmatchcase(_id(spec), only)]
    if not kept:
        raise InputError(
            f"selection: no case of the grid matches{f' {only!r}' if only else ''}; `parity check --list` shows them"
        )
    return kept


WRAPPED: dict[str, tuple[dict[str, Any], ...]] = {
    "bidirectional": (
        *({"merge_mode": mode} for mode in MERGE_MODES),
        *({"merge_mode": mode, "mask": "mixed", "state": True} for mode in MERGE_MODES),
        {"merge_mode": "concat", "return_state": True},
    ),
    "stack": ({}, {"square": True}, {"masking": True}, {"tokens": True}),
}
"""Layers made of layers: the variants of each, all on the small shape, as a sequence and as a last output."""


def _specifications(layer: str, axes: Mapping[str, Sequence[Any]]) -> Iterator[tuple[tuple[str, Any], ...]]:
    if layer in WRAPPED:
        small = {"layer": layer, **{name: _nearest(axes[name], value) for name, value in _SMALL.items()}}
        for sequences in axes["return_sequences"] if "tanh" in axes["activation"] else ():
            for variant in WRAPPED[layer]:
                if variant.get("square") and (small["input_dim"], small["units"]) != (4, 8):
                    continue  # other sizes were asked for
                yield tuple({**small, "return_sequences": sequences, "activation": "tanh", **variant}.items())
        return
    plain = {"layer": (layer,), **{name: axes[name] for name in _SHAPE}}
    if "tanh" in axes["activation"]:
        for row in pairwise_cover(plain, unless=undecidable):
            yield tuple({**row, "activation": "tanh"}.items())
    shape: dict[str, Any] = {"layer": layer, **{name: _nearest(axes[name], value) for name, value in _SMALL.items()}}
    for sequences in axes["return_sequences"]:
        shape["return_sequences"] = sequences
        for variant in (*VARIANTS, *CELLS[layer][1]) if "tanh" in axes["activation"] else ():
            if variant.get("square") and (shape["input_dim"], shape["units"]) != (4, 8):
                continue  # other sizes were asked for
            yield tuple({**shape, "activation": "tanh", **variant}.items())
        short = {} if sequences else {"timesteps": _nearest(axes["timesteps"], 3)}  # a last output that bounds reach
        for activation in axes["activation"]:
            explodes = layer == "lstm" and activation == "exponential"  # c adds up what exp makes of c
            if not undecidable({**shape, **short}) and not explodes:
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
    if spec["layer"] in WRAPPED:
        return _build_wrapped(spec, name, rng)
    batch, timesteps, input_dim, units = _sizes(spec)
    dtype = named_dtype(spec.get("dtype", "float32"))
    kind, _ = CELLS[spec["layer"]]
    settings = {key: spec[key] for key in ("activation", "recurrent_activation", "reset_after") if key in spec}
    rows = len(kind.gates) * units
    bias = (2, rows) if kind is GRUCell and spec.get("reset_after", True) else (rows,)
    blank = {"Wx": np.zeros((rows, input_dim)), "Wh": np.zeros((rows, units)), "b": np.zeros(bias)}
    cell = kind(**blank, **settings)
    drawn = {key: draw_weight(rng, spec["weights"], key, array.shape, cell) for key, array in blank.items()}
    drawn["Wh"] = tamed(drawn["Wh"], ACTIVATIONS[spec["activation"]])
    weights = {key: array.astype(dtype) for key, array in drawn.items()}
    if not spec.get("use_bias", True):
        del weights["b"]
    loop: Any = {key: bool(spec.get(key, False)) for key in SETTINGS}
    layer = recurrent(kind(**{"b": None, **weights}, **settings), loop)
    draw = rng.random if spec["weights"] == "uniform" else rng.standard_normal
    states = tuple(rng.uniform(-1, 1, (batch, units)).astype(dtype) for _ in kind.states) if spec.get("state") else None
    x = draw((batch, timesteps, input_dim)).astype(dtype)
    mask = make_mask(rng, spec["mask"], batch, timesteps) if "mask" in spec else None
    if mask is not None and spec["mask"] == "mixed":
        x[~mask] = np.nan  # what stands at a masked step is nobody's business
    return Case(name, layer, {"x": x}, mask, states)


def _sizes(spec: Mapping[str, Any]) -> tuple[int, int, int, int]:
    units = spec["input_dim"] if spec.get("square") else spec["units"]
    return spec["batch"], spec["timesteps"], spec["input_dim"], units


def _build_wrapped(spec: dict[str, Any], name: str, rng: np.random.Generator) -> Case:
    batch, timesteps, input_dim, units = _sizes(spec)
    sequences, state = spec["return_sequences"], bool(spec.get("return_state"))
    layer: Layer
    if spec["layer"] == "bidirectional":
        loop = {"return_sequences": sequences, "return_state": state}
        forward, backward = (_blank(LSTMCell, units, input_dim, **loop, go_backwards=back) for back in (False, True))
        layer = Bidirectional(forward, backward, merge_mode=spec["merge_mode"])
    else:
        first: list[Layer] = [Masking()] if spec.get("masking") else []
        first = [Embedding(np.zeros((11, input_dim), "f"), mask_zero=True)] if spec.get("tokens") else first
        layers = _blank(LSTMCell, units, input_dim, return_sequences=True), _blank(GRUCell, units, units)
        layers[1].return_sequences = sequences
        layer = Sequential(
            [*first, *layers, Dense(np.zeros((units, units), "f"), np.zeros(units, "f"), activation="relu")]
        )
    layer = randomized(layer, rng, spec["weights"])
    x = draw_inputs(layer, rng, (batch, timesteps, *([] if spec.get("tokens") else [input_dim])))
    mask = make_mask(rng, spec["mask"], batch, timesteps) if "mask" in spec else None
    states = tuple(rng.uniform(-1, 1, (batch, n)).astype("f") for n in layer.state_units) if spec.get("state") else None
    return Case(name, layer, {"x": x}, mask, states)


def _blank(kind: type[Cell], units: int, input_dim: int, **settings: Any) -> Recurrent:
    rows = len(kind.gates) * units
    bias = (2, rows) if kind is GRUCell else (rows,)
    arrays = (np.zeros(shape, "f") for shape in ((rows, input_dim), (rows, units), bias))
    return recurrent(kind(*arrays), settings)  # type: ignore[arg-type]


def named_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; bfloat16 is ml_dtypes'. MissingExtraError where that is not installed."""
    if name == "bfloat16":
        try:
            importlib.import_module("ml_dtypes")
        except ImportError as error:
            raise MissingExtraError("bfloat16 needs ml_dtypes: pip install ml_dtypes") from error
    return np.dtype(name)


def tamed(Wh: Array, activation: Activation) -> Array:
    """A recurrent kernel under which nothing overflows within the grid's steps, where the activation has no bounds."""
    if np.isfinite(activation.low) and np.isfinite(activation.high):
        return Wh
    if not np.isfinite(activation.slope):
        return -np.abs(Wh)  # exponential: more state, less of the next
    return Wh / max(1.0, float(np.linalg.norm(Wh, 2)) * activation.slope)


def _id(spec: Mapping[str, Any]) -> str:
    parts = [
        spec["layer"],
        _shape_id(*_sizes(spec), spec["return_sequences"]),
        str(spec["merge_mode"]).lower() if "merge_mode" in spec else spec["activation"],
        spec.get("recurrent_activation", ""),
        spec["weights"],
        f"{spec['mask']}_mask" if "mask" in spec else "",
        "state" if spec.get("state") else "",
        *(
            flag
            for flag in ("go_backwards", "zero_output_for_mask", "return_state", "unroll", "stateful")
            if spec.get(flag)
        ),
        *(flag for flag in ("masking", "tokens") if spec.get(flag)),
        "" if spec.get("use_bias", True) else "no_bias",
        "" if spec.get("reset_after", True) else "reset_before",
        spec.get("dtype", ""),
    ]
    return "-".join(part for part in parts if part)


def case_id(layer: Layer, x: Array) -> str:
    """The id of a case that is not of the grid, by the same pattern; of a model, its name and the size of x."""
    if isinstance(layer, Recurrent):
        batch, timesteps, input_dim = x.shape
        shape = _shape_id(batch, timesteps, input_dim, layer.units, layer.return_sequences)
        return f"{layer.cell.name}-{shape}-{layer.cell.activation.name}"
    return f"{layer.name}-b{x.shape[0]}-t{x.shape[1]}" + "".join(f"-i{n}" for n in x.shape[2:])


def _shape_id(batch: int, timesteps: int, input_dim: int, units: int, sequences: bool) -> str:
    return f"b{batch}-t{timesteps}-i{input_dim}-u{units}-{'seq' if sequences else 'last'}"


def randomized(layer: Layer, rng: np.random.Generator, kind: str = "normal") -> Layer:
    """The same layer with every weight drawn anew, in its own dtype (see `draw_weight`)."""
    cells = {path: part.cell for path, part in layer.walk() if isinstance(part, Recurrent)}
    drawn = {}
    for name, array in layer.weights.items():
        prefix, _, own = name.rpartition(".")
        drawn[name] = draw_weight(rng, kind, own, array.shape, cells.get(prefix)).astype(array.dtype)
    return layer.replace(**drawn)


def changed(layer: Layer, change: Callable[[Layer], Layer | None]) -> Layer:
    """The same layer with what `change` makes of it, or of those layers in it for which it makes something."""
    new = change(layer)
    if new is not None:
        return new
    parts = {name: changed(part, change) for name, part in layer.parts.items()}
    if all(parts[name] is part for name, part in layer.parts.items()):
        return layer
    twin = copy.copy(layer)
    twin.parts = parts
    return twin


def state_kept(layer: Layer, kept: bool = True) -> Layer:
    """The same layer, stateful or not."""

    def change(part: Layer) -> Layer | None:
        if not isinstance(part, Recurrent) or part.stateful == kept:
            return None
        twin = copy.copy(part)
        twin.stateful, twin.state = kept, None
        return twin

    return changed(layer, change)


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
    return np.asarray(gain * rng.standard_normal(shape) / np.sqrt(fan_in))


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
    layer, dtype = case.layer, case.layer.dtype

    def drawn(name: str, batch: int, timesteps: int, mask: Mask | None = None, state: bool = False) -> Case:
        x = inputs_like(case, rng, batch, timesteps)
        states = tuple(rng.uniform(-1, 1, (batch, units)).astype(dtype) for units in layer.state_units)
        return case.on(x, id=f"{case.id} / {name}", mask=mask, initial_state=states if state else None)

    yield from (
        drawn(f"{t} timestep{'s' if t > 1 else ''}, batch {batch}", batch, t) for t, batch in ((1, 3), (2, 1), (3, 2))
    )
    if case.timesteps < LONG:
        yield drawn(f"{LONG} timesteps, batch 2", 2, LONG)
    if isinstance(layer, Sequential):
        if takes & WEIGHTS:
            other = randomized(layer, rng)
            yield replace(drawn("other weights", 3, 4), layer=other)
        return
    state = ", an initial state" if "initial_state" in takes else ""
    if state:
        yield drawn("an initial state", 3, 4, state=True)
    if "mask" in takes:
        for kind in ("leading", "mixed", "trailing"):
            yield drawn(f"a {kind} mask{state}", 3, 5, make_mask(rng, kind, 3, 5), state=bool(state))
        mask = make_mask(rng, "mixed", 3, 5)
        mask[1] = False
        hidden = drawn(f"a row all masked, NaN at masked steps{state}", 3, 5, mask, state=bool(state))
        hidden.x[~mask] = np.nan
        yield hidden


def two_calls(case: Case, seed: int) -> Case:
    """Of a stateful layer: what it keeps between two calls."""
    x = inputs_like(case, generator(seed, f"{case.id} calls"), case.batch, 4)
    return case.on(x, id=f"{case.id} / 2 calls, the state kept", mask=None, initial_state=None, calls=2)


def inputs_like(case: Case, rng: np.random.Generator, batch: int, timesteps: int) -> Array:
    """Other inputs of a case, of the same size and features."""
    return draw_inputs(case.layer, rng, (batch, timesteps, *case.features), case.x)


def draw_inputs(layer: Layer, rng: np.random.Generator, shape: tuple[int, ...], like: Array | None = None) -> Array:
    """N(0, 1), as large as `like`; token ids for an embedding. Where the model masks by its inputs, some steps are
    masked: of each row but the first a part at the end, and of the last one a step between."""
    embedding = next((part for part in leading(layer) if isinstance(part, Embedding)), None)
    masking = next((part for part in leading(layer) if isinstance(part, Masking)), None)
    batch, timesteps = shape[:2]
    hidden = ~make_mask(rng, "trailing", batch, timesteps)
    hidden[0] = False
    if timesteps > 3:
        hidden[-1, 1] = True
    if embedding is not None:
        ids = rng.integers(0, len(embedding.E), shape).astype(np.int32)
        return np.where(hidden, np.int32(0), ids) if embedding.mask_zero else ids
    scale = 1.0 if like is None else typical(like)
    x = (scale * rng.standard_normal(shape)).astype(layer.dtype)
    if masking is not None:
        x[hidden] = masking.mask_value
    return x


def leading(layer: Layer) -> Iterator[Layer]:
    """The layers that see the inputs before any that has states."""
    for part in layer.parts.values() if isinstance(layer, Sequential) else (layer,):
        if part.state_units:
            return
        yield part


LONG = 30
WEIGHTS = frozenset({"layer", "weights"})
"""Of what a candidate may take: either lets it be asked with other weights."""


def typical(x: Array) -> float:
    """The root of the mean square of its finite elements; 1 where there is none but zeros."""
    finite = np.abs(x[np.isfinite(x)].astype(np.float64))
    return float(np.sqrt(np.mean(finite[-100_000:] ** 2))) or 1.0 if finite.size else 1.0


def probes(case: Case, takes: frozenset[str], seed: int) -> Iterator[Case]:
    """Ordinary cases whose inputs leave rounding next to nothing to do, so that a single weight off by a little shows.

    Unit vectors, scaled by a power of two until the largest weight they meet is near 1, make a pre-activation of one
    weight and one bias. With `initial_state` likewise for the recurrent weights; what a cell carries is set to 3/4, and
    a gated cell gets unit inputs and states at once, since some gates do nothing to a state of zeros. With `layer`,
    weights on a dyadic lattice, whose sums are exact in any order; where no initial state can be set, two steps: the
    first sets one. A model that begins with an embedding is asked for every token.
    """
    first = next(leading(case.layer), case.layer)
    if isinstance(first, Embedding):
        ids = np.arange(min(len(first.E), MOST_ROWS), dtype=np.int32)[:, None]
        rows = tuple(f"token {n}" for n in ids[:, 0])
        yield case.on(ids, id=f"{case.id} / every token", mask=None, rows=rows)
    if not isinstance(case.layer, Recurrent):
        return
    yield unit_inputs(case)
    if "initial_state" in takes:
        yield unit_states(case)
        if len(case.layer.cell.gates) > 1:
            yield unit_inputs_and_states(case)
    if takes & WEIGHTS:
        yield from lattices(case, "initial_state" in takes, seed)


MOST_ROWS = 300
LATTICE_BITS = {"float16": 5, "bfloat16": 3, "float32": 12, "float64": 12}


def unit_inputs(case: Case) -> Case:
    x, features = _units_of(cell_of(case).Wx)
    rows = tuple(f"the input is {x[i, j]:g} at feature {j}" for i, j in enumerate(features))
    x = np.concatenate([x, np.zeros_like(x[:1])])  # the bias alone
    rows = (*rows, "the input is 0")
    return case.on(x[:, None], id=f"{case.id} / unit inputs", mask=None, initial_state=None, rows=rows)


def unit_states(case: Case) -> Case:
    cell = cell_of(case)
    h, units = _units_of(cell.Wh)
    rows = tuple(f"the initial state is {h[i, j]:g} at unit {j}" for i, j in enumerate(units))
    x = np.zeros((len(h), 1, cell.input_dim), cell.dtype)
    states = (h, *_carried(cell, len(h)))
    return case.on(x, id=f"{case.id} / unit states", mask=None, initial_state=states, rows=rows)


def unit_inputs_and_states(case: Case) -> Case:
    cell = cell_of(case)
    (x, features), (h, units) = _units_of(cell.Wx), _units_of(cell.Wh)
    number = np.arange(max(len(x), len(h)))
    i, j = number % len(x), number % len(h)
    rows = tuple(
        f"the input is a unit of feature {features[a]}, the state of unit {units[b]}" for a, b in zip(i, j, strict=True)
    )
    states = (h[j], *_carried(cell, len(number)))
    name = f"{case.id} / unit inputs and states"
    return case.on(x[i][:, None], id=name, mask=None, initial_state=states, rows=rows)


def _carried(cell: Cell, batch: int) -> list[Array]:
    return [np.full((batch, cell.units), 0.75).astype(cell.dtype) for _ in cell.states[1:]]


def cell_of(case: Case) -> Cell:
    assert isinstance(case.layer, Recurrent)
    return case.layer.cell


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
    cell, bits = cell_of(case), LATTICE_BITS[case.layer.dtype.name]
    if not takes_state:
        yield from two_step_lattices(case, rng, bits)
        return
    # sums near 1: a saturated unit shows nothing
    shrink = np.exp2(-np.round(np.log2(cell.units + cell.input_dim) / 2))
    weights = {name: shrink * _lattice(rng, array.shape, bits) for name, array in cell.weights.items()}
    x = _lattice(rng, (4, 1, cell.input_dim), 2).astype(cell.dtype)
    states = tuple(_lattice(rng, (4, cell.units), 2).astype(cell.dtype) for _ in cell.states)
    layer = with_weights(case.layer, weights)
    yield case.on(x, id=f"{case.id} / lattice", layer=layer, mask=None, initial_state=states)


def two_step_lattices(case: Case, rng: np.random.Generator, bits: int) -> Iterator[Case]:
    """Two steps: the first puts the state at a few units, Wx being zero but there; the second input is zero."""
    cell = cell_of(case)
    units, input_dim, gates = cell.units, cell.input_dim, len(cell.gates)
    width = max(16, -(-units // (16 * input_dim)))
    groups = [np.arange(start, min(start + width, units)) for start in range(0, units, width)]
    x = np.zeros((input_dim, 2, input_dim), cell.dtype)
    x[np.arange(input_dim), 1 if case.layer.go_backwards else 0, np.arange(input_dim)] = 1  # type: ignore[attr-defined]
    for start in range(0, len(groups), input_dim):
        Wx, Wh = np.zeros((gates * units, input_dim)), _lattice(rng, cell.Wh.shape, bits)
        for feature, group in enumerate(groups[start : start + input_dim]):
            for gate in range(gates):
                Wx[gate * units + group, feature] = rng.choice([-0.75, -0.5, 0.5, 0.75], len(group))
        layer = with_weights(case.layer, {"Wx": Wx, "Wh": Wh, "b": np.zeros(cell.b.shape)})
        name = f"{case.id} / two-step lattice from unit {start * width}"
        yield case.on(x, id=name, layer=layer, mask=None, initial_state=None)


def _lattice(rng: np.random.Generator, shape: Sequence[int], bits: int) -> Array:
    """Multiples of 2^-bits from 1/4 to 1, of either sign."""
    return rng.choice([-1.0, 1.0], shape) * rng.integers(2**bits // 4, 2**bits, shape, endpoint=True) * 2.0**-bits


def with_weights(layer: Layer, weights: Mapping[str, Array]) -> Layer:
    """The same layer with those weights, its bias where it has one."""
    return layer.replace(**{name: weights[name].astype(layer.dtype) for name in layer.weights})
