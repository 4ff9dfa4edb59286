"""Inconsistent model files: an error in one line, no other file is opened, no endless loop."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from mobiledeploy.analysis import cost
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.graphs import graph as graph_room

ONNX, TFLITE = FORMATS.load("onnx"), FORMATS.load("tflite")


def whole(shelf: Any, data: bytes) -> None:
    """Calls every function of the format on a file."""
    facts = shelf.inspect(data)
    cost.cost(facts.layers)
    shelf.float_layers(facts)
    shelf.between_integers(facts)
    shelf.sparsity(data)
    shelf.weights(data)
    shelf.contract(data)


def network() -> onnx.ModelProto:
    """A quantized weight, a convolution, a softmax."""
    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.int8), "w")
    scale = numpy_helper.from_array(np.array([0.5, 0.25], np.float32), "s")
    zero = numpy_helper.from_array(np.zeros(2, np.int8), "z")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["real"], axis=0),
        helper.make_node("Conv", ["image", "real"], ["seen"]),
        helper.make_node("Softmax", ["seen"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 4, 4))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 2, 4, 4))],
        [weights, scale, zero],
    )
    return helper.make_model(graph)


def external(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret"


def constant_node(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", 1, (1,), [1.0]))
    external(node.attribute[0].t)
    model.graph.node.append(node)


def circle(model: onnx.ModelProto) -> None:
    del model.graph.node[2:]
    model.graph.node.append(helper.make_node("Reshape", ["scores", "z"], ["scores"]))


def unknown_domain(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Own", ["image"], ["x"], domain="of.mine"))


def without_input(model: onnx.ModelProto) -> None:
    del model.graph.node[0].input[:]


ONNX_DAMAGE: dict[str, tuple[Callable[[onnx.ModelProto], Any], str]] = {
    "external": (lambda m: external(m.graph.initializer[0]), "in another file"),
    "external in a node": (constant_node, "in another file"),
    "short raw data": (
        lambda m: setattr(m.graph.initializer[0], "raw_data", b"x"),
        "w of the ONNX file is damaged",
    ),
    "type 99": (lambda m: setattr(m.graph.initializer[0], "data_type", 99), "the unknown type 99"),
    "type 99 of a value": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99),
        ".",
    ),
    "unknown domain": (unknown_domain, "does not fit together"),
    "no output": (lambda m: m.graph.node[1].ClearField("output"), "lacks a tensor"),
    "an output without a name": (
        lambda m: m.graph.node[0].output.__setitem__(0, ""),
        "lacks a tensor",
    ),
    "no input": (without_input, "lacks a tensor"),
    "an empty name": (lambda m: m.graph.node[0].input.__setitem__(0, ""), "lacks a tensor"),
    "a constant written": (
        lambda m: m.graph.node[1].output.__setitem__(0, "w"),
        "writes a constant",
    ),
    "an axis elsewhere": (
        lambda m: setattr(m.graph.node[0].attribute[0], "i", 9),
        "scales of another shape",
    ),
}


def test_the_small_onnx_file_is_sound():
    whole(ONNX, network().SerializeToString())


@pytest.mark.parametrize("what", ONNX_DAMAGE)
def test_an_inconsistent_onnx_file_is_refused(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(b"\1" * 6)
    damage, message = ONNX_DAMAGE[what]
    model = network()
    damage(model)
    with pytest.raises(InputError, match=message):
        whole(ONNX, model.SerializeToString())


@pytest.mark.parametrize("absent", [True, False])
def test_an_onnx_quantizer_without_a_zero_point_has_0(absent):
    model = network()
    if absent:
        del model.graph.node[0].input[2]
    else:
        model.graph.node[0].input[2] = ""
    whole(ONNX, model.SerializeToString())
    weights = ONNX.inspect(model.SerializeToString()).layers[0].inputs[0]
    assert (weights.scale, weights.zero_point) == ((0.5, 0.25), (0, 0))


def test_an_onnx_graph_with_a_cycle_does_not_hang():
    model = network()
    circle(model)
    whole(ONNX, model.SerializeToString())


def small() -> Any:
    """image -> QUANTIZE -> SOFTMAX -> scores, and a constant of two scales."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.arange(4, dtype=np.uint8)
    graph = schema.SubGraphT()
    graph.tensors = []
    for name, kind, buffer in (("image", 0, 0), ("codes", 9, 0), ("scores", 9, 0), ("w", 9, 1)):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer, tensor.shape = name.encode(), kind, buffer, [2, 2]
        tensor.quantization = schema.QuantizationParametersT()
        graph.tensors.append(tensor)
    scales = graph.tensors[3].quantization
    scales.scale, scales.zeroPoint, scales.quantizedDimension = [0.5, 0.25], [0, 0], 1
    codes = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.SOFTMAX)
    model.operatorCodes, graph.operators = [], []
    for number, code in enumerate(codes):
        entry = schema.OperatorCodeT()
        entry.builtinCode = code
        model.operatorCodes.append(entry)
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = number, [number], [number + 1]
        graph.operators.append(op)
    graph.inputs, graph.outputs = [0], [2]
    model.subgraphs = [graph]
    return model


def pack_model(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def graph_of(model: Any) -> Any:
    return model.subgraphs[0]


TFLITE_DAMAGE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an input far off": (
        lambda m: setattr(graph_of(m).operators[0], "inputs", [99]),
        "is not valid",
    ),
    "an input below": (lambda m: setattr(graph_of(m).operators[1], "inputs", [-2]), "is not valid"),
    "an output below": (
        lambda m: setattr(graph_of(m).operators[1], "outputs", [-1]),
        "is not valid",
    ),
    "no input": (lambda m: setattr(graph_of(m).operators[1], "inputs", None), "is not valid"),
    "no output": (lambda m: setattr(graph_of(m).operators[0], "outputs", []), "is not valid"),
    "a constant written": (
        lambda m: setattr(graph_of(m).operators[1], "outputs", [3]),
        "is not valid",
    ),
    "an operator of no kind": (
        lambda m: setattr(graph_of(m).operators[0], "opcodeIndex", 7),
        "define its operator 0",
    ),
    "no kinds": (lambda m: setattr(m, "operatorCodes", None), "define its operator 0"),
    "no tensors": (lambda m: setattr(graph_of(m), "tensors", None), "do not exist"),
    "no outputs": (lambda m: setattr(graph_of(m), "outputs", None), "do not exist"),
    "a buffer far off": (lambda m: setattr(graph_of(m).tensors[3], "buffer", 9), "invalid data"),
    "no buffers": (lambda m: setattr(m, "buffers", None), "invalid data"),
    "a side below 0": (
        lambda m: setattr(graph_of(m).tensors[0], "shape", [2, -2]),
        "or an invalid shape",
    ),
    "an axis far off": (
        lambda m: setattr(graph_of(m).tensors[3].quantization, "quantizedDimension", 2),
        "scales of another shape",
    ),
    "one zero point": (
        lambda m: setattr(graph_of(m).tensors[3].quantization, "zeroPoint", [0]),
        "scales of another shape",
    ),
    "half a number": (
        lambda m: (
            setattr(graph_of(m).tensors[3], "type", 0)
            or setattr(m.buffers[1], "data", np.zeros(3, np.uint8))
        ),
        "truncated",
    ),
}


def test_the_small_tflite_file_is_sound():
    whole(TFLITE, pack_model(small()))


@pytest.mark.parametrize("what", TFLITE_DAMAGE)
def test_an_inconsistent_tflite_file_is_refused(what):
    damage, message = TFLITE_DAMAGE[what]
    model = small()
    damage(model)
    with pytest.raises(InputError, match=message):
        whole(TFLITE, pack_model(model))


def test_a_tflite_graph_with_a_cycle_does_not_hang():
    model = small()
    graph_of(model).operators[0].inputs = [1]
    graph_of(model).outputs = [1]
    assert TFLITE.inspect(pack_model(model)).logits == "codes"


def test_tables_that_share_their_parts_are_counted_first(monkeypatch):
    monkeypatch.setattr(graph_room, "_MOST_PARTS", 5)
    with pytest.raises(InputError, match="more than a mobile network can"):
        TFLITE.inspect(pack_model(small()))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_contract_with_another_compression_is_refused(method):
    stream = io.BytesIO(pack_model(small()))
    with zipfile.ZipFile(stream, "a", method) as archive:
        archive.writestr("mobiledeploy.json", "{}")
    with pytest.raises(InputError, match="unknown method"):
        TFLITE.contract(stream.getvalue())
