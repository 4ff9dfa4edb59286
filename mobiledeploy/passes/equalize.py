"""Scales the channels of a tensor towards one range, so that each of them gets enough codes.

Cross-layer equalization (M. Nagel et al. 2019, Data-Free Quantization Through Weight Equalization
and Bias Correction, https://arxiv.org/abs/1906.04721, section 4.1): scaling channel c of an
activation by t in the weights that produce it, and by 1 / t in the weights that read it, does not
change the output if everything in between is positively homogeneous: act(t x) = t act(x) for t > 0.

With a scale for each output channel the producing weights lose nothing. So t does not balance two
weight ranges as in the paper, which has one scale per tensor, but the two errors that depend on it.
With D the step of the activation's codes and s_o the step of the reader's weights, the variance of
the reader's output is

    D^2 / 12 * sum_o W_oc^2 / t^2  +  K * E[x_c^2] * t^2 / 12 * sum_o s_o^2

(K places of its kernel). It is smallest at

    t^4 = D^2 * sum_o W_oc^2 / (K * E[x_c^2] * sum_o s_o^2).

A depthwise reader has one scale per channel and so no second term: t is as large as possible. t is
never below 1, which would enlarge the weights of the reader, and never moves a channel out of the
tensor's range. That also handles ReLU6, which is homogeneous only below its clip: a channel that
reaches the clip keeps t = 1, and no other is scaled beyond it. On other images than the calibration
images a channel may be clipped that was not before, where int8 clips anyway.

Layers of clustered weights are skipped: scaling would destroy the clusters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Progress, quiet
from mobiledeploy.core.types import QuantizedGraph
from mobiledeploy.graphs import matrices, ranges
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.graphs.matrices import WeightedOp

PRESERVES = True

_CODES = 255
_WORTH = 1.01
"""A channel that would grow by less is skipped."""
_CLIP = {"RELU6": 6.0}
_HOMOGENEOUS = ("NONE", "RELU", "RELU6")
_BETWEEN = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE")

Doubles = NDArray[np.float64]


def apply(
    quantized_graph: QuantizedGraph, images: Images, progress: Progress = quiet
) -> QuantizedGraph:
    """The quantized graph with other weights and ranges; `images` are [N, H, W, 3] float32.

    It has no integers, since earlier ones no longer match the model.
    """
    graph = Graph(quantized_graph.floats)
    channels = ranges.channels_of(quantized_graph, images)
    extents = ranges.extents(channels)
    for space in spaces(graph):
        if any(layer.is_clustered for layer in (*space.makers, *space.readers)):
            continue
        factor = _factor(graph, space, quantized_graph, channels)
        if factor is None:
            continue
        for maker in space.makers:
            _scale_outputs(maker, factor)
        for reader in space.readers:
            _scale_inputs(reader, 1 / factor)
        for index in space.tensors:
            scaled = channels[graph.name(index)].scaled(factor)
            extents[graph.name(index)] = scaled.extent
    return dataclasses.replace(quantized_graph, floats=graph.pack(), ranges=extents, integers=None)


@dataclass(frozen=True)
class Space:
    """Tensors whose channels must be scaled together, and the layers that produce and read them."""

    tensors: tuple[int, ...]
    makers: tuple[WeightedOp, ...]
    readers: tuple[WeightedOp, ...]


def spaces(graph: Graph) -> list[Space]:
    """The spaces that only weighted layers produce and read, through homogeneous operators."""
    layers = {layer.number: layer for layer in matrices.weighted_ops(graph)}
    parent = {index: index for index in range(len(graph.subgraph.tensors))}
    excluded: set[int] = {*map(int, graph.inputs), *map(int, graph.outputs)}

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for number, op in enumerate(graph.ops):
        inputs = [int(i) for i in op.inputs if i >= 0 and graph.constant(int(i)) is None]
        outputs = [int(i) for i in op.outputs]
        if number in layers:
            if graph.activation(op) not in _HOMOGENEOUS:
                excluded.update(outputs)
            if layers[number].kind == "FULLY_CONNECTED" and len(graph.shape(inputs[0])) != 2:
                excluded.update(inputs)
            continue
        channels = {graph.shape(i)[-1:] for i in (*inputs, *outputs)}
        if not _is_homogeneous(graph, op, len(inputs)) or len(channels) != 1:
            excluded.update(inputs, outputs)
            continue
        for index in (*inputs, *outputs):
            parent[root(index)] = root(outputs[0])
    tensors_by_root: dict[int, list[int]] = {}
    for index in parent:
        tensors_by_root.setdefault(root(index), []).append(index)
    excluded_roots = {root(index) for index in excluded}
    maker_of = {int(layer.op.outputs[0]): layer for layer in layers.values()}
    return [
        Space(
            tuple(tensors),
            tuple(maker_of[i] for i in tensors if i in maker_of),
            tuple(layer for layer in layers.values() if layer.source in tensors),
        )
        for first, tensors in tensors_by_root.items()
        if first not in excluded_roots
        and any(i in maker_of for i in tensors)
        and any(layer.source in tensors for layer in layers.values())
    ]


def _is_homogeneous(graph: Graph, op: object, input_count: int) -> bool:
    """Whether the operator's output scales with its input, channel by channel."""
    kind = graph.kind(op)
    if kind == "ADD":
        return input_count == 2 and graph.activation(op) in ("NONE", "RELU")
    if kind == "RESHAPE":
        # Dropping sides of one does not mix channels.
        (source, *_), (target,) = op.inputs, op.outputs  # type: ignore[attr-defined]
        before, after = graph.shape(int(source)), graph.shape(int(target))
        return before[-1] == after[-1] == np.prod(before) // before[0]
    if kind == "MEAN":
        axes = graph.constant(int(op.inputs[1]))  # type: ignore[attr-defined]
        rank = len(graph.shape(int(op.inputs[0])))  # type: ignore[attr-defined]
        return axes is not None and not {rank - 1, -1} & set(axes.reshape(-1).tolist())
    return kind in _BETWEEN and graph.activation(op) in ("NONE", "RELU")


def _factor(
    graph: Graph,
    space: Space,
    quantized_graph: QuantizedGraph,
    channels: dict[str, ranges.Channels],
) -> Doubles | None:
    """t of each channel, at least 1; None if no channel gains."""
    step = 0.0
    energy = np.zeros(1)
    room: Doubles | None = None
    for index in space.tensors:
        name = graph.name(index)
        if name not in channels:
            return None
        stats, (low, high) = channels[name], quantized_graph.ranges[name]
        step, energy = max(step, (high - low) / _CODES), np.maximum(energy, stats.square)
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = np.fmin(
                np.where(stats.high > 0, high / stats.high, np.inf),
                np.where(stats.low < 0, low / stats.low, np.inf),
            )
        room = limit if room is None else np.minimum(room, limit)
    assert room is not None
    for maker in space.makers:
        clip = _CLIP.get(graph.activation(maker.op))
        if clip is not None:
            top = channels[maker.name].high
            with np.errstate(divide="ignore", invalid="ignore"):
                room = np.minimum(room, np.where(top > 0, clip / top, np.inf))
    gain = cost = np.zeros_like(room)
    for reader in space.readers:
        squares, noise = _of_inputs(reader)
        gain, cost = gain + squares, cost + noise
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        best = (step**2 * gain / (energy * cost)) ** 0.25
    # A channel that is always 0 has no range to fill.
    best = np.where(np.isnan(best) | ~np.isfinite(room), 1.0, best)
    factor = np.clip(np.minimum(best, room), 1.0, None)
    factor = np.where(factor < _WORTH, 1.0, factor)
    return factor if np.any(factor > 1) else None


def _of_inputs(reader: WeightedOp) -> tuple[Doubles, Doubles]:
    """For each input channel: the sum of its squared weights, and K times that of squared steps."""
    weights = np.asarray(reader.graph.constant_values(reader.weights), np.float64)
    if reader.kind == "DEPTHWISE_CONV_2D":
        squares = (weights**2).sum(axis=(0, 1, 2)).reshape(reader.groups, -1).sum(axis=1)
        return squares, np.zeros_like(squares)
    outputs = weights.shape[0]
    steps = (np.abs(weights).reshape(outputs, -1).max(axis=1) / 127) ** 2
    places = int(np.prod(weights.shape[1:-1]))
    by_channel = (weights**2).reshape(outputs, places, -1).sum(axis=1)
    shape = (reader.groups, outputs // reader.groups, -1)
    squares = by_channel.reshape(shape).sum(axis=1).reshape(-1)
    noise = places * steps.reshape(shape[:2]).sum(axis=1)
    return squares, np.repeat(noise, by_channel.shape[1])


def _scale_outputs(maker: WeightedOp, factor: Doubles) -> None:
    graph = maker.graph
    weights = np.asarray(graph.constant_values(maker.weights), np.float64)
    if maker.kind == "DEPTHWISE_CONV_2D":
        weights = weights * factor
    else:
        weights = weights * factor.reshape((-1,) + (1,) * (weights.ndim - 1))
    graph.replace_constant(maker.op, 1, weights)
    bias = graph.constant(maker.bias)
    if bias is not None:
        graph.replace_constant(maker.op, 2, np.asarray(bias, np.float64) * factor)


def _scale_inputs(reader: WeightedOp, factor: Doubles) -> None:
    graph = reader.graph
    weights = np.asarray(graph.constant_values(reader.weights), np.float64)
    if reader.kind == "DEPTHWISE_CONV_2D":
        factor = np.repeat(factor, weights.shape[-1] // len(factor))
        graph.replace_constant(reader.op, 1, weights * factor)
        return
    shape = weights.shape
    groups = weights.reshape(reader.groups, shape[0] // reader.groups, -1, shape[-1])
    each = factor.reshape(reader.groups, 1, 1, shape[-1])
    graph.replace_constant(reader.op, 1, (groups * each).reshape(shape))
