import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Source
from mobiledeploy.frameworks import tracing
from mobiledeploy.graphs import execution
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources import saved_model
from mobiledeploy.sources import saved_model as format_
from mobiledeploy.verbs.analyze import _own_spec
from tests.networks import answers, shapes

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def loaded(path):
    return saved_model.load(format_.detect(path))


def test_the_signature_gives_the_models_answers(model_files):
    model = loaded(model_files / "k2_saved")
    assert shapes(model) == ((None, 32, 32, 3), (None, 5))
    call, variables = tracing.inference(model)
    expected = tf_keras.models.load_model(model_files / "k2.h5", compile=False)(IMAGES)
    np.testing.assert_allclose(call(IMAGES)[0], expected, atol=1e-6)
    assert len(variables) == 7


def test_a_keras_3_export_is_a_saved_model_too(model_files):
    call, _ = tracing.inference(loaded(model_files / "k3_saved"))
    np.testing.assert_allclose(np.sum(call(IMAGES)[0], axis=1), 1, atol=1e-6)


def test_the_code_of_keras_layers_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    def noted(image, path=str(marker)):
        with open(path, "w"):  # noqa: PTH123 (Keras keeps the bytecode and the text)
            return image

    image = tf_keras.layers.Input((8, 8, 3))
    model = tf_keras.Model(image, tf_keras.layers.Lambda(noted, name="noted")(image)[:, 0, 0])
    model.save(tmp_path / "model", save_format="tf")
    marker.unlink()
    file = format_.detect(tmp_path / "model")
    assert file.code == ("Lambda layer 'noted'",)
    call, _ = tracing.inference(saved_model.load(file))
    assert call(IMAGES[:, :8, :8])[0].shape == (2, 3)
    assert not marker.exists()
    # Keras would have run it.
    tf_keras.models.load_model(tmp_path / "model", safe_mode=False)(IMAGES[:, :8, :8])
    assert marker.exists()


def test_a_model_without_its_variables_is_one_line(model_files, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model_files / "k2_saved", copy)
    (copy / "variables" / "variables.index").unlink()
    with pytest.raises(InputError, match="TensorFlow cannot load") as excinfo:
        loaded(copy)
    assert "\n" not in str(excinfo.value)


def test_a_folder_that_changed_after_the_check_is_refused(model_files, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model_files / "k2_saved", copy)
    file = format_.detect(copy)
    shutil.copyfile(model_files / "k2_lambda_saved" / "saved_model.pb", copy / "saved_model.pb")
    with pytest.raises(InputError, match="copy changed while it was read"):
        saved_model.load(file)


def test_a_removed_folder_is_an_error_in_one_line(model_files, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model_files / "k2_saved", copy)
    file = format_.detect(copy)
    shutil.rmtree(copy)
    with pytest.raises(InputError, match="copy cannot be read: No such file"):
        saved_model.load(file)


def test_a_fixed_batch_becomes_one_sample(tmp_path):
    module = tf.Module()
    means = tf.function(lambda x: {"scores": tf.reduce_mean(x, [1, 2])})
    image = tf.TensorSpec((8, 32, 32, 3), name="x")
    signature = {"serving_default": means.get_concrete_function(image)}
    tf.saved_model.save(module, str(tmp_path / "eight"), signatures=signature)
    path = tmp_path / "eight"
    source = Source(_own_spec(format_.detect(path)), file=format_.detect(path))
    opened = format_.open(source)
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    np.testing.assert_allclose(answers(opened, images), images.mean(axis=(1, 2)), atol=1e-6)
    content = opened.floats("model")
    assert Graph(content).shape(Graph(content).inputs[0]) == (1, 32, 32, 3)
    np.testing.assert_allclose(execution.run(content, images), images.mean(axis=(1, 2)), atol=1e-6)
