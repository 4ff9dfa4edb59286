"""ONNX files: read, sealed and tapped as protobufs."""

from __future__ import annotations

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import FileFacts, Layer, Tensor

SUFFIX = ".onnx"


def inspect(data: bytes) -> FileFacts:
    """Inputs, outputs and operators; InputError where `data` is no ONNX model."""
    model = _open(data)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = _quantizers(graph, constants)
    shapes = _shapes(model)

    def tensor(name: str) -> Tensor:
        if name in constants:
            held = constants[name]
            shape, dtype = tuple(held.dims), _dtype(held.data_type)
        else:
            shape, dtype = shapes.get(name, ((), "unknown"))
        scale, zero_point = quantizers.get(name, ((), ()))
        return Tensor(name, shape, dtype, scale, zero_point, 0 if len(scale) > 1 else None)

    layers = tuple(
        Layer(
            name=node.name or node.output[0],
            op=node.op_type,
            inputs=tuple(tensor(name) for name in node.input if name),
            outputs=tuple(tensor(name) for name in node.output if name),
        )
        for node in graph.node
    )
    inputs = tuple(tensor(i.name) for i in graph.input if i.name not in constants)
    channels_first = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].shape[1] == 3
    return FileFacts(
        format="onnx",
        inputs=inputs,
        outputs=tuple(tensor(o.name) for o in graph.output),
        layers=layers,
        layout="NCHW" if channels_first else "NHWC",
        logits=_logits(layers, graph.output[0].name),
    )


def float_layers(facts: FileFacts) -> tuple[str, ...]:
    """In QDQ form: the operators that no DequantizeLinear feeds."""
    edges = ("QuantizeLinear", "DequantizeLinear")
    quantized = {t.name for layer in facts.layers if layer.op == edges[1] for t in layer.outputs}
    return tuple(
        layer.op
        for layer in facts.layers
        if layer.op not in edges and not any(t.name in quantized for t in layer.inputs)
    )


def seal(data: bytes) -> bytes:
    """The file with its input named `image` and its output `scores`."""
    model = _open(data)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InputError(
            f"the converted model has {len(inputs)} inputs and {len(graph.output)} outputs; "
            "one image in and one row of scores out are needed"
        )
    renamed = {inputs[0].name: "image", graph.output[0].name: "scores"}
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    inputs[0].name, graph.output[0].name = "image", "scores"
    return bytes(model.SerializeToString(deterministic=True))


def tap(data: bytes, tensor: str) -> bytes:
    """A copy whose one output is the tensor of that name."""
    model = _open(data)
    if tensor not in {name for node in model.graph.node for name in node.output}:
        raise InputError(f"the ONNX file has no tensor named {tensor}")
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return bytes(model.SerializeToString(deterministic=True))


def _open(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise InputError("not an ONNX file, or a truncated one") from error
    if not model.graph.node or not model.graph.output:
        raise InputError("the ONNX file holds no graph")
    return model


def _dtype(number: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(number)) if number else "unknown"


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype by tensor name, as far as ONNX's own shape inference finds them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: (
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            _dtype(value.type.tensor_type.elem_type),
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


Quantizers = dict[str, tuple[tuple[float, ...], tuple[int, ...]]]


def _quantizers(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> Quantizers:
    """Scales and zero points of the integer tensors that (De)QuantizeLinear nodes stand at."""
    found: Quantizers = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            stored = node.output[0]
        elif node.op_type == "DequantizeLinear":
            stored = node.input[0]
        else:
            continue
        parts = [constants.get(name) for name in node.input[1:3]]
        scale, zero = (None if p is None else numpy_helper.to_array(p).ravel() for p in parts)
        if scale is not None and zero is not None:
            found[stored] = (
                tuple(float(s) for s in scale),
                tuple(int(z) for z in zero.astype(np.int64)),
            )
    return found


def _logits(layers: tuple[Layer, ...], output: str) -> str:
    """The input of the softmax that makes `output`, seen through a change of type behind it."""
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    layer = makers.get(output)
    while layer and layer.op in ("QuantizeLinear", "DequantizeLinear"):
        layer = makers.get(layer.inputs[0].name)
    return layer.inputs[0].name if layer and layer.op == "Softmax" else output
