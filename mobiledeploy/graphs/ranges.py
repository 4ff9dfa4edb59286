"""What values the tensors of a float TFLite take over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.ports import Images
from mobiledeploy.graphs.execution import interpreter, invoke
from mobiledeploy.graphs.graph import Graph

Range = tuple[float, float]
_BINS = 2048
_ENOUGH = 20_000
"""Values of one tensor of one image."""


def measure(floats: bytes, images: Images) -> dict[str, Range]:
    """Minimum and maximum of every computed float tensor over the images, by its name."""
    found: dict[str, Range] = {}
    for name, values in _values(floats, images):
        low, high = found.get(name, (np.inf, -np.inf))
        found[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return found


@dataclass(frozen=True)
class Channels:
    """Of each channel (the last axis) of a tensor: least, greatest and mean squared value, [C]."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    square: NDArray[np.float64]


def channels(floats: bytes, images: Images) -> dict[str, Channels]:
    """What each channel of every computed tensor takes over the images, by tensor name."""
    found: dict[str, Channels] = {}
    for name, values in _values(floats, images):
        rows = values.reshape(-1, values.shape[-1])
        new = Channels(
            rows.min(axis=0).astype(np.float64),
            rows.max(axis=0).astype(np.float64),
            np.einsum("nc,nc->c", rows, rows).astype(np.float64) / len(rows) / len(images),
        )
        old = found.get(name)
        if old is not None:
            new = Channels(
                np.minimum(old.low, new.low),
                np.maximum(old.high, new.high),
                old.square + new.square,
            )
        found[name] = new
    return found


@dataclass(frozen=True)
class Histogram:
    """How often a tensor's values other than zero lie between `edges` [bins + 1]: counts [bins]."""

    counts: NDArray[np.float64]
    edges: NDArray[np.float64]


def histograms(floats: bytes, images: Images, extents: Mapping[str, Range]) -> dict[str, Histogram]:
    """How the values of every computed tensor spread over its range, by tensor name."""
    found: dict[str, Histogram] = {}
    for name, values in _values(floats, images):
        flattened = values.reshape(-1)
        # A part of a large tensor tells its distribution.
        taken = flattened[:: max(1, flattened.size // _ENOUGH)]
        counts, edges = np.histogram(taken[taken != 0], _BINS, extents[name])
        if name in found:
            counts = counts + found[name].counts
        found[name] = Histogram(counts.astype(np.float64), edges)
    return found


def _values(floats: bytes, images: Images) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(name, values) of every computed float tensor, whose names differ, for every image in turn.

    All tensors are kept while the model runs. TensorFlow 2.21's own calibrator lets operators work
    in place and then notes the range of a result for its input.
    """
    graph = Graph(floats)
    engine = interpreter(floats, every_tensor=True)
    (source,) = graph.inputs
    computed = [int(i) for op in graph.ops for i in op.outputs]
    kept = [i for i in dict.fromkeys((int(source), *computed)) if graph.dtype(i) == np.float32]
    for image in images:
        engine.set_tensor(source, image[None])
        invoke(engine)
        for index in kept:
            yield graph.name(index), engine.get_tensor(index)
