"""What a finished file says itself of its preprocessing, and that saying it changes no answer."""

from __future__ import annotations

import dataclasses
import gzip
import io
import struct
import zipfile

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers.number_types import (
    Float32Flags,
    Int8Flags,
    Int32Flags,
    Uint32Flags,
    UOffsetTFlags,
)
from onnxruntime import InferenceSession

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Contract, Golden, ModelInput, Preprocessing, Signature
from mobiledeploy.graphs import postprocess

LABELS = ("a cat", "ein Hund", "猫")
PREPROCESSING = Preprocessing((-1.0, 1.0), crop=0.875, labels=LABELS)
CONTRACT = Contract(
    "mobilenet_v1",
    PREPROCESSING,
    (64, 48),
    "NHWC",
    "softmax",
    Golden(("one",), ("golden/0.png",), ((1.5, -2.0, 0.25),), "litert 2.3.0", "x86_64 avx2"),
)


@pytest.fixture(params=[("int8_ptq", "tflite"), ("float32", "onnx")], ids=lambda p: p[1])
def case(request, converted):
    """(the format, a file of it)."""
    return FORMATS.load(request.param[1]), converted[request.param]


def test_a_contract_comes_back(case):
    shelf, data = case
    assert shelf.contract(data) is None
    content = shelf.write_metadata(data, CONTRACT)
    assert shelf.contract(content) == CONTRACT
    assert shelf.inspect(content) == shelf.inspect(data)


def test_the_bytes_are_the_same_and_a_second_contract_replaces_the_first(case):
    shelf, data = case
    other = dataclasses.replace(CONTRACT, name="other")
    once = shelf.write_metadata(data, CONTRACT)
    assert shelf.write_metadata(data, CONTRACT) == once
    again = shelf.write_metadata(shelf.write_metadata(data, other), CONTRACT)
    assert shelf.contract(again) == CONTRACT
    assert abs(len(again) - len(once)) < 64


def answers(data, format_):
    dice = np.random.default_rng(0)
    if format_ == "onnx":
        session = InferenceSession(data)
        input_ = session.get_inputs()[0]
        image = dice.uniform(-1, 1, input_.shape).astype(np.float32)
        return session.run(None, {input_.name: image})[0]
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    input_ = interpreter.get_input_details()[0]
    interpreter.set_tensor(
        input_["index"], dice.integers(-128, 128, input_["shape"]).astype(input_["dtype"])
    )
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_contract_changes_no_answer(case):
    shelf, data = case
    format_ = shelf.inspect(data).format
    content = shelf.write_metadata(data, CONTRACT)
    np.testing.assert_array_equal(answers(content, format_), answers(data, format_))


# TFLite, read as its metadata_schema.fbs says, with nothing of ours


def field(table, slot):
    """The place of a field, by its slot; 0 where it is absent."""
    offset = table.Offset(4 + 2 * slot)
    return table.Pos + offset if offset else 0


def child(table, slot):
    return flatbuffers.table.Table(table.Bytes, table.Indirect(field(table, slot)))


def first(table, slot, number=0):
    start = table.Vector(table.Offset(4 + 2 * slot)) + 4 * number
    return flatbuffers.table.Table(table.Bytes, table.Indirect(start))


def text(table, slot):
    return table.String(field(table, slot)).decode()


def floats(table, slot):
    offset = table.Offset(4 + 2 * slot)
    return [
        table.Get(Float32Flags, table.Vector(offset) + 4 * i)
        for i in range(table.VectorLen(offset))
    ]


def root_of(data):
    """The table of a file's metadata."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    (entry,) = [e for e in model.metadata if e.name == b"TFLITE_METADATA"]
    metadata_bytes = bytearray(np.asarray(model.buffers[entry.buffer].data, np.uint8).tobytes())
    assert metadata_bytes[4:8] == b"M001"
    root = struct.unpack_from("<I", metadata_bytes)[0]
    return flatbuffers.table.Table(metadata_bytes, root)


@pytest.fixture(scope="module")
def metadata(converted):
    data = FORMATS.load("tflite").write_metadata(converted["int8_ptq", "tflite"], CONTRACT)
    return root_of(data), data


def test_tflite_readers_find_the_normalization(metadata):
    root, _ = metadata
    assert (text(root, 0), text(root, 7)) == ("mobilenet_v1", "1.0.0")
    image = first(first(root, 3), 2)
    unit = first(image, 4)
    assert unit.Get(Int8Flags, field(unit, 0)) == 1
    options = child(unit, 1)
    assert floats(options, 0) == [127.5] * 3
    assert floats(options, 1) == [127.5] * 3
    assert floats(child(image, 5), 0) == [1.0] * 3
    assert floats(child(image, 5), 1) == [-1.0] * 3


def test_tflite_readers_find_the_image(metadata):
    root, _ = metadata
    content = child(first(first(root, 3), 2), 3)
    assert content.Get(Int8Flags, field(content, 0)) == 2
    image = child(content, 1)
    assert image.Get(Int8Flags, field(image, 0)) == 1
    size = child(image, 1)
    assert [size.Get(Int32Flags, field(size, slot)) for slot in (0, 1)] == [48, 64]


def test_tflite_readers_find_the_labels(metadata):
    root, data = metadata
    labels = first(first(first(root, 3), 3), 6)
    assert labels.Get(Int8Flags, field(labels, 2)) == 2
    assert labels.Get(UOffsetTFlags, field(labels, 0))
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.read(text(labels, 0)).decode().splitlines() == list(LABELS)


def test_tflite_readers_find_the_boxes_and_their_labels(converted):
    shelf = FORMATS.load("tflite")
    image = ModelInput("image", "image", (64, 48, 3), PREPROCESSING)
    signature = Signature((image,), postprocess.outputs())
    contract = dataclasses.replace(CONTRACT, signature=signature, task="detection")
    data = shelf.write_metadata(converted["int8_ptq", "tflite"], contract)
    outputs = [first(first(root_of(data), 3), 3, number) for number in range(4)]
    names = ["location", "category", "score", "number of detections"]
    assert [text(one, 0) for one in outputs] == names
    content = child(outputs[0], 3)
    assert content.Get(Int8Flags, field(content, 0)) == 3
    box = child(content, 1)
    # Top, left, bottom, right; as edges.
    assert box.GetVectorAsNumpy(Uint32Flags, box.Offset(4)).tolist() == [1, 0, 3, 2]
    assert box.Get(Int8Flags, field(box, 1)) == 1
    labels = first(outputs[1], 6)
    assert labels.Get(Int8Flags, field(labels, 2)) == 3
    assert [one.Offset(4 + 2 * 6) for one in (outputs[0], *outputs[2:])] == [0] * 3
    # A reader of the standard metadata alone finds them, as of another tool's file.
    assert shelf.preprocessing(data).labels == LABELS


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        (Preprocessing((0.0, 1.0)), [0] * 3, [255] * 3),
        (Preprocessing((0.0, 255.0)), [0] * 3, [1] * 3),
        (
            Preprocessing((0.0, 1.0), (0.5, 0.25, 0.0), (0.5, 0.5, 1.0)),
            [127.5, 63.75, 0],
            [127.5, 127.5, 255],
        ),
    ],
)
def test_normalization_is_in_pixels(changes, mean, std):
    from mobiledeploy.formats import tflite

    assert tflite._normalization(changes) == (mean, std)


def test_the_packed_files_are_stored_as_googles_readers_want_them(metadata):
    _, data = metadata
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert {entry.filename for entry in archive.infolist()} == {
        "labels.txt",
        "mobiledeploy.json.gz",
    }
    assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert len(archive.read("mobiledeploy.json.gz")) < len(records.dumps(CONTRACT))


def repacked(data, name, content, method=zipfile.ZIP_STORED):
    """The model with another file behind it."""
    stream = io.BytesIO(data[: data.index(b"PK\x03\x04")])
    with zipfile.ZipFile(stream, "a", method) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def test_a_contract_of_an_earlier_version_is_read(metadata):
    _, data = metadata
    earlier = repacked(data, "mobiledeploy.json", records.dumps(CONTRACT), zipfile.ZIP_DEFLATED)
    assert FORMATS.load("tflite").contract(earlier) == CONTRACT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(bytes(1 << 27), mtime=0), "too large"),
        (gzip.compress(bytes(10000), mtime=0)[:-12], "damaged"),
        (b"no gzip", "damaged"),
    ],
    ids=["bomb", "cut", "none"],
)
def test_packed_content_that_is_not_a_contract_is_refused(metadata, content, message):
    _, data = metadata
    with pytest.raises(InputError, match=message):
        FORMATS.load("tflite").contract(repacked(data, "mobiledeploy.json.gz", content))


def test_damaged_packed_files_are_refused(converted):
    shelf = FORMATS.load("tflite")
    data = bytearray(shelf.write_metadata(converted["int8_ptq", "tflite"], CONTRACT))
    data[data.rindex(b"PK\x03\x04mobile"[:4]) + 40] ^= 0xFF
    start = data.index(b"PK\x03\x04")
    for place in range(start + 60, start + 120):
        data[place] ^= 0xFF
    with pytest.raises(InputError, match="damaged"):
        shelf.contract(bytes(data))


# ONNX


def test_onnx_readers_find_the_contract(converted):
    data = FORMATS.load("onnx").write_metadata(converted["float32", "onnx"], CONTRACT)
    props = {p.key: p.value for p in onnx.load_model_from_string(data).metadata_props}
    assert props["Image.BitmapPixelFormat"] == "Rgb8"
    assert props["Image.NominalPixelRange"] == "Normalized_1_1"
    assert '"input_range":[-1.0,1.0]' in props["mobiledeploy.contract"]
    assert InferenceSession(data).get_modelmeta().custom_metadata_map == props


@pytest.mark.parametrize("golden", [None, "!", "AAAA"])
def test_damaged_golden_samples_are_refused(converted, golden):
    shelf = FORMATS.load("onnx")
    model = onnx.load_model_from_string(
        shelf.write_metadata(converted["float32", "onnx"], CONTRACT)
    )
    props = {p.key: p.value for p in model.metadata_props} | {"mobiledeploy.golden": golden}
    onnx.helper.set_model_props(model, {k: v for k, v in props.items() if v is not None})
    with pytest.raises(InputError, match="damaged"):
        shelf.contract(model.SerializeToString())
