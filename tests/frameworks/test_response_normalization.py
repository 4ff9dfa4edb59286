import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks.response_normalization import LocalResponseNormalization
from tests.conftest import press

layers = tf_keras.layers
ALEXNET = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 2.0}


@settings(max_examples=25)
@given(
    channels=st.integers(1, 12),
    size=st.sampled_from((1, 3, 5)),
    alpha=st.floats(1e-5, 1),
    beta=st.floats(0.25, 1),
    bias=st.floats(0.5, 4),
)
def test_answers_and_gradients_are_those_of_tensorflows_own(channels, size, alpha, beta, bias):
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(0, 30, (2, 3, 4, channels)).astype(np.float32))
    layer = LocalResponseNormalization(size=size, alpha=alpha, beta=beta, bias=bias)
    answers = []
    for call in (layer, lambda x: tf.nn.lrn(x, size // 2, bias, alpha, beta)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
            loss = tf.reduce_sum(y * x)
        answers.append((y, tape.gradient(loss, x)))
    for ours, theirs in zip(*answers, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def converted(format_, recipe):
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, activation="relu", kernel_initializer="he_normal")(image)
    x = LocalResponseNormalization(**ALEXNET)(x)
    x = layers.MaxPooling2D(3, 2)(x)
    model = tf_keras.Model(image, layers.Dense(8)(layers.Flatten()(x)))
    images = np.random.default_rng(0).normal(0, 70, (16, 16, 16, 3)).astype(np.float32)
    data = press(Model("tf_keras", model), recipe, format_, images, io="float")
    return data, images, model.predict_on_batch(images)


def sqnr(data, images, reference):
    interpreter = tf.lite.Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"])[0])
    return 10 * np.log10((reference**2).sum() / ((reference - np.array(rows)) ** 2).sum())


@pytest.mark.parametrize(
    ("recipe", "decibels"), [pytest.param("float32", 80, marks=pytest.mark.slow), ("int8_ptq", 25)]
)
def test_tflite_keeps_its_answers(recipe, decibels):
    data, images, reference = converted("tflite", recipe)
    shelf = FORMATS.load("tflite")
    facts = shelf.inspect(data)
    assert sqnr(data, images, reference) > decibels
    if recipe == "int8_ptq":
        assert shelf.float_layers(facts) == ()


def test_int8_onnx_names_the_operators_that_it_has_in_float_only():
    data, _, _ = converted("onnx", "int8_ptq")
    shelf = FORMATS.load("onnx")
    assert shelf.float_layers(shelf.inspect(data)) == ("Log", "Exp")


def test_it_is_saved_with_a_model(tmp_path):
    model = tf_keras.Sequential(
        [layers.Input((8, 8, 6)), LocalResponseNormalization(**ALEXNET, name="norm")]
    )
    model.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert again.get_layer("norm").get_config() == model.get_layer("norm").get_config()
