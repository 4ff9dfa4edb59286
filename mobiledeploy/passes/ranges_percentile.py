"""Activation ranges without the rarest values: one in ten thousand is clipped on either side.

S. Migacz 2017, 8-bit Inference with TensorRT, and H. Wu et al. 2020, Integer Quantization for Deep
Learning Inference, https://arxiv.org/abs/2004.09602, section 3.3 (percentile 99.99).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import ranges

PRESERVES = True
"""It keeps the float function, which does not include ranges."""

_RARE = 1e-4


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with narrower ranges; `images` are [N, H, W, 3] float32."""
    histograms = ranges.histograms_of(quantized_graph, images)
    new_ranges = {name: common(histogram) for name, histogram in histograms.items()}
    return dataclasses.replace(
        quantized_graph, ranges={**quantized_graph.ranges, **new_ranges}, integers=None
    )


def common(histogram: ranges.Histogram) -> ranges.Range:
    """The range of all but the rarest values, which includes 0."""
    counts, edges = histogram.counts, histogram.edges
    if not counts.sum():
        return float(edges[0]), float(edges[-1])
    upto = np.cumsum(counts) / counts.sum()
    low = edges[np.searchsorted(upto, _RARE, side="right")]
    high = edges[np.searchsorted(upto, 1 - _RARE, side="left") + 1]
    return min(float(low), 0.0), max(float(high), 0.0)
