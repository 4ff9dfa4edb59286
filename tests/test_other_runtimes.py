"""The lines of docs/other-runtimes.md run as they are, and answer golden samples as we do."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobiledeploy as md
from mobiledeploy.core import artifacts, records
from mobiledeploy.core.plugins import FORMATS, TASKS
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import (
    AnchorLevel,
    Anchors,
    AppContract,
    Contract,
    Golden,
    ModelInput,
    ModelOutput,
    Preprocessing,
    Signature,
)
from mobiledeploy.graphs import postprocess
from mobiledeploy.verbs.app import app
from tests.lite import Lite, answers
from tests.oracles import environment
from tests.variants import slow_but

PAGE = Path(__file__).resolve().parent.parent / "docs" / "other-runtimes.md"
BROWSER = Path(__file__).parent / "apps" / "browser.py"
BLOCK = re.compile(r"^```\w+\n(?:# |// |<!-- )([\w.]+)(?: -->)?\n(.*?)^```", re.M | re.S)
COMMAND = re.compile(r"^\$ python (-m onnxruntime.+)", re.M)
CLASSES = 12
SIDE = 12
"""Of the image of the tiny detector, in pixels."""
# Scores of a float file have this relative error and no codes; those of int8 have steps of 1/256.
EXACT = {"rtol": 2e-3, "atol": 1e-9}
STEPS = {"rtol": 0, "atol": 2 / 256}


@pytest.fixture
def lines(tmp_path):
    """The page's files, in the test's folder."""
    for name, text in BLOCK.findall(PAGE.read_text("utf-8")):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """build(io): the folder of the page's export, for ends of this type."""

    @functools.cache
    def made(io):
        folder = tmp_path_factory.mktemp(io)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MOBILEDEPLOY_STORE", str(folder / "store"))
            recipes, format_ = ("float32", "int8_ptq"), None if io == "float" else "tflite"
            options = {"recipe": recipes, "format": format_, "io": io, "out": folder}
            done = md.export(alpha=0.25, res=96, timed=False, reporter=SILENT, **options)
        return Path(done.folder)

    return made


def samples(path, folder):
    """Images of the model's own size in `folder`, and our answers for them [N, classes].

    So no runtime resizes them.
    """
    app(path, language="python", out=folder, reporter=SILENT)
    contract = records.loads(AppContract, (folder / "contract.json").read_text())
    height, width, channels = contract.image.shape
    images, answers = [], []
    for sample in contract.golden:
        pixels = np.frombuffer((folder / sample.pixels).read_bytes(), np.uint8)
        images.append(folder / f"{Path(sample.image).stem}.png")
        Image.fromarray(pixels.reshape(height, width, channels)).save(images[-1])
        answers.append(np.frombuffer((folder / sample.outputs[0]).read_bytes(), "<f4"))
    return images, np.stack(answers)


def answered(python, *arguments, cwd):
    """The JSON lines that a script of the page prints."""
    done = subprocess.run(
        [str(python), *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )
    if missing := re.search(r"(\S+\.so\S*): cannot open shared object", done.stderr):
        pytest.skip(f"MediaPipe lacks {missing[1]} (.ci/run installs it)")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def alike(theirs, ours, recipe):
    np.testing.assert_allclose(theirs, ours, **(EXACT if recipe == "float32" else STEPS))


def replaced(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


# MediaPipe Tasks


@pytest.fixture
def mediapipe_python(mediapipe):
    """The interpreter of MediaPipe's environment."""
    return mediapipe.python


@pytest.mark.slow
@pytest.mark.parametrize("io", ["float", "uint8"])
@pytest.mark.parametrize("recipe", ["float32", "int8_ptq"])
def test_mediapipe_answers_as_we_do(recipe, io, lines, build, mediapipe_python):
    path = build(io) / f"{recipe}.tflite"
    images, ours = samples(path, lines / "app")
    theirs = answered(mediapipe_python, "mediapipe_tasks.py", path, *images, cwd=lines)
    labels = artifacts.load(path).spec.preprocessing.labels
    assert [set(one) for one in theirs] == [set(labels)] * len(images)
    alike([[one[name] for name in labels] for one in theirs], ours, recipe)


@pytest.mark.slow
def test_mediapipe_refuses_int8_as_the_page_says(lines, build, mediapipe_python):
    arguments = [mediapipe_python, "mediapipe_tasks.py", build("int8") / "int8_ptq.tflite"]
    done = subprocess.run(arguments, cwd=lines, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Requested one of these types: uint8/float32, got INT8" in done.stderr
    assert "Requested one of these types: uint8/float32, got INT8" in PAGE.read_text("utf-8")


def detector(folder, kind, output="detections"):
    """A tiny detector whose raw boxes and scores are numbers of its image, as a TFLite file."""
    anchors = Anchors((AnchorLevel((4, 4), ((0.3, 0.3),)),), (10.0, 10.0, 5.0, 5.0))
    count, names = anchors.count, tuple("wxyz")
    lite = Lite()
    dtype, grid = (np.uint8, (2 / 255, 127)) if kind == "uint8" else (np.float32, None)
    given = lite.input((1, SIDE, SIDE, 3), name="image", dtype=dtype, grid=grid)
    image = lite.op("DEQUANTIZE", [given], (1, SIDE, SIDE, 3)) if grid else given
    flat, start, raw = (1, SIDE * SIDE * 3), 0, []
    sides = lite.constant(np.array(flat, np.int32))
    numbers = lite.op("RESHAPE", [image, sides], flat, options="ReshapeOptions", newShape=[*flat])
    for size in (4, len(names)):
        limits = [lite.constant(np.array(x, np.int32)) for x in ((0, start), (1, count * size))]
        part = lite.op("SLICE", [numbers, *limits], (1, count * size), options="SliceOptions")
        shape = (1, count, size)
        sides = lite.constant(np.array(shape, np.int32))
        raw.append(
            lite.op("RESHAPE", [part, sides], shape, options="ReshapeOptions", newShape=[*shape])
        )
        start += count * size
    raw[1] = lite.op("LOGISTIC", [raw[1]], (1, count, len(names)))
    ends = (
        ModelOutput("boxes", (count, 4), anchors=anchors),
        ModelOutput("scores", (count, len(names)), "sigmoid"),
    )
    how = Preprocessing((-1.0, 1.0), labels=names)
    inputs = (ModelInput("image", "image", (SIDE, SIDE, 3), how),)
    content = lite.file(*raw)
    if output == "detections":
        content = postprocess.append(content, Signature(inputs, ends))
        ends = postprocess.outputs()
    shelf = FORMATS.load("tflite")
    signature = Signature(inputs, ends)
    content = shelf.seal(content, ["image"], [end.name for end in ends])
    contract = Contract(
        *("tiny", how, (SIDE, SIDE), "NHWC", output, Golden((), (), (), "")),
        signature=signature,
        task="detection",
    )
    path = folder / "tiny.tflite"
    path.write_bytes(shelf.write_metadata(content, contract))
    return path, signature


@pytest.mark.parametrize("kind", slow_but(["float32", "uint8"], "float32"))
def test_mediapipe_finds_the_boxes_that_we_find(kind, lines, mediapipe_python):
    path, signature = detector(lines, kind)
    # No two of the first 256 are alike, so that no scores are.
    dice = np.random.default_rng(3)
    drawn = np.concatenate([dice.permutation(256) for _ in range(2)])[: SIDE * SIDE * 3]
    pixels = drawn.astype(np.uint8).reshape(SIDE, SIDE, 3)
    Image.fromarray(pixels).save(lines / "image.png")
    given = pixels if kind == "uint8" else (pixels / 127.5 - 1).astype(np.float32)
    outputs = [x[0] for x in answers(path.read_bytes(), given[None])]
    ours = TASKS.load("detection").decode(outputs, signature.outputs)
    said = answered(mediapipe_python, "mediapipe_boxes.py", path, "image.png", cwd=lines)
    theirs = [(name, score, *place) for place, scores in said for name, score in scores.items()]
    own = []
    for score, number, box in zip(ours.scores, ours.classes, ours.boxes, strict=True):
        left, top, right, bottom = SIDE * np.array(box)
        if score >= 0.5:
            own.append(("wxyz"[number], score, left, top, right - left, bottom - top))
    assert len(own) > 20
    assert [one[0] for one in sorted(theirs)] == [one[0] for one in sorted(own)]
    theirs, own = (np.array([one[1:] for one in sorted(rows)]) for rows in (theirs, own))
    np.testing.assert_allclose(theirs[:, 0], own[:, 0], atol=1e-5)
    np.testing.assert_array_equal(theirs[:, 1:], np.trunc(own[:, 1:]))


def test_mediapipe_refuses_raw_boxes_as_the_page_says(lines, mediapipe_python):
    path, _ = detector(lines, "float32", "model")
    arguments = [mediapipe_python, "mediapipe_boxes.py", path]
    done = subprocess.run(arguments, cwd=lines, capture_output=True, text=True)
    assert done.returncode == 1
    message = "Expected BoundingBoxProperties for tensor boxes, found none"
    assert message in done.stderr
    assert message in " ".join(PAGE.read_text("utf-8").split())


# ML Kit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("io", "recipe", "type_"),
    [
        ("float", "float32", "float32"),
        ("float", "int8_ptq", "float32"),
        ("uint8", "int8_ptq", "uint8"),
    ],
)
def test_a_file_has_what_ml_kit_asks_for(io, recipe, type_, build, mediapipe_python, tmp_path):
    path = build(io) / f"{recipe}.tflite"
    script = environment.HERE / "mediapipe_metadata.py"
    (told,) = answered(mediapipe_python, script, path, cwd=tmp_path)
    (image,), (scores,) = told["inputs"], told["outputs"]
    assert (image["type"], image["shape"], image["rgb"]) == (type_, [1, 96, 96, 3], True)
    ((mean, std),) = image["normalization"]
    np.testing.assert_allclose([mean, std], [[127.5] * 3] * 2, atol=1 if type_ == "uint8" else 0)
    assert scores["shape"] == [1, CLASSES]
    assert scores["axis_labels"] == ["labels.txt"]
    assert scores["labels"] == [list(artifacts.load(path).spec.preprocessing.labels)]


# ONNX Runtime Mobile


def ort(folder, cwd):
    """The .ort files of a folder's .onnx files, by the page's command."""
    (arguments,) = COMMAND.findall(PAGE.read_text("utf-8"))
    *words, _ = arguments.split()
    done = subprocess.run(
        [sys.executable, *words, str(folder)], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return cwd / "ort"


def test_an_ort_file_answers_as_its_onnx_file(exported, lines):
    path = exported["float32", "onnx"]
    (lines / "models").mkdir()
    shutil.copy(path, lines / "models")
    made = ort(lines / "models", lines) / "float32.ort"
    images, ours = samples(path, lines / "app")
    alike(answered(sys.executable, "ort_mobile.py", made, *images, cwd=lines), ours, "float32")
    # And a mistake in these lines would be seen.
    replaced(lines / "ort_mobile.py", "/ 127.5 - 1", "/ 255")
    theirs = answered(sys.executable, "ort_mobile.py", made, *images, cwd=lines)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        alike(theirs, ours, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float32", "int8_ptq"])
def test_an_ort_file_of_the_page_answers_as_its_onnx_file(recipe, lines, build):
    made = ort(build("float"), lines) / f"{recipe}.ort"
    images, ours = samples(build("float") / f"{recipe}.onnx", lines / "app")
    alike(answered(sys.executable, "ort_mobile.py", made, *images, cwd=lines), ours, recipe)
    operators = (made.parent / "required_operators.config").read_text()
    assert "QLinearConv" in operators


# LiteRT.js


@pytest.fixture
def page(lines):
    """page(model, images): what the page in the browser shows for them, a line each."""
    script = environment.package("litertjs")
    if script is None:
        pytest.skip(f"no LiteRT.js at {environment.package_place('litertjs')} (make oracle)")
    if not shutil.which("chromedriver"):
        pytest.skip("no chromedriver (apt install chromium-driver)")
    pytest.importorskip("selenium", reason="no selenium (mobiledeploy[dev])")
    (lines / "node_modules").symlink_to(environment.package_place("litertjs") / "node_modules")

    def shown(model, images):
        shutil.copy(model, lines / "model.tflite")
        return answered(sys.executable, BROWSER, lines, "app", *images, cwd=lines)

    return shown


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float32", "int8_ptq"])
def test_litert_js_answers_as_we_do(recipe, page, lines, build):
    path = build("float") / f"{recipe}.tflite"
    images, ours = samples(path, lines / "app")
    alike(page(path, images), ours, recipe)


@pytest.mark.slow
def test_litert_js_takes_pixels_as_codes(page, lines, build):
    path = build("uint8") / "int8_ptq.tflite"
    images, ours = samples(path, lines / "app")
    assert "gets `Uint8Array.from(rgb)` instead" in PAGE.read_text("utf-8")
    old = "Float32Array.from(rgb, (p) => p / 127.5 - 1)"
    replaced(lines / "classify.js", old, "Uint8Array.from(rgb)")
    (step,) = artifacts.load(path).outputs[0].scale
    alike(np.array(page(path, images)) * step, ours, "int8_ptq")


@pytest.mark.slow
def test_litert_js_refuses_int8_as_the_page_says(page, lines, build):
    path = build("int8") / "int8_ptq.tflite"
    images, _ = samples(path, lines / "app")
    # The page itself says nothing of it: it stands in the browser's console.
    caught = """const model = await loaded.catch((error) => {
      document.querySelector("pre").append(JSON.stringify(error.message));
      document.body.dataset.state = "done";
      throw error;
    });"""
    replaced(lines / "classify.js", "const model = await loaded;", caught)
    (message,) = page(path, images)
    assert message.rstrip(".") == "Element type INT8 is not supported"
    assert "Element type INT8 is not supported" in PAGE.read_text("utf-8")
