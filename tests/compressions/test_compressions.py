"""Every compression: the property of its weights, which int8 files keep."""

from __future__ import annotations

import numpy as np
import pytest
import tf_keras

from mobiledeploy.architectures import mobilenet_v1
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import COMPRESSIONS, FORMATS, PASSES, RECIPES
from mobiledeploy.core.types import Model
from mobiledeploy.graphs import matrices, quantized
from mobiledeploy.graphs.graph import Graph
from tests.conftest import float_tflite, press_floats

AMOUNTS = {"prune": 0.6, "cluster": 8}
STEPS = 24


def images(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, 32, 32, 3)).astype(np.float32)


def train(name, model, epochs=6):
    """`model`, compressed by a short training on noise."""
    shelf = COMPRESSIONS.load(name)
    labels = np.random.default_rng(1).integers(0, 4, 32)
    wrapped_model = shelf.wrap(model, AMOUNTS[name], STEPS)
    wrapped_model.handle.compile("adam", "sparse_categorical_crossentropy")
    wrapped_model.handle.fit(
        images(32), labels, batch_size=8, epochs=epochs, verbose=0, callbacks=shelf.callbacks()
    )
    return shelf.strip(wrapped_model)


def kernels(model):
    """name -> kernel of each compressed layer."""
    return {
        layer.name: layer.get_weights()[0]
        for layer in model.handle.layers
        if isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense)
        and not isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    }


def fresh():
    tf_keras.utils.set_random_seed(0)
    network = mobilenet_v1.build(alpha=0.25, resolution=(32, 32), classes=4, variant="shallow")
    return Model("tf_keras", network)


@pytest.fixture(scope="module")
def pruned_model():
    return train("prune", fresh())


@pytest.fixture(scope="module")
def clustered_model(pruned_model):
    """After pruning: the two can be combined."""
    copy = Model("tf_keras", tf_keras.models.clone_model(pruned_model.handle))
    copy.handle.set_weights(pruned_model.handle.get_weights())
    return train("cluster", copy, epochs=1)


@pytest.fixture(scope="module")
def dense():
    """The float TFLite of the network as it was."""
    return float_tflite(fresh(), (32, 32))


@pytest.fixture(scope="module")
def pruned(pruned_model):
    """The float TFLite of the pruned network."""
    return float_tflite(pruned_model, (32, 32))


@pytest.fixture(scope="module")
def clustered(clustered_model):
    """The float TFLite of the clustered network."""
    return float_tflite(clustered_model, (32, 32))


def test_every_compression_is_tested():
    assert set(AMOUNTS) == set(COMPRESSIONS.names())


@pytest.mark.parametrize("name", AMOUNTS)
def test_wrapping_for_pruning_changes_no_answer_and_stripping_restores_the_layers(name):
    model = fresh()
    names = [layer.name for layer in model.handle.layers]
    shelf = COMPRESSIONS.load(name)
    before = model.handle.predict(images(4), verbose=0)
    wrapped_model = shelf.wrap(model, AMOUNTS[name], STEPS)
    if name == "prune":
        np.testing.assert_allclose(
            wrapped_model.handle.predict(images(4), verbose=0), before, atol=1e-6
        )
    assert [layer.name for layer in shelf.strip(wrapped_model).handle.layers] == names


def test_every_pruned_layer_has_its_share_of_zeros(pruned_model):
    for name, kernel in kernels(pruned_model).items():
        assert np.mean(kernel == 0) == pytest.approx(AMOUNTS["prune"], abs=0.01), name


def test_depthwise_kernels_stay_dense(pruned_model):
    for layer in pruned_model.handle.layers:
        if isinstance(layer, tf_keras.layers.DepthwiseConv2D):
            assert np.all(layer.get_weights()[0]), layer.name


def test_every_clustered_layer_has_few_values_and_keeps_its_zeros(pruned_model, clustered_model):
    for name, kernel in kernels(clustered_model).items():
        assert len(np.unique(kernel)) <= AMOUNTS["cluster"], name
        assert np.all(kernel[kernels(pruned_model)[name] == 0] == 0), name


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
@pytest.mark.parametrize("recipe", ["float32", "int8_ptq"])
def test_files_have_the_zeros_and_compress(dense, pruned, clustered, recipe, format_):
    import gzip

    files = [
        press_floats(model, recipe, format_, images(12)) for model in (dense, pruned, clustered)
    ]
    zeros = [FORMATS.load(format_).sparsity(data) for data in files]
    assert zeros[0] < 0.1
    assert zeros[1] > 0.5 and zeros[2] > 0.5
    dense_size, sparse_size, cluster_size = (len(gzip.compress(data)) for data in files)
    assert cluster_size < sparse_size < 0.8 * dense_size


@pytest.mark.parametrize("names", [("adaround",), ("global_pool", "equalize", "adaround")])
def test_passes_keep_zeros_and_clusters(pruned, clustered, names):
    int8 = RECIPES.load("int8_ptq").RECIPE
    for model in (pruned, clustered):
        plain = quantized_graph = quantized.start(model, int8, "int8", images(12))
        for name in names:
            quantized_graph = PASSES.load(name).apply(quantized_graph, images(12))
        share, before = (
            FORMATS.load("tflite").sparsity(quantized.integers(d)) for d in (quantized_graph, plain)
        )
        assert share > before - 0.02
        if model is clustered:
            layers = [
                layer
                for layer in matrices.weighted_ops(Graph(quantized_graph.floats))
                if layer.is_clustered
            ]
            codes = Graph(quantized.integers(quantized_graph))
            kinds = {layer.name: layer for layer in matrices.weighted_ops(codes)}
            assert layers
            for layer in layers:
                for row in codes.constant_values(kinds[layer.name].weights):
                    assert len(np.unique(row)) <= AMOUNTS["cluster"]


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("prune", 0.0),
        ("prune", 1.0),
        ("prune", -1),
        ("prune", float("nan")),
        ("cluster", 1),
        ("cluster", 2.5),
        ("cluster", 257),
        ("cluster", float("nan")),
    ],
)
def test_an_invalid_amount_is_refused(name, amount):
    with pytest.raises(UsageError, match=f"--{name}"):
        COMPRESSIONS.load(name).wrap(fresh(), amount, STEPS)
