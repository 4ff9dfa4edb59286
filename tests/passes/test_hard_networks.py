"""Trained networks made hard on purpose: the float function is as it was, the ranges are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tf_keras

from mobiledeploy.architectures import mobilenet_v1
from mobiledeploy.core import preprocessing
from mobiledeploy.core.plugins import PASSES, RECIPES, dataset
from mobiledeploy.core.types import Model, Preprocessing
from mobiledeploy.frameworks import drafts
from mobiledeploy.frameworks import tf_keras as framework
from tests.conftest import REPOSITORY, press

SIZE = (96, 96)
INT8 = RECIPES.load("int8_ptq").RECIPE


def drawn(split, count):
    samples = dataset("demo").open("demo", split, resolution=SIZE, labels=())
    plain = Preprocessing((-1.0, 1.0))
    return np.stack([preprocessing.prepare(samples.image(i), plain, SIZE) for i in range(count)])


def uneven(model, pictures):
    """Channels between depthwise and pointwise scaled by up to a thousand, up and down again.

    Those alone that ReLU6 never clips, and only down: so is the function the same.
    """
    random = np.random.default_rng(0)
    scaled = 0
    for number in range(1, 14):
        norm = model.get_layer(f"conv_dw_{number}_bn")
        reader = model.get_layer(f"conv_pw_{number}")
        behind = tf_keras.Model(model.input, model.get_layer(f"conv_dw_{number}_relu").output)
        highest = behind.predict(pictures, verbose=0).max(axis=(0, 1, 2))
        factor = np.where(highest < 5.9, 10 ** random.uniform(-3, 0, highest.shape), 1)
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([gamma * factor, beta * factor, mean, variance])
        (kernel,) = reader.get_weights()
        reader.set_weights([kernel / factor[:, None]])
        scaled += np.count_nonzero(factor < 1)
    return scaled


@pytest.mark.slow
def test_channels_of_thousandfold_ranges_come_back_whole():
    calibration, fresh = drawn("calibration", 100), drawn("validation", 400)
    model = mobilenet_v1.build(alpha=0.5, resolution=SIZE, classes=12)
    weights = REPOSITORY / "models" / "weights" / "mobilenet_v1_0.5.h5"
    framework.load_weights(model, weights)
    before = model.predict(fresh, verbose=0)
    assert uneven(model, np.concatenate([calibration, fresh])) > 500
    np.testing.assert_allclose(model.predict(fresh, verbose=0), before, atol=1e-4)

    floats = press(Model("tf_keras", model), "float32", "tflite", calibration, output="softmax")
    reference = drafts.logits(floats, fresh).argmax(axis=1)

    def lost(passes, granularity="per-channel"):
        recipe = dataclasses.replace(INT8, granularity=granularity)
        draft = drafts.start(floats, recipe, "int8", calibration)
        for name in passes:
            draft = PASSES.load(name).apply(draft, calibration)
        return np.mean(drafts.logits(drafts.integers(draft), fresh).argmax(axis=1) != reference)

    stock = lost((), "per-tensor")
    assert stock > 0.3
    best = lost(("global_pool", "equalize", "adaround"))
    assert best < 0.1 * stock
    assert best <= lost(())
