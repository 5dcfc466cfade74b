"""Keras there and back: weights and settings into rnn_scratch, and Keras's own outputs for a Case.

With `keras_files` the only place that imports Keras. Keras keeps `kernel` (input_dim, gates * units) and
`recurrent_kernel` (units, gates * units), one column a unit and gate; rnn_scratch keeps one row, so both are transposed
here and nowhere else. Each kind of layer is one row of a table: how it comes, how it goes back, where its weights are.

Layers are recognised by their exact class in Keras 3 or `tf_keras`, not by `isinstance`: a subclass may compute
anything.
"""

import contextlib
import copy
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates.functions import ANY, Answer
from parity.cases.case import Case, generator, named_dtype, randomized
from parity.errors import InputError, MissingExtraError, OracleError, ParityError, UnsupportedError
from parity.terminal import briefly
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
from rnn_scratch.activations import ACTIVATIONS
from rnn_scratch.cells import FLOATS, Cell
from rnn_scratch.layers import PROFILES, SETTINGS, Layer, Recurrent, recurrent

Array = NDArray[Any]

BLOCK_STEPS = 50_000
GRAPH_STEPS = 50
"""Eager TensorFlow takes a millisecond a time step; tracing a graph takes as long as this many steps."""


class KerasError(OracleError):
    """Keras itself raised while it computed the outputs to compare with."""


def keras() -> ModuleType:
    """Keras 3, imported without TensorFlow's start-up messages; MissingExtraError where there is none."""
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            with muted_start():
                module = importlib.import_module("keras")
        except ImportError as error:
            backend = os.environ.get("KERAS_BACKEND", "tensorflow")
            raise MissingExtraError(
                f"Keras and its backend {backend} are needed: pip install 'keras-parity[{backend}]' ({briefly(error)})"
            ) from error
        except Exception as error:
            name = os.environ.get("KERAS_BACKEND", "its default")
            raise MissingExtraError(f"Keras does not start with the backend {name}: {briefly(error)}") from error
        return module
    return sys.modules["keras"]


@contextlib.contextmanager
def muted_start() -> Iterator[None]:
    """Nothing reaches file descriptor 2: TensorFlow's C++ writes there before any logging level counts."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Keras and its backends warn of masks, shapes and narrower dtypes that are meant so here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(keras|tf_keras|tensorflow|torch|jax)\b")
        warnings.filterwarnings("ignore", "Explicitly requested dtype float64")  # JAX names its caller as the place
        yield


def environment(layer: Any = None) -> dict[str, str]:
    """Versions of what computed the expected outputs, and the backend."""
    if _family(layer) == "tf_keras":
        found, backend = {"tf_keras": sys.modules["tf_keras"].__version__}, "tensorflow"
    else:
        backend = keras().backend.backend()
        found = {"keras": keras().__version__}
    found["backend"] = backend
    if backend in sys.modules:
        found[backend] = sys.modules[backend].__version__
    return found


def missing() -> str:
    """Why there is no Keras here; "" where there is."""
    try:
        keras()
    except MissingExtraError as error:
        return str(error)
    return ""


# --- what belongs to a Keras layer ---


def _family(layer: Any) -> str:
    """ "keras" or "tf_keras", or "" for a class of somebody else's."""
    root = type(layer).__module__.partition(".")[0]
    return root if root in ("keras", "tf_keras") else ""


def backend_of(layer: Any) -> str:
    return "tensorflow" if _family(layer) == "tf_keras" else str(keras().backend.backend())


def declared_dtype(layer: Any) -> str:
    """The dtype it says it computes in. UnsupportedError for one that is not covered, or not its cell's."""
    parts = [layer, *(getattr(layer, name) for name in ("cell",) if hasattr(layer, name))]
    computed = {str(part.compute_dtype) for part in parts}
    stored = {str(part.variable_dtype) for part in parts}
    if len(computed) > 1 or computed - set(FLOATS) or stored - computed - {"float32"}:
        policies = {getattr(part.dtype_policy, "name", None) for part in parts}
        name = (len(policies) == 1 and policies.pop()) or "/".join(sorted(computed | stored))
        raise UnsupportedError(
            f"{layer.name}: dtype {name} is not covered; covered: {', '.join(FLOATS)} and mixed ones"
        )
    return computed.pop()


def dtype_of(layer: Any) -> np.dtype[Any]:
    """The dtype it really computes in: a backend that says float64 may well compute in float32."""
    declared = declared_dtype(layer)
    if declared == "float64" and not computes_float64(_family(layer), backend_of(layer), kind_of(layer)):
        return np.dtype(np.float32)
    return named_dtype(declared)


def kind_of(layer: Any) -> str:
    """Whose arithmetic a layer has: its cell's, or that of Dense where it has none."""
    cell = getattr(layer, "cell", layer)
    cell = cell.cells[0] if type(cell).__name__ == "StackedRNNCells" else cell
    name = type(cell).__name__
    return name if name in CELLS else "Dense"


@functools.lru_cache
def computes_float64(family: str, backend: str, kind: str) -> bool:
    """Whether layers of that kind and dtype float64 are good to more than float32's precision, however they are called.
    Measured on small ones: what a backend declares is not what every layer of it does, nor what one layer always does
    (PyTorch's fused LSTM is, the loop that Keras takes with a mask is not)."""
    rng = generator(0, f"float64 {kind}")
    if kind == "Dense":
        scratch: Layer = Dense(rng.standard_normal((3, 2)), rng.standard_normal(3))
    else:
        cell = CELLS[kind]
        rows = 3 * len(cell.gates)
        bias = np.zeros((2, rows) if cell is GRUCell else rows)
        scratch = recurrent(cell(rng.standard_normal((rows, 2)), rng.standard_normal((rows, 3)), bias), {})
    x = rng.standard_normal((4, 5, 2))
    with no_warnings():
        layer = to_keras(scratch, module=importlib.import_module(family))
        ways = [layer] if kind == "Dense" else [layer, around(layer, scratch)]  # type: ignore[arg-type]
        differences = [to_numpy(way(tensor(layer, x))) - np.asarray(scratch(x)) for way in ways]
    return all(np.abs(difference).max() < 1e-12 for difference in differences)


def notes_on(layer: Any) -> list[str]:
    """What a report has to say of the precision that was measured."""
    told = [part for part in _leaves(layer) if hasattr(part, "compute_dtype")]
    if not any(declared_dtype(part) != dtype_of(part).name for part in told):
        return []
    return [f"float64 on {backend_of(layer)} is computed to float32's precision: judged as float32"]


def _leaves(layer: Any) -> Iterator[Any]:
    if type(layer).__name__ in MODELS and _family(layer):
        for part in chain(layer):
            yield from _leaves(part)
    elif type(layer).__name__ == "Bidirectional":
        yield from (layer.forward_layer, layer.backward_layer)
    elif type(layer).__name__ == "TimeDistributed":
        yield from _leaves(layer.layer)
    else:
        yield layer


def activation_name(layer: Any, which: str = "activation") -> str:
    """The name in rnn_scratch of a layer's activation; UnsupportedError for a function that is not Keras's own."""
    function = getattr(layer, which)
    name = getattr(function, "__name__", type(function).__name__)
    root = str(getattr(function, "__module__", "")).partition(".")[0]
    if root not in ("keras", "tf_keras"):
        raise UnsupportedError(f"{layer.name}: {which} {name} is not one of Keras's own; pass it by its Keras name")
    if getattr(importlib.import_module(root).activations, name, function) is not function:
        raise UnsupportedError(f"{layer.name}: {which} {function.__module__}.{name} is not {root}.activations.{name}")
    if root == "tf_keras" and name == "hard_sigmoid":
        return "hard_sigmoid_keras2"
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(key for key in ACTIVATIONS if key and key != "hard_sigmoid_keras2"))
        raise UnsupportedError(f"{layer.name}: {which} {name} is not covered; covered: {known}")
    return str(ACTIVATIONS[name].name)


def weights_of(layer: Any, dtype: np.dtype[Any], names: Sequence[str], owner: str = "") -> list[Array]:
    """Its arrays in that dtype. InputError where it has none yet, and for NaN and infinity in them."""
    called = owner or layer.name
    weights = [np.asarray(weight) for weight in layer.get_weights()]
    if not weights:
        raise InputError(f"{called}: expected a built layer; it has no weights yet: build it, or pass input_shape")
    for name, weight in zip(names, weights, strict=False):
        if not np.isfinite(weight.astype(np.float64)).all():
            raise InputError(f"{called}: {name}: expected finite weights; received NaN or infinity")
    return [weight.astype(dtype) for weight in weights]


# --- the table ---


@dataclass(frozen=True)
class Row:
    """One kind of layer. take: a built Keras layer -> rnn_scratch's. make: rnn_scratch's and a Keras -> one not built.
    put: the weights into a built one."""

    take: Callable[[Any], Layer]
    make: Callable[[Any, ModuleType, Mapping[str, Any]], Any]
    put: Callable[[Any, Any], None]


def take_cell(cell: Any, dtype: np.dtype[Any], owner: str = "") -> Cell:
    kind = CELLS[type(cell).__name__]
    settings: dict[str, Any] = {"activation": activation_name(cell)}
    if kind is not SimpleRNNCell:
        settings["recurrent_activation"] = activation_name(cell, "recurrent_activation")
    if kind is GRUCell:
        settings["reset_after"] = bool(cell.reset_after)
    kernel, recurrent_kernel, *bias = weights_of(cell, dtype, ("kernel", "recurrent_kernel", "bias"), owner)
    return kind(kernel.T, recurrent_kernel.T, *bias, **settings)


def cell_settings(cell: Cell, module: ModuleType) -> dict[str, Any]:
    def named(value: Any) -> Any:
        return "hard_sigmoid" if value == "hard_sigmoid_keras2" and module.__name__ == "tf_keras" else value

    if "hard_sigmoid_keras2" in cell.settings.values() and module.__name__ != "tf_keras":
        raise UnsupportedError("to_keras: Keras 3 has no hard_sigmoid of slope 0.2 (Keras 2's); use tf_keras")
    return {
        "units": cell.units,
        "use_bias": cell.use_bias,
        "dtype": cell.dtype.name,
        "recurrent_initializer": "zeros",  # the default one has no float16 kernel on every backend
        **{name: named(value) for name, value in cell.settings.items()},
    }


def put_cell(cell: Any, scratch: Cell) -> None:
    cell.set_weights(wide([scratch.Wx.T, scratch.Wh.T, *([scratch.b] if scratch.use_bias else [])]))


def wide(arrays: Sequence[Array]) -> list[Array]:
    """bfloat16 as float32, which every backend takes."""
    return [array.astype(np.float32) if array.dtype.kind == "V" else array for array in arrays]


def take_recurrent(layer: Any) -> Layer:
    if getattr(layer, "time_major", False):
        raise UnsupportedError(f"{layer.name}: time_major is not covered; expected (batch, timesteps, input_dim)")
    dtype = dtype_of(layer)
    settings: Any = {name: bool(getattr(layer, name, False)) for name in SETTINGS}
    cell = layer.cell
    stacked = type(cell).__name__ == "StackedRNNCells" and bool(_family(cell))
    cells = list(cell.cells) if stacked else [cell]
    for one in cells:
        if type(one).__name__ not in CELLS or not _family(one):
            raise UnsupportedError(f"{layer.name}: RNN of {type(one).__name__} is not covered; covered: {COVERED}")
        if declared_dtype(one) != declared_dtype(layer):
            raise UnsupportedError(
                f"{layer.name}: dtype {declared_dtype(layer)} around {declared_dtype(one)} is not covered"
            )
    taken = [take_cell(one, dtype, layer.name) for one in cells]
    scratch: Layer = RNN(taken, **settings) if stacked else recurrent(taken[0], settings)
    states = getattr(layer, "states", None)
    if settings["stateful"] and states and states[0] is not None:
        held = [to_numpy(state).astype(dtype) for state in flat_states(states)]
        scratch.keep(tuple(held))
    return scratch


def flat_states(states: Any) -> list[Any]:
    if not isinstance(states, tuple | list) and type(states).__name__ != "ListWrapper":
        return [states]
    return [inner for state in states for inner in flat_states(state)]


def make_recurrent(scratch: Any, module: ModuleType, extra: Mapping[str, Any]) -> Any:
    kind = {"simple_rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}[scratch.cell.name]
    settings = cell_settings(scratch.cell, module) | scratch.settings | extra
    return getattr(module.layers, kind)(**settings)


def put_recurrent(layer: Any, scratch: Any) -> None:
    put_cell(layer.cell, scratch.cell)


def take_bare(cell: Any) -> Layer:
    return recurrent(take_cell(cell, dtype_of(cell)), {})


def make_stack(scratch: RNN, module: ModuleType, extra: Mapping[str, Any]) -> Any:
    names = {kind: name for name, kind in CELLS.items()}
    cells = [
        getattr(module.layers, names[type(layer.cell)])(**cell_settings(layer.cell, module)) for layer in scratch.layers
    ]
    dtype = scratch.dtype.name
    return module.layers.RNN(cells if len(cells) > 1 else cells[0], dtype=dtype, **{**scratch.settings, **extra})


def put_stack(layer: Any, scratch: RNN) -> None:
    cells = layer.cell.cells if len(scratch.layers) > 1 else [layer.cell]
    for cell, own in zip(cells, scratch.layers, strict=True):
        put_cell(cell, own.cell)


def take_bidirectional(layer: Any) -> Layer:
    halves = [convert(half) for half in (layer.forward_layer, layer.backward_layer)]
    for half in halves:
        if not isinstance(half, Recurrent):
            raise UnsupportedError(f"{layer.name}: Bidirectional of {half.kind} is not covered; covered: {COVERED}")
    return Bidirectional(*halves, merge_mode=layer.merge_mode)  # type: ignore[arg-type]


def make_bidirectional(scratch: Bidirectional, module: ModuleType, extra: Mapping[str, Any]) -> Any:
    f, b = (make_recurrent(half, module, {"zero_output_for_mask": False}) for half in scratch.directions)
    name = {"name": extra["name"]} if "name" in extra else {}
    dtype = scratch.dtype.name
    return module.layers.Bidirectional(f, merge_mode=scratch.merge_mode, backward_layer=b, dtype=dtype, **name)


def put_bidirectional(layer: Any, scratch: Bidirectional) -> None:
    for half, own in zip((layer.forward_layer, layer.backward_layer), scratch.directions, strict=True):
        put_recurrent(half, own)


def take_dense(layer: Any) -> Layer:
    kernel, *bias = weights_of(layer, dtype_of(layer), ("kernel", "bias"))
    return Dense(kernel.T, *bias, activation=activation_name(layer))


def make_dense(scratch: Dense, module: ModuleType, extra: Mapping[str, Any]) -> Any:
    activation, dtype = scratch.activation.name, scratch.dtype.name
    return module.layers.Dense(scratch.units, activation=activation, use_bias=scratch.use_bias, dtype=dtype, **extra)


def put_dense(layer: Any, scratch: Dense) -> None:
    layer.set_weights(wide([scratch.W.T, *([scratch.b] if scratch.use_bias else [])]))


def take_embedding(layer: Any) -> Layer:
    (table,) = weights_of(layer, dtype_of(layer), ("embeddings",))
    return Embedding(table, mask_zero=bool(layer.mask_zero))


def make_embedding(scratch: Embedding, module: ModuleType, extra: Mapping[str, Any]) -> Any:
    rows, width = scratch.E.shape
    return module.layers.Embedding(rows, width, mask_zero=scratch.mask_zero, dtype=scratch.dtype.name, **extra)


def put_embedding(layer: Any, scratch: Embedding) -> None:
    layer.set_weights(wide([scratch.E]))


def take_time_distributed(layer: Any) -> Layer:
    inner = convert(layer.layer)
    if inner.state_units:
        raise UnsupportedError(
            f"{layer.name}: TimeDistributed of {type(layer.layer).__name__} is not covered; "
            "covered: Dense, Activation, Dropout and TimeDistributed of these"
        )
    return TimeDistributed(inner)


def make_time_distributed(scratch: TimeDistributed, module: ModuleType, extra: Mapping[str, Any]) -> Any:
    inner = row_of(scratch.layer).make(scratch.layer, module, {})
    return module.layers.TimeDistributed(inner, dtype=scratch.dtype.name, **extra)


def put_time_distributed(layer: Any, scratch: TimeDistributed) -> None:
    row_of(scratch.layer).put(layer.layer, scratch.layer)


def nothing(layer: Any, scratch: Any) -> None:
    """It has no weights."""


def make_simple(name: str, *settings: str) -> Callable[[Any, ModuleType, Mapping[str, Any]], Any]:
    def make(scratch: Any, module: ModuleType, extra: Mapping[str, Any]) -> Any:
        given = {setting: getattr(scratch, setting) for setting in settings}
        given = {key: getattr(value, "name", value) for key, value in given.items()}
        return getattr(module.layers, name)(*given.values(), dtype=scratch.dtype.name, **extra)

    return make


def make_dropout(scratch: Any, module: ModuleType, extra: Mapping[str, Any]) -> Any:
    return module.layers.Dropout(0.0, dtype=scratch.dtype.name, **extra)


CELLS: dict[str, type[Cell]] = {"SimpleRNNCell": SimpleRNNCell, "LSTMCell": LSTMCell, "GRUCell": GRUCell}
IDENTITIES = (
    "Dropout",
    "SpatialDropout1D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
)
MODELS = ("Sequential", "Functional")

_RECURRENT = Row(take_recurrent, make_recurrent, put_recurrent)
_IDENTITY = Row(lambda layer: Dropout(dtype=dtype_of(layer)), make_dropout, nothing)
ROWS: dict[str, Row] = {
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), _RECURRENT),
    "RNN": Row(take_recurrent, make_stack, put_stack),
    **dict.fromkeys(CELLS, Row(take_bare, make_recurrent, put_recurrent)),
    "Bidirectional": Row(take_bidirectional, make_bidirectional, put_bidirectional),
    "TimeDistributed": Row(take_time_distributed, make_time_distributed, put_time_distributed),
    "Dense": Row(take_dense, make_dense, put_dense),
    "Embedding": Row(take_embedding, make_embedding, put_embedding),
    "Masking": Row(
        lambda layer: Masking(float(layer.mask_value), dtype=dtype_of(layer)),
        make_simple("Masking", "mask_value"),
        nothing,
    ),
    "Activation": Row(
        lambda layer: Activation(activation_name(layer), dtype=dtype_of(layer)),
        make_simple("Activation", "activation"),
        nothing,
    ),
    **dict.fromkeys(IDENTITIES, _IDENTITY),
}
COVERED = ", ".join(ROWS) + ", and Sequential or functional models of these one after another"
OF_SCRATCH: dict[type[Layer], str] = {
    SimpleRNN: "SimpleRNN",
    LSTM: "LSTM",
    GRU: "GRU",
    RNN: "RNN",
    Bidirectional: "Bidirectional",
    TimeDistributed: "TimeDistributed",
    Dense: "Dense",
    Embedding: "Embedding",
    Masking: "Masking",
    Activation: "Activation",
    Dropout: "Dropout",
}


def row_of(scratch: Layer) -> Row:
    if type(scratch) not in OF_SCRATCH:
        raise UnsupportedError(
            f"to_keras: expected a layer of rnn_scratch ({', '.join(OF_SCRATCH.values())} or Sequential); "
            f"received {type(scratch).__name__}"
        )
    return ROWS[OF_SCRATCH[type(scratch)]]


# --- from Keras ---


@no_warnings()
def from_keras(layer: Any) -> Any:
    """An rnn_scratch layer with the weights and settings of a built Keras layer or model.

    layer: of Keras 3 or tf_keras: SimpleRNN, LSTM, GRU, their cells, RNN of one cell or of several, Bidirectional,
    TimeDistributed, Dense, Embedding, Masking, Activation, Dropout and the like, or a Sequential or functional model of
    these one after another, in float16, bfloat16, float32, float64 or a mixed policy. Wx is the kernel transposed, Wh
    the recurrent kernel transposed, b the bias, in the dtype computed in. A model of one layer gives that layer;
    another one a Sequential under the layers' own names. A bare cell becomes a layer that returns the last output. The
    state that a stateful layer holds comes along, and its `profile` is that of the backend in use. Dropout,
    initializers, regularizers and constraints change nothing at inference and are ignored.

    Raises UnsupportedError for what it cannot carry, naming it; InputError for a layer that is not built, and for
    weights that are not finite.
    """
    if type(layer).__name__ in MODELS and _family(layer):
        parts = chain(layer)
        converted = [convert(part) for part in parts]
        for part, scratch in list(zip(parts, converted, strict=True))[:-1]:
            if getattr(scratch, "return_state", False) or getattr(scratch, "merge_mode", "concat") is None:
                raise UnsupportedError(f"model {layer.name}: {part.name} has several outputs before the last layer")
        if len(converted) == 1:
            return converted[0]
        return Sequential(converted, name=layer.name)
    return convert(layer)


def convert(layer: Any) -> Layer:
    kind = type(layer).__name__
    if not _family(layer):
        what = f"{kind} of {type(layer).__module__}"
        raise UnsupportedError(
            f"expected a layer of Keras's own ({COVERED}); received {what}, which may compute anything"
        )
    if kind not in ROWS:
        raise UnsupportedError(f"{getattr(layer, 'name', kind)}: {kind} is not covered; covered: {COVERED}")
    try:
        scratch = ROWS[kind].take(layer)
    except ParityError:
        raise
    except ValueError as error:
        raise UnsupportedError(f"{layer.name}: {kind}: {briefly(error)}") from error
    scratch.name = layer.name
    profile = PROFILES.get(backend_of(layer), PROFILES["tensorflow"])
    for part in (scratch, *scratch.parts.values()):
        if isinstance(part, Recurrent):
            part.profile = profile
    return scratch


def chain(model: Any) -> list[Any]:
    """The layers of a model, one after another, models within it taken apart. UnsupportedError names a branch."""
    if type(model).__name__ == "Functional":
        layers = _functional_chain(model)
    else:
        layers = [part for part in model.layers if type(part).__name__ != "InputLayer"]
    if not layers:
        raise UnsupportedError(f"model {model.name}: expected layers; it has no layers")
    foreign = [part for part in layers if not (_family(part) and type(part).__name__ in (*ROWS, *MODELS))]
    if foreign:
        names = ", ".join(f"{part.name} ({type(part).__name__})" for part in foreign)
        raise UnsupportedError(f"model {model.name}: {names} is not covered; covered: {COVERED}")
    return [inner for part in layers for inner in (chain(part) if type(part).__name__ in MODELS else [part])]


def _functional_chain(model: Any) -> list[Any]:
    if len(model.inputs) != 1:
        names = ", ".join(str(getattr(tensor, "name", tensor)) for tensor in model.inputs)
        raise UnsupportedError(f"model {model.name}: expected one input; it has {len(model.inputs)} ({names})")
    layers: list[Any] = []
    before = None
    for depth in sorted(model._nodes_by_depth, reverse=True):
        nodes = model._nodes_by_depth[depth]
        owners = [getattr(node, "operation", None) or node.layer for node in nodes]
        if len(nodes) > 1:
            raise UnsupportedError(
                f"model {model.name}: a branch: {' and '.join(owner.name for owner in owners)} stand side by side; "
                "expected layers one after another"
            )
        (node,), (owner,) = nodes, owners
        if type(owner).__name__ == "InputLayer":
            before = node
            continue
        fed = getattr(getattr(node, "arguments", None), "keras_tensors", None)
        fed = node.keras_inputs if fed is None else fed
        if len(fed) != 1 or list(node.parent_nodes) != [before]:
            raise UnsupportedError(
                f"model {model.name}: {owner.name} ({type(owner).__name__}) takes {len(fed)} inputs or not the one "
                "before it, a branch; expected layers one after another"
            )
        if owner in layers:
            raise UnsupportedError(f"model {model.name}: {owner.name} is called more than once; expected once")
        layers.append(owner)
        before = node
    last = layers[-1] if layers else None
    given = {id(tensor) for tensor in model.outputs}
    made = getattr(before, "output_tensors", None) if hasattr(before, "output_tensors") else before.outputs  # type: ignore[union-attr]
    made = list(made) if isinstance(made, tuple | list) else [made]
    if last is None or given != {id(tensor) for tensor in made}:
        raise UnsupportedError(
            f"model {model.name}: expected the outputs of its last layer, {len(made)}; it has {len(model.outputs)}"
        )
    return layers


# --- to Keras ---


def to_keras(scratch: Any, *, batch_size: int | None = None, module: ModuleType | None = None, **settings: Any) -> Any:
    """A built Keras layer or model with the weights and settings of an rnn_scratch layer, every weight bit for bit.

    batch_size: needed for a stateful layer that holds no state yet, since Keras fixes it there. module: `keras`, or
    `tf_keras`. settings: further arguments of the Keras layer, such as unroll=True.

    Raises UnsupportedError for what is no layer of rnn_scratch, or whose activation that Keras does not have.
    """
    module = module or keras()
    if isinstance(scratch, Layer) and scratch.stateful:
        held = next((part.state for part in scratch.every(Recurrent) if part.state is not None), None)
        batch_size = len(held[0]) if held else batch_size
        if batch_size is None:
            raise InputError("to_keras: a stateful layer needs batch_size=, which Keras fixes when it is built")
    if isinstance(scratch, Sequential):
        return _to_model(scratch, batch_size, module)
    row = row_of(scratch)
    name = {"name": scratch.name} if scratch.name != scratch.kind else {}
    with no_warnings():
        layer = row.make(scratch, module, {**name, **settings})
        layer.build(build_shape(scratch, batch_size))
        row.put(layer, scratch)
        set_states(layer, scratch)
    return layer


def build_shape(scratch: Layer, batch: int | None) -> tuple[int | None, ...]:
    inner = scratch.layer if isinstance(scratch, TimeDistributed) else scratch
    return (batch, None) if isinstance(inner, Embedding) else (batch, None, inner.input_dim)


def _to_model(scratch: Sequential, batch: int | None, module: ModuleType) -> Any:
    layers = [row_of(part).make(part, module, {"name": name}) for name, part in scratch.parts.items()]
    first = scratch.layers[0]
    if isinstance(first, Embedding):
        shape: tuple[int | None, ...] = (batch, None)
        dtype = "int32"
    else:
        features = next((part.input_dim for part in scratch.layers if part.input_dim), None)
        shape, dtype = (batch, None, features), first.dtype.name
    steps = next((True for part in scratch.every(Recurrent) if part.unroll), False)
    if steps:
        raise UnsupportedError(
            "to_keras: a model with unroll needs a fixed number of timesteps; convert its layers alone"
        )
    model = module.Sequential([module.Input(batch_shape=shape, dtype=dtype), *layers], name=scratch.name)
    for layer, part in zip(layers, scratch.layers, strict=True):
        row_of(part).put(layer, part)
        set_states(layer, part)
    return model


def set_states(layer: Any, scratch: Layer) -> None:
    held = [state for part in scratch.every(Recurrent) for state in part.state or ()]
    if scratch.stateful and held:
        for variable, state in zip(state_variables(layer), held, strict=True):
            variable.assign(wide([state])[0])


def state_variables(layer: Any) -> list[Any]:
    """The variables in which a stateful layer or model keeps its state, in the order of its states."""
    if type(layer).__name__ in MODELS:
        return [state for part in chain(layer) for state in state_variables(part)]
    if type(layer).__name__ == "Bidirectional":
        return [state for half in (layer.forward_layer, layer.backward_layer) for state in state_variables(half)]
    return flat_states(layer.states) if getattr(layer, "stateful", False) else []


# --- Keras as the one to agree with ---


class Oracle:
    """A Keras layer or model that answers Cases with its own outputs, and beside them with what is seen inside.

    Cases with the layer's own weights are put to that very layer; those with other weights (probes), other settings or
    kept state to a twin of it. It is left as it was.
    """

    takes = frozenset({"layer", "mask", "initial_state"})
    callable = True
    fixed = ANY

    def __init__(self, layer: Any, scratch: Layer) -> None:
        self.layer, self.scratch = layer, scratch
        self.module = importlib.import_module(_family(layer))
        parts = chain(layer) if type(layer).__name__ in MODELS else [layer]
        self.parts = parts
        bare = type(parts[0]).__name__ in CELLS
        self.own = None if scratch.stateful or bare else parts

    def ask(self, case: Case) -> Answer:
        try:
            with no_warnings():
                return self._ask(case)
        except ParityError:
            raise
        except Exception as error:
            raise KerasError(f"Keras raised on {case.id}: {briefly(error)}") from error

    def _ask(self, case: Case) -> Answer:
        layer = case.layer
        if isinstance(layer, Sequential):
            return self.through(self.layers(case), layer, case)
        if isinstance(layer, Recurrent):
            if case.mask is None and case.timesteps > BLOCK_STEPS:
                return self.in_blocks(case, layer)
            mine = layer is self.scratch and self.own is not None
            outputs = run(self.own[0] if mine and self.own else self.twin(layer), case)
            if layer.return_sequences:
                return Answer(outputs)
            return Answer(outputs, sequence=run(self.twin(layer.with_sequences()), case)[0])
        (keras_layer,) = self.layers(case)
        outputs = run(keras_layer, case)
        if isinstance(layer, Bidirectional) and not layer.return_sequences and case.mask is None:
            return Answer(outputs, sequences=self.halves(keras_layer, layer, case))
        return Answer(outputs)

    def layers(self, case: Case) -> list[Any]:
        """The Keras layers that compute the case: its own, or others with the case's weights and no state kept."""
        if case.layer is self.scratch and self.own is not None:
            return list(self.own)
        twin = to_keras(stateless(case.layer), module=self.module)
        return chain(twin) if isinstance(case.layer, Sequential) else [twin]

    def through(self, layers: Sequence[Any], model: Sequential, case: Case) -> Answer:
        """The layers called in turn, as the model calls them; Keras hands the masks on with the tensors."""
        names = list(model.parts)

        def compute(x: Any) -> Any:
            outputs, sequences = {}, {}
            for name, layer in zip(names, layers, strict=True):
                part = model.parts[name]
                if isinstance(part, Recurrent) and not part.return_sequences:
                    sequences[name] = around(layer, part.with_sequences())(x)
                y = layer(x)
                outputs[name] = list(y) if isinstance(y, tuple | list) else [y]
                x = y
            return outputs, sequences

        outputs, sequences = compiled(compute, layers[0], case)(tensor(layers[0], case.x))
        arrays = {name: [self.numpy(y, model.parts[name]) for y in several] for name, several in outputs.items()}
        last = arrays.pop(names[-1])
        return Answer(
            tuple(last),
            layers={name: several[0] for name, several in arrays.items()},
            sequences={name: self.numpy(y, model.parts[name]) for name, y in sequences.items()},
        )

    def numpy(self, y: Any, part: Layer) -> Array:
        return to_numpy(y).astype(part.dtype, copy=False)

    def halves(self, keras_layer: Any, layer: Bidirectional, case: Case) -> dict[str, Array]:
        found = {}
        halves = (keras_layer.forward_layer, keras_layer.backward_layer)
        states = case.start
        for half, (name, part), (_, own) in zip(halves, layer.parts.items(), layer.shares(states), strict=True):
            assert isinstance(part, Recurrent)
            alone = Case(case.id, part, case.inputs, case.mask, own)
            found[name] = run(around(half, part.with_sequences()), alone)[0]
        return found

    def in_blocks(self, case: Case, layer: Recurrent) -> Answer:
        """The same steps, the state handed from block to block: TensorFlow's loop keeps memory for every step."""
        shown = layer.with_sequences()
        shown.return_state = True
        twin = self.twin(shown)
        states = case.start
        pieces = []
        for start in range(0, case.timesteps, BLOCK_STEPS):
            block = case.steps(start, min(start + BLOCK_STEPS, case.timesteps), states)
            piece, *new = run(twin, block)
            states = tuple(new)
            pieces.append(piece)
        sequence = np.concatenate(pieces, axis=1)
        output = sequence if layer.return_sequences else sequence[:, -1]
        return Answer((output, *states) if layer.return_state else (output,), sequence=sequence)

    def twin(self, layer: Recurrent) -> Any:
        """A stateless layer of the same Keras around the same cell, or around one with the case's weights."""
        if isinstance(self.scratch, Recurrent) and layer.cell is self.scratch.cell:
            return around(self.parts[0], layer)
        return to_keras(stateless(layer), module=self.module)

    def converse(self, case: Case) -> list[Answer]:
        """Calls one after another of the stateful layer itself, which gets its state back afterwards."""
        variables = state_variables(self.layer)
        held = [to_numpy(variable) for variable in variables]
        try:
            for variable, value in zip(variables, held, strict=True):
                variable.assign(np.zeros_like(value))
            answers = []
            for n in range(case.calls):
                y: Any = tensor(self.layer, case.call(n).x)
                for layer in self.parts:
                    y = layer(y)
                several = y if isinstance(y, tuple | list) else (y,)
                answers.append(Answer(tuple(map(to_numpy, several))))
            return answers
        except Exception as error:
            raise KerasError(f"Keras raised on {case.id}: {briefly(error)}") from error
        finally:
            for variable, value in zip(variables, held, strict=True):
                variable.assign(value)


class Installed:
    """The Keras installed here as a candidate: for each case, layers of its own made of the case's layer."""

    takes = frozenset({"layer", "mask", "initial_state"})
    callable = True
    fixed = ANY

    def oracle(self, case: Case) -> tuple[Oracle, Case]:
        layer = to_keras(case.layer, batch_size=case.batch if case.layer.stateful else None)
        own = from_keras(layer)
        return Oracle(layer, own), replace(case, layer=own)

    def ask(self, case: Case) -> Answer:
        oracle, own = self.oracle(case)
        return replace(oracle.ask(own), sequence=None, layers={}, sequences={})

    def converse(self, case: Case) -> list[Answer]:
        oracle, own = self.oracle(case)
        return oracle.converse(own)


def around(layer: Any, scratch: Recurrent) -> Any:
    """A layer of the same Keras around the cell of that one (or around that cell), with the settings of the other."""
    cell = layer if type(layer).__name__ in CELLS else layer.cell
    module = importlib.import_module(_family(cell))
    policy = declared_dtype(cell)
    return module.layers.RNN(cell, dtype=policy, **{**scratch.settings, "stateful": False})


def stateless(layer: Layer) -> Layer:
    twin = copy.deepcopy(layer)
    for part in twin.every(Recurrent):
        part.stateful, part.state = False, None
    return twin


def tensor(layer: Any, array: Array) -> Any:
    """Of the array, for that layer's Keras and backend."""
    if _family(layer) == "tf_keras":
        return importlib.import_module("tensorflow").convert_to_tensor(array)
    if array.dtype.kind == "V":
        return keras().ops.convert_to_tensor(array.astype(np.float32), dtype=array.dtype.name)
    return keras().ops.convert_to_tensor(array)


def to_numpy(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy itself knows no bfloat16
            return np.asarray(value.float().numpy().astype(named_dtype("bfloat16")))
    return np.asarray(keras().ops.convert_to_numpy(value) if not hasattr(value, "numpy") else value.numpy())


def run(layer: Any, case: Case) -> tuple[Array, ...]:
    """A Keras layer's outputs as arrays."""
    given: dict[str, Any] = {}  # tf_keras takes no arrays beside its input
    if case.mask is not None:
        given["mask"] = tensor(layer, case.mask)
    if case.initial_state is not None:
        given["initial_state"] = nested(layer, case)

    def compute(x: Any) -> Any:
        return layer(x, **given)

    outputs = compiled(compute, layer, case)(tensor(layer, case.x))
    return tuple(to_numpy(part) for part in flat_states(outputs))


def nested(layer: Any, case: Case) -> list[Any]:
    """The initial states as tensors, those of stacked cells one element a cell."""
    states = [tensor(layer, state) for state in case.initial_state or ()]
    if not isinstance(case.layer, RNN):
        return states
    cells = [list(own) for _, own in case.layer.shares(tuple(states))]
    return [own if len(own) > 1 else own[0] for own in cells]


def compiled(compute: Callable[[Any], Any], layer: Any, case: Case) -> Callable[[Any], Any]:
    """A graph where there are many steps, eager otherwise: see GRAPH_STEPS."""
    long = case.timesteps > GRAPH_STEPS and not any(part.unroll for part in case.layer.every(Recurrent))
    if not long or backend_of(layer) != "tensorflow":
        return compute
    graph = importlib.import_module("tensorflow").function(compute, autograph=False)
    concrete = graph.get_concrete_function(tensor(layer, case.x))  # calling `graph` would warn of being traced anew
    return lambda x: concrete(x)


# --- unbuilt layers ---


@no_warnings()
def build_random(layer: Any, input_shape: tuple[int, ...], seed: int) -> bool:
    """Build a layer or model that is not built yet, with random weights and biases; whether it had to be.

    input_shape: without the batch. Keras's own zero biases (and, for two units, often symmetric recurrent kernels)
    would hide mistakes.
    """
    parts = chain(layer) if type(layer).__name__ in MODELS and _family(layer) else [layer]
    weighted = [part for part in parts if type(part).__name__ not in (*IDENTITIES, "Masking", "Activation")]
    for part in weighted:
        if type(part).__name__ not in ROWS or not _family(part):
            convert(part)  # refused by name before Keras trips over it
    if all(has_weights(part) for part in weighted):
        return False
    for cell in (cell for part in parts for cell in cells_in(part)):
        declared_dtype(cell), activation_name(cell)
        cell.recurrent_initializer = importlib.import_module(_family(cell)).initializers.Zeros()
    bare = type(layer).__name__ in CELLS
    if not (bare and getattr(layer, "built", False)):
        try:
            layer.build((None, input_shape[-1]) if bare else (None, *input_shape))
        except Exception as error:  # each backend has its own
            shape = ", ".join(map(str, input_shape))
            raise InputError(f"{layer.name}: cannot be built for inputs (batch, {shape}): {briefly(error)}") from error
    scratch = from_keras(layer)
    drawn = randomized(scratch, generator(seed, "build"))
    if bare:
        put_cell(layer, drawn.cell)  # type: ignore[attr-defined]
        return True
    for part, own in zip(parts, drawn.layers if isinstance(drawn, Sequential) else [drawn], strict=True):
        ROWS[type(part).__name__].put(part, own) if type(part).__name__ != "RNN" else put_rnn(part, own)
    return True


def put_rnn(layer: Any, scratch: Any) -> None:
    """RNN of one cell is rnn_scratch's layer of that name."""
    put_stack(layer, scratch) if isinstance(scratch, RNN) else put_recurrent(layer, scratch)


def has_weights(layer: Any) -> bool:
    cells = list(cells_in(layer))
    return all(cell.get_weights() for cell in cells) if cells else bool(layer.get_weights())


def cells_in(layer: Any) -> Iterator[Any]:
    kind = type(layer).__name__
    if kind in CELLS:
        yield layer
    elif kind == "Bidirectional":
        yield from (*cells_in(layer.forward_layer), *cells_in(layer.backward_layer))
    elif hasattr(layer, "cell"):
        cell = layer.cell
        yield from cell.cells if type(cell).__name__ == "StackedRNNCells" else [cell]


def static_input_shape(model: Any) -> tuple[int | None, int | None]:
    """(batch, timesteps) that a model or layer was built for, None where either is open."""
    try:
        shape = getattr(model, "input_shape", None)
    except (AttributeError, ValueError):
        return None, None
    if not isinstance(shape, tuple) or len(shape) < 2 or not all(n is None or isinstance(n, int) for n in shape[:2]):
        return None, None
    return shape[0], shape[1]
