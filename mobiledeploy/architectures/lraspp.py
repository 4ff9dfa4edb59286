"""Lite R-ASPP: segmentation on MobileNet v3, the paper's section 6.4 and Figure 10.

The backbone is the network of another card, without its classifier. Its last map has a stride of
16, by atrous convolutions in the last block, and half as many channels there. One branch is a 1x1
convolution of it, which is weighted by another one of its mean. The sum of the scores of this map
and of those of an earlier one of stride 8 is resized to the input.

What the paper leaves open is as in its authors' code, DeepLab of TensorFlow's models
(`feature_extractor.py`, `model.py`, flags in `g3doc/model_zoo.md`): the map of stride 8 is that
behind a depthwise convolution, and the weights are hard sigmoids. The mean is over windows of 49 x
49 places with steps of (16, 20), as in the figure; a smaller map is one window.
"""

from __future__ import annotations

from typing import Any

import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.frameworks.hard_activations import HardSigmoid

PAPER = (
    "A. Howard et al. 2019, Searching for MobileNetV3, section 6.4 and Figure 10, "
    "https://arxiv.org/abs/1905.02244"
)

BACKBONES = {
    "mobilenet_v3_large": ("large", "expanded_conv_5/depthwise/Relu"),
    "mobilenet_v3_small": ("small", "expanded_conv_2/depthwise/Relu"),
}
"""Card of the backbone -> its variant of MobileNet v3, and the layer whose map of stride 8 is read.
"""
LAST = "Conv_1/HardSwish"
"""The layer whose map of stride 16 is read."""
FILTERS = 128
"""Filters of the head; the paper's tables have 256 too."""
WINDOW = 49
STEPS = (16, 20)
EPSILON = 1e-3
MOMENTUM = 0.999


def build(
    *, backbone: str, alpha: float, resolution: tuple[int, int], classes: int
) -> tf_keras.Model:
    """MobileNet v3 with Lite R-ASPP, with fresh weights.

    Args:
        backbone: the card that it stands on, one of `BACKBONES`; UsageError for another.
        alpha: width multiplier of the backbone, > 0.
        resolution: (height, width) of the input in pixels, each from 32 to 1024.
        classes: number of classes, with that of the background if there is one.

    Returns:
        A model from `image`, float32 [N, height, width, 3] scaled to [-1, 1], to `mask`, float32
        [N, height, width, classes]: logits of the classes of each pixel. There is no softmax: the
        class with the highest score is the same without it.

    Source: `PAPER`.
    """
    if backbone not in BACKBONES:
        raise UsageError(
            f"Lite R-ASPP has no backbone {backbone!r}", f"it has {', '.join(BACKBONES)}"
        )
    variant, early = BACKBONES[backbone]
    body = ARCHITECTURES.load("mobilenet_v3").build(
        variant=variant, alpha=alpha, resolution=resolution, classes=None, dense=True
    )
    low, high = (body.get_layer(name).output for name in (early, LAST))
    x = layers.Conv2D(FILTERS, 1, use_bias=False, name="aspp")(high)
    x = layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name="aspp_bn")(x)
    x = layers.ReLU(name="aspp_relu")(x)
    x = layers.Multiply(name="weighted")([x, _weights(high)])
    x = layers.Resizing(*low.shape[1:3], name="upsampled")(x)
    x = layers.Conv2D(classes, 1, name="scores_high")(x)
    x = layers.Add(name="scores")([x, layers.Conv2D(classes, 1, name="scores_low")(low)])
    mask = layers.Resizing(*resolution, name="mask")(x)
    return tf_keras.Model(body.input, mask, name=f"lraspp_{backbone}")


def _weights(x: Any) -> Any:
    """What each of the `FILTERS` channels is multiplied by, from 0 to 1."""
    height, width = x.shape[1:3]
    if max(height, width) > WINDOW:
        windows = (min(WINDOW, height), min(WINDOW, width))
        mean = layers.AveragePooling2D(windows, STEPS, name="aspp_pool")(x)
    else:
        mean = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_pool")(x)
    factor = layers.Conv2D(FILTERS, 1, name="aspp_weights")(mean)
    factor = HardSigmoid(name="aspp_sigmoid")(factor)
    if max(factor.shape[1:3]) > 1:
        factor = layers.Resizing(height, width, name="aspp_windows")(factor)
    return factor
