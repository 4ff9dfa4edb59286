"""Images of a report: what they show is what the data has and what the file answered."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mobiledeploy.analysis import masks
from mobiledeploy.core import artifacts
from mobiledeploy.core.plugins import dataset
from mobiledeploy.core.types import Artifact, DataRef, Evaluation, Mask, Prediction
from mobiledeploy.steps import report_images
from mobiledeploy.verbs import evaluate, report

SIZE = (96, 96)


@pytest.fixture(scope="module")
def evaluated(exported, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Artifact]:
    """An evaluation of a classifier; its data and predictions are replaced by the tests."""
    path = exported["int8_ptq", "tflite"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_STORE", str(tmp_path_factory.mktemp("store") / "store.db"))
        (evaluation,) = evaluate.evaluate([path]).evaluations
    return evaluation, artifacts.load(path)


def of(evaluation: Evaluation, source: str, *predictions: Prediction) -> Evaluation:
    """The evaluation as if its data were the built-in scenes."""
    samples = dataset(source).open(source, "calibration", resolution=SIZE, labels=())
    data = DataRef(source, "calibration", SIZE, identity=samples.identity)
    return dataclasses.replace(evaluation, data=data, predictions=predictions)


def pixels(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_images_of_flips_are_those_of_the_data(evaluated) -> None:
    evaluation, artifact = evaluated
    sample = evaluation.predictions[0].sample
    images = report_images.ReportImages()
    (flip,) = images.flips(evaluation, artifact, [(sample, 0, 0, 1)])
    assert flip.sample == sample
    assert flip.image.startswith("data:image/jpeg;base64,")
    (gone,) = images.flips(evaluation, artifact, [("no such image", 0, 0, 1)])
    assert gone.image == ""


def test_boxes_are_those_of_the_answer_and_of_the_data(evaluated) -> None:
    evaluation, artifact = evaluated
    source = "demo-boxes"
    samples = dataset(source).open(source, "calibration", resolution=SIZE, labels=())
    boxes = ((0.1, 0.1, 0.5, 0.5), (0.2, 0.2, 0.3, 0.3))
    rows = [
        Prediction(samples.id(n), classes=(0, 1), scores=(0.9, 0.3), boxes=boxes) for n in range(6)
    ]
    evaluation = of(evaluation, source, *rows)
    last = samples.id(5)
    answers = report_images.ReportImages().drawn(evaluation, artifact, [last])
    # A sample that changed comes first.
    assert [a.sample for a in answers] == [last, *(samples.id(n) for n in range(3))]
    annotation = samples.annotation(5)
    ours, *theirs = answers[0].boxes
    assert (ours.box, ours.score) == (boxes[0], 0.9)
    assert [b.box for b in theirs] == list(annotation.boxes)[: report_images.MOST_BOXES]
    assert all(b.score is None for b in theirs)
    shown = pixels(answers[0].image).astype(float)
    assert shown.shape == (*SIZE, 3)
    assert np.abs(shown - samples.image(5)).mean() < 12
    assert answers[0].mask == answers[0].true_mask == ""


def test_a_mask_has_a_colour_for_each_class_but_the_background(evaluated) -> None:
    evaluation, artifact = evaluated
    source = "demo-masks"
    samples = dataset(source).open(source, "calibration", resolution=SIZE, labels=())
    table = np.zeros((24, 24), np.int64)
    table[:12] = 1
    table[0, 0] = -1
    labels = ("background", *(f"shape {n}" for n in range(1, 20)))
    evaluation = dataclasses.replace(
        of(evaluation, source, Prediction(samples.id(0), mask=masks.encode(table))),
        preprocessing=dataclasses.replace(evaluation.preprocessing, labels=labels),
    )
    spec = dataclasses.replace(artifact.spec, classes=len(labels))
    artifact = dataclasses.replace(artifact, spec=spec)
    (answer,) = report_images.ReportImages().drawn(evaluation, artifact)
    (color,) = (color for name, color in answer.classes if name == "shape 1")
    assert "background" not in dict(answer.classes)
    shown = pixels(answer.mask)
    assert shown.shape == (24, 24, 4)
    assert tuple(shown[5, 5]) == (*bytes.fromhex(color), 255)
    assert shown[20, 20, 3] == shown[0, 0, 3] == 0
    assert pixels(answer.true_mask).shape == (24, 24, 4)


def test_masks_that_differ_come_with_both_and_the_share(evaluated) -> None:
    evaluation, artifact = evaluated
    source = "demo-masks"
    samples = dataset(source).open(source, "calibration", resolution=SIZE, labels=())
    tables = [np.zeros((24, 24), np.int64) for _ in range(3)]
    # A twelfth of the second mask, half of the third.
    tables[1][:2] = 1
    tables[2][:12] = 1
    rows = [Prediction(samples.id(n), mask=masks.encode(t)) for n, t in enumerate(tables)]
    plain = {p.sample: dataclasses.replace(p, mask=masks.encode(tables[0])) for p in rows}
    now = dataclasses.replace(of(evaluation, source, *rows), task="segmentation")
    order, flipped = report._changed_masks(plain, now)
    assert order == [samples.id(n) for n in (2, 1, 0)]
    # 92 % of the pixels are not enough to be the same answer.
    assert flipped == 2
    answers = report_images.ReportImages().drawn(now, artifact, order, plain)
    assert [a.sample for a in answers] == order
    assert [a.differing for a in answers] == [0.5, pytest.approx(1 / 12), 0.0]
    drawn = [pixels(uri) for uri in (answers[0].mask, answers[0].before_mask)]
    assert (drawn[0] != drawn[1]).any(axis=2).mean() == 0.5
    # A record of another machine, whose runs do not fill its mask, is left out.
    broken = dataclasses.replace(rows[2], mask=Mask((24, 24), (0, 5)))
    assert report._changed_masks(plain | {broken.sample: broken}, now) == (order[1:], 1)
    alone = report_images.ReportImages().drawn(now, artifact)
    assert {(a.before_mask, a.differing) for a in alone} == {("", None)}


def test_data_that_is_gone_or_changed_is_done_without(evaluated, tmp_path: Path) -> None:
    evaluation, artifact = evaluated
    row = Prediction("calibration/00000", classes=(0,), scores=(0.9,), boxes=((0, 0, 1, 1),))
    scenes = of(evaluation, "demo-boxes", row)
    for change in ({"identity": "f" * 64}, {"source": str(tmp_path / "none")}):
        other = dataclasses.replace(scenes, data=dataclasses.replace(scenes.data, **change))
        assert report_images.ReportImages().drawn(other, artifact) == ()
