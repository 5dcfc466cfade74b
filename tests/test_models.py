"""Models and wrappers as graphs of layers: what they are made of, how they run, what is refused."""

import numpy as np
import pytest
from helpers import draw, weights

from rnn_scratch import Bidirectional, Dense, Model, Node, Sequential, SimpleRNN, TimeDistributed

BATCH, TIMESTEPS, INPUT_DIM, UNITS = 3, 6, 4, 7

# --- the layers that a layer is made of ---


def nested():
    Wx, Wh, b = weights(UNITS, INPUT_DIM)
    directions = Bidirectional(SimpleRNN(Wx, Wh, b, return_sequences=True), SimpleRNN(Wx, Wh, return_sequences=True))
    return Sequential([directions, TimeDistributed(Dense(np.ones((2, 2 * UNITS)), np.ones(2), name="head"))])


def test_a_walk_goes_through_every_layer_once_and_names_its_weights():
    model = nested()
    paths = ["", "bidirectional", "bidirectional.forward", "bidirectional.backward"]
    paths += ["time_distributed", "time_distributed.layer"]
    assert [path for path, _ in model.walk()] == paths
    named = [f"{path}.{name}" for path, layer in model.walk() for name in layer.own_weights]
    assert named == list(model.weights)
    assert named[-2:] == ["time_distributed.layer.W", "time_distributed.layer.b"]
    assert [layer.use_bias for layer in model.every(Dense)] == [True]
    assert [layer.cell.use_bias for layer in model.every(SimpleRNN)] == [True, False]


def test_mapped_hands_over_each_array_with_its_layer():
    model, seen = nested(), []

    def double(layer, name, array):
        seen.append((layer, name))
        return 2 * array

    twin = model.mapped(double)
    names = [(layer, name) for _, layer in model.walk() for name in (*layer.matrices, "b") if layer.own_weights]
    assert seen == names  # the bias that one half is without counts too
    assert all(np.array_equal(twin.weights[name], 2 * array) for name, array in model.weights.items())
    assert twin.weights.keys() == model.weights.keys()
    (dense,) = model.every(Dense)
    assert (dense.W == 1).all()


# --- models ---


def chain_of_two(**changed):
    Wx, Wh, b = weights(UNITS, INPUT_DIM)
    nodes = {
        "first": Node(SimpleRNN(Wx, Wh, b), ("x",)),
        "head": Node(Dense(draw(2, UNITS), np.ones(2)), ("first",)),
    }
    return Model({**nodes, **changed}, output_names=("head",), name="two")


def test_a_model_of_nodes_is_the_chain_of_its_layers():
    model, x = chain_of_two(), draw(BATCH, TIMESTEPS, INPUT_DIM)
    chain = Sequential([node.layer for node in model.nodes.values()])
    assert np.array_equal(model(x), chain(x))
    assert model.output_shapes(x.shape) == chain.output_shapes(x.shape) == ((BATCH, 2),)
    assert list(model.weights) == ["first.Wx", "first.Wh", "first.b", "head.W", "head.b"]
    assert [node.inputs for node in chain.nodes.values()] == [("x",), ("simple_rnn",)]
    assert (chain.input_names, chain.output_names) == (("x",), ("dense",))
    other = model.mapped(lambda layer, name, array: 2 * array)
    assert other.nodes["head"].layer is other.parts["head"]
    assert not np.allclose(other(x), chain(x))


def test_a_model_runs_node_by_node():
    model, x = chain_of_two(), draw(BATCH, TIMESTEPS, INPUT_DIM)
    states = model.initial_states(BATCH)
    (first, (h,), after), (head, (y,), none) = model.run({"x": x}, {}, states)
    assert (first, head, none) == ("first", "head", ())
    assert np.array_equal(after[0], h)
    assert np.array_equal(y, model(x))
    (_, (whole,), _), (_, (same,), _) = model.run({"x": x}, {}, states, whole=True)
    assert whole.shape == (BATCH, TIMESTEPS, UNITS)
    assert np.array_equal(whole[:, -1], h)
    assert np.array_equal(same, y)
    outputs = model.outputs(x, sequences=True)
    assert list(outputs) == ["first", "head"]
    assert np.array_equal(outputs["first"], whole)


@pytest.mark.parametrize(
    "inputs",
    [{"first": ("y",)}, {"head": ("x",)}, {"head": ("first", "x")}, {"head": ("first",), "beside": ("first",)}],
    ids=["another input", "past a layer", "two inputs", "a branch"],
)
def test_what_is_no_chain_is_refused(inputs):
    nodes = chain_of_two().nodes
    other = {name: Node(nodes.get(name, nodes["head"]).layer, fed) for name, fed in inputs.items()}
    with pytest.raises(ValueError, match="model: expected layers one after another"):
        chain_of_two(**other)
