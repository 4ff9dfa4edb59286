"""ShuffleNet v1, row for row the paper's Table 1."""

from typing import Any

import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import UsageError
from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "X. Zhang, X. Zhou, M. Lin, J. Sun 2017, ShuffleNet: An Extremely Efficient Convolutional "
    "Neural Network for Mobile Devices, Table 1, https://arxiv.org/abs/1707.01083"
)

STEM = 24
"""Filters of the first, full 3x3 convolution of stride 2; a max pool of stride 2 follows."""

STEM_AT = {1.5: 24}
"""alpha: stem that is not scaled, in the authors' code; only so are 1.5x its 292 M mult-adds."""

STAGES = ((2, 1, 4), (3, 2, 8), (4, 4, 4))
"""(stage, its width over that of stage 2, units); the first unit of a stage has stride 2."""

WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""groups: output channels of stage 2, chosen by the paper for 140 M mult-adds at any groups."""

BOTTLENECK = 4
"""Output channels of a unit over those of its bottleneck."""

EPSILON = 1e-3


def width(channels: int, alpha: float, groups: int) -> int:
    """Output channels of a stage at scale factor `alpha`, rounded down.

    UsageError where `groups` do not divide them.
    """
    filters_ = int(channels * alpha)
    if filters_ < groups or filters_ % groups:
        raise UsageError(
            f"alpha {alpha:g} makes {channels} channels {filters_}, which {groups} groups do not "
            "divide",
            "the paper has alpha 0.25, 0.5, 1, 1.5 and 2",
        )
    return filters_


def inner_width(channels: float, groups: int) -> int:
    """Channels of the stem and of bottlenecks, rounded up to a multiple of `groups`.

    The paper does not say how it rounds what its groups do not divide (34 channels in 4 groups at
    0.5x); the authors' code for 0.5x in 8 groups has this for the stem, 16 for 12.
    """
    return max(1, -(-int(channels) // groups)) * groups


def build(
    *, alpha: float, groups: int, resolution: tuple[int, int], classes: int | None
) -> tf_keras.Model:
    """ShuffleNet v1 with fresh weights.

    Args:
        alpha: the paper's scale factor s, > 0; `width` and `inner_width` say how it rounds.
        groups: of the pointwise convolutions, one of the paper's 1, 2, 3, 4, 8.
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3], to softmax probabilities, float32
        [N, classes]; or to pooled features, `embedding` [N, C].

    Raises:
        UsageError: groups that the table does not have, or that do not divide the channels.

    Source: `PAPER`.
    """
    if groups not in WIDTHS:
        raise UsageError(
            f"ShuffleNet v1 has no table for {groups} groups",
            f"it has {', '.join(map(str, WIDTHS))}",
        )
    image = layers.Input((*resolution, 3), name="image")
    stem = inner_width(STEM_AT.get(alpha, STEM * alpha), groups)
    x = layers.Conv2D(stem, 3, 2, padding="same", use_bias=False, name="conv1")(image)
    x = _batch_norm(x, "conv1", relu=True)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    for stage, factor, units in STAGES:
        filters = width(WIDTHS[groups] * factor, alpha, groups)
        for unit in range(1, units + 1):
            # The stem has few channels: the first pointwise convolution is not grouped.
            first = 1 if (stage, unit) == (2, 1) else groups
            x = _unit(x, f"stage{stage}_unit{unit}", filters, groups, first, 2 if unit == 1 else 1)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if classes is None:
        return embedding(image, x, "shufflenet_v1")
    x = layers.Dense(classes, name="fc")(x)
    scores = layers.Activation("softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="shufflenet_v1")


def _unit(x: Any, name: str, filters: int, groups: int, first: int, stride: int) -> Any:
    """The paper's Figure 2b, or for stride 2 its Figure 2c, which concatenates to `filters`."""
    before = x
    inner = inner_width(filters / BOTTLENECK, groups)
    new_filters = filters if stride == 1 else filters - x.shape[-1]
    x = _pointwise(x, inner, first, f"{name}_compress")
    x = _batch_norm(x, f"{name}_compress", relu=True)
    if groups > 1:
        x = _shuffled(x, groups, f"{name}_shuffle")
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(
        x
    )
    x = _batch_norm(x, f"{name}_depthwise", relu=False)
    x = _pointwise(x, new_filters, groups, f"{name}_expand")
    x = _batch_norm(x, f"{name}_expand", relu=False)
    if stride == 1:
        x = layers.Add(name=f"{name}_add")([before, x])
    else:
        before = layers.AveragePooling2D(3, 2, padding="same", name=f"{name}_pool")(before)
        x = layers.Concatenate(name=f"{name}_concat")([before, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _pointwise(x: Any, filters: int, groups: int, name: str) -> Any:
    if groups == 1:
        return layers.Conv2D(filters, 1, use_bias=False, name=name)(x)
    return GroupedConv2D(filters, 1, groups=groups, use_bias=False, name=name)(x)


def _shuffled(x: Any, groups: int, name: str) -> Any:
    """Channel shuffle: [g, n] channels to [n, g], so that each group reads from all of them."""
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width, groups, channels // groups), name=f"{name}_split")(x)
    x = layers.Permute((1, 2, 4, 3), name=f"{name}_transpose")(x)
    return layers.Reshape((height, width, channels), name=f"{name}_merge")(x)


def _batch_norm(x: Any, name: str, *, relu: bool) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x
