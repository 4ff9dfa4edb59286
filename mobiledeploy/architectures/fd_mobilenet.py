"""FD-MobileNet: MobileNet v1's blocks with the resolution taken down in the first of them."""

from typing import Any

import tf_keras
from tf_keras import layers

from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "Z. Qin, Z. Zhang, X. Chen, Y. Peng 2018, FD-MobileNet: Improved MobileNet with a Fast "
    "Downsampling Strategy, Table 1, https://arxiv.org/abs/1802.03750"
)

STEM = (2, 32)
"""(stride, filters) of the first, full 3x3 convolution."""

BLOCKS = (
    (2, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 1024),
)
"""(stride, filters) of the blocks: stride of the depthwise, filters of the pointwise."""

EPSILON = 1e-3


def build(*, alpha: float, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """FD-MobileNet with fresh weights.

    Args:
        alpha: width multiplier, > 0; channels are rounded down.
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3] scaled to [-1, 1], to softmax
        probabilities, float32 [N, classes]; or to pooled features, `embedding` [N, C].

    Source: `PAPER`.
    """
    image = layers.Input((*resolution, 3), name="image")
    stride, filters = STEM
    x = _convolution(image, "conv1", max(1, int(filters * alpha)), 3, stride)
    for number, (stride, filters) in enumerate(BLOCKS, start=1):
        x = layers.DepthwiseConv2D(
            3, stride, padding="same", use_bias=False, name=f"conv_dw_{number}"
        )(x)
        x = _batch_norm(x, f"conv_dw_{number}")
        x = _convolution(x, f"conv_pw_{number}", max(1, int(filters * alpha)), 1, 1)
    x = layers.GlobalAveragePooling2D(name="global_average_pooling2d")(x)
    if classes is None:
        return embedding(image, x, "fd_mobilenet")
    x = layers.Dense(classes, name="fc")(x)
    scores = layers.Activation("softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="fd_mobilenet")


def _convolution(x: Any, name: str, filters: int, kernel: int, stride: int) -> Any:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _batch_norm(x, name)


def _batch_norm(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
