"""The outputs of a model, and those of its frozen functions."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mobiledeploy.analysis import cost
from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks import tracing
from tests import namespaces
from tests.networks import taking_images

layers = tf_keras.layers
IMAGES = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
SIZE = (16, 16)


def ending(*last, classes=4):
    """A classifier that ends in `last`."""
    tf_keras.utils.set_random_seed(0)
    stem = [layers.Input((16, 16, 3)), layers.Conv2D(classes, 3), layers.GlobalAveragePooling2D()]
    return Model("tf_keras", tf_keras.Sequential([*stem, *last]))


def _flat(function):
    """A function's graph without calls in it."""
    return convert_variables_to_constants_v2(function)


def logits_of(scores):
    return np.log(scores) - np.log(scores).mean(axis=1, keepdims=True)


def answers(frozen_model):
    (rows,) = frozen_model.run(Batch((IMAGES,)))
    return rows


ENDS = {
    "a reshape": [
        layers.Reshape((1, 1, 4)),
        layers.Activation("softmax"),
        layers.Reshape((4,)),
    ],
    "a flatten": [layers.Reshape((1, 4)), layers.Softmax(), layers.Flatten()],
    "a squeeze and an expansion": [
        layers.Reshape((1, 1, 4)),
        layers.Softmax(),
        layers.Lambda(lambda x: tf.squeeze(tf.expand_dims(x, 1), [1, 2, 3])),
    ],
    "a cast": [layers.Lambda(lambda x: tf.cast(tf.nn.softmax(tf.cast(x, tf.float64)), tf.float32))],
}


@pytest.mark.parametrize("end", ENDS)
def test_a_final_softmax_is_recognized(end):
    model = ending(*ENDS[end])
    frozen_model = tracing.freeze(taking_images(model, SIZE))
    expected = model.handle(IMAGES).numpy()
    rows = answers(frozen_model)
    assert rows.shape == (3, 4)
    assert frozen_model.scores is not None
    np.testing.assert_allclose(
        logits_of(expected), rows - rows.mean(axis=1, keepdims=True), atol=1e-5
    )
    for output, target in (("softmax", expected), ("logits", rows)):
        call = frozen_model.ending(output)
        answer = [call(tf.constant(i[None]))[tracing.output_key(0)].numpy()[0] for i in IMAGES]
        np.testing.assert_allclose(answer, target, atol=1e-5)
    kinds = [op.type for op in _flat(frozen_model.ending("softmax")).graph.get_operations()]
    assert kinds.count("Softmax") == 1
    assert [kind for kind in kinds if kind != "Identity"][-1] == "Softmax"


def test_a_softmax_over_pairs_is_not_a_final_softmax():
    model = ending(layers.Reshape((2, 2)), layers.Softmax(), layers.Flatten())
    frozen_model = tracing.freeze(taking_images(model, SIZE))
    assert frozen_model.scores is None
    np.testing.assert_allclose(answers(frozen_model), model.handle(IMAGES), atol=1e-6)


def test_an_untraceable_model_is_an_error_in_one_line():
    image = layers.Input((None, None, 3))
    scores = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 9)(image))
    model = Model("tf_keras", tf_keras.Model(image, scores))
    with pytest.raises(InputError) as excinfo:
        tracing.freeze(taking_images(model, (4, 4)))
    assert excinfo.value.message == (
        "TensorFlow cannot run the model on one 4x4 image: "
        "Negative dimension size caused by subtracting 9 from 4"
    )


# What a model is made of.


def counted(*stack, library=tf_keras):
    """(mult-adds, operators with weights) of a stack of layers on an image of 16x16x8."""
    image = library.layers.Input((16, 16, 8))
    x = image
    for layer in stack:
        x = layer(x)
    framework = "tf_keras" if library is tf_keras else "keras3"
    handle = library.Model(image, x)
    stem = library.layers.Conv2D(8, 1, padding="same", use_bias=False)
    outer = library.layers.Input((16, 16, 3))
    whole = library.Model(outer, handle(stem(outer)))
    rows = tracing.layers(taking_images(Model(framework, whole), SIZE))
    result = cost.cost(rows)
    assert (
        result.params == tracing.parameters(Model(framework, whole)).total == whole.count_params()
    )
    return result.mult_adds - 16 * 16 * 3 * 8, result.uncounted


@pytest.mark.parametrize("library", [tf_keras, keras], ids=["keras2", "keras3"])
@pytest.mark.parametrize(
    ("stack", "mult_adds"),
    [
        (lambda k: [k.Conv2D(16, 3, padding="same")], 256 * 9 * 8 * 16),
        (lambda k: [k.Conv2D(16, 3, strides=2, padding="same")], 64 * 9 * 8 * 16),
        (lambda k: [k.Conv2D(16, 3)], 14 * 14 * 9 * 8 * 16),
        (lambda k: [k.Conv2D(16, 3, groups=4, padding="same")], 256 * 9 * 2 * 16),
        (lambda k: [k.Conv2D(16, 3, dilation_rate=2, padding="same")], 256 * 9 * 8 * 16),
        (lambda k: [k.DepthwiseConv2D(5, depth_multiplier=2, padding="same")], 256 * 25 * 16),
        (lambda k: [k.SeparableConv2D(16, 3, padding="same")], 256 * (9 * 8 + 8 * 16)),
        (lambda k: [k.Conv2DTranspose(4, 3, strides=2, padding="same")], 256 * 9 * 8 * 4),
        (lambda k: [k.Reshape((256, 8)), k.Conv1D(16, 3, padding="same")], 256 * 3 * 8 * 16),
        (lambda k: [k.Flatten(), k.Dense(10)], 2048 * 10),
        (lambda k: [k.Dense(10)], 256 * 8 * 10),
        (lambda k: [k.BatchNormalization(), k.ReLU(6.0), k.LayerNormalization()], 0),
        (lambda k: [k.GroupNormalization(2), k.PReLU(), k.GlobalAveragePooling2D()], 0),
    ],
    ids=[
        "same",
        "strided",
        "valid",
        "grouped",
        "dilated",
        "depthwise",
        "separable",
        "transposed",
        "one dimension",
        "dense",
        "dense by position",
        "normalisation",
        "other parameters",
    ],
)
def test_layers_come_to_the_count_by_hand(stack, mult_adds, library):
    assert counted(*stack(library.layers), library=library) == (mult_adds, ())


def test_a_recurrent_network_is_named():
    mult_adds, uncounted = counted(layers.Reshape((256, 8)), layers.LSTM(4))
    assert mult_adds == 0
    assert any("While" in name for name in uncounted)


def test_attention_counts_its_projections_and_names_the_rest():
    x = layers.Input((16, 16, 3))
    rows = layers.Reshape((256, 3))(x)
    attention = layers.MultiHeadAttention(2, 4)(rows, rows)
    model = Model("tf_keras", tf_keras.Model(x, attention))
    result = cost.cost(tracing.layers(taking_images(model, SIZE)))
    assert result.mult_adds == 4 * 256 * 3 * 8
    assert result.uncounted == ("Einsum",)


def test_layers_have_the_names_of_the_models_own():
    model = ending(layers.BatchNormalization(name="norm"), layers.Dense(3, name="top"))
    names = [row.name for row in tracing.layers(taking_images(model, SIZE))]
    assert {"norm", "top"} <= {name.partition("/")[0] for name in names}
    assert len(set(names)) == len(names)


def test_layers_stand_in_order_and_hold_static_shapes():
    rows = tracing.layers(taking_images(ending(layers.Softmax()), SIZE))
    known_values = {tracing.input_key(0)}
    for row in rows:
        for tensor in (*row.inputs, *row.outputs):
            assert all(side > 0 for side in tensor.shape)
        known_values |= {tensor.name for tensor in row.outputs}
    assert rows[0].op == "Conv2D"
    assert [tensor.constant for tensor in rows[0].inputs] == [False, True, True]
    assert rows[0].inputs[0].shape == (1, 16, 16, 3)
    result = [tensor.name for row in rows for tensor in row.outputs]
    for number, row in enumerate(rows):
        later = set(result[number:])
        assert not later & {tensor.name for tensor in row.inputs}


def test_trainable_parameters_are_those_that_training_changes():
    model = ending(layers.BatchNormalization())
    result = tracing.parameters(model)
    assert result == tracing.Parameters(3 * 9 * 4 + 4 + 2 * 4, 3 * 9 * 4 + 4 + 4 * 4)


FULL = """
import sys
from pathlib import Path
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import Model, ModelInput, NetworkInput
from mobiledeploy.frameworks import loading, tracing
import tf_keras
layers = tf_keras.layers
model = tf_keras.Sequential([layers.Input((16, 16, 3)), layers.Flatten(), layers.Dense(4000)])
end = ModelInput("image", "image", (16, 16, 3))
frozen = tracing.freeze(Model("tf_keras", model, (NetworkInput(end),)))
try:
    with loading.temporary_folder() as folder:
        frozen.save("logits", folder)
except UsageError as error:
    print(error.message)
"""


@pytest.mark.slow
def test_a_full_temporary_disk_is_a_usage_error(tmp_path):
    """A small tmpfs, in a user namespace, as TMPDIR."""
    script = (
        f"mount -t tmpfs -o size=200k none {tmp_path} && "
        f'TMPDIR={tmp_path} exec {sys.executable} -c "$0"'
    )
    process = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, FULL], capture_output=True, text=True, check=False
    )
    namespaces.need(process)
    assert process.stdout.startswith(f"cannot write temporary files in {tmp_path}: "), (
        process.stderr
    )
    assert "no space" in process.stdout.lower()
