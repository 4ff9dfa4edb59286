"""A folded BatchNorm of nearly zero variance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tf_keras

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.types import Model
from mobiledeploy.graphs import execution, matrices, quantized
from mobiledeploy.graphs.execution import run
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import quiet_channels
from tests.conftest import press
from tests.passes.conftest import INT8, images, mobile

CHANNEL = 3


def quiet(epsilon: float, variance: float = 1e-9):
    """A network whose first depthwise layer has a channel that is always zero; its float TFLite."""
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Model(*mobile())
    for layer in model.layers:
        for weight in layer.weights:
            if "kernel" in weight.name:
                weight.assign(3 * weight)
    norms = [x for x in model.layers if isinstance(x, tf_keras.layers.BatchNormalization)]
    gamma, beta, mean, spread = norms[0].get_weights()
    beta[CHANNEL] = -50
    norms[0].set_weights([gamma, beta, mean, spread])
    gamma, beta, mean, spread = norms[1].get_weights()
    mean[CHANNEL], spread[CHANNEL], beta[CHANNEL] = 0, variance, 0.7
    norms[1].set_weights([gamma, beta, mean, spread])
    norms[1].epsilon = epsilon
    floats = press(Model("tf_keras", model), "float32", "tflite", images(), output="softmax")
    return quantized.start(floats, INT8, "int8", images())


def decibels(quantized_graph, granularity="per-channel"):
    recipe_ = dataclasses.replace(
        quantized_graph, recipe=dataclasses.replace(INT8, granularity=granularity)
    )
    fresh = images(24, seed=1)
    return accuracy.sqnr_db(
        execution.logits(quantized_graph.floats, fresh),
        execution.logits(quantized.integers(recipe_), fresh),
    )


def test_its_weights_become_a_constant_and_the_function_stays():
    before = quiet(1e-9)
    after = quiet_channels.apply(before, images())
    weights, was = (
        matrices.weighted_ops(Graph(quantized_graph.floats))[1]
        for quantized_graph in (after, before)
    )
    kernel = weights.blocks(weights.graph.constant_values(weights.weights))
    old = was.blocks(was.graph.constant_values(was.weights))
    assert np.abs(old[CHANNEL]).max() > 1000 * np.median(np.abs(old))
    assert (kernel[CHANNEL] == 0).all()
    assert (np.delete(kernel, CHANNEL, axis=0) == np.delete(old, CHANNEL, axis=0)).all()
    assert weights.graph.constant_values(weights.bias)[CHANNEL] == pytest.approx(0.7)
    expected = run(before.floats, images())
    np.testing.assert_allclose(run(after.floats, images()), expected, atol=1e-5)


@pytest.mark.slow
def test_the_bias_that_int8_would_round_away_is_kept():
    quantized_graph = quiet(1e-9)
    assert decibels(quantized_graph) < 15
    assert decibels(quiet_channels.apply(quantized_graph, images())) > 30


@pytest.mark.slow
def test_the_others_regain_their_codes_if_all_share_one_scale():
    quantized_graph = quiet(1e-5)
    assert decibels(quantized_graph, "per-tensor") < 15
    assert decibels(quiet_channels.apply(quantized_graph, images()), "per-tensor") > 30


@pytest.mark.slow
def test_large_weights_with_an_effect_stay():
    """The same variance for a channel that changes: its weights are large, but it is not quiet."""
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Model(*mobile(limit=None))
    norms = [x for x in model.layers if isinstance(x, tf_keras.layers.BatchNormalization)]
    gamma, beta, mean, spread = norms[1].get_weights()
    spread[CHANNEL] = 1e-9
    norms[1].set_weights([gamma, beta, mean, spread])
    floats = press(Model("tf_keras", model), "float32", "tflite", images(), output="softmax")
    quantized_graph = quantized.start(floats, INT8, "int8", images())
    layer = matrices.weighted_ops(Graph(floats))[1]
    kernel = np.abs(layer.blocks(layer.graph.constant_values(layer.weights))).max(axis=2)
    assert kernel[CHANNEL] > quiet_channels.LARGE * np.median(kernel)
    assert quiet_channels.apply(quantized_graph, images()) is quantized_graph


def test_folding_itself_is_exact_at_a_variance_of_1e_9():
    """The convolution and its statistics scaled together to a variance of 1e-9: no change."""
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Model(*mobile())
    before = model.predict(images(), verbose=0)
    pairs = zip(model.layers, model.layers[1:], strict=False)
    for layer, norm in pairs:
        if not isinstance(norm, tf_keras.layers.BatchNormalization):
            continue
        kernel, *bias = layer.get_weights()
        gamma, beta, mean, variance = norm.get_weights()
        factor = np.sqrt(1e-9 / variance)
        depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        layer.set_weights([kernel * (factor[:, None] if depthwise else factor), *bias])
        growth = np.sqrt(1e-9 + norm.epsilon) / np.sqrt(variance + norm.epsilon) / factor
        norm.set_weights([gamma * growth, beta, mean * factor, np.full_like(variance, 1e-9)])
    np.testing.assert_allclose(model.predict(images(), verbose=0), before, atol=1e-5)
    floats = press(Model("tf_keras", model), "float32", "tflite", images(), output="softmax")
    np.testing.assert_allclose(run(floats, images()), before, atol=1e-5)
