"""The gate for tasks: losses planted into small files of another tool are failed by name.

The models are TFLite files of a few operators without a record, which see colours.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from mobiledeploy.analysis import masks
from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Annotation, Check, Evaluation, Prediction, Report, Verdict
from mobiledeploy.datasets.npz import Npz
from mobiledeploy.steps import baseline as baselines
from mobiledeploy.steps.baseline import Accepted, Baseline
from mobiledeploy.verbs.check import BaselineUpdate, check, update_baseline
from tests import figures, warm
from tests.conftest import REPOSITORY
from tests.figures import resealed
from tests.lite import Lite
from tests.variants import slow_but

SIDE = 8
N = 300
DETECTED = 160
"""Fewer images of boxes, whose metric takes longest to draw again."""
GRAY = 40


# Models, each of which a planted loss changes


def colours(b: Lite) -> tuple[int, int]:
    """The image, and the mean of each channel [1, 3]."""
    image = b.input((1, SIDE, SIDE, 3), name="image")
    axes = b.constant([1, 2], np.int32)
    return image, b.op("MEAN", [image, axes], (1, 3), options="ReducerOptions")


def dense(b: Lite, x: int, weights: np.ndarray, bias: np.ndarray) -> int:
    """x weights + bias, [1, outputs]."""
    w = b.constant(np.transpose(weights), np.float32)
    shape = (1, len(bias))
    operands = [x, w, b.constant(bias, np.float32)]
    return b.op("FULLY_CONNECTED", operands, shape, options="FullyConnectedOptions")


def pointwise(b: Lite, x: int, weights: np.ndarray, bias: np.ndarray) -> int:
    """A convolution of 1 by 1: weights [inputs, outputs] and bias [outputs] at each pixel."""
    w = b.constant(np.transpose(weights)[:, None, None, :], np.float32)
    shape = (*b.shape(x)[:3], len(bias))
    strides = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    operands = [x, w, b.constant(bias, np.float32)]
    valid = schema.Padding.VALID
    return b.op("CONV_2D", operands, shape, options="Conv2DOptions", padding=valid, **strides)


def binary(shift: float = 0.0) -> bytes:
    """Whether an image is red."""
    b = Lite()
    _, means = colours(b)
    logit = dense(b, means, [[20], [0], [0]], [-10 - 20 * shift])
    return b.file(b.op("LOGISTIC", [logit], (1, 1)))


def regression(offset: float = 0.0) -> bytes:
    """How red an image is, times ten."""
    b = Lite()
    _, means = colours(b)
    return b.file(dense(b, means, [[10], [0], [0]], [offset]))


def multilabel(blind: bool = False) -> bytes:
    """Which channels are bright; a blind one sees no blue."""
    b = Lite()
    _, means = colours(b)
    logits = dense(b, means, 20 * np.diag([1, 1, 0 if blind else 1]), [-10] * 3)
    return b.file(b.op("LOGISTIC", [logits], (1, 3)))


def embedding(merged: bool = False) -> bytes:
    """The colour as a vector; a merged one does not tell red from green."""
    b = Lite()
    _, means = colours(b)
    half = [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
    weights = np.array(half if merged else np.eye(3))
    return b.file(dense(b, means, weights, weights.T @ np.full(3, -GRAY / 255)))


def segmentation(vanished: bool = False) -> bytes:
    """Of each pixel whether it is gray, red or green; a class may have vanished."""
    b = Lite()
    image, _ = colours(b)
    bias = [4.5, 0, -100 if vanished else 0]
    logits = pointwise(b, image, [[0, 10, 0], [0, 0, 10], [0, 0, 0]], bias)
    shape = (1, SIDE, SIDE, 3)
    return b.file(b.op("SOFTMAX", [logits], shape, options="SoftmaxOptions", beta=1.0))


CELLS = np.array([(x, y, x + 0.5, y + 0.5) for y in (0, 0.5) for x in (0, 0.5)])
BOXES = CELLS + np.array([0.1, 0.1, -0.1, -0.1])


def detection(doubled: bool = False, vanished: bool = False) -> bytes:
    """A box in each quarter of the image, with a score for red and one for green."""
    b = Lite()
    image, _ = colours(b)
    sides = {"strideH": 4, "strideW": 4, "filterHeight": 4, "filterWidth": 4}
    valid = schema.Padding.VALID
    means = b.op(
        "AVERAGE_POOL_2D", [image], (1, 2, 2, 3), options="Pool2DOptions", padding=valid, **sides
    )
    green = 0 if vanished else 20
    logits = pointwise(b, means, [[20, 0], [0, green], [0, 0]], [-10, -200 if vanished else -10])
    scores = b.op("LOGISTIC", [logits], (1, 2, 2, 2))
    scores = b.op("RESHAPE", [scores, b.constant([1, 4, 2], np.int32)], (1, 4, 2))
    middle = (BOXES[:, [0, 1, 0, 1]] + BOXES[:, [2, 3, 2, 3]]) / 2
    boxes = middle + (BOXES - middle) * (2 if doubled else 1)
    none = pointwise(b, means, np.zeros((3, 4)), np.zeros(4))
    none = b.op("RESHAPE", [none, b.constant([1, 4, 4], np.int32)], (1, 4, 4))
    moved = b.op(
        "ADD", [none, b.constant(boxes[None], np.float32)], (1, 4, 4), options="AddOptions"
    )
    return b.file(moved, scores)


# Images and what is true of them


@dataclass(frozen=True)
class Case:
    """A task's images in an archive, what is true of them, and the accepted model."""

    task: str
    data: Path
    truth: list[Annotation]
    accepted: Callable[..., bytes]


def uniform(dice: np.random.Generator, means: np.ndarray, noise: float) -> np.ndarray:
    """Images [n, SIDE, SIDE, 3] of one colour each; `means` [n, 3] from 0 to 255, with noise."""
    tinted = means + dice.normal(0, noise, means.shape)
    shown = tinted[:, None, None] + dice.normal(0, 20, (len(means), SIDE, SIDE, 3))
    return np.clip(shown, 0, 255)


def case(task: str, folder: Path, n: int = N) -> Case:
    dice = np.random.default_rng(7)
    truth: list[Annotation] = []
    labels = np.arange(n) % 2
    if task == "binary":
        images = uniform(dice, np.where(labels, 155, 100)[:, None] * [1, 0, 0], 15)
        truth = [Annotation(label=int(label)) for label in labels]
        model: Callable[..., bytes] = binary
    elif task == "regression":
        red = dice.uniform(30, 225, n)
        images = uniform(dice, red[:, None] * [1, 0, 0], 5)
        truth = [Annotation(values=(float(10 * value / 255),)) for value in red]
        model = regression
    elif task == "multilabel":
        bright = dice.random((n, 3)) < 0.5
        images = uniform(dice, np.where(bright, 155, 100), 20)
        truth = [Annotation(labels=tuple(np.flatnonzero(row).tolist())) for row in bright]
        model = multilabel
    elif task == "embedding":
        labels = np.arange(n) % 4
        directions = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])[labels]
        images = uniform(dice, GRAY + 120 * directions, 12)
        truth = [Annotation(label=int(label)) for label in labels]
        model = embedding
    elif task == "segmentation":
        table = np.zeros((n, SIDE, SIDE), np.int64)
        for mask in table:
            x, y, kind = *dice.integers(0, 4, 2), 1 + int(dice.random() < 0.3)
            mask[y : y + 4, x : x + 4] = kind
        colour = np.array([[GRAY] * 3, [200, GRAY, GRAY], [GRAY, 200, GRAY]])[table]
        images = np.clip(colour + dice.normal(0, 45, colour.shape), 0, 255)
        truth = [Annotation(mask=masks.encode(mask)) for mask in table]
        model = segmentation
    else:
        kinds = dice.choice(3, (n, 4), p=[0.2, 0.4, 0.4])
        tint = np.array([[GRAY] * 3, [150, GRAY, GRAY], [GRAY, 150, GRAY]])[kinds]
        tint = tint + dice.normal(0, 25, tint.shape)
        images = np.repeat(np.repeat(tint.reshape(n, 2, 2, 3), 4, axis=1), 4, axis=2)
        images = np.clip(images + dice.normal(0, 20, images.shape), 0, 255)
        for row in kinds:
            there = np.flatnonzero(row)
            boxes = tuple(map(tuple, BOXES[there].tolist()))
            truth.append(Annotation(labels=tuple((row[there] - 1).tolist()), boxes=boxes))
        model = detection
    data = folder / f"{task}.npz"
    np.savez(data, images=images.astype(np.uint8), labels=labels)
    return Case(task, data, truth, model)


TASKS = ("binary", "detection", "embedding", "multilabel", "regression", "segmentation")


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    """(task) -> its case; the accepted model and its baseline lie beside the archive."""
    folder = tmp_path_factory.mktemp("cases")
    cases: dict[str, Case] = {}

    def get(task: str) -> Case:
        if task not in cases:
            cases[task] = one = case(task, folder, DETECTED if task == "detection" else N)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                annotate(patch, one)
                (folder / f"{task}.tflite").write_bytes(one.accepted())
                accept(one, folder / f"{task}.tflite", folder / f"{task}.json")
        return cases[task]

    return get


def annotate(patch: pytest.MonkeyPatch, one: Case) -> None:
    """The archive has these annotations: data sets of classes hold labels alone."""
    patch.setattr(Npz, "annotation", lambda self, index: one.truth[int(self.id(index))])


def accept(one: Case, path: Path, baseline: Path, **more: object) -> BaselineUpdate:
    options = {"data": one.data, "task": one.task, "input_range": (0, 1), "margin": 3.0}
    return update_baseline([path], baseline=baseline, **options | more)


@pytest.fixture
def judged(accepted, here, monkeypatch):
    """(task, a file's bytes) -> its check against the accepted model, with a margin of 3 points."""

    def judge(task: str, content: bytes, **more: object) -> Check:
        one = accepted(task)
        annotate(monkeypatch, one)
        path = here / f"{task}.tflite"
        path.write_bytes(content)
        options = {"data": one.data, "task": task, "input_range": (0, 1), "margin": 3.0}
        baseline = one.data.with_suffix(".json")
        (found,) = check([path], **{"baseline": baseline, **options, **more}).checks
        assert found.task == task
        return found

    return judge


def verdict(found: Check, metric: str, subject: str | None = None) -> Verdict:
    (one,) = [v for v in found.verdicts if v.metric == metric and subject in (None, v.subject)]
    return one


def failed_classes(found: Check) -> set[str]:
    return {v.subject for v in found.verdicts if v.metric == "class" and v.outcome == "fail"}


def other_bytes(content: bytes) -> bytes:
    """The same model in another file: its digest says nothing of its answers."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    model.description = "the same"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


# Equal models and planted losses


@pytest.mark.parametrize("task", TASKS)
def test_an_equal_model_passes_by_its_statistics(judged, accepted, task, heard):
    found = judged(task, other_bytes(accepted(task).accepted()), reporter=heard)
    assert found.outcome == "pass", [v.line for v in found.verdicts]
    one = verdict(found, "metric")
    assert (one.subject, one.value, found.flips) == (found.metric.name, 0, 0)
    assert found.metric_now == found.metric_accepted
    assert found.metric.title in one.line
    assert one.interval[0] < 0 < one.interval[1] < 0.03
    assert found.artifact_sha256 != found.accepted_sha256
    # It never had golden samples, and nobody knows of a float model.
    assert not found.warnings
    assert not heard.warnings
    assert {v.metric for v in found.verdicts} <= {"metric", "class"}


@pytest.mark.parametrize("task", slow_but(TASKS, "binary", "segmentation"))
def test_the_accepted_file_passes_whatever_the_margin(judged, accepted, task):
    found = judged(task, accepted(task).accepted(), margin=0.01)
    assert found.outcome == "pass"
    assert "it is the accepted file, and answers as it did" in verdict(found, "metric").line


def test_a_shifted_threshold_fails_and_names_the_class_that_lost(judged):
    found = judged("binary", binary(shift=0.06))
    assert found.outcome == verdict(found, "metric").outcome == "fail"
    assert failed_classes(found) == {"1"}
    line = verdict(found, "metric").line
    assert line.startswith("accuracy fell by ") and "lost" in line
    assert found.losses > found.gains
    assert found.mcnemar_p < 0.01
    assert (found.top1, found.accepted_top1) == (None, None)


def test_an_offset_fails_with_the_error_itself_and_its_share_of_the_bound(judged, accepted):
    found = judged("regression", regression(offset=0.6))
    one = verdict(found, "metric", "mae")
    assert one.outcome == "fail"
    assert found.metric_now == pytest.approx(0.6, abs=0.1)
    assert (
        f"MAE is {found.metric_now:.3g}, {found.metric_accepted:.3g} with the accepted" in one.line
    )
    assert "points of its bound lost" in one.line
    spread = np.ptp([a.values[0] for a in accepted("regression").truth])
    assert one.value == pytest.approx((found.metric_now - found.metric_accepted) / spread, rel=0.01)


def test_a_blind_class_fails_by_its_name(judged):
    found = judged("multilabel", multilabel(blind=True))
    assert verdict(found, "metric", "map").outcome == "fail"
    assert failed_classes(found) == {"2"}
    assert "class 2: AP 5" in verdict(found, "class", "2").line


def test_two_merged_identities_fail_by_their_names(judged):
    found = judged("embedding", embedding(merged=True))
    assert verdict(found, "metric", "recall_at_1").outcome == "fail"
    assert failed_classes(found) == {"0", "1"}


def test_a_mask_class_that_vanished_fails_by_its_name(judged):
    found = judged("segmentation", segmentation(vanished=True))
    assert verdict(found, "metric", "miou").outcome == "fail"
    assert failed_classes(found) == {"2"}
    assert "class 2: IoU 0.00 %" in verdict(found, "class", "2").line


def test_a_class_whose_boxes_vanished_fails_by_its_name(judged):
    found = judged("detection", detection(vanished=True))
    assert verdict(found, "metric", "map").outcome == "fail"
    assert failed_classes(found) == {"1"}


@pytest.mark.slow
def test_a_box_head_of_twice_the_scale_fails(judged):
    found = judged("detection", detection(doubled=True))
    one = verdict(found, "metric", "map")
    assert one.outcome == "fail"
    assert one.line.startswith("mAP@[.5:.95] fell by ")
    assert failed_classes(found) == {"0", "1"}


def test_a_small_loss_in_few_images_is_inconclusive_with_the_number_that_would_decide(judged):
    found = judged("regression", regression(offset=0.02), margin=0.5)
    one = verdict(found, "metric")
    assert (found.outcome, one.outcome) == ("inconclusive", "inconclusive")
    assert one.needed > N
    assert f"about {one.needed:,} images like these would decide (300 here)" in one.line


# Limits


def test_a_floor_is_of_the_first_metric_or_of_the_bounded_score(judged):
    found = judged("segmentation", segmentation(), floor=99.9)
    assert (found.outcome, verdict(found, "floor").outcome) == ("fail", "fail")
    assert verdict(found, "floor").line.startswith("mIoU is ")
    found = judged("regression", regression(), floor=90)
    assert verdict(found, "floor").outcome == "pass"
    assert "a score of 9" in verdict(found, "floor").line


@pytest.mark.parametrize(
    ("task", "content"),
    [
        ("binary", binary(shift=0.06)),
        pytest.param("detection", detection(doubled=True), marks=pytest.mark.slow),
        ("embedding", embedding(merged=True)),
        ("multilabel", multilabel(blind=True)),
        ("regression", regression(offset=0.6)),
        ("segmentation", segmentation(vanished=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_labels_answers_that_changed_are_judged(judged, accepted, task, content):
    found = judged(task, content, no_labels=True)
    assert (found.outcome, verdict(found, "flips").outcome) == ("fail", "fail")
    assert (found.metric_now, found.losses) == (None, None)
    found = judged(task, other_bytes(accepted(task).accepted()), no_labels=True)
    assert (found.outcome, found.flips) == ("pass", 0)
    most = judged(task, content, max_flips=1)
    assert verdict(most, "flips").outcome == "fail"


def test_a_class_of_few_images_has_no_verdict_and_is_counted(accepted, here, monkeypatch):
    one = accepted("segmentation")
    rare = [
        a if 2 not in masks.decode(a.mask) or n < 25 else Annotation()
        for n, a in enumerate(one.truth)
    ]
    count = sum(a.mask is not None and 2 in masks.decode(a.mask) for a in rare)
    assert 0 < count < 10
    one = dataclasses.replace(one, truth=rare)
    annotate(monkeypatch, one)
    (here / "m.tflite").write_bytes(segmentation())
    accept(one, here / "m.tflite", Path("b.json"))
    (here / "m.tflite").write_bytes(segmentation(vanished=True))
    options = {"data": one.data, "input_range": (0, 1), "baseline": Path("b.json")}
    (found,) = check([here / "m.tflite"], **options).checks
    assert found.untested == 1
    assert {v.subject for v in found.verdicts if v.metric == "class"} == {"0", "1"}
    assert verdict(found, "metric").images == sum(a.mask is not None for a in rare)


# The float model


def dynamic(b: Lite, x: int, weights: np.ndarray) -> int:
    """As `dense`, with integer weights; inputs are made integers as they come."""
    table = np.transpose(weights)
    scale = float(np.abs(table).max() / 127)
    w = b.constant(np.rint(table / scale), np.int8, grid=(scale, 0))
    return b.op("FULLY_CONNECTED", [x, w, -1], (1, len(table)), options="FullyConnectedOptions")


WEIGHTS = np.random.default_rng(3).normal(0, 1, (3, 6))


def numbers(kind: str, factor: float = 1.0) -> bytes:
    """Six numbers and three that nobody explains; `factor` scales the first."""
    b = Lite()
    _, means = colours(b)
    first = factor * WEIGHTS
    six = dense(b, means, first, np.zeros(6)) if kind == "float" else dynamic(b, means, first)
    return b.file(six, b.op("LOGISTIC", [means], (1, 3)))


@pytest.fixture
def pair(accepted, here):
    """A float file and one of integer weights, accepted together; neither has a task."""
    one = accepted("binary")
    (here / "net.tflite").write_bytes(numbers("float"))
    (here / "small.tflite").write_bytes(numbers("int8"))
    options = {"data": one.data, "input_range": (0, 1), "baseline": Path("pair.json")}
    paths = [here / "net.tflite", here / "small.tflite"]
    changes = update_baseline(paths, margin=3.0, **options).changes
    assert [c.task for c in changes] == ["tensors", "tensors"]
    return paths, options, changes


def test_tensors_are_judged_by_the_accepted_float_model(pair, here):
    paths, options, changes = pair
    assert changes[0].metric_now is None
    assert 20 < changes[1].metric_now < 80
    found = check(paths, **options).checks
    assert [c.outcome for c in found] == ["pass", "pass"]
    assert verdict(found[1], "metric", "sqnr").value == 0
    paths[1].write_bytes(numbers("int8", factor=1.2))
    found = check(paths, **options).checks
    assert [c.outcome for c in found] == ["pass", "fail"]
    assert verdict(found[1], "metric").line.startswith("SQNR is 1")
    # Alone, nobody says which float model it is of: what changed is judged.
    (alone,) = check([paths[1]], **options).checks
    assert {v.metric for v in alone.verdicts} == {"flips"}
    assert alone.outcome == "fail"


def test_a_float_margin_is_against_the_float_file_of_the_same_command(accepted, here, monkeypatch):
    one = accepted("regression")
    annotate(monkeypatch, one)
    small = Lite()
    _, means = colours(small)
    content = small.file(dynamic(small, means, np.array([[10.0], [0], [0]])))
    (here / "net.tflite").write_bytes(regression())
    (here / "small.tflite").write_bytes(content)
    paths = [here / "net.tflite", here / "small.tflite"]
    options = {
        "data": one.data,
        "task": "regression",
        "input_range": (0, 1),
        "baseline": Path("b.json"),
    }
    update_baseline(paths, **options)
    found = check(paths, **options).checks[1]
    assert found.recipe == "dynamic_int8"
    assert {v.metric for v in found.verdicts} == {"metric", "float"}
    assert "below the accepted float" in verdict(found, "float").line or (
        "with the accepted float model" in verdict(found, "float").line
    )
    assert found.outcome == "pass"
    # The accepted one stays; a float model that is far better says what was lost at once.
    paths[0].write_bytes(regression(offset=-0.8))
    update_baseline([paths[0]], **options)
    found = check(paths, **options).checks[1]
    assert verdict(found, "float").value < -0.05


# The baseline


def test_a_baseline_of_another_task_is_refused_with_both_names(accepted, here, monkeypatch):
    one = accepted("binary")
    annotate(monkeypatch, one)
    options = {"data": one.data, "input_range": (0, 1), "baseline": one.data.with_suffix(".json")}
    (here / "binary.tflite").write_bytes(binary())
    with pytest.raises(InputError, match="task: regression, not binary") as error:
        check([here / "binary.tflite"], task="regression", **options)
    assert "--task regression" in error.value.hint
    (here / "regression.tflite").write_bytes(regression())
    one = accepted("regression")
    annotate(monkeypatch, one)
    options |= {"data": one.data, "baseline": one.data.with_suffix(".json")}
    with pytest.raises(InputError, match="task: tensors, not regression") as error:
        check([here / "regression.tflite"], **options)
    assert error.value.hint.startswith("--task regression, or ")


def packed(rows: object) -> str:
    return base64.b64encode(zlib.compress(json.dumps(rows).encode())).decode()


def known(one: Case) -> tuple[Accepted, Evaluation]:
    """The accepted entry of a case, and an evaluation with the same answers."""
    (entry,) = records.loads(Baseline, one.data.with_suffix(".json").read_text()).accepted
    rows = json.loads(zlib.decompress(base64.b64decode(entry.answers)))
    answers = tuple(
        records.decode(Prediction, row | {"sample": str(n)}) for n, row in enumerate(rows)
    )
    plain = figures.evaluation()
    return entry, dataclasses.replace(plain, task=one.task, predictions=answers)


BOX = {"classes": [0], "scores": [0.5], "boxes": [[0, 0, 1, 1]]}


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("binary", {"classes": [0, 1], "scores": [None, 0.5], "values": [0.5]}),
        ("binary", {"classes": [0, 9], "scores": [0.5, 0.5], "values": [0.5]}),
        ("binary", {"values": [0.5]}),
        ("binary", {"classes": [0, 1], "scores": [0.5], "values": [0.5]}),
        ("regression", {"values": [None]}),
        ("regression", {"values": [1.0, 2.0]}),
        ("regression", {"values": [1.0], "surplus": 1}),
        ("regression", {"values": ["1"]}),
        ("regression", [1.0]),
        ("detection", BOX | {"boxes": [[0.5, 0, 0.1, 1]]}),
        ("detection", BOX | {"boxes": [[0, 0, 1]]}),
        ("detection", BOX | {"boxes": [[0, 0, 1, None]]}),
        ("detection", BOX | {"classes": [-1]}),
        ("detection", BOX | {"classes": [0, 1]}),
        ("segmentation", {"mask": {"size": [8, 8], "runs": [0, 63]}}),
        ("segmentation", {"mask": {"size": [8, 8], "runs": [7, 64]}}),
        ("segmentation", {"mask": {"size": [8, 8], "runs": [0, -1, 1, 65]}}),
        ("segmentation", {"mask": {"size": [1 << 40, 8], "runs": [0, 1 << 43]}}),
        ("segmentation", {}),
    ],
)
def test_an_answer_that_cannot_be_is_refused(accepted, task, row):
    entry, evaluation = known(accepted(task))
    rows = json.loads(zlib.decompress(base64.b64decode(entry.answers)))
    assert len(baselines.predictions(entry, evaluation)) == len(accepted(task).truth)
    rows[3] = row
    with pytest.raises(InputError, match=f"the answers of {task} float32 tflite"):
        baselines.predictions(dataclasses.replace(entry, answers=packed(rows)), evaluation)


@pytest.mark.parametrize(
    "answers",
    [
        "no base64!",
        "AAAA",
        packed([]),
        packed([{"values": [1.0]}] * (N - 1)),
        packed({"values": [1.0]}),
        packed(5),
        base64.b64encode(zlib.compress(b"[" * 100_000)).decode(),
        base64.b64encode(zlib.compress(b"[" + b" " * (80 << 20))).decode(),
    ],
    ids=range(8),
)
def test_damaged_answers_are_refused(accepted, answers):
    entry, evaluation = known(accepted("regression"))
    with pytest.raises(InputError, match="the answers of regression float32 tflite"):
        baselines.predictions(dataclasses.replace(entry, answers=answers), evaluation)


def test_damaged_answers_with_a_seal_are_refused_by_a_check(judged, accepted, here):
    one = accepted("regression")
    resealed(one.data.with_suffix(".json"), here / "other.json", answers=packed([]))
    with pytest.raises(InputError, match="the answers of regression float32 tflite"):
        judged("regression", one.accepted(), baseline=here / "other.json")


def test_another_truth_is_refused(judged, accepted, here):
    one = accepted("segmentation")
    resealed(one.data.with_suffix(".json"), here / "other.json", metric=0.5)
    with pytest.raises(InputError, match="annotations of the images: they are not those"):
        judged("segmentation", one.accepted(), baseline=here / "other.json")


def test_an_edited_task_is_refused(judged, accepted, here):
    text = json.loads(accepted("regression").data.with_suffix(".json").read_text())
    for field, value in (("task", "binary"), ("metric", 0.1)):
        edited = {**text, "accepted": [text["accepted"][0] | {field: value}]}
        (here / "edited.json").write_text(json.dumps(edited))
        with pytest.raises(InputError, match="was edited"):
            judged("regression", regression(), baseline=here / "edited.json")


def test_a_baseline_is_the_same_bytes_again_and_its_numbers_have_six_digits(
    accepted, here, monkeypatch
):
    for task in ("detection", "regression"):
        one = accepted(task)
        annotate(monkeypatch, one)
        (here / f"{task}.tflite").write_bytes(one.accepted())
        accept(one, here / f"{task}.tflite", Path("again.json"))
        known = one.data.with_suffix(".json").read_bytes()
        assert Path("again.json").read_bytes() == known
        (entry,) = records.loads(Baseline, known).accepted
        text = zlib.decompress(base64.b64decode(entry.answers)).decode()
        digits = re.findall(r"[\[,:]-?0?\.?0*(\d*\.?\d*)", text)
        assert max(len(number.replace(".", "")) for number in digits) == 6
        Path("again.json").unlink()


def test_an_update_says_what_changes_and_which_margin_can_be_decided(
    accepted, here, monkeypatch, heard
):
    one = accepted("segmentation")
    annotate(monkeypatch, one)
    path = here / "m.tflite"
    path.write_bytes(segmentation())
    (first,) = accept(one, path, Path("b.json"), margin=0.1, reporter=heard).changes
    assert (first.task, first.metric.name, first.top1) == ("segmentation", "miou", None)
    assert 0.5 < first.metric_now < 1
    assert 0.009 < first.decides < 0.03
    (warning,) = [d for d in heard.warnings if d.name == "too-few-images"]
    assert "300 images can never decide 0.1 % of mIoU lost: that takes " in warning.message
    path.write_bytes(segmentation(vanished=True))
    (second,) = accept(one, path, Path("b.json"), reporter=heard).changes
    assert second.metric_before == first.metric_now > second.metric_now
    assert second.flips > 50
    table = BaselineUpdate("b.json", (second,)).tables()[0]
    assert table.headers[4:6] == ("metric before", "metric")
    assert table.rows[0][5].startswith("mIoU ")


def test_annotations_that_say_nothing_are_refused(accepted, here, monkeypatch):
    one = accepted("embedding")
    (here / "m.tflite").write_bytes(embedding())
    for truth, reason in (
        ([Annotation() for _ in one.truth], "no labels|says nothing of recall@1"),
        ([Annotation(label=n) for n in range(N)], "says nothing of recall@1"),
    ):
        monkeypatch.setattr(
            "mobiledeploy.steps.evaluation_images.View.annotations",
            lambda self, predictions, kind, truth=truth: tuple(truth),
        )
        with pytest.raises(UsageError, match=reason):
            accept(one, here / "m.tflite", Path("b.json"))
    assert not Path("b.json").exists()


def test_an_entry_without_labels_is_no_reason_to_refuse_labels(judged, accepted, here, monkeypatch):
    one = accepted("binary")
    annotate(monkeypatch, one)
    (here / "binary.tflite").write_bytes(binary())
    accept(one, here / "binary.tflite", here / "b.json", no_labels=True)
    found = judged("binary", other_bytes(binary()), baseline=here / "b.json")
    assert found.outcome == verdict(found, "metric").outcome == "pass"


def test_baselines_of_earlier_versions_are_read():
    (entry,) = baselines.read(REPOSITORY / "tests" / "demo-baseline.json", "").accepted[:1]
    assert (entry.task, entry.metric) == (None, None)
    assert len(baselines.answers(entry)) == entry.images


def test_data_without_the_annotations_of_the_task_is_refused_by_their_name(
    accepted, here, monkeypatch
):
    monkeypatch.setattr(Npz, "annotation", lambda self, index: Annotation())
    for task, what in (("segmentation", "masks"), ("regression", "targets")):
        one = accepted(task)
        monkeypatch.setattr(Npz, "annotation", lambda self, index: Annotation())
        (here / "m.tflite").write_bytes(one.accepted())
        with pytest.raises(UsageError, match=f"has no {what} for .*--no-labels accepts"):
            accept(one, here / "m.tflite", Path("b.json"))


# What is printed


def test_the_outcome_is_in_the_json_and_always_that_of_the_verdicts(judged):
    found = judged("binary", binary(shift=0.06))
    text = json.loads(records.dumps(Report("t", (found,))))
    assert text["checks"][0]["outcome"] == "fail"
    assert records.loads(Report, json.dumps(text)).checks == (found,)
    # Earlier versions did not write it, and no file may claim another one.
    for change in ({"outcome": "pass"}, None):
        one = dict(text["checks"][0])
        one.pop("outcome")
        again = records.loads(Report, json.dumps(text | {"checks": [one | (change or {})]}))
        assert again.checks[0].outcome == "fail"
    with pytest.raises(InputError, match="outcome"):
        wrong = [text["checks"][0] | {"outcome": "good"}]
        records.loads(Report, json.dumps(text | {"checks": wrong}))


def test_a_table_and_the_reports_name_the_metric(judged):
    report = Report("t", (judged("segmentation", segmentation(vanished=True)),))
    (table,) = report.tables()
    assert table.headers[3] == "metric"
    assert table.rows[0][3].startswith("mIoU ")
    assert "| metric |" in REPORTS.load("markdown").render(report)
    junit = REPORTS.load("junit").render(report)
    assert 'name="metric[miou]"' in junit
    assert 'name="class[2]"' in junit
    assert "mIoU fell by" in REPORTS.load("github").render(report)


def run(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", "check", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_person_with_a_file_and_a_folder_gets_there_at_the_first_try(accepted, here):
    """Class folders, no task, and a file that is not the accepted one any more."""
    with np.load(accepted("binary").data) as archive:
        for n, (image, label) in enumerate(zip(archive["images"], archive["labels"], strict=True)):
            place = here / "photos" / ("other", "red")[label] / f"{n:03}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
    (here / "model.tflite").write_bytes(binary())
    same = ("model.tflite", "--data", "photos", "--input-range", "0,1", "--margin", "2")
    done = run(*same, "--update-baseline")
    assert done.returncode == 0, done.stderr
    assert "model float32 tflite: new, accuracy 9" in done.stdout
    assert " images can decide a loss of 1.21 points of accuracy or more" in done.stdout
    assert "task: binary, since the output is one number behind a sigmoid" in done.stderr
    done = run(*same)
    assert done.returncode == 0, done.stderr
    assert "model.tflite: pass: accuracy did not fall below the accepted model" in done.stdout
    assert "model.tflite: 2 classes did not regress" in done.stdout
    assert "warning" not in done.stderr
    (here / "model.tflite").write_bytes(binary(shift=0.06))
    done = run(*same, "--json", "--junit", "check.xml", "--markdown", "check.md")
    assert done.returncode == 1, done.stderr
    (found,) = json.loads(done.stdout)["checks"]
    assert (found["outcome"], found["task"], found["metric"]["name"]) == (
        "fail",
        "binary",
        "accuracy",
    )
    assert failed_classes(records.loads(Report, done.stdout).checks[0]) == {"red"}
    assert "accuracy fell by" in Path("check.md").read_text()
    assert 'name="metric[accuracy]"' in Path("check.xml").read_text()


def test_masks_and_targets_of_an_archive_are_what_is_judged_by(accepted, here):
    """Without a patched data set."""
    for name, good, bad in (
        ("segmentation", segmentation(), segmentation(vanished=True)),
        ("regression", regression(), regression(offset=0.6)),
    ):
        one = accepted(name)
        with np.load(one.data) as archive:
            arrays = {"images": archive["images"]}
        if name == "segmentation":
            arrays["masks"] = np.array([masks.decode(a.mask) for a in one.truth])
        else:
            arrays["targets"] = np.array([a.values for a in one.truth])
        np.savez(here / "data.npz", **arrays)
        (here / f"{name}.tflite").write_bytes(good)
        same = (f"{name}.tflite", "--data", "data.npz", "--input-range", "0,1", "--task", name)
        done = run(*same, "--update-baseline")
        assert done.returncode == 0, done.stderr
        (here / f"{name}.tflite").write_bytes(bad)
        done = run(*same, "-q")
        assert done.returncode == 1, done.stderr
        title = {"segmentation": "mIoU fell by", "regression": "MAE is 0.5"}[name]
        assert f"{name}.tflite: fail: {title}" in done.stdout


def test_digits_of_a_baseline():
    assert baselines._round(0.12345678) == 0.123457
    assert baselines._round(-1234567.0) == -1234570.0
    assert math.isnan(baselines._round(math.nan))
