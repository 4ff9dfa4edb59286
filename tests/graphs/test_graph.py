"""TFLite files as objects: they are changed, divided into parts, and run step by step."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core.errors import InputError
from mobiledeploy.graphs import graph as graph_room
from mobiledeploy.graphs import matrices, quantized
from mobiledeploy.graphs.execution import Walk, interpreter, run
from mobiledeploy.graphs.graph import Graph
from tests.lite import Lite
from tests.passes.conftest import NETWORKS, floats, images, quantized_graph


def by_interpreter(content, images):
    engine = tf.lite.Interpreter(model_content=content)
    engine.allocate_tensors()
    (source,), (target,) = engine.get_input_details(), engine.get_output_details()
    rows = []
    for image in images:
        engine.set_tensor(source["index"], image[None])
        engine.invoke()
        rows.append(engine.get_tensor(target["index"])[0])
    return np.array(rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_walk_ends_where_an_inference_does(name):
    np.testing.assert_allclose(
        run(floats(name), images(4)), by_interpreter(floats(name), images(4)), atol=1e-6
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_each_step_of_a_walk_has_what_the_whole_model_computes(name):
    graph = Graph(floats(name))
    engine = interpreter(floats(name), every_tensor=True)
    engine.set_tensor(int(graph.inputs[0]), images(2)[:1])
    engine.invoke()
    walk = Walk(graph, images(2))
    for number, op in enumerate(graph.ops):
        walk.before(number)
        inputs = [int(i) for i in op.inputs if i >= 0 and graph.constant(int(i)) is None]
        for index in inputs:
            expected = engine.get_tensor(index)[0]
            np.testing.assert_allclose(walk.value(index)[0], expected, atol=1e-4)


def test_integers_are_read_as_real_values():
    content = quantized.integers(quantized_graph("relu6"))
    exact = run(floats("relu6"), images(4))
    np.testing.assert_allclose(run(content, images(4)), exact, atol=0.1)


def test_a_replaced_constant_is_in_the_file():
    graph = Graph(floats("relu"))
    layer = matrices.weighted_ops(graph)[0]
    other = 2 * graph.constant_values(layer.weights)
    graph.replace_constant(layer.op, 1, other)
    again = Graph(graph.pack())
    layer = matrices.weighted_ops(again)[0]
    np.testing.assert_array_equal(again.constant_values(layer.weights), other)
    assert again.constant(layer.source) is None
    assert again.constant(-1) is None


def test_a_changed_constant_stays_the_same_for_other_readers():
    graph = Graph(floats("relu"))
    one, other = matrices.weighted_ops(graph)[:2]
    # The names of both normalisations start with the same word.
    assert one.bias == other.bias
    before = graph.constant_values(other.bias).copy()
    graph.replace_constant(one.op, 2, np.zeros(graph.shape(one.bias)))
    again = matrices.weighted_ops(Graph(graph.pack()))
    np.testing.assert_array_equal(again[1].graph.constant_values(again[1].bias), before)
    assert not again[0].graph.constant_values(again[0].bias).any()


def test_a_side_that_may_vary_still_may_after_a_change_of_shape():
    lite = Lite()
    graph = Graph(lite.file(lite.input((1, 8))))
    (index,) = graph.inputs
    graph.subgraph.tensors[index].shapeSignature = [-1, 8]
    graph.set_shape(index, (1, 4))
    again = Graph(graph.pack())
    assert again.shape(index) == (1, 4)
    assert list(again.subgraph.tensors[index].shapeSignature) == [-1, 4]


@pytest.mark.parametrize(
    ("padding", "window", "pads"), [(0, 3, True), (0, 1, False), (1, 3, False)]
)
def test_only_larger_windows_of_same_padding_see_zeros_around_an_image(padding, window, pads):
    op = SimpleNamespace(builtinOptions=SimpleNamespace(padding=padding))
    assert matrices.pads(op, (1, window)) == pads


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_as_matrices_answer_as_the_operators_do(name):
    """Strides, padding, dilation, groups and multipliers decide which inputs are gathered."""
    content = floats(name)
    graph, integers = Graph(content), Graph(quantized.integers(quantized_graph(name)))
    pairs = list(matrices.pairs(integers, graph))
    assert len(pairs) == len(matrices.weighted_ops(graph))
    real, coarse, ahead = Walk(graph, images(6)), Walk(integers, images(6)), Walk(graph, images(6))
    float_answers = matrices.float_answers(content, images(6))
    for ours, theirs in pairs:
        real.before(theirs.number)
        coarse.before(ours.number)
        ahead.before(theirs.number + 1)
        layer_sample = matrices.sample(ours, theirs, coarse, float_answers[theirs.name])
        outputs = ahead.value(int(theirs.op.outputs[0]))
        places = matrices._places(theirs, 6)
        image, position = places.T
        expected = outputs.reshape(6, -1, outputs.shape[-1])[image, position]
        groups = expected.reshape(len(places), theirs.groups, -1).transpose(1, 0, 2)
        answers = layer_sample.answers
        match graph.activation(theirs.op):
            case "RELU":
                answers = np.maximum(answers, 0)
            case "RELU6":
                answers = np.clip(answers, 0, 6)
        np.testing.assert_allclose(answers, groups, atol=1e-4 * (1 + np.abs(groups).max()))
        exact = matrices._patches(theirs, real.value(theirs.source), places, 0)
        scale, _ = integers.scale(ours.source)
        assert np.abs(layer_sample.inputs - exact).mean() < 10 * scale[0]


def test_fewer_images_give_more_places_each():
    graph = Graph(floats("various"))
    first = matrices.weighted_ops(graph)[0]
    positions = int(np.prod(graph.shape(int(first.op.outputs[0]))[:-1]))
    assert 48 < positions < 200
    for count, each in ((10, positions), (170, 48), (200, 40), (1000, 40)):
        places = matrices._places(first, count)
        assert len(places) == count * each
        assert (np.bincount(places[:, 0]) == each).all()


def test_constants_behind_the_flatbuffer_are_read_and_written(monkeypatch):
    content = floats("various")
    monkeypatch.setattr(graph_room, "_OUTSIDE", 1000)
    outside = Graph(content).pack()
    offsets = [b.offset for b in schema.ModelT.InitFromPackedBuf(outside, 0).buffers]
    assert max(offsets) > 16
    assert all(offset % 16 == 0 for offset in offsets if offset > 1)
    np.testing.assert_array_equal(run(outside, images(4)), run(content, images(4)))
    monkeypatch.undo()
    # The constants are loaded again, with the values of the file.
    inside = Graph(outside).pack()
    assert len(inside) == len(Graph(content).pack())
    np.testing.assert_array_equal(run(inside, images(4)), run(content, images(4)))


def test_a_file_that_lacks_constants_behind_it_is_refused(monkeypatch):
    monkeypatch.setattr(graph_room, "_OUTSIDE", 1000)
    outside = Graph(floats("various")).pack()
    with pytest.raises(InputError, match="lacks some of its constants"):
        Graph(outside[:-64])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["", "a", "a_2", "b"]), min_size=4, max_size=4))
def test_names_become_unique_and_unique_ones_stay(names):
    graph = Graph(floats("relu"))
    indices = [int(op.outputs[0]) for op in graph.ops[:4]]
    before = [graph.name(i) for i in range(len(graph.subgraph.tensors))]
    for index, name in zip(indices, names, strict=True):
        graph.set_name(index, name)
        before[index] = name
    graph.make_names_unique()
    after = [graph.name(i) for i in range(len(graph.subgraph.tensors))]
    assert "" not in after
    assert len(set(after)) == len(after)
    for old, new in zip(before, after, strict=True):
        if old and before.count(old) == 1:
            assert new == old or before.count(new) > 1 or new.startswith(old)


def control_flow():
    """A loop, whose condition and body are graphs of their own, and two outputs."""

    def answer(image):
        x = tf.nn.conv2d(image, np.full((3, 3, 3, 4), 0.1, np.float32), 2, "SAME")
        _, x = tf.while_loop(lambda n, _: n < 3, lambda n, y: (n + 1, y * 0.5 + 0.1), (0, x))
        return {"mean": tf.reduce_mean(x, [1, 2]), "most": tf.reduce_max(x, [1, 2])}

    spec = tf.TensorSpec((1, *images(1).shape[1:]), tf.float32, name="image")
    function = tf.function(answer).get_concrete_function(spec)
    return tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()


def test_a_graph_keeps_its_other_graphs_and_all_its_answers():
    content = control_flow()
    graph = Graph(content)
    assert len(graph.model.subgraphs) > 1
    assert len(graph.outputs) == 2
    rows = []
    for file in (content, graph.pack()):
        engine = interpreter(file)
        engine.set_tensor(graph.inputs[0], images(2)[:1])
        engine.invoke()
        rows.append([engine.get_tensor(index) for index in graph.outputs])
    for before, after in zip(*rows, strict=True):
        np.testing.assert_array_equal(before, after)
    walk = Walk(graph, images(2))
    walk.before(len(graph.ops))
    np.testing.assert_allclose(walk.value(graph.outputs[0])[:1], rows[0][0], atol=1e-6)
