"""Makes channels of nearly zero variance constant, after their BatchNorm was folded.

Folding multiplies the weights of channel c by alpha_c = gamma_c / sqrt(variance_c + epsilon) (B.
Jacob et al. 2017, https://arxiv.org/abs/1712.05877, equation 14). A channel that is the same for
every image has a variance near zero, and alpha_c grows to gamma_c / sqrt(epsilon): weights without
any effect become the largest of the layer. With one scale for all weights they leave no codes for
the others (T. Sheng et al. 2018, A Quantization-Friendly Separable Convolution for MobileNets,
https://arxiv.org/abs/1803.08607, who show that channels of zero variance cause MobileNet v1's
loss). With a scale for each channel, the scale of the bias (that of the weights times that of the
input) becomes so coarse that the bias, the whole output of such a channel, is rounded away.

So if a channel c of a layer with bias has

    max |W_c| >= LARGE * median over all channels of max |W|

and over the calibration images its values h - l <= (H - L) / 255 / 2, half a step of the codes,
it becomes

    W_c = 0,   b_c = (h + l) / 2.

Layers of clustered weights are skipped: their clusters may not include zero.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import matrices, ranges
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.graphs.matrices import WeightedOp

PRESERVES = False
"""The function changes by at most half a step of the codes on the calibration images."""

LARGE = 8.0
"""Weights that large take three bits from all others if they share a scale."""
_CODES = 255


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with such channels made constant; the same graph if there are none."""
    graph = Graph(quantized_graph.floats)
    suspects = {
        layer: large for layer in matrices.weighted_ops(graph) if (large := _large(layer)).any()
    }
    if not suspects:
        return quantized_graph
    channels = ranges.channels_of(quantized_graph, images)
    has_changed = False
    for layer, large in suspects.items():
        stats, (low, high) = channels[layer.name], quantized_graph.ranges[layer.name]
        quiet = large & (stats.high - stats.low <= (high - low) / _CODES / 2)
        if not quiet.any():
            continue
        has_changed = True
        weights = layer.blocks(layer.graph.constant_values(layer.weights))
        weights[layer.blocked(quiet) > 0] = 0
        layer.put_weights(weights)
        bias = np.asarray(layer.graph.constant_values(layer.bias), np.float64)
        graph.replace_constant(layer.op, 2, np.where(quiet, (stats.high + stats.low) / 2, bias))
    if not has_changed:
        return quantized_graph
    changed = dataclasses.replace(quantized_graph, floats=graph.pack(), integers=None)
    return dataclasses.replace(changed, ranges=ranges.extents(ranges.channels_of(changed, images)))


def _large(layer: WeightedOp) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which channels [channels] have much larger weights than the others."""
    none = np.zeros(layer.outputs, bool)
    if layer.graph.constant(layer.bias) is None or layer.is_clustered:
        return none
    if layer.graph.dtype(layer.weights) != np.float32:
        return none
    most = np.abs(layer.blocks(layer.graph.constant_values(layer.weights))).max(axis=2).reshape(-1)
    usual = float(np.median(most))
    return most >= LARGE * usual if usual > 0 else none
