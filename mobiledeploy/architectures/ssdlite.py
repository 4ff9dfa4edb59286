"""SSDLite: SSD whose prediction layers are separable convolutions, on another network.

The backbone is the network of another card, without its classifier. Two of its feature maps are
read, of stride 16 and 32. Four feature layers follow, each half as large as the one before. From
each of the six maps, one depthwise and one 1x1 convolution predict offsets of boxes, and two others
the classes.

The paper says no more than that. The rest is that of its authors' code, TensorFlow's Object
Detection API: `ssdlite_mobilenet_v1_coco.config` and `ssdlite_mobilenet_v2_coco.config`, its
`feature_map_generators`, `convolutional_box_predictor` and `ssd_anchor_generator`.

Here differs from it: there is no score for the background, since each class has a sigmoid of its
own and the loss is a focal one, which needs none. At 80 classes that is 1 of 81 numbers for each
anchor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.types import AnchorLevel, Anchors

PAPER = (
    "M. Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks, section 6.2, "
    "https://arxiv.org/abs/1801.04381; W. Liu et al. 2016, SSD: Single Shot MultiBox Detector, "
    "https://arxiv.org/abs/1512.02325"
)

FEATURES = {
    # Of stride 16 the expansion of the first block of stride 32, of stride 32 the last layer.
    "mobilenet_v1": ("conv_pw_11_relu", "conv_pw_13_relu"),
    "mobilenet_v2": ("block_13_expand_relu", "out_relu"),
}
"""For each backbone the layers whose outputs are read."""
STRIDES = (16, 32)
EXTRA = (512, 256, 256, 128)
"""Filters of the feature layers behind the backbone; alpha scales them, to 16 at least."""
FEWEST_FILTERS = 16

SMALLEST, LARGEST = 0.2, 0.95
"""Scales of the anchors of the first and the last map, as fractions of the input."""
RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
"""Width over height. One more square has the mean of this scale and the next one."""
FIRST = ((0.1, 1.0), (SMALLEST, 2.0), (SMALLEST, 1 / 2))
"""(scale, ratio) of the first map, which has fewer anchors."""
SCALES = (10.0, 10.0, 5.0, 5.0)
"""What offsets of boxes are multiplied by: those of the API's faster_rcnn_box_coder."""
DIGITS = 6
"""Decimal places of the anchors: records hold what is computed with."""

EPSILON = 1e-3
PRIOR = 0.01
"""The score of every anchor before training. Else the loss of the background, which is nearly
everywhere, would outweigh all others: T.-Y. Lin et al. 2017, Focal Loss for Dense Object
Detection, section 3.3, https://arxiv.org/abs/1708.02002."""


def build(
    *, backbone: str, alpha: float, resolution: tuple[int, int], classes: int
) -> tf_keras.Model:
    """SSDLite with fresh weights.

    Args:
        backbone: the architecture that it stands on, one of `FEATURES`; UsageError for another.
        alpha: width multiplier of the backbone and of the feature layers, > 0.
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes, without the background.

    Returns:
        A model from `image`, float32 [N, height, width, 3] scaled to [-1, 1], to `boxes`, float32
        [N, A, 4], offsets (ty, tx, th, tw) from the A boxes of `anchors`, and to `scores`, float32
        [N, A, classes], a sigmoid for each class.

    Source: `PAPER`.
    """
    if backbone not in FEATURES:
        raise UsageError(f"SSDLite has no backbone {backbone!r}", f"it has {', '.join(FEATURES)}")
    body = ARCHITECTURES.load(backbone).build(alpha=alpha, resolution=resolution, classes=2)
    maps = [body.get_layer(name).output for name in FEATURES[backbone]]
    x = maps[-1]
    for number, filters in enumerate(EXTRA, start=len(maps) + 1):
        depth = max(FEWEST_FILTERS, int(filters * alpha))
        x = _feature(x, f"feature_{number}", depth)
        maps.append(x)
    levels = anchors(backbone=backbone, alpha=alpha, resolution=resolution).levels
    boxes: list[Any] = []
    scores: list[Any] = []
    for number, (x, level) in enumerate(zip(maps, levels, strict=True), start=1):
        count = level.grid[0] * level.grid[1] * len(level.sizes)
        for name, size, parts, bias in (
            ("boxes", 4, boxes, 0.0),
            ("scores", classes, scores, -math.log((1 - PRIOR) / PRIOR)),
        ):
            head = _head(x, f"{name}_{number}", len(level.sizes) * size, bias)
            parts.append(layers.Reshape((count, size), name=f"{name}_{number}_rows")(head))
    outputs = [
        layers.Concatenate(axis=1, name="boxes")(boxes),
        layers.Activation("sigmoid", name="scores")(
            layers.Concatenate(axis=1, name="logits")(scores)
        ),
    ]
    return tf_keras.Model(body.input, outputs, name=f"ssdlite_{backbone}")


def anchors(*, backbone: str, alpha: float, resolution: tuple[int, int]) -> Anchors:
    """The anchors of the six maps: three boxes at each place of the first one, six at the others.

    The feature maps have the same sizes for any backbone and any alpha.
    """
    grids = [(math.ceil(resolution[0] / s), math.ceil(resolution[1] / s)) for s in STRIDES]
    for _ in EXTRA:
        rows, columns = grids[-1]
        grids.append((math.ceil(rows / 2), math.ceil(columns / 2)))
    scales = [*np.linspace(SMALLEST, LARGEST, len(grids)).tolist(), 1.0]
    levels = []
    for number, grid in enumerate(grids):
        shapes = [(scales[number], ratio) for ratio in RATIOS]
        shapes.append((math.sqrt(scales[number] * scales[number + 1]), 1.0))
        sizes = tuple(
            (round(scale / math.sqrt(ratio), DIGITS), round(scale * math.sqrt(ratio), DIGITS))
            for scale, ratio in (shapes if number else FIRST)
        )
        levels.append(AnchorLevel(grid, sizes))
    return Anchors(tuple(levels), SCALES)


def _feature(x: Any, name: str, filters: int) -> Any:
    """A map of half the size: 1x1 to half the filters, depthwise 3x3 of stride 2, 1x1."""
    x = _convolution(x, f"{name}_reduce", filters // 2)
    x = _depthwise(x, f"{name}_depthwise", 2)
    return _convolution(x, f"{name}_expand", filters)


def _head(x: Any, name: str, filters: int, bias: float) -> Any:
    """Depthwise 3x3 and a 1x1 convolution without an activation."""
    x = _depthwise(x, f"{name}_depthwise", 1)
    start = tf_keras.initializers.Constant(bias)
    return layers.Conv2D(filters, 1, padding="same", bias_initializer=start, name=f"{name}_head")(x)


def _convolution(x: Any, name: str, filters: int) -> Any:
    return _batch_norm(layers.Conv2D(filters, 1, use_bias=False, name=name)(x), name)


def _depthwise(x: Any, name: str, stride: int) -> Any:
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=name)(x)
    return _batch_norm(x, name)


def _batch_norm(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)
