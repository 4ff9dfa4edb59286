"""MobileNet v3, row for row the paper's Tables 1 and 2.

Layer names are those of Keras Applications, so that its published weight files load by name.
Padding is SAME everywhere; see mobilenet_v1.py.
"""

from typing import Any, NamedTuple

import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import UsageError
from mobiledeploy.frameworks.channels import divisible
from mobiledeploy.frameworks.hard_activations import HardSigmoid, HardSwish
from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "A. Howard et al. 2019, Searching for MobileNetV3, Tables 1 and 2, "
    "https://arxiv.org/abs/1905.02244"
)


class Bneck(NamedTuple):
    """A row of the tables."""

    kernel: int
    inner_filters: int
    """Channels inside, at alpha 1 ("exp size")."""
    channels: int
    squeeze: bool
    """Whether there is a squeeze and excite ("SE")."""
    swish: bool
    """Hard swish ("HS") and not ReLU ("RE")."""
    stride: int


LARGE = (
    Bneck(3, 16, 16, False, False, 1),
    Bneck(3, 64, 24, False, False, 2),
    Bneck(3, 72, 24, False, False, 1),
    Bneck(5, 72, 40, True, False, 2),
    Bneck(5, 120, 40, True, False, 1),
    Bneck(5, 120, 40, True, False, 1),
    Bneck(3, 240, 80, False, True, 2),
    Bneck(3, 200, 80, False, True, 1),
    Bneck(3, 184, 80, False, True, 1),
    Bneck(3, 184, 80, False, True, 1),
    Bneck(3, 480, 112, True, True, 1),
    Bneck(3, 672, 112, True, True, 1),
    Bneck(5, 672, 160, True, True, 2),
    Bneck(5, 960, 160, True, True, 1),
    Bneck(5, 960, 160, True, True, 1),
)

SMALL = (
    Bneck(3, 16, 16, True, False, 2),
    Bneck(3, 72, 24, False, False, 2),
    Bneck(3, 88, 24, False, False, 1),
    Bneck(5, 96, 40, True, True, 2),
    Bneck(5, 240, 40, True, True, 1),
    Bneck(5, 240, 40, True, True, 1),
    Bneck(5, 120, 48, True, True, 1),
    Bneck(5, 144, 48, True, True, 1),
    Bneck(5, 288, 96, True, True, 2),
    Bneck(5, 576, 96, True, True, 1),
    Bneck(5, 576, 96, True, True, 1),
)

VARIANTS = {
    "large": (LARGE, 1280, False),
    "small": (SMALL, 1024, False),
    "large_minimalistic": (LARGE, 1280, True),
    "small_minimalistic": (SMALL, 1024, True),
}
"""variant: (rows, filters of the last layer but one, minimalistic).

Minimalistic is without squeeze and excite, hard swish and 5x5 convolutions, for hardware that is
slow at them (TF-slim's README).
"""

STEM = 16
"""Filters of the first, full 3x3 convolution of stride 2; alpha does not change them."""
LAST_EXPANSION = 6
"""Filters of the last 1x1 convolution before the pool, over the channels that it reads."""
SQUEEZE = 4
"""Channels that a squeeze and excite reads, over those inside it."""
EPSILON = 1e-3
MOMENTUM = 0.999
DROPOUT = 0.2


def build(
    *,
    variant: str,
    alpha: float,
    resolution: tuple[int, int],
    classes: int | None,
    dense: bool = False,
) -> tf_keras.Model:
    """MobileNet v3 with fresh weights.

    Args:
        variant: one of `VARIANTS`.
        alpha: width multiplier, > 0; channels are rounded to multiples of 8.
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.
        dense: for segmentation (section 6.4): the last maps have a stride of 16 and not of 32, by
            atrous convolutions, and half as many channels.

    Returns:
        A model from `image`, float32 [N, height, width, 3] scaled to [-1, 1], to softmax
        probabilities, float32 [N, classes]; or to pooled features, `embedding` [N, C].

    Raises:
        UsageError: there is no such variant.

    Source: `PAPER`.
    """
    if variant not in VARIANTS:
        raise UsageError(
            f"MobileNet v3 has no variant {variant!r}", f"it has {', '.join(VARIANTS)}"
        )
    rows, last, minimalistic = VARIANTS[variant]
    swish = not minimalistic
    image = layers.Input((*resolution, 3), name="image")
    x = layers.Conv2D(STEM, 3, 2, padding="same", use_bias=False, name="Conv")(image)
    x = _activated(_batch_norm(x, "Conv"), "Conv", swish=swish)
    before = STEM
    last_stage = max(number for number, row in enumerate(rows) if row.stride == 2)
    for number, row in enumerate(rows):
        rate = 1
        if dense and number >= last_stage:
            # As in the authors' code, the layer that loses its stride is not atrous itself.
            rate = rows[last_stage].stride if number > last_stage else 1
            row = row._replace(
                inner_filters=row.inner_filters // 2, channels=row.channels // 2, stride=1
            )
        if minimalistic:
            row = row._replace(kernel=3, squeeze=False, swish=False)
        prefix = f"expanded_conv_{number}/" if number else "expanded_conv/"
        # The ratio of the table, of what is there at this alpha.
        inner_filters = divisible(x.shape[-1] * row.inner_filters / before)
        filters = divisible(row.channels * alpha)
        x = _bneck(x, prefix, row, inner_filters, filters, expand=bool(number), rate=rate)
        before = row.channels
    wide = divisible(x.shape[-1] * LAST_EXPANSION)
    x = layers.Conv2D(wide, 1, padding="same", use_bias=False, name="Conv_1")(x)
    x = _activated(_batch_norm(x, "Conv_1"), "Conv_1", swish=swish)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="global_average_pooling2d")(x)
    if classes is None:
        return embedding(image, x, f"mobilenet_v3_{variant}")
    filters = divisible(last * alpha) if alpha > 1 else last
    x = layers.Conv2D(filters, 1, padding="same", name="Conv_2")(x)
    x = _activated(x, "Conv_2", swish=swish)
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    x = layers.Conv2D(classes, 1, padding="same", name="Logits")(x)
    x = layers.Flatten(name="flatten")(x)
    scores = layers.Activation("softmax", name="Predictions")(x)
    return tf_keras.Model(image, scores, name=f"mobilenet_v3_{variant}")


def _bneck(
    x: Any, prefix: str, row: Bneck, inner_filters: int, filters: int, *, expand: bool, rate: int
) -> Any:
    """Expand, filter depthwise, squeeze and excite, project without an activation."""
    before = x
    if expand:
        name = f"{prefix}expand"
        x = layers.Conv2D(inner_filters, 1, padding="same", use_bias=False, name=name)(x)
        x = _activated(_batch_norm(x, name), name, swish=row.swish)
    name = f"{prefix}depthwise"
    x = layers.DepthwiseConv2D(
        row.kernel, row.stride, padding="same", dilation_rate=rate, use_bias=False, name=name
    )(x)
    x = _activated(_batch_norm(x, name), name, swish=row.swish)
    if row.squeeze:
        x = _squeezed_and_excited(x, f"{prefix}squeeze_excite", inner_filters)
    name = f"{prefix}project"
    x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=name)(x)
    x = _batch_norm(x, name)
    if row.stride == 1 and before.shape[-1] == filters:
        x = layers.Add(name=f"{prefix}Add")([before, x])
    return x


def _squeezed_and_excited(x: Any, name: str, channels: int) -> Any:
    """Each channel times a factor from 0 to 1 that comes from the means of all of them."""
    factor = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}/AvgPool")(x)
    factor = layers.Conv2D(divisible(channels / SQUEEZE), 1, padding="same", name=f"{name}/Conv")(
        factor
    )
    factor = layers.ReLU(name=f"{name}/Relu")(factor)
    factor = layers.Conv2D(channels, 1, padding="same", name=f"{name}/Conv_1")(factor)
    factor = HardSigmoid(name=f"{name}/HardSigmoid")(factor)
    return layers.Multiply(name=f"{name}/Mul")([x, factor])


def _batch_norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=f"{name}/BatchNorm")(
        x
    )


def _activated(x: Any, name: str, *, swish: bool) -> Any:
    return HardSwish(name=f"{name}/HardSwish")(x) if swish else layers.ReLU(name=f"{name}/Relu")(x)
