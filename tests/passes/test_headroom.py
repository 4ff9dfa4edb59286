from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import headroom
from tests.passes.conftest import images, quantized_graph


def test_only_pooled_values_and_logits_get_headroom():
    before = quantized_graph("relu")
    after = headroom.apply(before, images())
    graph = Graph(before.floats)
    kinds = {graph.name(int(op.outputs[0])): graph.kind(op) for op in graph.ops}
    wider = {name for name in before.ranges if after.ranges[name] != before.ranges[name]}
    assert {kinds[name] for name in wider} == {"AVERAGE_POOL_2D", "FULLY_CONNECTED", "SOFTMAX"}
    for name in wider:
        assert after.ranges[name][1] == headroom.FACTOR * before.ranges[name][1]
