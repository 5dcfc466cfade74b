"""The layers that a Keras layer or model is made of, and those of its variables that hold states."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parity.adapters.keras.library import Tensor, family, flat_states
from parity.errors import UnsupportedError
from parity.kinds import registry
from parity.kinds.registry import KerasLayer

Node = Any
"""Of Keras's own graph of a functional model."""

MODELS = ("Sequential", "Functional")

_PLAIN = (bool, int, float, str, type(None))
"""What an operation takes beside tensors."""


def is_model(layer: KerasLayer) -> bool:
    return type(layer).__name__ in MODELS and family(layer) != ""


# --- a model as a chain ---


def chain(model: KerasLayer) -> list[KerasLayer]:
    """The layers of a model, one after another, models within it taken apart. UnsupportedError names a branch."""
    of = _functional_chain if type(model).__name__ == "Functional" else _sequential_chain
    layers = of(model)
    _expect_known(model, layers)
    found: list[KerasLayer] = []
    for part in layers:
        found += chain(part) if is_model(part) else [part]
    return found


def _expect_known(model: KerasLayer, layers: Sequence[KerasLayer]) -> None:
    if not layers:
        raise UnsupportedError(f"model {model.name}: expected layers; it has no layers")
    foreign = [f"{part.name} ({type(part).__name__})" for part in layers if not _known(part)]
    if foreign:
        covered = registry.covered()
        raise UnsupportedError(f"model {model.name}: {', '.join(foreign)} is not covered; covered: {covered}")


def _known(layer: KerasLayer) -> bool:
    return is_model(layer) or (type(layer).__name__ in registry.take and family(layer) != "")


def _sequential_chain(model: KerasLayer) -> list[KerasLayer]:
    return [part for part in model.layers if not _is_input(part)]


def _is_input(layer: KerasLayer) -> bool:
    return type(layer).__name__ == "InputLayer"


def _functional_chain(model: KerasLayer) -> list[KerasLayer]:
    _expect_one_input(model)
    layers: list[KerasLayer] = []
    before: Node = None
    for node, owner in _nodes(model, _reached_as_data(model)):
        if not _is_input(owner):
            _expect_next(model, node, owner, before)
            _expect_inference(model, node, owner)
            if owner in layers:
                raise UnsupportedError(f"model {model.name}: {owner.name} is called more than once; expected once")
            layers.append(owner)
        before = node
    _expect_returned(model, _outputs_of(before))
    return layers


def _expect_one_input(model: KerasLayer) -> None:
    if len(model.inputs) == 1:
        return
    names = ", ".join(str(getattr(tensor, "name", tensor)) for tensor in model.inputs)
    raise UnsupportedError(f"model {model.name}: expected one input; it has {len(model.inputs)} ({names})")


def _expect_returned(model: KerasLayer, made: Sequence[Tensor]) -> None:
    """UnsupportedError for a model that returns anything but what its last layer puts out."""
    # by identity: == of two tensors is a third one
    if {id(tensor) for tensor in model.outputs} == {id(tensor) for tensor in made}:
        return
    raise UnsupportedError(
        f"model {model.name}: expected the outputs of its last layer, {len(made)}; it has {len(model.outputs)}"
    )


def _makers(model: KerasLayer) -> Mapping[int, Node]:
    """The node that puts out each tensor of the model's graph, by the tensor's id."""
    every = (node for nodes in model._nodes_by_depth.values() for node in nodes)
    return {id(tensor): node for node in every for tensor in _outputs_of(node)}


def _reached_as_data(model: KerasLayer) -> set[int]:
    """The ids of the nodes on which an output depends as data. Keras 3 enters what makes a mask as operations, which
    are reached through masks only; the layers make theirs themselves."""
    makers, reached = _makers(model), set[int]()
    ahead = [*model.outputs, *model.inputs]
    while ahead:
        node = makers.get(id(ahead.pop()))
        if node is not None and id(node) not in reached:
            reached.add(id(node))
            ahead += _fed(node)
    return reached


def _fed(node: Node) -> list[Tensor]:
    """The tensors that a node takes, without the masks that its inputs brought with them. A mask of the user's own is
    data: the layer would not make it."""
    if not hasattr(node, "arguments"):
        fed = node.keras_inputs
        return list(fed) if isinstance(fed, tuple | list) else [fed]
    tensors = node.arguments.keras_tensors
    brought = [mask for tensor in tensors if (mask := getattr(tensor, "_keras_mask", None)) is not None]
    return [tensor for tensor in tensors if not any(_made_alike(tensor, mask) for mask in brought)]


def _made_alike(a: Any, b: Any) -> bool:
    """Whether two tensors of Keras 3's graph are made of the same ones by the same operations. Of a model that was
    loaded the operations that make a mask are there twice: those saved, and those of the layers made anew."""
    if a is b:
        return True
    if not hasattr(a, "_keras_history") or not hasattr(b, "_keras_history"):
        return type(a) is type(b) and isinstance(a, _PLAIN) and bool(a == b)
    one, other = a._keras_history, b._keras_history
    if _described(one.operation) != _described(other.operation) or one.tensor_index != other.tensor_index:
        return False
    made_of, likewise = (
        [*node.arguments.args, *node.arguments.kwargs.values()]
        for node in (history.operation._inbound_nodes[history.node_index] for history in (one, other))
    )
    return len(made_of) == len(likewise) and all(map(_made_alike, made_of, likewise))


def _described(operation: Any) -> Any:
    """What an operation does; of a layer, which may hold anything, itself."""
    if hasattr(operation, "weights"):
        return id(operation)
    settings = {k: repr(v) for k, v in vars(operation).items() if not k.startswith("_") and k not in ("name", "built")}
    return type(operation), settings


def _nodes(model: KerasLayer, reached: set[int]) -> Iterator[tuple[Node, KerasLayer]]:
    """From the input on, each of the nodes reached with the layer that it is a call of. UnsupportedError for two side
    by side."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        nodes = [node for node in model._nodes_by_depth[depth] if id(node) in reached]
        if not nodes:
            continue
        if len(nodes) > 1:
            names = " and ".join(_owner(node).name for node in nodes)
            raise UnsupportedError(
                f"model {model.name}: a branch: {names} stand side by side; expected layers one after another"
            )
        (node,) = nodes
        yield node, _owner(node)


def _owner(node: Node) -> KerasLayer:
    """The layer of which the node is a call; Keras 2 says it otherwise than Keras 3, as in what follows."""
    return getattr(node, "operation", None) or node.layer


def _expect_next(model: KerasLayer, node: Node, owner: KerasLayer, before: Node) -> None:
    """UnsupportedError for a node that takes anything but what the one before it puts out."""
    fed = _fed(node)
    if len(fed) != 1 or id(fed[0]) not in map(id, _outputs_of(before)):
        raise UnsupportedError(
            f"model {model.name}: {owner.name} ({type(owner).__name__}) takes {len(fed)} inputs or not the one "
            "before it, a branch; expected layers one after another"
        )


def _expect_inference(model: KerasLayer, node: Node, owner: KerasLayer) -> None:
    """UnsupportedError for a layer that computes as in training whenever the model is called."""
    given = node.arguments.kwargs if hasattr(node, "arguments") else node.call_kwargs
    if given.get("training") is True:
        raise UnsupportedError(
            f"model {model.name}: {owner.name} ({type(owner).__name__}) is called with training=True; "
            "expected layers as in inference"
        )


def _outputs_of(node: Node) -> list[Tensor]:
    made = node.output_tensors if hasattr(node, "output_tensors") else node.outputs
    return list(made) if isinstance(made, tuple | list) else [made]


# --- within a layer ---


def leaves(layer: KerasLayer) -> Iterator[KerasLayer]:
    """The layers within it that wrap none, itself where it wraps none."""
    if is_model(layer):
        inner: Sequence[KerasLayer] = chain(layer)
    elif type(layer).__name__ in registry.within:
        inner = registry.within[type(layer).__name__](layer)
    else:
        yield layer
        return
    for part in inner:
        yield from leaves(part)


def is_cell(layer: KerasLayer) -> bool:
    return type(layer).__name__ in registry.cell


def cells_in(layer: KerasLayer) -> Iterator[KerasLayer]:
    """The cells that are looped in a layer, from the input up; a bare cell is its own."""
    for leaf in leaves(layer):
        if is_cell(leaf):
            yield leaf
        elif hasattr(leaf, "cell"):
            yield from leaf.cell.cells if type(leaf.cell).__name__ == "StackedRNNCells" else [leaf.cell]


def state_variables(layer: KerasLayer) -> list[Any]:
    """The variables in which a stateful layer or model keeps its state, in the order of its states."""
    stateful = [leaf for leaf in leaves(layer) if getattr(leaf, "stateful", False)]
    return flat_states([leaf.states for leaf in stateful])


def takes_tokens(layer: KerasLayer) -> bool:
    """Whether it begins with an embedding."""
    return type(layer).__name__ == "Embedding" or (is_model(layer) and takes_tokens(chain(layer)[0]))


def fixed_batch(layer: KerasLayer) -> int | None:
    """The batch that a stateful layer, or one in a model, was built for."""
    shapes = [tuple(variable.shape) for variable in state_variables(layer)]
    return int(shapes[0][0]) if shapes and len(shapes[0]) > 1 else None


def static_input_shape(model: KerasLayer) -> tuple[int | None, int | None]:
    """(batch, timesteps) that a model or layer was built for, None where either is open."""
    try:
        shape = getattr(model, "input_shape", None)
    except (AttributeError, ValueError):  # Keras's own, of a layer that was called on several inputs, or on none
        return None, None
    if not isinstance(shape, tuple) or len(shape) < 2:
        return None, None
    batch, timesteps = shape[:2]
    # of a model with several inputs these are shapes themselves
    whole = all(n is None or isinstance(n, int) for n in (batch, timesteps))
    return (batch, timesteps) if whole else (None, None)
