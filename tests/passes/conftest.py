"""Small networks with every structure that passes handle, and their quantized graphs."""

from __future__ import annotations

import functools

import numpy as np
import tf_keras

from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.core.types import Model, QuantizedGraph
from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from mobiledeploy.graphs import quantized
from tests.conftest import press

layers = tf_keras.layers
SIZE = (24, 24)
INT8 = RECIPES.load("int8_ptq").RECIPE


@functools.cache
def images(count: int = 24, seed: int = 0) -> np.ndarray:
    """Blobs: the outputs of convolutions differ more for them than for noise."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(-1, 1, (count, 6, 6, 3)).astype(np.float32)
    fine = random.normal(0, 0.1, (count, *SIZE, 3)).astype(np.float32)
    return np.clip(coarse.repeat(4, axis=1).repeat(4, axis=2) + fine, -1, 1).astype(np.float32)


def batch_norm(x, limit=None):
    x = layers.BatchNormalization(
        beta_initializer=tf_keras.initializers.RandomUniform(0, 0.5, seed=1),
        moving_variance_initializer=tf_keras.initializers.RandomUniform(0.5, 2, seed=2),
    )(x)
    return layers.ReLU(limit)(x)


def mobile(limit=6.0, dropout=None):
    """Stem, depthwise separable block, inverted residual, pool over all, softmax."""
    image = layers.Input((*SIZE, 3))
    x = batch_norm(layers.Conv2D(12, 3, 2, padding="same", use_bias=False)(image), limit)
    x = batch_norm(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x), limit)
    x = layers.Conv2D(12, 1)(x)
    wide = batch_norm(layers.Conv2D(24, 1, use_bias=False)(x), limit)
    wide = batch_norm(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(wide), limit)
    x = layers.Add()([x, layers.Conv2D(12, 1)(wide)])
    x = batch_norm(layers.Conv2D(32, 1, use_bias=False)(x), limit)
    x = layers.AveragePooling2D(12)(x)
    return image, layers.Dense(8, activation="softmax")(layers.Flatten()(x))


def various():
    """Strides, dilation, groups, a multiplier, a concatenation, a dense layer of an image."""
    image = layers.Input((*SIZE, 3))
    x = layers.Conv2D(8, 5, 3, padding="valid", activation="relu")(image)
    first = layers.Conv2D(8, 3, dilation_rate=2, padding="same")(x)
    second = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    x = layers.Concatenate()([first, second])
    x = GroupedConv2D(12, 3, 2, padding="same", groups=3)(x)
    return image, layers.Dense(6)(layers.Flatten()(x))


NETWORKS = {
    "relu6": mobile,
    "relu": functools.partial(mobile, limit=None),
    "various": various,
}


@functools.cache
def floats(name: str) -> bytes:
    """The float TFLite of one of them."""
    tf_keras.utils.set_random_seed(0)
    image, scores = NETWORKS[name]()
    model = tf_keras.Model(image, scores)
    for layer in model.layers:
        for weight in layer.weights:
            if "kernel" in weight.name:
                weight.assign(3 * weight)
    return press(Model("tf_keras", model), "float32", "tflite", images(), output="softmax")


def quantized_graph(name: str) -> QuantizedGraph:
    """The calibrated quantized graph."""
    return quantized.start(floats(name), INT8, "int8", images())


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    """The SQNR in dB of the part that differs from image to image."""
    mean = reference.mean(axis=0)
    return 10 * np.log10(((reference - mean) ** 2).sum() / ((reference - other) ** 2).sum())
