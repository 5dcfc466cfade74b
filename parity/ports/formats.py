"""Ports: a layer or model written as the other side loads it, and read back to be checked.

Weights in a layout (`npz`, `safetensors`, a `torch` state dict) and, of whole layers, an `onnx` graph and a `c` header
(`parity.ports.c`). What a format cannot carry is refused by name; nothing is left out silently.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import InputError, UnsupportedError
from parity.extras import needed
from parity.ports import c as c_port
from parity.ports import layouts
from parity.ports.layouts import Layout
from rnn_scratch import RNN, Activation, Bidirectional, Dense, Dropout, Embedding, Masking, Sequential, TimeDistributed
from rnn_scratch.layers import Layer, Recurrent

Array = NDArray[Any]
Arrays = Mapping[str, Array]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Format:
    """suffix: of its files. layout: its own, or the default one where `fixed` is false. write: the layer, its arrays
    and the manifest -> the bytes. bare: it holds weights alone, so settings are not its affair."""

    suffix: str
    layout: str
    write: Callable[[Layer, Arrays, Mapping[str, Any]], bytes]
    fixed: bool = True
    bare: bool = False


# --- weights alone ---


def npz(layer: Layer, arrays: Arrays, manifest: Mapping[str, Any]) -> bytes:
    file = BytesIO()
    text = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    np.savez(file, allow_pickle=False, **{MANIFEST: text}, **arrays)
    return file.getvalue()


def safetensors(layer: Layer, arrays: Arrays, manifest: Mapping[str, Any]) -> bytes:
    library = needed("safetensors.numpy", "a .safetensors file", "safetensors")
    return bytes(library.save(dict(arrays), metadata={"manifest": json.dumps(manifest)}))


def torch(layer: Layer, arrays: Arrays, manifest: Mapping[str, Any]) -> bytes:
    library = needed("torch", "a state dict", "torch")
    file = BytesIO()
    library.save({name: library.from_numpy(array.copy()) for name, array in arrays.items()}, file)
    return file.getvalue()


# --- ONNX ---

ONNX_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "relu": ("Relu", {}),
    "softsign": ("Softsign", {}),
    "softplus": ("Softplus", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_sigmoid_keras2": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
}
OPSET, IR = 17, 8


class OnnxGraph:
    """An ONNX graph being built: nodes one after another, each with its outputs' names."""

    def __init__(self) -> None:
        self.onnx = needed("onnx", "an .onnx file", "onnx")
        self.nodes: list[Any] = []
        self.weights: dict[str, Array] = {}

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{op}_{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, name: str, array: Array) -> str:
        self.weights[name] = np.asarray(array, order="C")  # ascontiguousarray would make a number an array of one
        return name

    def axes(self, *values: int) -> str:
        return self.constant("axes_" + "_".join(map(str, values)), np.array(values, np.int64))

    def layer(self, layer: Layer, path: str, x: str) -> list[str]:
        """The names of the layer's results for the input x, (batch, timesteps, ...)."""
        if isinstance(layer, Recurrent):
            return self.recurrent([layer], path, x, None)
        if isinstance(layer, Bidirectional):
            return self.recurrent(list(layer.directions), path, x, layer)
        if isinstance(layer, TimeDistributed):
            return self.layer(layer.layer, path, x)
        if isinstance(layer, Dense):
            return [self.dense(layer, path, x)]
        if isinstance(layer, Embedding):
            return [self.add("Gather", [self.constant(f"{path}.E", layer.E), x])]
        if isinstance(layer, Activation):
            return [self.activation(layer.activation.name, layer.name, x)]
        results = [x]
        for name, part in layer.parts.items():
            results = self.layer(part, f"{path}.{name}" if path else name, results[0])
        return results

    def dense(self, layer: Dense, path: str, x: str) -> str:
        y = self.add("MatMul", [x, self.constant(f"{path}.W", layer.W.T)])
        if layer.use_bias:
            y = self.add("Add", [y, self.constant(f"{path}.b", layer.b)])
        return self.activation(layer.activation.name, layer.name, y)

    def activation(self, name: str | None, owner: str, x: str) -> str:
        if name in (None, "linear"):
            return x
        if name == "softmax":
            return str(self.add("Softmax", [x], axis=-1))
        op, settings = onnx_activation(str(name), owner)
        attributes: dict[str, Any] = dict(settings)
        return str(self.add(op, [x], **attributes))

    def recurrent(self, layers: Sequence[Any], path: str, x: str, both: Bidirectional | None) -> list[str]:
        first, layout = layers[0], layouts.LAYOUTS["onnx"]
        packed = [layouts.pack(layer.cell, layout) for layer in layers]
        inputs = [self.add("Transpose", [x], perm=[1, 0, 2])]
        for name in packed[0]:
            inputs.append(self.constant(f"{path}.{name}", np.concatenate([arrays[name] for arrays in packed])))
        direction = "bidirectional" if both else "reverse" if first.go_backwards else "forward"
        settings = onnx_settings(first) | ({} if not both else onnx_settings_of_both(layers))
        op = {"simple_rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[first.kind]
        states = len(first.cell.states)
        outputs = self.add(op, inputs, 1 + states, hidden_size=first.units, direction=direction, **settings)
        y, finals = outputs[0], [self.halves(name, len(layers)) for name in outputs[1:]]
        if both is None:
            sequence = self.add("Transpose", [self.add("Squeeze", [y, self.axes(1)])], perm=[1, 0, 2])
            if first.go_backwards:
                sequence = self.turned(sequence)
            output = [sequence if first.return_sequences else finals[0][0]]
        else:
            steps = [self.add("Transpose", [half], perm=[1, 0, 2]) for half in self.halves(y, 2, axis=1)]
            output = self.merged(both.merge_mode, steps if first.return_sequences else finals[0])
        states_out = [finals[n][k] for k in range(len(layers)) for n in range(states)]
        return output + (states_out if first.return_state else [])

    def halves(self, name: str, number: int, axis: int = 0) -> list[str]:
        """One for each direction, without that axis."""
        if number == 1:
            return [self.add("Squeeze", [name, self.axes(axis)])]
        index = [self.constant(f"direction_{n}", np.array(n, np.int64)) for n in range(number)]
        return [self.add("Gather", [name, n], axis=axis) for n in index]

    def turned(self, y: str) -> str:
        ends = [self.constant(name, np.array([n], np.int64)) for name, n in (("last", -1), ("before", -(1 << 62)))]
        return str(self.add("Slice", [y, *ends, self.axes(1), self.constant("step", np.array([-1], np.int64))]))

    def merged(self, mode: str | None, halves: Sequence[str]) -> list[str]:
        if mode is None:
            return list(halves)
        if mode == "concat":
            return [self.add("Concat", halves, axis=-1)]
        if mode == "mul":
            return [self.add("Mul", halves)]
        total = self.add("Add", halves)
        return [total if mode == "sum" else self.add("Mul", [total, self.constant("half", np.array(0.5, np.float32))])]


def onnx_activation(name: str, owner: str) -> tuple[str, dict[str, float]]:
    if name not in ONNX_ACTIVATIONS:
        raise UnsupportedError(f"{owner}: onnx carries {', '.join(ONNX_ACTIVATIONS)}, linear; received {name}")
    return ONNX_ACTIVATIONS[name]


def onnx_settings(layer: Recurrent) -> dict[str, Any]:
    """The attributes of a node: its activations, with alpha and beta of those that have them, gates first."""
    settings = layer.cell.settings
    names = {
        "simple_rnn": ("activation",),
        "lstm": ("recurrent_activation", "activation", "activation"),
        "gru": ("recurrent_activation", "activation"),
    }[layer.kind]
    found = [onnx_activation(settings[name] or "linear", layer.name) for name in names]
    attributes: dict[str, Any] = {"activations": [op for op, _ in found]}
    for key in ("alpha", "beta"):
        if values := [values[key] for _, values in found if values]:
            attributes[f"activation_{key}"] = values
    if layer.kind == "gru":
        attributes["linear_before_reset"] = int(settings["reset_after"])
    return attributes


def onnx_settings_of_both(layers: Sequence[Recurrent]) -> dict[str, Any]:
    forward, backward = map(onnx_settings, layers)
    if forward.get("linear_before_reset") != backward.get("linear_before_reset"):
        raise UnsupportedError(f"{layers[0].name}: onnx has one linear_before_reset for both directions")
    lists = [key for key in forward | backward if key != "linear_before_reset"]
    return {key: forward.get(key, []) + backward.get(key, []) for key in lists}


def onnx(layer: Layer, arrays: Arrays, manifest: Mapping[str, Any]) -> bytes:
    graph = OnnxGraph()
    make, proto = graph.onnx.helper, graph.onnx.TensorProto
    results = graph.layer(layer, "", "x")
    names = result_names(layer)
    graph.nodes += [make.make_node("Identity", [result], [name]) for result, name in zip(results, names, strict=True)]
    embedded = isinstance(leaves(layer)[0], Embedding)
    x = make.make_tensor_value_info(
        "x", proto.INT32 if embedded else proto.FLOAT, ["batch", "timesteps", *([] if embedded else [input_dim(layer)])]
    )
    shapes = layer.output_shapes((1, 1, *([] if embedded else [input_dim(layer)])))
    outputs = [
        make.make_tensor_value_info(name, proto.FLOAT, ["batch", *(["timesteps"] if len(shape) > 2 else []), shape[-1]])
        for name, shape in zip(names, shapes, strict=True)
    ]
    constants = [graph.onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    model = make.make_model(
        make.make_graph(graph.nodes, "keras_parity", [x], outputs, constants),
        opset_imports=[make.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="keras-parity",
    )
    graph.onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def result_names(layer: Layer) -> list[str]:
    """y, or of Bidirectional without a merge y and y_back, then the states."""
    results = len(layer.output_shapes((1, 1, 1)))
    states = [name.replace(".", "_") for name in layer.state_names]
    outputs = results - len(states) if results > len(states) else results
    return [*["y", "y_back"][:outputs], *states][:results]


def input_dim(layer: Layer) -> int:
    return next(int(part.input_dim) for part in leaves(layer) if part.input_dim)


def leaves(layer: Layer) -> list[Layer]:
    if isinstance(layer, Sequential | TimeDistributed):
        return [leaf for part in layer.parts.values() for leaf in leaves(part)]
    return [layer]


# --- every format ---

FORMATS = {
    "npz": Format(".npz", "notebook", npz, fixed=False, bare=True),
    "safetensors": Format(".safetensors", "notebook", safetensors, fixed=False, bare=True),
    "torch": Format(".pt", "torch", torch),
    "onnx": Format(".onnx", "onnx", onnx),
    "c": Format(".h", "keras", lambda layer, arrays, manifest: c_port.header(layer, manifest).encode()),
}

CARRIED = (Recurrent, Bidirectional, Dense, Embedding, Activation, Dropout, TimeDistributed)


def refuse(layer: Layer, to: str) -> None:
    """UnsupportedError for what that format cannot carry."""
    for part in leaves(layer):
        recurrent = [half for half in (part, *part.parts.values()) if isinstance(half, Recurrent)]
        if part.dtype != np.float32:
            raise UnsupportedError(f"{part.name}: {to} is written in float32; the layer computes in {part.dtype}")
        if isinstance(part, Masking) or getattr(part, "mask_zero", False):
            raise UnsupportedError(f"{part.name}: {to} carries no masks; take {part.kind} off and mask outside")
        if isinstance(part, RNN) or not isinstance(part, CARRIED):
            raise UnsupportedError(f"{part.name}: {to} does not carry {part.kind}")
        if any(half.stateful for half in recurrent):
            raise UnsupportedError(f"{part.name}: {to} keeps no state between calls; save it with stateful=False")
        if to == "torch":
            refuse_for_torch(part, recurrent)


def refuse_for_torch(part: Layer, recurrent: Sequence[Recurrent]) -> None:
    for half in recurrent:
        settings = half.cell.settings
        fixed = {"activation": ("tanh", "relu") if half.kind == "simple_rnn" else ("tanh",)}
        fixed |= {"recurrent_activation": ("sigmoid",)} if "recurrent_activation" in settings else {}
        for name, allowed in fixed.items():
            if settings[name] not in allowed:
                raise UnsupportedError(
                    f"{half.name}: torch's {half.kind} has {name} {' or '.join(allowed)}; received {settings[name]}"
                )


def manifest(layer: Layer, to: str, layout: Layout, versions: Mapping[str, str]) -> dict[str, Any]:
    """What was written: for each layer its arrays, from which of Keras's weights, how turned and in which order."""
    layers = []
    for entry in layouts.entries(layer, layout):
        part = entry.layer
        found: dict[str, Any] = {"layer": entry.path or layer.name, "kind": part.kind}
        if isinstance(part, Recurrent):
            found["equation"] = layouts.EQUATIONS[part.kind]
            found["settings"] = {**part.cell.settings, "use_bias": part.cell.use_bias, **part.settings}
            found["gates"] = list(layouts.called(layout, part.kind))
        found["arrays"] = [
            {"name": name, "shape": list(array.shape), "dtype": array.dtype.name, **origin(name, part, layout)}
            for name, array in entry.arrays(layout).items()
        ]
        layers.append(found)
    return {"format": to, "layout": layout.name, "rule": layout.rule, "first": layout.first} | {
        "layers": layers,
        "versions": dict(versions),
    }


def origin(name: str, part: Layer, layout: Layout) -> dict[str, Any]:
    """From which Keras weight an array comes, and whether transposed."""
    own = name.rpartition(".")[2]
    Wx, Wh, biases = layout.names
    if isinstance(part, Embedding):
        return {"from": "embeddings", "transposed": False}
    if isinstance(part, Dense):
        return {
            "from": "kernel" if own == layout.dense[0] else "bias",
            "transposed": not layout.columns and own == layout.dense[0],
        }
    starts = {Wx.partition("{")[0]: "kernel", Wh.partition("{")[0]: "recurrent_kernel"}
    source = next((keras for start, keras in starts.items() if own.startswith(start)), "bias")
    if source == "bias" and layout.biases and isinstance(part, Recurrent):
        both = ("bias[0]", "bias[1]") if part.cell.b.ndim == 2 else ("bias", "zeros")
        source = " then ".join(both) if layout.joined else both[int(own.startswith(biases[1]))]
    return {"from": source, "transposed": "kernel" in source and not layout.columns}


@dataclass(frozen=True)
class Port:
    """What `write` made: the bytes of the file, the manifest, and the layer that it is of."""

    data: bytes
    manifest: Mapping[str, Any]
    layer: Layer


def write(layer: Layer, to: str, layout: str | None = None, versions: Mapping[str, str] | None = None) -> Port:
    """A layer or model in that format. Raises InputError for an unknown format or layout, UnsupportedError for what the
    format cannot carry, MissingExtraError where its library is not installed."""
    if to not in FORMATS:
        raise InputError(f"to: expected {', '.join(FORMATS)}; received {to!r}")
    kind = FORMATS[to]
    if layout is not None and kind.fixed and layout != kind.layout:
        raise InputError(f"layout: {to} has its own, {kind.layout}; received {layout!r}")
    chosen = layouts.layout_named(layout or kind.layout)
    if not kind.bare:
        refuse(layer, to)
    arrays = layouts.packed(layer, chosen)
    try:
        layouts.unpacked(layer, chosen, arrays)
    except InputError as error:
        raise UnsupportedError(f"{layer.name}: {to} cannot be written so that it is read back: {error}") from None
    told = manifest(layer, to, chosen, versions or {})
    return Port(kind.write(layer, arrays, told), told, layer)


# --- checked as its user would load it ---


def torch_function(path: str, layer: Layer) -> Callable[[Array], Any]:
    """The state dict in modules of torch's own, one after another, as a function of x."""
    library = needed("torch", "a state dict", "torch")
    state = library.load(path, weights_only=True)
    steps = list(torch_steps(library, layer, state, ""))

    def forward(x: Array) -> Any:
        y: Any = library.from_numpy(np.array(x))
        with library.inference_mode():
            for step in steps:
                y = step(y)
        return tuple(part.numpy() for part in y) if isinstance(y, tuple) else y.numpy()

    return forward


def torch_steps(library: Any, layer: Layer, state: Mapping[str, Any], path: str) -> Iterator[Callable[[Any], Any]]:
    own = {
        key.removeprefix(f"{path}."): value for key, value in state.items() if not path or key.startswith(f"{path}.")
    }
    if isinstance(layer, Recurrent | Bidirectional):
        yield torch_recurrent(library, layer, own)
    elif isinstance(layer, Dense):
        module = library.nn.Linear(layer.input_dim, layer.units, bias=layer.use_bias)
        module.load_state_dict(own)
        yield module
        yield torch_activation(library, layer.activation.name, layer.name)
    elif isinstance(layer, Embedding):
        module = library.nn.Embedding(*layer.E.shape)
        module.load_state_dict(own)
        yield lambda x: module(x.long())
    elif isinstance(layer, Activation):
        yield torch_activation(library, layer.activation.name, layer.name)
    for name, part in layer.parts.items() if not isinstance(layer, Bidirectional) else ():
        yield from torch_steps(library, part, state, f"{path}.{name}" if path else name)


def torch_activation(library: Any, name: str | None, owner: str) -> Callable[[Any], Any]:
    known: dict[str, Callable[[Any], Any]] = {"tanh": library.tanh, "sigmoid": library.sigmoid, "relu": library.relu}
    known |= {"linear": lambda x: x, "softmax": lambda x: library.softmax(x, -1)}
    if (name or "linear") not in known:
        raise UnsupportedError(f"{owner}: the torch port carries {', '.join(known)}; received {name}")
    return known[name or "linear"]


def torch_recurrent(library: Any, layer: Any, state: Mapping[str, Any]) -> Callable[[Any], Any]:
    both = isinstance(layer, Bidirectional)
    first = layer.directions[0] if both else layer
    name = {"simple_rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[first.kind]
    options = {"nonlinearity": first.cell.settings["activation"]} if name == "RNN" else {}
    module = getattr(library.nn, name)(
        first.input_dim, first.units, bias=first.cell.use_bias, batch_first=True, bidirectional=both, **options
    )
    module.load_state_dict(dict(state))

    def run(x: Any) -> Any:
        x = x.flip(1) if not both and first.go_backwards else x
        y, states = module(x)
        finals = states if isinstance(states, tuple) else (states,)
        halves = [finals[0][n] for n in range(len(finals[0]))]
        if both:
            shown = [y[..., : first.units], y[..., first.units :]] if first.return_sequences else halves
            output: Any = layer.merge(*shown) if layer.merge_mode != "concat" else library.cat(shown, -1)
        else:
            output = y if first.return_sequences else halves[0]
        output = output if isinstance(output, tuple) else (output,)
        after = [final[n] for n in range(2 if both else 1) for final in finals] if first.return_state else []
        results = (*output, *after)
        return results if len(results) > 1 else results[0]

    return run
