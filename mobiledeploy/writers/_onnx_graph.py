"""Builds an ONNX graph: tensors of a TFLite graph by name, axis order and number type.

Images are NHWC in TFLite and NCHW here, as ONNX Runtime's convolutions require. An order gives the
layout of a tensor: its axes, numbered as in TFLite, from the outermost to the innermost. By default
a tensor of four axes has the order (0, 3, 1, 2), others the natural one. TRANSPOSE only changes the
recorded order. Each reader of a tensor asks for the order that it needs, and a Transpose node is
added where the two differ.

Integers are in QDQ form: each operator is between DequantizeLinear and QuantizeLinear nodes, which
ONNX Runtime fuses into its integer kernels. Codes of activations are signed as in TFLite where the
graph allows it: ARM's dot products use them directly. x86-64 needs unsigned codes. ONNX Runtime
1.31 converts them there, but only between a QuantizeLinear and its only DequantizeLinear; other
readers of signed codes are computed in float. So a graph with other readers (a residual sum, a
clip) is written with unsigned codes, each 128 above TFLite's. Inputs and outputs keep TFLite's
signed codes.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mobiledeploy.core.errors import InputError, first_line
from mobiledeploy.core.ports import Array
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.writers import _onnx_half

Order = tuple[int, ...]

TO_NCHW: Order = (0, 3, 1, 2)
TO_NHWC: Order = (0, 2, 3, 1)
# The names of the inputs and outputs in the final file; no inner tensor may have them.
_RESERVED = ("image", "scores")
# Fields of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_LOWEST, _HIGHEST = -128, 127
_TYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
_NATURAL = {"RELU": "Relu", "TANH": "Tanh"}
_CLIP: dict[str, tuple[float, float]] = {
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}

_FROM_ZERO = {"RELU", "RELU6", "RELU_0_TO_1"}
_NEARLY_ZERO = float(np.finfo(np.float32).tiny)


def default_order(rank: int) -> Order:
    """The default order of a tensor of `rank` axes."""
    return TO_NCHW if rank == 4 else tuple(range(rank))


def _digits(order: Order) -> str:
    return "".join(map(str, order)) or "number"


def _check(model: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
    """InputError if ONNX's checker rejects the model, which does not hold the constants yet.

    The checker packs and unpacks everything, so weights are passed to it as inputs.
    """
    inputs = len(model.graph.input)
    for name, values in constants.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"the ONNX model is not valid: {first_line(error)}") from error
    del model.graph.input[inputs:]


def _pack(model: onnx.ModelProto, constants: Mapping[str, Array]) -> bytes:
    """The file: the model packed by protobuf, then its constants, which protobuf would copy.

    A message is a sequence of fields, each a tag, its length and its bytes.
    """
    graph = model.graph.SerializeToString(deterministic=True)
    tensors = {}
    for name, values in constants.items():
        tensor = onnx.TensorProto(
            name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape
        )
        head = tensor.SerializeToString(deterministic=True) + _field(_RAW_DATA, values.nbytes)
        tensors[name] = _field(_INITIALIZER, len(head) + values.nbytes) + head
    size = len(graph) + sum(len(head) + constants[name].nbytes for name, head in tensors.items())
    model.ClearField("graph")
    stream = io.BytesIO()
    stream.write(model.SerializeToString(deterministic=True) + _field(_GRAPH, size) + graph)
    for name, head in tensors.items():
        stream.write(head)
        stream.write(np.ascontiguousarray(constants[name]).data)
    return stream.getvalue()


def _field(number: int, size: int) -> bytes:
    """The tag and the length of a field of bytes."""
    code = bytearray([number << 3 | 2])
    while size >= 0x80:
        code.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*code, size])


class _Names:
    """A set of unique names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.used = set(names)
        self._numbers: Counter[str] = Counter()

    def free(self, name: str) -> str:
        """The name, or a similar one if it is used; it is marked as used."""
        free = name
        while free in self.used:
            self._numbers[name] += 1
            free = f"{name}_{self._numbers[name] + 1}"
        self.used.add(free)
        return free


class OnnxGraph:
    """The nodes and constants of an ONNX graph, written operator by operator.

    `code_type` is the type of the codes of int8 activations, `shift` their difference to TFLite's.
    """

    def __init__(self, graph: Graph, code_type: type[np.integer[Any]]) -> None:
        self.graph = graph
        self.code_type: Any = code_type
        self.limits = np.iinfo(code_type)
        self.shift = int(self.limits.min) - _LOWEST
        self.readers: dict[int, list[Any]] = {}
        for op in graph.ops:
            for index in dict.fromkeys(int(i) for i in op.inputs if i >= 0):
                self.readers.setdefault(index, []).append(op)
        self._makers = {int(i): op for op in graph.ops for i in op.outputs}
        self.merged_ops: set[int] = set()
        """The `id` of operators that were written together with an earlier one."""
        self.parts: dict[int, list[int]] = {}
        """For each tensor that is not written: the tensors that it is a concatenation of."""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        # The names of constants, by the requested kind and name.
        self._constant_names: dict[tuple[str, str], str] = {}
        self._names = self._unique_names()
        self._tensors = _Names(self._names[index] for index in graph.inputs)
        # For each tensor: the names of its values, by order.
        self._values: dict[int, dict[Order, str]] = {}
        self._floats: dict[tuple[int, Order], str] = {}
        self._operands: dict[tuple[int, Order], str] = {}
        self._parameters: dict[tuple[int, str], str] = {}
        self._copies: Counter[int] = Counter()
        self._set_constants: dict[int, Array] = {}
        self._pads: dict[int, tuple[int, Array]] = {}
        self._outputs: dict[int, str] = {}
        self._inputs = {index: self._end_order(index) for index in graph.inputs}
        for index, order in self._inputs.items():
            self._values[index] = {order: self._enter(index, order)}

    def close(self) -> None:
        """Completes the graph with the nodes for its outputs."""
        for index in dict.fromkeys(self.graph.outputs):
            self._outputs[index] = self._close(index)
        for node in self._nodes:
            node.name = node.output[0]

    def is_paired(self) -> bool:
        """Whether all codes go from a QuantizeLinear through a DequantizeLinear to one operator.

        Those of inputs and outputs have only one of the two.
        """
        outputs = [self._outputs[index] for index in self.graph.outputs]
        ends = {*outputs, *(self._names[index] for index in self.graph.inputs)}
        quantized_names = {n.output[0] for n in self._nodes if n.op_type == "QuantizeLinear"} - ends
        pairs = [
            node
            for node in self._nodes
            if node.op_type == "DequantizeLinear"
            and node.input[0] not in ends
            and node.input[0] not in self._constants
        ]
        readers = Counter(name for node in self._nodes for name in node.input)
        readers.update(outputs)
        return quantized_names == {node.input[0] for node in pairs} and all(
            readers[node.input[0]] == readers[node.output[0]] == 1 for node in pairs
        )

    def file(self, opset: int, producer: str, half: bool) -> bytes:
        """The model, checked and packed; `half`: computed in float16. Weights are copied once."""
        # The IR version of the opset: older runtimes reject newer ones.
        model = onnx.ModelProto(ir_version=8, producer_name=producer)
        model.opset_import.append(helper.make_opsetid("", opset))
        model.graph.name = "mobiledeploy"
        model.graph.node.extend(self._nodes)
        model.graph.input.extend(self._value_info(i, order) for i, order in self._inputs.items())
        for index, name in self._outputs.items():
            model.graph.output.append(self._value_info(index, self._default_order(index)))
            model.graph.output[-1].name = name
        read_names = {name for node in self._nodes for name in node.input}
        constants = sorted(self._constants.keys() & read_names)
        arrays = {name: self._constants[name] for name in constants}
        if half:
            arrays = _onnx_half.halve(model, arrays)
        _check(model, arrays)
        return _pack(model, arrays)

    # What tensors are.

    def _unique_names(self) -> dict[int, str]:
        """Names of tensors after their layers; TFLite joins the names of fused layers.

        Inputs and outputs come first, then outputs of operators, since biases have such names too.
        """
        outputs = [int(i) for op in self.graph.ops for i in op.outputs]
        ends = dict.fromkeys((*self.graph.inputs, *self.graph.outputs))
        rest = dict.fromkeys((*outputs, *range(len(self.graph.subgraph.tensors))))
        unique = _Names()
        names = {index: unique.free(self._layer(index)) for index in ends}
        unique.used.update(_RESERVED)
        return names | {i: unique.free(self._layer(i)) for i in rest if i not in ends}

    def _layer(self, index: int) -> str:
        return self.graph.name(index).partition(";")[0] or "tensor"

    def name(self, index: int) -> str:
        """The tensor's name, which is the prefix of all names of its operator."""
        return self._names[index]

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape in TFLite's order."""
        return self.graph.shape(index)

    def _default_order(self, index: int) -> Order:
        return default_order(len(self.shape(index)))

    def shape_in(self, index: int, order: Order) -> tuple[int, ...]:
        """The shape of the tensor in `order`."""
        shape = self.shape(index)
        return tuple(shape[axis] for axis in order)

    def is_coded(self, index: int) -> bool:
        """Whether the tensor holds codes instead of real values."""
        scale, _ = self.graph.scale(index)
        return bool(scale.size) and self.graph.type_name(index) in ("int8", "uint8", "int16")

    def array(self, index: int) -> Array | None:
        """A constant's values, None for a computed tensor."""
        if index in self._set_constants:
            return self._set_constants[index]
        return self.graph.constant(index)

    def set_constant(self, index: int, values: Array) -> None:
        """Declares an operator's output a constant."""
        self._set_constants[index] = values

    def settings(self, index: int, what: str) -> Array:
        """A constant parameter of an operator, such as axes; InputError if it is computed."""
        values = self.array(index)
        if values is None:
            raise InputError(f"{what} that is computed has no form in ONNX here")
        return values

    def order(self, index: int) -> Order:
        """An order in which a computed tensor is available, preferably the default one."""
        if self.array(index) is not None:
            return self._default_order(index)
        orders = self._orders(index)
        return (
            self._default_order(index)
            if self._default_order(index) in orders
            else next(iter(orders))
        )

    # Names of numbers.

    def label(self, index: int, order: Order) -> str:
        """The name for the tensor's values in `order`."""
        name = self._names[index]
        if order != self._default_order(index):
            kind = "nhwc" if order == (0, 1, 2, 3) else _digits(order)
            name = f"{name}/{kind}"
        return f"{name}/codes" if self.is_coded(index) else name

    def set_name(self, index: int, order: Order, name: str) -> None:
        """Records the name of a tensor's values in an order."""
        self._values.setdefault(index, {}).setdefault(order, name)

    def alias(self, source: int, target: int, permutation: Sequence[int]) -> None:
        """Declares `target` as `source` with its axes permuted, for all orders of `source`."""
        self.same_grid(source, target)
        for order, name in self._orders(source).items():
            self.set_name(target, tuple(permutation.index(axis) for axis in order), name)

    def value(self, index: int, order: Order) -> str:
        """The name of a tensor's values, or codes, in `order`; adds nodes if needed."""
        array = self.array(index)
        if array is not None:
            name = f"{self._names[index]}/{_digits(order)}"
            return self.constant(name, self._codes(index, array).transpose(order))
        names, label = self._orders(index), self.label(index, order)
        if order not in names:
            source = self.order(index)
            shape = self.shape(index)
            before, after = ([axis for axis in o if shape[axis] > 1] for o in (source, order))
            if before == after:
                sides = self.integers(f"{label}/shape", self.shape_in(index, order))
                names[order] = self.rearrange(index, "Reshape", [names[source], sides], label)
            else:
                perm = [source.index(axis) for axis in order]
                names[order] = self.node("Transpose", [names[source]], label, perm=perm)
        return names[order]

    def read(self, index: int, order: Order) -> str:
        """The name of a tensor's real values in `order`; codes are dequantized."""
        if not self.is_coded(index):
            return self.value(index, order)
        key = (index, order)
        if key not in self._floats:
            output = f"{self.label(index, order).removesuffix('/codes')}/float"
            inputs = [self.value(index, order), *self.grid(index)]
            self._floats[key] = self.node("DequantizeLinear", inputs, output)
        return self._floats[key]

    def operand(self, index: int, order: Order) -> str:
        """As `read`, for a tensor that is broadcast over one in `order`."""
        shape = self.shape(index)
        missing_axes = len(order) - len(shape)
        array, key = self.array(index), (index, order)
        if array is None and not missing_axes:
            return self.read(index, order)
        if key in self._operands:
            return self._operands[key]
        if array is not None:
            name = f"{self._names[index]}/over_{_digits(order)}"
            is_scalar = array.size == 1
            wide = array.reshape(() if is_scalar else (1,) * missing_axes + shape)
            value = self.constant(
                name, self._codes(index, wide.transpose(() if is_scalar else order))
            )
        else:
            own = tuple(axis - missing_axes for axis in order if axis >= missing_axes)
            name = f"{self.label(index, own).removesuffix('/codes')}/over_{_digits(order)}"
            sides = [1 if axis < missing_axes else shape[axis - missing_axes] for axis in order]
            inputs = [self.value(index, own), self.integers(f"{name}/shape", sides)]
            value = self.rearrange(index, "Reshape", inputs, name)
        if self.is_coded(index):
            value = self.node("DequantizeLinear", [value, *self.grid(index)], f"{name}/float")
        self._operands[key] = value
        return value

    def _codes(self, index: int, values: Array) -> Array:
        """A constant's codes in the type of activations; real values are not changed."""
        if self.is_coded(index) and self.graph.type_name(index) == "int8":
            return (values.astype(np.int16) + self.shift).astype(self.code_type)
        return values

    def _orders(self, index: int) -> dict[Order, str]:
        if index not in self._values and index in self._pads:
            self._materialize(index)
        if index not in self._values:
            raise InputError(f"the tensor {self._names[index]} of the TFLite file is never made")
        return self._values[index]

    # Constants and nodes.

    def constant(self, name: str, value: Array, kind: str = "") -> str:
        """The name of a constant; the same name and kind give the same constant."""
        key = (kind, name)
        if key not in self._constant_names:
            self._constant_names[key] = self._tensors.free(name)
            self._constants[self._constant_names[key]] = np.asarray(value)
        return self._constant_names[key]

    def integers(self, name: str, values: Iterable[int]) -> str:
        """A constant of integers, such as a shape or indices."""
        return self.constant(name, np.asarray(tuple(values), np.int64))

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds a node and returns the name of its output; it is another one if `output` is used."""
        return self.nodes(op, inputs, [output], **attributes)[0]

    def nodes(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """As `node`, with several outputs."""
        names = [self._tensors.free(output) for output in outputs]
        self._nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    # Results of operators.

    def result(
        self,
        index: int,
        order: Order,
        op: str,
        inputs: Sequence[str],
        activation: str = "NONE",
        **attributes: Any,
    ) -> None:
        """Adds the node that computes the tensor, with its fused activation and quantization."""
        plain = not self.is_coded(index) and activation == "NONE"
        label = self.label(index, order)
        name = label if plain else f"{label.removesuffix('/codes')}/{op.lower()}"
        value = self.node(op, inputs, name, **attributes)
        self.set_name(index, order, value if plain else self.store(index, value, activation, label))

    def store(self, index: int, value: str, activation: str, label: str) -> str:
        """Stores floats as `label`: after the fused activation, and quantized if the tensor is."""
        if not self.is_coded(index):
            if activation == "NONE":
                return self.node("Identity", [value], label)
            return self.activate(value, activation, label)
        grid = self.grid(index)
        bounds = self._bounds(index, activation)
        if not bounds:
            return self.node("QuantizeLinear", [value, *grid], label)
        # A separate clip of the codes, so that the operator before it is fused.
        codes = self.node("QuantizeLinear", [value, *grid], f"{label}/uncut")
        return self.node("Clip", [codes, *bounds], label)

    def activate(self, value: str, activation: str, label: str) -> str:
        """Applies an activation, given by TFLite's name, to floats."""
        if activation in _CLIP:
            ends = [
                self.constant(f"clip/{n:g}", np.asarray(n, np.float32)) for n in _CLIP[activation]
            ]
            return self.node("Clip", [value, *ends], label)
        if activation not in _NATURAL:
            raise InputError(f"the fused activation {activation} has no form in ONNX")
        return self.node(_NATURAL[activation], [value], label)

    def _bounds(self, index: int, activation: str) -> list[str]:
        """The lowest and highest code after a fused activation; empty if it changes none."""
        if activation == "NONE":
            return []
        if activation != "RELU" and activation not in _CLIP:
            raise InputError(f"the fused activation {activation} has no QDQ form in ONNX")
        scale, zero = self.graph.scale(index)
        floor, ceiling = _CLIP.get(activation, (0.0, np.inf))
        limits = self.limits if self.graph.type_name(index) == "int8" else np.iinfo(np.uint8)
        middle = zero + (self.shift if self.graph.type_name(index) == "int8" else 0)
        low, high = int(limits.min), int(limits.max)
        if np.isfinite(ceiling):
            high = min(high, middle + round(ceiling / float(scale[0])))
        low = max(low, middle + round(floor / float(scale[0])))
        if (low, high) == (limits.min, limits.max):
            return []
        return [
            self.constant(f"{self._names[index]}/{end}", np.asarray(code, limits.dtype))
            for end, code in (("lowest", low), ("highest", high))
        ]

    def rearrange(
        self, index: int, op: str, inputs: Sequence[str], output: str, **attributes: Any
    ) -> str:
        """A node that moves a tensor's values; for codes between casts, which runtimes remove."""
        if not self.is_coded(index):
            return self.node(op, inputs, output, **attributes)
        codes, *others = inputs
        value = self.node("DequantizeLinear", [codes, *self.grid(index)], f"{output}/before")
        value = self.node(op, [value, *others], f"{output}/after", **attributes)
        return self.node("QuantizeLinear", [value, *self.grid(index)], output)

    def move(
        self,
        source: int,
        target: int,
        order: Order,
        op: str,
        inputs: Sequence[str],
        **attributes: Any,
    ) -> None:
        """A node that only moves values, or codes unchanged, from one tensor to another."""
        self.same_grid(source, target)
        self.set_name(target, order, self.node(op, inputs, self.label(target, order), **attributes))

    def same_grid(self, source: int, target: int) -> None:
        """InputError if moved codes would have other real values, since the scales differ."""
        (source_scales, zero), (target_scales, target_zero) = (
            self.graph.scale(source),
            self.graph.scale(target),
        )
        if self.is_coded(source) and (
            not np.array_equal(source_scales, target_scales) or zero != target_zero
        ):
            raise InputError(
                f"{self._names[target]} of the TFLite file has other scales than its source"
            )

    # Integers.

    def grid(self, index: int, kind: str = "activation") -> tuple[str, str]:
        """Names of a tensor's scale and zero point.

        The zero point is shifted for int8 activations.
        """
        return self._grid(index, f"{self._names[index]}/{kind}", kind == "activation", 1)

    def _grid(self, index: int, name: str, within: bool, times: int) -> tuple[str, str]:
        (scale, zero), type_name = self.graph.scale(index), self.graph.type_name(index)
        if type_name == "int16":
            raise InputError("codes of 16 bits have no form in ONNX here", "--format tflite works")
        dtype: Any = "int8" if type_name == "int4" else type_name
        if within and type_name == "int8":
            dtype, zero = self.code_type, zero + self.shift
        shape = () if scale.size == 1 else (scale.size * times,)
        scales = np.resize(scale.astype(np.float32), shape)
        zeros = np.full(shape, zero, dtype)
        return self.constant(f"{name}_scale", scales), self.constant(f"{name}_zero", zeros)

    def weights(
        self, index: int, array: Array, axis: int = 0, kind: str = "weights", times: int = 1
    ) -> str:
        """Weights, or a bias, in ONNX's order; scales belong to `axis` of it.

        `times` says how often each filter is repeated. Floats that several layers read in the same
        order are written once. Integers are written for each layer: ONNX Runtime 1.31 rewrites them
        for x86-64, and rejects a file in which two layers share them.
        """
        scale, _ = self.graph.scale(index)
        key = (index, f"{array.shape}:{array.strides}")
        if key in self._parameters and not scale.size:
            return self._parameters[key]
        self._copies[index] += 1
        number = self._copies[index]
        name = self._names[index] if number == 1 else f"{self._names[index]}/{number}"
        constant = self._parameters[key] = self.constant(name, array, kind)
        if not scale.size:
            return constant
        inputs = [constant, *self._grid(index, f"{name}/{kind}", False, times)]
        along = {"axis": axis} if scale.size > 1 else {}
        return self.node("DequantizeLinear", inputs, f"{name}/float", **along)

    def bias(self, index: int, times: int = 1) -> str:
        """A bias, repeated `times` times."""
        array = self.array(index)
        if array is None:
            return self.read(index, (0,))
        return self.weights(index, np.tile(array, times) if times > 1 else array, 0, "bias", times)

    # Zeros around images.

    def pad_later(self, source: int, target: int, widths: Array) -> None:
        """Records zeros around an image, [4, 2]; convolutions add them to their own padding."""
        self.same_grid(source, target)
        self._pads[target] = (source, widths)

    def without_pads(self, index: int) -> tuple[int, NDArray[np.int64]]:
        """The tensor that a convolution reads instead, and the zeros around it, [rows, ends]."""
        around = np.zeros((2, 2), np.int64)
        while index in self._pads and index not in self._values:
            index, widths = self._pads[index]
            around = around + widths[1:3]
        return index, around

    def never_negative(self, index: int) -> bool:
        """Whether a ReLU computes the tensor."""
        maker = self._makers.get(index)
        if maker is None:
            return False
        return {self.graph.kind(maker), self.graph.activation(maker)} & _FROM_ZERO != set()

    def _materialize(self, index: int) -> None:
        source, widths = self._pads[index]
        has_max_pool = any(
            self.graph.kind(op) == "MAX_POOL_2D" for op in self.readers.get(index, ())
        )
        # ONNX Runtime 1.31 merges a Pad of zeros into a MaxPool, which pads with other values.
        self.pad(source, index, widths, _NEARLY_ZERO if has_max_pool else 0.0)

    def pad(self, source: int, target: int, widths: Array, filling: float) -> None:
        """A node that pads a tensor with the real number `filling`; widths are [rank, 2]."""
        order = self.order(source)
        label = self.label(target, order)
        pads = self.integers(f"{label}/pads", widths[list(order)].T.ravel().tolist())
        if self.is_coded(source):
            scale, zero = self.graph.scale(source)
            signed = self.graph.type_name(source) == "int8"
            code = round(filling / float(scale[0])) + zero + self.shift * signed
            number = np.asarray(code, self.code_type if signed else np.uint8)
        else:
            number = np.asarray(filling, self.graph.dtype(source))
        inputs = [self.value(source, order), pads, self.constant(f"{label}/filling", number)]
        self.move(source, target, order, "Pad", inputs)

    # Ends.

    def _end_order(self, index: int) -> Order:
        """The order of an input: images are NCHW, also if TFLite's input is."""
        readers = self.readers.get(index, ())
        if len(self.shape(index)) == 4 and readers:
            transposes = [
                op
                for op in readers
                if self.graph.kind(op) == "TRANSPOSE"
                and (perm := self.graph.constant(op.inputs[1])) is not None
                and tuple(perm.ravel().tolist()) == TO_NHWC
            ]
            if len(transposes) == len(readers):
                return (0, 1, 2, 3)
        return self._default_order(index)

    def _enter(self, index: int, order: Order) -> str:
        """The name of an input's values inside the graph."""
        name = self._names[index]
        if not (self.is_coded(index) and self.graph.type_name(index) == "int8"):
            return name
        return self._exchange(index, order, (name, "end"), (f"{name}/codes", "activation"))

    def _exchange(
        self, index: int, order: Order, source: tuple[str, str], target: tuple[str, str]
    ) -> str:
        """Converts the codes of an input or output to the inner codes or back.

        `source` and `target` are (name, kind). If both are signed, x86-64 makes this pair of nodes
        unsigned. ONNX Runtime removes two nodes that cancel before that. Around an idle Reshape it
        removes them only afterwards, and only if codes stay signed.
        """
        name = self._names[index]
        inputs = [source[0], *self.grid(index, source[1])]
        value = self.node("DequantizeLinear", inputs, f"{name}/outer")
        if not self.shift:
            same = self.integers(f"{name}/sides", self.shape_in(index, order))
            value = self.node("Reshape", [value, same], f"{name}/same")
        return self.node("QuantizeLinear", [value, *self.grid(index, target[1])], target[0])

    def _close(self, index: int) -> str:
        """The name of the graph's output, in its default order, with signed codes again."""
        name, order = self._names[index], self._default_order(index)
        value = self.value(index, order)
        if self.is_coded(index) and self.graph.type_name(index) == "int8":
            return self._exchange(index, order, (value, "activation"), (name, "end"))
        return value if value == name else self.node("Identity", [value], name)

    def onnx_type(self, index: int) -> int:
        """ONNX's number for the type of a tensor; InputError if ONNX has none."""
        kind = _TYPES.get(self.graph.type_name(index))
        if kind is None:
            raise InputError(
                f"{self._names[index]} is of type {self.graph.type_name(index)}: no form in ONNX"
            )
        return kind

    def _value_info(self, index: int, order: Order) -> onnx.ValueInfoProto:
        kind = self.onnx_type(index)
        return helper.make_tensor_value_info(self._names[index], kind, self.shape_in(index, order))
