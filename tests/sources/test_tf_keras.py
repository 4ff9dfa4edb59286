import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import tf_keras

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import ARCHITECTURES
from mobiledeploy.core.types import ModelSpec, Preprocessing, Weights
from mobiledeploy.frameworks import tf_keras as framework
from mobiledeploy.frameworks import tracing
from mobiledeploy.sources import _keras_files as keras
from mobiledeploy.sources import tf_keras as source
from tests.conftest import reconfigured
from tests.networks import shapes

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def loaded(path):
    return source.load(keras.detect(path))


@pytest.mark.parametrize("name", ["k2.h5", "k2.keras"])
def test_a_whole_model_gives_the_same_answers(model_files, name):
    model = loaded(model_files / name)
    assert shapes(model) == ((None, 32, 32, 3), (None, 5))
    call, variables = tracing.inference(model)
    expected = tf_keras.models.load_model(model_files / name, compile=False)(IMAGES)
    np.testing.assert_array_equal(call(IMAGES)[0], expected)
    assert len(variables) == 7


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_our_own_layers_are_allowed(tmp_path, suffix):
    image = tf_keras.layers.Input((32, 32, 3))
    x = image
    for own, options in (
        (framework.GroupedConv2D, {"filters": 6, "kernel_size": 3, "groups": 3}),
        (framework.HardSwish, {}),
        (framework.HardSigmoid, {}),
        (framework.LocalResponseNormalization, {"size": 5, "alpha": 1, "beta": 0.5, "bias": 1}),
    ):
        x = own(**options)(x)
    model = tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x))
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    assert {type(layer) for layer in model.layers} >= set(framework.OWN)
    assert keras.detect(path).code == ()
    call, _ = tracing.inference(loaded(path))
    np.testing.assert_array_equal(call(IMAGES)[0], model(IMAGES))


def test_a_file_of_another_name_is_loaded_by_its_content(model_files, tmp_path):
    for name in ("k2.h5", "k2.keras"):
        path = tmp_path / "model.bin"
        path.write_bytes((model_files / name).read_bytes())
        assert shapes(loaded(path))[1] == (None, 5)


def test_a_file_that_changed_after_the_check_is_refused(model_files, tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes((model_files / "k2.h5").read_bytes())
    file = keras.detect(path)
    path.write_bytes((model_files / "k2_lambda.h5").read_bytes())
    with pytest.raises(InputError, match=r"changed while"):
        source.load(file)


def test_the_verb_may_allow_a_lambda(model_files):
    file = keras.detect(model_files / "k2_lambda.keras")
    with pytest.raises(InputError, match="could run code of its own: Lambda"):
        source.load(file)
    file = dataclasses.replace(file, trusted=True)
    assert shapes(source.load(file)) == ((None, 32, 32, 3), (None, 3))
    with pytest.raises(InputError, match=r"changed while it was read") as excinfo:
        source.load(dataclasses.replace(file, code=()))
    assert "\n" not in str(excinfo.value)


def test_weights_with_other_layer_names_are_assigned_in_order_if_all_shapes_fit(tmp_path):
    def network(width, prefix):
        image = tf_keras.layers.Input((32, 32, 3))
        x = tf_keras.layers.Conv2D(width, 3, name=f"{prefix}one")(image)
        x = tf_keras.layers.BatchNormalization(name=f"{prefix}two")(x)
        x = tf_keras.layers.GlobalAveragePooling2D()(x)
        return tf_keras.Model(image, tf_keras.layers.Dense(4, name=f"{prefix}three")(x))

    theirs, ours = network(5, "mobl0_"), network(5, "")
    theirs.save_weights(tmp_path / "weights.h5")
    framework.load_weights(ours, tmp_path / "weights.h5")
    np.testing.assert_array_equal(ours(IMAGES), theirs(IMAGES))
    with pytest.raises(InputError, match="has no weights for layer one"):
        framework.load_weights(network(6, ""), tmp_path / "weights.h5")


def test_weights_alone_are_not_a_model(model_files):
    with pytest.raises(InputError, match=r"holds weights"):
        loaded(model_files / "k2_weights.h5")


def test_a_layer_that_keras_does_not_know_is_one_line(model_files, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes((model_files / "k2.h5").read_bytes())
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace("Conv2D", "Conv2E")
    with pytest.raises(InputError, match=r"Conv2E") as excinfo:
        loaded(path)
    assert "\n" not in str(excinfo.value)


def poisoned(path, source, name, value=np.nan):
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "a") as file:
        file[name][0] = value
    return path


def test_nan_weights_are_refused(model_files, tmp_path):
    path = poisoned(
        tmp_path / "x.h5", model_files / "k2.h5", "model_weights/conv1_bn/conv1_bn/gamma:0"
    )
    with pytest.raises(InputError, match=r"conv1_bn/gamma:0 hold NaN"):
        loaded(path)


def build(alpha=0.25, classes=7):
    return ARCHITECTURES.load("mobilenet_v1").build(
        alpha=alpha, resolution=(32, 32), classes=classes
    )


@pytest.fixture(scope="module")
def small():
    """A v1 0.25 of seven classes, which takes seconds to build.

    It keeps the weights of the last test.
    """
    return build()


@pytest.fixture(scope="module")
def published(tmp_path_factory, small) -> Path:
    """Weights of a v1 0.25 in the file form of Keras Applications, with our own numbers."""
    path = tmp_path_factory.mktemp("published") / "mobilenet_2_5_32_tf.h5"
    rng = np.random.default_rng(0)
    small.set_weights([rng.random(w.shape, np.float32) for w in small.get_weights()])
    small.save_weights(path)
    return path


def test_weights_are_set_by_layer_name(published, small):
    small.set_weights([np.zeros_like(weight) for weight in small.get_weights()])
    framework.load_weights(small, published, alpha=0.25)
    rng = np.random.default_rng(0)
    for weight in small.get_weights():
        np.testing.assert_array_equal(weight, rng.random(weight.shape, np.float32))


@pytest.mark.slow
def test_weights_of_keras_applications_fit(tmp_path, small):
    theirs = tf_keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=7)
    theirs.save_weights(tmp_path / "w.h5")
    theirs.save(tmp_path / "whole.h5")
    for name in ("w.h5", "whole.h5"):
        small.set_weights([np.ones_like(weight) for weight in small.get_weights()])
        framework.load_weights(framework.Model("tf_keras", small), tmp_path / name, alpha=0.25)
        images = IMAGES * 2 - 1
        np.testing.assert_allclose(small(images), theirs(images), atol=1e-6)


def test_the_matching_alpha_is_named_and_the_model_is_not_changed(published):
    model = build(alpha=0.5)
    before = model.get_weights()
    with pytest.raises(InputError, match=r"layer conv1 .*--alpha 0\.25"):
        framework.load_weights(model, published, alpha=0.5)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_other_classes_are_refused(published):
    with pytest.raises(InputError, match=r"conv_preds .*as many classes"):
        framework.load_weights(build(classes=8), published, alpha=0.25)


def test_weights_of_another_architecture_are_refused(published, small, model_files):
    with pytest.raises(InputError, match=r"layer conv1"):
        framework.load_weights(small, model_files / "k2_weights.h5", alpha=0.25)
    with pytest.raises(InputError, match=r"no weights by layer name"):
        framework.load_weights(small, model_files / "k3.weights.h5")
    shorter = tf_keras.Sequential([tf_keras.layers.Input((32, 32, 3))])
    shorter.add(tf_keras.layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="conv1"))
    with pytest.raises(InputError, match=r"which the model does not have"):
        framework.load_weights(shorter, published)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(published, small, tmp_path, value):
    path = poisoned(tmp_path / "w.h5", published, "conv_pw_3_bn/conv_pw_3_bn/beta:0", value)
    with pytest.raises(InputError, match=r"conv_pw_3_bn hold NaN or infinite"):
        framework.load_weights(small, path)


def test_weights_that_changed_after_the_check_are_refused(published, tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(published.read_bytes())
    weights = Weights("w.h5", keras.detect(path).sha256, pinned=False)
    spec = ModelSpec(
        "x",
        "mobilenet_v1",
        "mobilenet_v1",
        {"alpha": 0.25},
        (32, 32),
        7,
        Preprocessing((-1.0, 1.0)),
        weights,
    )
    framework.build(spec, path)
    poisoned(path, published, "conv_pw_3_bn/conv_pw_3_bn/beta:0", 0.5)
    with pytest.raises(InputError, match=r"w\.h5 changed while it was read"):
        framework.build(spec, path)


def test_truncated_weights_are_one_line(published, small, tmp_path):
    (tmp_path / "w.h5").write_bytes(published.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"w\.h5 cannot be read") as excinfo:
        framework.load_weights(small, tmp_path / "w.h5")
    assert "\n" not in str(excinfo.value)


def test_random_weights_are_the_same_every_time():
    spec = ModelSpec(
        "x",
        "mobilenet_v1",
        "mobilenet_v1",
        {"alpha": 0.25},
        (32, 32),
        7,
        Preprocessing((-1.0, 1.0)),
        Weights("random", "", pinned=True),
    )
    first, second = (framework.build(spec, None).handle.get_weights() for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_published_person_detector(real_data):
    model = loaded(real_data / "vww" / "vww_96.h5")
    assert shapes(model) == ((None, 96, 96, 3), (None, 2))
    with np.load(real_data / "vww" / "images.npz") as data:
        images, labels = data["images"][:100] / np.float32(255), data["labels"][:100]
    call, _ = tracing.inference(model)
    assert (np.argmax(call(images)[0], axis=1) == labels).mean() > 0.75


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"a": 2}, "holds a dict, not a model"),
        (
            {"module": "keras.layers", "class_name": "ReLU", "config": {}},
            "holds a ReLU, not a model",
        ),
    ],
)
def test_a_file_of_another_object_is_not_a_model(model_files, tmp_path, config, message):
    path = tmp_path / "other.keras"
    reconfigured(model_files / "k2.keras", path, config)
    with pytest.raises(InputError, match=message):
        source.load(keras.detect(path))
