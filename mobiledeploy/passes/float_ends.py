"""Leaves outputs in float whose values are of several units, with the operators that join them.

An int8 tensor has one scale. Where an output holds boxes of 0 to 640 pixels beside scores of 0 to
1, or an age beside a share, the codes of the larger values are as wide as all of the smaller ones:
a score has one code or two. So an output with a channel that fewer than 16 of its 256 codes would
cover stays float. The operators before it that only rearrange and scale (concatenations,
sigmoids, products) stay float, too, back to the layers with weights. These keep their integers, and
each its own scale. A layer whose own channels differ as much stays float as a whole: a tensor of
activations has no scale for each channel (LiteRT 8-bit quantization specification,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).

The graph says whether its outputs may change their type (`may_float`).
"""

from __future__ import annotations

import dataclasses

from mobiledeploy.analysis.quantization import has_unlike_channels, unlike
from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import ranges
from mobiledeploy.graphs.execution import Walk
from mobiledeploy.graphs.graph import Graph

PRESERVES = True

_LAYERS = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"))
_JOINS = frozenset(
    (
        "ADD",
        "CONCATENATION",
        "DIV",
        "EXP",
        "EXPAND_DIMS",
        "LOGISTIC",
        "MAXIMUM",
        "MINIMUM",
        "MUL",
        "NEG",
        "PACK",
        "POW",
        "RELU",
        "RELU6",
        "RESHAPE",
        "SLICE",
        "SOFTMAX",
        "SPLIT",
        "SQRT",
        "SQUARE",
        "SQUEEZE",
        "STRIDED_SLICE",
        "SUB",
        "TANH",
        "TRANSPOSE",
    )
)


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with such outputs kept float; the same graph if there are none."""
    if not quantized_graph.may_float:
        return quantized_graph
    graph = Graph(quantized_graph.floats)
    outputs = Walk(graph, images).ends()
    left = [
        int(index)
        for index, values in zip(graph.outputs, outputs, strict=True)
        if has_unlike_channels(values)
    ]
    if not left:
        return quantized_graph
    channels = ranges.channels_of(quantized_graph, images)
    makers = {int(i): op for op in graph.ops for i in op.outputs}
    names: dict[str, None] = {}
    while left:
        index = left.pop()
        op, name = makers.get(index), graph.name(index)
        if op is None or name in names:
            continue
        kind = graph.kind(op)
        if kind in _JOINS:
            names |= dict.fromkeys(graph.name(int(i)) for i in op.outputs)
            left += [int(i) for i in op.inputs if i >= 0]
        elif kind in _LAYERS and name in channels:
            own = channels[name]
            if unlike(own.low, own.high):
                names[name] = None
    if not names:
        return quantized_graph
    kept = tuple(dict.fromkeys((*quantized_graph.kept, *names)))
    return dataclasses.replace(quantized_graph, kept=kept, integers=None)
