"""Golden samples come again, and the usual mistakes of a preprocessing are called by name."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.analysis import pipelines
from mobiledeploy.core import artifacts, preprocessing, records
from mobiledeploy.core.errors import InputError, MissingError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.types import Contract, Preprocessing, Tensor
from mobiledeploy.steps import golden
from mobiledeploy.verbs.verify import verify
from tests import warm

OWN = Preprocessing((-1.0, 1.0), crop=0.875)
FLOAT = Tensor("image", (1, 64, 64, 3), "float32")
UINT8 = Tensor("image", (1, 64, 64, 3), "uint8", (2 / 255,), (127,))
INT8 = Tensor("image", (1, 64, 64, 3), "int8", (2 / 255,), (-1,))


@pytest.fixture(scope="module")
def images():
    """Four images with edges and colours, larger than the input and not square."""
    dice = np.random.default_rng(3)
    made = []
    for _ in range(4):
        small = Image.fromarray(dice.integers(0, 256, (12, 16, 3), np.uint8))
        made.append(np.array(small.resize((160, 120), Image.Resampling.BICUBIC)))
    return made


def tensors(images, how=OWN, size=(64, 64)):
    return np.stack([preprocessing.prepare(p, how, size) for p in images])


def diagnose(images, made, tensor=FLOAT, layout="NHWC"):
    return pipelines.diagnose(images, made, OWN, (64, 64), tensor, layout)


def test_a_right_pipeline_is_right(images):
    found = diagnose(images, tensors(images))
    assert (found.differences, found.explained, found.untold) == ((), True, ())
    assert found.error_as_wanted == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_range": (0.0, 1.0)}, "pixels are [0, 1], the model needs [-1, 1]"),
        ({"input_range": (0.0, 255.0)}, "pixels are [0, 255], the model needs [-1, 1]"),
        ({"channels": "bgr"}, "channels are BGR, the model needs RGB"),
        ({"resize": "bicubic"}, "the resize is bicubic, the model needs bilinear"),
        ({"crop": 1.0}, "the central crop is 1, the model needs 0.875"),
        (
            {
                "input_range": (0.0, 1.0),
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
            "pixels are [0, 1] with mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225, "
            "the model needs [-1, 1]",
        ),
    ],
)
def test_each_mistake_is_called_by_its_name(images, change, message):
    found = diagnose(images, tensors(images, dataclasses.replace(OWN, **change)))
    assert (found.differences, found.explained) == ((message,), True)
    assert found.error_as_wanted > found.error


def test_several_mistakes_at_once_are_all_named(images):
    wrong = dataclasses.replace(OWN, input_range=(0.0, 1.0), channels="bgr", crop=1.0)
    found = diagnose(images, tensors(images, wrong))
    assert [line.split()[0] for line in found.differences] == ["pixels", "channels", "the"]


def test_a_resize_without_antialiasing_is_told_from_one_with(images):
    made = np.stack(
        [pipelines._resize_pixels(p, 0.875, pipelines._RESIZES[2], (64, 64)) for p in images]
    )
    found = diagnose(images, made.astype(np.float32) / 127.5 - 1)
    assert found.differences == (
        "the resize is bilinear without antialiasing, the model needs bilinear",
    )


def test_nchw_for_nhwc_is_named_and_not_mistaken(images):
    made = tensors(images).transpose(0, 3, 1, 2)
    found = diagnose(images, made)
    assert found.differences == ("the layout is NCHW, the model needs NHWC",)
    assert diagnose(images, made, layout="NCHW").differences == ()


def test_a_uint8_input_takes_pixels_and_its_mistakes_are_named(images):
    raw = Preprocessing((0.0, 255.0), crop=OWN.crop)
    pixels = tensors(images, raw).astype(np.uint8)
    assert diagnose(images, pixels, UINT8).error_as_wanted == 0
    signed = pixels.astype(np.int16) - 128
    found = diagnose(images, signed, UINT8)
    assert found.differences == (
        "codes are 128 too low, as if they were int8 (the model needs 127)",
    )


def test_another_resolution_is_named(images):
    found = diagnose(images, tensors(images, size=(96, 96)))
    assert found.differences == ("the tensors are 96x96, the model needs 64x64",)


def codes(images, how=OWN):
    return np.concatenate([preprocessing.to_input(x, INT8, "NHWC") for x in tensors(images, how)])


@pytest.mark.parametrize(
    ("shift", "kind", "message"),
    [
        (0, np.int8, ()),
        (128, np.uint8, ("codes are 128 too high, as if they were uint8 (the model needs -1)",)),
        (0, np.float32, ("the tensors are floats, the model takes int8",)),
    ],
)
def test_wrong_codes_for_an_int8_input_are_named(images, shift, kind, message):
    given = (codes(images).astype(int) + shift).astype(kind)
    if kind is np.float32:
        given = tensors(images)
    found = diagnose(images, given, INT8)
    assert len(found.differences) == len(message)
    assert all(line.startswith(s) for line, s in zip(found.differences, message, strict=True))


def test_a_zero_point_that_was_left_out_is_named(images):
    tensor = dataclasses.replace(INT8, zero_point=(-40,))
    given = np.rint(tensors(images) * 255 / 2).clip(-128, 127).astype(np.int8)
    found = pipelines.diagnose(images, given, OWN, (64, 64), tensor, "NHWC")
    assert found.differences == ("the zero point is left out (the model needs -40)",)


def test_what_no_usual_mistake_explains_is_not_explained(images):
    found = diagnose(images, np.roll(tensors(images), 20, axis=1))
    assert not found.explained
    assert found.error > 1


def test_images_at_the_models_resolution_cannot_tell_the_resize():
    dice = np.random.default_rng(1)
    square = [dice.integers(0, 256, (64, 64, 3), np.uint8)]
    how = dataclasses.replace(OWN, crop=1.0)
    made = tensors(square, how)
    found = pipelines.diagnose(square, made, how, (64, 64), FLOAT, "NHWC")
    assert (found.differences, found.untold) == ((), ("resize",))


@pytest.mark.parametrize(
    "made",
    [
        np.zeros((3, 64, 64, 3)),
        np.zeros((4, 64, 64)),
        np.full((4, 64, 64, 3), np.nan),
        np.zeros((4, 64, 64, 3), bool),
    ],
    ids=["count", "axes", "nan", "bool"],
)
def test_what_is_no_tensor_of_the_images_is_refused(images, made):
    with pytest.raises(InputError, match="pipeline made"):
        diagnose(images, made)


# On an artifact


@pytest.fixture(params=[("int8_ptq", "tflite"), ("float32", "onnx")], ids=lambda p: p[1])
def artifact(request, exported, here, heard):
    """A copy whose golden logits are its own, of this machine, and which carries its contract."""
    source = exported[request.param]
    path = here / source.name
    shutil.copy(source, path)
    shutil.copytree(source.parent / "golden", here / "golden")
    known = artifacts.load(source)
    artifacts.record_path(path).write_text(records.dumps(known))
    now = golden.replay(path, known, heard)
    kept = dataclasses.replace(
        known.golden,
        logits=tuple(tuple(map(float, row)) for row in now.logits),
        runtime=now.runtime,
        isa=now.isa,
    )
    spec = known.spec
    contract = Contract(
        spec.name, spec.preprocessing, spec.resolution, known.layout, known.output, kept
    )
    shelf = FORMATS.load(known.format)
    path.write_bytes(shelf.write_metadata(path.read_bytes(), contract))
    known = dataclasses.replace(known, golden=kept, sha256=records.sha256(path))
    artifacts.record_path(path).write_text(records.dumps(known))
    return path


def test_golden_samples_come_again(artifact, heard):
    found = verify(artifact, reporter=heard)
    assert found.sound and found.sealed
    assert (found.golden.outcome, found.golden.value) == ("pass", 0)
    assert heard.warnings == []


def test_outputs_that_do_not_come_again_fail(artifact):
    known = artifacts.load(artifact)
    rows = tuple(tuple(v + 5 for v in row) for row in known.golden.logits)
    other = dataclasses.replace(known.golden, logits=rows)
    artifacts.record_path(artifact).write_text(
        records.dumps(dataclasses.replace(known, golden=other))
    )
    with pytest.raises(InputError, match="says itself another golden samples"):
        verify(artifact)


def test_a_record_with_another_preprocessing_than_the_file_is_refused(artifact):
    known = artifacts.load(artifact)
    message = dataclasses.replace(known.spec.preprocessing, input_range=(0.0, 1.0))
    spec = dataclasses.replace(known.spec, preprocessing=message)
    artifacts.record_path(artifact).write_text(records.dumps(dataclasses.replace(known, spec=spec)))
    with pytest.raises(InputError, match="says itself another preprocessing"):
        verify(artifact)


def test_a_golden_image_that_was_changed_is_refused(artifact):
    (image,) = Path("golden").iterdir()
    Image.new("RGB", (40, 50)).save(image)
    with pytest.raises(InputError, match="not the one that its name says"):
        verify(artifact)
    image.unlink()
    with pytest.raises(InputError, match="is not there"):
        verify(artifact)


def test_a_golden_image_that_is_a_pipe_is_refused_and_not_waited_for(artifact):
    (image,) = Path("golden").iterdir()
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(InputError, match="is not in the artifact's folder"):
        verify(artifact)


@pytest.mark.parametrize("name", ["../golden/x.png", "/etc/passwd", "golden/../../x.png"])
def test_a_record_cannot_name_files_elsewhere(artifact, name):
    known = artifacts.load(artifact)
    other = dataclasses.replace(known.golden, images=(name,))
    with pytest.raises(InputError, match="is not in the artifact's folder"):
        golden.images(artifact, other)


PIPELINE = """
import sys
import numpy as np
from PIL import Image
resized = [Image.open(p).resize((64, 64), Image.BILINEAR) for p in sys.argv[2:]]
made = [np.asarray(image, np.float32) for image in resized]
np.savez(sys.argv[1], np.stack(made) / {scale} - {low})
"""


ON_CODES = "[0, 255] with mean 127, 127, 127 and std 127.5, 127.5, 127.5"
"""The pixels of an int8 file of a model that takes [-1, 1]."""


def test_a_pipeline_of_the_users_is_called_and_judged(artifact):
    known = artifacts.load(artifact)
    is_int8 = known.inputs[0].dtype == "int8"
    low = 127 / 127.5 if is_int8 else 1
    Path("right.py").write_text(PIPELINE.format(scale=127.5, low=low))
    Path("wrong.py").write_text(PIPELINE.format(scale=255, low=0))
    right = verify(artifact, pipeline=f"{sys.executable} right.py").pipeline
    wrong = verify(artifact, pipeline=f"{sys.executable} wrong.py")
    messages = [line for line in wrong.pipeline.differences if "[0, 1]" in line]
    needs = ON_CODES if is_int8 else "[-1, 1]"
    assert messages == [f"pixels are [0, 1], the model needs {needs}"]
    assert not wrong.sound
    kinds = {line.split(",")[0] for line in right.differences}
    expected = set() if known.layout == "NHWC" else {"the layout is NHWC"}
    if is_int8:
        expected.add("the tensors are floats")
    assert kinds == expected


@pytest.mark.parametrize(
    ("pipeline", "error", "message"),
    [
        ("none.npz", InputError, "none.npz cannot be read: No such file"),
        ("broken.npz", InputError, "not a readable numpy archive"),
        ("two.npz", InputError, "one array is wanted"),
        ("no-such-program --x", MissingError, "no-such-program is not there"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", UsageError, "ended with status 3"),
        (f"{sys.executable} -c pass", UsageError, "wrote no tensors"),
        ("'", UsageError, "cannot be split"),
        (" ", UsageError, "is empty"),
    ],
)
def test_a_pipeline_that_does_not_work_is_one_line(exported, here, pipeline, error, message):
    Path("broken.npz").write_bytes(b"PK\x03\x04")
    np.savez("two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(error, match=message):
        verify(exported["int8_ptq", "tflite"], pipeline=pipeline)


def run(*argv):
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_ends_in_one_where_something_is_wrong(artifact):
    Path("wrong.py").write_text(PIPELINE.format(scale=255, low=0))
    result = run("verify", artifact)
    assert result.returncode == 0, result.stderr
    assert "carries its preprocessing" in result.stdout
    result = run("verify", artifact, "--pipeline", f"{sys.executable} wrong.py")
    assert result.returncode == 1
    needs = ON_CODES if artifact.stem == "int8_ptq" else "[-1, 1]"
    assert f"fail: pixels are [0, 1], the model needs {needs}" in result.stdout
    result = run("verify", artifact, "--json", "-q")
    assert json.loads(result.stdout)["record"] == "VerifyResult"
