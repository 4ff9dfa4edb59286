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
    input_scale, output_scale = (
        graph.scale(int(mean.inputs[0]))[0],
        graph.scale(int(mean.outputs[0]))[0],
    )
    assert output_scale[0] < input_scale[0]


def test_a_network_without_one_is_not_changed():
    before = quantized_graph("various")
    assert global_pool.apply(before, images()) is before
