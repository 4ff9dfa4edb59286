"""Wraps the layers of a model that hold most of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tf_keras

from mobiledeploy.core.types import Model


def each_weighted_layer(model: Model, wrap: Callable[[Any], Any]) -> Model:
    """A new model in which `wrap` replaced the convolutions and the fully connected layers.

    Depthwise convolutions and all other layers stay the same. The new model shares layers and
    weights with the old one.
    """

    def wrap_layer(layer: Any) -> Any:
        whole = isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense)
        depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
        return wrap(layer) if whole and not depthwise else layer

    handle = tf_keras.models.clone_model(model.handle, clone_function=wrap_layer)
    return Model(model.framework, handle)
