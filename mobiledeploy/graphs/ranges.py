"""The ranges of the values of a float TFLite's tensors on images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.batches import Images, batch
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import readers
from mobiledeploy.graphs.execution import interpreter, invoke
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.graphs.readers import Doubles

Range = readers.Range
_BINS = 2048
_ENOUGH = 20_000
"""The most values used of one tensor for one image."""


@dataclass(frozen=True)
class Channels:
    """Smallest, largest and mean squared value, [C], of each channel (last axis) of a tensor."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    square: NDArray[np.float64]

    @property
    def extent(self) -> Range:
        """Smallest and largest value of the tensor."""
        return float(self.low.min()), float(self.high.max())

    def scaled(self, factor: NDArray[np.float64]) -> Channels:
        """Those of the tensor with each channel times its positive factor, [C]."""
        return Channels(self.low * factor, self.high * factor, self.square * factor**2)


def measure(floats: bytes, images: Images) -> dict[str, Range]:
    """Minimum and maximum of every computed float tensor on the images, by name."""
    return extents(_channels(_values(floats, Graph(floats), images), len(images)))


def extents(channels_by_name: Mapping[str, Channels]) -> dict[str, Range]:
    """Smallest and largest value of each tensor."""
    return {name: stats.extent for name, stats in channels_by_name.items()}


def channels_of(quantized_graph: QuantizedGraph, images: Images) -> dict[str, Channels]:
    """`channels` of the floats, measured once for all graphs that share these."""
    floats = quantized_graph.floats
    return quantized_graph.measurements.get(
        "channels", floats, images, lambda: channels(floats, images)
    )


def channels(floats: bytes, images: Images) -> dict[str, Channels]:
    """The values of each channel of every computed tensor on the images, by tensor name.

    Values that no reader tells apart are clipped: see `readers`.
    """
    return _channels(_clipped_values(floats, Graph(floats), images), len(images))


def _channels(
    named_values: Iterator[tuple[str, NDArray[np.float32]]], images: int
) -> dict[str, Channels]:
    channels_by_name: dict[str, Channels] = {}
    for name, values in named_values:
        rows = values.reshape(-1, values.shape[-1] if values.ndim else 1)
        new = Channels(
            rows.min(axis=0).astype(np.float64),
            rows.max(axis=0).astype(np.float64),
            np.einsum("nc,nc->c", rows, rows).astype(np.float64) / len(rows) / images,
        )
        old = channels_by_name.get(name)
        if old is not None:
            new = Channels(
                np.minimum(old.low, new.low),
                np.maximum(old.high, new.high),
                old.square + new.square,
            )
        channels_by_name[name] = new
    return channels_by_name


@dataclass(frozen=True)
class Histogram:
    """The counts [bins] of a tensor's values, except zeros, between `edges` [bins + 1].

    `reader` is the function that all readers of the tensor compute of it, value by value, or the
    identity.
    """

    counts: NDArray[np.float64]
    edges: NDArray[np.float64]
    reader: Callable[[Doubles], Doubles] = readers.identity


def histograms_of(quantized_graph: QuantizedGraph, images: Images) -> dict[str, Histogram]:
    """`histograms` over the ranges, measured once for all graphs that share floats and ranges."""
    floats, spans = quantized_graph.floats, quantized_graph.ranges
    return quantized_graph.measurements.get(
        ("histograms", tuple(spans.items())),
        floats,
        images,
        lambda: histograms(floats, images, spans),
    )


def histograms(floats: bytes, images: Images, spans: Mapping[str, Range]) -> dict[str, Histogram]:
    """The distribution of the values of every computed tensor over its range, by tensor name.

    Values that no reader tells apart are clipped: see `readers`.
    """
    graph = Graph(floats)
    swished = readers.swished(graph)
    histograms_by_name: dict[str, Histogram] = {}
    for name, values in _clipped_values(floats, graph, images):
        flat = values.reshape(-1)
        # A part of a large tensor is enough for its distribution.
        sample = flat[:: max(1, flat.size // _ENOUGH)]
        counts, edges = np.histogram(sample[sample != 0], _BINS, spans[name])
        if name in histograms_by_name:
            counts = counts + histograms_by_name[name].counts
        reader = readers.hard_swish if name in swished else readers.identity
        histograms_by_name[name] = Histogram(counts.astype(np.float64), edges, reader)
    return histograms_by_name


def _clipped_values(
    floats: bytes, graph: Graph, images: Images
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """As `_values`, with values that no reader tells apart clipped."""
    ends = readers.telling(graph)
    for name, values in _values(floats, graph, images):
        yield name, np.clip(values, *ends[name]) if name in ends else values


def _values(
    floats: bytes, graph: Graph, images: Images
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(name, values) of every computed float tensor for each image; the names must be unique.

    The interpreter keeps all tensors. (TensorFlow 2.21's own calibrator lets operators work in
    place, and then records the range of an output for its input.)
    """
    engine = interpreter(floats, every_tensor=True)
    # A loop has outputs that nobody reads, and no values for them.
    used = {*graph.outputs, *(int(i) for op in graph.ops for i in op.inputs)}
    computed = [int(i) for op in graph.ops for i in op.outputs if int(i) in used]
    float_tensors = [
        i for i in dict.fromkeys((*graph.inputs, *computed)) if graph.dtype(i) == np.float32
    ]
    for sample in batch(images):
        for source, values in zip(graph.inputs, sample.arrays, strict=True):
            engine.set_tensor(source, values.astype(graph.dtype(source), copy=False))
        invoke(engine)
        for index in float_tensors:
            yield graph.name(index), engine.get_tensor(index)
