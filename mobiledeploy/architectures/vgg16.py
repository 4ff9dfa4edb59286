"""VGG-16, configuration D of the paper's Table 1.

Layer names are those of Keras Applications, so that its published weight file loads by name.
"""

import tf_keras
from tf_keras import layers

from mobiledeploy.frameworks.heads import embedding

PAPER = (
    "K. Simonyan, A. Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image "
    "Recognition, Table 1, https://arxiv.org/abs/1409.1556"
)

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""(convolutions, filters) of the five blocks; a max pool of stride 2 ends each."""

DENSE = 4096
"""Width of the two fully connected layers before the last."""

DROPOUT = 0.5


def build(*, resolution: tuple[int, int], classes: int | None) -> tf_keras.Model:
    """VGG-16 with fresh weights.

    Args:
        resolution: (height, width) of the input in pixels, each from 32 to 224; the first fully
            connected layer grows with it.
        classes: number of classes; None leaves out the classifier.

    Returns:
        A model from `image`, float32 [N, height, width, 3], to softmax probabilities, float32
        [N, classes]; or to the last features, `embedding` [N, C].

    Source: `PAPER`.
    """
    image = layers.Input((*resolution, 3), name="image")
    x = image
    for block, (convolutions, filters) in enumerate(BLOCKS, start=1):
        for number in range(1, convolutions + 1):
            x = layers.Conv2D(
                filters, 3, padding="same", activation="relu", name=f"block{block}_conv{number}"
            )(x)
        x = layers.MaxPooling2D(2, 2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = layers.Dense(DENSE, activation="relu", name=f"fc{number}")(x)
        x = layers.Dropout(DROPOUT, name=f"dropout{number}")(x)
    if classes is None:
        return embedding(image, x, "vgg16")
    scores = layers.Dense(classes, activation="softmax", name="predictions")(x)
    return tf_keras.Model(image, scores, name="vgg16")
