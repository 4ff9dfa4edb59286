"""The cost of networks compared with counts by hand; layers as each format writes them."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis import cost
from mobiledeploy.core.types import Layer, Tensor

SIDES = st.integers(1, 9)


def moving(name, *shape, dtype="float32"):
    return Tensor(name, shape, dtype)


def fixed(name, *shape, dtype="float32", scale=()):
    return Tensor(name, shape, dtype, scale, (0,) * len(scale), constant=True)


def layer(op, inputs, *outputs):
    return Layer(outputs[0].name, op, tuple(inputs), outputs)


def convolution(kind, height, width, inputs, filters, kernel=3, groups=1):
    """One convolution of stride 1 with a bias, as TensorFlow, TFLite and ONNX store it."""
    each = inputs // groups
    shape, op, layout = {
        "tensorflow": ((kernel, kernel, each, filters), "Conv2D", "NHWC"),
        "tflite": ((filters, kernel, kernel, each), "CONV_2D", "NHWC"),
        "onnx": ((filters, each, kernel, kernel), "Conv", "NCHW"),
    }[kind]

    def image(name, channels):
        sides = (height, width, channels) if layout == "NHWC" else (channels, height, width)
        return moving(name, 1, *sides)

    return layer(
        op, (image("x", inputs), fixed("k", *shape), fixed("b", filters)), image("y", filters)
    )


def depthwise(kind, height, width, channels, kernel=3):
    shape, op = {
        "tensorflow": ((kernel, kernel, channels, 1), "DepthwiseConv2dNative"),
        "tflite": ((1, kernel, kernel, channels), "DEPTHWISE_CONV_2D"),
        "onnx": ((channels, 1, kernel, kernel), "Conv"),
    }[kind]
    sides = (channels, height, width) if kind == "onnx" else (height, width, channels)
    return layer(op, (moving("x", 1, *sides), fixed("k", *shape)), moving("y", 1, *sides))


FORMATS = pytest.mark.parametrize("kind", ["tensorflow", "tflite", "onnx"])


@FORMATS
def test_a_convolution_is_the_same_in_every_format(kind):
    # Howard et al. 2017, Table 3: 14x14x512, kernel 3, to 512 channels; 462 M and 2.36 M.
    result = cost.cost([convolution(kind, 14, 14, 512, 512)])
    assert result.mult_adds == 14 * 14 * 512 * 512 * 9 == 462_422_016
    assert result.params == 512 * 512 * 9 + 512
    assert result.layers[0].kind == "Conv 3x3"


@FORMATS
def test_a_depthwise_separable_one_is_that_of_table_3(kind):
    rows = [depthwise(kind, 14, 14, 512), convolution(kind, 14, 14, 512, 512, kernel=1)]
    counts = [cost.cost([row]) for row in rows]
    assert sum(result.mult_adds for result in counts) == 196 * (512 * 9 + 512 * 512)
    assert round(sum(result.mult_adds for result in counts) / 1e6, 1) == 52.3
    assert [result.layers[0].kind for result in counts] == ["Conv DW 3x3", "Conv 1x1"]


@FORMATS
def test_groups_take_their_share_of_the_work(kind):
    whole = cost.cost([convolution(kind, 8, 8, 12, 24)])
    groups_cost = cost.cost([convolution(kind, 8, 8, 12, 24, groups=4)])
    assert groups_cost.mult_adds * 4 == whole.mult_adds
    assert groups_cost.layers[0].kind == "Conv 3x3 grouped"


@FORMATS
def test_a_1x1_convolution_of_one_pixel_is_fully_connected(kind):
    result = cost.cost([convolution(kind, 1, 1, 1024, 1000, kernel=1)])
    assert result.mult_adds == 1_024_000
    assert result.layers[0].kind == cost.FULLY_CONNECTED


@pytest.mark.parametrize(
    ("op", "kernel"),
    [
        ("MatMul", (64, 10)),
        ("FULLY_CONNECTED", (10, 64)),
        ("Gemm", (64, 10)),
        ("QLinearMatMul", (64, 10)),
        ("BatchMatMulV2", (64, 10)),
    ],
)
def test_a_fully_connected_layer(op, kernel):
    inputs = (moving("x", 1, 64), fixed("k", *kernel), fixed("b", 10))
    result = cost.cost([layer(op, inputs, moving("y", 1, 10))])
    assert (result.mult_adds, result.params) == (640, 650)
    assert result.layers[0].kind == cost.FULLY_CONNECTED


@pytest.mark.parametrize(
    ("op", "sides", "kernel"),
    [
        ("Conv2DBackpropInput", lambda side, c: (side, side, c), (3, 3, 4, 8)),
        ("TRANSPOSE_CONV", lambda side, c: (side, side, c), (4, 3, 3, 8)),
        ("ConvTranspose", lambda side, c: (c, side, side), (8, 4, 3, 3)),
    ],
)
def test_a_transposed_convolution_spreads_each_of_its_inputs(op, sides, kernel):
    inputs = (fixed("k", *kernel), moving("x", 1, *sides(5, 8)))
    result = cost.cost([layer(op, inputs, moving("y", 1, *sides(10, 4)))])
    assert result.mult_adds == 5 * 5 * 8 * 9 * 4
    assert result.layers[0].kind == "Transposed Conv 3x3"


@pytest.mark.parametrize(
    ("op", "second"),
    [("BATCH_MATMUL", (1, 8, 16)), ("MatMul", (8, 16)), ("Einsum", (8, 16))],
)
def test_a_product_of_two_activations_is_named_and_not_counted(op, second):
    result = cost.cost(
        [layer(op, (moving("a", 1, 4, 8), moving("b", *second)), moving("c", 4, 16))]
    )
    assert result.mult_adds == 0
    assert result.uncounted == (op,)


@pytest.mark.parametrize(
    "op", ["StatelessWhile", "UNIDIRECTIONAL_SEQUENCE_LSTM", "CUSTOM:Mine", "PartitionedCall", "If"]
)
def test_an_operator_with_a_network_inside_is_named(op):
    inputs = (moving("x", 1, 8), fixed("k", 8, 8))
    result = cost.cost([layer(op, inputs, moving("y", 1, 8))])
    assert (result.mult_adds, result.uncounted) == (0, (op,))
    plain = cost.cost([layer("SQUARED_DIFFERENCE", inputs[:1] * 2, moving("y", 1, 8))])
    assert plain.uncounted == ()


def test_an_einsum_multiplies_over_each_of_its_indices():
    """abc,cde->abde, as attention projects 256 positions of 8 channels to 2 heads of 4."""
    inputs = (moving("x", 1, 256, 8), fixed("k", 8, 2, 4))
    result = cost.cost([layer("Einsum", inputs, moving("y", 1, 256, 2, 4))])
    assert result.mult_adds == 256 * 8 * 2 * 4


@pytest.mark.parametrize(
    ("op", "sides", "kernel", "size"),
    [
        ("Conv", (4, 10), (6, 4, 3), "3"),
        ("Conv", (4, 5, 5, 5), (6, 4, 3, 3, 3), "3x3x3"),
        ("Conv3D", (5, 5, 5, 4), (3, 3, 3, 4, 6), "3x3x3"),
        ("CONV_3D", (5, 5, 5, 4), (3, 3, 3, 4, 6), "3x3x3"),
    ],
)
def test_convolutions_of_one_and_three_dimensions_count(op, sides, kernel, size):
    channels = 0 if op == "Conv" else len(sides) - 1
    result = tuple(6 if i == channels else side for i, side in enumerate(sides))
    inputs = (moving("x", 1, *sides), fixed("k", *kernel))
    outcome = cost.cost([layer(op, inputs, moving("y", 1, *result))])
    assert outcome.mult_adds == math.prod(result) // 6 * math.prod(kernel)
    assert outcome.layers[0].kind == f"Conv {size}"


def test_an_open_batch_is_one_image():
    whole = convolution("onnx", 8, 8, 3, 4)

    def opened(tensor):
        return tensor if tensor.constant else moving(tensor.name, 0, *tensor.shape[1:])

    inputs, outputs = (tuple(map(opened, ts)) for ts in (whole.inputs, whole.outputs))
    assert cost.cost([Layer("y", "Conv", inputs, outputs)]) == cost.cost([whole])


@pytest.mark.parametrize("shape", [(), (1, 4, 0, 0)])
def test_an_unknown_shape_is_not_silently_zero(shape):
    inputs = (moving("x", 1, 3, 8, 8), fixed("k", 4, 3, 3, 3))
    result = cost.cost([layer("Conv", inputs, moving("y", *shape))])
    assert (result.mult_adds, result.uncounted) == (0, ("Conv",))


def test_the_rest_costs_nothing_but_its_parameters():
    x, y, z = (moving(name, 1, 4, 4, 8) for name in "xyz")
    statistics = [fixed(name, 8) for name in ("scale", "offset", "mean", "variance")]
    axes = fixed("axes", 2, dtype="int32")
    result = cost.cost(
        [
            layer("FusedBatchNormV3", (x, *statistics), y),
            layer("Relu6", (y,), z),
            layer("MEAN", (z, axes), moving("m", 1, 8)),
        ]
    )
    assert (result.mult_adds, result.params, result.uncounted) == (0, 32, ())
    assert [share.kind for share in result.shares] == ["FusedBatchNormV3"]


def test_weights_that_two_layers_share_are_counted_once():
    first = convolution("tensorflow", 4, 4, 8, 8)
    second = layer("Conv2D", (moving("y", 1, 4, 4, 8), *first.inputs[1:]), moving("z", 1, 4, 4, 8))
    result = cost.cost([first, second])
    assert result.mult_adds == 2 * cost.cost([first]).mult_adds
    assert result.params == cost.cost([first]).params
    assert [row.params for row in result.layers] == [8 * 8 * 9 + 8, 0]


def test_qdq_form_counts_the_operators_between():
    """x -> Q -> DQ -> Conv(DQ(k), DQ(b)) -> Q -> DQ, as an ONNX file writes an int8 network."""
    scales = fixed("s")
    x, y = moving("x", 1, 3, 8, 8), moving("y", 1, 16, 8, 8)
    x8, y8 = (moving(f"{t.name}8", *t.shape, dtype="int8") for t in (x, y))
    xf, yf = (moving(f"{t.name}f", *t.shape) for t in (x, y))
    k8 = fixed("k8", 16, 3, 3, 3, dtype="int8", scale=(0.1,) * 16)
    b32 = fixed("b32", 16, dtype="int32", scale=(0.1,) * 16)
    kf, bf = fixed("kf", 16, 3, 3, 3), fixed("bf", 16)
    result = cost.cost(
        [
            layer("QuantizeLinear", (x, scales), x8),
            layer("DequantizeLinear", (x8, scales), xf),
            layer("DequantizeLinear", (k8, scales), kf),
            layer("DequantizeLinear", (b32, scales), bf),
            layer("Conv", (xf, kf, bf), y),
            layer("QuantizeLinear", (y, scales), y8),
            layer("DequantizeLinear", (y8, scales), yf),
        ]
    )
    assert result.mult_adds == 64 * 16 * 27
    assert result.params == 16 * 27 + 16
    (row,) = [row for row in result.layers if row.mult_adds]
    # One byte a number, but four for each of the biases.
    assert row.bytes_moved == 3 * 64 + 16 * 64 + 16 * 27 + 4 * 16
    assert row.intensity == row.mult_adds / row.bytes_moved


# Memory.


def test_peak_memory_of_a_residual_block_by_hand():
    """image 4x4x2 -> a 4x4x4 -> norm, in place -> b 4x4x8 -> c 4x4x4 -> a + c, over c."""
    image, scores = moving("image", 1, 4, 4, 2), moving("scores", 1, 4)
    a, n, c, total = (moving(name, 1, 4, 4, 4) for name in ("a", "n", "c", "sum"))
    b = moving("b", 1, 4, 4, 8)
    rows = [
        layer("Conv2D", (image, fixed("k1", 3, 3, 2, 4)), a),  # 128 + 256
        layer("FusedBatchNormV3", (a, *(fixed(f"f{i}", 4) for i in range(4))), n),  # 256
        layer("Conv2D", (n, fixed("k2", 1, 1, 4, 8)), b),  # 256 + 512
        layer("Conv2D", (b, fixed("k3", 1, 1, 8, 4)), c),  # 256 + 512 + 256: n waits for the sum
        layer("AddV2", (n, c), total),  # 256 + 256
        layer("Mean", (total,), scores),  # 256 + 16
    ]
    assert cost.cost(rows).peak_activation_bytes == 256 + 512 + 256
    assert cost.cost(rows[:3]).peak_activation_bytes == 256 + 512
    assert cost.cost(rows[:2]).peak_activation_bytes == 128 + 256


def test_a_tensor_that_is_read_later_is_not_overwritten():
    x, y, z = (moving(name, 1, 100) for name in "xyz")
    once = [layer("Relu", (x,), y)]
    assert cost.cost(once).peak_activation_bytes == 400
    again = [*once, layer("AddV2", (x, y), z)]
    assert cost.cost(again).peak_activation_bytes == 800


def test_a_smaller_input_does_not_hold_the_result():
    """A gate of one number a channel, times the map: over the map, not over the gate."""
    map_, gate = moving("map", 1, 4, 4, 8), moving("gate", 1, 1, 1, 8)
    result = cost.cost([layer("Mul", (map_, gate), moving("y", 1, 4, 4, 8))])
    assert result.peak_activation_bytes == 4 * (128 + 8)
    both = [layer("Mul", (gate, gate), moving("g", 1, 1, 1, 8))]
    assert cost.cost(both).peak_activation_bytes == 4 * 8


@given(sizes=st.lists(st.integers(1, 1000), min_size=2, max_size=8))
def test_a_chain_takes_its_largest_pair(sizes):
    tensors = [moving(f"t{i}", 1, size) for i, size in enumerate(sizes)]
    rows = [layer("MEAN", (before,), after) for before, after in itertools.pairwise(tensors)]
    pairs = itertools.pairwise(sizes)
    assert cost.cost(rows).peak_activation_bytes == 4 * max(a + b for a, b in pairs)


# What holds for every network.


@given(
    kind=st.sampled_from(["tensorflow", "tflite", "onnx"]),
    height=SIDES,
    width=SIDES,
    each=st.integers(1, 6),
    groups=st.integers(1, 4),
    factor=st.integers(2, 4),
    kernel=st.integers(1, 5),
)
def test_mult_adds_grow_with_positions_and_params_do_not(
    kind, height, width, each, groups, factor, kernel
):
    def at(scale):
        return cost.cost(
            [
                convolution(
                    kind, height * scale, width, 2 * each * groups, 3 * groups, kernel, groups
                )
            ]
        )

    assert at(factor).mult_adds == factor * at(1).mult_adds
    assert at(factor).params == at(1).params
    assert at(1).mult_adds == height * width * (at(1).params - 3 * groups)


@given(st.lists(st.tuples(SIDES, SIDES, SIDES), min_size=1, max_size=6))
def test_shares_are_of_the_whole(sizes):
    rows = [
        convolution("tensorflow", side, side, inputs, filters, kernel=1 + number % 3)
        for number, (side, inputs, filters) in enumerate(sizes)
    ]
    # Each with weights of its own.
    rows = [
        Layer(row.name, row.op, (row.inputs[0], fixed(f"k{i}", *row.inputs[1].shape)), row.outputs)
        for i, row in enumerate(rows)
    ]
    result = cost.cost(rows)
    assert math.isclose(sum(share.mult_adds for share in result.shares), 1)
    assert math.isclose(sum(share.params for share in result.shares), 1)
    assert sum(share.layers for share in result.shares) == len(rows)
    assert result.mult_adds == sum(row.mult_adds for row in result.layers)
    assert result.params == sum(row.params for row in result.layers)


def test_nothing_costs_nothing():
    result = cost.cost([])
    assert (result.mult_adds, result.params, result.peak_activation_bytes, result.intensity) == (
        0,
        0,
        0,
        0.0,
    )


@pytest.mark.parametrize(
    ("dtype", "bytes_"), [("float32", 12), ("float16", 6), ("int8", 3), ("int32", 12), ("int4", 2)]
)
def test_elements_have_the_size_of_their_type(dtype, bytes_):
    assert cost.size_bytes(moving("x", 3, dtype=dtype)) == bytes_
