"""A TFLite file as objects that can be changed, and run operator by operator over all pictures."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from mobiledeploy.core import leases
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array, Images

Floats = NDArray[np.float32]

_OPS = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
_ACTIVATIONS = {
    v: k for k, v in vars(schema.ActivationFunctionType).items() if not k.startswith("_")
}
_DTYPES: dict[int, type] = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}


class Flat:
    """The one graph of a TFLite file. Tensors are known by their index, as in the file."""

    def __init__(self, content: bytes) -> None:
        self.model = schema.ModelT.InitFromPackedBuf(content, 0)
        if len(self.model.subgraphs) != 1:
            raise InputError(f"the model has {len(self.model.subgraphs)} graphs, not one")
        self.graph = self.model.subgraphs[0]
        self._about = len(content)

    @property
    def ops(self) -> list[Any]:
        """The operators, in the order in which they run."""
        return list(self.graph.operators)

    def kind(self, op: Any) -> str:
        """What the operator is called, such as CONV_2D."""
        code = self.model.operatorCodes[op.opcodeIndex]
        return _OPS[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def activation(self, op: Any) -> str:
        """What is fused into the operator: NONE, RELU, RELU6, ..."""
        return _ACTIVATIONS[getattr(op.builtinOptions, "fusedActivationFunction", 0)]

    def name(self, index: int) -> str:
        """The tensor's name."""
        return str(self.graph.tensors[index].name.decode())

    def shape(self, index: int) -> tuple[int, ...]:
        """The tensor's shape."""
        shape = self.graph.tensors[index].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def dtype(self, index: int) -> type | None:
        """The type of its elements; None for one that no weight or activation has."""
        return _DTYPES.get(self.graph.tensors[index].type)

    def constant(self, index: int) -> Array | None:
        """Values that are stored in the file; None for what is computed, and for no tensor."""
        if index < 0:
            return None
        tensor = self.graph.tensors[index]
        stored, dtype = self.model.buffers[tensor.buffer].data, self.dtype(index)
        if stored is None or not len(stored) or dtype is None:
            return None
        return np.asarray(stored, np.uint8).view(dtype).reshape(self.shape(index))

    def stored(self, index: int) -> Array:
        """As `constant`, of a tensor that is known to be one."""
        values = self.constant(index)
        assert values is not None
        return values

    def put(self, op: Any, place: int, values: Array) -> None:
        """Other values for the constant that `op` reads at `place`, for this operator alone."""
        index = int(op.inputs[place])
        readers = sum(int(i) == index for other in self.ops for i in other.inputs)
        buffer = schema.BufferT()
        stored = np.ascontiguousarray(values, self.dtype(index))
        buffer.data = np.frombuffer(stored.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor = self.graph.tensors[index]
        if readers > 1:
            # Equal constants are one tensor to the converter.
            tensor = copy.deepcopy(tensor)
            tensor.name += f";{len(self.graph.tensors)}".encode()
            self.graph.tensors.append(tensor)
            op.inputs = [*op.inputs]
            op.inputs[place] = len(self.graph.tensors) - 1
        tensor.buffer = len(self.model.buffers) - 1

    def add_constant(self, name: str, values: Array) -> int:
        """A tensor more, with its values in the file."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), list(values.shape)
        tensor.type = next(code for code, dtype in _DTYPES.items() if dtype == values.dtype.type)
        tensor.buffer = len(self.model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def become_mean(self, op: Any, axes: int) -> None:
        """Makes an operator the MEAN over `axes` (a tensor) of what it reads, sides of one kept."""
        options = schema.ReducerOptionsT()
        options.keepDims = True
        op.opcodeIndex = self._add_code(schema.BuiltinOperator.MEAN)
        op.inputs = [int(op.inputs[0]), axes]
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.ReducerOptions, options

    def unsign_ends(self) -> None:
        """Gives the graph ends of uint8 in the place of int8: each code is 128 above the inner one.

        The kernels compute in int8; an operator at either end moves the codes.
        """
        image, scores = (int(index) for (index,) in (self.graph.inputs, self.graph.outputs))
        outer, answer = self._unsigned(image), self._unsigned(scores)
        first, last = self._requantize(outer, image), self._requantize(scores, answer)
        self.graph.operators = [first, *self.ops, last]
        self.graph.inputs, self.graph.outputs = [outer], [answer]
        for signature in self.model.signatureDefs or ():
            for ends, index in ((signature.inputs, outer), (signature.outputs, answer)):
                for end in ends:
                    end.tensorIndex = index

    def _unsigned(self, index: int) -> int:
        """A copy of a tensor of int8 with codes of uint8."""
        tensor = copy.deepcopy(self.graph.tensors[index])
        tensor.name, tensor.type = tensor.name + b"/unsigned", schema.TensorType.UINT8
        tensor.quantization.zeroPoint = [self.scale(index)[1] + 128]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _requantize(self, source: int, target: int) -> Any:
        op = schema.OperatorT()
        op.opcodeIndex = self._add_code(schema.BuiltinOperator.QUANTIZE)
        op.inputs, op.outputs = [source], [target]
        return op

    def _add_code(self, builtin: int) -> int:
        """The index of an operator code more, of the second version."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 2
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def scale(self, index: int) -> tuple[NDArray[np.float64], int]:
        """Scales and the zero point of a quantized tensor; real = scale * (stored - zero point).

        No scale where the tensor is not quantized.
        """
        quantization = self.graph.tensors[index].quantization
        if quantization is None or quantization.scale is None:
            return np.empty(0), 0
        zero = quantization.zeroPoint
        scales = np.asarray(quantization.scale, np.float64)
        return scales, int(zero[0]) if zero is not None and len(zero) else 0

    def axis(self, index: int) -> int:
        """The axis along which the scales of a tensor lie."""
        return int(self.graph.tensors[index].quantization.quantizedDimension)

    def spread(self, index: int) -> NDArray[np.float64]:
        """The scales of a quantized tensor, shaped so that they multiply its values."""
        scales, _ = self.scale(index)
        if scales.size == 1:
            return scales
        sides = [1] * len(self.shape(index))
        sides[self.axis(index)] = scales.size
        return scales.reshape(sides)

    def real(self, index: int, values: Array) -> Floats:
        """What stored `values` of a tensor stand for."""
        if values.dtype == np.float32:
            return values
        scales, zero = self.scale(index)
        return ((values.astype(np.float32) - zero) * np.float32(scales[0])).astype(np.float32)

    def packed(self) -> bytes:
        """The file."""
        self._drop_unread()
        return _packed(self.model, self._about)

    def _drop_unread(self) -> None:
        """Buffers that no tensor has any more hold nothing from now on."""
        used = {tensor.buffer for tensor in self.graph.tensors}
        used |= {entry.buffer for entry in self.model.metadata or ()}
        for number in set(range(len(self.model.buffers))) - used:
            self.model.buffers[number] = schema.BufferT()

    def part(self, start: int, stop: int) -> tuple[bytes, list[int], list[int]]:
        """Operators `start` to `stop` as a file, with the tensors that it reads and makes.

        It makes those alone that the rest of the model reads.
        """
        ops = self.ops
        inside = ops[start:stop]
        made = _unique(index for op in inside for index in op.outputs)
        later = {index for op in ops[stop:] for index in op.inputs} | set(self.graph.outputs)
        made_set = set(made)
        reads = _unique(
            index
            for op in inside
            for index in op.inputs
            if index >= 0 and index not in made_set and self.constant(index) is None
        )
        gives = [index for index in made if index in later]
        graph = copy.copy(self.graph)
        graph.operators, graph.inputs, graph.outputs = inside, reads, gives
        model = copy.copy(self.model)
        model.subgraphs, model.signatureDefs, model.metadata = [graph], [], []
        used = {self.graph.tensors[i].buffer for op in inside for i in op.inputs if i >= 0}
        model.buffers = [
            buffer if number in used else schema.BufferT()
            for number, buffer in enumerate(self.model.buffers)
        ]
        return _packed(model, self._about), reads, gives


class Walk:
    """The values of a model's tensors for many pictures, operator after operator.

    Each operator runs once for each picture; only values that are still to be read are held.
    """

    def __init__(self, flat: Flat, images: Images) -> None:
        self._flat = flat
        self._at = 0
        (source,) = flat.graph.inputs
        self._values: dict[int, Array] = {source: _stored(flat, source, images)}

    def before(self, op: int) -> None:
        """Runs all operators before that of number `op`."""
        if op <= self._at:
            return
        content, reads, gives = self._flat.part(self._at, op)
        if gives:
            self._values |= _run(content, [self._values[i] for i in reads], gives)
        self._at = op
        still = {i for later in self._flat.ops[op:] for i in later.inputs}
        still |= set(self._flat.graph.outputs)
        self._values = {i: v for i, v in self._values.items() if i in still}

    def end(self) -> Floats:
        """The output [N, ...] in real values."""
        self.before(len(self._flat.ops))
        (target,) = self._flat.graph.outputs
        return self._flat.real(target, self._values[target])

    def value(self, index: int) -> Array:
        """The stored values [N, ...] of a tensor that the next operator reads."""
        return self._values[index]


def run(content: bytes, images: Images) -> Floats:
    """The output of a TFLite file with one input and one output, in real values: [N, classes]."""
    return Walk(Flat(content), images).end()


def interpreter(content: bytes, *, every_tensor: bool = False) -> Any:
    """TensorFlow's own interpreter on all cores, allocated."""
    kinds = tf.lite.experimental.OpResolverType
    made = tf.lite.Interpreter(
        model_content=content,
        num_threads=leases.cores(),
        experimental_preserve_all_tensors=every_tensor,
        # XNNPACK keeps what is between its operators to itself.
        experimental_op_resolver_type=(
            kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if every_tensor else kinds.AUTO
        ),
    )
    made.allocate_tensors()
    return made


def _run(content: bytes, values: list[Array], gives: list[int]) -> dict[int, Array]:
    engine = interpreter(content)
    sources = [detail["index"] for detail in engine.get_input_details()]
    targets = [detail["index"] for detail in engine.get_output_details()]
    made: list[Array] = []
    for number in range(len(values[0])):
        for source, value in zip(sources, values, strict=True):
            engine.set_tensor(source, value[number][None])
        engine.invoke()
        for place, target in enumerate(targets):
            answer = engine.get_tensor(target)
            if number == 0:
                made.append(np.empty((len(values[0]), *answer.shape[1:]), answer.dtype))
            made[place][number] = answer[0]
    return dict(zip(gives, made, strict=True))


def _stored(flat: Flat, index: int, images: Images) -> Array:
    """Pictures as the input takes them."""
    dtype = flat.dtype(index)
    if dtype == np.float32:
        return images
    assert dtype is not None
    scales, zero = flat.scale(index)
    limits: np.iinfo[Any] = np.iinfo(dtype)
    codes = np.round(images / np.float32(scales[0])) + zero
    return np.clip(codes, limits.min, limits.max).astype(dtype)


def _unique(indices: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(int(index) for index in indices))


def _packed(model: Any, about: int) -> bytes:
    # A builder that is large enough from the start copies no weights while it grows.
    builder = flatbuffers.Builder(about + 2**16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
