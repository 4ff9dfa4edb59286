import numpy as np
import onnx
import pytest
import tf_keras
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.core.plugins import FORMATS, WRITERS
from mobiledeploy.core.types import Model
from mobiledeploy.frameworks.hard_activations import HardSwish
from mobiledeploy.graphs import ranges
from mobiledeploy.graphs.graph import Graph
from tests.conftest import press
from tests.lite import Lite, answers
from tests.variants import slow_but

layers = tf_keras.layers


@pytest.mark.parametrize("order", slow_but([(0, 1), (1, 0)], (1, 0)))
@pytest.mark.parametrize("operator", [layers.Add, layers.Multiply, layers.Subtract])
def test_ranges_of_operands_are_their_own(operator, order):
    def convolution(size, seed):
        start = tf_keras.initializers.RandomNormal(stddev=size, seed=seed)
        return layers.Conv2D(8, 3, padding="same", kernel_initializer=start)(image)

    image = layers.Input((16, 16, 3))
    operands = [convolution(0.1, 1), convolution(10.0, 2)]
    x = operator()([operands[index] for index in order])
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D(4)(x)))
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    model = Model("tf_keras", tf_keras.Model(image, x))
    data = press(model, "int8_ptq", "tflite", images, io="float")
    facts = FORMATS.load("tflite").inspect(data)
    spans = [layer.outputs[0].scale[0] * 255 for layer in facts.layers if layer.op == "CONV_2D"]
    values = [tf_keras.Model(image, y).predict_on_batch(images) for y in operands]
    widths = [float(v.max() - v.min()) for v in values]
    np.testing.assert_allclose(sorted(spans), sorted(widths), rtol=0.01)


SHAPE = (1, 4, 4, 3)
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("HARD_SWISH", "RELU", "RELU6", "RELU_N1_TO_1"),
                *("ADD", "ADD", "MAX_POOL_2D", "MUL"),
            )
        ),
        st.integers(1, 3),
        st.floats(-4, 4, width=16),
        st.sampled_from(ACTIVATIONS),
    ),
    min_size=1,
    max_size=8,
)


def network(steps, ends=()):
    """A file of the steps, and its tensors; a tensor in `ends` is clipped for its readers.

    A step is an operator, how many tensors back it reads, the constant that ADD adds, and the
    activation that is fused into it.
    """
    net = Lite()
    ends = dict(ends)

    def clipped(index, place):
        for kind, end in zip(("MAXIMUM", "MINIMUM"), ends.get(place, ()), strict=False):
            limit = net.constant(np.full(1, end, np.float32))
            index = net.op(kind, [index, limit], SHAPE, options="MaximumMinimumOptions")
        return index

    made = [net.input(SHAPE)]
    seen = [clipped(made[0], 0)]
    for kind, back, number, activation in steps:
        source = seen[-min(back, len(seen))]
        fused = {"fusedActivationFunction": getattr(schema.ActivationFunctionType, activation)}
        if kind == "ADD":
            # Each channel has a constant of its own.
            three = net.constant(number + np.arange(3, dtype=np.float32))
            target = net.op(kind, [source, three], SHAPE, options="AddOptions", **fused)
        elif kind == "MUL":
            target = net.op(kind, [source, seen[-1]], SHAPE, options="MulOptions", **fused)
        elif kind == "MAX_POOL_2D":
            window = {"filterWidth": 2, "filterHeight": 2, "strideW": 1, "strideH": 1}
            target = net.op(
                kind, [source], SHAPE, options="Pool2DOptions", version=2, **window, **fused
            )
        else:
            target = net.op(kind, [source], SHAPE)
        made.append(target)
        seen.append(clipped(target, len(made) - 1))
    return net.file(made[-1], made[len(made) // 2]), made


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_clipping_what_no_reader_tells_apart_changes_no_answer(steps):
    content, made = network(steps)
    graph = Graph(content)
    told = ranges.telling(graph)
    ends = [(n, told[graph.name(i)]) for n, i in enumerate(made) if graph.name(i) in told]
    image = np.random.default_rng(0).uniform(-9, 9, SHAPE).astype(np.float32)
    for one, other in zip(
        answers(content, image), answers(network(steps, ends)[0], image), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([("HARD_SWISH", 1, 0, "NONE")], (-3, np.inf)),
        ([("RELU6", 1, 0, "NONE")], (0, 6)),
        # The constants are 3, 4 and 5.
        ([("ADD", 1, 3, "RELU6")], (-5, 3)),
        ([("ADD", 1, 3, "NONE"), ("RELU6", 1, 0, "NONE")], (-5, 3)),
        ([("MAX_POOL_2D", 1, 0, "NONE"), ("HARD_SWISH", 1, 0, "NONE")], (-3, np.inf)),
        ([("HARD_SWISH", 1, 0, "NONE"), ("RELU6", 2, 0, "NONE")], (-3, np.inf)),
        ([("HARD_SWISH", 1, 0, "NONE"), ("MUL", 2, 0, "NONE")], None),
        ([("MAX_POOL_2D", 1, 0, "NONE")], None),
    ],
)
def test_a_tensor_needs_what_one_of_its_readers_tells_apart(steps, told):
    # A product of two tensors tells all values apart.
    content, (first, *_) = network([*steps, ("MUL", 1, 0, "NONE"), ("MUL", 1, 0, "NONE")])
    graph = Graph(content)
    assert ranges.telling(graph).get(graph.name(first)) == told


def test_codes_before_a_hard_swish_begin_at_minus_three():
    image = layers.Input((16, 16, 3))
    start = tf_keras.initializers.RandomNormal(stddev=2, seed=1)
    before = layers.Conv2D(8, 3, padding="same", kernel_initializer=start)(image)
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(HardSwish()(before)))
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    values = tf_keras.Model(image, before).predict_on_batch(images)
    assert values.min() < -9
    data = press(Model("tf_keras", tf_keras.Model(image, x)), "int8_ptq", "tflite", images)
    layers_ = FORMATS.load("tflite").inspect(data).layers
    (codes,) = (layer.outputs[0] for layer in layers_ if layer.op == "CONV_2D")
    ((scale,), (zero,)) = codes.scale, codes.zero_point
    np.testing.assert_allclose(scale, (values.max() + 3) / 255, rtol=0.01)
    np.testing.assert_allclose(scale * (-128 - zero), -3, atol=scale)
    # The ONNX file rounds the convolution's output by the same scale, and its hard swish reads it.
    nodes = onnx.load_from_string(WRITERS.load("onnx").write(data)).graph
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in nodes.initializer}
    (conv,) = (node for node in nodes.node if node.op_type == "Conv")
    (rounding,) = (node for node in nodes.node if conv.output[0] in node.input)
    assert rounding.op_type == "QuantizeLinear"
    assert stored[rounding.input[1]] == np.float32(scale)
    assert stored[rounding.input[2]] == zero + 128
