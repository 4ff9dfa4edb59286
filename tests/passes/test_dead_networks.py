"""Dead channels of every network that is built here, and of published weights."""

from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core import cards, preprocessing
from mobiledeploy.core.plugins import ARCHITECTURES, RECIPES, WRITERS
from mobiledeploy.core.types import Model
from mobiledeploy.graphs import execution, matrices, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import dead_channels
from mobiledeploy.steps import card_specs
from tests.conftest import float_tflite
from tests.variants import slow_but

QUICK = "mobilenet_v1_shallow"
"""The smallest one; the others are slow."""
RESOLUTION = {"alexnet": 96, "xception": 96}
KEPT_WHOLE = {"shufflenet_v1"}
"""Networks all of whose channels are tied to groups or shuffles."""


def network(name):
    """The float TFLite of a card with random weights, small, and the side of its images."""
    card = cards.load(name)
    alpha = None if card.default_alpha is None else 0.5
    size = RESOLUTION.get(name, 64)
    spec = card_specs.spec(card, alpha=alpha, res=size, classes=12)
    model = ARCHITECTURES.load(card.architecture).build(
        **spec.arguments, resolution=spec.resolution, classes=spec.classes
    )
    return float_tflite(Model("tf_keras", model), spec.resolution, "softmax"), spec


def silence(content, share, seed=0):
    """The network without most of its filters: what has no weights left answers its bias."""
    graph = Graph(content)
    random = np.random.default_rng(seed)
    for layer in matrices.weighted_ops(graph)[:-1]:
        weights = np.array(graph.constant_values(layer.weights))
        if len(np.unique(weights)) <= 2:
            # The sums over channels of a response normalization, whose logarithm is next.
            continue
        dead = random.uniform(size=layer.outputs) < share
        if layer.kind == "DEPTHWISE_CONV_2D":
            weights[..., dead] = 0
        else:
            weights[dead] = 0
        graph.replace_constant(layer.op, 1, weights)
        if layer.bias >= 0:
            bias = np.array(graph.constant_values(layer.bias))
            bias[dead] = random.choice([-4, 0, 0, 0.5, 7], dead.sum())
            graph.replace_constant(layer.op, 2, bias)
    return graph.pack()


def weight_count(content):
    graph = Graph(content)
    return sum(graph.constant_values(layer.weights).size for layer in matrices.weighted_ops(graph))


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but(cards.names(), QUICK))
def test_a_network_with_silenced_filters_answers_as_before(name):
    floats, spec = network(name)
    extent = preprocessing.extent(spec.preprocessing)
    images = np.random.default_rng(1).uniform(*extent, (4, *spec.resolution, 3))
    images = images.astype(np.float32)
    assert dead_channels.simplify(floats, [extent]) == (floats, ())
    content = silence(floats, 0.4)
    shrunk, layers = dead_channels.simplify(content, [extent])
    assert bool(layers) != (name in KEPT_WHOLE)
    expected, ours = (execution.run(file, images) for file in (content, shrunk))
    assert abs(ours - expected).max() <= 1e-5 * abs(expected).max()
    if layers:
        assert weight_count(shrunk) < weight_count(content)
    if name == QUICK:
        assert WRITERS.load("onnx").write(shrunk)


# Published weights


def vww(real_data):
    with np.load(real_data / "vww" / "images.npz") as archive:
        images = archive["images"].astype(np.float32) / 255
    return (real_data / "vww" / "vww_96_float.tflite").read_bytes(), images


def test_a_published_person_detector_has_a_fifth_of_its_weights(real_data):
    content, images = vww(real_data)
    shrunk, layers = dead_channels.simplify(content, [(0.0, 1.0)])
    kept = [layer.filters - layer.left_out for layer in layers]
    assert all(count % 8 == 0 for count in kept)
    assert weight_count(content) == 208_112
    assert weight_count(shrunk) < 40_000
    expected, ours = (execution.logits(file, images[::50]) for file in (content, shrunk))
    assert abs(ours - expected).max() <= 1e-5 * abs(expected).max()


@pytest.mark.slow
def test_its_integers_agree_with_float_as_before(real_data):
    content, images = vww(real_data)
    shrunk, _ = dead_channels.simplify(content, [(0.0, 1.0)])
    recipe = RECIPES.load("int8_ptq").RECIPE
    calibration, fresh = images[:100], images[100:]
    best = execution.logits(content, fresh).argmax(axis=1)
    agreements = []
    for floats in (content, shrunk):
        made = quantized.integers(quantized.start(floats, recipe, "int8", calibration))
        agreements.append(np.mean(execution.logits(made, fresh).argmax(axis=1) == best))
    assert agreements[1] >= agreements[0] - 0.005
