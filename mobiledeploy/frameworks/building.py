"""A card's architecture as a live model, with its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tf_keras

from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.types import Model, ModelSpec
from mobiledeploy.frameworks import tf_keras as loader

SEED = 20170417


def build(spec: ModelSpec, weights: Path | None) -> Model:
    """The model that `spec` describes, with the weights of a Keras 2 file or, without, random ones.

    Random weights are the same each time and keep the size of activations (He et al. 2015,
    arXiv:1502.01852), so that a quantized copy has something to quantize. InputError where the
    file does not fit.
    """
    handle = ARCHITECTURES.load(spec.architecture).build(
        **spec.arguments, resolution=spec.resolution, classes=spec.classes
    )
    model = Model("tf_keras", handle)
    if weights is not None:
        loader.load_weights(model, weights, alpha=spec.arguments.get("alpha"))
    else:
        _randomise(handle)
    return model


def _randomise(handle: tf_keras.Model) -> None:
    random = np.random.default_rng(SEED)
    for weight in handle.weights:
        if "kernel" in weight.name:
            height, width, channels, _ = weight.shape
            fan_in = height * width * (1 if "depthwise" in weight.name else channels)
            weight.assign(random.normal(0, (2 / fan_in) ** 0.5, weight.shape))
