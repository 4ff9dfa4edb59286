"""TFLite files: their content, their metadata, and subgraphs of them."""

from __future__ import annotations

import copy
import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobiledeploy.core import records, zips
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import (
    Contract,
    FileFacts,
    Layer,
    ModelInput,
    ModelOutput,
    Preprocessing,
    Signature,
    Tensor,
)
from mobiledeploy.formats import _tflite_metadata
from mobiledeploy.graphs import postprocess
from mobiledeploy.graphs.graph import CASTS, Graph

SUFFIX = ".tflite"
_BETTER_IN_FLOAT = ("L2_NORMALIZATION",)
_COLOR_SPACES = {"rgb": 1, "gray": 2}
_LOCATION, _CATEGORY = "location", "category"
_OF_BOXES = (_LOCATION, _CATEGORY, "score", "number of detections")
"""The names by which MediaPipe knows the outputs of TFLite_Detection_PostProcess."""
# Kinds of an associated file: a label for each place of a tensor, or for each value in it.
_AXIS_LABELS, _VALUE_LABELS = 2, 3
_LABELLED = ("classification", "detection", "multilabel", "segmentation")
_WEIGHTS = (np.float32, np.float16, np.int8)
"""The types of weights; 4-bit codes are read as one byte each."""
# TFLite metadata: a separate flatbuffer among the buffers, and files in a zip after the model.
_METADATA, _LABELS, _CONTRACT = "TFLITE_METADATA", "labels.txt", "mobiledeploy.json.gz"
_DEFLATED_CONTRACT = "mobiledeploy.json"
"""Its former name, when the zip itself was compressed."""
_LARGEST_CONTRACT = 1 << 26
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def inspect(data: bytes) -> FileFacts:
    """Inputs, outputs and operators of the first subgraph; InputError if `data` is not a TFLite."""
    graph = Graph(data)
    count = range(len(graph.subgraph.tensors))
    constants = {i for i in count if graph.bytes_of(i) is not None}
    # 16-bit weights reach their operator as floats, and sparse ones with their zeros.
    for op in graph.ops:
        if graph.kind(op) in ("DEQUANTIZE", "DENSIFY") and int(op.inputs[0]) in constants:
            constants.add(int(op.outputs[0]))
    tensors = tuple(_tensor(graph, i, i in constants) for i in count)
    layers = tuple(
        Layer(
            name=tensors[op.outputs[0]].name if len(op.outputs) else "",
            op=graph.kind(op),
            inputs=tuple(tensors[i] for i in op.inputs if i >= 0),
            outputs=tuple(tensors[i] for i in op.outputs),
        )
        for op in graph.ops
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
        if layer.op not in CASTS
        and any(t.dtype.startswith("float") for t in (*layer.inputs, *layer.outputs))
    )


def between_integers(facts: FileFacts) -> tuple[str, ...]:
    """Those that are nearer to float than their integer kernel is (graphs/integers.py)."""
    return tuple(op for op in float_layers(facts) if op in _BETTER_IN_FLOAT)


def sparsity(data: bytes) -> float:
    """Share of the weights that are zero, from 0 to 1: of constants of two dimensions or more."""
    graph = Graph(data)
    zeros = total = 0
    for index in range(len(graph.subgraph.tensors)):
        if len(graph.shape(index)) < 2 or graph.dtype(index) not in _WEIGHTS:
            continue
        values = graph.constant(index)
        if values is not None:
            # Weights of integers are symmetric: their zero point is zero.
            zeros += values.size - int(np.count_nonzero(values))
            total += values.size
    return zeros / total if total else 0.0


def weights(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The constants of floats and of 8-bit and 32-bit integers, as real values, by name."""
    graph = Graph(data)
    values_by_name = {}
    for index in range(len(graph.subgraph.tensors)):
        values = graph.constant(index)
        if values is None or graph.dtype(index) not in (*_WEIGHTS, np.int32):
            continue
        real = values.astype(np.float32)
        scale, _ = graph.scale(index)
        if scale.size:
            sides = [1] * real.ndim
            if scale.size > 1:
                sides[graph.axis(index)] = -1
            zero = np.asarray(graph.zero_points(index), np.float32).reshape(sides)
            real = (real - zero) * scale.astype(np.float32).reshape(sides)
        values_by_name[graph.name(index)] = real
    # 16-bit weights reach their operator under another name.
    for op in graph.ops:
        if graph.kind(op) == "DEQUANTIZE" and graph.name(int(op.inputs[0])) in values_by_name:
            values_by_name[graph.name(int(op.outputs[0]))] = values_by_name[
                graph.name(int(op.inputs[0]))
            ]
    return values_by_name


def seal(data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The file with these names of its inputs and outputs, also in its signature."""
    graph = Graph(data)
    if (len(graph.inputs), len(graph.outputs)) != (len(inputs), len(outputs)):
        raise InputError(
            f"the converted model has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, "
            f"the model has {len(inputs)} and {len(outputs)}"
        )
    graph.name_ends(inputs, outputs)
    return graph.pack()


def write_metadata(data: bytes, contract: Contract) -> bytes:
    """The file with TFLite metadata, and with a zip of labels and the contract after it.

    Readers of TFLite metadata (MediaPipe, Task Library, ML Kit, Android Studio) find the
    normalization, the colour order and the labels there; none of it is run. They only accept a zip
    of stored files, so the contract is compressed before it is packed.
    """
    graph = Graph(data)
    model = graph.model
    model.metadata = model.metadata or []
    entries = [entry for entry in model.metadata if entry.name == _METADATA.encode()]
    if not entries:
        entry = schema.MetadataT()
        entry.name, entry.buffer = _METADATA, len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
        entries = [entry]
    model.buffers[entries[0].buffer].data = np.frombuffer(_metadata(contract), np.uint8)
    files = {_CONTRACT: gzip.compress(records.dumps(contract).encode(), mtime=0)}
    if contract.preprocessing.labels:
        files[_LABELS] = ("\n".join(contract.preprocessing.labels) + "\n").encode()
    stream = io.BytesIO(graph.pack())
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), content, zipfile.ZIP_STORED)
    return stream.getvalue()


def contract(data: bytes) -> Contract | None:
    """The contract that `write_metadata` wrote.

    None if there is none, InputError if it is damaged.
    """
    Graph(data)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [n for n in (_CONTRACT, _DEFLATED_CONTRACT) if n in archive.namelist()]
            if not names:
                return None
            member = archive.getinfo(names[0])
            if member.file_size > _LARGEST_CONTRACT:
                raise InputError(f"{names[0]} of the TFLite file is too large")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(
                    f"{names[0]} of the TFLite file is compressed with an unknown method"
                )
            text = archive.read(names[0])
        if names[0] == _CONTRACT:
            text = _unpack(text)
    except (*zips.BROKEN, MemoryError) as error:
        raise InputError("the files packed behind the TFLite model are damaged") from error
    return records.loads(Contract, text, names[0])


def preprocessing(data: bytes) -> Preprocessing | None:
    """What standard metadata says of its first image; None if it says nothing."""
    return _tflite_metadata.of_file(Graph(data), data)


def _unpack(content: bytes) -> bytes:
    """A gzip file's content; InputError if it is larger than any contract."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    text = unpacker.decompress(content, _LARGEST_CONTRACT)
    if unpacker.unconsumed_tail:
        raise InputError(f"{_CONTRACT} of the TFLite file is too large")
    if not unpacker.eof:
        raise EOFError("the gzip file is truncated")
    return text


def _metadata(contract: Contract) -> bytes:
    """The flatbuffer of the schema `metadata_schema.fbs`, identifier M001, version 1.0.0.

    Slots are the positions of fields in the tables of the schema.
    """
    builder = flatbuffers.Builder(4096)
    signature = contract.signature
    if signature is None:
        image = ModelInput("image", "image", (*contract.resolution, 3), contract.preprocessing)
        signature = Signature((image,), (ModelOutput("scores", ()),))
    inputs = _tables(builder, [_input(builder, contract, end) for end in signature.inputs])
    answers = []
    chosen = tuple(end.name for end in signature.outputs) == postprocess.NAMES
    names = _OF_BOXES if chosen else [end.name for end in signature.outputs]
    for name in names:
        answer = {0: builder.CreateString(name), 1: builder.CreateString(contract.output)}
        if chosen and name == _LOCATION:
            answer[3] = _boxes(builder)
        if contract.preprocessing.labels and contract.task in _LABELLED:
            if not chosen:
                answer[6] = _label_files(builder, _AXIS_LABELS)
            elif name == _CATEGORY:
                answer[6] = _label_files(builder, _VALUE_LABELS)
        answers.append(_table(builder, answer))
    outputs = _tables(builder, answers)
    graph = _tables(builder, [_table(builder, {2: inputs, 3: outputs})])
    model_name, version = builder.CreateString(contract.name), builder.CreateString("1.0.0")
    builder.Finish(_table(builder, {0: model_name, 3: graph, 7: version}), file_identifier=b"M001")
    return bytes(builder.Output())


def _label_files(builder: Any, kind: int) -> int:
    """The labels as the associated file of an output."""
    name = builder.CreateString(_LABELS)
    return _tables(builder, [_table(builder, {0: name}, kinds={2: kind})])


def _boxes(builder: Any) -> int:
    """The content of the boxes of TFLite_Detection_PostProcess: BoundingBoxProperties.

    Their numbers are top, left, bottom and right, as fractions; the schema counts from the left.
    """
    index = int(builder.CreateNumpyVector(np.array((1, 0, 3, 2), np.uint32)))
    edges = _table(builder, {0: index}, kinds={1: 1, 2: 0})  # BOUNDARIES, RATIO
    return _table(builder, {1: edges}, kinds={0: 3})


def _input(builder: Any, contract: Contract, end: ModelInput) -> int:
    """The metadata of an input."""
    signature = contract.signature
    is_first = signature is None or end == signature.image
    pre = contract.preprocessing if is_first else end.preprocessing
    if end.kind == "tensor" or pre is None:
        return _table(builder, {0: builder.CreateString(end.name)})
    mean, std = _normalization(pre)
    options = _table(builder, {0: _floats(builder, mean), 1: _floats(builder, std)})
    unit = _table(builder, {1: options}, kinds={0: 1})  # NormalizationOptions
    height, width = end.shape[:2]
    size = _table(builder, {}, numbers={0: width, 1: height})
    # The schema has no name for BGR; 0 is unknown.
    image = _table(builder, {1: size}, kinds={0: _COLOR_SPACES.get(pre.channels, 0)})
    content = _table(builder, {1: image}, kinds={0: 2})  # ImageProperties
    low, high = ([(p - m) / s for m, s in zip(mean, std, strict=True)] for p in (0, 255))
    stats = _table(builder, {0: _floats(builder, high), 1: _floats(builder, low)})
    description = (
        f"{pre.channels.upper()}, {contract.layout}, {pre.resize} resize, crop {pre.crop:g}"
    )
    fields = {
        0: builder.CreateString(end.name),
        1: builder.CreateString(description),
        3: content,
        4: _tables(builder, [unit]),
        5: stats,
    }
    return _table(builder, fields)


def _normalization(pre: Preprocessing) -> tuple[list[float], list[float]]:
    """(mean, std) such that (p - mean) / std of a pixel p of 0..255 is the input."""
    low, high = pre.input_range
    unit = 255 / (high - low)
    channels = 1 if pre.channels == "gray" else 3
    return (
        [(m - low) * unit for m in pre.mean[:channels]],
        [s * unit for s in pre.std[:channels]],
    )


def _table(
    builder: Any,
    offsets: dict[int, int],
    *,
    kinds: dict[int, int] | None = None,
    numbers: dict[int, int] | None = None,
) -> int:
    """A table with offsets, one-byte `kinds` and four-byte `numbers` in its slots."""
    slots = (*offsets, *(kinds or {}), *(numbers or {}))
    builder.StartObject(max(slots) + 1)
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


def expose_tensor(data: bytes, tensor: str) -> bytes:
    """A copy whose one output is the tensor of that name."""
    graph = Graph(data)
    graph.subgraph.outputs = [_index(graph, tensor)]
    # A signature names outputs by index and would no longer fit.
    graph.model.signatureDefs = []
    return graph.pack()


def _index(graph: Graph, name: str) -> int:
    """The first tensor of that name; InputError if there is none."""
    for index in range(len(graph.subgraph.tensors)):
        if graph.name(index) == name:
            return index
    raise InputError(f"the TFLite file has no tensor named {name}")


def activations(facts: FileFacts) -> tuple[Tensor, ...]:
    """The tensors between operators, in the order of execution."""
    return tuple(t for layer in facts.layers for t in layer.outputs if not t.constant)


def extract_subgraph(data: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A copy with the inputs `inputs` and the outputs `outputs`, in this order.

    Operators that no output depends on are left out, and so are inputs that nothing reads. A tensor
    that is both is returned as its operator computes it.
    """
    graph = Graph(data)
    subgraph = graph.subgraph
    input_indices, output_indices = (
        [_index(graph, name) for name in names] for names in (inputs, outputs)
    )
    # Inputs come from the caller, even if an operator computes them.
    copies = {}
    for index in dict.fromkeys(input_indices):
        copies[index] = len(subgraph.tensors)
        subgraph.tensors.append(copy.copy(subgraph.tensors[index]))
    for op in graph.ops:
        op.outputs = [copies.get(int(i), int(i)) for i in op.outputs]
    new_outputs = [copies.get(index, index) for index in output_indices]
    needed_tensors, operators = set(new_outputs), []
    for op in reversed(graph.ops):
        if needed_tensors.intersection(op.outputs):
            operators.append(op)
            needed_tensors.update(int(i) for i in op.inputs)
    subgraph.operators = operators[::-1]
    subgraph.inputs = [index for index in input_indices if index in needed_tensors]
    subgraph.outputs = new_outputs
    graph.model.signatureDefs = []
    return graph.pack()


def _tensor(graph: Graph, index: int, constant: bool) -> Tensor:
    scale, _ = graph.scale(index)
    return Tensor(
        name=graph.name(index),
        shape=graph.shape(index),
        dtype=graph.type_name(index),
        scale=tuple(scale.tolist()),
        zero_point=graph.zero_points(index) if scale.size else (),
        axis=graph.axis(index) if scale.size > 1 else None,
        constant=constant,
    )


def _logits(layers: tuple[Layer, ...], output: str) -> str:
    """The input of the softmax behind `output`; changes of type in between are skipped."""
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    layer = makers.pop(output, None)
    while layer and layer.op in CASTS:
        # Each layer once: a graph may have a cycle.
        layer = makers.pop(layer.inputs[0].name, None)
    return layer.inputs[0].name if layer and layer.op == "SOFTMAX" else output
