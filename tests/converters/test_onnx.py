"""What ONNX is made of, and how models that it cannot be made of are refused."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import tf_keras
from onnx import TensorProto, helper, numpy_helper

from mobiledeploy.converters import onnx as converter
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.core.types import Model, ModelSpec, Preprocessing, Weights
from mobiledeploy.formats import onnx as shelf
from mobiledeploy.frameworks import tf_keras as framework
from tests.conftest import press

layers = tf_keras.layers
SIZE = (32, 32)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, *SIZE, 3)).astype(np.float32)
INT8 = RECIPES.load("int8_ptq").RECIPE
FLOAT = RECIPES.load("float32").RECIPE


def convert(model, recipe=INT8, io="float", output="logits"):
    return shelf.inspect(shelf.seal(press(model, recipe, "onnx", IMAGES, io=io, output=output)))


def classifier(*middle):
    tf_keras.utils.set_random_seed(0)
    ends = [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    stem = [layers.Input((*SIZE, 3)), layers.Conv2D(4, 3)]
    return Model("tf_keras", tf_keras.Sequential([*stem, *middle, *ends]))


@pytest.mark.parametrize("io", ["int8", "float"])
def test_a_mobilenet_that_shrinks_to_one_pixel_is_integers_throughout(io):
    spec = ModelSpec(
        "v1", "mobilenet_v1", "mobilenet_v1", {"alpha": 0.25}, SIZE, 12,
        Preprocessing((-1.0, 1.0)), Weights("random", "", pinned=False),
    )  # fmt: skip
    facts = convert(framework.build(spec, None), io=io, output="softmax")
    assert shelf.float_layers(facts) == ()
    ops = [layer.op for layer in facts.layers]
    assert ops.count("Conv") == 28
    assert "BatchNormalization" not in ops


def test_an_operator_without_an_integer_form_is_not_called_one():
    facts = convert(classifier(layers.Activation("exponential")))
    assert "Exp" in shelf.float_layers(facts)


def test_an_operator_without_a_form_in_onnx_is_named():
    with pytest.raises(InputError, match="GELU has no QDQ form in ONNX"):
        convert(classifier(layers.Activation("gelu")))


def per_channel(facts):
    weights = (t for layer in facts.layers for t in layer.inputs if len(t.shape) == 4)
    return {len(t.scale) > 1 for t in weights if t.dtype == "int8" and t.shape[2] == 3}


def test_the_granularity_asked_for_is_made():
    model = classifier()
    assert per_channel(convert(model)) == {True}
    assert per_channel(convert(model, dataclasses.replace(INT8, granularity="per-tensor"))) == {
        False
    }


def test_a_recipe_that_it_cannot_make_is_refused():
    half = RECIPES.load("float16").RECIPE
    with pytest.raises(InputError, match="recipe float16 for onnx: weights of 16 bits"):
        convert(classifier(), half)


def graph_of(nodes, shape=(1, 3, 8, 8), held=()):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    end = helper.make_tensor_value_info("end", TensorProto.FLOAT, shape)
    return helper.make_graph(
        nodes, "g", [image], [end], [numpy_helper.from_array(*h) for h in held]
    )


@pytest.mark.parametrize(
    ("pads", "reader"),
    [
        (np.int64([0, 0, 0, 1, 0, 0]), helper.make_node("Relu", ["p"], ["end"])),
        (np.int64([0, 0, 1, 1, 0, 0, 1, 1]), helper.make_node("Relu", ["p"], ["end"])),
        (np.int64([0, 0, 0, 0]), helper.make_node("MatMul", ["p", "w"], ["end"])),
        (np.int64([0, 0, 1, 0, 0, 0]), helper.make_node("Conv", ["p", "w"], ["end"])),
        (np.int64([0, 0, 1, 1, 0, 0, 1, 1]), helper.make_node("Conv", ["image", "p"], ["end"])),
    ],
)
def test_pads_that_no_conv_can_take_stay(pads, reader):
    pad = helper.make_node("Pad", ["image", "widths"], ["p"])
    graph = graph_of([pad, reader], held=[(pads, "widths")])
    converter._absorb_pads(graph)
    assert [node.op_type for node in graph.node] == ["Pad", reader.op_type]


def test_pads_of_a_conv_are_taken_in():
    pad = helper.make_node("Pad", ["image", "widths"], ["p"])
    conv = helper.make_node("Conv", ["p", "w"], ["end"], pads=[1, 1, 1, 1])
    graph = graph_of([pad, conv], held=[(np.int64([0, 0, 0, 1, 0, 0, 2, 3]), "widths")])
    converter._absorb_pads(graph)
    (node,) = graph.node
    assert node.input[0] == "image"
    assert list(node.attribute[0].ints) == [1, 2, 3, 4]


def test_an_operator_of_a_later_opset_is_unknown():
    later = helper.make_node("Gelu", ["image"], ["end"])
    foreign = helper.make_node("FusedConv", ["image"], ["end"], domain="com.microsoft")
    for node in (later, foreign):
        with pytest.raises(InputError, match=f"ONNX has no operator for {node.op_type}"):
            converter._refuse_unknown(graph_of([node]))
    converter._refuse_unknown(graph_of([helper.make_node("Relu", ["image"], ["end"])]))


def test_an_invalid_model_is_one_line():
    model = helper.make_model(graph_of([helper.make_node("Relu", ["nowhere"], ["end"])]))
    with pytest.raises(InputError, match="not valid: .*nowhere") as caught:
        converter._check(model)
    assert "\n" not in str(caught.value)


def test_no_two_nodes_or_tensors_have_one_name():
    names = ["x/Mul__11", "x/Mul", "x/Mul_2", "x/Mul_2__4", "x/Mul_2_2", "image"]
    chain = ["image", *(f"t{i}" for i in range(len(names) - 1)), "end"]
    nodes = [
        helper.make_node("Mul", [a, f"c{i % 2}"], [b], name=name)
        for i, (a, b, name) in enumerate(zip(chain, chain[1:], names, strict=False))
    ]
    graph = graph_of(nodes, held=[(np.float32([1]), "c0"), (np.float32([2]), "c1")])
    graph.initializer.append(numpy_helper.from_array(np.float32([3]), "x/Mul:0"))
    converter._rename(graph)
    made = [node.name for node in graph.node]
    assert len(set(made)) == len(names)
    assert made[:3] == ["x/Mul", "x/Mul_2", "x/Mul_2_2"]
    tensors = [*(t.name for t in graph.initializer), *(n.output[0] for n in graph.node), "image"]
    assert len(set(tensors)) == len(tensors)
    onnx.checker.check_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    )


def test_batch_normalisation_of_a_separable_convolution_is_folded():
    model = classifier(
        layers.SeparableConv2D(6, 3, use_bias=False),
        layers.BatchNormalization(
            beta_initializer="ones", moving_variance_initializer=tf_keras.initializers.Constant(4)
        ),
        layers.ReLU(),
    )
    data = press(model, "float32", "onnx", IMAGES, io="float")
    ops = [layer.op for layer in shelf.inspect(data).layers]
    assert (ops.count("Conv"), ops.count("BatchNormalization")) == (3, 0)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: IMAGES[:1].transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(answer, model.handle.predict_on_batch(IMAGES[:1]), atol=1e-5)
    assert shelf.float_layers(convert(model)) == ()


def test_a_channel_shuffle_is_one_transpose():
    model = classifier(
        layers.Conv2D(6, 3, activation="relu"),
        layers.Reshape((28, 28, 2, 3)),
        layers.Permute((1, 2, 4, 3)),
        layers.Reshape((28, 28, 6)),
        layers.Conv2D(4, 3, activation="relu"),
    )
    data = press(model, "float32", "onnx", IMAGES, io="float")
    assert [layer.op for layer in shelf.inspect(data).layers].count("Transpose") == 1
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: IMAGES[:1].transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(answer, model.handle.predict_on_batch(IMAGES[:1]), atol=1e-5)
    assert shelf.float_layers(convert(model)) == ()
