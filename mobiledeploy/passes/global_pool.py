"""A pool over the whole image as a mean, whose answer has codes of its own.

TFLite's int8 AVERAGE_POOL_2D gives its answer the scale of what it reads. The average of a whole
image lies in a fraction of that range, and has a fraction of the codes. MEAN, which computes the
same, has a scale of its own (LiteRT 8-bit quantization specification,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core.ports import Images, Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs.graph import Graph

PRESERVES = True


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with such pools replaced; without integers where there was one."""
    graph = Graph(quantized_graph.floats)
    found = [
        op
        for op in graph.ops
        if graph.kind(op) == "AVERAGE_POOL_2D"
        and graph.activation(op) == "NONE"
        and graph.shape(int(op.outputs[0]))[1:3] == (1, 1)
        and graph.shape(int(op.inputs[0]))[1:3]
        == (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth)
    ]
    if not found:
        return quantized_graph
    axes = graph.add_constant("axes", np.array([1, 2], np.int32))
    for op in found:
        graph.become_mean(op, axes)
    return dataclasses.replace(quantized_graph, floats=graph.packed(), integers=None)
