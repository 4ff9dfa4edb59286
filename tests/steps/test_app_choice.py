"""Which file of an export an app answers by, and which apps are refused before the work."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import RECIPES
from mobiledeploy.core.types import Fidelity
from mobiledeploy.steps import app_choice
from tests.apps.conftest import SCORES, artifact, network

BOTH = [("float32", "tflite"), ("int8_best", "tflite"), ("float32", "onnx"), ("int8_best", "onnx")]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """An artifact of floats, which others are changed copies of."""
    return artifacts.load(artifact(tmp_path_factory.mktemp("one") / "made", network(SCORES)))


def named(one, *files, **divergences):
    """recipe.format -> an artifact that says so."""
    made = {}
    for name in files:
        recipe, _, format_ = name.partition(".")
        fidelity = Fidelity(30.0, divergences[recipe], 5, "") if recipe in divergences else None
        made[name] = dataclasses.replace(
            one, recipe=RECIPES.load(recipe).RECIPE, format=format_, fidelity=fidelity
        )
    return made


@pytest.mark.parametrize(
    ("language", "files", "chosen", "reason"),
    [
        ("python", ["float32.tflite"], "float32.tflite", "the only file that it runs"),
        (
            "python",
            ["float32.tflite", "float16.tflite", "int8_best.tflite", "int8_best.onnx"],
            "int8_best.tflite",
            "the tflite of the fewest bits (8 of a weight)",
        ),
        (
            "python",
            ["float32.tflite", "int8_best.onnx"],
            "float32.tflite",
            "the tflite of the fewest bits (32 of a weight)",
        ),
        ("cpp", ["int8_best.onnx", "float32.tflite"], "float32.tflite", "the only file"),
        ("javascript", ["int8_best.tflite", "float32.onnx"], "float32.onnx", "the only file"),
        (
            "android",
            ["dynamic_int8.tflite", "int8_ptq.tflite"],
            "int8_ptq.tflite",
            "the tflite of the fewest bits (8 of a weight)",
        ),
        (
            "android",
            ["int8_ptq.tflite", "int8_best.tflite", "int8_qat.tflite"],
            "int8_best.tflite",
            "that diverges least from float",
        ),
    ],
)
def test_the_file_of_the_fewest_bits_is_taken(language, files, chosen, reason, one):
    made = named(one, *files, int8_ptq=0.02, int8_best=0.001, int8_qat=0.003)
    path, why = app_choice.choose(language, made)
    assert path == chosen
    assert reason in why


def test_without_a_file_that_it_runs_there_is_no_app(one):
    made = named(one, "float32.tflite", "int16x8_ptq.tflite")
    wide = (dataclasses.replace(one.inputs[0], dtype="int16"),)
    made["int16x8_ptq.tflite"] = dataclasses.replace(made["int16x8_ptq.tflite"], inputs=wide)
    assert app_choice.choose("cpp", made) == ("float32.tflite", "the only file that it runs")
    del made["float32.tflite"]
    for language in ("cpp", "javascript"):
        with pytest.raises(InputError, match=f"an app in {language} runs none of these files"):
            app_choice.choose(language, made)


@pytest.mark.parametrize(
    ("languages", "jobs", "io", "task", "message"),
    [
        (["rust"], BOTH, "int8", "", "no apps named 'rust'; there are android, cpp"),
        (
            ["python", "javascript"],
            BOTH[:2],
            "int8",
            "",
            "javascript runs onnx, and this export makes tflite; --format onnx, or leave out",
        ),
        (["cpp"], BOTH[2:], "int8", "", "cpp runs tflite, and this export makes onnx"),
        (
            ["cpp"],
            [("int16x8_ptq", "tflite"), ("float32", "onnx")],
            "int8",
            "",
            "int16x8_ptq takes and gives int16, and an app has float32, int8, uint8; --io float",
        ),
        (["cpp"], BOTH, "int8", "tensors", "decodes no answers of the task 'tensors'; leave out"),
    ],
)
def test_an_app_of_no_planned_file_is_refused(languages, jobs, io, task, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        app_choice.require(languages, jobs, io, task, tmp_path)


@pytest.mark.parametrize(
    ("jobs", "io"),
    [
        (BOTH, "int8"),
        ([*BOTH, ("int16x8_ptq", "tflite")], "int8"),
        ([("int16x8_ptq", "tflite"), ("float32", "onnx")], "float"),
        ([("float16_full", "tflite"), ("float32", "onnx")], "uint8"),
    ],
)
def test_an_app_of_a_planned_file_is_not(jobs, io, tmp_path):
    for task in ("", "detection"):
        app_choice.require(["python", "cpp", "android", "javascript"], jobs, io, task, tmp_path)


def test_a_folder_of_an_app_that_holds_something_is_refused(tmp_path):
    place = app_choice.folder(tmp_path, "python")
    assert place == tmp_path / "app_python"
    place.mkdir()
    app_choice.require(["python"], BOTH, "int8", "", tmp_path)
    (place / "mine").touch()
    app_choice.require(["cpp"], BOTH, "int8", "", tmp_path)
    with pytest.raises(UsageError, match="app_python holds files already; remove it"):
        app_choice.require(["cpp", "python"], BOTH, "int8", "", Path(tmp_path))
