"""A TFLite file as a TensorFlow function with gradients: integers as real values on a grid.

Every tensor of an int8 file stands for ``scale * (code - zero_point)``. This computes in floats and
rounds each result to that grid and clips it to its ends. The answers are those of the file except
for the last bit of some accumulators. The gradient ignores the rounding and is zero for clipped
values (Y. Bengio et al. 2013, the straight-through estimator, https://arxiv.org/abs/1308.3432; B.
Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3). A float file has no grids and is
computed in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.core.errors import InputError
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.graphs.matrices import KINDS

_PADDING = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda x: x,
    "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6,
    "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "TANH": tf.tanh,
}


def refuse(graph: Graph) -> None:
    """InputError for a file with an operator that is not supported here."""
    unsupported = sorted({graph.kind(op) for op in graph.ops} - set(_OPERATORS) - set(KINDS))
    if unsupported:
        raise InputError(f"{', '.join(unsupported)} cannot be trained")


class FakeQuantization:
    """The function of a file, up to the logits.

    Images are [N, H, W, 3] float32, logits [N, classes].
    """

    def __init__(self, graph: Graph) -> None:
        refuse(graph)
        self._graph = graph
        ops = graph.ops
        while ops and graph.kind(ops[-1]) in ("SOFTMAX", "DEQUANTIZE", "QUANTIZE"):
            ops.pop()
        self._ops = ops
        (self._target,) = (int(index) for index in ops[-1].outputs)
        self._constants: dict[int, Any] = {}

    def logits(self, images: Any, replacements: Mapping[tuple[int, int], Any]) -> Any:
        """The logits.

        `replaced` maps (operator, place among its inputs) to the values to use instead.
        """
        (source,) = (int(index) for index in self._graph.inputs)
        values: dict[int, Any] = {source: self._on_grid(source, images)}
        for number, op in enumerate(self._ops):
            kind = self._graph.kind(op)
            inputs = [
                replacements[number, place]
                if (number, place) in replacements
                else self._value(values, i)
                for place, i in enumerate(map(int, op.inputs))
            ]
            (target,) = (int(index) for index in op.outputs)
            answer = self._weighted_op(op, kind, inputs) if kind in KINDS else None
            if answer is None:
                answer = _OPERATORS[kind](self._graph, op, inputs)
            answer = _ACTIVATIONS[self._graph.activation(op)](answer)
            values[target] = self._on_grid(target, answer)
        return tf.reshape(values[self._target], (-1, self._graph.shape(self._target)[-1]))

    def _value(self, values: dict[int, Any], index: int) -> Any:
        if index < 0:
            return None
        if index in values:
            return values[index]
        if index not in self._constants:
            self._constants[index] = real(self._graph, index)
        return self._constants[index]

    def _on_grid(self, index: int, x: Any) -> Any:
        dtype = self._graph.dtype(index)
        if dtype not in (np.int8, np.int16):
            return x
        scales, zero = self._graph.scale(index)
        limits = np.iinfo(dtype)
        return on_grid(x, scales[0], limits.min - zero, limits.max - zero)

    def _weighted_op(self, op: Any, kind: str, inputs: list[Any]) -> Any:
        x, weights, *rest = inputs
        if kind == "FULLY_CONNECTED":
            output = tf.matmul(tf.reshape(x, (-1, weights.shape[-1])), weights, transpose_b=True)
            if op.builtinOptions.keepNumDims:
                output = tf.reshape(output, (-1, *self._graph.shape(int(op.outputs[0]))[1:]))
        else:
            options = op.builtinOptions
            padding = _PADDING[options.padding]
            strides = (options.strideH, options.strideW)
            dilations = (options.dilationHFactor, options.dilationWFactor)
            if kind == "DEPTHWISE_CONV_2D":
                _, high, wide, outputs = weights.shape
                kernel = tf.reshape(weights, (high, wide, x.shape[-1], outputs // x.shape[-1]))
                output = tf.nn.depthwise_conv2d(
                    x, kernel, (1, *strides, 1), padding, None, dilations
                )
            else:
                output = _convolution(x, weights, strides, padding, dilations)
        bias = rest[0] if rest else None
        return output if bias is None else output + bias


def _convolution(x: Any, weights: Any, strides: Any, padding: str, dilations: Any) -> Any:
    """A convolution whose `weights` are [O, h, w, I]; x may have a multiple of I channels."""
    kernel = tf.transpose(weights, (1, 2, 3, 0))
    groups = x.shape[-1] // kernel.shape[2]
    # TensorFlow has no grouped convolution on a CPU.
    parts = [
        tf.nn.conv2d(part, own, strides, padding, dilations=dilations)
        for part, own in zip(
            tf.split(x, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True
        )
    ]
    return parts[0] if groups == 1 else tf.concat(parts, axis=-1)


def real(graph: Graph, index: int) -> Any:
    """A constant of the file in real values; scales may be per channel."""
    content = graph.constant_values(index)
    scales, zero = graph.scale(index)
    if content.dtype == np.float32 or not scales.size:
        return content
    return (graph.broadcast_scales(index) * (content.astype(np.float64) - zero)).astype(np.float32)


def on_grid(x: Any, step: Any, low: float, high: float) -> Any:
    """x rounded to multiples of `step` and clipped to `low` and `high` of them, straight through.

    Its gradient is that of the clipping only.
    """
    codes = tf.clip_by_value(x / tf.cast(step, tf.float32), float(low), float(high))
    whole_codes = codes + tf.stop_gradient(tf.round(codes) - codes)
    return whole_codes * tf.cast(step, tf.float32)


def _pool_of(function: Any) -> Any:
    def pool(graph: Graph, op: Any, inputs: list[Any]) -> Any:
        options = op.builtinOptions
        return function(
            inputs[0],
            (options.filterHeight, options.filterWidth),
            (options.strideH, options.strideW),
            _PADDING[options.padding],
        )

    return pool


def _mean(graph: Graph, op: Any, inputs: list[Any]) -> Any:
    axes = np.asarray(inputs[1]).reshape(-1).tolist()
    return tf.reduce_mean(inputs[0], axes, keepdims=bool(op.builtinOptions.keepDims))


def _reshape(graph: Graph, op: Any, inputs: list[Any]) -> Any:
    return tf.reshape(inputs[0], (-1, *graph.shape(int(op.outputs[0]))[1:]))


def _normalize(graph: Graph, op: Any, inputs: list[Any]) -> Any:
    options = op.builtinOptions
    return tf.nn.lrn(inputs[0], options.radius, options.bias, options.alpha, options.beta)


def _of_one(function: Callable[[Any], Any]) -> Any:
    return lambda graph, op, read: function(read[0])


_OPERATORS: dict[str, Callable[[Graph, Any, list[Any]], Any]] = {
    "ADD": lambda graph, op, read: read[0] + read[1],
    "AVERAGE_POOL_2D": _pool_of(tf.nn.avg_pool2d),
    "CONCATENATION": lambda graph, op, read: tf.concat(read, op.builtinOptions.axis),
    "DEQUANTIZE": _of_one(lambda x: x),
    "HARD_SWISH": _of_one(lambda x: x * tf.nn.relu6(x + 3) / 6),
    "LOCAL_RESPONSE_NORMALIZATION": _normalize,
    "LOGISTIC": _of_one(tf.sigmoid),
    "MAX_POOL_2D": _pool_of(tf.nn.max_pool2d),
    "MEAN": _mean,
    "MUL": lambda graph, op, read: read[0] * read[1],
    "PAD": lambda graph, op, read: tf.pad(read[0], read[1]),
    "QUANTIZE": _of_one(lambda x: x),
    "RELU": _of_one(tf.nn.relu),
    "RELU6": _of_one(tf.nn.relu6),
    "RESHAPE": _reshape,
    "SOFTMAX": _of_one(tf.nn.softmax),
    "SQUEEZE": _reshape,
    "SUB": lambda graph, op, read: read[0] - read[1],
    "TRANSPOSE": lambda graph, op, read: tf.transpose(read[0], np.asarray(read[1])),
}
