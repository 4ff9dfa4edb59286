"""Models with wrappers around the layers that hold most of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tf_keras

from mobiledeploy.core.types import Model


def each_weighted_layer(model: Model, wrap: Callable[[Any], Any]) -> Model:
    """A new model in which `wrap` replaced the convolutions and the fully connected layers.

    Depthwise convolutions and all other layers are taken as they are. Layers and weights are the
    old model's own.
    """

    def replaced(layer: Any) -> Any:
        whole = isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense)
        depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        return wrap(layer) if whole and not depthwise else layer

    handle = tf_keras.models.clone_model(model.handle, clone_function=replaced)
    return Model(model.framework, handle)
