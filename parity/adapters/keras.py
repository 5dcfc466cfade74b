"""Keras there and back: weights and settings into rnn_scratch, and Keras's own outputs for a Case.

The only file that imports Keras. Keras keeps `kernel` (input_dim, units) and `recurrent_kernel` (units, units), one
column a unit; rnn_scratch keeps one row a unit, so both are transposed here and nowhere else.

Layers are recognised by their exact class in Keras 3 or `tf_keras`, not by `isinstance`: a subclass may compute
anything.
"""

import contextlib
import importlib
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.candidates import Answer, one_line
from parity.cases import Case, generator, random_weights
from parity.errors import InputError, MissingExtraError, ModelError, ParityError, UnsupportedError
from rnn_scratch import SimpleRNN
from rnn_scratch.activations import ACTIVATIONS
from rnn_scratch.cells import FLOATS
from rnn_scratch.layers import SETTINGS

Array = NDArray[Any]

COVERED = "SimpleRNN, SimpleRNNCell, RNN(SimpleRNNCell), or a Sequential of one of them"
NOT_LAYERS = frozenset({"InputLayer"})
BLOCK_STEPS = 50_000
GRAPH_STEPS = 50
"""Eager TensorFlow takes a millisecond a time step; tracing a graph takes as long as this many steps."""


class KerasError(ParityError):
    """Keras itself raised while it computed the outputs to compare with."""


def keras() -> ModuleType:
    """Keras 3, imported without TensorFlow's start-up messages; MissingExtraError where there is none."""
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            with muted_start():
                module = importlib.import_module("keras")
        except ImportError as error:
            raise MissingExtraError(
                f"Keras and its backend are needed: pip install 'keras-parity[tensorflow]' ({one_line(error)})"
            ) from error
        except Exception as error:
            name = os.environ.get("KERAS_BACKEND", "its default")
            raise MissingExtraError(f"Keras does not start with the backend {name}: {one_line(error)}") from error
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


def environment() -> dict[str, str]:
    """Versions of what computed the expected outputs, and the backend."""
    module = keras()
    backend = module.backend.backend()
    found = {"keras": module.__version__, "backend": backend}
    if backend in sys.modules:
        found[backend] = sys.modules[backend].__version__
    return found


# --- from Keras ---


def from_keras(layer: Any) -> SimpleRNN:
    """An rnn_scratch layer with the weights and settings of a built Keras layer.

    layer: SimpleRNN, SimpleRNNCell, RNN(SimpleRNNCell), or a Sequential of one of them, from Keras 3 or tf_keras, in
    float16, float32 or float64. Wx is its kernel transposed, Wh its recurrent kernel transposed, b its bias, bit for
    bit. A bare cell becomes a layer that returns the last output. The state that a stateful layer holds comes along.
    Dropout, initializers, regularizers, constraints and `unroll` change nothing at inference and are ignored.

    Raises UnsupportedError for what it cannot carry, naming it; InputError for a layer that is not built, and for
    weights that are not finite.
    """
    layer = only_layer(layer)
    cell = cell_of(layer)
    dtype = _dtype(layer, cell)
    weights = [np.asarray(weight) for weight in cell.get_weights()]
    if not weights:
        raise InputError(f"{layer.name}: expected a built layer; it has no weights yet: build it, or pass input_shape")
    for name, weight in zip(("kernel", "recurrent_kernel", "bias"), weights, strict=False):
        if not np.isfinite(weight).all():
            raise InputError(f"{layer.name}: {name}: expected finite weights; received NaN or infinity")
    kernel, recurrent_kernel, *bias = (weight.astype(dtype) for weight in weights)
    settings = {name: bool(getattr(layer, name, False)) for name in SETTINGS}
    scratch = SimpleRNN(kernel.T, recurrent_kernel.T, *bias, activation=activation_name(cell), **settings)
    states = getattr(layer, "states", None)
    if settings["stateful"] and states and states[0] is not None:
        scratch.state = tuple(np.asarray(state).astype(dtype) for state in states)
    return scratch


def only_layer(layer: Any) -> Any:
    """The one recurrent layer of a model, or the layer itself. UnsupportedError names what is not covered."""
    kind, family = type(layer).__name__, _family(layer)
    if family and kind in ("Sequential", "Functional"):
        inner = [part for part in getattr(layer, "operations", layer.layers) if type(part).__name__ not in NOT_LAYERS]
        foreign = [part for part in inner if not _is_covered(part)]
        if not inner or len(foreign) == len(inner):
            names = ", ".join(f"{part.name} ({type(part).__name__})" for part in inner) or "no layers"
            raise UnsupportedError(f"model {layer.name}: expected one recurrent layer ({COVERED}); it has {names}")
        if foreign:
            names = ", ".join(f"{part.name} ({type(part).__name__})" for part in foreign)
            raise UnsupportedError(
                f"model {layer.name}: {names} is not covered beside a recurrent layer; covered: {COVERED}"
            )
        if len(inner) > 1:
            raise UnsupportedError(
                f"model {layer.name}: expected one recurrent layer; it has {', '.join(part.name for part in inner)}"
            )
        if kind == "Functional" and len(layer.inputs) != 1:
            raise UnsupportedError(f"model {layer.name}: expected one input; it has {len(layer.inputs)}")
        outputs = 2 if getattr(inner[0], "return_state", False) else 1
        if kind == "Functional" and len(layer.outputs) != outputs:
            raise UnsupportedError(
                f"model {layer.name}: expected its layer's outputs, {outputs}; it has {len(layer.outputs)}"
            )
        if kind == "Functional" and sum(map(len, layer._nodes_by_depth.values())) > 2:
            raise UnsupportedError(f"model {layer.name}: {inner[0].name} is called more than once; expected once")
        return only_layer(inner[0])
    if not family:
        what = f"{kind} of {type(layer).__module__}"
        raise UnsupportedError(
            f"expected a layer of Keras's own ({COVERED}); received {what}, which may compute anything"
        )
    if not _is_covered(layer):
        cell = getattr(layer, "cell", None)
        what = f"{kind} of {type(cell).__name__}" if cell is not None and kind == "RNN" else kind
        raise UnsupportedError(f"{getattr(layer, 'name', what)}: {what} is not covered; covered: {COVERED}")
    return layer


def _is_covered(layer: Any) -> bool:
    kind = type(layer).__name__
    if not _family(layer):
        return False
    if kind == "RNN":
        return type(layer.cell).__name__ == "SimpleRNNCell" and bool(_family(layer.cell))
    return kind in ("SimpleRNN", "SimpleRNNCell", "Sequential", "Functional")


def _family(layer: Any) -> str:
    """ "keras" or "tf_keras", or "" for a class of somebody else's."""
    root = type(layer).__module__.partition(".")[0]
    return root if root in ("keras", "tf_keras") else ""


def cell_of(layer: Any) -> Any:
    return layer if type(layer).__name__ == "SimpleRNNCell" else layer.cell


def _dtype(layer: Any, cell: Any) -> str:
    if getattr(layer, "time_major", False):
        raise UnsupportedError(f"{layer.name}: time_major is not covered; expected (batch, timesteps, input_dim)")
    dtypes = {str(part.compute_dtype) for part in (layer, cell)} | {str(part.variable_dtype) for part in (layer, cell)}
    if len(dtypes) > 1 or dtypes - set(FLOATS):
        policies = {getattr(part.dtype_policy, "name", None) for part in (layer, cell)}
        name = (len(policies) == 1 and policies.pop()) or "/".join(sorted(dtypes))
        raise UnsupportedError(f"{layer.name}: dtype {name} is not covered; covered: {', '.join(FLOATS)}")
    return dtypes.pop()


def activation_name(cell: Any) -> str:
    """The name in rnn_scratch of a cell's activation; UnsupportedError for a function that is not Keras's own."""
    function = cell.activation
    name = getattr(function, "__name__", type(function).__name__)
    root = str(getattr(function, "__module__", "")).partition(".")[0]
    if root not in ("keras", "tf_keras"):
        raise UnsupportedError(f"{cell.name}: activation {name} is not one of Keras's own; pass it by its Keras name")
    if getattr(importlib.import_module(root).activations, name, function) is not function:
        raise UnsupportedError(f"{cell.name}: activation {function.__module__}.{name} is not {root}.activations.{name}")
    if root == "tf_keras" and name == "hard_sigmoid":
        return "hard_sigmoid_keras2"
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(key for key in ACTIVATIONS if key))
        raise UnsupportedError(f"{cell.name}: activation {name} is not covered; covered: {known}")
    return str(ACTIVATIONS[name].name)


# --- to Keras ---


def to_keras(scratch: SimpleRNN, *, batch_size: int | None = None, **settings: Any) -> Any:
    """A built Keras 3 `SimpleRNN` with the weights and settings of an rnn_scratch layer, every weight bit for bit.

    batch_size: needed for a stateful layer that holds no state yet, since Keras fixes it there. settings: further
    arguments of `keras.layers.SimpleRNN`, such as unroll=True.

    Raises UnsupportedError for a layer that is not rnn_scratch's SimpleRNN, or whose activation Keras 3 does not have.
    """
    if not isinstance(scratch, SimpleRNN):
        raise UnsupportedError(f"to_keras: expected an rnn_scratch.SimpleRNN; received {type(scratch).__name__}")
    if scratch.activation == "hard_sigmoid_keras2":
        raise UnsupportedError("to_keras: Keras 3 has no hard_sigmoid of slope 0.2 (Keras 2's); use tf_keras")
    batch = len(scratch.state[0]) if scratch.state else batch_size
    if scratch.stateful and batch is None:
        raise InputError("to_keras: a stateful layer needs batch_size=, which Keras fixes when it is built")
    layer = keras().layers.SimpleRNN(
        scratch.units,
        activation=scratch.activation,
        use_bias=scratch.cell.use_bias,
        dtype=scratch.dtype.name,
        recurrent_initializer="zeros",  # the default one has no float16 kernel on every backend
        **scratch.settings,
        **settings,
    )
    layer.build((batch, None, scratch.input_dim))
    set_weights(layer, scratch)
    if scratch.stateful and scratch.state:
        for variable, state in zip(layer.states, scratch.state, strict=True):
            variable.assign(state)
    return layer


def set_weights(layer: Any, scratch: SimpleRNN) -> None:
    cell = scratch.cell
    cell_of(layer).set_weights([cell.Wx.T, cell.Wh.T, *([cell.b] if cell.use_bias else [])])


# --- Keras as the one to agree with ---


class Oracle:
    """A Keras layer that answers Cases with its own outputs, and beside them with every step's.

    Cases with the layer's own weights are put to that very layer; those with other weights (probes), other settings or
    kept state to a twin of it. The layer is left as it was.
    """

    takes = frozenset({"layer", "mask", "initial_state"})
    callable = True

    def __init__(self, layer: Any, scratch: SimpleRNN) -> None:
        self.layer, self.scratch = layer, scratch
        self.module = importlib.import_module(_family(layer))
        bare = type(layer).__name__ == "SimpleRNNCell"
        self.own = None if scratch.stateful or bare else layer

    def ask(self, case: Case) -> Answer:
        mine = case.layer is self.scratch
        try:
            if case.mask is None and case.timesteps > BLOCK_STEPS:
                return self.in_blocks(case)
            layer = self.own if mine and self.own is not None else self.twin(case)
            outputs = run(layer, case)
            if case.layer.return_sequences:
                return Answer(outputs)
            return Answer(outputs, sequence=run(self.twin(case, return_sequences=True, return_state=False), case)[0])
        except ParityError:
            raise
        except Exception as error:
            raise KerasError(f"Keras raised on {case.id}: {one_line(error)}") from error

    def in_blocks(self, case: Case) -> Answer:
        """The same steps, the state handed from block to block: TensorFlow's loop keeps memory for every step."""
        layer = self.twin(case, return_sequences=True, return_state=True)
        states = case.layer.initial_states(case.batch, case.initial_state)
        pieces = []
        for start in range(0, case.timesteps, BLOCK_STEPS):
            block = case.steps(start, min(start + BLOCK_STEPS, case.timesteps), states)
            piece, *new = run(layer, block)
            states = tuple(new)
            pieces.append(piece)
        sequence = np.concatenate(pieces, axis=1)
        output = sequence if case.layer.return_sequences else sequence[:, -1]
        return Answer((output, *states) if case.layer.return_state else (output,), sequence=sequence)

    def twin(self, case: Case, **settings: Any) -> Any:
        """A stateless layer of the same Keras around the same cell, or around one with the case's weights."""
        cell = cell_of(self.layer)
        if case.layer is not self.scratch:
            cell = type(cell).from_config(cell.get_config())
            cell.build((None, case.layer.input_dim))
            set_weights(cell, case.layer)  # type: ignore[arg-type]
        flags = {**case.layer.settings, "stateful": False, **settings}
        dtype = self.scratch.dtype.name
        return self.module.layers.RNN(cell, dtype=dtype, unroll=getattr(self.layer, "unroll", False), **flags)


def run(layer: Any, case: Case) -> tuple[Array, ...]:
    """A Keras layer's outputs as arrays. A graph where there are many steps, eager otherwise: see GRAPH_STEPS."""
    tensor = keras().ops.convert_to_tensor  # tf_keras takes no arrays beside its input
    x, mask = tensor(case.x), None if case.mask is None else tensor(case.mask)
    states = None if case.initial_state is None else [tensor(state) for state in case.initial_state]

    def compute(x: Any) -> Any:
        return layer(x, mask=mask, initial_state=states, training=False)

    long = case.timesteps > GRAPH_STEPS and not getattr(layer, "unroll", False)
    if long and keras().backend.backend() == "tensorflow":
        graph = importlib.import_module("tensorflow").function(compute, autograph=False)
        compute = graph.get_concrete_function(x)  # calling `graph` itself would warn of being traced anew each time
    outputs = compute(x)
    parts = outputs if isinstance(outputs, tuple | list) else (outputs,)
    return tuple(np.asarray(keras().ops.convert_to_numpy(part)) for part in parts)


# --- models and unbuilt layers ---


def load_model(path: str) -> Any:
    """A saved Keras model, in safe mode (no Lambda code is run). ModelError, one line, for anything else."""
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise ModelError(f"{path}: the file is empty")
    if file.suffix == ".keras" and not zipfile.is_zipfile(file):
        raise ModelError(f"{path}: not a Keras file, or cut short (a .keras file is a zip archive)")
    if file.suffix not in (".keras", ".h5", ".hdf5"):
        raise ModelError(f"{path}: expected a model saved by Keras (.keras or .h5)")
    try:
        return keras().saving.load_model(path, compile=False, safe_mode=True)
    except ParityError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: Keras cannot load it: {one_line(error)}") from error


def build_random(layer: Any, input_shape: tuple[int, ...], seed: int) -> bool:
    """Build a layer that is not built yet, with random weights and biases; whether it had to be.

    Keras's own zero biases (and, for two units, often symmetric recurrent kernels) would hide mistakes.
    """
    layer = only_layer(layer)
    cell = cell_of(layer)
    if cell.get_weights():
        return False
    _dtype(layer, cell), activation_name(cell)  # refused by name before Keras trips over them
    if not getattr(cell, "built", False):
        layer.build((None, input_shape[-1]) if layer is cell else (None, *input_shape))
    weights = random_weights(generator(seed, "build"), "normal", int(cell.units), int(input_shape[-1]))
    arrays = [weights[0].T, weights[1].T, weights[2]][: len(cell.get_weights())]
    cell.set_weights(arrays)
    return True


def static_input_shape(model: Any) -> tuple[int | None, int | None]:
    """(batch, timesteps) that a model or layer was built for, None where either is open."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 3:
        return None, None
    return shape[0], shape[1]
