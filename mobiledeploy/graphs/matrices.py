"""The weights of a TFLite's convolutions and dense layers as matrices, for passes over weights.

Weights are [B, O, I]: B blocks that share no input (groups, or the channels of a depthwise
convolution), with O outputs and I inputs each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import Recipe
from mobiledeploy.graphs.execution import Walk
from mobiledeploy.graphs.graph import Floats, Graph

KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_LEAST, _MOST = 60, 200
"""Limits of the number of places per image that are sampled; within them, four rows per unknown."""
_SEED = 0
_CLUSTERS = 256
"""The most different weights of a layer that counts as clustered; passes keep these as they are."""


@dataclass(frozen=True)
class WeightedOp:
    """A convolution or dense layer: operator `number` of `graph`."""

    graph: Graph
    number: int
    kind: str

    @property
    def op(self) -> Any:
        """The operator itself."""
        return self.graph.subgraph.operators[self.number]

    @property
    def source(self) -> int:
        """The input tensor."""
        return int(self.op.inputs[0])

    @property
    def weights(self) -> int:
        """The tensor of its weights."""
        return int(self.op.inputs[1])

    @property
    def bias(self) -> int:
        """The tensor of its bias, -1 for none."""
        return int(self.op.inputs[2]) if len(self.op.inputs) > 2 else -1

    @property
    def name(self) -> str:
        """The name of its output, which is the same in float and integer models."""
        return self.graph.name(int(self.op.outputs[0]))

    @property
    def groups(self) -> int:
        """The number of blocks, B."""
        if self.kind == "DEPTHWISE_CONV_2D":
            return self.graph.shape(self.source)[-1]
        if self.kind == "CONV_2D":
            return self.graph.shape(self.source)[-1] // self.graph.shape(self.weights)[-1]
        return 1

    @property
    def scales(self) -> NDArray[np.float64]:
        """The scale of each output channel."""
        scales, _ = self.graph.scale(self.weights)
        return np.broadcast_to(scales, (self.outputs,)) if scales.size == 1 else scales

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        shape = self.graph.shape(self.weights)
        return shape[-1] if self.kind == "DEPTHWISE_CONV_2D" else shape[0]

    @property
    def is_clustered(self) -> bool:
        """Whether it has only a few different weights, as after weight clustering."""
        values = self.graph.constant_values(self.weights)
        return bool(len(np.unique(values)) <= min(_CLUSTERS, values.size // 8))

    def blocks(self, weights: Array) -> NDArray[np.float64]:
        """Weights in the file's shape -> [B, O, I]."""
        values = np.asarray(weights, np.float64)
        if self.kind == "DEPTHWISE_CONV_2D":
            # [1, h, w, channels * multiplier], the multiplier varies fastest.
            return values.reshape(-1, self.groups, self.outputs // self.groups).transpose(1, 2, 0)
        return values.reshape(self.groups, self.outputs // self.groups, -1)

    def blocked(self, of_outputs: Array) -> NDArray[np.float64]:
        """One number per output channel -> [B, O]."""
        return np.asarray(of_outputs, np.float64).reshape(self.groups, -1)

    def put_weights(self, blocks: Array) -> None:
        """Writes weights [B, O, I] into the file."""
        shape = self.graph.shape(self.weights)
        if self.kind == "DEPTHWISE_CONV_2D":
            blocks = blocks.transpose(2, 0, 1)
        self.graph.replace_constant(self.op, 1, blocks.reshape(shape))

    def put_bias(self, real: Array) -> None:
        """Writes a bias [B, O] in real values into the file, if the operator has one."""
        if self.bias < 0:
            return
        scales, _ = self.graph.scale(self.bias)
        dtype = self.graph.dtype(self.bias)
        assert dtype is not None
        limits: np.iinfo[Any] = np.iinfo(dtype)
        codes = np.round(np.asarray(real, np.float64).reshape(-1) / scales)
        self.graph.replace_constant(
            self.op, 2, np.clip(codes, limits.min, limits.max).astype(dtype)
        )


def pads(op: Any, window: Sequence[int]) -> bool:
    """Whether a convolution's windows (height, width) may see zeros around the image."""
    return bool(op.builtinOptions.padding == schema.Padding.SAME and max(window) > 1)


def weighted_ops(graph: Graph) -> list[WeightedOp]:
    """The operators with constant weights."""
    return [
        WeightedOp(graph, number, graph.kind(op))
        for number, op in enumerate(graph.ops)
        if graph.kind(op) in KINDS and graph.constant(int(op.inputs[1])) is not None
    ]


def pairs(integers: Graph, floats: Graph) -> Iterator[tuple[WeightedOp, WeightedOp]]:
    """Each integer operator in the order of execution, with its float operator."""
    float_layers = {layer.name: layer for layer in weighted_ops(floats)}
    for layer in weighted_ops(integers):
        twin = float_layers.get(layer.name)
        if (
            twin is not None
            and twin.kind == layer.kind
            and integers.dtype(layer.weights) == np.int8
            and floats.shape(twin.weights) == integers.shape(layer.weights)
        ):
            yield layer, twin


def narrow(layer: WeightedOp) -> bool:
    """Whether a recipe with 4-bit weights uses 4 bits for this layer.

    It does for convolutions, which hold nearly all weights; but not for the first of an image,
    which has few and affects every later layer, and not for depthwise ones, whose channels have
    few and very different weights.
    """
    graph = layer.graph
    first = graph.shape(layer.source) in [graph.shape(int(image)) for image in graph.inputs]
    return layer.kind == "CONV_2D" and not first


def largest_code(layer: WeightedOp, recipe: Recipe) -> int:
    """Codes of weights lie between minus this and this: symmetric, as TFLite requires."""
    return 7 if recipe.weight_bits == 4 and narrow(layer) else 127


@dataclass(frozen=True)
class LayerSample:
    """Inputs of the integer operator [B, M, I] and outputs of the float one [B, M, O].

    Both are real values at the same M places of the images; outputs are before the activation.
    """

    inputs: Floats
    answers: Floats


def sample(ours: WeightedOp, theirs: WeightedOp, coarse: Walk, real: Walk) -> LayerSample:
    """Samples of both operators at the position of their walks, at places of a fixed seed."""
    x = real.value(theirs.source)
    places = _places(ours, len(x))
    weights = theirs.blocks(theirs.graph.constant_values(theirs.weights))
    exact = _patches(theirs, x, places, 0)
    answers = np.matmul(exact, weights.astype(np.float32).transpose(0, 2, 1))
    bias = theirs.graph.constant(theirs.bias)
    if bias is not None:
        answers += theirs.blocked(bias).astype(np.float32)[:, None]
    # Padding stands for zero, whose code is the zero point.
    codes = coarse.value(ours.source)
    _, zero = ours.graph.scale(ours.source)
    scales, _ = ours.graph.scale(ours.source)
    inputs = _patches(ours, codes, places, zero).astype(np.float32)
    inputs -= np.float32(zero)
    inputs *= np.float32(scales[0])
    return LayerSample(inputs, answers)


def _places(layer: WeightedOp, images: int) -> NDArray[np.int64]:
    """Places [M, 3]: image, row and column of the output; the same number for each image."""
    if layer.kind == "FULLY_CONNECTED":
        return np.stack([np.arange(images)] + [np.zeros(images, np.int64)] * 2, axis=1)
    _, height, width, _ = layer.graph.shape(int(layer.op.outputs[0]))
    inputs = int(np.prod(layer.graph.shape(layer.weights)[1:]))
    if layer.kind == "DEPTHWISE_CONV_2D":
        inputs //= layer.outputs
    each = min(max(-(-4 * inputs // images), _LEAST), _MOST, height * width)
    random = np.random.default_rng([_SEED, layer.number])
    spots = np.concatenate(
        [random.choice(height * width, each, replace=False) for _ in range(images)]
    )
    rows, columns = np.divmod(spots, width)
    return np.stack([np.repeat(np.arange(images), each), rows, columns], axis=1)


def _patches(layer: WeightedOp, values: Array, places: NDArray[np.int64], fill: int) -> Array:
    """The inputs of the operator for its outputs at `places`: [B, M, I]."""
    if layer.kind == "FULLY_CONNECTED":
        return values.reshape(1, len(values), -1)
    options = layer.op.builtinOptions
    depthwise = layer.kind == "DEPTHWISE_CONV_2D"
    _, high, wide, _ = layer.graph.shape(layer.weights)
    output = layer.graph.shape(int(layer.op.outputs[0]))
    grids, inside = [], []
    for axis, (kernel, stride, dilation) in enumerate(
        (
            (high, options.strideH, options.dilationHFactor),
            (wide, options.strideW, options.dilationWFactor),
        ),
        start=1,
    ):
        reach = (kernel - 1) * dilation + 1
        missing = 0
        if options.padding == schema.Padding.SAME:
            missing = max((output[axis] - 1) * stride + reach - values.shape[axis], 0)
        grid = places[:, axis, None] * stride + np.arange(kernel) * dilation - missing // 2
        inside.append((grid >= 0) & (grid < values.shape[axis]))
        grids.append(np.clip(grid, 0, values.shape[axis] - 1))
    rows, columns = grids
    # The window at each place, all channels: [M, h, w, C].
    patches = values[places[:, 0, None, None], rows[:, :, None], columns[:, None, :]]
    padding = ~(inside[0][:, :, None] & inside[1][:, None, :])
    if padding.any():
        patches[padding] = fill
    count, channels = len(patches), values.shape[-1]
    split = patches.reshape(count, high * wide, layer.groups, channels // layer.groups)
    # Contiguous, or matrix products would not use BLAS.
    if depthwise:
        return np.ascontiguousarray(split[..., 0].transpose(2, 0, 1))
    return np.ascontiguousarray(split.transpose(2, 0, 1, 3).reshape(layer.groups, count, -1))
