"""Replaces a pool over the whole image by a mean, whose output has its own scale.

The output of TFLite's int8 AVERAGE_POOL_2D has the scale of its input. The average of a whole image
covers a fraction of that range and gets a fraction of the codes. MEAN computes the same and has an
output scale of its own (LiteRT 8-bit quantization specification,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs.graph import Graph

PRESERVES = True


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with such pools replaced; it has no integers if there was one."""
    graph = Graph(quantized_graph.floats)
    pools = [
        op
        for op in graph.ops
        if graph.kind(op) == "AVERAGE_POOL_2D"
        and graph.activation(op) == "NONE"
        and graph.shape(int(op.outputs[0]))[1:3] == (1, 1)
        and graph.shape(int(op.inputs[0]))[1:3]
        == (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
    ]
    if not pools:
        return quantized_graph
    axes = graph.add_constant("axes", np.array([1, 2], np.int32))
    for op in pools:
        graph.become_mean(op, axes)
    return dataclasses.replace(quantized_graph, floats=graph.pack(), integers=None)
