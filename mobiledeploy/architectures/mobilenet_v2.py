"""MobileNet v2, row for row the paper's Table 2.

Layer names are those of Keras Applications, so that its published weight files load by name.
Padding is SAME everywhere; see mobilenet_v1.py.
"""

from typing import Any

import tf_keras
from tf_keras import layers

from mobiledeploy.frameworks.channels import divisible
from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "M. Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks, Table 2, "
    "https://arxiv.org/abs/1801.04381"
)

STEM = 32
"""Filters of the first, full 3x3 convolution of stride 2."""

BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion t, output channels c, repeats n, stride s of the first of them)."""

LAST = 1280
"""Filters of the last 1x1 convolution, which an alpha below 1 does not narrow."""

EPSILON = 1e-3
MOMENTUM = 0.999


def build(*, alpha: float, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """MobileNet v2 with fresh weights.

    Args:
        alpha: width multiplier, > 0; channels are rounded to multiples of 8.
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3] scaled to [-1, 1], to softmax
        probabilities, float32 [N, classes]; or to pooled features, `embedding` [N, C].

    Source: `PAPER`.
    """
    image = layers.Input((*resolution, 3), name="image")
    x = layers.Conv2D(divisible(STEM * alpha), 3, 2, padding="same", use_bias=False, name="Conv1")(
        image
    )
    x = _batch_norm(x, "bn_Conv1", "Conv1_relu")
    number = 0
    for expansion, channels, repeats, first_stride in BOTTLENECKS:
        for repeat in range(repeats):
            name = f"block_{number}_" if number else "expanded_conv_"
            stride = 1 if repeat else first_stride
            x = _bottleneck(x, name, expansion, divisible(int(channels * alpha)), stride)
            number += 1
    last = divisible(LAST * alpha) if alpha > 1 else LAST
    x = layers.Conv2D(last, 1, use_bias=False, name="Conv_1")(x)
    x = _batch_norm(x, "Conv_1_bn", "out_relu")
    x = layers.GlobalAveragePooling2D(name="global_average_pooling2d")(x)
    if classes is None:
        return embedding(image, x, "mobilenet_v2")
    scores = layers.Dense(classes, activation="softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="mobilenet_v2")


def _bottleneck(x: Any, name: str, expansion: int, filters: int, stride: int) -> Any:
    """The paper's Table 1: expand, filter depthwise, project without an activation."""
    before = x
    if expansion > 1:
        inner = expansion * x.shape[-1]
        x = layers.Conv2D(inner, 1, padding="same", use_bias=False, name=f"{name}expand")(x)
        x = _batch_norm(x, f"{name}expand_BN", f"{name}expand_relu")
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}depthwise")(
        x
    )
    x = _batch_norm(x, f"{name}depthwise_BN", f"{name}depthwise_relu")
    x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=f"{name}project")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=f"{name}project_BN")(x)
    if stride == 1 and before.shape[-1] == filters:
        x = layers.Add(name=f"{name}add")([before, x])
    return x


def _batch_norm(x: Any, name: str, activation: str) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=name)(x)
    return layers.ReLU(6.0, name=activation)(x)
