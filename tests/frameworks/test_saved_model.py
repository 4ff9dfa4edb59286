import shutil

import numpy as np
import pytest
import tf_keras

from mobiledeploy.core.errors import InputError
from mobiledeploy.formats import saved_model as format_
from mobiledeploy.frameworks import saved_model

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def loaded(path):
    return saved_model.load(format_.detect(path))


def test_the_signature_answers_as_the_model_did(model_files):
    model = loaded(model_files / "k2_saved")
    assert saved_model.shapes(model) == ((None, 32, 32, 3), (None, 5))
    call, variables = saved_model.inference(model)
    expected = tf_keras.models.load_model(model_files / "k2.h5", compile=False)(IMAGES)
    np.testing.assert_allclose(call(IMAGES), expected, atol=1e-6)
    assert len(variables) == 7


def test_a_keras_3_export_is_a_saved_model_too(model_files):
    call, _ = saved_model.inference(loaded(model_files / "k3_saved"))
    np.testing.assert_allclose(np.sum(call(IMAGES), axis=1), 1, atol=1e-6)


def test_two_inputs_are_refused(model_files):
    with pytest.raises(InputError, match="has 2 inputs"):
        saved_model.shapes(loaded(model_files / "k2_two_saved"))


def test_a_model_without_its_variables_is_one_line(model_files, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model_files / "k2_saved", copy)
    (copy / "variables" / "variables.index").unlink()
    with pytest.raises(InputError, match="TensorFlow cannot load") as caught:
        loaded(copy)
    assert "\n" not in str(caught.value)
