"""int8 TFLite -> ONNX in QDQ form, with the same weights, scales and codes.

Each operator stands between DequantizeLinear and QuantizeLinear nodes, which ONNX Runtime fuses
into its integer kernels. Pictures are NCHW, as its convolutions want them.

Codes of activations are signed as TFLite's where the graph allows it: ARM's dot products take them
as they are. x86-64 wants them unsigned, and ONNX Runtime 1.31 makes them so there, but only between
a QuantizeLinear and the one DequantizeLinear that reads it; what reads signed codes otherwise it
computes in float. A graph with other readers (a residual sum's, a clip's) is therefore written with
unsigned codes, each 128 above TFLite's. The ends keep TFLite's signed codes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tensorflow.lite.python import schema_py_generated as schema

from mobiledeploy.core.errors import InputError

_OPS = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
_TYPES = {
    schema.TensorType.INT8: (np.dtype(np.int8), TensorProto.INT8),
    schema.TensorType.INT32: (np.dtype(np.int32), TensorProto.INT32),
    schema.TensorType.FLOAT32: (np.dtype(np.float32), TensorProto.FLOAT),
}
_NONE, _RELU, _RELU6 = (
    schema.ActivationFunctionType.NONE,
    schema.ActivationFunctionType.RELU,
    schema.ActivationFunctionType.RELU6,
)
_LOWEST, _HIGHEST = -128, 127
_STORED: dict[str, Any] = {"end": np.int8, "weights": np.int8, "bias": np.int32}
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
# A picture has few channels, and ONNX Runtime gathers what a window over it covers row by row, a
# call for each few bytes. Two windows at once take half the calls, and more multiplications, which
# is less where filters are few (docs/arm.md).
_PICTURE_CHANNELS, _FEW_FILTERS = 4, 16


def from_tflite(data: bytes, opset: int) -> onnx.ModelProto:
    """The ONNX model of a full-integer TFLite file.

    InputError for an operator that has no QDQ form here, and for one that computes in float.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    signed = _Writer(model, np.int8).write(opset)
    return signed if _paired(signed.graph) else _Writer(model, np.uint8).write(opset)


def _paired(graph: onnx.GraphProto) -> bool:
    """Whether all codes go from a QuantizeLinear over a DequantizeLinear to one operator.

    Those of the ends have one of the two only.
    """
    ends = {value.name for value in (*graph.input, *graph.output)}
    constants = {tensor.name for tensor in graph.initializer}
    made = {n.output[0] for n in graph.node if n.op_type == "QuantizeLinear"} - ends
    pairs = [
        node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in ends | constants
    ]
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    return made == {node.input[0] for node in pairs} and all(
        readers[node.input[0]] == readers[node.output[0]] == 1 for node in pairs
    )


class _Writer:
    """The one graph of a TFLite model, written operator by operator.

    `stored` is the type of activations' codes, and `shift` what it adds to TFLite's.
    """

    def __init__(self, model: Any, stored: type[np.integer[Any]]) -> None:
        self.stored: Any = stored
        self.limits = np.iinfo(stored)
        self.shift = int(self.limits.min) - _LOWEST
        self._model = model
        self._graph = model.subgraphs[0]
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._taken: set[str] = set()
        self._read: set[str] = set()
        made = {int(i) for op in self._graph.operators for i in op.outputs}
        # What operators make has the first choice: biases are called after it too.
        order = sorted(range(len(self._graph.tensors)), key=lambda index: index not in made)
        self._names = {index: self._named(index) for index in order}

    def write(self, opset: int) -> onnx.ModelProto:
        inputs, outputs = list(self._graph.inputs), list(self._graph.outputs)
        for op in self._graph.operators:
            code = self._model.operatorCodes[op.opcodeIndex]
            name = _OPS[max(code.builtinCode, code.deprecatedBuiltinCode)]
            write = _WRITERS.get(name)
            if write is None:
                raise InputError(f"{name} has no QDQ form in ONNX", "--format tflite works")
            read = [int(i) for i in op.inputs if i >= 0]
            write(self, read, [int(i) for i in op.outputs], op.builtinOptions)
        for index in outputs:
            self._close(index)
        for node in self._nodes:
            node.name = node.output[0]
        graph = helper.make_graph(
            self._nodes,
            "mobiledeploy",
            [self._value(i) for i in inputs],
            [self._value(i) for i in outputs],
            list(self._constants.values()),
        )
        # The IR version that belongs to the opset: newer ones are refused by older runtimes.
        imports = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    # Tensors.

    def _named(self, index: int) -> str:
        """After the layer that makes it; TFLite joins the names of all that it has fused."""
        name = self._graph.tensors[index].name.decode("utf-8", "replace").partition(";")[0]
        free, number = name or "tensor", 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def shape(self, index: int) -> tuple[int, ...]:
        shape = self._graph.tensors[index].shape
        return () if shape is None else tuple(int(n) for n in shape)

    def array(self, index: int) -> NDArray[Any] | None:
        """A constant's values, None for what is computed."""
        tensor = self._graph.tensors[index]
        data = self._model.buffers[tensor.buffer].data
        if data is None or not len(data):
            return None
        dtype: Any = _TYPES[tensor.type][0]
        values: NDArray[Any] = np.asarray(data, np.uint8).view(dtype).reshape(self.shape(index))
        return values

    def scale(self, index: int) -> NDArray[np.float32]:
        return np.asarray(self._graph.tensors[index].quantization.scale, np.float32)

    def zero(self, index: int) -> NDArray[np.int64]:
        return np.asarray(self._graph.tensors[index].quantization.zeroPoint, np.int64)

    def _value(self, index: int) -> onnx.ValueInfoProto:
        shape = self.shape(index)
        if len(shape) == 4:
            shape = tuple(shape[axis] for axis in _TO_NCHW)
        _, kind = _TYPES[self._graph.tensors[index].type]
        return helper.make_tensor_value_info(self._names[index], kind, shape)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(value, order="C"), name)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    # Between integers and floats.

    def _grid(self, index: int, kind: str = "activation", times: int = 1) -> tuple[str, str]:
        """Names of a tensor's scale and zero point, the latter moved for activations within."""
        scale, zero, name = self.scale(index), self.zero(index), f"{self._names[index]}/{kind}"
        moved = zero + self.shift if kind == "activation" else zero
        stored: NDArray[Any] = moved.astype(_STORED.get(kind, self.stored))
        if len(scale) == 1:
            scale, stored = scale.reshape(()), stored.reshape(())
        else:
            scale, stored = np.tile(scale, times), np.tile(stored, times)
        return self.constant(f"{name}_scale", scale), self.constant(f"{name}_zero", stored)

    def floats(self, index: int) -> bool:
        """Whether a tensor is one of floats, as those of a layer that was kept so."""
        return bool(self._graph.tensors[index].type == schema.TensorType.FLOAT32)

    def codes(self, index: int) -> str:
        """The tensor of an activation's codes, or of a constant that is read like one.

        Of a layer that stays float: its values.
        """
        if self.floats(index):
            return self._names[index]
        name, inner = self._names[index], f"{self._names[index]}/codes"
        array = self.array(index)
        if array is not None:
            if array.ndim == 4:
                array = array.transpose(_TO_NCHW)
            return self.constant(inner, (array.astype(np.int16) + self.shift).astype(self.stored))
        if index in self._graph.inputs and inner not in self._read:
            self._read.add(inner)
            self._exchange(index, (name, "end"), (inner, "activation"))
        return inner

    def moved(self, index: int) -> str:
        """What the tensor is called as which an operator puts `codes` that it only moves."""
        return self._names[index] if self.floats(index) else f"{self._names[index]}/codes"

    def read(self, index: int) -> str:
        """A tensor as the floats that its integers stand for."""
        if self.floats(index):
            return self._names[index]
        output = f"{self._names[index]}/float"
        if output not in self._read:
            self._read.add(output)
            self.node("DequantizeLinear", [self.codes(index), *self._grid(index)], output)
        return output

    def reshaped(self, codes: str, index: int, shape: str, output: str) -> str:
        """Codes of a tensor's grid in another shape."""
        return self._rearranged("Reshape", [codes, shape], index, output)

    def transposed(self, codes: str, index: int, order: Sequence[int], output: str) -> str:
        """Codes of a tensor's grid in another order."""
        return self._rearranged("Transpose", [codes], index, output, perm=order)

    def _rearranged(
        self, op: str, inputs: Sequence[str], index: int, output: str, **attributes: Any
    ) -> str:
        """What moves codes, on their floats; runtimes leave the nodes around it out."""
        if self.floats(index):
            return self.node(op, inputs, output, **attributes)
        codes, *others = inputs
        value = self.node("DequantizeLinear", [codes, *self._grid(index)], f"{output}/before")
        value = self.node(op, [value, *others], f"{output}/after", **attributes)
        return self.node("QuantizeLinear", [value, *self._grid(index)], output)

    def store(self, index: int, value: str, activation: int = _NONE, part: str = "codes") -> str:
        """Floats on the tensor's grid, cut by a fused activation that the grid is no bound to."""
        if self.floats(index):
            return self._activated(index, value, activation, part)
        name, grid = f"{self._names[index]}/{part}", self._grid(index)
        bounds = self._bounds(index, activation)
        if not bounds:
            return self.node("QuantizeLinear", [value, *grid], name)
        # On codes, and on its own, so that what is before it is fused.
        codes = self.node("QuantizeLinear", [value, *grid], f"{name}/uncut")
        return self.node("Clip", [codes, *bounds], name)

    def _activated(self, index: int, value: str, activation: int, part: str) -> str:
        """Floats as they are, through a fused activation."""
        name = self._names[index] if part == "codes" else f"{self._names[index]}/{part}"
        if activation == _RELU6:
            ends = [self.constant(f"relu6/{n}", np.asarray(n, np.float32)) for n in (0, 6)]
            return self.node("Clip", [value, *ends], name)
        if activation not in (_NONE, _RELU):
            raise InputError("a fused activation other than ReLU and ReLU6 has no form here")
        return self.node("Relu" if activation == _RELU else "Identity", [value], name)

    def _bounds(self, index: int, activation: int) -> list[str]:
        """The lowest and highest code that a fused activation leaves; none where all are left."""
        if activation == _NONE:
            return []
        if activation not in (_RELU, _RELU6):
            raise InputError("a fused activation other than ReLU and ReLU6 has no QDQ form here")
        low, high = int(self.zero(index)[0]) + self.shift, int(self.limits.max)
        if activation == _RELU6:
            high = min(high, low + round(6 / float(self.scale(index)[0])))
        if (low, high) == (self.limits.min, self.limits.max):
            return []
        return [
            self.constant(f"{self._names[index]}/{end}", np.asarray(code, self.stored))
            for end, code in (("lowest", low), ("highest", high))
        ]

    def weights(self, index: int, array: NDArray[Any], times: int = 1) -> str:
        """Weights in ONNX's order, output channels first, each filter in them so many times."""
        return self._parameters(index, array, "weights", times)

    def bias(self, index: int, times: int = 1) -> str:
        array = self.array(index)
        assert array is not None
        return self._parameters(index, np.tile(array, times), "bias", times)

    def _parameters(self, index: int, array: NDArray[Any], kind: str, times: int) -> str:
        name = self.constant(self._names[index], array)
        if self.floats(index):
            return name
        axis = {"axis": 0} if len(self.scale(index)) > 1 else {}
        grid = self._grid(index, kind, times)
        return self.node("DequantizeLinear", [name, *grid], f"{name}/float", **axis)

    def pads(self, image: int, window: Sequence[int], strides: Sequence[int], padding: int,
             dilations: Sequence[int] = (1, 1)) -> list[int]:  # fmt: skip
        """TFLite's SAME or VALID as numbers: top, left, bottom, right."""
        if padding == schema.Padding.VALID:
            return [0, 0, 0, 0]
        before, after = [], []
        sides = self.shape(image)[1:3]
        for side, size, stride, dilation in zip(sides, window, strides, dilations, strict=True):
            missing = (-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side
            before.append(max(missing, 0) // 2)
            after.append(max(missing, 0) - before[-1])
        return [*before, *after]

    def axes(self, index: int, values: Sequence[int]) -> list[int]:
        """Axes of an NHWC tensor as those of the NCHW one."""
        rank = len(self.shape(index))
        positive = [int(v) % rank for v in values]
        return [_TO_NCHW.index(v) for v in positive] if rank == 4 else positive

    def _exchange(self, index: int, source: tuple[str, str], target: tuple[str, str]) -> None:
        """From the codes of an end to those within, or the other way: (name, kind) of both.

        Where both are signed, it is the pair of an end that x86-64 makes unsigned. Two nodes that
        undo one another are taken out before that; around an idle Reshape they are taken out only
        after it, and only where codes stay signed.
        """
        name = self._names[index]
        value = self.node("DequantizeLinear", [source[0], *self._grid(index, source[1])],
                          f"{name}/outer")  # fmt: skip
        if not self.shift:
            shape = self.shape(index)
            sides = [shape[axis] for axis in _TO_NCHW] if len(shape) == 4 else shape
            same = self.constant(f"{name}/sides", np.asarray(sides, np.int64))
            value = self.node("Reshape", [value, same], f"{name}/same")
        self.node("QuantizeLinear", [value, *self._grid(index, target[1])], target[0])

    def _close(self, index: int) -> None:
        """The graph's output on signed codes again."""
        if self._graph.tensors[index].type == schema.TensorType.INT8:
            name = self._names[index]
            self._exchange(index, (f"{name}/codes", "activation"), (name, "end"))


# Operators, as TFLite names them.


def _convolution(w: _Writer, i: list[int], o: list[int], opt: Any, depthwise: bool) -> None:
    weights = w.array(i[1])
    if weights is None:
        raise InputError("a convolution with computed weights has no QDQ form in ONNX")
    channels = w.shape(i[0])[3]
    weights = weights.transpose((3, 0, 1, 2) if depthwise else _TO_NCHW)
    window, strides = weights.shape[2:], (opt.strideH, opt.strideW)
    dilations = (opt.dilationHFactor, opt.dilationWFactor)
    pads = w.pads(i[0], window, strides, opt.padding, dilations)
    if (
        weights.shape[0] <= _FEW_FILTERS and weights.shape[1] == channels <= _PICTURE_CHANNELS
        and w.shape(o[0])[2] % 2 == 0 and max(dilations) == 1 < max(window)
        and not w.floats(i[0]) and not w.floats(o[0])
    ):  # fmt: skip
        _two_columns(w, i, o, weights, strides, pads, opt.fusedActivationFunction)
        return
    inputs = [w.read(i[0]), w.weights(i[1], weights), *(w.bias(b) for b in i[2:3])]
    value = w.node(
        "Conv", inputs, f"{w._names[o[0]]}/sum", kernel_shape=list(window), strides=list(strides),
        pads=pads, dilations=list(dilations), group=channels // weights.shape[1],
    )  # fmt: skip
    w.store(o[0], value, opt.fusedActivationFunction)


def _two_columns(
    w: _Writer, i: list[int], o: list[int], weights: NDArray[Any], strides: tuple[int, int],
    pads: Sequence[int], activation: int,
) -> None:  # fmt: skip
    """A convolution over a picture, two columns of its output at once.

    A row of the picture, its channels beside each other, is one of a single channel; a window of
    it that is wide enough for two holds each filter twice, the second moved on by a stride.
    """
    name = w._names[o[0]]
    (_, height, width, channels), (_, rows, columns, filters) = w.shape(i[0]), w.shape(o[0])
    tall, wide, stride = weights.shape[2], weights.shape[3] * channels, strides[1] * channels
    row = weights.transpose(0, 2, 3, 1).reshape(filters, 1, tall, wide)
    room = ((0, 0), (0, 0), (0, 0))
    both = [np.pad(row, (*room, ends)) for ends in ((0, stride), (stride, 0))]
    sides = w.constant(f"{name}/rows", np.asarray((1, 1, height, width * channels), np.int64))
    image = w.transposed(w.codes(i[0]), i[0], _TO_NHWC, f"{name}/nhwc")
    image = w.reshaped(image, i[0], sides, f"{name}/picture")
    image = w.node("DequantizeLinear", [image, *w._grid(i[0])], f"{name}/picture_float")
    inputs = [image, w.weights(i[1], np.concatenate(both), 2), *(w.bias(b, 2) for b in i[2:3])]
    top, left, bottom, right = pads
    value = w.node(
        "Conv", inputs, f"{name}/sum", kernel_shape=[tall, wide + stride],
        strides=[strides[0], 2 * stride], pads=[top, left * channels, bottom, right * channels],
    )  # fmt: skip
    codes = w.store(o[0], value, activation, "pairs")
    codes = w.transposed(codes, o[0], _TO_NHWC, f"{name}/pairs_nhwc")
    sides = w.constant(f"{name}/sides", np.asarray((1, rows, columns, filters), np.int64))
    codes = w.reshaped(codes, o[0], sides, f"{name}/columns")
    w.transposed(codes, o[0], _TO_NCHW, w.moved(o[0]))


def _fully_connected(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    weights, before, after = w.array(i[1]), w.shape(i[0]), w.shape(o[0])
    if weights is None or any(n != 1 for n in (*before[:-1], *after[:-1])):
        raise InputError("a fully connected layer over more than a row has no QDQ form here")
    name, image = w._names[o[0]], w.read(i[0])
    if len(before) != 2:
        row = w.constant(f"{name}/row", np.asarray((1, before[-1]), np.int64))
        image = w.reshaped(w.codes(i[0]), i[0], row, f"{name}/read")
        if not w.floats(i[0]):
            image = w.node("DequantizeLinear", [image, *w._grid(i[0])], f"{name}/read_float")
    inputs = [image, w.weights(i[1], weights), *(w.bias(b) for b in i[2:3])]
    value = w.node("Gemm", inputs, f"{name}/sum", transB=1)
    if len(after) == 2:
        w.store(o[0], value, opt.fusedActivationFunction)
        return
    shape = tuple(after[axis] for axis in _TO_NCHW) if len(after) == 4 else after
    row = w.store(o[0], value, opt.fusedActivationFunction, "row_codes")
    target = w.constant(f"{name}/shape", np.asarray(shape, np.int64))
    w.reshaped(row, o[0], target, w.moved(o[0]))


def _of_two(op: str) -> Callable[..., None]:
    def write(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
        value = w.node(op, [w.read(i[0]), w.read(i[1])], f"{w._names[o[0]]}/{op.lower()}")
        w.store(o[0], value, opt.fusedActivationFunction)

    return write


def _of_one(op: str, **attributes: Any) -> Callable[..., None]:
    def write(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
        value = w.node(op, [w.read(i[0])], f"{w._names[o[0]]}/{op.lower()}", **attributes)
        w.store(o[0], value)

    return write


def _pool(op: str) -> Callable[..., None]:
    def write(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
        window, strides = (opt.filterHeight, opt.filterWidth), (opt.strideH, opt.strideW)
        value = w.node(
            op, [w.read(i[0])], f"{w._names[o[0]]}/pool", kernel_shape=list(window),
            strides=list(strides), pads=w.pads(i[0], window, strides, opt.padding),
        )  # fmt: skip
        w.store(o[0], value, opt.fusedActivationFunction)

    return write


def _mean(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    axes = w.array(i[1])
    if axes is None or sorted(w.axes(i[0], axes.ravel().tolist())) != [2, 3]:
        raise InputError("a mean over other axes than height and width has no QDQ form here")
    name = w._names[o[0]]
    value = w.node("GlobalAveragePool", [w.read(i[0])], f"{name}/mean")
    if opt.keepDims:
        w.store(o[0], value)
        return
    pooled = w.store(o[0], value, part="pooled")
    shape = w.constant(f"{name}/shape", np.asarray(w.shape(o[0]), np.int64))
    w.reshaped(pooled, o[0], shape, w.moved(o[0]))


def _reshape(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    """Moves codes; the scale stays."""
    codes, before, after = w.codes(i[0]), w.shape(i[0]), w.shape(o[0])
    name = w._names[o[0]]
    if len(before) == 4 and before[3] > 1 and before[1] * before[2] > 1:
        codes = w.node("Transpose", [codes], f"{name}/nhwc", perm=_TO_NHWC)
    back = len(after) == 4 and after[3] > 1 and after[1] * after[2] > 1
    if len(after) == 4 and not back:
        after = tuple(after[axis] for axis in _TO_NCHW)
    shape = w.constant(f"{name}/shape", np.asarray(after, np.int64))
    codes = w.reshaped(codes, o[0], shape, f"{name}/reshaped" if back else w.moved(o[0]))
    if back:
        w.node("Transpose", [codes], w.moved(o[0]), perm=_TO_NCHW)


def _transpose(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    perm = w.array(i[1])
    assert perm is not None
    order = [int(axis) for axis in perm.ravel()]
    if len(order) == 4:
        # What is NHWC there is NCHW here, before and after.
        order = [_TO_NCHW.index(order[axis]) for axis in _TO_NCHW]
    w.node("Transpose", [w.codes(i[0])], w.moved(o[0]), perm=order)


def _concatenation(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    (axis,) = w.axes(o[0], [opt.axis])
    value = w.node("Concat", [w.read(x) for x in i], f"{w._names[o[0]]}/concat", axis=axis)
    w.store(o[0], value, opt.fusedActivationFunction)


def _pad(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    widths = w.array(i[1])
    assert widths is not None
    if len(widths) == 4:
        widths = widths[list(_TO_NCHW)]
    pads = w.constant(f"{w._names[o[0]]}/pads", widths.T.ravel().astype(np.int64))
    filled = np.float32(0) if w.floats(i[0]) else w.stored(w.zero(i[0])[0] + w.shift)
    zero = w.constant(f"{w._names[o[0]]}/zero", np.asarray(filled))
    w.node("Pad", [w.codes(i[0]), pads, zero], w.moved(o[0]))


def _hard_swish(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    """x * relu6(x + 3) / 6 as an integer sum and an integer product.

    The sum's codes saturate where relu6 does, and read on a grid of a sixth they are the factor.
    """
    name = w._names[o[0]]
    zero = w.constant("hard_swish/zero_point", np.asarray(w.limits.min, w.stored))
    steps = _HIGHEST - _LOWEST
    sixth = w.constant("hard_swish/scale", np.asarray(1 / steps, np.float32))
    six = w.constant("hard_swish/sum_scale", np.asarray(6 / steps, np.float32))
    three = w.constant("hard_swish/three", np.asarray(w.limits.max, w.stored))
    three_scale = w.constant("hard_swish/three_scale", np.asarray(3 / steps, np.float32))
    offset = w.node("DequantizeLinear", [three, three_scale, zero], f"{name}/three")
    moved = w.node("Add", [w.read(i[0]), offset], f"{name}/sum")
    factor = w.node("QuantizeLinear", [moved, six, zero], f"{name}/factor_codes")
    factor = w.node("DequantizeLinear", [factor, sixth, zero], f"{name}/factor")
    w.store(o[0], w.node("Mul", [w.read(i[0]), factor], f"{name}/product"))


def _requantize(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    w.store(o[0], w.read(i[0]))


def _dequantize(w: _Writer, i: list[int], o: list[int], opt: Any) -> None:
    w.node("DequantizeLinear", [w.codes(i[0]), *w._grid(i[0])], w._names[o[0]])


_WRITERS: dict[str, Callable[..., None]] = {
    "ADD": _of_two("Add"),
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "CONCATENATION": _concatenation,
    "CONV_2D": lambda w, i, o, opt: _convolution(w, i, o, opt, depthwise=False),
    "DEPTHWISE_CONV_2D": lambda w, i, o, opt: _convolution(w, i, o, opt, depthwise=True),
    "DEQUANTIZE": _dequantize,
    "ELU": _of_one("Elu"),
    "EXP": _of_one("Exp"),
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": _hard_swish,
    "LOG": _of_one("Log"),
    "LOGISTIC": _of_one("Sigmoid"),
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _mean,
    "MUL": _of_two("Mul"),
    "PAD": _pad,
    "QUANTIZE": _requantize,
    "RELU": _of_one("Relu"),
    "RESHAPE": _reshape,
    "SOFTMAX": _of_one("Softmax", axis=-1),
    "SQUEEZE": _reshape,
    "SUB": _of_two("Sub"),
    "TANH": _of_one("Tanh"),
    "TRANSPOSE": _transpose,
}
