"""Activation ranges of least squared error: some values are clipped, the others get finer codes.

The range [l, h] of each tensor that minimises, over its values x in the calibration images,

    E[(f(x) - f(clip(x, l, h)))^2] + D^2 / 12 * E[f'(x)^2; l <= x <= h],   D = (h - l) / 255,

where f is the hard swish if nothing else reads the tensor, and f(x) = x otherwise

(R. Banner et al. 2019, Post Training 4-Bit Quantization of Convolutional Networks for
Rapid-Deployment, https://arxiv.org/abs/1810.05723, section 3, with the measured values instead of a
distribution and the error behind the hard swish, which hides some of it). Zeros are left out: they
have an exact code.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import ranges, readers

PRESERVES = True
"""It keeps the float function, which does not include ranges."""

_CODES = 255
_CANDIDATES = 64


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with narrower ranges; `images` are [N, H, W, 3] float32."""
    histograms = ranges.histograms_of(quantized_graph, images)
    new_ranges = {name: best(histogram) for name, histogram in histograms.items()}
    return dataclasses.replace(
        quantized_graph, ranges={**quantized_graph.ranges, **new_ranges}, integers=None
    )


def best(histogram: ranges.Histogram) -> ranges.Range:
    """The range of least error, which includes 0."""
    counts, edges = histogram.counts, histogram.edges
    if not counts.sum():
        return float(edges[0]), float(edges[-1])
    share = counts / counts.sum()
    middle = (edges[1:] + edges[:-1]) / 2
    told, width = histogram.reader, edges[1:] - edges[:-1]
    # f'(x)^2 of the values, by how far f of a bin's ends lies apart.
    steep = (
        share
        if told is readers.identity
        else share * ((told(edges[1:]) - told(edges[:-1])) / width) ** 2
    )
    lows = np.unique(np.linspace(min(edges[0], 0.0), 0.0, _CANDIDATES))
    highs = np.unique(np.linspace(0.0, max(edges[-1], 0.0), _CANDIDATES))
    cut_low = [np.where(middle < low, told(low) - told(middle), 0) for low in lows]
    cut_high = [np.where(middle > high, told(middle) - told(high), 0) for high in highs]
    below = np.array([(cut**2 * share).sum() for cut in cut_low])
    above = np.array([(cut**2 * share).sum() for cut in cut_high])
    under = np.array([steep[middle < low].sum() for low in lows])
    over = np.array([steep[middle > high].sum() for high in highs])
    step = (highs[None] - lows[:, None]) / _CODES
    within = steep.sum() - under[:, None] - over[None]
    error = below[:, None] + above[None] + step**2 / 12 * within
    # An empty range has no codes.
    error[step <= 0] = np.inf
    low, high = np.unravel_index(np.argmin(error), error.shape)
    return float(lows[low]), float(highs[high])
