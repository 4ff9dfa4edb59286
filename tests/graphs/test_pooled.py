import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from mobiledeploy.core.errors import InputError
from mobiledeploy.graphs import execution, pooled
from mobiledeploy.graphs.graph import Graph

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)


def squeezed(x):
    """A squeeze and excite, whose pooling is no place to cut at."""
    factor = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Conv2D(6, 1, activation="sigmoid")(factor)])


def converted(pool):
    """The features behind `pool`, and a TFLite that goes on with two dense layers."""
    image = layers.Input((16, 16, 3))
    x = squeezed(layers.Conv2D(6, 3, 2, activation="relu")(image))
    features = pool(x)
    y = layers.Dense(5, activation="relu")(layers.Flatten()(features))
    network = tf_keras.Model(image, layers.Dense(4, activation="softmax")(y))
    for layer in network.layers:
        layer.set_weights([np.sin(np.arange(w.size)).reshape(w.shape) for w in layer.get_weights()])
    content = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    return np.asarray(tf_keras.Model(image, features)(IMAGES)).reshape(4, -1), content


@pytest.mark.parametrize(
    "pool",
    [
        layers.GlobalAveragePooling2D(),
        pytest.param(layers.GlobalAveragePooling2D(keepdims=True), marks=pytest.mark.slow),
        pytest.param(layers.GlobalMaxPooling2D(), marks=pytest.mark.slow),
        pytest.param(layers.AveragePooling2D(7), marks=pytest.mark.slow),
        pytest.param(layers.MaxPooling2D(7), marks=pytest.mark.slow),
    ],
    ids=["mean", "mean_map", "maximum", "average_pool", "max_pool"],
)
def test_the_features_are_those_of_the_pooling(pool):
    features, content = converted(pool)
    cut = pooled.cut(content)
    graph = Graph(cut)
    (output,) = graph.outputs
    assert graph.shape(output) == (1, 6)
    np.testing.assert_allclose(execution.run(cut, IMAGES), features, rtol=1e-5, atol=1e-6)
    # Nothing of the dense layers is left.
    assert "FULLY_CONNECTED" not in {graph.kind(op) for op in graph.ops}
    assert (6, 5) not in {tuple(t.shape)[::-1] for t in graph.subgraph.tensors}
    assert len(cut) < len(content)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [layers.Flatten(), layers.AveragePooling2D(3)])
def test_without_a_global_pooling_it_is_refused_with_a_way(pool):
    _, content = converted(pool)
    with pytest.raises(InputError, match="no global pooling is found .*--task tensors"):
        pooled.cut(content)


def test_pooled_scores_are_no_features():
    image = layers.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    network = tf_keras.Model(image, layers.Softmax()(x))
    content = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    with pytest.raises(InputError, match="scores of its classes.*--output logits"):
        pooled.cut(content)
