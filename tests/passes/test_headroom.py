import numpy as np

from mobiledeploy.graphs import quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import headroom
from tests.lite import Lite
from tests.passes.conftest import INT8, images, quantized_graph


def test_only_pooled_values_and_logits_get_headroom():
    before = quantized_graph("relu")
    after = headroom.apply(before, images())
    graph = Graph(before.floats)
    kinds = {graph.name(int(op.outputs[0])): graph.kind(op) for op in graph.ops}
    wider = {name for name in before.ranges if after.ranges[name] != before.ranges[name]}
    assert {kinds[name] for name in wider} == {"AVERAGE_POOL_2D", "FULLY_CONNECTED", "SOFTMAX"}
    for name in wider:
        assert after.ranges[name][1] == headroom.FACTOR * before.ranges[name][1]


def test_no_headroom_beyond_what_readers_tell_apart():
    net = Lite()
    pooled = net.input((1, 4))
    double = net.op("ADD", [pooled, pooled], (1, 4), options="AddOptions")
    answer = net.op("HARD_SWISH", [double], (1, 4))
    samples = np.array([[-9, -1, 1, 4]], np.float32)
    before = quantized.start(net.file(answer), INT8, "int8", samples[:, None][:, 0])
    assert before.ranges["t1"] == (-3, 8)
    assert headroom.apply(before, samples).ranges["t1"] == (-3, headroom.FACTOR * 8)
