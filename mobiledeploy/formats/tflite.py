"""TFLite files: read, sealed and tapped as flatbuffers, with the schema that LiteRT ships."""

from __future__ import annotations

import copy
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Contract, FileFacts, Layer, Preprocessing, Tensor

SUFFIX = ".tflite"
_IDENTIFIER = b"TFL3"
_OPS = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
_NUMPY = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "int4": np.int8}
"""Types that weights have."""
# TFLite metadata: a flatbuffer of its own among the buffers, and files in a zip behind the model.
_METADATA, _LABELS, _CONTRACT = "TFLITE_METADATA", "labels.txt", "mobiledeploy.json.gz"
_DEFLATED_CONTRACT = "mobiledeploy.json"
"""What it was called while the zip itself was compressed."""
_LARGEST_CONTRACT = 1 << 26
_MOST_PARTS = 1 << 18
_CASTS = ("QUANTIZE", "DEQUANTIZE")
# What the generated readers, and zipfile, raise on bytes that are none of theirs.
_BROKEN = (
    struct.error,
    EOFError,
    IndexError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_DTYPES = {v: k.lower() for k, v in vars(schema.TensorType).items() if not k.startswith("_")}


def inspect(data: bytes) -> FileFacts:
    """Inputs, outputs and operators of the one subgraph; InputError where `data` is no TFLite."""
    model = _open(data)
    graph = model.subgraphs[0]
    fixed = {i for i, tensor in enumerate(graph.tensors) if _stored(model, tensor) is not None}
    # Weights of 16 bits reach their operator as floats.
    fixed |= {
        op.outputs[0]
        for op in graph.operators
        if _op(model, op) == "DEQUANTIZE" and op.inputs[0] in fixed
    }
    tensors = tuple(_tensor(tensor, i in fixed) for i, tensor in enumerate(graph.tensors))
    layers = tuple(
        Layer(
            name=tensors[op.outputs[0]].name if len(op.outputs) else "",
            op=_op(model, op),
            inputs=tuple(tensors[i] for i in op.inputs if i >= 0),
            outputs=tuple(tensors[i] for i in op.outputs),
        )
        for op in graph.operators
    )
    return FileFacts(
        format="tflite",
        inputs=tuple(tensors[i] for i in graph.inputs),
        outputs=tuple(tensors[i] for i in graph.outputs),
        layers=layers,
        layout="NHWC",
        logits=_logits(layers, tensors[graph.outputs[0]].name),
    )


def float_layers(facts: FileFacts) -> tuple[str, ...]:
    """The operators that read or write a float tensor."""
    return tuple(
        layer.op
        for layer in facts.layers
        if layer.op not in _CASTS
        and any(t.dtype.startswith("float") for t in (*layer.inputs, *layer.outputs))
    )


def between_integers(facts: FileFacts) -> tuple[str, ...]:
    """None: an operator of TFLite computes in integers itself, or not at all."""
    return ()


def sparsity(data: bytes) -> float:
    """Share of the weights that are zero, from 0 to 1: of constants of two dimensions or more."""
    model = _open(data)
    zeros = total = 0
    for tensor in model.subgraphs[0].tensors:
        stored, dtype = _stored(model, tensor), _DTYPES.get(tensor.type, "")
        kind = _NUMPY.get(dtype)
        if stored is None or kind is None or len(_tuple(tensor.shape)) < 2:
            continue
        values = _numbers(stored, kind)
        if dtype == "int4":
            values = np.stack([values & 0xF, values >> 4 & 0xF]).T.reshape(-1)
            values = values[: int(np.prod(tensor.shape))]
        # Weights of integers are symmetric: their zero point is zero.
        zeros += values.size - int(np.count_nonzero(values))
        total += values.size
    return zeros / total if total else 0.0


def weights(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The constants of floats and of 8-bit and 32-bit integers, as real values, by name."""
    model = _open(data)
    found = {}
    for tensor in model.subgraphs[0].tensors:
        known, stored = _tensor(tensor, True), _stored(model, tensor)
        kind = (_NUMPY | {"int32": np.int32}).get(known.dtype)
        if stored is None or kind is None:
            continue
        values = _numbers(stored, kind)
        if values.size != np.prod(known.shape, dtype=np.int64):
            continue
        real = values.reshape(known.shape).astype(np.float32)
        if known.scale:
            sides = [1] * real.ndim
            if known.axis is not None:
                sides[known.axis] = -1
            scale, zero = (
                np.asarray(part, np.float32).reshape(sides)
                for part in (known.scale, known.zero_point)
            )
            real = (real - zero) * scale
        found[known.name] = real
    # Weights of 16 bits reach their operator by another name.
    for op in model.subgraphs[0].operators:
        if _op(model, op) == "DEQUANTIZE":
            source, target = (
                (model.subgraphs[0].tensors[i].name or b"").decode("utf-8", "replace")
                for i in (op.inputs[0], op.outputs[0])
            )
            if source in found:
                found[target] = found[source]
    return found


def seal(data: bytes) -> bytes:
    """The file with its input named `image` and its output `scores`."""
    model = _open(data)
    graph = model.subgraphs[0]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise InputError(
            f"the converted model has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "one image in and one row of scores out are needed"
        )
    graph.tensors[graph.inputs[0]].name = b"image"
    graph.tensors[graph.outputs[0]].name = b"scores"
    return _pack(model)


def inscribe(data: bytes, contract: Contract) -> bytes:
    """The file with TFLite metadata, and with labels and the contract packed behind it.

    Readers of TFLite metadata (MediaPipe, Task Library, ML Kit, Android Studio) find the
    normalization, the colour order and the labels there; nothing of it is run. They take a zip of
    stored files only, so that the contract is compressed before it is packed.
    """
    model = _open(data)
    model.metadata = model.metadata or []
    known = [entry for entry in model.metadata if entry.name == _METADATA.encode()]
    if not known:
        entry = schema.MetadataT()
        entry.name, entry.buffer = _METADATA, len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
        known = [entry]
    model.buffers[known[0].buffer].data = np.frombuffer(_metadata(contract), np.uint8)
    files = {_CONTRACT: gzip.compress(records.dumps(contract).encode(), mtime=0)}
    if contract.preprocessing.labels:
        files[_LABELS] = ("\n".join(contract.preprocessing.labels) + "\n").encode()
    stream = io.BytesIO(_pack(model))
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), content, zipfile.ZIP_STORED)
    return stream.getvalue()


def contract(data: bytes) -> Contract | None:
    """What `inscribe` wrote; None where it did not, InputError where it is damaged."""
    _open(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = [n for n in (_CONTRACT, _DEFLATED_CONTRACT) if n in archive.namelist()]
            if not there:
                return None
            member = archive.getinfo(there[0])
            if member.file_size > _LARGEST_CONTRACT:
                raise InputError(f"{there[0]} of the TFLite file is too large")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f"{there[0]} of the TFLite file is packed by an unknown method")
            text = archive.read(there[0])
        if there[0] == _CONTRACT:
            text = _unpacked(text)
    except zipfile.BadZipFile as error:
        if zipfile.is_zipfile(io.BytesIO(data)):
            raise InputError("the files packed behind the TFLite model are damaged") from error
        return None
    except _BROKEN as error:
        raise InputError("the files packed behind the TFLite model are damaged") from error
    return records.loads(Contract, text, there[0])


def _unpacked(content: bytes) -> bytes:
    """A gzip file's content; InputError where it is larger than any contract."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    text = unpacker.decompress(content, _LARGEST_CONTRACT)
    if unpacker.unconsumed_tail:
        raise InputError(f"{_CONTRACT} of the TFLite file is too large")
    if not unpacker.eof:
        raise EOFError("the end of the gzip file is absent")
    return text


def _metadata(contract: Contract) -> bytes:
    """The flatbuffer of schema `metadata_schema.fbs`, identifier M001, as of its version 1.0.0.

    Slots are the places of fields in their tables there.
    """
    pre = contract.preprocessing
    builder = flatbuffers.Builder(4096)
    mean, std = _normalization(pre)
    options = _table(builder, {0: _floats(builder, mean), 1: _floats(builder, std)})
    unit = _table(builder, {1: options}, kinds={0: 1})  # NormalizationOptions
    height, width = contract.resolution
    size = _table(builder, {}, numbers={0: width, 1: height})
    # The schema has no name for BGR; 0 is unknown.
    image = _table(builder, {1: size}, kinds={0: int(pre.channels == "rgb")})
    content = _table(builder, {1: image}, kinds={0: 2})  # ImageProperties
    low, high = ([(p - m) / s for m, s in zip(mean, std, strict=True)] for p in (0, 255))
    stats = _table(builder, {0: _floats(builder, high), 1: _floats(builder, low)})
    told = f"{pre.channels.upper()}, {contract.layout}, {pre.resize} resize, crop {pre.crop:g}"
    given = {
        0: builder.CreateString("image"),
        1: builder.CreateString(told),
        3: content,
        4: _tables(builder, [unit]),
        5: stats,
    }
    inputs = _tables(builder, [_table(builder, given)])
    answer = {0: builder.CreateString("scores"), 1: builder.CreateString(contract.output)}
    if pre.labels:
        name = builder.CreateString(_LABELS)
        labels = _table(builder, {0: name}, kinds={2: 2})  # TENSOR_AXIS_LABELS
        answer[6] = _tables(builder, [labels])
    outputs = _tables(builder, [_table(builder, answer)])
    graph = _tables(builder, [_table(builder, {2: inputs, 3: outputs})])
    name, version = builder.CreateString(contract.name), builder.CreateString("1.0.0")
    builder.Finish(_table(builder, {0: name, 3: graph, 7: version}), file_identifier=b"M001")
    return bytes(builder.Output())


def _normalization(pre: Preprocessing) -> tuple[list[float], list[float]]:
    """(mean, std) such that (p - mean) / std of a pixel p of 0..255 is the input."""
    low, high = pre.input_range
    unit = 255 / (high - low)
    return [(m - low) * unit for m in pre.mean], [s * unit for s in pre.std]


def _table(
    builder: Any,
    offsets: dict[int, int],
    *,
    kinds: dict[int, int] | None = None,
    numbers: dict[int, int] | None = None,
) -> int:
    """A table with offsets, one-byte `kinds` and four-byte `numbers` in its slots."""
    used = (*offsets, *(kinds or {}), *(numbers or {}))
    builder.StartObject(max(used) + 1)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, number in (numbers or {}).items():
        builder.PrependUint32Slot(slot, number, 0)
    for slot, kind in (kinds or {}).items():
        builder.PrependInt8Slot(slot, kind, 0)
    return int(builder.EndObject())


def _tables(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _floats(builder: Any, values: list[float]) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, np.float32)))


def tap(data: bytes, tensor: str) -> bytes:
    """A copy whose one output is the tensor of that name."""
    model = _open(data)
    graph = model.subgraphs[0]
    names = [t.name for t in graph.tensors]
    if tensor.encode() not in names:
        raise InputError(f"the TFLite file has no tensor named {tensor}")
    graph.outputs = [names.index(tensor.encode())]
    # A signature names outputs by index and would no longer fit.
    model.signatureDefs = []
    return _pack(model)


def activations(facts: FileFacts) -> tuple[Tensor, ...]:
    """What the operators hand on to each other, in the order in which it is made."""
    return tuple(t for layer in facts.layers for t in layer.outputs if not t.constant)


def excerpt(data: bytes, given: Sequence[str], wanted: Sequence[str]) -> bytes:
    """A copy that takes the tensors `given` and answers with those `wanted`, in this order.

    Operators that nothing wanted depends on are left out, and so is what is given and not read. A
    tensor that is both given and wanted is answered as its operator makes it.
    """
    model = _open(data)
    graph = model.subgraphs[0]
    indices = {(t.name or b"").decode("utf-8", "replace"): i for i, t in enumerate(graph.tensors)}
    absent = [name for name in (*given, *wanted) if name not in indices]
    if absent:
        raise InputError(f"the TFLite file has no tensor named {absent[0]}")
    taken, shown = [indices[name] for name in given], [indices[name] for name in wanted]
    # What is given is read from the caller, whatever makes it.
    made = {}
    for index in dict.fromkeys(taken):
        made[index] = len(graph.tensors)
        graph.tensors.append(copy.copy(graph.tensors[index]))
    for op in graph.operators:
        op.outputs = [made.get(int(i), int(i)) for i in op.outputs]
    outputs = [made.get(index, index) for index in shown]
    needed, kept = set(outputs), []
    for op in reversed(graph.operators):
        if needed.intersection(op.outputs):
            kept.append(op)
            needed.update(int(i) for i in op.inputs)
    graph.operators = kept[::-1]
    graph.inputs = [index for index in taken if index in needed]
    graph.outputs = outputs
    model.signatureDefs = []
    return _pack(model)


def _open(data: bytes) -> Any:
    if len(data) < 8 or data[4:8] != _IDENTIFIER:
        raise InputError("not a TFLite file: it lacks the identifier TFL3")
    try:
        packed = schema.Model.GetRootAs(data, 0)
        # Tables may share their parts, so that a small file could unpack to very many.
        graphs = [packed.Subgraphs(i) for i in range(min(packed.SubgraphsLength(), _MOST_PARTS))]
        parts = sum(graph.TensorsLength() + graph.OperatorsLength() for graph in graphs)
        if packed.SubgraphsLength() > _MOST_PARTS or parts > _MOST_PARTS:
            raise InputError("the TFLite file holds more than a mobile network can")
        model = schema.ModelT.InitFromPackedBuf(data, 0)
    except (*_BROKEN, AttributeError) as error:
        raise InputError("the TFLite file is truncated or damaged") from error
    if not model.subgraphs:
        raise InputError("the TFLite file holds no graph")
    _check(model)
    return model


def _check(model: Any) -> None:
    """InputError where parts of the first graph speak of others that are not there.

    As TFLite itself asks of a file; what it leaves out is an empty list afterwards.
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
    for tensor in graph.tensors:
        name = (tensor.name or b"").decode("utf-8", "replace")
        if not 0 <= tensor.buffer < len(model.buffers) or min(_tuple(tensor.shape), default=0) < 0:
            raise InputError(f"the tensor {name} of the TFLite file has no such data or shape")
        if tensor.quantization is not None:
            _check_quantization(tensor, name)
    fixed = {i for i, tensor in enumerate(graph.tensors) if _stored(model, tensor) is not None}
    known = range(len(graph.tensors))
    if not len(graph.outputs) or any(i not in known for i in (*graph.inputs, *graph.outputs)):
        raise InputError("the inputs or outputs of the TFLite file are not there")
    for number, op in enumerate(graph.operators):
        if not 0 <= op.opcodeIndex < len(model.operatorCodes):
            raise InputError(f"the TFLite file does not say what its operator {number} is")
        absent = [i for i in op.inputs if i != -1 and i not in known]
        absent += [i for i in op.outputs if i not in known or i in fixed]
        ends = len(op.inputs) and op.inputs[0] >= 0 and len(op.outputs)
        if absent or (_op(model, op) in (*_CASTS, "SOFTMAX") and not ends):
            raise InputError(
                f"the operator {number} ({_op(model, op)}) of the TFLite file reads or writes a "
                "tensor that cannot be"
            )


def _check_quantization(tensor: Any, name: str) -> None:
    scale, zero, shape = (
        _tuple(values)
        for values in (tensor.quantization.scale, tensor.quantization.zeroPoint, tensor.shape)
    )
    axis = tensor.quantization.quantizedDimension
    fits = len(scale) < 2 or (0 <= axis < len(shape) and len(scale) == shape[axis])
    if scale and (len(zero) != len(scale) or not fits):
        raise InputError(f"the tensor {name} of the TFLite file has scales of another shape")


def _numbers(stored: Any, kind: Any) -> NDArray[Any]:
    """A constant's bytes as numbers; InputError for half a number."""
    raw = np.asarray(stored, np.uint8)
    if raw.size % np.dtype(kind).itemsize:
        raise InputError("a constant of the TFLite file is cut short")
    return raw.view(kind)


def _pack(model: Any) -> bytes:
    # The schema asks for 16-byte alignment of weights, which the generated Python code ignores.
    model.buffers = [_Aligned(buffer) for buffer in model.buffers]
    builder = flatbuffers.Builder(sum(len(b.data) for b in model.buffers) + 2**16)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


class _Aligned:
    """A weight buffer that packs itself at a multiple of 16 bytes."""

    def __init__(self, buffer: Any) -> None:
        empty = buffer.data is None
        self.data = b"" if empty else np.asarray(buffer.data, np.uint8).tobytes()

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the generated code's name for it
        if not self.data:
            schema.BufferStart(builder)
            return int(schema.BufferEnd(builder))
        builder.StartVector(1, len(self.data), 16)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


def _op(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes past 127 live in builtinCode alone; old files have deprecatedBuiltinCode alone.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if _OPS.get(number) == "CUSTOM":
        return f"CUSTOM:{(code.customCode or b'').decode('utf-8', 'replace')}"
    return str(_OPS.get(number, f"UNKNOWN:{number}"))


def _stored(model: Any, tensor: Any) -> Any | None:
    """The bytes of a constant, None for what is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) else data


def _tensor(tensor: Any, constant: bool) -> Tensor:
    quantization = tensor.quantization
    scale = () if quantization is None else _tuple(quantization.scale)
    return Tensor(
        name=(tensor.name or b"").decode("utf-8", "replace"),
        shape=tuple(int(n) for n in _tuple(tensor.shape)),
        dtype=_DTYPES.get(tensor.type, f"unknown:{tensor.type}"),
        scale=tuple(float(s) for s in scale),
        zero_point=tuple(int(z) for z in _tuple(quantization.zeroPoint)) if scale else (),
        axis=int(quantization.quantizedDimension) if len(scale) > 1 else None,
        constant=constant,
    )


def _tuple(values: Iterable[Any] | None) -> tuple[Any, ...]:
    return () if values is None else tuple(values)


def _logits(layers: tuple[Layer, ...], output: str) -> str:
    """The input of the softmax that makes `output`, seen through a change of type behind it."""
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    layer = makers.pop(output, None)
    while layer and layer.op in _CASTS:
        # Each once: a graph that leads in a circle has no end.
        layer = makers.pop(layer.inputs[0].name, None)
    return layer.inputs[0].name if layer and layer.op == "SOFTMAX" else output
