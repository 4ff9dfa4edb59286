"""A detector as a training: what is refused, and squares of COCO on their way to a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core import inputs, runs
from mobiledeploy.core.errors import DeployError, InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.steps import training_plan
from mobiledeploy.steps.training_plan import TrainConfig
from mobiledeploy.verbs import evaluate, export, train
from tests.conftest import Heard

PLAIN = TrainConfig(task="detection", alpha=0.25, res=32, epochs=2)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray images of one light square each, as COCO lists them."""
    folder = tmp_path_factory.mktemp("squares")
    dice = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(160):
        pixels = dice.integers(0, 80, (48, 48, 3), np.uint8)
        left, top = dice.integers(0, 24, 2).tolist()
        pixels[top : top + 20, left : left + 20] = 230
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 48})
        box = [left, top, 20, 20]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    tables = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "square"}],
    }
    path = folder / "squares.json"
    path.write_text(json.dumps(tables))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (number, 9, 9)).save(path)
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "message", "hint"),
    [
        (
            {"arch": "mobilenet_v1"},
            UsageError,
            "the task of mobilenet_v1 is classification, not detection",
            "--arch ssdlite_mobilenet_v1 or ssdlite_mobilenet_v2",
        ),
        ({"task": "detektion"}, UsageError, "no tasks named 'detektion'", "detection"),
        ({"task": "regression"}, UsageError, "no model card is of the task regression", ""),
        ({"label_smoothing": 0.1}, UsageError, "--label-smoothing is for classifiers", ""),
        ({"teacher": "demo"}, UsageError, "--teacher is for classifiers", ""),
        (
            {"init": "backbone", "task": "", "arch": "mobilenet_v1"},
            UsageError,
            "mobilenet_v1 has no backbone",
            "--init",
        ),
        ({}, InputError, "has no boxes", "detection is learnt from images with boxes"),
    ],
)
def test_what_cannot_be_is_refused(
    changes: dict[str, object],
    kind: type[DeployError],
    message: str,
    hint: str,
    photos: Path,
    here: Path,
    heard: Heard,
) -> None:
    config = dataclasses.replace(PLAIN, data=str(photos), out=here / "out", **changes)
    with pytest.raises(kind) as refused:
        training_plan.plan(config, heard)
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_the_task_names_network_and_data(here: Path, heard: Heard, squares: Path) -> None:
    demo = training_plan.plan(dataclasses.replace(PLAIN, init="backbone"), heard)
    assert demo.request.spec.card == "ssdlite_mobilenet_v1"
    assert demo.request.train.source == "demo-boxes"
    assert demo.request.settings.metric == "map"
    assert Path(demo.request.init).name == "mobilenet_v1_0.25.h5"
    # One class is enough: it is told from the background.
    own = training_plan.plan(dataclasses.replace(PLAIN, data=str(squares)), heard)
    assert own.request.spec.classes == 1


@pytest.mark.slow
def test_squares_are_found_by_the_file(here: Path, heard: Heard, squares: Path) -> None:
    def trained(epochs: int) -> train.TrainResult:
        return train.train(
            task="detection",
            alpha=0.25,
            res=64,
            data=squares,
            epochs=epochs,
            batch=8,
            # The scores start anew: the demo weights have more classes.
            init="demo",
            out="run",
            reporter=heard,
        )

    first = trained(2)
    done = trained(8)
    assert done.run.history[:2] == first.run.history
    last = done.run.history[-1]
    assert last.loss < done.run.history[0].loss
    assert last.top1 is None
    assert set(last.metrics) == {"map", "ap50"}
    assert done.run.metrics == runs.best(done.run.history, done.run.settings).metrics
    assert done.run.metrics["ap50"] > 0.3
    assert "validation AP50" in done.tables()[0].headers

    options = {"data": squares, "timed": False, "reporter": heard}
    raw = export.export("run", recipe=("float32", "int8_ptq"), **options)
    assert [row.format for row in raw.rows] == ["tflite", "tflite", "onnx", "onnx"]
    for row in raw.rows:
        assert row.metrics["ap50"] > 0.3
        contract = FORMATS.load(row.format).contract(inputs.read(Path(row.path), inputs.FINISHED))
        assert contract.task == "detection"
        assert contract.signature.outputs[0].anchors.count == contract.signature.outputs[0].shape[0]

    chosen = export.export(
        "run", recipe=("float32", "int8_ptq"), output="detections", out="chosen", **options
    )
    assert [row.format for row in chosen.rows] == ["tflite", "tflite"]
    (float_row, int8_row) = chosen.rows
    assert float_row.metrics["map"] == pytest.approx(raw.rows[0].metrics["map"], abs=0.02)
    assert int8_row.metrics["map"] == pytest.approx(raw.rows[1].metrics["map"], abs=0.02)
    again = evaluate.evaluate(int8_row.path, reporter=heard)
    assert again.evaluations[0].metrics == int8_row.metrics

    with pytest.raises(UsageError, match="is an operator of TFLite, and onnx has none"):
        export.export("run", format="onnx", output="detections", out="none", **options)
