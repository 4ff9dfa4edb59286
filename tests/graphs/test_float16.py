"""Constants in half precision and back."""

from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.formats import tflite as shelf
from mobiledeploy.graphs import execution, float16
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.graphs.matrices import weighted_ops
from tests.passes.conftest import NETWORKS, floats, images
from tests.variants import slow_but


def constants(graph: Graph, dtype: type) -> list[int]:
    inputs = sorted({int(i) for op in graph.ops for i in op.inputs if i >= 0})
    return [i for i in inputs if graph.constant(i) is not None and graph.dtype(i) == dtype]


@pytest.mark.parametrize("name", slow_but(NETWORKS, "relu6"))
def test_each_constant_has_one_cast(name):
    before, after = Graph(floats(name)), Graph(float16.halve(floats(name)))
    casts = [op for op in after.ops if after.kind(op) == "DEQUANTIZE"]
    assert len(casts) == len(constants(before, np.float32))
    assert constants(after, np.float32) == []
    sizes = [
        sum(graph.constant_values(i).nbytes for i in constants(graph, dtype))
        for graph, dtype in ((before, np.float32), (after, np.float16))
    ]
    assert sizes[0] == 2 * sizes[1] > 1000


@pytest.mark.parametrize("name", slow_but(NETWORKS, "relu6", "various"))
def test_halves_answer_nearly_as_floats_and_run_in_one_part(name):
    content = float16.halve(floats(name))
    expected, answers = (execution.run(file, images(4)) for file in (floats(name), content))
    np.testing.assert_allclose(answers, expected, atol=2e-3 * np.abs(expected).max())
    operators = [op["op_name"] for op in execution.interpreter(content)._get_ops_details()]
    assert operators.count("DELEGATE") == 1


def test_values_that_float16_cannot_hold_stay_float32():
    graph = Graph(floats("relu"))
    layer = weighted_ops(graph)[0]
    values = graph.constant_values(layer.bias).copy()
    values[0] = 1e6
    graph.replace_constant(layer.op, 2, values)
    halves = Graph(float16.halve(graph.pack()))
    (large,) = constants(halves, np.float32)
    np.testing.assert_array_equal(halves.constant_values(large), values)


def test_a_widened_file_has_the_values_of_the_halves():
    half = float16.halve(floats("various"))
    graph = Graph(half)
    float16.widen(graph)
    wide = graph.pack()
    assert [Graph(wide).kind(op) for op in Graph(wide).ops] == [
        Graph(floats("various")).kind(op) for op in Graph(floats("various")).ops
    ]
    expected, answers = (execution.run(file, images(4)) for file in (half, wide))
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_the_permission_to_compute_in_half_is_metadata_that_editing_keeps():
    plain, asked = float16.halve(floats("relu6")), float16.halve(floats("relu6"), arithmetic=True)
    entries = [
        (entry.name, bytes(graph.model.buffers[entry.buffer].data))
        for graph in (Graph(plain), Graph(Graph(asked).pack()))
        for entry in graph.model.metadata or ()
        if entry.name == float16.REDUCED_PRECISION[0]
    ]
    assert entries == [float16.REDUCED_PRECISION]
    np.testing.assert_array_equal(
        *(execution.run(file, images(4)) for file in (plain, shelf.seal(plain, ["a"], ["b"])))
    )
    sealed = Graph(shelf.seal(asked, ["image"], ["scores"]))
    assert [entry.name for entry in sealed.model.metadata] == [
        entry.name for entry in Graph(asked).model.metadata
    ]


def test_the_constants_that_float16_cannot_hold_are_named():
    graph = Graph(floats("relu"))
    layer = weighted_ops(graph)[0]
    assert float16.large_constants(floats("relu")) == ()
    values = graph.constant_values(layer.bias).copy()
    values[0] = -1e6
    graph.replace_constant(layer.op, 2, values)
    assert float16.large_constants(graph.pack()) == (graph.name(int(layer.op.inputs[2])),)
