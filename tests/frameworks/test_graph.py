"""Where a model ends, and what a frozen one says of it."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks import graph

layers = tf_keras.layers
IMAGES = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
SIZE = (16, 16)


def ending(*last, classes=4):
    """A classifier that ends in `last`."""
    tf_keras.utils.set_random_seed(0)
    stem = [layers.Input((16, 16, 3)), layers.Conv2D(classes, 3), layers.GlobalAveragePooling2D()]
    return Model("tf_keras", tf_keras.Sequential([*stem, *last]))


def logits_of(scores):
    return np.log(scores) - np.log(scores).mean(axis=1, keepdims=True)


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
def test_a_softmax_is_found_behind(end):
    model = ending(*ENDS[end])
    frozen = graph.freeze(model, SIZE)
    expected = model.handle(IMAGES).numpy()
    rows = frozen.run(IMAGES)
    assert rows.shape == (3, 4)
    assert frozen.scores is not None
    np.testing.assert_allclose(
        logits_of(expected), rows - rows.mean(axis=1, keepdims=True), atol=1e-5
    )
    graph.check_logits(frozen, rows)
    for output, wanted in (("softmax", expected), ("logits", rows)):
        answer = [frozen.ending(output)(tf.constant(i[None]))["scores"].numpy()[0] for i in IMAGES]
        np.testing.assert_allclose(answer, wanted, atol=1e-5)
    kinds = [op.type for op in frozen.flat("softmax").graph.get_operations()]
    assert kinds.count("Softmax") == 1
    assert [kind for kind in kinds if kind != "Identity"][-1] == "Softmax"


def test_a_softmax_over_pairs_is_no_end():
    model = ending(layers.Reshape((2, 2)), layers.Softmax(), layers.Flatten())
    frozen = graph.freeze(model, SIZE)
    assert frozen.scores is None
    np.testing.assert_allclose(frozen.run(IMAGES), model.handle(IMAGES), atol=1e-6)


def test_probabilities_without_a_softmax_are_refused():
    model = ending(layers.Lambda(lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), 1, keepdims=True)))
    frozen = graph.freeze(model, SIZE)
    assert frozen.scores is None
    with pytest.raises(InputError, match=r"probabilities already.*--output logits"):
        graph.check_logits(frozen, frozen.run(IMAGES))
    graph.check_logits(frozen, np.float32([[0.5, 0.6]]))
    graph.check_logits(frozen, np.float32([[1.5, -0.5]]))


def test_what_cannot_be_traced_is_one_line():
    image = layers.Input((None, None, 3))
    scores = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 9)(image))
    model = Model("tf_keras", tf_keras.Model(image, scores))
    with pytest.raises(InputError) as caught:
        graph.freeze(model, (4, 4))
    assert caught.value.message == (
        "TensorFlow cannot run the model on one 4x4 picture: "
        "Negative dimension size caused by subtracting 9 from 4"
    )


FULL = """
import sys
from pathlib import Path
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks import graph, loading
import tf_keras
layers = tf_keras.layers
model = tf_keras.Sequential([layers.Input((16, 16, 3)), layers.Flatten(), layers.Dense(4000)])
frozen = graph.freeze(Model("tf_keras", model), (16, 16))
try:
    with loading.temporary_folder() as folder:
        frozen.save("logits", folder)
except UsageError as error:
    print(error.message)
"""


def test_a_full_temporary_disk_is_the_users(tmp_path):
    """A small tmpfs, in a user namespace, as TMPDIR."""
    script = (
        f"mount -t tmpfs -o size=200k none {tmp_path} && "
        f'TMPDIR={tmp_path} exec {sys.executable} -c "$0"'
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, FULL], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout.startswith(f"cannot write temporary files in {tmp_path}: "), done.stderr
    assert "no space" in done.stdout.lower()
