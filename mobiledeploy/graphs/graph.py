"""A TFLite file as objects that can be read, changed and packed again."""

from __future__ import annotations

import copy
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Array
from mobiledeploy.graphs import sparse

Floats = NDArray[np.float32]

IDENTIFIER = b"TFL3"
OPERATORS = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
"""The name of each operator code, such as CONV_2D."""
ACTIVATIONS = {
    v: k for k, v in vars(schema.ActivationFunctionType).items() if not k.startswith("_")
}
"""The name of each fused activation: NONE, RELU, RELU6, ..."""
TYPES = {v: k.lower() for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
"""The name of each tensor type: float32, int8, int4, ..."""
CASTS = ("QUANTIZE", "DEQUANTIZE")
BROKEN = (
    AttributeError,
    EOFError,
    IndexError,
    MemoryError,
    OverflowError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
    zlib.error,
)
"""What the generated readers raise for bytes that are not a TFLite file."""
_CODES: dict[str, int] = {name: code for code, name in OPERATORS.items()}
_DTYPES: dict[int, type] = {
    code: getattr(np, name)
    for code, name in TYPES.items()
    if name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
} | {schema.TensorType.INT4: np.int8, schema.TensorType.BOOL: np.bool_}
_MOST_PARTS = 1 << 18
_MOST_SPARSE = 1 << 29
"""Values of all sparse constants, with their zeros."""
_OUTSIDE = 1 << 30
"""From this size in bytes on, constants are stored behind the flatbuffer (32-bit offsets)."""
_ALIGNMENT = 16
"""The alignment of constants, as the schema requires; the generated code ignores it."""


class Graph:
    """A TFLite file. The tensors of its first subgraph are identified by their index in the file.

    Further subgraphs, those of control flow, are kept as they are.
    """

    def __init__(self, content: bytes) -> None:
        """Parses the file; InputError if it is not one, or refers to parts that do not exist."""
        self.model = _unpack(content)
        self.subgraph = self.model.subgraphs[0]

    # Reading.

    @property
    def ops(self) -> list[Any]:
        """The operators in the order of execution."""
        return list(self.subgraph.operators)

    @property
    def inputs(self) -> list[int]:
        """The model's input tensors."""
        return [int(index) for index in self.subgraph.inputs]

    @property
    def outputs(self) -> list[int]:
        """The model's output tensors."""
        return [int(index) for index in self.subgraph.outputs]

    def kind(self, op: Any) -> str:
        """The operator's name, such as CONV_2D, CUSTOM:name, or UNKNOWN:number."""
        code = self.model.operatorCodes[op.opcodeIndex]
        # Codes above 127 are in builtinCode only; old files have deprecatedBuiltinCode only.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        if OPERATORS.get(number) == "CUSTOM":
            return f"CUSTOM:{(code.customCode or b'').decode('utf-8', 'replace')}"
        return str(OPERATORS.get(number, f"UNKNOWN:{number}"))

    def activation(self, op: Any) -> str:
        """The activation fused into the operator: NONE, RELU, RELU6, ..."""
        return str(ACTIVATIONS[getattr(op.builtinOptions, "fusedActivationFunction", 0)])

    def name(self, index: int) -> str:
        """The tensor's name; it may be empty, and another tensor may have the same."""
        return str((self.subgraph.tensors[index].name or b"").decode("utf-8", "replace"))

    def shape(self, index: int) -> tuple[int, ...]:
        """The tensor's shape."""
        shape = self.subgraph.tensors[index].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def dtype(self, index: int) -> type | None:
        """The type of its elements; None for a type that no weight or activation has.

        int8 for int4, whose codes are stored in pairs.
        """
        return _DTYPES.get(self.subgraph.tensors[index].type)

    def type_name(self, index: int) -> str:
        """The type of its elements in the schema: float32, int8, int4, ..."""
        code = self.subgraph.tensors[index].type
        return str(TYPES.get(code, f"unknown:{code}"))

    def bytes_of(self, index: int) -> NDArray[np.uint8] | None:
        """The bytes of a constant; None for a computed tensor, and for no tensor (-1)."""
        if index < 0:
            return None
        content = self.model.buffers[self.subgraph.tensors[index].buffer].data
        return None if content is None or not len(content) else np.asarray(content, np.uint8)

    def constant(self, index: int) -> Array | None:
        """Values that are stored in the file; None for a computed tensor, and for no tensor (-1).

        Codes of 4 bits take one byte each, and zeros that are not stored are filled in. InputError
        if the bytes do not fill the shape.
        """
        content, dtype = self.bytes_of(index), self.dtype(index)
        if content is None or dtype is None:
            return None
        sparsity = self.subgraph.tensors[index].sparsity
        if sparsity is not None and self.type_name(index) != "int4":
            try:
                return sparse.dense(sparsity, self.shape(index), content.view(dtype))
            except ValueError as error:
                raise InputError(
                    f"the sparse constant {self.name(index)} of the TFLite file is damaged: {error}"
                ) from error
        size = int(np.prod(self.shape(index), dtype=np.int64))
        if self.type_name(index) == "int4":
            pairs = content.view(np.int8)
            content = np.stack([pairs << 4 >> 4, pairs >> 4]).T.reshape(-1)[:size].view(np.uint8)
        if content.size != size * np.dtype(dtype).itemsize:
            raise InputError(f"the constant {self.name(index)} of the TFLite file is truncated")
        values: Array = content.view(dtype).reshape(self.shape(index))
        return values

    def constant_values(self, index: int) -> Array:
        """As `constant`, for a tensor that is known to be one."""
        values = self.constant(index)
        assert values is not None
        return values

    def scale(self, index: int) -> tuple[NDArray[np.float64], int]:
        """Scales and the zero point of a quantized tensor; real = scale * (stored - zero point).

        No scales if the tensor is not quantized.
        """
        quantization = self.subgraph.tensors[index].quantization
        if quantization is None or quantization.scale is None:
            return np.empty(0), 0
        zero = quantization.zeroPoint
        scales = np.asarray(quantization.scale, np.float64)
        return scales, int(zero[0]) if zero is not None and len(zero) else 0

    def zero_points(self, index: int) -> tuple[int, ...]:
        """The zero points of a quantized tensor, one for each scale."""
        quantization = self.subgraph.tensors[index].quantization
        zeros = None if quantization is None else quantization.zeroPoint
        return () if zeros is None else tuple(int(zero) for zero in zeros)

    def axis(self, index: int) -> int:
        """The axis of a tensor to which its scales belong."""
        return int(self.subgraph.tensors[index].quantization.quantizedDimension)

    def broadcast_scales(self, index: int) -> NDArray[np.float64]:
        """The scales of a quantized tensor, shaped so that they multiply its values."""
        scales, _ = self.scale(index)
        if scales.size == 1:
            return scales
        sides = [1] * len(self.shape(index))
        sides[self.axis(index)] = scales.size
        return scales.reshape(sides)

    def real(self, index: int, values: Array) -> Floats:
        """The real values of the stored `values` of a tensor; an index is its own."""
        scales, zero = self.scale(index)
        if values.dtype == np.float32 or not scales.size:
            return values.astype(np.float32, copy=False)
        return ((values.astype(np.float32) - zero) * np.float32(scales[0])).astype(np.float32)

    # Changing.

    def replace_constant(self, op: Any, place: int, values: Array) -> None:
        """Replaces the values of the constant that `op` reads at `place`, for `op` only."""
        index = int(op.inputs[place])
        readers = sum(int(i) == index for other in self.ops for i in other.inputs)
        dtype = self.dtype(index)
        assert dtype is not None
        tensor = self.subgraph.tensors[index]
        if readers > 1:
            # The converter merges equal constants into one tensor.
            tensor = copy.deepcopy(tensor)
            tensor.name = (tensor.name or b"") + f";{len(self.subgraph.tensors)}".encode()
            self.subgraph.tensors.append(tensor)
            op.inputs = [*op.inputs]
            op.inputs[place] = len(self.subgraph.tensors) - 1
        tensor.buffer = self._add_buffer(np.asarray(values, dtype))
        tensor.sparsity = None

    def add_constant(self, name: str, values: Array) -> int:
        """Adds a tensor whose values are in the file."""
        code = next(code for code, dtype in _DTYPES.items() if dtype == values.dtype.type)
        index = self.add_tensor(name, values.shape, TYPES[code])
        self.subgraph.tensors[index].buffer = self._add_buffer(values)
        return index

    def add_tensor(self, name: str, shape: Iterable[int], type_name: str) -> int:
        """Adds a tensor that an operator will compute."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), list(shape)
        tensor.type = next(code for code, own in TYPES.items() if own == type_name)
        tensor.buffer = 0
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def add_op(
        self, kind: str, inputs: Iterable[int], outputs: Iterable[int], *, version: int = 2
    ) -> Any:
        """An operator without options; the caller inserts it among the others."""
        op = schema.OperatorT()
        op.opcodeIndex = self._add_code(_CODES[kind], version)
        op.inputs, op.outputs = list(inputs), list(outputs)
        return op

    def add_reshape(self, source: int, shape: Sequence[int], name: str) -> tuple[Any, int]:
        """An operator that gives a tensor another shape, and its output of that name."""
        view = self.add_tensor(name, shape, self.type_name(source))
        self.subgraph.tensors[view].quantization = copy.deepcopy(
            self.subgraph.tensors[source].quantization
        )
        sides = self.add_constant(f"{name}/shape", np.array(shape, np.int32))
        op = self.add_op("RESHAPE", [source, sides], [view], version=1)
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.ReshapeOptions, options
        return op, view

    def add_custom_op(
        self, name: str, inputs: Iterable[int], outputs: Iterable[int], options: bytes
    ) -> Any:
        """An operator of that custom name; `options` are what its kernel reads, a flexbuffer."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = name.encode(), 1
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = list(inputs), list(outputs)
        op.customOptions = np.frombuffer(options, np.uint8)
        return op

    def make_constant(self, index: int, values: Array) -> None:
        """Stores a tensor's values in the file; no operator may compute it any more."""
        self.subgraph.tensors[index].buffer = self._add_buffer(values)
        self.subgraph.tensors[index].sparsity = None

    def fill_in_zeros(self) -> None:
        """Stores sparse constants with their zeros, without the operators that did it (DENSIFY).

        InputError if they would not fit into a TFLite file then, since a few bytes may stand for
        many zeros; and for a sparse tensor that is no constant.
        """
        places = [
            (int(op.inputs[0]), int(op.outputs[0])) for op in self.ops if self.kind(op) == "DENSIFY"
        ]
        self.subgraph.operators = [op for op in self.ops if self.kind(op) != "DENSIFY"]
        read = {*self.outputs, *(int(index) for op in self.ops for index in op.inputs)}
        sparse_ones = [i for i, t in enumerate(self.subgraph.tensors) if t.sparsity is not None]
        places += [(index, index) for index in sparse_ones if index in read]
        sizes = (abs(math.prod(self.shape(source))) for source, _ in places)
        if sum(sizes) > _MOST_SPARSE:
            raise InputError("the sparse constants of the TFLite file are too large")
        for source, target in places:
            values = self.constant(source)
            if values is None:
                raise InputError(f"the sparse tensor {self.name(source)} is no constant")
            self.make_constant(target, values)
        for index in sparse_ones:
            if index not in read:
                self.make_computed(index)
                self.subgraph.tensors[index].sparsity = None

    def make_computed(self, index: int) -> None:
        """Removes a tensor's values from the file; an operator has to compute it."""
        self.subgraph.tensors[index].buffer = 0

    def set_shape(self, index: int, shape: Sequence[int]) -> None:
        """Gives a tensor another shape of the same rank; sides that may vary still may."""
        tensor = self.subgraph.tensors[index]
        tensor.shape = list(shape)
        varies = tensor.shapeSignature
        if varies is not None and len(varies) == len(shape):
            tensor.shapeSignature = [
                -1 if free == -1 else side for free, side in zip(varies, shape, strict=True)
            ]

    def set_name(self, index: int, name: str) -> None:
        """Renames a tensor."""
        self.subgraph.tensors[index].name = name.encode()

    def set_scale(self, index: int, scale: float, zero: int) -> None:
        """Makes a tensor a quantized one: real = scale * (stored - zero)."""
        quantization = schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = [np.float32(scale)], [zero]
        self.subgraph.tensors[index].quantization = quantization

    def set_scales(self, index: int, scales: Array) -> None:
        """Replaces the scales of a quantized tensor, whose number stays; zero points stay."""
        self.subgraph.tensors[index].quantization.scale = np.asarray(scales, np.float32)

    def raise_version(self, op: Any, version: int) -> None:
        """Requires at least this version of the operator: newer versions accept more types."""
        code = self.model.operatorCodes[op.opcodeIndex]
        if code.version < version:
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            op.opcodeIndex = self._add_code(builtin, version)

    def become_mean(self, op: Any, axes: int) -> None:
        """Makes an operator the MEAN over `axes` (a tensor) of its input; sides of one are kept."""
        options = schema.ReducerOptionsT()
        options.keepDims = True
        op.opcodeIndex = self._add_code(schema.BuiltinOperator.MEAN, 2)
        op.inputs = [int(op.inputs[0]), axes]
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.ReducerOptions, options

    def make_names_unique(self) -> None:
        """Gives each tensor a unique name that is not empty; a unique name stays."""
        used: set[str] = set()
        # Outputs of operators come first.
        outputs = [int(i) for op in self.ops for i in op.outputs]
        for index in dict.fromkeys((*self.inputs, *outputs, *range(len(self.subgraph.tensors)))):
            name = free = self.name(index) or f"tensor_{index}"
            number = 1
            while free in used:
                number += 1
                free = f"{name}_{number}"
            used.add(free)
            self.subgraph.tensors[index].name = free.encode()

    def name_ends(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Names the inputs and outputs: the tensors, and a signature serving_default of them."""
        names = {*inputs, *outputs}
        ends = {*self.inputs, *self.outputs}
        for index in range(len(self.subgraph.tensors)):
            if index not in ends and self.name(index) in names:
                self.set_name(index, f"{self.name(index)}/inner")
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [self._end(*end) for end in zip(inputs, self.inputs, strict=True)]
        signature.outputs = [self._end(*end) for end in zip(outputs, self.outputs, strict=True)]
        self.model.signatureDefs = [signature]

    def _end(self, name: str, index: int) -> Any:
        self.set_name(index, name)
        end = schema.TensorMapT()
        end.name, end.tensorIndex = name, index
        return end

    def unsign_ends(self) -> None:
        """Gives int8 inputs and outputs codes of uint8 instead, 128 above the inner ones.

        The kernels compute in int8; an operator at either end converts the codes.
        """
        outer: dict[int, int] = {}
        first, last = [], []
        for index in dict.fromkeys((*self.inputs, *self.outputs)):
            if self.dtype(index) == np.int8:
                outer[index] = self._unsigned(index)
                if index in self.inputs:
                    first.append(self.add_op("QUANTIZE", [outer[index]], [index]))
                else:
                    last.append(self.add_op("QUANTIZE", [index], [outer[index]]))
        self.subgraph.operators = [*first, *self.ops, *last]
        self.subgraph.inputs = [outer.get(index, index) for index in self.inputs]
        self.subgraph.outputs = [outer.get(index, index) for index in self.outputs]
        for signature in self.model.signatureDefs or ():
            for end in (*(signature.inputs or ()), *(signature.outputs or ())):
                end.tensorIndex = outer.get(end.tensorIndex, end.tensorIndex)

    def _unsigned(self, index: int) -> int:
        """A copy of an int8 tensor with uint8 codes."""
        tensor = copy.deepcopy(self.subgraph.tensors[index])
        tensor.name, tensor.type = (tensor.name or b"") + b"/unsigned", schema.TensorType.UINT8
        tensor.quantization.zeroPoint = [self.scale(index)[1] + 128]
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def _add_code(self, builtin: int, version: int) -> int:
        """The index of the operator code of this version."""
        for number, code in enumerate(self.model.operatorCodes):
            own = max(code.builtinCode, code.deprecatedBuiltinCode)
            if own == builtin and code.version == version:
                return number
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
        code.version = version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def _add_buffer(self, values: Array) -> int:
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    # Packing.

    def drop_unused_tensors(self) -> None:
        """Removes the tensors that no operator and no end of the first subgraph names."""
        ends = (self.subgraph.inputs, self.subgraph.outputs)
        lists = [ends_ for op in self.ops for ends_ in (op.inputs, op.outputs)]
        used = sorted({int(i) for list_ in (*ends, *lists) for i in list_ if i >= 0})
        places = {old: new for new, old in enumerate(used)}
        self.subgraph.tensors = [self.subgraph.tensors[index] for index in used]
        self.subgraph.inputs, self.subgraph.outputs = (
            [places[int(index)] for index in end] for end in ends
        )
        for op in self.ops:
            # An operand that is left out stays -1.
            op.inputs, op.outputs = (
                [places.get(int(index), -1) for index in list_] for list_ in (op.inputs, op.outputs)
            )

    def add_metadata(self, name: bytes, content: bytes) -> None:
        """Adds an entry to the file's metadata."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(self.model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(buffer)
        self.model.metadata = [*(self.model.metadata or []), entry]

    def pack(self) -> bytes:
        """The file. Buffers that no tensor uses any more are left empty."""
        used_buffers = {
            tensor.buffer for graph in self.model.subgraphs for tensor in graph.tensors or ()
        }
        used_buffers |= {entry.buffer for entry in self.model.metadata or ()}
        for number in set(range(len(self.model.buffers))) - used_buffers:
            self.model.buffers[number] = schema.BufferT()
        return _pack(self.model)

    def part(self, start: int, stop: int) -> tuple[bytes, list[int], list[int]]:
        """Operators `start` to `stop` as a file, with its input and output tensors.

        Its outputs are only those that the rest of the model reads.
        """
        ops = self.ops
        part_ops = ops[start:stop]
        outputs = _unique(index for op in part_ops for index in op.outputs)
        later = {index for op in ops[stop:] for index in op.inputs} | set(self.subgraph.outputs)
        output_set = set(outputs)
        inputs = _unique(
            index
            for op in part_ops
            for index in op.inputs
            if index >= 0 and index not in output_set and self.bytes_of(index) is None
        )
        results = [index for index in outputs if index in later]
        # Packing costs time for each tensor, so the file holds only those of these operators.
        places = {
            index: place
            for place, index in enumerate(
                _unique(i for op in part_ops for i in _tensors_of(op) if i >= 0)
            )
        }
        graph = copy.copy(self.subgraph)
        graph.tensors = [self.subgraph.tensors[index] for index in places]
        graph.operators = [_renumbered(op, places) for op in part_ops]
        graph.inputs = [places[index] for index in inputs]
        graph.outputs = [places[index] for index in results]
        model = copy.copy(self.model)
        model.signatureDefs, model.metadata = [], []
        model.buffers = [schema.BufferT()]
        model.subgraphs = []
        for one in (graph, *self.model.subgraphs[1:]):
            kept = copy.copy(one)
            kept.tensors = [copy.copy(tensor) for tensor in one.tensors or ()]
            for tensor in kept.tensors:
                buffer = self.model.buffers[tensor.buffer]
                tensor.buffer = 0
                if buffer.data is not None and len(buffer.data):
                    tensor.buffer = len(model.buffers)
                    model.buffers.append(buffer)
            model.subgraphs.append(kept)
        return _pack(model), inputs, results


def _unique(indices: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(int(index) for index in indices))


def _tensors_of(op: Any) -> tuple[int, ...]:
    """The tensors of an operator, -1 for an absent one."""
    return (*op.inputs, *op.outputs, *(() if op.intermediates is None else op.intermediates))


def _renumbered(op: Any, places: Mapping[int, int]) -> Any:
    """A copy of the operator whose tensors have other numbers; an absent one stays -1."""
    moved = copy.copy(op)
    for name in ("inputs", "outputs", "intermediates"):
        indices = getattr(op, name)
        if indices is not None:
            setattr(moved, name, [places.get(int(index), -1) for index in indices])
    return moved


def _unpack(content: bytes) -> Any:
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise InputError("not a TFLite file: it lacks the identifier TFL3")
    try:
        root = schema.Model.GetRootAs(content, 0)
        # Tables may share their parts, so a small file could unpack to very many.
        graphs = [root.Subgraphs(i) for i in range(min(root.SubgraphsLength(), _MOST_PARTS))]
        parts = sum(graph.TensorsLength() + graph.OperatorsLength() for graph in graphs)
        if root.SubgraphsLength() > _MOST_PARTS or parts > _MOST_PARTS:
            raise InputError("the TFLite file holds more than a mobile network can")
        model = schema.ModelT.InitFromPackedBuf(content, 0)
    except BROKEN as error:
        raise InputError("the TFLite file is truncated or damaged") from error
    if not model.subgraphs:
        raise InputError("the TFLite file holds no graph")
    for buffer in model.buffers or ():
        _bring_in(buffer, content)
    _check(model)
    return model


def _bring_in(buffer: Any, content: bytes) -> None:
    """Loads the bytes of a buffer that are stored behind the flatbuffer."""
    if buffer.offset > 1:
        if buffer.offset + buffer.size > len(content):
            raise InputError("the TFLite file is truncated: it lacks some of its constants")
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    buffer.offset = buffer.size = 0


def _check(model: Any) -> None:
    """InputError if parts of the first graph refer to others that do not exist.

    These are TFLite's own conditions. Absent lists become empty lists.
    """
    graph = model.subgraphs[0]
    for owner, names in ((model, ("operatorCodes", "buffers")), (graph, ("tensors", "operators"))):
        for name in names:
            if getattr(owner, name) is None:
                setattr(owner, name, [])
    for owner in (graph, *graph.operators):
        for name in ("inputs", "outputs"):
            if getattr(owner, name) is None:
                setattr(owner, name, [])
    constants = set()
    for index, tensor in enumerate(graph.tensors):
        name = (tensor.name or b"").decode("utf-8", "replace")
        sides = () if tensor.shape is None else tuple(tensor.shape)
        if not 0 <= tensor.buffer < len(model.buffers) or min(sides, default=0) < 0:
            raise InputError(
                f"the tensor {name} of the TFLite file has invalid data or an invalid shape"
            )
        if tensor.quantization is not None:
            _check_quantization(tensor, name)
        content = model.buffers[tensor.buffer].data
        if content is not None and len(content):
            constants.add(index)
    indices = range(len(graph.tensors))
    if not len(graph.outputs) or any(i not in indices for i in (*graph.inputs, *graph.outputs)):
        raise InputError("the inputs or outputs of the TFLite file do not exist")
    for number, op in enumerate(graph.operators):
        if not 0 <= op.opcodeIndex < len(model.operatorCodes):
            raise InputError(f"the TFLite file does not define its operator {number}")
        code = model.operatorCodes[op.opcodeIndex]
        kind = OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "unknown")
        # As int: a range searches numpy's numbers one by one.
        absent = [i for i in map(int, op.inputs) if i != -1 and i not in indices]
        absent += [i for i in map(int, op.outputs) if i not in indices or i in constants]
        ends = len(op.inputs) and op.inputs[0] >= 0 and len(op.outputs)
        if absent or (kind in (*CASTS, "SOFTMAX") and not ends):
            raise InputError(
                f"the operator {number} ({kind}) of the TFLite file reads or writes a "
                "tensor that is not valid"
            )


def _check_quantization(tensor: Any, name: str) -> None:
    scale, zero, shape = (
        () if values is None else tuple(values)
        for values in (tensor.quantization.scale, tensor.quantization.zeroPoint, tensor.shape)
    )
    axis = tensor.quantization.quantizedDimension
    fits = len(scale) < 2 or (0 <= axis < len(shape) and len(scale) == shape[axis])
    if scale and (len(zero) != len(scale) or not fits):
        raise InputError(f"the tensor {name} of the TFLite file has scales of another shape")


def _pack(model: Any) -> bytes:
    buffers = [_Buffer(buffer) for buffer in model.buffers]
    size = sum(buffer.size for buffer in buffers)
    outside = size >= _OUTSIDE
    if not outside:
        return _flatbuffer(model, buffers, size)
    # Offsets are filled in once the flatbuffer's length is known; an offset of 0 would be omitted.
    for buffer in buffers:
        buffer.outside = 2 if buffer.size else 0
    start = _align(len(_flatbuffer(model, buffers, 0)))
    at = start
    for buffer in buffers:
        if buffer.size:
            buffer.outside, at = at, _align(at + buffer.size)
    file = bytearray(at)
    inner = _flatbuffer(model, buffers, 0)
    file[: len(inner)] = inner
    for buffer in buffers:
        if buffer.size:
            file[buffer.outside : buffer.outside + buffer.size] = buffer.data.tobytes()
    return bytes(file)


def _align(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _flatbuffer(model: Any, buffers: list[_Buffer], size: int) -> bytes:
    shallow = copy.copy(model)
    shallow.buffers = buffers
    # A builder that is large enough from the start does not copy weights to grow.
    builder = flatbuffers.Builder(size + _ALIGNMENT * len(buffers) + 2**16)
    builder.Finish(shallow.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


class _Buffer:
    """The bytes of a constant, packed at a multiple of 16 bytes or stored `outside`."""

    def __init__(self, buffer: Any) -> None:
        empty = buffer.data is None
        self.data = np.empty(0, np.uint8) if empty else np.asarray(buffer.data, np.uint8)
        self.size = self.data.size
        self.outside = 0

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the generated code's name for it
        if not self.size:
            schema.BufferStart(builder)
        elif self.outside:
            schema.BufferStart(builder)
            schema.BufferAddOffset(builder, self.outside)
            schema.BufferAddSize(builder, self.size)
        else:
            builder.StartVector(1, self.size, _ALIGNMENT)
            builder.head -= self.size
            builder.Bytes[builder.head : builder.head + self.size] = self.data.tobytes()
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))
