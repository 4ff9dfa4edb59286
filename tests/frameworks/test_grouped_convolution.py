import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from tests.conftest import press
from tests.variants import slow_but

layers = tf_keras.layers


@settings(max_examples=15)
@given(
    groups=st.integers(1, 4),
    read=st.integers(1, 3),
    made=st.integers(1, 3),
    kernel=st.sampled_from((1, 3)),
    stride=st.integers(1, 2),
    bias=st.booleans(),
)
def test_output_and_gradient_are_those_of_one_convolution_per_group(
    groups, read, made, kernel, stride, bias
):
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(2, 5, 6, groups * read)).astype(np.float32))
    layer = GroupedConv2D(
        groups * made,
        kernel,
        stride,
        padding="same",
        groups=groups,
        use_bias=bias,
        activation="relu",
        bias_initializer="ones",
    )
    layer.build(images.shape)

    def by_hand():
        parts = zip(tf.split(images, groups, -1), tf.split(layer.kernel, groups, -1), strict=True)
        y = tf.concat([tf.nn.conv2d(x, k, stride, "SAME") for x, k in parts], -1)
        return tf.nn.relu(y + layer.bias if bias else y)

    answers = []
    for call in (lambda: layer(images), by_hand):
        with tf.GradientTape() as tape:
            output = call()
            loss = tf.reduce_sum(output**2)
        answers.append((output, tape.gradient(loss, layer.kernel)))
    for ours, theirs in zip(*answers, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
@pytest.mark.parametrize("recipe", slow_but(["float32", "int8_ptq"], "int8_ptq"))
def test_it_is_one_convolution_in_every_file(format_, recipe):
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, activation="relu")(image)
    x = GroupedConv2D(24, 1, groups=3, activation="relu")(x)
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    model = Model("tf_keras", tf_keras.Model(image, x))
    data = press(model, recipe, format_, images, io="float")
    shelf = FORMATS.load(format_)
    facts = shelf.inspect(data)
    convolutions = [layer for layer in facts.layers if layer.op in ("CONV_2D", "Conv")]
    assert len(convolutions) == 2
    if recipe == "int8_ptq":
        assert shelf.float_layers(facts) == ()


def test_it_is_saved_with_a_model(tmp_path):
    layer = GroupedConv2D(6, 3, groups=3, name="grouped")
    model = tf_keras.Sequential([layers.Input((8, 8, 3)), layer])
    model.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert type(again.get_layer("grouped")) is GroupedConv2D
    images = np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(again.predict_on_batch(images), model.predict_on_batch(images))
