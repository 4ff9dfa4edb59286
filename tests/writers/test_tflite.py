"""Models and recipes that TFLite does not support are refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.core.types import Model
from mobiledeploy.formats import tflite as shelf
from tests.conftest import float_tflite, press, press_floats

layers = tf_keras.layers
SIZE = (16, 16)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, *SIZE, 3)).astype(np.float32)
INT8 = RECIPES.load("int8_ptq").RECIPE
DYNAMIC = RECIPES.load("dynamic_int8").RECIPE


def classifier(*middle):
    tf_keras.utils.set_random_seed(0)
    ends = [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    stem = [layers.Input((*SIZE, 3)), layers.Conv2D(64, 3)]
    return Model("tf_keras", tf_keras.Sequential([*stem, *middle, *ends]))


@pytest.fixture(scope="module")
def floats():
    """The float TFLite of a classifier."""
    return float_tflite(classifier(), SIZE)


def convert(model, recipe):
    data = press(model, recipe, "tflite", IMAGES, io="float")
    return shelf.inspect(shelf.seal(data, ["image"], ["scores"]))


def test_a_model_that_calibration_cannot_run_is_one_line():
    spectrum = layers.Lambda(
        lambda x: tf.transpose(
            tf.abs(tf.signal.rfft2d(tf.transpose(x, [0, 3, 1, 2]))), [0, 2, 3, 1]
        )
    )
    with pytest.raises(InputError, match="LiteRT cannot .* the model: .*RFFT2D") as excinfo:
        convert(classifier(spectrum), INT8)
    assert "\n" not in str(excinfo.value)


@pytest.mark.parametrize("recipe", [INT8, DYNAMIC], ids=lambda recipe: recipe.name)
def test_the_requested_granularity_is_used(recipe, floats):
    for granularity, scales in (("per-channel", 64), ("per-tensor", 1)):
        asked = dataclasses.replace(recipe, granularity=granularity)
        data = press_floats(floats, asked, "tflite", IMAGES, io="float")
        facts = shelf.inspect(shelf.seal(data, ["image"], ["scores"]))
        (weights,) = {t for layer in facts.layers for t in layer.inputs if t.shape == (64, 3, 3, 3)}
        assert (weights.dtype, len(weights.scale)) == ("int8", scales)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("int8_ptq", {"weight_bits": 2}, "weights of 2 bits"),
        ("int8_ptq", {"activation_bits": 12}, "activations of 12 bits"),
        ("int8_ptq", {"symmetry": "none"}, "symmetry is none"),
        ("dynamic_int8", {"granularity": "none"}, "granularity is none"),
        ("dynamic_int8", {"activation_bits": 8}, "no calibration"),
        ("float16", {"granularity": "per-tensor"}, "granularity is per-tensor"),
        ("float32", {"passes": (("adaround",),)}, "passes are for full-integer recipes"),
    ],
)
def test_an_unsupported_recipe_is_refused(recipe, changes, message, floats):
    unsupported = dataclasses.replace(RECIPES.load(recipe).RECIPE, **changes)
    with pytest.raises(InputError, match=f"recipe {recipe}: .*{message}"):
        press_floats(floats, unsupported, "tflite", IMAGES, io="float")
