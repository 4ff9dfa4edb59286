"""Channels of one tensor brought towards one range, so that all of them get codes.

Cross-layer equalization (M. Nagel et al. 2019, Data-Free Quantization Through Weight Equalization
and Bias Correction, https://arxiv.org/abs/1906.04721, section 4.1): scaling channel c of an
activation by t, in the weights that make it, and by 1 / t in those that read it, changes no answer
where all that lies between is positively homogeneous: act(t x) = t act(x) for t > 0.

With a scale for each output channel the weights that make it lose nothing by it; so t is not the
paper's balance of two weight ranges, which was for one scale a tensor, but that of the two errors
which it moves. With D the step of the activation's codes and s_o that of the reader's weights, the
reader's answer varies by

    D^2 / 12 * sum_o W_oc^2 / t^2  +  K * E[x_c^2] * t^2 / 12 * sum_o s_o^2

(K places of its kernel), least at

    t^4 = D^2 * sum_o W_oc^2 / (K * E[x_c^2] * sum_o s_o^2).

A depthwise reader has a scale of each channel's own and so no second term: t as large as can be.
No t is below 1, which would widen the weights of the reader, and none takes a channel out of the
tensor's range. That is also the answer to ReLU6, which is homogeneous below its clip only: a
channel that comes to the clip keeps t = 1, and no other is taken beyond it. On other images than
the calibration ones a channel may be clipped that was not, at the place where int8 clips anyway.

Layers of clustered weights are left alone: scaled channels would be clusters no more.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.ports import Images, Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import matrices, ranges
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.graphs.matrices import WeightedOp

PRESERVES = True

_CODES = 255
_WORTH = 1.01
"""A channel that would grow by less is left alone."""
_CLIP = {"RELU6": 6.0}
_HOMOGENEOUS = ("NONE", "RELU", "RELU6")
_BETWEEN = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE")

Doubles = NDArray[np.float64]


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with other weights and ranges; `images` [N, H, W, 3] float32 calibrate.

    Without integers: what was quantized before is no longer the model.
    """
    graph = Graph(quantized_graph.floats)
    seen = ranges.channels(quantized_graph.floats, images)
    for space in spaces(graph):
        if any(layer.clustered for layer in (*space.makers, *space.readers)):
            continue
        factor = _factor(graph, space, quantized_graph, seen)
        if factor is None:
            continue
        for maker in space.makers:
            _scale_outputs(maker, factor)
        for reader in space.readers:
            _scale_inputs(reader, 1 / factor)
    floats = graph.packed()
    return dataclasses.replace(
        quantized_graph, floats=floats, ranges=ranges.measure(floats, images), integers=None
    )


@dataclass(frozen=True)
class Space:
    """Tensors whose channels can only be scaled together, with all that makes and reads them."""

    tensors: tuple[int, ...]
    makers: tuple[WeightedOp, ...]
    readers: tuple[WeightedOp, ...]


def spaces(graph: Graph) -> list[Space]:
    """Those that weights make and read on every side, through homogeneous operators alone."""
    layers = {layer.number: layer for layer in matrices.weighted_ops(graph)}
    parent = {index: index for index in range(len(graph.subgraph.tensors))}
    fixed: set[int] = {*map(int, graph.inputs), *map(int, graph.outputs)}

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for number, op in enumerate(graph.ops):
        read = [int(i) for i in op.inputs if i >= 0 and graph.constant(int(i)) is None]
        made = [int(i) for i in op.outputs]
        if number in layers:
            if graph.activation(op) not in _HOMOGENEOUS:
                fixed.update(made)
            if layers[number].kind == "FULLY_CONNECTED" and len(graph.shape(read[0])) != 2:
                fixed.update(read)
            continue
        channels = {graph.shape(i)[-1:] for i in (*read, *made)}
        if not _passes(graph, op, len(read)) or len(channels) != 1:
            fixed.update(read, made)
            continue
        for index in (*read, *made):
            parent[root(index)] = root(made[0])
    found: dict[int, list[int]] = {}
    for index in parent:
        found.setdefault(root(index), []).append(index)
    stopped = {root(index) for index in fixed}
    made_by = {int(layer.op.outputs[0]): layer for layer in layers.values()}
    return [
        Space(
            tuple(tensors),
            tuple(made_by[i] for i in tensors if i in made_by),
            tuple(layer for layer in layers.values() if layer.source in tensors),
        )
        for first, tensors in found.items()
        if first not in stopped
        and any(i in made_by for i in tensors)
        and any(layer.source in tensors for layer in layers.values())
    ]


def _passes(graph: Graph, op: object, read: int) -> bool:
    """Whether the operator scales with what it reads, channel by channel."""
    kind = graph.kind(op)
    if kind == "ADD":
        return read == 2 and graph.activation(op) in ("NONE", "RELU")
    if kind == "RESHAPE":
        # To drop sides of one is not to mix channels.
        (source, *_), (target,) = op.inputs, op.outputs  # type: ignore[attr-defined]
        before, after = graph.shape(int(source)), graph.shape(int(target))
        return before[-1] == after[-1] == np.prod(before) // before[0]
    if kind == "MEAN":
        axes = graph.constant(int(op.inputs[1]))  # type: ignore[attr-defined]
        rank = len(graph.shape(int(op.inputs[0])))  # type: ignore[attr-defined]
        return axes is not None and not {rank - 1, -1} & set(axes.reshape(-1).tolist())
    return kind in _BETWEEN and graph.activation(op) in ("NONE", "RELU")


def _factor(
    graph: Graph, space: Space, quantized_graph: QuantizedGraph, seen: dict[str, ranges.Channels]
) -> Doubles | None:
    """t of each channel, at least 1; None where no channel gains."""
    step = 0.0
    energy = np.zeros(1)
    room: Doubles | None = None
    for index in space.tensors:
        name = graph.name(index)
        if name not in seen:
            return None
        stats, (low, high) = seen[name], quantized_graph.ranges[name]
        step, energy = max(step, (high - low) / _CODES), np.maximum(energy, stats.square)
        with np.errstate(divide="ignore", invalid="ignore"):
            here = np.fmin(
                np.where(stats.high > 0, high / stats.high, np.inf),
                np.where(stats.low < 0, low / stats.low, np.inf),
            )
        room = here if room is None else np.minimum(room, here)
    assert room is not None
    for maker in space.makers:
        clip = _CLIP.get(graph.activation(maker.op))
        if clip is not None:
            top = seen[maker.name].high
            with np.errstate(divide="ignore", invalid="ignore"):
                room = np.minimum(room, np.where(top > 0, clip / top, np.inf))
    gain = cost = np.zeros_like(room)
    for reader in space.readers:
        squares, noise = _of_inputs(reader)
        gain, cost = gain + squares, cost + noise
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        best = (step**2 * gain / (energy * cost)) ** 0.25
    # A channel that is 0 throughout has no room to fill.
    best = np.where(np.isnan(best) | ~np.isfinite(room), 1.0, best)
    factor = np.clip(np.minimum(best, room), 1.0, None)
    factor = np.where(factor < _WORTH, 1.0, factor)
    return factor if np.any(factor > 1) else None


def _of_inputs(reader: WeightedOp) -> tuple[Doubles, Doubles]:
    """Of each input channel: the sum of its squared weights, and K times that of their steps."""
    stored = np.asarray(reader.graph.stored(reader.weights), np.float64)
    if reader.kind == "DEPTHWISE_CONV_2D":
        squares = (stored**2).sum(axis=(0, 1, 2)).reshape(reader.groups, -1).sum(axis=1)
        return squares, np.zeros_like(squares)
    outputs = stored.shape[0]
    steps = (np.abs(stored).reshape(outputs, -1).max(axis=1) / 127) ** 2
    places = int(np.prod(stored.shape[1:-1]))
    by_channel = (stored**2).reshape(outputs, places, -1).sum(axis=1)
    shape = (reader.groups, outputs // reader.groups, -1)
    squares = by_channel.reshape(shape).sum(axis=1).reshape(-1)
    noise = places * steps.reshape(shape[:2]).sum(axis=1)
    return squares, np.repeat(noise, by_channel.shape[1])


def _scale_outputs(maker: WeightedOp, factor: Doubles) -> None:
    graph = maker.graph
    weights = np.asarray(graph.stored(maker.weights), np.float64)
    if maker.kind == "DEPTHWISE_CONV_2D":
        weights = weights * factor
    else:
        weights = weights * factor.reshape((-1,) + (1,) * (weights.ndim - 1))
    graph.put(maker.op, 1, weights)
    bias = graph.constant(maker.bias)
    if bias is not None:
        graph.put(maker.op, 2, np.asarray(bias, np.float64) * factor)


def _scale_inputs(reader: WeightedOp, factor: Doubles) -> None:
    graph = reader.graph
    weights = np.asarray(graph.stored(reader.weights), np.float64)
    if reader.kind == "DEPTHWISE_CONV_2D":
        factor = np.repeat(factor, weights.shape[-1] // len(factor))
        graph.put(reader.op, 1, weights * factor)
        return
    shape = weights.shape
    grouped = weights.reshape(reader.groups, shape[0] // reader.groups, -1, shape[-1])
    each = factor.reshape(reader.groups, 1, 1, shape[-1])
    graph.put(reader.op, 1, (grouped * each).reshape(shape))
