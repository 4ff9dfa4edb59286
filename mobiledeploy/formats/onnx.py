"""ONNX files: reads and edits them as protobufs."""

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
from mobiledeploy.core.types import (
    ChannelOrder,
    Contract,
    FileFacts,
    Golden,
    Layer,
    Preprocessing,
    Tensor,
)

SUFFIX = ".onnx"

# The operators that ONNX Runtime 1.31 fuses with the (De)QuantizeLinear nodes around them, as shown
# by the graph that it stores after optimizing; every other operator between them stays in float.
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
_IMAGE_AXES = 4
_CHANNELS = (1, 3)
# They move values of any type.
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
# Products with weights: the operators that gain most from integers.
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LOWEST = {"int8": -128, "uint8": 0}
_QUANTIZERS = ("DequantizeLinear", "QuantizeLinear")
_SEEN_THROUGH = (*_QUANTIZERS, "Cast", "Reshape", "Softmax")
# Keys of metadata_props: the contract as readable JSON, and the compressed golden samples.
_CONTRACT, _GOLDEN = "mobiledeploy.contract", "mobiledeploy.golden"
_LARGEST_GOLDEN = 1 << 26
_SMALL_CONSTANT = 1 << 10
"""Elements: larger constants are not shapes."""
_PIXEL_FORMATS: dict[ChannelOrder, str] = {"rgb": "Rgb8", "bgr": "Bgr8", "gray": "Gray8"}
_CHANNEL_ORDERS = {text: channels for channels, text in _PIXEL_FORMATS.items()}
# The values in ONNX's own list of metadata (docs/MetadataProps.md).
_RANGES = {
    (0.0, 1.0): "Normalized_0_1",
    (-1.0, 1.0): "Normalized_1_1",
    (0.0, 255.0): "NominalRange_0_255",
}


def inspect(data: bytes) -> FileFacts:
    """Inputs, outputs and operators; InputError if `data` is not an ONNX model."""
    model = _open(data)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = _quantizers(graph, constants)
    shapes = _shapes(model)
    # Weights in QDQ form reach their operator as floats.
    constant_names = constants.keys() | {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }

    def tensor(name: str) -> Tensor:
        if name in constants:
            constant = constants[name]
            shape, dtype = tuple(constant.dims), _dtype(constant.data_type)
        else:
            shape, dtype = shapes.get(name, ((), "unknown"))
        scale, zero_point, axis = quantizers.get(name, ((), (), 0))
        if axis < 0:
            axis += len(shape)
        return Tensor(
            name,
            shape,
            dtype,
            scale,
            zero_point,
            axis if len(scale) > 1 else None,
            name in constant_names,
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
    # ONNX's own operators take channels first.
    channels_last = any(
        len(t.shape) == _IMAGE_AXES and t.shape[3] in _CHANNELS and t.shape[1] not in _CHANNELS
        for t in inputs
    )
    return FileFacts(
        format="onnx",
        inputs=inputs,
        outputs=tuple(tensor(o.name) for o in graph.output),
        layers=layers,
        layout="NHWC" if channels_last else "NCHW",
        logits=_logits(layers, graph.output[0].name),
    )


def float_layers(facts: FileFacts) -> tuple[str, ...]:
    """In QDQ form: the operators that ONNX Runtime has to compute in float.

    Operators without float tensors are not in float, and neither are these:

    - operators with an integer kernel, all of whose float inputs come from a DequantizeLinear and
      whose outputs all go to a QuantizeLinear;
    - a Relu between the two if its QuantizeLinear already clips at zero;
    - operators that only move values from a DequantizeLinear.

    Clip and Resize count as float, though some of them are not: that depends on bounds and on a
    mode, which `facts` do not hold. The CPU is not considered: on x86-64, ONNX Runtime 1.31 has no
    kernel for signed activations that several operators read.
    """
    float_layers_, _ = _in_float(facts)
    return tuple(layer.op for layer in float_layers_)


def between_integers(facts: FileFacts) -> tuple[str, ...]:
    """Those of `float_layers` that start and end in integers, which is their int8 form in ONNX.

    These are single operators or short chains: all their inputs are constants or come from a
    DequantizeLinear, and all their outputs go to a QuantizeLinear. A product with weights counts
    only if it is alone and its weights are integers too.
    """
    float_layers_, dequantized = _in_float(facts)
    readers = _readers(facts)
    ends = {tensor.name for tensor in facts.outputs}
    float_ids = {id(layer) for layer in float_layers_}
    makers = {t.name: number for number, layer in enumerate(float_layers_) for t in layer.outputs}
    # For each layer a layer of its chain (union-find).
    parent = list(range(len(float_layers_)))

    def chain_of(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    excluded = set()
    for number, layer in enumerate(float_layers_):
        for tensor in _floats(layer.inputs):
            if tensor.name in makers:
                parent[chain_of(number)] = chain_of(makers[tensor.name])
            elif tensor.name not in dequantized and (not tensor.constant or layer.op in _HEAVY):
                excluded.add(number)
        for tensor in _floats(layer.outputs):
            after = readers.get(tensor.name, [])
            stays = all(x.op == "QuantizeLinear" or id(x) in float_ids for x in after)
            if not after or not stays or tensor.name in ends:
                excluded.add(number)
    sizes = Counter(chain_of(number) for number in range(len(float_layers_)))
    excluded_chains = {chain_of(number) for number in excluded} | {
        chain_of(number)
        for number, layer in enumerate(float_layers_)
        if layer.op in _HEAVY and sizes[chain_of(number)] > 1
    }
    return tuple(
        x.op for number, x in enumerate(float_layers_) if chain_of(number) not in excluded_chains
    )


def _in_float(facts: FileFacts) -> tuple[list[Layer], set[str]]:
    """The layers of `float_layers`, and the float tensors that are dequantized integers."""
    readers = _readers(facts)
    dequantized: set[str] = set()
    float_layers_ = []
    for layer in facts.layers:
        if layer.op == "DequantizeLinear":
            dequantized.add(layer.outputs[0].name)
        elif layer.op == "QuantizeLinear" or not _floats((*layer.inputs, *layer.outputs)):
            continue
        elif not all(tensor.name in dequantized for tensor in _floats(layer.inputs)):
            float_layers_.append(layer)
        elif layer.op in _MOVING:
            dequantized.update(tensor.name for tensor in layer.outputs)
        else:
            after = [reader for t in layer.outputs for reader in readers.get(t.name, [])]
            is_quantized = bool(after) and all(reader.op == "QuantizeLinear" for reader in after)
            is_clipped = all(_cuts_at_zero(reader.outputs[0]) for reader in after)
            has_kernel = layer.op in _INTEGER_KERNELS or (layer.op == "Relu" and is_clipped)
            if not (has_kernel and is_quantized):
                float_layers_.append(layer)
    return float_layers_, dequantized


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
    """The constants as real values, by the names that layers read."""
    graph = _open(data).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    values_by_name = {
        name: _values(tensor).astype(np.float32)
        for name, tensor in constants.items()
        if _dtype(tensor.data_type) in ("float32", "float16", "int8", "uint8", "int32")
    }
    quantizers = _quantizers(graph, constants)
    for node in graph.node:
        if (
            node.op_type == "DequantizeLinear"
            and node.input[0] in values_by_name.keys() & quantizers.keys()
        ):
            scale, zero, axis = quantizers[node.input[0]]
            real = values_by_name[node.input[0]]
            if len(scale) != 1 and not (
                -real.ndim <= axis < real.ndim and len(scale) == len(zero) == real.shape[axis]
            ):
                raise InputError(f"{node.input[0]} of the ONNX file has scales of another shape")
            sides = [1] * real.ndim
            if len(scale) > 1:
                sides[axis] = -1
            steps = real - np.asarray(zero, np.float32).reshape(sides)
            values_by_name[node.output[0]] = steps * np.asarray(scale, np.float32).reshape(sides)
    return values_by_name


def seal(data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The file with these names of its inputs and outputs, in their order."""
    model = _open(data)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    own_inputs = [i for i in graph.input if i.name not in constants]
    if (len(own_inputs), len(graph.output)) != (len(inputs), len(outputs)):
        raise InputError(
            f"the converted model has {len(own_inputs)} inputs and {len(graph.output)} outputs, "
            f"the model has {len(inputs)} and {len(outputs)}"
        )
    ends = [*own_inputs, *graph.output]
    new_names = dict(zip((end.name for end in ends), (*inputs, *outputs), strict=True))
    # Another tensor may have such a name already.
    inner = {name for node in graph.node for name in (*node.input, *node.output)} | constants
    new_names |= {
        name: f"{name}/inner" for name in (*inputs, *outputs) if name in inner - new_names.keys()
    }
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new_names.get(name, name)
    for tensor in graph.initializer:
        tensor.name = new_names.get(tensor.name, tensor.name)
    for end in ends:
        end.name = new_names[end.name]
    return bytes(model.SerializeToString(deterministic=True))


def write_metadata(data: bytes, contract: Contract) -> bytes:
    """The file with the contract in `metadata_props`, and the properties that ONNX names."""
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
        "Image.BitmapPixelFormat": _PIXEL_FORMATS[pre.channels],
        "Image.ColorSpaceGamma": "SRGB",
    }
    # ONNX has no name for an additional mean and deviation.
    if not any(pre.mean) and set(pre.std) == {1.0} and pre.input_range in _RANGES:
        props["Image.NominalPixelRange"] = _RANGES[pre.input_range]
    return props


def contract(data: bytes) -> Contract | None:
    """The contract that `write_metadata` wrote.

    None if there is none, InputError if it is damaged.
    """
    props = {entry.key: entry.value for entry in _open(data).metadata_props}
    if _CONTRACT not in props:
        return None
    stored_contract = records.loads(Contract, props[_CONTRACT], _CONTRACT)
    try:
        compressed = base64.b64decode(props[_GOLDEN], validate=True)
        text = zlib.decompressobj().decompress(compressed, _LARGEST_GOLDEN)
    except (KeyError, binascii.Error, zlib.error) as error:
        raise InputError(f"{_GOLDEN} of the ONNX file is damaged") from error
    return replace(stored_contract, golden=records.loads(Golden, text, _GOLDEN))


def preprocessing(data: bytes) -> Preprocessing | None:
    """What the properties that ONNX names say of its first image; None if they say nothing."""
    props = {entry.key: entry.value for entry in _open(data).metadata_props}
    ranges = {value: ends for ends, value in _RANGES.items()}
    low_high = ranges.get(props.get("Image.NominalPixelRange", ""))
    channels = _CHANNEL_ORDERS.get(props.get("Image.BitmapPixelFormat", "Rgb8"))
    if low_high is None or channels is None:
        return None
    return Preprocessing(low_high, channels=channels)


def expose_tensor(data: bytes, tensor: str) -> bytes:
    """A copy whose one output is the tensor of that name."""
    model = _open(data)
    if tensor not in {name for node in model.graph.node for name in node.output}:
        raise InputError(f"the ONNX file has no tensor named {tensor}")
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return bytes(model.SerializeToString(deterministic=True))


def activations(facts: FileFacts) -> tuple[Tensor, ...]:
    """The tensors between operators, in the order of execution.

    In QDQ form these are the codes that a QuantizeLinear writes or a DequantizeLinear reads.
    """
    outputs = [t for layer in facts.layers for t in layer.outputs if not t.constant]
    has_codes = any(layer.op == "QuantizeLinear" for layer in facts.layers)
    return tuple(tensor for tensor in outputs if tensor.scale or not has_codes)


def extract_subgraph(data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A copy with the inputs `inputs` and the outputs `outputs`, in this order.

    Operators that no output depends on are left out, and so are inputs that nothing reads. A tensor
    that is both is returned as its operator computes it, with the name plus `/made`.
    """
    model = _open(data)
    graph = model.graph
    shapes = _shapes(model)
    absent = [name for name in (*inputs, *outputs) if name not in shapes]
    if absent:
        raise InputError(f"the ONNX file has no tensor named {absent[0]}")
    # Inputs come from the caller, even if an operator computes them.
    new_names = {name: f"{name}/made" for name in inputs}
    output_names = [new_names.get(name, name) for name in outputs]
    needed_names, nodes = set(output_names), []
    for node in reversed(graph.node):
        names = [new_names.get(name, name) for name in node.output]
        if needed_names.intersection(names):
            node.output[:] = names
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            needed_names.update(node.input)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(reversed(nodes))

    def value(name: str, tensor: str) -> onnx.ValueInfoProto:
        shape, dtype = shapes[tensor]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    graph.input.extend(value(name, name) for name in inputs if name in needed_names)
    graph.output.extend(value(new_names.get(name, name), name) for name in outputs)
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
    """InputError for data in other files, in any tensor of `message`, at any depth.

    ONNX's own readers would open the named file, wherever it is.
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
            # It contains no tensors, and listing its fields copies its numbers.
            continue
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting += [value] if isinstance(value, Message) else value


def _values(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The values of a constant; InputError if their number does not match its shape."""
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"the constant {tensor.name} of the ONNX file is damaged") from error


def _dtype(number: int) -> str:
    try:
        return str(helper.tensor_dtype_to_np_dtype(number)) if number else "unknown"
    except KeyError as error:
        raise InputError(f"the ONNX file has tensors of the unknown type {number}") from error


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype by tensor name, as far as ONNX's shape inference knows them."""
    try:
        graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    except (
        onnx.shape_inference.InferenceError,
        onnx.checker.ValidationError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # For example an unknown domain.
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
    """A copy with inputs instead of large constants, which shape inference copies five times.

    It only needs the values of shapes, which are small.
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
    """The tensors of floats, or of a type that shape inference does not know."""
    return [t for t in tensors if t.dtype.startswith("float") or t.dtype == "unknown"]


def _cuts_at_zero(tensor: Tensor) -> bool:
    """Whether the lowest code of a quantized tensor is zero."""
    return tensor.dtype in _LOWEST and set(tensor.zero_point) == {_LOWEST[tensor.dtype]}


Quantizers = dict[str, tuple[tuple[float, ...], tuple[int, ...], int]]


def _quantizers(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> Quantizers:
    """Scales, zero points and axis of the integer tensors of (De)QuantizeLinear nodes.

    The axis may count from the end, as in the file.
    """
    quantizers: Quantizers = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            codes = node.output[0]
        elif node.op_type == "DequantizeLinear":
            codes = node.input[0]
        else:
            continue
        _, scale, zero = (*node.input[:3], "", "", "")[:3]
        # Without a zero point it is 0.
        if scale in constants and (not zero or zero in constants):
            scales = _values(constants[scale]).ravel()
            zeros = _values(constants[zero]).ravel() if zero else np.zeros(scales.shape)
            quantizers[codes] = (
                tuple(float(s) for s in scales),
                tuple(int(z) for z in zeros.astype(np.int64)),
                next((int(a.i) for a in node.attribute if a.name == "axis"), 1),
            )
    return quantizers


def _logits(layers: tuple[Layer, ...], output: str) -> str:
    """The input of the softmax behind `output`; changes of type or shape in between are skipped."""
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    layer = makers.pop(output, None)
    while layer and layer.op in (*_QUANTIZERS, "Cast", "Reshape"):
        # Each layer once: a graph may have a cycle.
        layer = makers.pop(layer.inputs[0].name, None)
    return layer.inputs[0].name if layer and layer.op == "Softmax" else output
