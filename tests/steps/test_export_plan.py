from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core import records
from mobiledeploy.core.errors import NoSplit, UsageError
from mobiledeploy.core.types import Weights
from mobiledeploy.steps.export_plan import ExportConfig, ExportPlan, _folder_name, plan
from tests.figures import artifact


def photos(folder: Path, seed: int) -> str:
    """A folder of two classes of ten small images."""
    dice = np.random.default_rng(seed)
    for number in range(20):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return str(folder)


def test_data_of_calibration_alone_judges_nothing(here: Path, heard) -> None:
    photos(here / "photos" / "calibration", 1)
    config = ExportConfig(alpha=0.25, res=64, recipes=("int8_ptq",), data="photos")
    planned = plan(config, heard)
    assert not planned.evaluates
    assert planned.data.split == "calibration"
    assert planned.data.identity == planned.calibration
    assert {warning.name for warning in heard.warnings} == {"demo-weights", "no-data"}
    assert any("train --init demo --data photos" in w.text for w in heard.warnings)
    with pytest.raises(NoSplit, match="photos has no images for validation"):
        plan(dataclasses.replace(config, recipes=("float32",)), heard)


def test_the_files_of_a_training_bear_its_name_once(here: Path, heard) -> None:
    weights = Weights("mobilenet_v1_0.25_64_photos", "0" * 64, pinned=False)
    spec = dataclasses.replace(
        artifact().spec, card="mobilenet_v1", name="mobilenet_v1_0.25_64", weights=weights
    )
    assert _folder_name(spec, ExportConfig()) == "mobilenet_v1_0.25_64_photos"
    assert (
        _folder_name(
            dataclasses.replace(spec, weights=Weights("demo", "", pinned=True)), ExportConfig()
        )
        == "mobilenet_v1_0.25_64_demo"
    )


def test_files_of_other_images_are_replaced_together_or_left_alone(here: Path, heard) -> None:
    def planned(data: str | None, *recipes: str) -> ExportPlan:
        order = ExportConfig(alpha=0.25, res=64, recipes=recipes, formats=("tflite",), data=data)
        return plan(order, heard)

    def made(result: ExportPlan) -> None:
        result.folder.mkdir(parents=True, exist_ok=True)
        for recipe, format_ in result.jobs:
            record = dataclasses.replace(
                artifact(recipe=recipe), data=result.data, calibration=result.calibration
            )
            (result.folder / f"{recipe}.{format_}.json").write_text(records.dumps(record))

    a, b = photos(here / "a", 1), photos(here / "b", 2)
    plain = Path("build", "mobilenet_v1_0.25_64_demo")
    first = planned(a, "float32", "int8_ptq")
    assert first.folder == plain
    made(first)
    # The same images, and all of the files: as ever.
    assert planned(a, "int8_ptq").folder == plain
    assert planned(b, "float32", "int8_ptq").folder == plain
    assert heard.said == []
    # Some of the files: these stay, and the new ones go to a folder of their own.
    for recipe in ("float32", "int8_ptq"):
        own = planned(b, recipe)
        assert own.folder == plain.with_name(f"{plain.name}_{own.data.identity[:8]}")
    assert "holds int8_ptq.tflite of other images" in heard.said[0]
    # Whatever else lies there is not ours to judge.
    (plain / "notes.json").write_text("{}")
    (plain / "float32.tflite.json").unlink()
    assert planned(b, "int8_ptq").folder == plain


@pytest.mark.parametrize(
    ("card", "trained", "default"),
    [("ssdlite_mobilenet_v1", 128, 320), ("lraspp_mobilenet_v3_small", 96, 224)],
)
def test_demo_weights_for_boxes_and_masks_have_their_resolution(
    card: str, trained: int, default: int, heard
) -> None:
    planned = plan(ExportConfig(arch=card), heard)
    assert planned.source.spec.resolution == (trained, trained)
    assert not heard.warnings
    planned = plan(ExportConfig(arch=card, res=160), heard)
    assert planned.source.spec.resolution == (160, 160)
    assert [w.name for w in heard.warnings] == ["untrained-resolution"]
    planned = plan(ExportConfig(arch=card, weights="random"), heard)
    assert planned.source.spec.resolution == (default, default)


def test_the_drawn_images_are_the_same_whatever_they_are_drawn_by(here: Path, heard) -> None:
    """Their identity changes with the code that draws them, and an upgrade is no other data."""
    order = ExportConfig(alpha=0.25, res=64, recipes=("int8_ptq",), formats=("tflite",))
    result = plan(order, heard)
    result.folder.mkdir(parents=True)
    old = dataclasses.replace(result.data, identity="of an earlier version")
    record = dataclasses.replace(artifact(), data=old)
    (result.folder / "float32.tflite.json").write_text(records.dumps(record))
    assert plan(order, heard).folder == result.folder


def test_a_task_has_its_own_built_in_images_and_its_own_name(here: Path, heard) -> None:
    def planned(arch: str, **changes: Any) -> ExportPlan:
        common: dict[str, Any] = {"weights": "random", "res": 64, "recipes": ("float32",)}
        return plan(ExportConfig(arch=arch, **(common | changes)), heard)

    masks = planned("lraspp_mobilenet_v3_small")
    assert (masks.data.source, masks.source.spec.task) == ("demo-masks", "segmentation")
    assert masks.source.spec.classes == 13
    assert "the demo images of segmentation are demo-masks" in heard.said
    # The word stays the user's.
    assert planned("lraspp_mobilenet_v3_small", data="demo").data == masks.data
    classes = planned("mobilenet_v2")
    assert (classes.data.source, classes.source.spec.task) == ("demo", "classification")
    for changes in ({"task": "embedding"}, {"output": "pooled"}):
        vectors = planned("mobilenet_v2", **changes)
        assert vectors.data == classes.data
        assert vectors.source.spec.task == "embedding"
        assert vectors.folder != classes.folder
    with pytest.raises(UsageError, match="--output pooled gives an embedding, and --task names"):
        planned("mobilenet_v2", output="pooled", task="regression")
