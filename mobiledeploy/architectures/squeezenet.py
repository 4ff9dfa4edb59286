"""SqueezeNet 1.0, row for row the paper's Table 1, and the authors' later, cheaper 1.1.

The table's first convolution makes 111x111 of 224x224 with a 7x7 kernel of stride 2, which takes
three rows and columns of zeros: (1, 2) here. Nothing else is padded but the 3x3 convolutions of the
fire modules. A ReLU follows conv10, as in the authors' code.
"""

from typing import Any, NamedTuple

import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import UsageError
from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "F. N. Iandola et al. 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and "
    "<0.5MB model size, Table 1, https://arxiv.org/abs/1602.07360; 1.1: "
    "https://github.com/forresti/SqueezeNet"
)

FIRES = (
    (2, 16, 64),
    (3, 16, 64),
    (4, 32, 128),
    (5, 32, 128),
    (6, 48, 192),
    (7, 48, 192),
    (8, 64, 256),
    (9, 64, 256),
)
"""(number, squeeze 1x1 filters, expand filters, of 1x1 and of 3x3 alike) of the fire modules."""


class Variant(NamedTuple):
    """The two versions differ in the first convolution, and in the fires followed by a pool."""

    kernel: int
    filters: int
    padding: tuple[int, int]
    pools: tuple[int, ...]


VARIANTS = {
    "1.0": Variant(kernel=7, filters=96, padding=(1, 2), pools=(4, 8)),
    "1.1": Variant(kernel=3, filters=64, padding=(0, 0), pools=(3, 5)),
}

DROPOUT = 0.5


def build(*, variant: str, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """SqueezeNet with fresh weights.

    Args:
        variant: "1.0" or "1.1".
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
        raise UsageError(f"SqueezeNet has no variant {variant!r}", f"it has {', '.join(VARIANTS)}")
    kernel, filters, padding, pools = VARIANTS[variant]
    image = layers.Input((*resolution, 3), name="image")
    x = image
    if any(padding):
        x = layers.ZeroPadding2D((padding, padding), name="conv1_pad")(x)
    x = layers.Conv2D(filters, kernel, 2, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(3, 2, name="maxpool1")(x)
    for number, squeeze, expand in FIRES:
        x = _fire(x, squeeze, expand, f"fire{number}")
        if number in pools:
            x = layers.MaxPooling2D(3, 2, name=f"maxpool{number}")(x)
    if classes is None:
        x = layers.GlobalAveragePooling2D(name="avgpool9")(x)
        return embedding(image, x, "squeezenet")
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    x = layers.Conv2D(classes, 1, activation="relu", name="conv10")(x)
    x = layers.GlobalAveragePooling2D(name="avgpool10")(x)
    scores = layers.Activation("softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="squeezenet")


def _fire(x: Any, squeeze: int, expand: int, name: str) -> Any:
    """The paper's Figure 1."""
    x = layers.Conv2D(squeeze, 1, activation="relu", name=f"{name}_squeeze1x1")(x)
    narrow = layers.Conv2D(expand, 1, activation="relu", name=f"{name}_expand1x1")(x)
    wide = layers.Conv2D(expand, 3, padding="same", activation="relu", name=f"{name}_expand3x3")(x)
    return layers.Concatenate(name=f"{name}_concat")([narrow, wide])
