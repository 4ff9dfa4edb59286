"""Models of any inputs, outputs and tasks, and files of other tools, as a user brings them."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import tf_keras
from PIL import Image

from tests import warm
from tests.layers import SIDE, detector_that_chooses

layers = tf_keras.layers


def run(*argv, cwd, code=0):
    result = subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *map(str, argv)],
        cwd=cwd,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert result.returncode == code, result.stderr
    return result


def answer(*argv, cwd):
    return json.loads(run(*argv, "--json", cwd=cwd).stdout)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A folder with a model of a photo, a gray image and numbers, with two outputs; and its data.

    The exported files are in build/several.
    """
    folder = tmp_path_factory.mktemp("several")
    tf_keras.utils.set_random_seed(0)
    photo, gray = layers.Input((24, 32, 3), name="photo"), layers.Input((12, 12, 1), name="gray")
    facts = layers.Input((5,), name="facts")
    x = layers.Conv2D(8, 3, activation="relu")(photo)
    y = layers.Conv2D(4, 3, activation="relu")(gray)
    pooled = [layers.GlobalAveragePooling2D()(z) for z in (x, y)]
    both = layers.Concatenate()([*pooled, layers.Dense(8, activation="relu")(facts)])
    ends = [layers.Dense(3, name="classes")(both), layers.Conv2D(2, 1, name="map")(x)]
    tf_keras.Model([photo, gray, facts], ends).save(folder / "several.h5")
    random = np.random.default_rng(0)
    np.savez(
        folder / "data.npz",
        photo=random.integers(0, 256, (60, 24, 32, 3)).astype(np.uint8),
        gray=random.integers(0, 256, (60, 12, 12)).astype(np.uint8),
        facts=random.normal(size=(60, 5)).astype(np.float32),
    )
    options = ("--data", "data.npz", "--input-range", "0,1", "--recipe", "float32,int8_ptq")
    run("export", "several.h5", *options, cwd=folder)
    return folder


@pytest.mark.slow
def test_several_inputs_and_outputs_become_files_of_both_formats(several):
    files = [f"build/several/{r}.{f}" for r in ("float32", "int8_ptq") for f in ("tflite", "onnx")]
    for file in files:
        record = json.loads((several / f"{file}.json").read_text())
        ends = record["signature"]
        assert [(end["name"], end["kind"]) for end in ends["inputs"]] == [
            ("photo", "image"),
            ("gray", "image"),
            ("facts", "tensor"),
        ]
        assert [(end["name"], end["shape"]) for end in ends["outputs"]] == [
            ("classes", [3]),
            ("map", [22, 30, 2]),
        ]
        assert record["spec"]["task"] == "tensors"
        assert [tensor["name"] for tensor in record["inputs"]] == ["photo", "gray", "facts"]
        assert all(image.endswith(".npz") for image in record["golden"]["images"])
    done = answer("evaluate", *files, cwd=several)
    by_path = dict(zip(done["paths"], done["evaluations"], strict=True))
    for file in files[2:]:
        assert by_path[file]["metrics"]["sqnr"] > 20
        assert by_path[file]["agreement"] > 0.9
    # TFLite and ONNX compute the same integers, and floats that differ by rounding alone.
    for one, other, tolerance in ((files[0], files[1], 1e-5), (files[2], files[3], 0.02)):
        pairs = zip(by_path[one]["predictions"], by_path[other]["predictions"], strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a["values"], b["values"], atol=tolerance)
    for file in files:
        assert "\npass: its golden answers" in run("verify", file, cwd=several).stdout


@pytest.mark.parametrize("runner", ["python", "native"])
def test_several_inputs_are_timed(several, runner, emulator):
    done = answer(
        *("bench", "build/several/int8_ptq.tflite", "build/several/float32.onnx"),
        *("--runner", runner, "--runs", "6"),
        cwd=several,
    )
    assert [len(figure["samples_ns"]) for figure in done["measurements"]] == [6, 6]
    assert not done["failed"]


def test_an_input_without_data_is_named(several):
    with np.load(several / "data.npz") as data:
        np.savez(several / "less.npz", **{name: data[name] for name in ("photo", "gray")})
    result = run(
        "evaluate", "build/several/float32.tflite", "--data", "less.npz", cwd=several, code=7
    )
    assert "facts" in result.stderr


@pytest.mark.slow
def test_a_model_of_numbers_alone_needs_no_input_range(tmp_path):
    """Its only array may have the name `images`, as docs/data.md says."""
    random = np.random.default_rng(0)
    numbers = random.normal(size=(60, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", images=numbers, labels=numbers[:, :3].argmax(1))
    numbers_in = layers.Input((12,), name="readings")
    last = layers.Dense(3, activation="softmax")
    model = tf_keras.Model(numbers_in, last(numbers_in))
    last.set_weights([4 * np.eye(12, 3), np.zeros(3)])
    model.save(tmp_path / "readings.h5")
    options = ("--data", "data.npz", "--recipe", "float32,int8_ptq")
    result = answer("export", "readings.h5", *options, cwd=tmp_path)
    assert [row["metrics"]["top1"] > 0.9 for row in result["rows"]] == [True] * 4
    file = "build/readings/int8_ptq.tflite"
    assert "\npass: its golden answers" in run("verify", file, cwd=tmp_path).stdout
    assert answer("evaluate", file, cwd=tmp_path)["evaluations"][0]["top1"] > 0.9
    refused = run("analyze", file, "--quantization", cwd=tmp_path, code=7)
    assert "takes no image" in refused.stderr


@pytest.mark.slow
def test_segmentation_with_images_and_masks(tmp_path):
    """A model that finds bright pixels, built by hand, and masks of them."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(40):
        bright = np.zeros((32, 32), bool)
        top, left = random.integers(0, 16, 2)
        bright[top : top + 14, left : left + 14] = True
        noise = random.integers(0, 60, (32, 32, 3)) + 150 * bright[..., None]
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / f"data/images/{number}.png")
        Image.fromarray(bright.astype(np.uint8)).save(tmp_path / f"data/masks/{number}.png")
    image = layers.Input((32, 32, 3))
    last = layers.Conv2D(2, 1, activation="softmax")
    model = tf_keras.Model(image, last(image))
    last.set_weights([np.full((1, 1, 3, 2), (-5, 5), np.float32), np.array([6.0, -6.0])])
    model.save(tmp_path / "bright.h5")
    options = ("--data", "data", "--input-range", "0,1", "--recipe", "float32,int8_ptq")
    result = answer("export", "bright.h5", *options, cwd=tmp_path)
    assert result["spec"]["task"] == "segmentation"
    assert len(result["rows"]) == 4
    for row in result["rows"]:
        assert row["metrics"]["miou"] > 0.99
        assert row["images"] == 32


def test_a_file_of_another_tool_needs_no_record(tmp_path, real_data):
    for name in ("vww_96_int8.tflite", "vww_96_float.tflite", "images.npz"):
        shutil.copy(real_data / "vww" / name, tmp_path)
    data = ("--data", "images.npz", "--input-range", "0,1")
    assert not answer("bench", "vww_96_int8.tflite", "--runs", "6", cwd=tmp_path)["failed"]
    done = answer("evaluate", "vww_96_int8.tflite", "vww_96_float.tflite", *data, cwd=tmp_path)
    integers, floats = done["evaluations"]
    assert (integers["task"], integers["images"]) == ("classification", 500)
    assert floats["top1"] == pytest.approx(0.842, abs=0.01)
    assert integers["agreement"] > 0.98
    diagnosis = answer("analyze", "vww_96_int8.tflite", "--quantization", *data, cwd=tmp_path)
    assert diagnosis["reference"] == "vww_96_float.tflite"
    assert diagnosis["remedies"]
    run("check", "vww_96_int8.tflite", "--update-baseline", *data, cwd=tmp_path)
    run("check", "vww_96_int8.tflite", *data, "--margin", "3", cwd=tmp_path)
    assert "vww_96_int8" in run("results", cwd=tmp_path).stdout
    unknown = run("evaluate", "vww_96_int8.tflite", "--data", "images.npz", cwd=tmp_path, code=2)
    assert "--input-range" in unknown.stderr
    absent = run("verify", "vww_96_int8.tflite", cwd=tmp_path, code=7)
    assert "golden samples" in absent.stderr


def test_a_task_that_the_outputs_cannot_have_is_refused(tmp_path, real_data):
    shutil.copy(real_data / "vww" / "vww_96_int8.tflite", tmp_path)
    shutil.copy(real_data / "vww" / "images.npz", tmp_path)
    data = ("--data", "images.npz", "--input-range", "0,1")
    result = run(
        "evaluate", "vww_96_int8.tflite", *data, "--task", "segmentation", cwd=tmp_path, code=2
    )
    assert "the task of this model is not segmentation" in result.stderr
    assert "--task" in result.stderr


@pytest.mark.slow
def test_values_of_several_units_keep_their_own_precision(tmp_path):
    """An age of up to 100 leaves a share no codes in int8; int8_best answers in float instead."""
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, 2, activation="relu6")(image))
    model = tf_keras.Model(image, layers.Dense(2, name="age_and_share")(x))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * [300, 0.3], bias])
    model.save(tmp_path / "units.h5")
    random = np.random.default_rng(0)
    low = random.integers(0, 200, (100, 1, 1, 1))
    images = (low + random.integers(0, 56, (100, 16, 16, 3))).astype(np.uint8)
    targets = model.predict(images / 255.0, verbose=0)
    np.savez(tmp_path / "data.npz", images=images, targets=targets)
    options = ("--data", "data.npz", "--input-range", "0,1", "--task", "regression")
    recipes = ("--recipe", "float32,int8_ptq,int8_best")
    rows = answer("export", "units.h5", *options, *recipes, cwd=tmp_path)
    assert "float-output" in {warning["name"] for warning in rows["warnings"]}
    fits = {(row["recipe"], row["format"]): row["metrics"]["r2"] for row in rows["rows"]}
    for format_ in ("tflite", "onnx"):
        assert fits["int8_ptq", format_] < 0.9
        assert fits["int8_best", format_] > 0.99
        record = json.loads(
            (tmp_path / "build" / "units" / f"int8_best.{format_}.json").read_text()
        )
        assert [end["dtype"] for end in record["inputs"]] == ["int8"]
        assert [end["dtype"] for end in record["outputs"]] == ["float32"]
    run("verify", "build/units/int8_best.tflite", cwd=tmp_path)
    diagnosis = answer(
        "analyze",
        "build/units/int8_ptq.tflite",
        "--quantization",
        "--data",
        "data.npz",
        cwd=tmp_path,
    )
    assert diagnosis["remedies"][0]["name"] == "float-output"
    assert diagnosis["remedies"][0]["layers"] == ["age_and_share"]


def test_a_detector_that_chooses_its_boxes_is_a_model(tmp_path):
    """A float TFLite that ends in LiteRT's operator: boxes of nearly equal score change places."""
    (tmp_path / "chooses.tflite").write_bytes(detector_that_chooses())
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    tables = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": SIDE, "width": SIDE} for n in range(12)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n % 2, "bbox": [1, 1, 4, 4], "iscrowd": 0}
            for n in range(12)
        ],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(tables))
    made = answer(
        *("export", "chooses.tflite", "--data", "boxes.json", "--task", "detection"),
        *("--input-range", "-1,1", "--recipe", "float32,int8_ptq", "--format", "tflite"),
        cwd=tmp_path,
    )
    records = tmp_path / made["folder"]
    plain, integers = (
        json.loads((records / f"{name}.tflite.json").read_text())
        for name in ("float32", "int8_ptq")
    )
    assert [end["dtype"] for end in integers["outputs"]] == ["float32"] * 4
    assert (plain["inputs"][0]["dtype"], integers["inputs"][0]["dtype"]) == ("float32", "int8")
