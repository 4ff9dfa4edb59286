"""AlexNet as its paper has it: two towers, which are groups of two, and response normalisation.

The paper's input of 224x224 does not give its 55x55 outputs without padding: three rows and columns
of zeros are put around it here, (1, 2), which makes the 227x227 that other sources take.

60.97 M parameters and 724 M mult-adds, which Howard et al. 2017 and Zhang et al. 2017 print as
720 M. Sources that count 1132 M mult-adds and 62.38 M parameters have joined the two towers: their
convolutions 2, 4 and 5 read all channels.
"""

from functools import partial

import tf_keras
from tf_keras import layers

from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from mobiledeploy.frameworks.heads import embedding
from mobiledeploy.frameworks.response_normalization import LocalResponseNormalization

PAPER = (
    "A. Krizhevsky, I. Sutskever, G. E. Hinton 2012, ImageNet Classification with Deep "
    "Convolutional Neural Networks, section 3.5 and Figure 2, "
    "https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks"
)

CONVOLUTIONS = (
    (1, 96, 11, 4, 1, True, True),
    (2, 256, 5, 1, 2, True, True),
    (3, 384, 3, 1, 1, False, False),
    (4, 384, 3, 1, 2, False, False),
    (5, 256, 3, 1, 2, False, True),
)
"""(number, filters, kernel, stride, groups, normalised, pooled)."""

DENSE = (6, 4096), (7, 4096)
"""(number, width) of the fully connected layers before the last."""

NORMALISATION = partial(LocalResponseNormalization, size=5, alpha=1e-4, beta=0.75, bias=2.0)
"""With the paper's n, alpha, beta and k (section 3.3)."""

PADDING = (1, 2)
DROPOUT = 0.5


def build(*, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """AlexNet with fresh weights.

    Args:
        resolution: (height, width) of the input in pixels, each from 64 to 256.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3], to softmax probabilities, float32
        [N, classes]; or to the last features, `embedding` [N, C].

    Source: `PAPER`.
    """
    image = layers.Input((*resolution, 3), name="image")
    x = layers.ZeroPadding2D((PADDING, PADDING), name="conv1_pad")(image)
    for number, filters, kernel, stride, groups, has_normalisation, has_pool in CONVOLUTIONS:
        convolution = layers.Conv2D if groups == 1 else GroupedConv2D
        x = convolution(
            filters,
            kernel,
            stride,
            padding="same" if stride == 1 else "valid",
            groups=groups,
            activation="relu",
            name=f"conv{number}",
        )(x)
        if has_normalisation:
            x = NORMALISATION(name=f"norm{number}")(x)
        if has_pool:
            x = layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, units in DENSE:
        x = layers.Dense(units, activation="relu", name=f"fc{number}")(x)
        x = layers.Dropout(DROPOUT, name=f"drop{number}")(x)
    if classes is None:
        return embedding(image, x, "alexnet")
    x = layers.Dense(classes, name="fc8")(x)
    scores = layers.Activation("softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="alexnet")
