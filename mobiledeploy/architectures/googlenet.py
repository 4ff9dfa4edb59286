"""GoogLeNet (Inception v1), row for row the paper's Table 1, without the auxiliary classifiers.

Those two are only used for training. Everything is padded SAME. The table does not list the
response normalisation; its place and its numbers are those of Figure 3 and of the Caffe model: the
sum of squares is divided by the window.
"""

from functools import partial
from typing import Any

import tf_keras
from tf_keras import layers

from mobiledeploy.frameworks.heads import embedding
from mobiledeploy.frameworks.response_normalization import LocalResponseNormalization

PAPER = (
    "C. Szegedy et al. 2014, Going Deeper with Convolutions, Table 1, "
    "https://arxiv.org/abs/1409.4842"
)

INCEPTIONS = (
    ("3a", 64, 96, 128, 16, 32, 32),
    ("3b", 128, 128, 192, 32, 96, 64),
    "pool3",
    ("4a", 192, 96, 208, 16, 48, 64),
    ("4b", 160, 112, 224, 24, 64, 64),
    ("4c", 128, 128, 256, 24, 64, 64),
    ("4d", 112, 144, 288, 32, 64, 64),
    ("4e", 256, 160, 320, 32, 128, 128),
    "pool4",
    ("5a", 256, 160, 320, 32, 128, 128),
    ("5b", 384, 192, 384, 48, 128, 128),
)
"""(name, filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection), or a pool."""

NORMALISATION = partial(LocalResponseNormalization, size=5, alpha=1e-4 / 5, beta=0.75, bias=1.0)
DROPOUT = 0.4


def build(*, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """GoogLeNet with fresh weights.

    Args:
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3], to softmax probabilities, float32
        [N, classes]; or to pooled features, `embedding` [N, C].

    Source: `PAPER`.
    """
    image = layers.Input((*resolution, 3), name="image")
    x = _convolution(image, 64, 7, "conv1", stride=2)
    x = _max_pool(x, "pool1")
    x = NORMALISATION(name="norm1")(x)
    x = _convolution(x, 64, 1, "conv2_reduce")
    x = _convolution(x, 192, 3, "conv2")
    x = NORMALISATION(name="norm2")(x)
    x = _max_pool(x, "pool2")
    for row in INCEPTIONS:
        x = _max_pool(x, row) if isinstance(row, str) else _inception(x, *row)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if classes is None:
        return embedding(image, x, "googlenet")
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    x = layers.Dense(classes, name="fc")(x)
    scores = layers.Activation("softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="googlenet")


def _inception(
    x: Any, name: str, one: int, reduce3: int, three: int, reduce5: int, five: int, project: int
) -> Any:
    """The paper's Figure 2b."""
    name = f"inception_{name}"
    pool_output = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    branches = (
        _convolution(x, one, 1, f"{name}_1x1"),
        _convolution(_convolution(x, reduce3, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
        _convolution(_convolution(x, reduce5, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"),
        _convolution(pool_output, project, 1, f"{name}_pool_proj"),
    )
    return layers.Concatenate(name=f"{name}_concat")(branches)


def _convolution(x: Any, filters: int, kernel: int, name: str, stride: int = 1) -> Any:
    return layers.Conv2D(filters, kernel, stride, padding="same", activation="relu", name=name)(x)


def _max_pool(x: Any, name: str) -> Any:
    return layers.MaxPooling2D(3, 2, padding="same", name=name)(x)
