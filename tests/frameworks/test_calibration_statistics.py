"""The statistics of the training images in a network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tf_keras

from mobiledeploy.core import preprocessing
from mobiledeploy.core.types import Model, Preprocessing
from mobiledeploy.frameworks import calibration_statistics, tracing
from tests.networks import taking_images
from tests.variants import slow_but

SIZE = (32, 32)
RANGES = [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)]


def prepared(range_, **more):
    """Images of several contrasts, always the same."""
    random = np.random.default_rng(0)
    pre = Preprocessing(range_, **more)
    pixels = [random.integers(0, 256, (*SIZE, 3), np.uint8) // (1 + n % 3) for n in range(30)]
    return pre, np.stack([preprocessing.prepare(image, pre, SIZE) for image in pixels])


def trained(library, images, *, norm=True):
    """A network of one convolution whose BatchNorm has seen `images`."""
    library.utils.set_random_seed(0)
    layers = library.layers
    image = layers.Input((*SIZE, 3))
    x = layers.Conv2D(8, 3, use_bias=False)(image)
    before = library.Model(image, x)
    batch_norm = layers.BatchNormalization()
    x = layers.ReLU()(batch_norm(x) if norm else x)
    model = library.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    if norm and images is not None:
        values = np.asarray(before(images))
        gamma, beta, _, _ = batch_norm.get_weights()
        axes = (0, 1, 2)
        batch_norm.set_weights([gamma, beta, values.mean(axis=axes), values.var(axis=axes)])
    return Model("tf_keras" if library is tf_keras else "keras3", model)


@pytest.mark.parametrize(
    "library",
    [tf_keras, pytest.param(keras, marks=pytest.mark.slow)],
    ids=["keras2", "keras3"],
)
@pytest.mark.parametrize("right", slow_but(RANGES, (-1.0, 1.0)), ids=str)
def test_the_range_of_the_training_is_found_among_the_usual_ones(library, right):
    model = trained(library, prepared(right)[1])
    for message in RANGES:
        result = calibration_statistics.likelier_range(
            tracing.freeze(taking_images(model, SIZE)), *prepared(message)
        )
        assert result == (None if message == right else right)


def test_mean_and_deviation_are_kept_apart_from_the_range():
    normal = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    model = trained(tf_keras, prepared((0.0, 1.0), **normal)[1])
    assert (
        calibration_statistics.likelier_range(
            tracing.freeze(taking_images(model, SIZE)), *prepared((0.0, 1.0), **normal)
        )
        is None
    )
    result = calibration_statistics.likelier_range(
        tracing.freeze(taking_images(model, SIZE)), *prepared((0.0, 255.0), **normal)
    )
    assert result == (0.0, 1.0)


def test_other_images_of_the_right_range_are_accepted():
    """Darker, and of less contrast than what it was trained on."""
    pre, images = prepared((-1.0, 1.0))
    model = trained(tf_keras, images)
    assert (
        calibration_statistics.likelier_range(
            tracing.freeze(taking_images(model, SIZE)), pre, images * 0.5 - 0.3
        )
        is None
    )


@pytest.mark.parametrize("norm", [False, True], ids=["none", "untrained"])
def test_without_a_trained_batch_norm_there_is_no_range(norm):
    model = trained(tf_keras, None, norm=norm)
    assert (
        calibration_statistics.likelier_range(
            tracing.freeze(taking_images(model, SIZE)), *prepared((0.0, 255.0))
        )
        is None
    )
