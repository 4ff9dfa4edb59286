"""Usual models load without --unsafe, whichever Keras wrote them."""

from __future__ import annotations

import importlib
import json

import h5py
import numpy as np
import pytest

from mobiledeploy.core.plugins import SOURCES
from mobiledeploy.frameworks import tracing
from mobiledeploy.sources import _keras_files as format_
from tests.variants import slow_but

LIBRARIES = ("tf_keras", "keras")
SIZE = 64


@pytest.fixture(scope="module", params=slow_but(LIBRARIES, "tf_keras"))
def library(request):
    return importlib.import_module(request.param)


def accepted(model, path):
    """Saves `model`, checks and loads the file, and compares two answers with the model's."""
    model.save(path)
    file = format_.detect(path)
    assert file.code == ()
    framework = SOURCES.load(file.framework)
    loaded_model = framework.load(file)
    images = np.random.default_rng(0).random((2, *model.inputs[0].shape[1:]), np.float32)
    call, _ = tracing.inference(loaded_model)
    np.testing.assert_allclose(call(images)[0], model(images, training=False), atol=1e-5)


def mobilenet(library, name, **options):
    build = getattr(library.applications, name)
    return build((SIZE, SIZE, 3), weights=None, classes=5, **options)


@pytest.mark.parametrize("suffix", slow_but(["h5", "keras"], "keras"))
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileNet", {"alpha": 0.25}),
        pytest.param("MobileNetV2", {"alpha": 0.35}, marks=pytest.mark.slow),
        pytest.param("MobileNetV3Small", {"alpha": 0.5}, marks=pytest.mark.slow),
        pytest.param(
            "MobileNetV3Small", {"alpha": 0.5, "minimalistic": True}, marks=pytest.mark.slow
        ),
        pytest.param("MobileNetV3Large", {"alpha": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_every_mobilenet_of_keras_applications(library, tmp_path, name, options, suffix):
    model, path = mobilenet(library, name, **options), tmp_path / f"model.{suffix}"
    if library.__name__ == "keras" and name.startswith("MobileNetV3") and suffix == "h5":
        # Keras 3 writes this file and cannot read it: its HDF5 takes the operation Add for a layer.
        model.save(path)
        assert format_.detect(path).code == ()
        return
    accepted(model, path)


@pytest.mark.slow
# Of initializers of TensorFlow's own, which EfficientNetV2 of tf_keras has.
@pytest.mark.filterwarnings("ignore:The `keras.initializers.serialize:UserWarning")
@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize(
    "name",
    [
        "ConvNeXtTiny",
        "DenseNet121",
        "EfficientNetB0",
        "EfficientNetV2B0",
        "InceptionResNetV2",
        "InceptionV3",
        "NASNetMobile",
        "ResNet50",
        "ResNet50V2",
        "VGG16",
        "Xception",
    ],
)
def test_other_networks_of_keras_applications(library, tmp_path, name, suffix):
    model = getattr(library.applications, name)(weights=None)
    path = tmp_path / f"model.{suffix}"
    try:
        model.save(path)
    except TypeError as error:
        pytest.skip(f"{library.__name__} does not save its own {name} as {suffix}: {error}")
    assert format_.detect(path).code == ()


def test_preprocessing_within_the_model(library, tmp_path):
    """As in the guide to transfer learning: augmented, cropped, scaled, with a compiled base."""
    layers = library.layers
    image = layers.Input((80, 80, 3))
    augment = library.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.RandomContrast(0.1),
            layers.RandomTranslation(0.1, 0.1),
            layers.RandomBrightness(0.1),
        ]
    )
    x = layers.Resizing(SIZE, SIZE)(augment(image))
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(x[:, 4:-4, ::2])
    x = library.applications.mobilenet_v2.preprocess_input(x * 255.0)
    base = layers.Conv2D(
        4,
        3,
        activation="relu6",
        kernel_regularizer="l2",
        kernel_initializer="he_normal",
        kernel_constraint=library.constraints.MaxNorm(2),
    )
    inner = library.Sequential([layers.Input(x.shape[1:]), base, layers.Activation("relu6")])
    inner.compile("adam", "mse")
    scores = layers.Dense(3)(layers.GlobalAveragePooling2D()(inner(x) - 1.0))
    model = library.Model(image, layers.Softmax()(scores))
    model.compile(library.optimizers.Adam(1e-3), "mse", metrics=["accuracy"])
    accepted(model, tmp_path / "model.keras")
    if library.__name__ == "tf_keras":
        # Keras 3 cannot write a Sequential of augmentations as HDF5.
        accepted(model, tmp_path / "model.h5")


def test_calls_of_keras_3_operations(tmp_path):
    import keras
    from keras import ops

    image = keras.layers.Input((8, 8, 3))
    x = ops.relu6(image[..., 0:2]) + ops.mean(image, axis=[1, 2], keepdims=True)[..., :2]
    x = ops.concatenate([ops.sigmoid(x), ops.clip(x, 0, 1)], axis=-1)
    x = ops.image.resize(ops.cast(x, "float32"), (4, 4))
    x = ops.reshape(ops.transpose(ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])), (-1, 6, 6, 4))
    x = ops.stop_gradient(x / ops.norm(x, axis=-1, keepdims=True)) + ops.erf(ops.rsqrt(x * x + 1))
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(ops.silu(x)))
    accepted(keras.Model(image, scores), tmp_path / "model.keras")


def test_calls_of_tensor_functions(tmp_path):
    import tensorflow as tf
    import tf_keras

    image = tf_keras.layers.Input((8, 8, 3))
    x = tf.nn.relu6(image[:, 1:]) + tf.reduce_mean(image, axis=[1, 2], keepdims=True)
    x = tf.concat([tf.sigmoid(x), tf.clip_by_value(x, 0.0, 1.0)], axis=-1)
    x = tf.image.resize(tf.cast(x, tf.float32) / 2.0, (4, 4))
    x = tf.reshape(tf.transpose(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])), (-1, 6, 6, 6))
    scores = tf_keras.layers.Dense(3)(tf_keras.layers.GlobalAveragePooling2D()(tf.nn.silu(x)))
    model = tf_keras.Model(image, scores)
    for suffix in ("h5", "keras"):
        accepted(model, tmp_path / f"model.{suffix}")


@pytest.mark.slow
def test_models_of_the_optimization_toolkit(tmp_path):
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tf_keras import layers

    model = tf_keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3),
            layers.ReLU(),
            layers.Conv2D(4, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    sparsity = tfmot.sparsity.keras
    wrapped_model = {
        "quantized": tfmot.quantization.keras.quantize_model(model),
        "pruned": sparsity.prune_low_magnitude(model, sparsity.PolynomialDecay(0, 0.5, 0, 9)),
        "sparse": sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.5, 0)),
        "clustered": tfmot.clustering.keras.cluster_weights(
            model, 4, tfmot.clustering.keras.CentroidInitialization.LINEAR
        ),
    }
    for name, other in wrapped_model.items():
        for suffix in ("h5", "keras") if name != "clustered" else ("h5",):
            other.save(tmp_path / f"{name}.{suffix}")
            assert format_.detect(tmp_path / f"{name}.{suffix}").code == (), name


def test_the_loaded_configuration_is_the_checked_one(tmp_path):
    """Entries for training are removed from the configuration before Keras reads it."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        evil = {"class_name": "function", "config": "act", "module": "module_that_is_not_there"}
        config["config"]["layers"][1]["compile_config"] = {"loss": evil}
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["training_config"] = json.dumps({"loss": evil})
    file = format_.detect(tmp_path / "model.h5")
    assert file.code == ()
    assert SOURCES.load("tf_keras").load(file).handle.output_shape == (None, 2)
