"""The first convolution of a finished int8 TFLite over two columns of the image as one pixel.

[1, H, W, C] in memory is [1, H, W / 2, 2 C] too. A convolution with a horizontal stride of 2 is one
with a stride of 1 over that: its filters hold their columns in pairs, with zeros where a pair has
one more column than the filter. Zero codes add nothing, so each sum is the same integer.

Kernels of a matrix product copy the pixels under each window, a pixel at a time. Here there are
fewer and longer ones, and a few products more: whether it pays depends on the core.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mobiledeploy.graphs import matrices
from mobiledeploy.graphs.graph import Graph

_SIDES = 4
"""Of an image: batch, height, width, channels."""


def paired(content: bytes) -> bytes | None:
    """The file whose convolutions read the image so; None if none of them can."""
    graph = Graph(content)
    images = {*graph.inputs}
    images |= {
        int(op.outputs[0])
        for op in graph.ops
        if graph.kind(op) == "QUANTIZE" and int(op.inputs[0]) in images
    }
    views: dict[int, tuple[Any, int]] = {}
    for op in graph.ops:
        source = int(op.inputs[0]) if len(op.inputs) else -1
        weights = _paired_weights(graph, op) if source in images else None
        if weights is None:
            continue
        if source not in views:
            batch, height, width, channels = graph.shape(source)
            shape = (batch, height, width // 2, 2 * channels)
            views[source] = graph.add_reshape(source, shape, f"{graph.name(source)}/pairs")
        graph.replace_constant(op, 1, weights)
        graph.set_shape(int(op.inputs[1]), weights.shape)
        op.inputs = [views[source][1], *map(int, op.inputs[1:])]
        op.builtinOptions.strideW = 1
    if not views:
        return None
    # Each view stands before the first operator that reads it.
    operators = graph.ops
    for reshape, view in views.values():
        place = next(n for n, op in enumerate(operators) if view in map(int, op.inputs))
        operators.insert(place, reshape)
    graph.subgraph.operators = operators
    return graph.pack()


def _paired_weights(graph: Graph, op: Any) -> np.ndarray[Any, np.dtype[np.int8]] | None:
    """The filters [O, H, pairs, 2 C] of a convolution over an image; None if it has none."""
    if graph.kind(op) != "CONV_2D":
        return None
    source, options = int(op.inputs[0]), op.builtinOptions
    weights, sides = graph.constant(int(op.inputs[1])), graph.shape(source)
    types = (graph.type_name(source), graph.type_name(int(op.inputs[1])))
    if weights is None or types != ("int8", "int8"):
        return None
    filters, height, width, channels = weights.shape
    plain = (options.strideW, options.dilationWFactor, sides[-1]) == (2, 1, channels)
    if (
        len(sides) != _SIDES
        or not plain
        or sides[2] % 2
        or any(graph.zero_points(int(op.inputs[1])))
    ):
        return None
    before, pairs_before = 0, 0
    pairs = -(-width // 2)
    if matrices.pads(op, (1, width)):
        # TensorFlow's SAME: half of the missing columns, rounded down, come first.
        before = max(width - 2, 0) // 2
        pairs = -(-(before % 2 + width) // 2)
        pairs_before = (pairs - 1) // 2
    if pairs_before != -(-before // 2):
        return None
    columns = np.zeros((filters, height, 2 * pairs, channels), np.int8)
    first = before % 2
    columns[:, :, first : first + width] = weights
    return columns.reshape(filters, height, pairs, 2 * channels)
