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

from mobiledeploy.core.batches import Images
from mobiledeploy.core.ports import Array
from mobiledeploy.core.types import Recipe
from mobiledeploy.graphs.execution import Walk, each_output
from mobiledeploy.graphs.graph import Floats, Graph

KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_ROWS = 8
"""Places that are sampled for each unknown of a layer."""
_TOTAL = 8000
"""The fewest places of all images together, as far as the layer has them."""
_LEAST, _MOST = 40, 200
"""Limits of the number of places per image."""
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


def sample(ours: WeightedOp, theirs: WeightedOp, coarse: Walk, answers: Floats) -> LayerSample:
    """Samples of both operators; the walk stands before the integer one.

    `answers` are those of `float_answers` for the float operator.
    """
    codes = coarse.value(ours.source)
    scales, zero = ours.graph.scale(ours.source)
    # Padding stands for zero, whose code is the zero point.
    inputs = _patches(ours, codes, _places(theirs, len(codes)), zero).astype(np.float32)
    inputs -= np.float32(zero)
    inputs *= np.float32(scales[0])
    split = answers.reshape(len(answers), theirs.groups, -1)
    return LayerSample(inputs, np.ascontiguousarray(split.transpose(1, 0, 2)))


def float_answers(floats: bytes, images: Images) -> dict[str, Floats]:
    """The outputs [M, channels], before the activation, of each layer with weights, by its name.

    They are those at M places of the images, the same number in each, of a fixed seed for each
    layer.
    """
    graph = Graph(floats)
    layers = weighted_ops(graph)
    names = [layer.name for layer in layers]
    places = [_places(layer, len(images)) for layer in layers]
    answers = [
        np.empty((len(spots), layer.outputs), np.float32)
        for layer, spots in zip(layers, places, strict=True)
    ]
    outputs = [int(layer.op.outputs[0]) for layer in layers]
    graph.subgraph.outputs = _without_activations(graph, outputs)
    at = [0] * len(layers)
    for values in each_output(graph.pack(), images):
        for number, (value, spots) in enumerate(zip(values, places, strict=True)):
            each = len(spots) // len(images)
            rows = value.reshape(-1, value.shape[-1])
            first = at[number]
            answers[number][first : first + each] = rows[spots[first : first + each, 1]]
            at[number] += each
    return dict(zip(names, answers, strict=True))


def _without_activations(graph: Graph, outputs: Sequence[int]) -> list[int]:
    """Gives the activations of the operators of these outputs operators of their own.

    Returns the tensors before the activations.
    """
    makers = {int(op.outputs[0]): op for op in graph.ops}
    bare = []
    ops = graph.ops
    for index in outputs:
        op = makers[index]
        kind = graph.activation(op)
        if kind == "NONE":
            bare.append(index)
            continue
        before = graph.add_tensor(f"{graph.name(index)}/bare", graph.shape(index), "float32")
        op.outputs = [before]
        op.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        ops.insert(ops.index(op) + 1, graph.add_op(kind, [before], [index], version=1))
        bare.append(before)
    graph.subgraph.operators = ops
    return bare


def _places(layer: WeightedOp, images: int) -> NDArray[np.int64]:
    """Places [M, 2]: image and position in its output; the same number for each image."""
    graph = layer.graph
    shape = graph.shape(layer.weights)
    inputs = int(np.prod(shape[1:]))
    if layer.kind == "DEPTHWISE_CONV_2D":
        inputs //= layer.outputs
    positions = int(np.prod(graph.shape(int(layer.op.outputs[0]))[:-1]))
    wanted = max(_ROWS * inputs, _TOTAL)
    each = min(max(-(-wanted // images), _LEAST), _MOST, positions)
    random = np.random.default_rng([_SEED, layer.number])
    spots = np.concatenate([random.choice(positions, each, replace=False) for _ in range(images)])
    return np.stack([np.repeat(np.arange(images), each), spots], axis=1)


def _patches(layer: WeightedOp, values: Array, places: NDArray[np.int64], fill: int) -> Array:
    """The inputs of the operator for its outputs at `places`: [B, M, I]."""
    image, spots = places.T
    if layer.kind == "FULLY_CONNECTED":
        rows = values.reshape(len(values), -1, layer.graph.shape(layer.weights)[-1])
        chosen: Array = rows[image, spots][None]
        return chosen
    options = layer.op.builtinOptions
    depthwise = layer.kind == "DEPTHWISE_CONV_2D"
    _, high, wide, _ = layer.graph.shape(layer.weights)
    output = layer.graph.shape(int(layer.op.outputs[0]))
    grids, inside = [], []
    for axis, (at, kernel, stride, dilation) in enumerate(
        (
            (spots // output[2], high, options.strideH, options.dilationHFactor),
            (spots % output[2], wide, options.strideW, options.dilationWFactor),
        ),
        start=1,
    ):
        reach = (kernel - 1) * dilation + 1
        missing = 0
        if options.padding == schema.Padding.SAME:
            missing = max((output[axis] - 1) * stride + reach - values.shape[axis], 0)
        grid = at[:, None] * stride + np.arange(kernel) * dilation - missing // 2
        inside.append((grid >= 0) & (grid < values.shape[axis]))
        grids.append(np.clip(grid, 0, values.shape[axis] - 1))
    rows, columns = grids
    # The window at each place, all channels: [M, h, w, C].
    patches = values[image[:, None, None], rows[:, :, None], columns[:, None, :]]
    padding = ~(inside[0][:, :, None] & inside[1][:, None, :])
    if padding.any():
        patches[padding] = fill
    count, channels = len(patches), values.shape[-1]
    split = patches.reshape(count, high * wide, layer.groups, channels // layer.groups)
    # Contiguous, or matrix products would not use BLAS.
    if depthwise:
        return np.ascontiguousarray(split[..., 0].transpose(2, 0, 1))
    return np.ascontiguousarray(split.transpose(2, 0, 1, 3).reshape(layer.groups, count, -1))
