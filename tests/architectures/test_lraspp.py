from __future__ import annotations

import numpy as np
import pytest
from tf_keras import layers

from mobiledeploy.architectures import lraspp, mobilenet_v3
from mobiledeploy.core import cards
from mobiledeploy.core.errors import UsageError
from tests.variants import slow_but

SIZES = {"large": (120, 480), "small": (88, 288)}
"""Channels of the map of stride 8, and of that of stride 16: half of the classifier's."""


@pytest.mark.parametrize("variant", slow_but(SIZES, "small"))
def test_maps_of_the_paper(variant):
    network = lraspp.build(
        backbone=f"mobilenet_v3_{variant}", alpha=1.0, resolution=(64, 96), classes=5
    )
    assert network.output_names == ["mask"]
    assert network.output_shape == (None, 64, 96, 5)
    low, high = (network.get_layer(name).input.shape for name in ("scores_low", "aspp"))
    assert tuple(low) == (None, 8, 12, SIZES[variant][0])
    assert tuple(high) == (None, 4, 6, SIZES[variant][1])
    assert network.get_layer("aspp").output.shape[-1] == 128
    # The last stage is atrous instead of strided: all but its first layer.
    rates = [
        layer.dilation_rate[0]
        for layer in network.layers
        if isinstance(layer, layers.DepthwiseConv2D)
    ]
    assert rates == [1] * (len(rates) - 2) + [2, 2]


@pytest.mark.slow
def test_windows_of_a_large_image():
    """Section 6.4 has 1024 x 2048: the figure's pool sees one row of four windows."""
    network = lraspp.build(
        backbone="mobilenet_v3_small", alpha=0.25, resolution=(1024, 2048), classes=19
    )
    assert network.get_layer("aspp_pool").output.shape[1:3] == (1, 4)
    assert network.get_layer("weighted").output.shape[1:3] == (64, 128)


@pytest.mark.slow
def test_the_backbone_is_that_of_the_classifier_but_for_its_last_stage():
    small, whole = (
        network.layers
        for network in (
            lraspp.build(backbone="mobilenet_v3_small", alpha=1.0, resolution=(32, 32), classes=3),
            mobilenet_v3.build(variant="small", alpha=1.0, resolution=(32, 32), classes=3),
        )
    )
    shapes = {x.name: [tuple(w.shape) for w in x.weights] for x in whole}
    same = [
        x.name
        for x in small
        if x.weights and shapes.get(x.name) == [tuple(w.shape) for w in x.weights]
    ]
    other = [x.name for x in small if x.weights and x.name not in same]
    # So a training can start from a classifier's weights.
    assert len(same) > 50
    new = ("expanded_conv_8/", "expanded_conv_9/", "expanded_conv_10/", "Conv_1", "aspp", "scores_")
    assert all(name.startswith(new) for name in other)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UsageError, match="no backbone 'vgg16'; it has mobilenet_v3_large"):
        lraspp.build(backbone="vgg16", alpha=1.0, resolution=(32, 32), classes=2)


@pytest.mark.parametrize("variant", SIZES)
def test_a_card_is_of_segmentation(variant):
    card = cards.load(f"lraspp_mobilenet_v3_{variant}")
    assert (card.task, card.arguments["backbone"]) == ("segmentation", f"mobilenet_v3_{variant}")


@pytest.mark.slow
def test_the_answer_depends_on_both_maps():
    network = lraspp.build(
        backbone="mobilenet_v3_small", alpha=0.25, resolution=(32, 32), classes=3
    )
    image = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    before = np.asarray(network(image))
    for name in ("scores_low", "scores_high", "aspp_weights"):
        layer = network.get_layer(name)
        weights = layer.get_weights()
        layer.set_weights([w + 1 for w in weights])
        assert np.abs(np.asarray(network(image)) - before).max() > 1e-3 * np.abs(before).max()
        layer.set_weights(weights)
