"""ONNX files: read, sealed and tapped as protobufs."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Contract, FileFacts, Golden, Layer, Preprocessing, Tensor

SUFFIX = ".onnx"

# The operators that ONNX Runtime 1.31 fuses with the (De)QuantizeLinear nodes around them, as the
# graph shows that it stores after optimizing; every other operator between them stays in float.
_INTEGER_KERNELS = (
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "ReduceMax",
    "Sigmoid",
    "Softmax",
    "Where",
)
# They hand their numbers on, of whatever type.
_MOVING = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
# Products with weights: the operators that integers are there for.
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LOWEST = {"int8": -128, "uint8": 0}
_QUANTIZERS = ("DequantizeLinear", "QuantizeLinear")
_SEEN_THROUGH = (*_QUANTIZERS, "Reshape", "Softmax")
# Of metadata_props: the contract as JSON that people can read, and the golden samples packed.
_CONTRACT, _GOLDEN = "mobiledeploy.contract", "mobiledeploy.golden"
_LARGEST_GOLDEN = 1 << 26
_SMALL_CONSTANT = 1 << 10
"""Elements: larger ones are no shapes."""
# The values that ONNX's own list of metadata has (docs/MetadataProps.md).
_RANGES = {
    (0.0, 1.0): "Normalized_0_1",
    (-1.0, 1.0): "Normalized_1_1",
    (0.0, 255.0): "NominalRange_0_255",
}


def inspect(data: bytes) -> FileFacts:
    """Inputs, outputs and operators; InputError where `data` is no ONNX model."""
    model = _open(data)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = _quantizers(graph, constants)
    shapes = _shapes(model)
    # Weights in QDQ form reach their operator as floats.
    fixed = constants.keys() | {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }

    def tensor(name: str) -> Tensor:
        if name in constants:
            held = constants[name]
            shape, dtype = tuple(held.dims), _dtype(held.data_type)
        else:
            shape, dtype = shapes.get(name, ((), "unknown"))
        scale, zero_point, axis = quantizers.get(name, ((), (), 0))
        if axis < 0:
            axis += len(shape)
        return Tensor(
            name, shape, dtype, scale, zero_point, axis if len(scale) > 1 else None, name in fixed
        )

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
    """In QDQ form: the operators that ONNX Runtime has to compute in float.

    Not in float are those that touch no float tensor, and:

    - operators with an integer kernel, all of whose float inputs come from a DequantizeLinear and
      whose outputs all go to a QuantizeLinear;
    - a Relu between the two whose QuantizeLinear cuts at zero itself;
    - operators that only move numbers that come from a DequantizeLinear.

    Clip and Resize count as float, though some of them are not: that depends on bounds and on a
    mode, which `facts` do not hold. Whether a CPU has the kernel is not told: on x86-64, ONNX
    Runtime 1.31 has none for signed activations that several operators read.
    """
    found, _ = _in_float(facts)
    return tuple(layer.op for layer in found)


def between_integers(facts: FileFacts) -> tuple[str, ...]:
    """Of `float_layers` those that begin and end in integers: the int8 form that ONNX has of them.

    Such are operators, one or a few in a row, into which only what a DequantizeLinear made and
    constants go, and out of which all goes into a QuantizeLinear. A product with weights is one
    only where it stands alone, and its weights are integers too.
    """
    found, integer = _in_float(facts)
    readers = _readers(facts)
    ends = {tensor.name for tensor in facts.outputs}
    inside = {id(layer) for layer in found}
    makers = {t.name: number for number, layer in enumerate(found) for t in layer.outputs}
    # Each layer's row: the number of a layer in it, or of one that knows it.
    row = list(range(len(found)))

    def first(number: int) -> int:
        while row[number] != number:
            row[number] = number = row[row[number]]
        return number

    outside = set()
    for number, layer in enumerate(found):
        for tensor in _floats(layer.inputs):
            if tensor.name in makers:
                row[first(number)] = first(makers[tensor.name])
            elif tensor.name not in integer and (not tensor.constant or layer.op in _HEAVY):
                outside.add(number)
        for tensor in _floats(layer.outputs):
            after = readers.get(tensor.name, [])
            stays = all(x.op == "QuantizeLinear" or id(x) in inside for x in after)
            if not after or not stays or tensor.name in ends:
                outside.add(number)
    sizes = Counter(first(number) for number in range(len(found)))
    refused = {first(number) for number in outside} | {
        first(number)
        for number, layer in enumerate(found)
        if layer.op in _HEAVY and sizes[first(number)] > 1
    }
    return tuple(x.op for number, x in enumerate(found) if first(number) not in refused)


def _in_float(facts: FileFacts) -> tuple[list[Layer], set[str]]:
    """The layers that `float_layers` names, and the float tensors that stand for integers."""
    readers = _readers(facts)
    integer: set[str] = set()
    found = []
    for layer in facts.layers:
        if layer.op == "DequantizeLinear":
            integer.add(layer.outputs[0].name)
        elif layer.op == "QuantizeLinear" or not _floats((*layer.inputs, *layer.outputs)):
            continue
        elif not all(tensor.name in integer for tensor in _floats(layer.inputs)):
            found.append(layer)
        elif layer.op in _MOVING:
            integer.update(tensor.name for tensor in layer.outputs)
        else:
            after = [reader for t in layer.outputs for reader in readers.get(t.name, [])]
            stored = bool(after) and all(reader.op == "QuantizeLinear" for reader in after)
            cut = all(_cuts_at_zero(reader.outputs[0]) for reader in after)
            kernel = layer.op in _INTEGER_KERNELS or (layer.op == "Relu" and cut)
            if not (kernel and stored):
                found.append(layer)
    return found, integer


def _readers(facts: FileFacts) -> dict[str, list[Layer]]:
    readers: dict[str, list[Layer]] = {}
    for layer in facts.layers:
        for tensor in layer.inputs:
            readers.setdefault(tensor.name, []).append(layer)
    return readers


def sparsity(data: bytes) -> float:
    """Share of the weights that are zero, from 0 to 1: of constants of two dimensions or more."""
    zeros = total = 0
    for tensor in _open(data).graph.initializer:
        if len(tensor.dims) < 2 or _dtype(tensor.data_type) not in ("float32", "float16", "int8"):
            continue
        values = _values(tensor)
        # Weights of integers are symmetric: their zero point is zero.
        zeros += values.size - int(np.count_nonzero(values))
        total += values.size
    return zeros / total if total else 0.0


def weights(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The constants of numbers, as real values, by the name that a layer reads them by."""
    graph = _open(data).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = {
        name: _values(tensor).astype(np.float32)
        for name, tensor in constants.items()
        if _dtype(tensor.data_type) in ("float32", "float16", "int8", "uint8", "int32")
    }
    quantizers = _quantizers(graph, constants)
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in found.keys() & quantizers.keys():
            scale, zero, axis = quantizers[node.input[0]]
            real = found[node.input[0]]
            if len(scale) != 1 and not (
                -real.ndim <= axis < real.ndim and len(scale) == len(zero) == real.shape[axis]
            ):
                raise InputError(f"{node.input[0]} of the ONNX file has scales of another shape")
            sides = [1] * real.ndim
            if len(scale) > 1:
                sides[axis] = -1
            steps = real - np.asarray(zero, np.float32).reshape(sides)
            found[node.output[0]] = steps * np.asarray(scale, np.float32).reshape(sides)
    return found


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


def write_metadata(data: bytes, contract: Contract) -> bytes:
    """The file with the contract in `metadata_props`, and what ONNX has names for beside it."""
    model = _open(data)
    golden = zlib.compress(records.line(contract.golden).encode(), 9)
    props = {entry.key: entry.value for entry in model.metadata_props}
    props |= _image_props(contract.preprocessing)
    props[_CONTRACT] = records.line(replace(contract, golden=Golden((), (), (), "")))
    props[_GOLDEN] = base64.b64encode(golden).decode()
    helper.set_model_props(model, dict(sorted(props.items())))
    return bytes(model.SerializeToString(deterministic=True))


def _image_props(pre: Preprocessing) -> dict[str, str]:
    props = {
        "Image.BitmapPixelFormat": {"rgb": "Rgb8", "bgr": "Bgr8"}[pre.channels],
        "Image.ColorSpaceGamma": "SRGB",
    }
    # There is no name for a mean and a deviation besides.
    if not any(pre.mean) and set(pre.std) == {1.0} and pre.input_range in _RANGES:
        props["Image.NominalPixelRange"] = _RANGES[pre.input_range]
    return props


def contract(data: bytes) -> Contract | None:
    """What `write_metadata` wrote; None where it did not, InputError where it is damaged."""
    props = {entry.key: entry.value for entry in _open(data).metadata_props}
    if _CONTRACT not in props:
        return None
    said = records.loads(Contract, props[_CONTRACT], _CONTRACT)
    try:
        packed = base64.b64decode(props[_GOLDEN], validate=True)
        text = zlib.decompressobj().decompress(packed, _LARGEST_GOLDEN)
    except (KeyError, binascii.Error, zlib.error) as error:
        raise InputError(f"{_GOLDEN} of the ONNX file is damaged") from error
    return replace(said, golden=records.loads(Golden, text, _GOLDEN))


def expose_tensor(data: bytes, tensor: str) -> bytes:
    """A copy whose one output is the tensor of that name."""
    model = _open(data)
    if tensor not in {name for node in model.graph.node for name in node.output}:
        raise InputError(f"the ONNX file has no tensor named {tensor}")
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return bytes(model.SerializeToString(deterministic=True))


def activations(facts: FileFacts) -> tuple[Tensor, ...]:
    """What the operators hand on to each other, in the order in which it is made.

    In QDQ form: the codes that a QuantizeLinear has made or a DequantizeLinear reads.
    """
    made = [t for layer in facts.layers for t in layer.outputs if not t.constant]
    quantized = any(layer.op == "QuantizeLinear" for layer in facts.layers)
    return tuple(tensor for tensor in made if tensor.scale or not quantized)


def extract_subgraph(data: bytes, given: Sequence[str], wanted: Sequence[str]) -> bytes:
    """A copy that takes the tensors `given` and answers with those `wanted`, in this order.

    Operators that nothing wanted depends on are left out, and so is what is given and not read. A
    tensor that is both given and wanted is answered as its operator makes it, its name with
    `/made` behind it.
    """
    model = _open(data)
    graph = model.graph
    shapes = _shapes(model)
    absent = [name for name in (*given, *wanted) if name not in shapes]
    if absent:
        raise InputError(f"the ONNX file has no tensor named {absent[0]}")
    # What is given is read from the caller, whatever makes it.
    made = {name: f"{name}/made" for name in given}
    outputs = [made.get(name, name) for name in wanted]
    needed, kept = set(outputs), []
    for node in reversed(graph.node):
        names = [made.get(name, name) for name in node.output]
        if needed.intersection(names):
            node.output[:] = names
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            needed.update(node.input)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(reversed(kept))

    def value(name: str, known: str) -> onnx.ValueInfoProto:
        shape, dtype = shapes[known]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    graph.input.extend(value(name, name) for name in given if name in needed)
    graph.output.extend(value(made.get(name, name), name) for name in wanted)
    del graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))


def _open(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise InputError("not an ONNX file, or a truncated one") from error
    if not model.graph.node or not model.graph.output:
        raise InputError("the ONNX file holds no graph")
    _check_outside(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if not constants.isdisjoint(node.output):
            raise InputError(f"the ONNX file's {node.op_type} {node.name} writes a constant")
        least = 2 if node.op_type in _QUANTIZERS else int(node.op_type in _SEEN_THROUGH)
        if (
            not any(node.output[:1])
            or sum(map(bool, node.input)) < least
            or "" in node.input[:least]
        ):
            raise InputError(f"the ONNX file's {node.op_type} {node.name} lacks a tensor")
    return model


def _check_outside(message: Any) -> None:
    """InputError for data in other files, in whatever tensor of `message`, at any depth.

    ONNX's own readers would open the file that is named, wherever it lies.
    """
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if isinstance(one, onnx.TensorProto):
            if one.data_location == onnx.TensorProto.EXTERNAL or one.external_data:
                raise InputError(
                    f"the ONNX file keeps the data of {one.name} in another file",
                    "save it as one file",
                )
            # It has no tensors in it, and to list its fields copies its numbers.
            continue
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting += [value] if isinstance(value, Message) else value


def _values(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The numbers of a constant; InputError where there are not as many as its shape says."""
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"the constant {tensor.name} of the ONNX file is damaged") from error


def _dtype(number: int) -> str:
    try:
        return str(helper.tensor_dtype_to_np_dtype(number)) if number else "unknown"
    except KeyError as error:
        raise InputError(f"the ONNX file has tensors of a type {number}, which is none") from error


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype by tensor name, as far as ONNX's own shape inference finds them."""
    try:
        graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    except (
        onnx.shape_inference.InferenceError,
        onnx.checker.ValidationError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # Of an unknown domain, say.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"the ONNX file does not fit together: {reason[0][:200]}") from error
    return {
        value.name: (
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            _dtype(value.type.tensor_type.elem_type),
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with inputs in the place of large constants, which shape inference copies five times.

    What it reads the values of are shapes, and those are small.
    """
    graph = model.graph
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = graph.name
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    light.graph.output.extend(graph.output)
    light.graph.value_info.extend(graph.value_info)
    light.graph.sparse_initializer.extend(graph.sparse_initializer)
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL_CONSTANT:
            light.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(value)
    return light


def _floats(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Those that hold floats, or of which shape inference found no type."""
    return [t for t in tensors if t.dtype.startswith("float") or t.dtype == "unknown"]


def _cuts_at_zero(tensor: Tensor) -> bool:
    """Whether the lowest code of a quantized tensor stands for zero."""
    return tensor.dtype in _LOWEST and set(tensor.zero_point) == {_LOWEST[tensor.dtype]}


Quantizers = dict[str, tuple[tuple[float, ...], tuple[int, ...], int]]


def _quantizers(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> Quantizers:
    """Scales, zero points and axis of the integer tensors that (De)QuantizeLinear nodes stand at.

    The axis may count from the end, as it may in the file.
    """
    found: Quantizers = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            stored = node.output[0]
        elif node.op_type == "DequantizeLinear":
            stored = node.input[0]
        else:
            continue
        _, scale, zero = (*node.input[:3], "", "", "")[:3]
        # Without a zero point it is 0.
        if scale in constants and (not zero or zero in constants):
            scales = _values(constants[scale]).ravel()
            zeros = _values(constants[zero]).ravel() if zero else np.zeros(scales.shape)
            found[stored] = (
                tuple(float(s) for s in scales),
                tuple(int(z) for z in zeros.astype(np.int64)),
                next((int(a.i) for a in node.attribute if a.name == "axis"), 1),
            )
    return found


def _logits(layers: tuple[Layer, ...], output: str) -> str:
    """The input of the softmax that makes `output`, seen through a change of type or shape."""
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    layer = makers.pop(output, None)
    while layer and layer.op in (*_QUANTIZERS, "Reshape"):
        # Each once: a graph that leads in a circle has no end.
        layer = makers.pop(layer.inputs[0].name, None)
    return layer.inputs[0].name if layer and layer.op == "Softmax" else output
