"""Our integers compared with TensorFlow's, and what AI Edge Quantizer lacks."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.graphs import execution, integers, matrices, quantized, ranges
from mobiledeploy.graphs.graph import Graph
from tests.lite import Lite
from tests.oracles import calibration_wrapper, tensorflow_integers
from tests.passes.conftest import NETWORKS, images, quantized_graph
from tests.variants import slow_but

OTHERS = {
    "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "LOGISTIC": tf.sigmoid,
    "SPACE_TO_DEPTH": lambda x: tf.nn.space_to_depth(x, 2)[..., :8],
    "SQUARED_DIFFERENCE": lambda x: tf.math.squared_difference(x, x[:, ::-1]),
    "TANH": tf.tanh,
}
"""Operators that the quantizer itself quantizes to 8 bits; not all of them to 16."""
KERNEL = np.random.default_rng(3).normal(0, 0.4, (3, 3, 3, 8)).astype(np.float32)
SLOPES = np.linspace(0.05, 0.4, 8, dtype=np.float32).reshape(1, 1, 8)
SECOND = np.random.default_rng(4).normal(0, 0.4, (8, 6)).astype(np.float32)


def _there_and_back(x):
    none = [[0, 0], [0, 0]]
    return tf.batch_to_space(tf.nn.relu(tf.space_to_batch(x, [2, 2], none)), [2, 2], none)


OPERATORS = {
    "ABS": tf.abs,
    "DEPTH_TO_SPACE": lambda x: tf.nn.depth_to_space(x, 2),
    "ELU": tf.nn.elu,
    "EXP": lambda x: tf.exp(0.3 * x),
    "LEAKY_RELU": lambda x: tf.nn.leaky_relu(x, 0.1),
    "LOG": lambda x: tf.math.log(tf.nn.relu(x) + 0.5),
    "LOG_SOFTMAX": tf.nn.log_softmax,
    "MINIMUM": lambda x: tf.minimum(x, x[:, ::-1]),
    "PRELU": lambda x: tf.nn.relu(x) + -SLOPES * tf.nn.relu(-x),
    "RELU6": lambda x: tf.nn.relu6(x) + 0.1 * x,
    "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1, 1) + 0.1 * x,
    "REVERSE_V2": lambda x: tf.reverse(x, [1]),
    "SPACE_TO_BATCH_ND": _there_and_back,
    "TILE": lambda x: tf.tile(x, (1, 1, 2, 1)),
    "REDUCE_MAX": lambda x: tf.reduce_max(x, [1, 2], keepdims=True),
}


@functools.cache
def network(name: str) -> tuple[bytes, dict[str, tuple[float, float]]]:
    """A float TFLite with a convolution, the operator, and another convolution; its ranges."""

    def answer(image):
        x = (OPERATORS | OTHERS)[name](tf.nn.conv2d(image, KERNEL, 2, "SAME"))
        channels = x.shape[-1]
        return tf.reduce_mean(tf.nn.conv2d(x, SECOND[None, None, :channels], 1, "SAME"), [1, 2])

    spec = tf.TensorSpec((1, 24, 24, 3), tf.float32, name="image")
    function = tf.function(answer).get_concrete_function(spec)
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    return content, ranges.measure(content, images())


def float_operators(content: bytes) -> list[str]:
    graph = Graph(content)
    return [
        graph.kind(op)
        for op in graph.ops
        if any(graph.dtype(int(i)) == np.float32 for i in (*op.inputs, *op.outputs) if i >= 0)
    ]


def assert_equal_but_for_rounding(ours: bytes, theirs: bytes) -> None:
    """Scales and zero points are equal; 1 of 10,000 codes of constants may differ by one."""
    one, other = Graph(ours), Graph(theirs)
    codes = different = 0
    for first, second in tensorflow_integers.pairs(ours, theirs):
        (scales, zero), (expected, its_zero) = one.scale(first), other.scale(second)
        np.testing.assert_array_equal(scales.astype(np.float32), expected.astype(np.float32))
        assert zero == its_zero
        values, others = one.constant(first), other.constant(second)
        if values is not None and others is not None and scales.size:
            apart = np.abs(values.astype(np.int64) - others)
            assert apart.max() <= 1
            codes, different = codes + apart.size, different + np.count_nonzero(apart)
    assert codes > 1000
    assert different <= 1 + codes / 10_000


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_those_of_tensorflow(name, per_channel):
    start = quantized_graph(name)
    granularity = "per-channel" if per_channel else "per-tensor"
    ours = integers.integers(start.floats, start.ranges, granularity=granularity)
    theirs = tensorflow_integers.integers(start.floats, start.ranges, per_channel=per_channel)
    assert_equal_but_for_rounding(ours, theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_those_of_the_quantizer_inside_litert(name):
    start = quantized_graph(name)
    ours = integers.integers(start.floats, start.ranges)
    theirs = calibration_wrapper.integers(start.floats, start.ranges)
    assert_equal_but_for_rounding(ours, theirs)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_with_an_integer_kernel_runs_on_codes(name):
    content, extents = network(name)
    assert name in [Graph(content).kind(op) for op in Graph(content).ops]
    content_ = integers.integers(content, extents)
    assert float_operators(content_) == []
    fresh = images(24, seed=1)
    expected = execution.run(content, fresh)
    theirs = tensorflow_integers.integers(content, extents)
    ours, reference = (
        accuracy.sqnr_db(expected, execution.run(file, fresh)) for file in (content_, theirs)
    )
    assert ours > max(reference - 1, 10)


@pytest.mark.parametrize(
    "name", slow_but(["ABS", "ELU", "EXP", "LEAKY_RELU", "LOG", "PRELU"], "ABS", "LEAKY_RELU")
)
def test_scales_are_equal_to_the_last_bit_so_that_no_cast_stands_between(name):
    content, extents = network(name)
    for factor in np.linspace(1, 1.5, 20):
        wider = {tensor: (factor * low, factor * high) for tensor, (low, high) in extents.items()}
        graph = Graph(integers.integers(content, wider))
        assert "QUANTIZE" not in [graph.kind(op) for op in graph.ops]


@pytest.mark.parametrize("name", OPERATORS | OTHERS)
def test_activations_of_sixteen_bits_run_with_every_operator(name):
    content, extents = network(name)
    fresh = images(24, seed=1)
    expected = execution.run(content, fresh)
    eight, sixteen = (
        accuracy.sqnr_db(
            expected,
            execution.run(integers.integers(content, extents, activation_bits=bits), fresh),
        )
        for bits in (8, 16)
    )
    assert sixteen > eight


def test_a_float_operator_stays_float_beside_quantized_ones():
    content, extents = network("LEAKY_RELU")
    graph = Graph(content)
    (name,) = (graph.name(int(op.outputs[0])) for op in graph.ops if graph.kind(op) == "LEAKY_RELU")
    content_ = integers.integers(content, extents, float_tensors=[name])
    assert float_operators(content_) == ["DEQUANTIZE", "LEAKY_RELU", "QUANTIZE"]


def test_normalised_answers_are_better_in_float():
    """Why L2_NORMALIZATION is not in the tables: the kernel's codes are 1/128 apart."""

    def answer(image):
        x = tf.nn.relu(tf.nn.conv2d(image, KERNEL, 2, "SAME"))
        return tf.math.l2_normalize(tf.reshape(x, (1, -1)), axis=-1)

    spec = tf.TensorSpec((1, 24, 24, 3), tf.float32, name="image")
    function = tf.function(answer).get_concrete_function(spec)
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    extents = ranges.measure(content, images())
    ours = integers.integers(content, extents)
    assert "L2_NORMALIZATION" in float_operators(ours)
    theirs = tensorflow_integers.integers(content, extents)
    fresh = images(24, seed=1)
    expected = execution.run(content, fresh)
    better, worse = (
        accuracy.sqnr_db(expected, execution.run(file, fresh)) for file in (ours, theirs)
    )
    assert better > worse + 10


@pytest.mark.parametrize("recipe", ["int8_ptq", "int8x4_ptq"])
def test_each_bias_is_within_half_a_step_of_the_output(recipe):
    """In a network with channels of nearly zero weights and larger biases."""
    start = quantized_graph("relu6")
    floats = Graph(start.floats)
    for layer in matrices.weighted_ops(floats)[:4]:
        weights = floats.constant_values(layer.weights).copy()
        flat = layer.blocks(weights)
        flat[..., 0, :] *= 1e-9
        layer.put_weights(flat)
    content = floats.pack()
    recipe_ = RECIPES.load(recipe).RECIPE
    content_ = quantized.integers(quantized.start(content, recipe_, "int8", images()))
    graph = Graph(content_)
    for ours, theirs in matrices.pairs(graph, Graph(content)):
        bias = theirs.graph.constant(theirs.bias)
        if bias is None:
            continue
        scales, _ = graph.scale(ours.bias)
        (step,), _ = graph.scale(int(ours.op.outputs[0]))
        biases = graph.constant_values(ours.bias).astype(np.float64) * scales
        assert np.abs(biases - bias).max() <= step / 2
        assert np.abs(graph.constant_values(ours.bias).astype(np.int64)).max() <= 2**30 * (1 + 1e-6)


@pytest.fixture(scope="module")
def large():
    """A float TFLite whose convolution has weights of more than 32 MiB, and its images."""
    dice = np.random.default_rng(5)
    kernel = dice.normal(0, 0.1, (9500, 3, 3, 100)).astype(np.float32)
    assert kernel.nbytes > 32 * 1024 * 1024
    lite = Lite()
    image = lite.input((1, 3, 3, 100))
    bias = dice.normal(0, 0.1, len(kernel)).astype(np.float32)
    inputs = [image, lite.constant(kernel), lite.constant(bias)]
    how = {"padding": 1, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    scores = lite.op("CONV_2D", inputs, (1, 1, 1, len(kernel)), options="Conv2DOptions", **how)
    return lite.file(scores), dice.uniform(-1, 1, (8, 3, 3, 100)).astype(np.float32)


@pytest.mark.parametrize("granularity", ["per-channel", "per-tensor"])
def test_large_weights_are_quantized_as_small_ones(large, granularity):
    content, samples = large
    extents = ranges.measure(content, samples)
    made = integers.integers(content, extents, granularity=granularity)
    assert float_operators(made) == []
    (layer,) = matrices.weighted_ops(Graph(made))
    assert layer.graph.shape(layer.weights) == (9500, 3, 3, 100)
    expected = execution.run(content, samples)
    assert accuracy.sqnr_db(expected, execution.run(made, samples)) > 35
    weights_alone = integers.dynamic(content, granularity=granularity)
    assert accuracy.sqnr_db(expected, execution.run(weights_alone, samples)) > 35


def test_weights_alone_in_integers_are_computed_in_one_part():
    content = quantized_graph("relu6").floats
    content_ = integers.dynamic(content)
    graph = Graph(content_)
    types = {layer.kind: graph.dtype(layer.weights) for layer in matrices.weighted_ops(graph)}
    assert types["CONV_2D"] == types["FULLY_CONNECTED"] == np.int8
    assert types["DEPTHWISE_CONV_2D"] == np.float32
    names = [op["op_name"] for op in execution.interpreter(content_)._get_ops_details()]
    assert names.count("DELEGATE") == 1
    fresh = images(24, seed=1)
    assert accuracy.sqnr_db(execution.run(content, fresh), execution.run(content_, fresh)) > 20
