"""ONNX files only: which operators are integers, and along which axis."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from mobiledeploy.formats import onnx as shelf

IMAGE = (1, 4, 8, 8)
CASES = {
    "Add": ({}, 2),
    "AveragePool": ({"kernel_shape": [2, 2]}, 1),
    "Concat": ({"axis": 1}, 2),
    "DepthToSpace": ({"blocksize": 2}, 1),
    "Div": ({}, 2),
    "Erf": ({}, 1),
    "Flatten": ({}, 1),
    "GlobalAveragePool": ({}, 1),
    "GlobalMaxPool": ({}, 1),
    "HardSigmoid": ({}, 1),
    "Identity": ({}, 1),
    "LeakyRelu": ({}, 1),
    "MatMul": ({}, 2),
    "MaxPool": ({"kernel_shape": [2, 2]}, 1),
    "Mul": ({}, 2),
    "ReduceMax": ({"axes": [2]}, 1),
    "ReduceMean": ({"axes": [2, 3]}, 1),
    "Relu": ({}, 1),
    "Sigmoid": ({}, 1),
    "Softmax": ({"axis": 1}, 1),
    "Split": ({"axis": 1}, 1),
    "Sub": ({}, 2),
    "Tanh": ({}, 1),
    "Transpose": ({"perm": [0, 2, 3, 1]}, 1),
}
CONSTANTS = {
    "Conv": np.ones((4, 4, 1, 1), np.int8),
    "Expand": np.int64([2, 4, 8, 8]),
    "Gather": np.int64([0]),
    "Reshape": np.int64([1, -1]),
    "Squeeze": np.int64([0]),
    "Tile": np.int64([1, 2, 1, 1]),
    "Unsqueeze": np.int64([0]),
    "Pad": np.int64([0, 0, 1, 1, 0, 0, 1, 1]),
}


def between(op, *, zero=0, quantized_count=1, constant=None, attributes=None, inputs=1):
    """QuantizeLinear, DequantizeLinear, `op`, QuantizeLinear, DequantizeLinear, as a file.

    Of its `inputs`, `quantized` come from a DequantizeLinear.
    """
    constants = {"s": np.float32(0.05), "z": np.int8(0), "last": np.int8(zero)}
    nodes, images, feeds = [], [], []
    for number in range(inputs):
        name = f"x{number}"
        images.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, IMAGE))
        if number < quantized_count:
            nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", "s", "z"], [f"{name}d"]))
            name = f"{name}d"
        feeds.append(name)
    if constant is not None:
        constants["c"] = constant
        feeds.append("c")
        if constant.dtype == np.int8:
            nodes.append(helper.make_node("DequantizeLinear", ["c", "s", "z"], ["cd"]))
            feeds[-1] = "cd"
    nodes.append(helper.make_node(op, feeds, ["y"], **(attributes or {})))
    nodes.append(helper.make_node("QuantizeLinear", ["y", "s", "last"], ["yq"]))
    nodes.append(helper.make_node("DequantizeLinear", ["yq", "s", "last"], ["yd"]))
    end = helper.make_tensor_value_info("yd", TensorProto.FLOAT, None)
    initializers = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "g", images, [end], initializers)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def left_in_float(data, op, folder):
    """Whether ONNX Runtime still has `op` behind a DequantizeLinear after optimizing."""
    options = SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    InferenceSession(data, options)
    nodes = onnx.load(folder / "optimized.onnx").graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    return any(
        node.op_type == op and "DequantizeLinear" in [makers.get(name) for name in node.input]
        for node in nodes
    )


@pytest.mark.parametrize("op", [*CASES, *CONSTANTS])
def test_operators_that_onnx_runtime_leaves_in_float_are_named(op, tmp_path):
    attributes, inputs = CASES.get(op, ({}, 1))
    data = between(
        op, constant=CONSTANTS.get(op), attributes=attributes, inputs=inputs, quantized_count=inputs
    )
    operators = shelf.float_layers(shelf.inspect(data))
    assert operators == ((op,) if left_in_float(data, op, tmp_path) else ())


def row_of(*nodes, weights=np.float32):
    """QuantizeLinear, DequantizeLinear, `nodes` from x to y, QuantizeLinear, DequantizeLinear."""
    constants = {"s": np.float32(0.05), "z": np.int8(0), "w": np.ones((4, 4, 1, 1), weights)}
    first = [
        helper.make_node("QuantizeLinear", ["x0", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
    ]
    if weights is np.int8:
        first.append(helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]))
    last = [
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["yd"]),
    ]
    graph = helper.make_graph(
        [*first, *(helper.make_node(op, inputs, outputs) for op, inputs, outputs in nodes), *last],
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info("yd", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("nodes", "between_"),
    [
        ([("Erf", ["x"], ["y"])], ("Erf",)),
        ([("Erf", ["x"], ["e"]), ("Mul", ["x", "e"], ["y"])], ("Erf", "Mul")),
        ([("Div", ["x", "s"], ["y"])], ("Div",)),
        ([("Conv", ["x", "wd"], ["c"]), ("Tanh", ["c"], ["y"])], ()),
        ([("ConvTranspose", ["x", "wd"], ["y"])], ("ConvTranspose",)),
        ([("Erf", ["x0"], ["y"])], ()),
        ([("Erf", ["x"], ["e"]), ("Mul", ["x0", "e"], ["y"])], ()),
    ],
)
def test_a_chain_between_integers_differs_from_a_network_in_float(nodes, between_):
    facts = shelf.inspect(row_of(*nodes, weights=np.int8))
    assert shelf.float_layers(facts) == tuple(op for op, *_ in nodes)
    assert shelf.between_integers(facts) == between_


def test_weights_that_are_floats_are_not_between_integers():
    facts = shelf.inspect(row_of(("Conv", ["x", "w"], ["y"])))
    assert shelf.float_layers(facts) == ("Conv",)
    assert shelf.between_integers(facts) == ()


def test_an_output_in_float_is_not_between_integers():
    model = onnx.load_from_string(row_of(("Erf", ["x"], ["y"]), weights=np.int8))
    del model.graph.node[-2:]
    model.graph.output[0].name = "y"
    facts = shelf.inspect(model.SerializeToString())
    assert shelf.float_layers(facts) == ("Erf",)
    assert shelf.between_integers(facts) == ()


def test_a_relu_is_an_integer_where_the_codes_begin_at_zero(tmp_path):
    for zero, expected in ((-128, ()), (0, ("Relu",))):
        data = between("Relu", zero=zero)
        assert shelf.float_layers(shelf.inspect(data)) == expected
        assert left_in_float(data, "Relu", tmp_path) == bool(expected)


def test_one_float_input_makes_the_operator_float(tmp_path):
    data = between("Add", inputs=2, quantized_count=1)
    assert shelf.float_layers(shelf.inspect(data)) == ("Add",)
    assert left_in_float(data, "Add", tmp_path)


def test_an_output_that_is_never_quantized_is_float():
    model = onnx.load_from_string(between("Softmax"))
    del model.graph.node[-2:]
    model.graph.output[0].name = "y"
    assert shelf.float_layers(shelf.inspect(model.SerializeToString())) == ("Softmax",)


@pytest.mark.parametrize(("attribute", "axis"), [(None, 1), (0, 0), (1, 1), (-1, 3), (-4, 0)])
def test_the_axis_of_the_scales_is_the_nodes(attribute, axis):
    model = onnx.load_from_string(between("Conv", constant=np.ones((4, 4, 4, 4), np.int8)))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    model.graph.initializer.append(numpy_helper.from_array(np.full(4, 0.1, np.float32), "four"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.int8), "zeros"))
    assert constants["c"].dims == [4, 4, 4, 4]
    node = next(n for n in model.graph.node if n.input[0] == "c")
    node.input[1:] = ["four", "zeros"]
    if attribute is not None:
        node.attribute.append(helper.make_attribute("axis", attribute))
    layers = shelf.inspect(model.SerializeToString()).layers
    tensor = next(t for layer in layers for t in layer.inputs if t.name == "c")
    assert (tensor.axis, len(tensor.scale)) == (axis, 4)
