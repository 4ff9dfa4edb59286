"""Float TFLite files as models: their preprocessing and their outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import zipfile

import flatbuffers
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter

from mobiledeploy.core.batches import Batch
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS, RECIPES, WRITERS, source_of
from mobiledeploy.core.types import (
    Contract,
    Golden,
    Model,
    ModelSpec,
    Preprocessing,
    Source,
    Weights,
)
from mobiledeploy.formats import tflite as shelf
from mobiledeploy.graphs import execution, quantized
from mobiledeploy.graphs.graph import Graph
from mobiledeploy.sources import tflite
from mobiledeploy.sources._tensorflow import TensorFlowModel
from mobiledeploy.steps import model_files
from tests.conftest import press_floats
from tests.networks import answers, taking_images

SIZE = (16, 16)
IMAGES = np.random.default_rng(0).random((3, *SIZE, 3), np.float32)
LABELS = ("cat", "dog", "fish", "snail")


def network(last):
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    return Model(
        "tf_keras",
        tf_keras.Sequential(
            [
                layers.Input((*SIZE, 3)),
                layers.Conv2D(64, 3, activation="relu"),
                layers.Conv2D(64, 3),
                layers.GlobalAveragePooling2D(),
                layers.Dense(4, activation=last),
            ]
        ),
    )


@functools.cache
def converted_network(last):
    return TensorFlowModel(taking_images(network(last), SIZE), ["scores"]).floats("model")


@pytest.fixture(scope="module", params=["softmax", "linear"])
def floats(request):
    """(whether it ends in a softmax, a float TFLite of four classes)."""
    return request.param == "softmax", converted_network(request.param)


def opened(path, content, **changes):
    path.write_bytes(content)
    file = model_files.detect(path)
    spec = ModelSpec(
        "x",
        None,
        file.framework,
        {},
        (0, 0),
        0,
        Preprocessing((0.0, 1.0)),
        Weights("x", "", pinned=False),
    )
    source = Source(spec, file=file, **changes)
    return source_of(source).open(source)


def test_it_answers_with_the_requested_output(floats, tmp_path):
    softmax, content = floats
    there = opened(tmp_path / "x.bin", content)
    assert (there.inputs[0].shape, there.network) == ((*SIZE, 3), None)
    assert there.ends_in_softmax() == softmax
    own = execution.run(content, IMAGES)
    logits = execution.logits(content, IMAGES)
    np.testing.assert_array_equal(answers(there, IMAGES), logits)
    visible = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for output, expected in (("model", own), ("logits", logits), ("softmax", visible)):
        result = there.floats(output)
        np.testing.assert_allclose(execution.run(result, IMAGES), expected, atol=1e-6)
        sealed = shelf.seal(result, ["image"], ["scores"])
        assert Interpreter(model_content=sealed).get_signature_list() == {
            "serving_default": {"inputs": ["image"], "outputs": ["scores"]}
        }
        assert shelf.inspect(sealed).inputs[0].name == "image"


def test_float16_is_widened(tmp_path):
    content = converted_network("softmax")
    half = quantized.without_calibration(content, RECIPES.load("float16").RECIPE)
    assert len(half) < 0.6 * len(content)
    there = opened(tmp_path / "x.tflite", half)
    wide = there.floats("model")
    assert abs(len(wide) - len(content)) < 4000
    kinds = {layer.op for layer in shelf.inspect(wide).layers}
    assert "DEQUANTIZE" not in kinds
    np.testing.assert_allclose(execution.run(wide, IMAGES), execution.run(half, IMAGES), atol=1e-5)


@pytest.mark.parametrize("recipe", ["int8_ptq", "dynamic_int8"])
def test_integers_are_refused_with_what_can_be_done(recipe, tmp_path):
    path = tmp_path / "ready.tflite"
    path.write_bytes(press_floats(converted_network("softmax"), recipe, "tflite", IMAGES))
    with pytest.raises(
        InputError, match=r"already holds integers \(int.*evaluate, bench.*ready"
    ) as messages:
        tflite.detect(path)
    assert "\n" not in str(messages.value)


def test_our_own_contract_is_read(floats, tmp_path):
    pre = Preprocessing((-1.0, 1.0), crop=0.875, channels="bgr", labels=LABELS)
    contract = Contract("x", pre, SIZE, "NHWC", "softmax", Golden((), (), (), ""))
    path = tmp_path / "x.tflite"
    path.write_bytes(shelf.write_metadata(floats[1], contract))
    assert tflite.detect(path).preprocessing == pre


def without_contract(content):
    """The file as other tools write it: standard metadata and labels, no contract of ours."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream) as archive:
        remaining = {n: archive.read(n) for n in archive.namelist() if n == "labels.txt"}
        end = min(member.header_offset for member in archive.infolist())
    out = io.BytesIO(content[:end])
    with zipfile.ZipFile(out, "a") as archive:
        for name, text in remaining.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return out.getvalue()


@pytest.mark.parametrize(
    "pre",
    [
        Preprocessing((-1.0, 1.0), labels=LABELS),
        Preprocessing((0.0, 1.0)),
        Preprocessing((0.0, 255.0), labels=LABELS),
        Preprocessing((0.0, 1.0), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    ],
    ids=["ends", "unit", "bytes", "channels"],
)
def test_standard_metadata_is_read(floats, tmp_path, pre):
    contract = Contract("x", pre, SIZE, "NHWC", "softmax", Golden((), (), (), ""))
    path = tmp_path / "x.tflite"
    path.write_bytes(without_contract(shelf.write_metadata(floats[1], contract)))
    assert FORMATS.load("tflite").contract(path.read_bytes()) is None
    result = tflite.detect(path).preprocessing
    assert result.labels == pre.labels
    assert result.input_range == pre.input_range
    np.testing.assert_allclose(result.mean, pre.mean, atol=1e-5)
    np.testing.assert_allclose(result.std, pre.std, atol=1e-5)


def test_numbers_before_the_class_names_are_no_part_of_them(floats, tmp_path):
    numbered = tuple(f"{number} {name}" for number, name in enumerate(LABELS))
    contract = Contract(
        "x",
        Preprocessing((0.0, 1.0), labels=numbered),
        SIZE,
        "NHWC",
        "softmax",
        Golden((), (), (), ""),
    )
    path = tmp_path / "x.tflite"
    path.write_bytes(without_contract(shelf.write_metadata(floats[1], contract)))
    assert tflite.detect(path).preprocessing.labels == LABELS


def test_a_file_without_metadata_has_no_preprocessing(floats, tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(floats[1])
    assert tflite.detect(path).preprocessing is None


def described(content, metadata):
    """A file with other bytes for metadata."""
    graph = Graph(content)
    pre = Preprocessing((0.0, 1.0), labels=LABELS)
    contract = Contract("x", pre, SIZE, "NHWC", "softmax", Golden((), (), (), ""))
    graph = Graph(without_contract(shelf.write_metadata(content, contract)))
    (entry,) = (e for e in graph.model.metadata if e.name == b"TFLITE_METADATA")
    whole = bytes(graph.model.buffers[entry.buffer].data)
    graph.model.buffers[entry.buffer].data = np.frombuffer(metadata(whole), np.uint8)
    return graph.pack()


@pytest.mark.parametrize("seed", range(60))
def test_damaged_metadata_is_refused_or_read(floats, tmp_path, seed):
    """Any bytes give either a reading or an error in one line."""
    dice = np.random.default_rng(seed)

    def damaged(whole):
        data = bytearray(whole)
        for _ in range(1 + seed % 8):
            data[dice.integers(8, len(data))] = dice.choice([0, 1, 127, 128, 254, 255])
        return bytes(data[: dice.integers(40, len(data) + 1)]) if seed % 3 == 0 else bytes(data)

    path = tmp_path / "x.tflite"
    path.write_bytes(described(floats[1], damaged))
    with contextlib.suppress(InputError):
        tflite.detect(path)


def test_labels_that_inflate_are_refused(floats, tmp_path):
    content = described(floats[1], lambda whole: whole)
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.txt", b"a\n" * (1 << 20), zipfile.ZIP_DEFLATED)
    path = tmp_path / "x.tflite"
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="class names .* cannot be read"):
        tflite.detect(path)


def reshaped(content, change):
    graph = Graph(content)
    change(graph)
    return graph.pack()


def test_another_resolution_is_refused(floats, tmp_path):
    with pytest.raises(UsageError, match="takes 16x16 only"):
        opened(tmp_path / "x.tflite", floats[1], resolution=(32, 32))
    (image,) = opened(tmp_path / "x.tflite", floats[1], resolution=SIZE).inputs
    assert image.shape == (*SIZE, 3)


@functools.cache
def open_to_any_size():
    """A float TFLite of images of any size and number; it enlarges by the shape of its input."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((None, None, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(image)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.DepthwiseConv2D(3, 2)(layers.Concatenate()([image, x]))
    x = layers.GlobalAveragePooling2D()(x)
    model = tf_keras.Model(image, layers.Dense(4, activation="softmax")(x))
    return model, tf.lite.TFLiteConverter.from_keras_model(model).convert()


def test_res_sets_the_size_of_a_file_with_a_dynamic_size(tmp_path):
    model, content = open_to_any_size()
    kinds = {Graph(content).kind(op) for op in Graph(content).ops}
    assert {"SHAPE", "SLICE", "MUL"} <= kinds
    there = opened(tmp_path / "x.tflite", content, resolution=(20, 20))
    assert there.inputs[0].shape == (20, 20, 3)
    images = np.random.default_rng(1).random((3, 20, 20, 3), np.float32)
    result = there.floats("model")
    np.testing.assert_allclose(execution.run(result, images), model(images), atol=1e-6)
    graph = Graph(result)
    assert all(tensor.shapeSignature is None for tensor in graph.subgraph.tensors)
    assert all(np.prod(graph.shape(int(i))) > 1 for op in graph.ops for i in op.outputs)
    assert not {"SHAPE", "SLICE", "MUL"} & {graph.kind(op) for op in graph.ops}
    session = onnxruntime.InferenceSession(WRITERS.load("onnx").write(result))
    (image,) = session.get_inputs()
    (answer,) = session.run(None, {image.name: images[:1].transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(answer, model(images[:1]), atol=1e-6)
    start = quantized.start(result, RECIPES.load("int8_ptq").RECIPE, "int8", images)
    assert shelf.float_layers(shelf.inspect(quantized.integers(start))) == ()


def test_a_file_with_a_dynamic_size_needs_res(tmp_path):
    _, content = open_to_any_size()
    with pytest.raises(UsageError, match=r"takes images of any size") as messages:
        opened(tmp_path / "x.tflite", content)
    assert messages.value.hint == "choose one: --res 224"
    with pytest.raises(InputError, match=r"cannot take \[1, 1, 1, 3\]: LiteRT"):
        opened(tmp_path / "x.tflite", content, resolution=(1, 1))


def converted(model, batch):
    """A float TFLite as TFLiteConverter makes it of a live model, with a fixed batch."""
    signature = [
        tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype, tensor.name.partition(":")[0])
        for tensor in model.inputs
    ]
    call = tf.function(lambda *tensors: model(list(tensors) if len(tensors) > 1 else tensors[0]))
    concrete = call.get_concrete_function(*signature)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], model).convert()


def test_a_fixed_batch_becomes_one_sample(tmp_path):
    """Its Flatten and Reshape hold the batch as a constant."""
    layers = tf_keras.layers
    image = layers.Input((8, 8, 3))
    x = layers.Reshape((4, 27))(layers.Conv2D(3, 3)(image))
    model = tf_keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))
    there = opened(tmp_path / "x.tflite", converted(model, 8))
    images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    content = there.floats("model")
    assert Graph(content).shape(Graph(content).inputs[0]) == (1, 8, 8, 3)
    np.testing.assert_allclose(execution.run(content, images), model(images), atol=1e-5)
    np.testing.assert_allclose(answers(there, images), model(images), atol=1e-5)


def test_channels_first_become_last_in_the_file(tmp_path):
    layers = tf_keras.layers
    image = layers.Input((3, 10, 12))
    x = layers.Conv2D(4, 3)(layers.Permute((2, 3, 1))(image))
    model = tf_keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    there = opened(tmp_path / "x.tflite", converted(model, 1))
    assert there.inputs[0].shape == (10, 12, 3)
    images = np.random.default_rng(0).random((3, 10, 12, 3), np.float32)
    graph = Graph(there.floats("model"))
    # The model's own TRANSPOSE undid the one in front of it.
    assert "TRANSPOSE" not in {graph.kind(op) for op in graph.ops}
    expected = model(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(execution.run(graph.pack(), images), expected, atol=1e-5)


def test_uint8_images_become_float_pixels(tmp_path):
    layers = tf_keras.layers
    image = layers.Input((8, 8, 1), dtype="uint8")
    x = layers.Conv2D(3, 3)(layers.Rescaling(1 / 255)(image))
    model = tf_keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    there = opened(tmp_path / "x.tflite", converted(model, 1))
    assert (there.inputs[0].shape, there.inputs[0].dtype) == ((8, 8, 1), "uint8")
    graph = Graph(there.floats("model"))
    assert graph.type_name(graph.inputs[0]) == "float32"
    assert "CAST" not in {graph.kind(op) for op in graph.ops}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    answer = execution.run(graph.pack(), pixels.astype(np.float32))
    np.testing.assert_allclose(answer, model(pixels), atol=1e-5)


def test_several_inputs_and_outputs_stay_in_order(tmp_path):
    layers = tf_keras.layers
    left, numbers = layers.Input((8, 8, 3)), layers.Input((5,))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(left))
    both = layers.Concatenate()([x, numbers])
    model = tf_keras.Model(
        [left, numbers], [layers.Dense(4)(both), layers.Dense(2, activation="sigmoid")(x)]
    )
    there = opened(tmp_path / "x.tflite", converted(model, 1))
    assert {end.kind for end in there.inputs} == {"image", "tensor"}
    random = np.random.default_rng(0)
    arrays = {shape: random.random((3, *shape), np.float32) for shape in ((8, 8, 3), (5,))}
    batch = Batch(tuple(arrays[end.shape] for end in there.inputs))
    expected = {x.shape: x for x in map(np.asarray, model(list(arrays.values())))}
    for own in (there.answers(batch), execution.answers(there.floats("model"), batch)):
        assert len(own) == len(there.output_names)
        for answer in own:
            np.testing.assert_allclose(answer, expected[answer.shape], atol=1e-5)


def test_a_file_that_changed_is_refused(floats, tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(floats[1])
    file = dataclasses.replace(model_files.detect(path), sha256="0" * 64)
    spec = ModelSpec(
        "x",
        None,
        "tflite",
        {},
        (0, 0),
        0,
        Preprocessing((0.0, 1.0)),
        Weights("x", "", pinned=False),
    )
    with pytest.raises(InputError, match="changed while it was read"):
        tflite.open(Source(spec, file=file))


def test_other_files_are_not_tflite(tmp_path, model_files):
    for name in ("k2.h5", "k3.keras", "k2_saved"):
        assert tflite.detect(model_files / name) is None
    (tmp_path / "x.tflite").write_bytes(b"\0\0\0\0TFL3" + flatbuffers.Builder(64).Bytes)
    with pytest.raises(InputError, match=r"x\.tflite"):
        tflite.detect(tmp_path / "x.tflite")
