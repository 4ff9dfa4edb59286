"""Leaves outputs in float whose values are of several units, with the operators that join them.

An int8 tensor has one scale. Where an output holds boxes of 0 to 640 pixels beside scores of 0 to
1, or an age beside a share, the codes of the larger values are as wide as all of the smaller ones:
a score has one code or two. So an output with a channel that fewer than `FEW` of its 256 codes
would cover stays float. The operators before it that only rearrange and scale (concatenations,
sigmoids, products) stay float, too, back to the layers with weights. These keep their integers, and
each its own scale. A layer whose own channels differ as much stays float as a whole: a tensor of
activations has no scale for each channel (LiteRT 8-bit quantization specification,
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).

The graph says whether its outputs may change their type (`may_float`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Array, Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import ranges
from mobiledeploy.graphs.execution import Walk
from mobiledeploy.graphs.graph import Graph

PRESERVES = True

FEW = 16
"""Codes of 256: four bits of eight are lost."""
_NOTHING = 1e-6
"""A channel that varies by less than this share of the output says nothing."""
_CODES = 256
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
    unlike = [
        int(index)
        for index, values in zip(graph.outputs, outputs, strict=True)
        if has_unlike_channels(values)
    ]
    if not unlike:
        return quantized_graph
    channels = ranges.channels(quantized_graph.floats, images)
    makers = {int(i): op for op in graph.ops for i in op.outputs}
    names: dict[str, None] = {}
    left = unlike
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
            if _unlike(own.low, own.high):
                names[name] = None
    if not names:
        return quantized_graph
    kept = tuple(dict.fromkeys((*quantized_graph.kept, *names)))
    return dataclasses.replace(quantized_graph, kept=kept, integers=None)


def has_unlike_channels(values: Array) -> bool:
    """Whether the channels of an output [N, ...] are of units that one scale cannot hold.

    Channels are the last axis, or of two axes the shorter one: detectors give [N, 8400, 85] or [N,
    85, 8400].
    """
    axis = values.ndim - 1
    if values.ndim == 3 and values.shape[1] < values.shape[2]:
        axis = 1
    others = tuple(side for side in range(values.ndim) if side != axis)
    if values.ndim < 2 or not values.size:
        return False
    return _unlike(values.min(axis=others), values.max(axis=others))


def _unlike(low: Array, high: Array) -> bool:
    # The codes cover zero in any case.
    extent = max(float(high.max()), 0.0) - min(float(low.min()), 0.0)
    if not extent:
        return False
    shares = (high - low) / extent
    return bool(np.any((shares > _NOTHING) & (shares * _CODES < FEW)))
