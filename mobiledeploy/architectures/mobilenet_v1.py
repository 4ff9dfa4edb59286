"""MobileNet v1, layer for layer the paper's Table 1, and the two networks of its comparison.

Layer names are those of Keras Applications, so that its published weight files load by name.
Padding is SAME everywhere, which rounds odd sizes up; Keras Applications pads by zeros and then
convolves VALID, which is the same for even sizes only.
"""

from typing import Any

import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import UsageError
from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "A. G. Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile "
    "Vision Applications, Table 1, https://arxiv.org/abs/1704.04861"
)

STEM = (2, 32)
"""(stride, filters) of the first, full 3x3 convolution."""

BLOCKS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    # The paper lists stride 2 here too, but its output of 7x7 and its mult-adds need stride 1.
    (1, 1024),
)
"""(stride, filters) of the 13 blocks: stride of the depthwise, filters of the pointwise."""

SHALLOW = (*BLOCKS[:6], *BLOCKS[11:])
"""Without the five blocks of 14x14x512: the paper's Table 5."""

VARIANTS = ("separable", "shallow", "full")
"""`full`: one full 3x3 convolution for each block, "Conv MobileNet" of the paper's Table 4."""

EPSILON = 1e-3
DROPOUT = 1e-3


def width(filters: int, alpha: float) -> int:
    """Channels at width multiplier `alpha`: rounded down as in Keras Applications, at least 1."""
    return max(1, int(filters * alpha))


def build(
    *, alpha: float, resolution: tuple[int, int], classes: int | None, variant: str = "separable"
) -> tf_keras.Model:
    """MobileNet v1 with fresh weights.

    Args:
        alpha: width multiplier, > 0; `width` says how it rounds.
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.
        variant: one of `VARIANTS`; UsageError for another.

    Returns:
        A model from `image`, float32 [N, height, width, 3] scaled to [-1, 1], to softmax
        probabilities, float32 [N, classes]; or to pooled features, `embedding` [N, C].

    Source: `PAPER`.
    """
    if variant not in VARIANTS:
        raise UsageError(
            f"MobileNet v1 has no variant {variant!r}", f"it has {', '.join(VARIANTS)}"
        )
    image = layers.Input((*resolution, 3), name="image")
    stride, filters = STEM
    x = _convolution(image, "conv1", width(filters, alpha), 3, stride)
    blocks = SHALLOW if variant == "shallow" else BLOCKS
    for number, (stride, filters) in enumerate(blocks, start=1):
        if variant == "full":
            x = _convolution(x, f"conv_full_{number}", width(filters, alpha), 3, stride)
            continue
        x = layers.DepthwiseConv2D(
            3, stride, padding="same", use_bias=False, name=f"conv_dw_{number}"
        )(x)
        x = _batch_norm(x, f"conv_dw_{number}")
        x = _convolution(x, f"conv_pw_{number}", width(filters, alpha), 1, 1)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="global_average_pooling2d")(x)
    if classes is None:
        return embedding(image, x, "mobilenet_v1")
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    x = layers.Conv2D(classes, 1, padding="same", name="conv_preds")(x)
    x = layers.Reshape((classes,), name="reshape_2")(x)
    scores = layers.Activation("softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="mobilenet_v1")


def _convolution(x: Any, name: str, filters: int, kernel: int, stride: int) -> Any:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _batch_norm(x, name)


def _batch_norm(x: Any, name: str) -> Any:
    """Batch normalisation and ReLU6, as after every convolution but the last."""
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)
