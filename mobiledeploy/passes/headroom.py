"""Ranges of pooled values and of logits made wider than calibration pictures have shown them.

A convolution's output has thousands of values a picture, and a hundred pictures show its extremes.
Of what has one value a channel, a hundred pictures show a hundred: fresh ones go beyond, and what
they lose by being clipped is more than what somewhat coarser codes cost all others.
"""

from __future__ import annotations

import dataclasses

from mobiledeploy.core.ports import Images, Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs.graph import Graph

PRESERVES = True

FACTOR = 1.25
"""Chosen on the person detector of MLPerf Tiny, by fresh pictures."""


def apply(draft: QuantizedGraph, images: Images, progress: Progress = quiet) -> QuantizedGraph:
    """The draft with those ranges widened, and without integers."""
    graph = Graph(draft.floats)
    wider = dict(draft.ranges)
    for op in graph.ops:
        for index in map(int, op.outputs):
            name, sides = graph.name(index), graph.shape(index)[1:-1]
            if name in wider and all(side == 1 for side in sides):
                low, high = draft.ranges[name]
                wider[name] = (FACTOR * low, FACTOR * high)
    return dataclasses.replace(draft, ranges=wider, integers=None)
