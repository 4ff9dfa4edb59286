"""Filters that no answer depends on are left out, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core.plugins import PASSES, WRITERS
from mobiledeploy.graphs import execution
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.passes import dead_channels
from tests.layers import SIDE, Network, silenced
from tests.lite import answers

EXTENT = (-1.0, 1.0)


def images(extent=EXTENT, count=4):
    """Noise, and the two ends of the range."""
    random = np.random.default_rng(7)
    noise = random.uniform(*extent, (count, 1, SIDE, SIDE, 3))
    ends = np.stack([np.full((1, SIDE, SIDE, 3), end) for end in extent])
    return np.concatenate([noise, ends]).astype(np.float32)


def same(one: bytes, other: bytes) -> None:
    """Equal within 1e-5 of the largest magnitude of the output."""
    expected, ours = (
        np.stack([np.concatenate(answers(file, image), None) for image in images()])
        for file in (one, other)
    )
    assert abs(ours - expected).max() <= 1e-5 * abs(expected).max()


def simplified(content: bytes) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The file without dead channels, and how many filters of how many each layer lost."""
    shrunk, layers = dead_channels.simplify(content, [EXTENT])
    same(content, shrunk)
    return shrunk, {layer.layer: (layer.left_out, layer.filters) for layer in layers}


def filters(bias, dead, value):
    """A bias [O] with this value for the filters in `dead`."""
    bias = np.array(bias, np.float32)
    bias[dead] = value
    return bias


def shapes(content: bytes) -> dict[str, tuple[int, ...]]:
    graph = Graph(content)
    return {graph.name(int(i)): graph.shape(int(i)) for op in graph.ops for i in op.outputs}


# Forward: filters that answer a constant.


@pytest.mark.parametrize(("activation", "value"), [("RELU", 0.0), ("RELU6", 0.0), ("RELU6", 6.0)])
def test_a_filter_beyond_its_clip_for_every_image_is_left_out(activation, value):
    net = Network()
    dead = slice(4, 16)
    # With inputs from -1 to 1 no sum is as large.
    weights = net.weights(16, 3, 3, 3)
    bound = abs(weights).sum(axis=(1, 2, 3))
    bias = net.bias(16)
    bias[dead] = (-bound if value == 0 else 6 + bound)[dead] * 1.001
    # Valid: a pattern at the border would keep the constant of 6.
    x = net.conv(
        net.image, 16, kernel=3, weights=weights, bias=bias, activation=activation, name="conv1"
    )
    x = net.depthwise(x, padding="VALID")
    x = net.conv(x, 8, name="pw")
    _, lost = simplified(net.file(net.dense(net.mean(x))))
    assert lost == {"conv1": (8, 16)}


def test_a_filter_just_within_its_bound_stays():
    net = Network()
    weights = net.weights(16, 3, 3, 3)
    bound = abs(weights).sum(axis=(1, 2, 3))
    x = net.conv(net.image, 16, kernel=3, weights=weights, bias=-bound * 0.99, padding="VALID")
    content = net.file(net.dense(net.mean(net.conv(x, 8))))
    assert dead_channels.simplify(content, [EXTENT]) == (content, ())
    # Of other images nothing is known: all of a larger range could be alive.
    assert dead_channels.simplify(content, [None]) == (content, ())


@pytest.mark.parametrize(("size", "lost"), [(1e-8, True), (1e-4, False)])
def test_a_channel_is_constant_by_a_millionth_of_what_its_tensor_varies_by(size, lost):
    net = Network()
    weights = net.weights(16, 1, 1, 3)
    weights[:8] *= size
    x = net.conv(net.image, 16, weights=weights, activation="NONE", name="conv1")
    content = net.file(net.dense(net.mean(net.conv(x, 8))))
    assert simplified(content)[1] == ({"conv1": (8, 16)} if lost else {})


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_only_zero_passes_a_border(value, padding):
    net = Network()
    x = silenced(net, net.image, value, name="conv1")
    x = net.conv(net.depthwise(x, padding=padding), 8)
    _, lost = simplified(net.file(net.dense(net.mean(x))))
    assert bool(lost) == (value == 0 or padding == "VALID")


def test_a_constant_goes_into_the_bias_of_the_next_layer():
    net = Network()
    x = silenced(net, net.image, 0.7, name="conv1")
    shrunk, lost = simplified(net.file(net.dense(net.mean(net.conv(x, 8, name="next")))))
    assert lost == {"conv1": (8, 16)}
    graph = Graph(shrunk)
    assert graph.shape(int(graph.ops[1].inputs[1])) == (8, 1, 1, 8)


def test_a_layer_without_a_bias_gets_one():
    net = Network()
    x = net.mean(silenced(net, net.image, 0.7))
    graph = Graph(net.file(net.dense(x)))
    graph.ops[-1].inputs = graph.ops[-1].inputs[:2]
    assert simplified(graph.pack())[1]


def test_a_pattern_at_the_border_of_a_full_convolution_stays():
    net = Network()
    x = silenced(net, net.image, 0.7)
    content = net.file(net.dense(net.mean(net.conv(x, 8, kernel=3))))
    assert simplified(content)[1] == {}


# Backward: channels that nobody weighs.


def test_a_channel_that_every_reader_weighs_by_zero_goes_with_its_depthwise_filter():
    net = Network()
    x = net.depthwise(net.conv(net.image, 24, name="conv1"))
    weights = [net.weights(8, 1, 1, 24) for _ in range(2)]
    weights[0][..., 5:] = 0
    weights[1][..., 8:] = 0
    two = net.concatenation(*(net.conv(x, 8, weights=own) for own in weights))
    shrunk, lost = simplified(net.file(net.dense(net.mean(two))))
    assert lost == {"conv1": (16, 24)}
    assert shapes(shrunk)["conv1"] == (1, SIDE, SIDE, 8)


def test_a_depthwise_filter_of_zeros_frees_the_filter_before_it():
    net = Network()
    x = net.conv(net.image, 16, name="conv1")
    weights = net.weights(1, 3, 3, 16)
    weights[..., 8:] = 0
    x = net.conv(net.depthwise(x, weights=weights), 8, name="pw")
    assert simplified(net.file(net.dense(net.mean(x))))[1] == {"conv1": (8, 16)}


def test_what_only_dead_filters_weigh_is_dead():
    net = Network()
    x = net.conv(net.image, 16, name="first")
    weights = net.weights(16, 1, 1, 16)
    weights[:8, :, :, 8:] = 0
    x = net.conv(x, 16, weights=weights, name="second")
    last = net.weights(8, 1, 1, 16)
    last[..., 8:] = 0
    x = net.conv(x, 8, weights=last)
    lost = simplified(net.file(net.dense(net.mean(x))))[1]
    assert lost == {"first": (8, 16), "second": (8, 16)}


# What is tied.


@pytest.mark.parametrize("both", [True, False])
def test_a_residual_channel_goes_if_every_summand_is_constant(both):
    net = Network()
    one = silenced(net, net.image, 0.1)
    other = silenced(net, net.image, 0.0) if both else net.conv(net.image, 16)
    content = net.file(net.dense(net.mean(net.conv(net.pair("ADD", one, other), 8))))
    assert bool(simplified(content)[1]) == both


def test_a_residual_channel_that_another_operator_reads_stays():
    net = Network()
    x = net.pair("ADD", silenced(net, net.image, 0.0), silenced(net, net.image, 0.0))
    soft = net.lite.op("SOFTMAX", [x], net.lite.shape(x), options="SoftmaxOptions", beta=1.0)
    content = net.file(net.dense(net.mean(net.conv(x, 8))), net.mean(soft))
    assert dead_channels.simplify(content, [EXTENT]) == (content, ())


@pytest.mark.parametrize(("value", "lost"), [(-3.0, True), (-4.0, True), (-2.9, False)])
def test_hard_swish_is_zero_only_up_to_minus_three(value, lost):
    net = Network()
    x = silenced(net, net.image, value, activation="NONE", name="conv1")
    # A border behind it keeps any other constant.
    x = net.depthwise(net.single("HARD_SWISH", x))
    content = net.file(net.dense(net.mean(net.conv(x, 8))))
    assert simplified(content)[1] == ({"conv1": (8, 16)} if lost else {})


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_only_zero_passes_a_squeeze_and_excite_whose_layers_lose_column_and_row(value):
    net = Network()
    x = net.excited(silenced(net, net.image, value, name="conv1"), name="gate")
    shrunk, lost = simplified(net.file(net.dense(net.mean(net.conv(x, 8)))))
    assert lost == ({} if value else {"conv1": (8, 16), "gate": (8, 16)})
    if not value:
        graph = Graph(shrunk)
        squeeze, excite = (graph.ops[place] for place in (2, 3))
        assert graph.shape(int(squeeze.inputs[1])) == (8, 1, 1, 8)
        assert graph.shape(int(excite.inputs[1])) == (8, 1, 1, 8)


def test_a_concatenation_loses_the_channels_of_its_inputs():
    net = Network()
    one = silenced(net, net.image, 0.0, name="one")
    other = silenced(net, net.image, 0.5, dead=slice(0, 8), name="other")
    x = net.concatenation(one, net.conv(net.image, 8), other)
    x = net.pair("ADD", x, net.lite.constant(net.bias(40)))
    shrunk, lost = simplified(net.file(net.dense(net.mean(net.conv(x, 8)))))
    assert lost == {"one": (8, 16), "other": (8, 16)}
    assert (1, SIDE, SIDE, 24) in shapes(shrunk).values()


def test_a_dense_layer_of_an_image_loses_a_channel_at_every_place():
    net = Network()
    x = silenced(net, net.image, 0.3, name="conv1")
    shrunk, lost = simplified(net.file(net.dense(x)))
    assert lost == {"conv1": (8, 16)}
    assert (1, SIDE * SIDE * 8) in shapes(shrunk).values()


def test_a_depthwise_layer_with_several_filters_a_channel_loses_all_of_them():
    net = Network()
    x = silenced(net, net.image, 0.0, name="conv1")
    shrunk, _ = simplified(net.file(net.dense(net.mean(net.conv(net.depthwise(x, times=2), 8)))))
    assert (1, SIDE, SIDE, 16) in shapes(shrunk).values()


def test_channels_of_groups_and_shuffles_stay():
    net = Network()
    grouped = silenced(net, net.image, 0.0)
    x = net.conv(grouped, 16, weights=net.weights(16, 1, 1, 8), name="grouped")
    shuffled = silenced(net, x, 0.0)
    shape = net.lite.constant([1, SIDE, SIDE, 2, 8], np.int32)
    x = net.lite.op("RESHAPE", [shuffled, shape], (1, SIDE, SIDE, 2, 8), options="ReshapeOptions")
    order = net.lite.constant([0, 1, 2, 4, 3], np.int32)
    x = net.lite.op("TRANSPOSE", [x, order], (1, SIDE, SIDE, 8, 2))
    shape = net.lite.constant([1, SIDE, SIDE, 16], np.int32)
    x = net.lite.op("RESHAPE", [x, shape], (1, SIDE, SIDE, 16), options="ReshapeOptions")
    content = net.file(net.dense(net.mean(net.conv(x, 8))))
    assert dead_channels.simplify(content, [EXTENT]) == (content, ())


def test_the_outputs_keep_their_channels():
    net = Network()
    exposed = silenced(net, net.image, 0.0)
    content = net.file(net.dense(net.mean(net.conv(exposed, 8))), exposed)
    assert dead_channels.simplify(content, [EXTENT]) == (content, ())


# How many stay.


@pytest.mark.parametrize(
    ("alive", "count", "kept"), [(3, 24, 8), (0, 24, 8), (9, 24, 16), (17, 24, 24), (11, 14, 14)]
)
def test_a_multiple_of_eight_stays_or_all(alive, count, kept):
    net = Network()
    x = silenced(net, net.image, 0.0, count, slice(alive, count), name="conv1")
    content = net.file(net.dense(net.mean(net.conv(net.depthwise(x), 8))))
    shrunk, lost = simplified(content)
    assert shapes(shrunk)["conv1"][-1] == kept
    assert bool(lost) == (kept < count)
    if not lost:
        assert shrunk == content


def test_constants_other_than_zero_fill_the_eight_first():
    net = Network()
    weights = net.weights(24, 1, 1, 3)
    weights[6:] = 0
    bias = filters(net.bias(24), slice(6, 24), 0)
    bias[20:22] = 0.4
    x = net.conv(net.image, 24, weights=weights, bias=bias, name="conv1")
    shrunk, _ = simplified(net.file(net.dense(net.mean(net.conv(x, 8)))))
    graph = Graph(shrunk)
    kept = graph.constant_values(int(graph.ops[0].inputs[2]))
    np.testing.assert_array_equal(kept[6:], np.float32([0.4, 0.4]))


def test_a_network_without_dead_channels_is_returned_unchanged():
    net = Network()
    x = net.depthwise(net.conv(net.image, 16, kernel=3, stride=2))
    content = net.file(net.dense(net.mean(net.excited(net.conv(x, 16)))))
    assert dead_channels.simplify(content, [EXTENT]) == (content, ())


# Any network.


OTHERS = (
    *("PRELU", "LEAKY_RELU", "PAD", "BELOW", "MAX_POOL_2D", "AVERAGE_POOL_2D"),
    *("SUB", "MUL", "MAXIMUM", "MINIMUM"),
)


def any_other(draw, net, x):
    """One of the other operators that keep channels apart."""
    kind = draw(st.sampled_from(OTHERS))
    if kind == "PRELU":
        return net.prelu(x)
    if kind == "LEAKY_RELU":
        return net.leaky(x, draw(st.sampled_from([-0.5, 0.2, 2.0])))
    if kind == "PAD":
        return net.padded(x)
    if kind == "BELOW":
        return net.below(x, net.padded(net.depthwise(x, padding="VALID", activation="NONE")))
    if kind.endswith("2D"):
        return net.pooled(x, kind)
    channels = net.lite.shape(x)[-1]
    return net.pair(kind, x, net.lite.constant(net.random.normal(size=channels), np.float32))


class Drawn(bytes):
    """A file that is not printed byte by byte where a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@st.composite
def networks(draw) -> Drawn:
    """A few random blocks, some of whose filters are silenced in each of the ways."""
    net = Network(draw(st.integers(0, 2**16)))
    activations = st.sampled_from(["NONE", "RELU", "RELU6"])
    share = draw(st.sampled_from([0.0, 0.5, 0.9]))

    def weighted(x, count, kernel=1, **more):
        weights = net.weights(count, kernel, kernel, net.lite.shape(x)[-1])
        bias = net.bias(count)
        ways = net.random.integers(0, 5, count) * (net.random.uniform(size=count) < share)
        weights[(ways == 1) | (ways == 2)] = 0
        bias[ways == 1] = 0
        weights[ways == 3] *= 1e-9
        bias[ways == 4] = -50
        weights[..., net.random.uniform(size=weights.shape[-1]) < share / 2] = 0
        return net.conv(x, count, kernel=kernel, weights=weights, bias=bias, **more)

    def depthwise(x, **more):
        weights = net.weights(1, 3, 3, net.lite.shape(x)[-1])
        weights[..., net.random.uniform(size=weights.shape[-1]) < share / 2] = 0
        return net.depthwise(x, weights=weights, **more)

    x = weighted(net.image, draw(st.sampled_from([8, 12, 24])), 3, activation=draw(activations))
    for block in draw(st.lists(st.sampled_from(range(7)), min_size=1, max_size=4)):
        channels = net.lite.shape(x)[-1]
        wide = draw(st.sampled_from([8, 16, 20, 32]))
        if block == 0:
            x = depthwise(x, activation=draw(activations), padding="SAME")
            x = weighted(x, wide, activation=draw(activations))
        elif block == 1:
            y = net.single("HARD_SWISH", weighted(x, wide, activation="NONE"))
            x = net.pair("ADD", x, weighted(depthwise(y), channels, activation="NONE"))
        elif block == 2:
            x = net.concatenation(x, weighted(x, wide, activation=draw(activations)))
        elif block == 3:
            x = net.excited(weighted(x, wide, activation="RELU"))
        elif block == 4:
            x = net.single(draw(st.sampled_from(["RELU", "RELU6", "LOGISTIC", "TANH"])), x)
        elif block == 5:
            x = any_other(draw, net, x)
        elif net.lite.shape(x)[1] > 4:
            x = depthwise(x, activation="RELU", padding="VALID")
            x = weighted(x, wide, 3, stride=2, activation="RELU6")
    return Drawn(net.file(net.dense(x if draw(st.booleans()) else net.mean(x))))


@given(networks())
@settings(max_examples=60)
def test_any_network_answers_as_before(content):
    shrunk, lost = simplified(content)
    before, after = shapes(content), shapes(shrunk)
    for name, shape in after.items():
        assert shape == before[name] or shape[-1] % 8 == 0
    assert bool(lost) == (shrunk != content)
    # There is nothing more to leave out.
    assert dead_channels.simplify(shrunk, [EXTENT]) == (shrunk, ())


@given(networks())
@settings(max_examples=20)
def test_the_bounds_of_a_channel_hold_its_values(content):
    graph = Graph(content)
    channels = dead_channels._Channels(graph, [EXTENT])
    engine = execution.interpreter(content, every_tensor=True)
    for image in images():
        engine.set_tensor(graph.inputs[0], image)
        engine.invoke()
        for index in channels.slots:
            values = engine.get_tensor(index).reshape(-1, graph.shape(index)[-1])
            low, high = channels.bounds(index)
            slack = 1e-5 * max(1.0, abs(values).max())
            assert (values.min(axis=0) >= low - slack).all()
            assert (values.max(axis=0) <= high + slack).all()


# As a pass, and in the other format.


def test_it_is_an_exact_pass_that_other_formats_get_too():
    from mobiledeploy.core.ports import ExactPass

    exact = [name for name, one in PASSES.each() if isinstance(one, ExactPass)]
    assert exact == ["dead_channels"]
    net = Network()
    x = silenced(net, net.image, 0.7, name="conv1")
    shrunk, _ = simplified(net.file(net.dense(net.mean(net.conv(net.depthwise(x), 8)))))
    assert WRITERS.load("onnx").write(shrunk)
