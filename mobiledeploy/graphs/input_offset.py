"""Moves the zero of an image input into the layers that read it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.graphs import matrices
from mobiledeploy.graphs.graph import Graph

_HEIGHT, _WIDTH = 1, 2


def moved(
    floats: bytes,
    place: int,
    factors: NDArray[np.float64],
    offsets: NDArray[np.float64],
    *,
    may_pad: bool,
) -> bytes | None:
    """The float TFLite that takes y at an input where it took ``x = factors * y + offsets``.

    The weights of the first convolutions are multiplied by `factors`, [C], and their biases get
    ``sum(W * offsets)``, [C]. This is exact but at a border that is padded: a pad is 0, which is
    another value of y than of x.

    Args:
        floats: the float file.
        place: the number of the input, [1, H, W, C].
        factors: of each channel, above 0.
        offsets: of each channel, in units of x.
        may_pad: whether that difference at the border is accepted.

    Returns:
        None if another operator than CONV_2D reads the input (PAD may stand between them), or a
        layer pads and `may_pad` is false.
    """
    graph = Graph(floats)
    index = graph.inputs[place]
    convolutions, pads = _first_layers(graph, index, factors.size)
    if not convolutions or (pads and not may_pad):
        return None
    for op in convolutions:
        weights = graph.constant_values(int(op.inputs[1])).astype(np.float64)
        change = np.einsum("ohwc,c->o", weights, offsets)
        if (factors != 1).any():
            graph.replace_constant(op, 1, weights * factors)
        if len(op.inputs) > 2 and int(op.inputs[2]) >= 0:
            graph.replace_constant(op, 2, graph.constant_values(int(op.inputs[2])) + change)
        else:
            name = f"{graph.name(int(op.outputs[0]))}/input_offset"
            bias = graph.add_constant(name, change.astype(np.float32))
            op.inputs = [*map(int, op.inputs[:2]), bias]
    return graph.pack()


def _first_layers(graph: Graph, index: int, channels: int) -> tuple[list[Any], bool]:
    """The convolutions that read the tensor, and whether one of them sees a pad.

    No convolution if anything else reads it.
    """
    convolutions: list[Any] = []
    pads = False
    pending = [(index, False)]
    while pending:
        source, is_padded = pending.pop()
        readers = [op for op in graph.ops if source in map(int, op.inputs)]
        if source in graph.outputs or not readers:
            return [], False
        for op in readers:
            kind = graph.kind(op)
            if kind == "PAD" and int(op.inputs[0]) == source:
                margins = graph.constant(int(op.inputs[1]))
                if margins is None or margins[[0, -1]].any():
                    return [], False
                pending.append((int(op.outputs[0]), is_padded or bool(margins.any())))
            elif kind == "CONV_2D" and _is_plain(graph, op, source, channels):
                convolutions.append(op)
                pads = pads or is_padded or _pads(graph, op)
            else:
                return [], False
    return convolutions, pads


def _is_plain(graph: Graph, op: Any, source: int, channels: int) -> bool:
    """Whether a convolution reads all channels of `source`, with constant float32 weights."""
    weights = graph.constant(int(op.inputs[1]))
    has_bias = len(op.inputs) > 2 and int(op.inputs[2]) >= 0
    return (
        int(op.inputs[0]) == source
        and weights is not None
        and weights.dtype == np.float32
        and weights.shape[-1] == channels
        and (not has_bias or graph.constant(int(op.inputs[2])) is not None)
    )


def _pads(graph: Graph, op: Any) -> bool:
    """Whether a convolution reads outside its input."""
    options = op.builtinOptions
    shape, kernel = graph.shape(int(op.inputs[0])), graph.shape(int(op.inputs[1]))
    if not matrices.pads(op, kernel[_HEIGHT : _WIDTH + 1]):
        return False
    for axis, stride, dilation in (
        (_HEIGHT, options.strideH, options.dilationHFactor),
        (_WIDTH, options.strideW, options.dilationWFactor),
    ):
        reach = (kernel[axis] - 1) * dilation + 1
        if (-(-shape[axis] // stride) - 1) * stride + reach > shape[axis]:
            return True
    return False
