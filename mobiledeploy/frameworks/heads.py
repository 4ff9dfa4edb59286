"""Ends of networks without a classifier."""

from typing import Any

import tf_keras
from tf_keras import layers


def embedding(image: Any, features: Any, name: str) -> tf_keras.Model:
    """The network from `image` to `features`, [N, C] or [N, 1, 1, C], as `embedding` [N, C]."""
    vector = layers.Reshape((features.shape[-1],), name="embedding")(features)
    return tf_keras.Model(image, vector, name=name)
