"""Sets of tied channels: what is silenced in Keras is what an export of any network leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from mobiledeploy.analysis import cost as costs
from mobiledeploy.core.plugins import ARCHITECTURES, FORMATS, PASSES
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks.grouped_convolution import GroupedConv2D
from mobiledeploy.frameworks.hard_activations import HardSigmoid, HardSwish
from mobiledeploy.training import channel_sets
from tests.conftest import float_tflite
from tests.lite import answers

SIZE = (32, 32)
FAMILIES = {
    "mobilenet_v1": {"alpha": 0.25},
    "mobilenet_v2": {"alpha": 0.35},
    "mobilenet_v3": {"variant": "small", "alpha": 0.5},
    "mobilenet_v4": {"variant": "conv_s"},
    "fd_mobilenet": {"alpha": 0.25},
    "shufflenet_v1": {"alpha": 0.5, "groups": 1},
    "xception": {},
}


def normalised(x, name, activation=None):
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return x if activation is None else activation(name=f"{name}_act")(x)


def conv(x, filters, name, activation=layers.ReLU, kernel=1):
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name)(x)
    return normalised(x, name, activation)


def depthwise(x, name, activation=layers.ReLU):
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=name)(x)
    return normalised(x, name, activation)


def tiny() -> tf_keras.Model:
    """A residual block with a squeeze-excite, as in MobileNet v3."""
    image = layers.Input((*SIZE, 3), name="image")
    before = conv(image, 16, "stem", activation=None, kernel=3)
    x = depthwise(conv(before, 24, "expand", HardSwish), "depthwise", HardSwish)
    factor = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    factor = layers.ReLU(name="inner")(layers.Conv2D(8, 1, name="squeeze")(factor))
    factor = HardSigmoid(name="factor")(layers.Conv2D(24, 1, name="excite")(factor))
    x = layers.Multiply(name="weighted")([x, factor])
    x = layers.Add(name="sum")([before, conv(x, 16, "project", activation=None)])
    x = layers.GlobalAveragePooling2D(name="pool")(conv(x, 32, "last"))
    x = layers.Dense(4, name="classifier")(x)
    return tf_keras.Model(image, layers.Activation("softmax", name="scores")(x))


def test_tied_channels_are_one_set():
    sets = channel_sets.of(tiny())
    together = [
        {name for name, index in sets.set_of.items() if index == number}
        for number in range(len(sets.sizes))
    ]
    assert sorted(map(sorted, together)) == [
        ["depthwise_bn", "expand_bn"],
        ["last_bn"],
        ["project_bn", "stem_bn"],
    ]
    assert sorted(sets.sizes) == [16, 24, 32]


def test_mult_adds_are_those_of_the_network():
    network = tiny()
    sets = channel_sets.of(network)
    file = FORMATS.load("tflite").inspect(float_tflite(Model("tf_keras", network), SIZE))
    assert sets.mult_adds(sets.sizes) == costs.cost(file.layers).mult_adds


def left_alone(image, x):
    """The sets of a network with `x` between two convolutions that could be silenced."""
    end = conv(x, 16, "end")
    network = tf_keras.Model(image, layers.Dense(2)(layers.GlobalMaxPooling2D()(end)))
    return set(channel_sets.of(network).set_of)


def test_what_is_not_known_is_left_alone():
    image = layers.Input((8, 8, 3))
    start = conv(image, 16, "start")
    grouped = GroupedConv2D(16, 1, groups=2, use_bias=False)(start)
    joined = layers.Concatenate()([start, start])
    # No normalisation makes this zero, nor one that is followed by a sigmoid.
    biased = layers.Conv2D(16, 1, activation="relu")(start)
    squashed = layers.Activation("sigmoid")(start)
    custom = layers.LayerNormalization()(start)
    assert left_alone(image, start) == {"start_bn", "end_bn"}
    assert left_alone(image, biased) == {"start_bn", "end_bn"}
    for x in (grouped, joined, squashed, custom):
        assert left_alone(image, x) == {"end_bn"}
    reshaped = layers.Reshape((8, 8, 16))(start)
    assert left_alone(image, reshaped) == {"end_bn"}


def test_a_sum_with_what_is_not_normalised_is_left_alone():
    image = layers.Input((8, 8, 3))
    x = layers.Add()([conv(image, 16, "start"), layers.Conv2D(16, 1)(image)])
    assert left_alone(image, x) == {"end_bn"}


def test_outputs_are_left_alone():
    image = layers.Input((8, 8, 3))
    features = conv(conv(image, 16, "start"), 16, "features")
    assert set(channel_sets.of(tf_keras.Model(image, features)).set_of) == {"start_bn"}


def test_the_least_important_channels_for_their_cost_go_by_eights():
    sets = channel_sets.of(tiny())
    dice = np.random.default_rng(0)
    importance = [dice.uniform(1, 2, size) for size in sets.sizes]
    masks = [np.ones(size, bool) for size in sets.sizes]
    # The first eight of the last layer do next to nothing.
    last = sets.set_of["last_bn"]
    importance[last][:8] = 1e-9
    fewer = sets.silence(masks, importance, lambda kept: sum(kept) - sum(sets.sizes) + 8)
    assert [int(mask.sum()) for mask in fewer] == [
        size - 8 * (index == last) for index, size in enumerate(sets.sizes)
    ]
    assert not fewer[last][:8].any()
    assert all(mask.all() for mask in masks), "the masks that were given do not change"
    fewest = sets.silence(fewer, importance, sum)
    assert [int(mask.sum()) for mask in fewest] == [8] * len(sets.sizes)
    assert not fewest[last][:8].any()


def test_what_is_saved_beyond_the_budget_counts_for_nothing():
    sets = channel_sets.of(tiny())
    masks = [np.ones(size, bool) for size in sets.sizes]
    whole = sets.mult_adds(sets.sizes)

    def fewer(name):
        kept = list(sets.sizes)
        kept[sets.set_of[name]] -= 8
        return sets.mult_adds(kept)

    # Eight channels of the wide layers save more for their importance than eight of the last.
    wide, last = sets.set_of["expand_bn"], sets.set_of["last_bn"]
    assert fewer("expand_bn") < fewer("last_bn")
    ratio = (whole - fewer("expand_bn")) / (whole - fewer("last_bn"))
    importance = [np.full(size, 100.0) for size in sets.sizes]
    importance[last][:8], importance[wide][:8] = 1.0, ratio * 0.9
    for budget, expected in ((fewer("expand_bn"), wide), (fewer("last_bn"), last)):
        masks_ = sets.silence(
            masks, importance, lambda kept, most=budget: sets.mult_adds(kept) - most
        )
        assert [index for index, mask in enumerate(masks_) if not mask.all()] == [expected]


def float_logits(network: tf_keras.Model) -> bytes:
    return float_tflite(Model("tf_keras", network), SIZE)


def same_without(network: tf_keras.Model, convert=float_logits, extent=(-1.0, 1.0)) -> None:
    """Half of the channels are silenced: the file without them has the same answers and cost."""
    dice = np.random.default_rng(1)
    for weight in network.weights:
        if "beta" in weight.name or "gamma" in weight.name:
            weight.assign(dice.uniform(0.3, 1.5, weight.shape))
        elif "moving_mean" in weight.name:
            weight.assign(dice.normal(0, 0.1, weight.shape))
    sets = channel_sets.of(network)
    masks = [np.ones(size, bool) for size in sets.sizes]
    importance = [dice.uniform(0, 1, size) for size in sets.sizes]
    half = sum(sets.sizes) / 2
    masks = sets.silence(masks, importance, lambda kept: sum(kept) - half)
    kept = [int(mask.sum()) for mask in masks]
    assert half - 8 < sum(kept) <= half
    for name, index in sets.set_of.items():
        layer = network.get_layer(name)
        for weight in (layer.gamma, layer.beta):
            weight.assign(weight * masks[index])
    whole = convert(network)
    shrunk, _ = PASSES.load("dead_channels").simplify(whole, [extent])
    facts = FORMATS.load("tflite").inspect(shrunk)
    assert costs.cost(facts.layers).mult_adds == sets.mult_adds(kept)
    image = dice.uniform(*extent, (1, *network.input_shape[1:])).astype(np.float32)
    for before, after in zip(*(answers(file, image) for file in (whole, shrunk)), strict=True):
        assert np.ptp(before) > 0
        np.testing.assert_allclose(after, before, atol=1e-5 * abs(before).max())


def every_output(network: tf_keras.Model) -> bytes:
    """The float TFLite of a network with any outputs."""
    call = tf.function(lambda image: network(image, training=False)).get_concrete_function(
        tf.TensorSpec((1, *network.input_shape[1:]), tf.float32, name="image")
    )
    return tf.lite.TFLiteConverter.from_concrete_functions([call], network).convert()


def test_a_file_without_what_is_silenced_answers_as_before():
    tf_keras.utils.set_random_seed(0)
    same_without(tiny())


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_the_same_without_what_is_silenced(name):
    tf_keras.utils.set_random_seed(0)
    network = ARCHITECTURES.load(name).build(**FAMILIES[name], resolution=SIZE, classes=4)
    same_without(network)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backbone", "alpha", "side"),
    [("lraspp", "mobilenet_v3_small", 0.5, 32), ("ssdlite", "mobilenet_v1", 0.25, 64)],
)
def test_what_stands_on_a_backbone_is_the_same_without_what_is_silenced(
    name, backbone, alpha, side
):
    tf_keras.utils.set_random_seed(0)
    network = ARCHITECTURES.load(name).build(
        backbone=backbone, alpha=alpha, resolution=(side, side), classes=3
    )
    same_without(network, every_output)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("alexnet", {}),
        pytest.param("shufflenet_v1", {"alpha": 0.25, "groups": 3}, marks=pytest.mark.slow),
    ],
)
def test_a_family_without_such_channels_has_no_sets(name, arguments):
    side = 224 if name == "alexnet" else 32
    network = ARCHITECTURES.load(name).build(**arguments, resolution=(side, side), classes=4)
    assert channel_sets.of(network).sizes == ()
