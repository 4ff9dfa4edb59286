from mobiledeploy.graphs import quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import global_pool
from tests.passes.conftest import images, quantized_graph


def kinds(content):
    graph = Graph(content)
    return [graph.kind(op) for op in graph.ops]


def test_a_pool_over_all_becomes_a_mean_with_a_scale_of_its_own():
    before = quantized_graph("relu6")
    assert "AVERAGE_POOL_2D" in kinds(before.floats)
    after = global_pool.apply(before, images())
    assert "AVERAGE_POOL_2D" not in kinds(after.floats)
    graph = Graph(quantized.integers(after))
    (mean,) = [op for op in graph.ops if graph.kind(op) == "MEAN"]
    read, made = graph.scale(int(mean.inputs[0]))[0], graph.scale(int(mean.outputs[0]))[0]
    assert made[0] < read[0]


def test_a_network_without_one_is_left_alone():
    before = quantized_graph("various")
    assert global_pool.apply(before, images()) is before
