"""An app for Android: what of it runs on a Java virtual machine, and what needs a device."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.apps import android
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import ModelOutput
from mobiledeploy.verbs.app import app
from tests.apps.conftest import (
    ANDROID,
    BROKEN_PPM,
    INT8,
    SCORES,
    UINT8,
    artifact,
    kotlinc,
    network,
    run,
)

CODE = Path(android.__file__).parent / "android-app"
# The one file that needs a device.
DEVICE = "LiteRtModel.kt"


@pytest.fixture
def made(tmp_path):
    path = artifact(tmp_path / "made", network(SCORES, kind=INT8))
    app(path, language="android", out=tmp_path / "app", reporter=SILENT)
    return tmp_path / "app"


def test_one_short_file_needs_a_device():
    device = (CODE / DEVICE).read_text()
    assert len(device.splitlines()) <= 60
    others = {path.name: path.read_text() for path in CODE.glob("*.kt") if path.name != DEVICE}
    needed = r"^import (android|com\.google|org\.tensorflow)"
    assert re.search(needed, device, re.M)
    assert not [name for name, code in others.items() if re.search(needed, code, re.M)]
    # The virtual machine's command compiles all the others, and nothing else.
    assert set(android.COMMANDS[0].split()) & {*others, DEVICE} == set(others)


def test_its_readme_says_what_is_not_proven():
    text = " ".join((CODE / "README.md").read_text().split())
    assert f"`{DEVICE}` is not tested, and was never compiled" in text
    assert "It does not prove the model" in text
    assert all(
        f"\n    {command}\n" in (CODE / "README.md").read_text() for command in android.COMMANDS
    )


def test_it_names_the_version_of_litert(made):
    assert (made / "gradle.properties").read_text() == (
        f"litertVersion={version('ai-edge-litert')}\n"
    )


@pytest.mark.slow
def test_what_stands_in_for_the_model_answers_golden_samples_only(made, build):
    build("android", made)
    done = run(android.COMMANDS[1].split(), made)
    assert done.stdout == (
        "pass: the golden samples are replayed, but for the model: its outputs are the recorded "
        "ones\n"
    )
    (made / "a.ppm").write_bytes(b"P6\n# by hand\n2 1\n255\n" + bytes(6))
    done = run([*ANDROID.program(made, "app"), "a.ppm"], made)
    assert done.returncode == 1
    assert "a.ppm is no golden sample: only LiteRT on a device answers other images" in done.stderr


ENDS = {"classification": SCORES, "segmentation": (ModelOutput("mask", (4, 5, 3)),)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [INT8, UINT8, None], ids=["int8", "uint8", "float"])
@pytest.mark.parametrize("task", ENDS)
def test_samples_of_each_type_are_replayed(task, kind, tmp_path, build):
    path = artifact(tmp_path / "made", network(ENDS[task], kind=kind), task=task, ends=ENDS[task])
    made = tmp_path / "app"
    app(path, language="android", out=made, reporter=SILENT)
    build("android", made)
    done = run(ANDROID.program(made, "golden_test"), made)
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = sorted((made / "golden").glob("*.output0.bin"))
    assert outputs
    # Each sample is judged: other outputs have another answer.
    for output in outputs:
        output.write_bytes((-np.fromfile(output, "<f4")).tobytes())
    done = run(ANDROID.program(made, "golden_test"), made)
    assert done.returncode == 1
    told = re.findall(r"the answer to the recorded outputs differs in (\w+)", done.stdout)
    assert len(told) == len(outputs)
    assert set(told) <= {"classes", "scores", "mask"}


@pytest.mark.slow
def test_a_broken_image_is_named(made, build):
    build("android", made)
    for content, message in BROKEN_PPM:
        (made / "broken.ppm").write_bytes(content)
        done = run([*ANDROID.program(made, "app"), "broken.ppm"], made)
        assert done.returncode == 1
        assert f"broken.ppm {message}" in done.stderr
    done = run([*ANDROID.program(made, "app"), "absent.ppm"], made)
    assert done.returncode == 1
    assert "absent.ppm" in done.stderr


COLORS = """
package answering

fun main() {
  val (red, clear, half) = listOf(0xFFFF0000, 0x00123456, 0x80000000).map { it.toInt() }
  val image = fromColors(intArrayOf(red, clear, half, red), 2, 2)
  println(listOf(image.height, image.width, image.channels) + List(12, image::level))
}
"""


@pytest.mark.slow
def test_a_bitmap_is_laid_on_white(made, build):
    build("android", made)
    (made / "Colors.kt").write_text(COLORS)
    done = kotlinc(["Colors.kt", "-cp", "app.jar", "-d", "changed"], made)
    assert done.returncode == 0, done.stderr
    done = run(["java", "-cp", "changed:app.jar", "answering.ColorsKt"], made)
    shape, pixels = [2, 2, 3], [255, 0, 0, 255, 255, 255, 127, 127, 127, 255, 0, 0]
    assert done.stdout == f"{shape + pixels}\n"


# What the file uses of Android, and of LiteRT.
THEIRS = {"android", "Bitmap", "Context", "assets", "getPixels", "height", "width"}
THEIRS |= {"tensorflow", "Interpreter"}


@pytest.mark.slow
def test_the_file_for_the_device_is_kotlin(made, build):
    """Without its libraries only its grammar, and what it uses of the other files, is judged."""
    build("android", made)
    done = kotlinc([DEVICE, "-cp", "app.jar", "-d", "changed"], made)
    assert done.returncode == 1
    errors = re.findall(r": error: (.*)", done.stderr)
    unknown = {re.sub(r"unresolved reference '(\w+)'.", r"\1", line) for line in errors}
    # What follows from an unknown type is no mistake of its own.
    assert {line for line in unknown if not line.startswith("cannot infer type")} == THEIRS
