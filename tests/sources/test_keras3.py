import dataclasses

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.frameworks import tracing
from mobiledeploy.sources import _keras_files as keras
from mobiledeploy.sources import keras3, tf_keras
from tests.conftest import reconfigured
from tests.networks import shapes

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def loaded(path):
    return keras3.load(keras.detect(path))


@pytest.mark.parametrize("name", ["k3.keras", "k3.h5"])
def test_a_whole_model_answers_in_a_process_with_keras_2(model_files, name):
    model = loaded(model_files / name)
    assert shapes(model) == ((None, 32, 32, 3), (None, 5))
    call, variables = tracing.inference(model)
    before = np.asarray(call(IMAGES)[0])
    assert before.shape == (2, 5)
    np.testing.assert_allclose(before.sum(axis=1), 1, atol=1e-6)
    assert len(variables) == 7
    tf_keras.load(keras.detect(model_files / "k2.h5"))
    np.testing.assert_array_equal(call(IMAGES)[0], before)


def test_both_formats_hold_the_same_model(model_files):
    (first, _), (second, _) = (
        tracing.inference(loaded(model_files / name)) for name in ("k3.keras", "k3.h5")
    )
    np.testing.assert_array_equal(first(IMAGES), second(IMAGES))


def test_a_lambda_runs_only_if_the_verb_allowed_it(model_files):
    file = keras.detect(model_files / "k3_lambda.keras")
    with pytest.raises(InputError, match="could run code of its own: Lambda"):
        keras3.load(file)
    file = dataclasses.replace(file, trusted=True)
    assert shapes(keras3.load(file)) == ((None, 32, 32, 3), (None, 3))
    with pytest.raises(InputError, match="changed while it was read") as excinfo:
        keras3.load(dataclasses.replace(file, code=()))
    assert "\n" not in str(excinfo.value)


def test_weights_alone_are_not_a_model(model_files):
    with pytest.raises(InputError, match="Keras 3 weights"):
        loaded(model_files / "k3.weights.h5")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"a": 2}, "Keras cannot load"),
        (
            {"module": "keras.layers", "class_name": "ReLU", "config": {}},
            "holds a ReLU, not a model",
        ),
    ],
)
def test_a_file_of_another_object_is_not_a_model(model_files, tmp_path, config, message):
    path = tmp_path / "other.keras"
    reconfigured(model_files / "k3.keras", path, config)
    with pytest.raises(InputError, match=message):
        keras3.load(keras.detect(path))
