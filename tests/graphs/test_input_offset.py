"""The zero of an input is moved into the first layer: exact inside, half a pixel at the border."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mobiledeploy.core import preprocessing
from mobiledeploy.core.types import Preprocessing
from mobiledeploy.graphs import execution, input_offset
from mobiledeploy.graphs.graph import Graph

SYMMETRIC = Preprocessing((-1.0, 1.0))
IMAGENET = Preprocessing((0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KERNEL = np.random.default_rng(2).normal(0, 0.4, (3, 3, 3, 8)).astype(np.float32)
PIXELS = np.random.default_rng(3).integers(0, 256, (4, 12, 12, 3), np.uint8)


def converted(answer):
    spec = tf.TensorSpec((1, *PIXELS.shape[1:]), tf.float32, name="image")
    function = tf.function(answer).get_concrete_function(spec)
    return tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()


def network(padding, bias=True, margin=0):
    """A convolution of 12x12 pixels, with ReLU6."""

    def answer(image):
        if margin:
            image = tf.pad(image, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        x = tf.nn.conv2d(image, KERNEL, 1, padding)
        return tf.nn.relu6(x + np.linspace(0.5, 2, 8, dtype=np.float32) if bias else x)

    return converted(answer)


def prepared(how):
    return np.stack([preprocessing.real_values(pixels, how) for pixels in PIXELS])


def move(floats, own, may_pad=True):
    """(the file, its preprocessing)."""
    how = preprocessing.on_codes(own)
    ratio, change = preprocessing.between(own, how)
    return input_offset.moved(floats, 0, ratio, change, may_pad=may_pad), how


@pytest.mark.parametrize("bias", [True, False])
def test_without_a_pad_it_is_exact(bias):
    floats = network("VALID", bias)
    moved, how = move(floats, SYMMETRIC, may_pad=False)
    expected = execution.run(floats, prepared(SYMMETRIC))
    np.testing.assert_allclose(execution.run(moved, prepared(how)), expected, atol=1e-5)
    # Without the offset in the bias it is not.
    assert np.abs(execution.run(floats, prepared(how)) - expected).max() > 1e-3


@pytest.mark.parametrize(("padding", "margin"), [("SAME", 0), ("VALID", 1)])
def test_the_border_is_off_by_half_a_pixel_of_the_weights_outside(padding, margin):
    floats = network(padding, margin=margin)
    moved, how = move(floats, SYMMETRIC)
    error = execution.run(moved, prepared(how)) - execution.run(floats, prepared(SYMMETRIC))
    np.testing.assert_allclose(error[:, 1:-1, 1:-1], 0, atol=1e-5)
    border = np.abs(error).max(axis=(0, 1, 2))
    assert border.max() > 1e-3
    assert (border <= np.abs(KERNEL).sum(axis=(0, 1, 2)) / 255 + 1e-5).all()
    assert move(floats, SYMMETRIC, may_pad=False)[0] is None


def test_a_mean_and_a_deviation_for_each_channel_are_exact_without_a_pad():
    floats = network("VALID")
    moved, how = move(floats, IMAGENET, may_pad=False)
    assert len(set(how.std)) == len(set(how.mean)) == 1
    expected = execution.run(floats, prepared(IMAGENET))
    np.testing.assert_allclose(execution.run(moved, prepared(how)), expected, atol=1e-4)


def test_another_first_layer_is_not_moved():
    for answer in (
        lambda x: tf.nn.depthwise_conv2d(x, KERNEL[..., :1], [1, 1, 1, 1], "VALID"),
        lambda x: tf.nn.conv2d(x, KERNEL, 1, "VALID") + tf.reduce_mean(x),
    ):
        assert move(converted(answer), SYMMETRIC)[0] is None


def test_the_weights_of_one_range_stay_as_they_are():
    floats = network("SAME")
    moved, _ = move(floats, dataclasses.replace(SYMMETRIC, crop=0.875))
    (before,), (after,) = (
        [op for op in graph.ops if graph.kind(op) == "CONV_2D"]
        for graph in (Graph(floats), Graph(moved))
    )
    np.testing.assert_array_equal(
        Graph(floats).constant_values(int(before.inputs[1])),
        Graph(moved).constant_values(int(after.inputs[1])),
    )
