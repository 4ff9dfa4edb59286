"""Every compression: the property of its weights, which int8 files keep."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tf_keras

from mobiledeploy.analysis import cost as costs
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import COMPRESSIONS, FORMATS, PASSES, RECIPES
from mobiledeploy.core.types import Model
from mobiledeploy.graphs import matrices, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.training import channel_sets
from tests.conftest import float_tflite, press_floats
from tests.lite import answers
from tests.variants import slow_but

AMOUNTS = {"prune": 0.6, "prune_channels": 0.5, "cluster": 8}
FILES = {"prune-channels": "prune_channels", "max-mult-adds": "prune_channels"}
"""Option -> its file, unless it has the file's name."""
STEPS = 24


def images(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, 32, 32, 3)).astype(np.float32)


def train(name, model, epochs=6, callbacks=()):
    """`model`, compressed by a short training on noise."""
    shelf = COMPRESSIONS.load(name)
    labels = np.random.default_rng(1).integers(0, 4, 32)
    wrapped_model = shelf.wrap(model, AMOUNTS[name], STEPS)
    wrapped_model.handle.compile("adam", "sparse_categorical_crossentropy")
    wrapped_model.handle.fit(
        images(32),
        labels,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        callbacks=[*shelf.callbacks(), *callbacks],
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


def small():
    """A few layers of a MobileNet, for what takes no whole one."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    x = image = layers.Input((32, 32, 3), name="image")
    for number, filters in enumerate((16, 32, 64)):
        x = layers.Conv2D(filters, 3 if x is image else 1, 2 if x is image else 1, use_bias=False)(
            x
        )
        x = layers.ReLU(6.0)(layers.BatchNormalization(name=f"bn_{number}")(x))
        x = layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(name=f"dw_bn_{number}")(x))
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    return Model("tf_keras", tf_keras.Model(image, layers.Softmax()(x)))


@pytest.fixture(scope="module")
def pruned_model():
    return train("prune", small())


@pytest.fixture(scope="module")
def clustered_model(pruned_model):
    """After pruning: the two can be combined."""
    copy = Model("tf_keras", tf_keras.models.clone_model(pruned_model.handle))
    copy.handle.set_weights(pruned_model.handle.get_weights())
    return train("cluster", copy, epochs=1)


class Watcher(tf_keras.callbacks.Callback):
    """Keeps what is silenced after each epoch: [epochs] of layer name -> bool [C]."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        masks = {w.name: w.numpy() == 0 for w in self.model.weights if w.name.endswith("/mask:0")}
        self.epochs.append(masks)


@pytest.fixture(scope="module")
def silencing():
    """A watched training that silences half of the channels: the model, what was silenced."""
    watcher = Watcher()
    return train("prune_channels", small(), callbacks=[watcher]), watcher.epochs


def silent(model):
    """name -> bool [C] of each batch normalisation: which of its channels are zero."""
    normals = [x for x in model.handle.layers if isinstance(x, tf_keras.layers.BatchNormalization)]
    return {x.name: (x.gamma.numpy() == 0) & (x.beta.numpy() == 0) for x in normals}


@pytest.fixture(scope="module")
def dense():
    """The float TFLite of the network as it was."""
    return float_tflite(small(), (32, 32))


@pytest.fixture(scope="module")
def pruned(pruned_model):
    """The float TFLite of the pruned network."""
    return float_tflite(pruned_model, (32, 32))


@pytest.fixture(scope="module")
def clustered(clustered_model):
    """The float TFLite of the clustered network."""
    return float_tflite(clustered_model, (32, 32))


def instructions(model):
    """Stands for a core: something for each mult-add, and something that no channel changes."""
    sets, zeros = channel_sets.of(model.handle), silent(model)
    kept = list(sets.sizes)
    for name, index in sets.set_of.items():
        kept[index] = int((~zeros[name]).sum())
    return 50_000 + sets.mult_adds(kept)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, pytest.param(0.8, marks=pytest.mark.slow)])
def test_channels_go_until_instructions_are_few_enough(share):
    model, counts = small(), []

    def counted(network):
        counts.append(instructions(network))
        return counts[-1]

    most = int(instructions(model) * share)
    shelf = COMPRESSIONS.load("prune_channels")
    wrapped = shelf.wrap(model, most, STEPS, counted)
    wrapped.handle.compile("adam", "sparse_categorical_crossentropy")
    labels = np.random.default_rng(1).integers(0, 4, 32)
    wrapped.handle.fit(
        images(32), labels, batch_size=8, epochs=6, verbose=0, callbacks=[*shelf.callbacks()]
    )
    taken = instructions(shelf.strip(wrapped))
    assert taken <= most
    # The best that was counted, and each shape is counted once.
    assert taken == max(count for count in counts if count <= most)
    assert len(counts) == len(set(counts))
    assert not silent(small())["bn_0"].any()


@pytest.mark.parametrize(
    ("most", "message"), [(10**9, "takes .* no more than --max-inst"), (1, "--max-inst.* reached")]
)
def test_instructions_that_cannot_be_are_refused(most, message):
    with pytest.raises(UsageError, match=message):
        COMPRESSIONS.load("prune_channels").wrap(small(), most, STEPS, instructions)


def test_every_compression_is_tested():
    assert set(AMOUNTS) == set(COMPRESSIONS.names())


@pytest.mark.parametrize("name", slow_but(AMOUNTS, "prune_channels"))
def test_wrapping_for_pruning_changes_no_answer_and_stripping_restores_the_layers(name):
    model = small()
    names = [layer.name for layer in model.handle.layers]
    shelf = COMPRESSIONS.load(name)
    before = model.handle.predict(images(4), verbose=0)
    wrapped_model = shelf.wrap(model, AMOUNTS[name], STEPS)
    if name != "cluster":
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


def test_the_share_of_channels_is_silent_tied_ones_together_and_by_eights(silencing):
    model, _ = silencing
    sets = channel_sets.of(model.handle)
    masks = [None] * len(sets.sizes)
    for name, mask in silent(model).items():
        index = sets.set_of[name]
        assert masks[index] is None or np.array_equal(masks[index], mask), name
        masks[index] = mask
    kept = [int((~mask).sum()) for mask in masks]
    assert all(count % channel_sets.MULTIPLE == 0 for count in kept)
    half = sum(sets.sizes) / 2
    assert half - channel_sets.MULTIPLE < sum(kept) <= half


def test_what_is_silenced_stays_silent(silencing):
    _, epochs = silencing
    counts = [sum(int(mask.sum()) for mask in masks.values()) for masks in epochs]
    # Half of the steps silence, the rest of them recovers.
    assert 0 < counts[0] < counts[1] < counts[2] == counts[3] == counts[-1]
    for before, after in itertools.pairwise(epochs):
        assert all(np.all(after[name] | ~before[name]) for name in before)


def test_an_export_leaves_silent_channels_out_and_answers_as_before(silencing):
    model, _ = silencing
    floats = float_tflite(model, (32, 32))
    shrunk, _ = PASSES.load("dead_channels").simplify(floats, [(-1.0, 1.0)])
    sets = channel_sets.of(model.handle)
    kept = [0] * len(sets.sizes)
    for name, mask in silent(model).items():
        kept[sets.set_of[name]] = int((~mask).sum())
    layers = FORMATS.load("tflite").inspect(shrunk).layers
    assert costs.cost(layers).mult_adds == sets.mult_adds(kept) < sets.mult_adds(sets.sizes)
    for image in images(4):
        before, after = (answers(file, image[None])[0] for file in (floats, shrunk))
        np.testing.assert_allclose(after, before, atol=1e-5 * abs(before).max())


@pytest.mark.slow
def test_mult_adds_are_a_budget_too():
    model = small()
    sets = channel_sets.of(model.handle)
    budget = sets.mult_adds(sets.sizes) // 2
    wrapped = COMPRESSIONS.load("prune_channels").wrap(model, budget, 1)
    wrapped.handle.compile("sgd", "sparse_categorical_crossentropy")
    callbacks = COMPRESSIONS.load("prune_channels").callbacks()
    wrapped.handle.fit(images(8), np.zeros(8), batch_size=8, verbose=0, callbacks=callbacks)
    kept = [0] * len(sets.sizes)
    for name, mask in silent(COMPRESSIONS.load("prune_channels").strip(wrapped)).items():
        kept[sets.set_of[name]] = int((~mask).sum())
    assert 0.8 * budget < sets.mult_adds(kept) <= budget


def test_a_network_without_channels_to_silence_is_refused():
    image = tf_keras.layers.Input((8, 8, 3))
    x = tf_keras.layers.Conv2D(16, 3, activation="relu")(image)
    network = tf_keras.Model(image, tf_keras.layers.Flatten()(x), name="plain")
    with pytest.raises(UsageError, match="plain has no channels that can be silenced"):
        COMPRESSIONS.load("prune_channels").wrap(Model("tf_keras", network), 0.5, STEPS)


@pytest.mark.slow
def test_every_clustered_layer_has_few_values_and_keeps_its_zeros(pruned_model, clustered_model):
    for name, kernel in kernels(clustered_model).items():
        assert len(np.unique(kernel)) <= AMOUNTS["cluster"], name
        assert np.all(kernel[kernels(pruned_model)[name] == 0] == 0), name


@pytest.mark.slow
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


@pytest.mark.slow
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
        ("prune-channels", 0.0),
        ("prune-channels", 0.99),
        ("prune-channels", float("nan")),
        ("max-mult-adds", 1000.0),
        ("max-mult-adds", 1e9),
        ("cluster", 1),
        ("cluster", 2.5),
        ("cluster", 257),
        ("cluster", float("nan")),
    ],
)
def test_an_invalid_amount_is_refused(name, amount):
    with pytest.raises(UsageError, match=f"--{name}"):
        COMPRESSIONS.load(FILES.get(name, name)).wrap(small(), amount, STEPS)
