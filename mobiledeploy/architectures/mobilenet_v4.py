"""MobileNet v4, the convolutional networks Conv-S and Conv-M, row for row the paper's tables.

The block tables are those of the paper's appendix, as the authors' code has them
(https://github.com/tensorflow/models, official/vision/modeling/backbones/mobilenet.py). Conv-M so
built has 9.7 M parameters, as in timm, where the paper prints 9.2 M.
"""

from typing import Any, NamedTuple

import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import UsageError
from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "D. Qin et al. 2024, MobileNetV4: Universal Models for the Mobile Ecosystem, appendix, "
    "https://arxiv.org/abs/2404.10518"
)


class Conv(NamedTuple):
    """A full convolution with batch normalisation and ReLU."""

    kernel: int
    stride: int
    filters: int


class Fused(NamedTuple):
    """Fused inverted bottleneck: a full 3x3 convolution that expands, and a projection."""

    stride: int
    filters: int
    expansion: int


class Uib(NamedTuple):
    """Universal inverted bottleneck (Figure 4): kernels of its two optional depthwise convolutions.

    Both: ExtraDW. `middle` alone: inverted bottleneck. `start` alone: ConvNeXt. Neither: FFN.
    """

    start: int
    middle: int
    stride: int
    filters: int
    expansion: int


VARIANTS = {
    "conv_s": (
        Conv(3, 2, 32),
        Conv(3, 2, 32),
        Conv(1, 1, 32),
        Conv(3, 2, 96),
        Conv(1, 1, 64),
        Uib(5, 5, 2, 96, 3),
        *4 * (Uib(0, 3, 1, 96, 2),),
        Uib(3, 0, 1, 96, 4),
        Uib(3, 3, 2, 128, 6),
        Uib(5, 5, 1, 128, 4),
        Uib(0, 5, 1, 128, 4),
        Uib(0, 5, 1, 128, 3),
        Uib(0, 3, 1, 128, 4),
        Uib(0, 3, 1, 128, 4),
        Conv(1, 1, 960),
    ),
    "conv_m": (
        Conv(3, 2, 32),
        Fused(2, 48, 4),
        Uib(3, 5, 2, 80, 4),
        Uib(3, 3, 1, 80, 2),
        Uib(3, 5, 2, 160, 6),
        Uib(3, 3, 1, 160, 4),
        Uib(3, 3, 1, 160, 4),
        Uib(3, 5, 1, 160, 4),
        Uib(3, 3, 1, 160, 4),
        Uib(3, 0, 1, 160, 4),
        Uib(0, 0, 1, 160, 2),
        Uib(3, 0, 1, 160, 4),
        Uib(5, 5, 2, 256, 6),
        Uib(5, 5, 1, 256, 4),
        Uib(3, 5, 1, 256, 4),
        Uib(3, 5, 1, 256, 4),
        Uib(0, 0, 1, 256, 4),
        Uib(3, 0, 1, 256, 4),
        Uib(3, 5, 1, 256, 2),
        Uib(5, 5, 1, 256, 4),
        Uib(0, 0, 1, 256, 4),
        Uib(0, 0, 1, 256, 4),
        Uib(5, 0, 1, 256, 2),
        Conv(1, 1, 960),
    ),
}
"""variant: its blocks, down to the global average pool."""

HEAD = 1280
"""Filters of the 1x1 convolution behind the pool."""

EPSILON = 1e-3
DROPOUT = 0.2


def build(*, variant: str, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """MobileNet v4 with fresh weights.

    Args:
        variant: "conv_s" or "conv_m".
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3], to softmax probabilities, float32
        [N, classes]; or to pooled features, `embedding` [N, C].

    Raises:
        UsageError: another variant.

    Source: `PAPER`.
    """
    if variant not in VARIANTS:
        raise UsageError(
            f"MobileNet v4 has no variant {variant!r}", f"it has {', '.join(VARIANTS)}"
        )
    image = layers.Input((*resolution, 3), name="image")
    x = image
    for number, block in enumerate(VARIANTS[variant], start=1):
        name = f"block{number}"
        if isinstance(block, Conv):
            x = _convolution(x, *block, name)
        elif isinstance(block, Fused):
            inner_filters = x.shape[-1] * block.expansion
            x = _convolution(x, 3, block.stride, inner_filters, f"{name}_expand")
            x = _convolution(x, 1, 1, block.filters, f"{name}_project", relu=False)
        else:
            x = _uib(x, block, name)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    if classes is None:
        return embedding(image, x, f"mobilenet_v4_{variant}")
    x = _convolution(x, 1, 1, HEAD, "head")
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    x = layers.Dense(classes, name="fc")(x)
    scores = layers.Activation("softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name=f"mobilenet_v4_{variant}")


def _uib(x: Any, block: Uib, name: str) -> Any:
    """The stride is in the middle depthwise convolution where there is one, else in the first."""
    before = x
    inner_filters = x.shape[-1] * block.expansion
    if block.start:
        stride = 1 if block.middle else block.stride
        x = _depthwise(x, block.start, stride, f"{name}_start", relu=False)
    x = _convolution(x, 1, 1, inner_filters, f"{name}_expand")
    if block.middle:
        x = _depthwise(x, block.middle, block.stride, f"{name}_middle", relu=True)
    x = _convolution(x, 1, 1, block.filters, f"{name}_project", relu=False)
    if block.stride == 1 and before.shape[-1] == block.filters:
        x = layers.Add(name=f"{name}_add")([before, x])
    return x


def _convolution(
    x: Any, kernel: int, stride: int, filters: int, name: str, *, relu: bool = True
) -> Any:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _batch_norm(x, name, relu=relu)


def _depthwise(x: Any, kernel: int, stride: int, name: str, *, relu: bool) -> Any:
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _batch_norm(x, name, relu=relu)


def _batch_norm(x: Any, name: str, *, relu: bool) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x
