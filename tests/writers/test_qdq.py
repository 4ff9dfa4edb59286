"""int8 ONNX compared with its int8 TFLite: one quantization, two formats."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from mobiledeploy.core import cards
from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.core.types import Model
from mobiledeploy.formats import onnx as shelf
from mobiledeploy.frameworks import tf_keras as framework
from mobiledeploy.graphs import quantized
from mobiledeploy.steps import card_specs
from mobiledeploy.writers import _onnx_operators
from mobiledeploy.writers import onnx as converter
from tests.conftest import press
from tests.lite import Lite
from tests.lite import answers as lite_answers
from tests.variants import slow_but

INT8 = RECIPES.load("int8_ptq").RECIPE
SIZE = (32, 32)
layers = tf_keras.layers


def images(count, size=SIZE):
    return np.random.default_rng(0).uniform(-1, 1, (count, *size, 3)).astype(np.float32)


def both(model, size=SIZE, io="int8", output="logits"):
    """(TFLite, ONNX) of one quantization."""
    lite = press(model, INT8, "tflite", images(8, size), io=io, output=output)
    return lite, converter.write(lite)


def network(*middle, filters=8):
    """A small network around some layers."""
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((*SIZE, 3))
    x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(image)
    for make in middle:
        x = make(x)
    x = layers.GlobalAveragePooling2D()(x)
    return Model("tf_keras", tf_keras.Model(image, layers.Dense(5)(x)))


def residual(x):
    return layers.Add()([x, layers.Conv2D(x.shape[-1], 1)(x)])


def fire(x):
    ends = layers.Conv2D(4, 1, activation="relu")(x), layers.Conv2D(8, 3, padding="same")(x)
    return layers.ReLU()(layers.Concatenate()(ends))


def flat(x):
    x = layers.Dense(6, activation="relu")(layers.Flatten()(layers.AveragePooling2D(4)(x)))
    return layers.Reshape((1, 1, 6))(x)


def shuffle(x):
    x = layers.Permute((1, 2, 4, 3))(layers.Reshape((16, 16, 2, 4))(x))
    return layers.Reshape((16, 16, 8))(x)


PARTS = {
    "residual": (residual, residual),
    "depthwise": (layers.DepthwiseConv2D(3, 2, padding="same"), layers.ReLU(6.0)),
    "fire": (fire, layers.MaxPooling2D(3, 2, padding="same")),
    "padded": (layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(8, 3, 2)),
    "dilated": (layers.Conv2D(8, 3, dilation_rate=2, padding="same"),),
    "excite": (lambda x: layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)]),),
    "flat": (flat,),
    "shuffle": (shuffle, layers.Conv2D(8, 1)),
}


@functools.cache
def part_files(part):
    """(TFLite, ONNX) of a small network around a part."""
    return both(network(*PARTS[part]))


@functools.cache
def chain_files(io, output):
    """(TFLite, ONNX) of three convolutions in a row."""
    chain = network(layers.DepthwiseConv2D(3, 2, padding="same"), layers.Conv2D(16, 1))
    return both(chain, io=io, output=output)


EXACT = {"session.x64quantprecision": "1"}


def session(data, path, entries=EXACT):
    """(ONNX Runtime's session, the operators of its optimised graph)."""
    options = onnxruntime.SessionOptions()
    for entry in entries.items():
        options.add_session_config_entry(*entry)
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnx_session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return onnx_session, Counter(node.op_type for node in onnx.load(path).graph.node)


def answers(lite, onnx_session, count=8):
    """Codes of both for the same int8 noise."""
    engine = Interpreter(model_content=lite, num_threads=1)
    engine.allocate_tensors()
    (image,), (scores,) = engine.get_input_details(), engine.get_output_details()
    dice = np.random.default_rng(1)
    pairs = []
    for _ in range(count):
        codes = dice.integers(-128, 128, image["shape"]).astype(np.int8)
        engine.set_tensor(image["index"], codes)
        engine.invoke()
        (other,) = onnx_session.run(
            None, {onnx_session.get_inputs()[0].name: codes.transpose(0, 3, 1, 2)}
        )
        pairs.append((engine.get_tensor(scores["index"]).astype(int), other.astype(int)))
    return np.array(pairs)


@pytest.mark.parametrize("part", slow_but(PARTS, "depthwise", "residual", "excite"))
def test_a_layer_gives_the_codes_of_tflite_and_is_fused(part, tmp_path):
    lite, data = part_files(part)
    onnx_session, ops = session(data, tmp_path / "optimised.onnx")
    assert not ops.keys() & {"Conv", "FusedConv", "Gemm", "MatMul"}, ops
    assert shelf.float_layers(shelf.inspect(data)) == ()
    pairs = answers(lite, onnx_session)
    # In `flat` a mean that both round differently goes through two dense layers.
    assert np.mean(abs(pairs[:, 0] - pairs[:, 1]) <= 1) >= (0.9 if part == "flat" else 0.99)


def types(data):
    """ONNX's types of the zero points of inner activations."""
    tensors = onnx.load_model_from_string(data).graph.initializer
    return {t.data_type for t in tensors if t.name.endswith("/activation_zero")}


@pytest.mark.parametrize("allowed", ["0", "1"])
@pytest.mark.parametrize("output", ["softmax", "logits"])
@pytest.mark.parametrize("io", slow_but(["int8", "float"], "int8"))
def test_a_chain_keeps_signed_codes_and_is_fused_everywhere(io, output, allowed, tmp_path):
    """Signed kernels are allowed on ARM: there the nodes of the ends disappear."""
    lite, data = chain_files(io, output)
    assert types(data) == {onnx.TensorProto.INT8}
    _, ops = session(data, tmp_path / "optimised.onnx", {"session.qdqisint8allowed": allowed})
    assert not ops.keys() & {"Conv", "FusedConv", "Gemm", "MatMul", "Softmax", "GlobalAveragePool"}
    if io == "int8":
        assert (ops["QuantizeLinear"] > 0) == (allowed == "0")
        onnx_session, _ = session(data, tmp_path / "optimised.onnx")
        pairs = answers(lite, onnx_session)
        assert np.mean(abs(pairs[:, 0] - pairs[:, 1]) <= 1) >= 0.99


@pytest.mark.parametrize("part", ["residual", "fire", "excite", "shuffle"])
def test_codes_that_are_shared_or_moved_are_unsigned(part):
    assert types(part_files(part)[1]) == {onnx.TensorProto.UINT8}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_small",
    ],
)
def test_a_network_is_fused_and_agrees(name, tmp_path):
    spec = card_specs.spec(cards.load(name), alpha=0.35, res=64, classes=12)
    lite, data = both(framework.build(spec, None), spec.resolution)
    onnx_session, ops = session(data, tmp_path / "optimised.onnx")
    assert not ops.keys() & {"Conv", "FusedConv", "Gemm", "MatMul", "Add", "Mul"}, ops
    pairs = answers(lite, onnx_session)
    assert np.mean(pairs[:, 0].argmax(-1) == pairs[:, 1].argmax(-1)) == 1
    if name != "mobilenet_v3_small":
        assert np.mean(abs(pairs[:, 0] - pairs[:, 1]) <= 1) >= 0.99


def test_weights_biases_and_scales_are_tflites():
    lite, data = both(network(residual, filters=17))
    engine = Interpreter(model_content=lite, num_threads=1)
    constants = {
        numpy_helper.to_array(tensor).tobytes(): tensor.name
        for tensor in onnx.load_model_from_string(data).graph.initializer
    }
    checked = 0
    for detail in engine.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if len(scales):
            assert scales.astype(np.float32).tobytes() in constants, detail["name"]
        if detail["dtype"] == np.int8 and len(detail["shape"]) == 4 and len(scales) > 1:
            codes = engine.tensor(detail["index"])().transpose(0, 3, 1, 2)
            assert np.ascontiguousarray(codes).tobytes() in constants, detail["name"]
            checked += 1
    assert checked == 2


# Size of the image, channels (by a layer before it), filters, window, stride, padding; the window
# that it becomes.
IMAGES = {
    "as in a MobileNet": ((32, 32), 3, 8, (3, 3), 2, "same", (3, 15)),
    "odd": ((33, 35), 3, 16, (3, 3), 2, "same", (3, 15)),
    "an odd row": ((24, 23), 3, 8, (5, 5), 3, "valid", None),
    "a column left over": ((24, 27), 3, 8, (5, 5), 3, "valid", (5, 24)),
    "valid": ((17, 21), 3, 8, (3, 2), 2, "valid", (3, 12)),
    "stride of one": ((12, 12), 3, 5, (3, 3), 1, "same", (3, 12)),
    "grey": ((16, 20), 1, 8, (7, 7), 2, "same", (7, 9)),
    "four channels": ((16, 16), 4, 8, (1, 3), 1, "same", (1, 16)),
    "a single column": ((16, 16), 3, 8, (3, 1), 2, "same", (3, 9)),
    "five channels": ((16, 16), 5, 8, (3, 3), 2, "same", None),
    "many filters": ((16, 16), 3, 17, (3, 3), 2, "same", None),
    "a point": ((16, 16), 3, 8, (1, 1), 1, "same", None),
}


@pytest.mark.parametrize("name", slow_but(IMAGES, "as in a MobileNet", "odd", "five channels"))
def test_two_columns_at_once_are_the_plain_convolution(name, tmp_path, monkeypatch):
    size, channels, filters, window, stride, padding, wide_window = IMAGES[name]
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((*size, 3))
    x = image if channels == 3 else layers.Conv2D(channels, 1)(image)
    x = layers.Conv2D(filters, window, stride, padding=padding, activation="relu")(x)
    outer = Model("tf_keras", tf_keras.Model(image, layers.Dense(5)(layers.Flatten()(x))))
    lite = press(outer, INT8, "tflite", images(8, size), io="int8", output="logits")

    def answers_and_ops():
        data = converter.write(lite)
        *_, conv = [n for n in onnx.load_model_from_string(data).graph.node if n.op_type == "Conv"]
        onnx_session, ops = session(data, tmp_path / "optimised.onnx")
        assert not ops.keys() & {"Conv", "FusedConv", "Gemm", "MatMul"}, ops
        shape = next(tuple(a.ints) for a in conv.attribute if a.name == "kernel_shape")
        return shape, answers(lite, onnx_session)

    shape, wide = answers_and_ops()
    monkeypatch.setattr(_onnx_operators, "_FEW_FILTERS", 0)
    plain_shape, plain = answers_and_ops()
    assert plain_shape == window
    assert shape == (wide_window or window)
    np.testing.assert_array_equal(wide, plain)
    assert np.mean(abs(wide[:, 0] - wide[:, 1]) <= 1) >= 0.99


@pytest.mark.parametrize("output", ["softmax", "logits"])
@pytest.mark.parametrize("io", ["int8", "float"])
def test_ends_have_the_requested_type(io, output):
    _, data = chain_files(io, output)
    facts = shelf.inspect(data)
    dtype = "int8" if io == "int8" else "float32"
    assert {tensor.dtype for tensor in (*facts.inputs, *facts.outputs)} == {dtype}
    assert shelf.float_layers(facts) == ()


# --- operators without an integer kernel -----------------------------------------------------

SIDE = (1, 8, 8, 4)


def stem(b, x, filters=4, w=None):
    shape = b.shape(x)
    dice = np.random.default_rng(filters)
    if w is None:
        w = b.constant(dice.uniform(-1, 1, (filters, 1, 1, shape[3])).astype(np.float32))
    bias = b.constant(dice.uniform(-0.5, 0.5, filters).astype(np.float32))
    return b.op(
        "CONV_2D",
        [x, w, bias],
        (*shape[:3], filters),
        options="Conv2DOptions",
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
    )


def single(kind, options=None, after=SIDE, **settings):
    return lambda b, x: b.op(kind, [x], after, options=options, **settings)


def with_constant(kind, values, options=None, after=SIDE, **settings):
    def build(b, x):
        return b.op(kind, [x, b.constant(values)], after, options=options, **settings)

    return build


def positive(kind):
    """Of numbers from 1 to 2."""

    def build(b, x):
        x = b.op("LOGISTIC", [x], SIDE)
        one = b.constant(np.float32(1))
        return b.op(kind, [b.op("ADD", [x, one], SIDE, options="AddOptions")], SIDE)

    return build


def twice(b, x):
    """One layer that is used twice."""
    w = b.constant(np.random.default_rng(3).uniform(-1, 1, (4, 1, 1, 4)).astype(np.float32))
    return stem(b, stem(b, x, w=w), w=w)


def around(b, x):
    widths = b.constant(np.int32([[0, 0], [1, 1], [0, 1], [0, 0]]))
    return stem(b, b.op("PAD", [x, widths], (1, 10, 9, 4)))


ROW = np.linspace(-0.5, 0.5, 4, dtype=np.float32)
# For each operator: how it is built, and what ONNX Runtime computes in float.
SINGLE = {
    "ABS": (single("ABS"), {"Abs"}),
    "DEPTH_TO_SPACE": (
        single("DEPTH_TO_SPACE", "DepthToSpaceOptions", (1, 16, 16, 1), blockSize=2),
        set(),
    ),
    "ELU": (single("ELU"), {"Elu"}),
    "EXP": (single("EXP"), {"Exp"}),
    "GELU": (single("GELU", "GeluOptions"), {"Div", "Erf", "Add", "Mul"}),
    "L2_NORMALIZATION": (single("L2_NORMALIZATION", "L2NormOptions"), {"ReduceL2", "Max", "Div"}),
    "LEAKY_RELU": (single("LEAKY_RELU", "LeakyReluOptions", alpha=0.2), set()),
    "LOCAL_RESPONSE_NORMALIZATION": (
        single(
            "LOCAL_RESPONSE_NORMALIZATION",
            "LocalResponseNormalizationOptions",
            radius=1,
            bias=1.0,
            alpha=0.5,
            beta=0.5,
        ),
        {"LRN"},
    ),
    "LOG": (positive("LOG"), {"Log"}),
    "MAXIMUM": (with_constant("MAXIMUM", ROW, "MaximumMinimumOptions"), {"Max"}),
    "MINIMUM": (with_constant("MINIMUM", ROW, "MaximumMinimumOptions"), {"Min"}),
    "PAD": (around, set()),
    "PRELU": (with_constant("PRELU", ROW.reshape(1, 1, 4)), {"PRelu"}),
    "REDUCE_MAX": (
        with_constant("REDUCE_MAX", np.int32([1]), "ReducerOptions", (1, 1, 8, 4), keepDims=True),
        set(),
    ),
    "RESIZE_BILINEAR": (
        with_constant(
            "RESIZE_BILINEAR",
            np.int32([16, 16]),
            "ResizeBilinearOptions",
            (1, 16, 16, 4),
            halfPixelCenters=True,
        ),
        {"Resize"},
    ),
    "SUB": (with_constant("SUB", ROW, "SubOptions"), {"Sub"}),
    "TANH": (single("TANH"), {"Tanh"}),
    "a layer used twice": (twice, set()),
}


@pytest.mark.parametrize("name", SINGLE)
def test_an_operator_of_integers_gives_the_codes_of_tflite(name, tmp_path):
    build, in_float = SINGLE[name]
    b = Lite()
    x = build(b, stem(b, b.input((1, 8, 8, 3), name="image")))
    x = stem(b, x, filters=5)
    axes = b.constant(np.int32([1, 2]))
    content = b.file(b.op("MEAN", [x, axes], (1, 5), options="ReducerOptions"))
    lite = quantized.finish(quantized.start(content, INT8, "int8", images(16, (8, 8))))
    data = converter.write(lite)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    onnx_session, _ = session(data, tmp_path / "optimised.onnx")
    pairs = answers(lite, onnx_session)
    assert np.mean(abs(pairs[:, 0] - pairs[:, 1]) <= 1) >= 0.95
    facts = shelf.inspect(data)
    assert set(shelf.float_layers(facts)) == in_float
    assert sorted(shelf.between_integers(facts)) == sorted(shelf.float_layers(facts))


def test_codes_of_uint8_at_the_ends_stay(tmp_path):
    b = Lite()
    x = b.op("LOGISTIC", [stem(b, b.input((1, 8, 8, 3), name="image"))], SIDE)
    quantized_graph = quantized.start(b.file(x), INT8, "uint8", images(16, (8, 8)))
    lite = quantized.finish(quantized_graph)
    data = converter.write(lite)
    onnx_session, _ = session(data, tmp_path / "optimised.onnx")
    codes = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    (theirs,) = lite_answers(lite, codes)
    (ours,) = onnx_session.run(
        None, {onnx_session.get_inputs()[0].name: codes.transpose(0, 3, 1, 2)}
    )
    assert ours.dtype == np.uint8
    assert np.abs(ours.transpose(0, 2, 3, 1).astype(int) - theirs).max() <= 1
