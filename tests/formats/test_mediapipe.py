"""Finished files in MediaPipe's ImageClassifier: Google's own reader of TFLite metadata."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from mobiledeploy.core import artifacts, preprocessing
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.steps import consumers
from tests.variants import slow_but

TFLITE = FORMATS.load("tflite")


def images(size):
    """Noise, every pixel value in turn, black and white: at the model's own size."""
    dice = np.random.default_rng(0)
    noise = dice.integers(0, 256, (2, *size, 3), np.uint8)
    row = np.arange(noise[0].size, dtype=np.uint32).astype(np.uint8).reshape(1, *size, 3)
    return np.concatenate([noise, row, np.zeros_like(row), np.full_like(row, 255)])


def litert(data, pixels, pre):
    """[N, classes]: what LiteRT answers for images that are prepared as we do."""
    facts = TFLITE.inspect(data)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in pixels:
        x = preprocessing.prepare(image, pre, image.shape[:2])
        raw = preprocessing.to_input(x, facts.inputs[0], facts.layout)
        interpreter.set_tensor(source["index"], raw)
        interpreter.invoke()
        answer = interpreter.get_tensor(target["index"])
        rows.append(preprocessing.from_output(answer, facts.outputs[0]))
    return np.stack(rows)


@pytest.fixture
def ask_mediapipe(mediapipe, tmp_path):
    """(file, images) -> the answers of MediaPipe."""

    def ask(data, pixels):
        model, array_file = tmp_path / "model.tflite", tmp_path / "images.npy"
        model.write_bytes(data)
        np.save(array_file, pixels)
        return mediapipe.ask(model, array_file)

    return ask


def scores(answer, labels):
    """[N, classes], each score at its class, and each class by its name."""
    result = np.full((len(answer["images"]), len(labels)), np.nan)
    for row, categories in zip(result, answer["images"], strict=True):
        for category in categories:
            assert category["name"] == labels[category["index"]]
            row[category["index"]] = category["score"]
    return result


@pytest.mark.parametrize("name", slow_but(["float32", "int8_ptq"], "int8_ptq"))
def test_labels_and_scores_are_those_of_litert(unsigned, ask_mediapipe, name):
    path = unsigned / f"{name}.tflite"
    artifact, data = artifacts.load(path), path.read_bytes()
    assert artifact.io == {"float32": "float", "int8_ptq": "uint8"}[name]
    assert artifact.warnings == ()
    pre, pixels = artifact.spec.preprocessing, images(artifact.spec.resolution)
    assert pre.labels == tuple("abcde")
    ours = litert(data, pixels, pre)
    theirs = scores(ask_mediapipe(data, pixels), pre.labels)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6 if name == "float32" else 0)


def with_preprocessing(folder, name, **changes):
    """A file of the export with another preprocessing in its metadata, and that preprocessing."""
    data = (folder / f"{name}.tflite").read_bytes()
    contract = TFLITE.contract(data)
    pre = dataclasses.replace(contract.preprocessing, **changes)
    bare = data[: data.index(b"PK\x03\x04")]
    return TFLITE.write_metadata(bare, dataclasses.replace(contract, preprocessing=pre)), pre


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"input_range": (0.0, 1.0)}, marks=pytest.mark.slow),
        pytest.param({"input_range": (0.0, 255.0)}, marks=pytest.mark.slow),
        {"input_range": (0.0, 1.0), "mean": (0.25,) * 3, "std": (0.5,) * 3},
    ],
)
def test_floats_are_normalized_there_as_here(unsigned, ask_mediapipe, changes):
    data, pre = with_preprocessing(unsigned, "float32", **changes)
    pixels = images((32, 32))
    theirs = scores(ask_mediapipe(data, pixels), pre.labels)
    np.testing.assert_allclose(theirs, litert(data, pixels, pre), rtol=0, atol=1e-5)


def test_the_documented_crop_is_right(unsigned, ask_mediapipe):
    data, pre = with_preprocessing(unsigned, "float32", crop=0.5)
    dice = np.random.default_rng(0)
    # The image is bright in the middle, so a crop is another image.
    pixels = dice.integers(0, 60, (2, 32, 32, 3), np.uint8)
    pixels[:, 8:24, 8:24] += 190
    theirs = scores(ask_mediapipe(data, pixels), pre.labels)
    whole = litert(data, pixels, dataclasses.replace(pre, crop=1.0))
    np.testing.assert_allclose(theirs, whole, rtol=0, atol=1e-6)
    assert np.abs(theirs - litert(data, pixels, pre)).max() > 1e-3
    codes, _ = with_preprocessing(unsigned, "int8_ptq", crop=0.5)
    assert [d.name for d in consumers.warnings(pre, TFLITE.inspect(codes))] == ["metadata-crop"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": "bgr"}, "Only RGB color space"),
        pytest.param(
            {"mean": (0.1, 0.2, 0.3)}, "Per-channel image normalization", marks=pytest.mark.slow
        ),
    ],
)
def test_documented_refusals_happen(unsigned, ask_mediapipe, changes, message):
    data, pre = with_preprocessing(unsigned, "float32", **changes)
    assert message in ask_mediapipe(data, images((32, 32)))["error"]
    (warning,) = consumers.warnings(pre, TFLITE.inspect(data))
    assert "refuses the file" in warning.message
