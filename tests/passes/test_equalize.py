"""Equalization: which tensors are scaled, by how much, and the gain."""

from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import execution, quantized, ranges
from mobiledeploy.graphs.execution import run
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import equalize
from tests.passes.conftest import INT8, floats, images, quantized_graph, sqnr


def maker_names(graph, space):
    return sorted(layer.kind for layer in space.makers)


def test_a_residual_sum_is_one_space_and_a_concatenation_none():
    graph = Graph(floats("relu"))
    spaces = equalize.spaces(graph)
    (sums,) = [s for s in spaces if len(s.makers) == 2]
    assert [layer.kind for layer in sums.readers] == ["CONV_2D", "CONV_2D"]
    graph = Graph(floats("various"))
    assert "CONCATENATION" in [graph.kind(op) for op in graph.ops]
    various = equalize.spaces(graph)
    assert all(len(space.makers) == 1 for space in various)
    # Only the stem: all others reach the concatenation, are read by it, or are the scores.
    assert len(various) == 1


def uneven(name: str, least: float) -> bytes:
    """The float TFLite with every second channel of each space scaled down; the same function."""
    graph = Graph(floats(name))
    for space in equalize.spaces(graph):
        channels = space.makers[0].outputs
        factor = np.where(np.arange(channels) % 2, least, 1.0)
        for maker in space.makers:
            equalize._scale_outputs(maker, factor)
        for reader in space.readers:
            equalize._scale_inputs(reader, 1 / factor)
    return graph.pack()


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_channels_of_thousandfold_ranges_regain_their_codes(name):
    hard = uneven(name, 1e-3)
    reference = execution.logits(hard, images())
    # ReLU6 no longer clips: the function changes, except for the network with ReLU.
    if name == "relu":
        np.testing.assert_allclose(
            reference, execution.logits(floats(name), images()), rtol=1e-3, atol=1e-3
        )
    start = quantized.start(hard, INT8, "int8", images())
    before, after = (
        sqnr(reference, execution.logits(quantized.integers(d), images()))
        for d in (start, equalize.apply(start, images()))
    )
    assert before < 15
    assert after > before + 10


def test_a_channel_at_the_clip_stays_and_none_is_scaled_beyond_it():
    graph = Graph(floats("relu6"))
    before = quantized_graph("relu6")
    after = equalize.apply(before, images())
    np.testing.assert_allclose(run(after.floats, images()), run(before.floats, images()), atol=1e-5)
    assert equalize.spaces(graph)
    for name, (_, high) in after.ranges.items():
        assert high <= before.ranges[name][1] * (1 + 1e-5)


@pytest.mark.parametrize("name", ["relu6", "relu"])
def test_ranges_are_those_of_the_scaled_network(name):
    before = quantized_graph(name)
    after = equalize.apply(before, images())
    # No channel leaves its tensor's range, so the ranges may well be the same.
    assert after.floats != before.floats
    measured = ranges.measure(after.floats, images())
    assert after.ranges.keys() == measured.keys()
    for tensor, extent in measured.items():
        np.testing.assert_allclose(after.ranges[tensor], extent, rtol=1e-4, atol=1e-5)


def test_earlier_integers_are_dropped():
    start = quantized_graph("relu")
    earlier = QuantizedGraph(INT8, "int8", start.floats, start.ranges, quantized.integers(start))
    assert equalize.apply(earlier, images()).integers is None
