"""Xception, layer for layer the paper's Figure 5.

Layer names are those of Keras Applications, so that its published weight file loads by name; the
convolutions of the shortcuts have the names that Keras makes up itself.
"""

from typing import Any

import tf_keras
from tf_keras import layers

from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "F. Chollet 2016, Xception: Deep Learning with Depthwise Separable Convolutions, Figure 5, "
    "https://arxiv.org/abs/1610.02357"
)

STEM = ((2, 32), (1, 64))
"""(stride, filters) of the two full 3x3 convolutions, which are not padded."""

ENTRY = ((2, 128, 128), (3, 256, 256), (4, 728, 728))
"""(block, filters of its separable convolutions); each block ends in a pool of stride 2."""

MIDDLE = (range(5, 13), (728, 728, 728))
"""Blocks that keep their size, and the filters of their separable convolutions."""

EXIT = (13, 728, 1024)
"""The last block with a pool; `TAIL` follows it."""

TAIL = (14, (1536, 2048))


def build(*, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """Xception with fresh weights.

    Args:
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3] scaled to [-1, 1], to softmax
        probabilities, float32 [N, classes]; or to pooled features, `embedding` [N, C].

    Source: `PAPER`.
    """
    image = layers.Input((*resolution, 3), name="image")
    x = image
    for number, (stride, filters) in enumerate(STEM, start=1):
        name = f"block1_conv{number}"
        x = layers.Conv2D(filters, 3, stride, use_bias=False, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        x = layers.Activation("relu", name=f"{name}_act")(x)
    for shortcut, (block, *widths) in enumerate((*ENTRY, EXIT)):
        if block == EXIT[0]:
            for middle in MIDDLE[0]:
                x = layers.Add(name=f"block{middle}_add")([_block(x, middle, MIDDLE[1]), x])
        x = _reduced(x, block, widths, f"_{shortcut}" if shortcut else "")
    for number, filters in enumerate(TAIL[1], start=1):
        name = f"block{TAIL[0]}_sepconv{number}"
        x = _separable(x, filters, name)
        x = layers.Activation("relu", name=f"{name}_act")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if classes is None:
        return embedding(image, x, "xception")
    scores = layers.Dense(classes, activation="softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="xception")


def _reduced(x: Any, block: int, widths: list[int], suffix: str) -> Any:
    """Separable convolutions and a pool, beside a shortcut of stride 2."""
    shortcut = layers.Conv2D(
        widths[-1], 1, 2, padding="same", use_bias=False, name=f"conv2d{suffix}"
    )(x)
    shortcut = layers.BatchNormalization(name=f"batch_normalization{suffix}")(shortcut)
    # The stem ends in a ReLU already.
    x = _block(x, block, widths, first_relu=block != ENTRY[0][0])
    x = layers.MaxPooling2D(3, 2, padding="same", name=f"block{block}_pool")(x)
    return layers.Add(name=f"block{block}_add")([x, shortcut])


def _block(
    x: Any, block: int, widths: tuple[int, ...] | list[int], *, first_relu: bool = True
) -> Any:
    for number, filters in enumerate(widths, start=1):
        name = f"block{block}_sepconv{number}"
        if number > 1 or first_relu:
            x = layers.Activation("relu", name=f"{name}_act")(x)
        x = _separable(x, filters, name)
    return x


def _separable(x: Any, filters: int, name: str) -> Any:
    x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)
