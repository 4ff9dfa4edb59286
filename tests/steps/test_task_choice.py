import json

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import TASKS, dataset
from mobiledeploy.core.types import ModelInput, ModelOutput, Signature
from mobiledeploy.steps import task_choice

IMAGES = np.zeros((12, 8, 6, 3), np.uint8)
ARRAYS = {
    "label": {"labels": np.arange(12) % 2},
    "labels": {"labels": np.ones((12, 3), int)},
    "values": {"targets": np.arange(12) / 3},
    "mask": {"masks": np.arange(12 * 48).reshape(12, 8, 6) % 3},
}


def opened(source):
    return dataset(str(source)).open(str(source), "all", resolution=(32, 32), labels=())


@pytest.fixture
def data(tmp_path):
    """A data set for each field of an annotation, "" for one without any."""

    def make(field):
        if field != "boxes":
            np.savez(tmp_path / "data.npz", images=IMAGES, **ARRAYS.get(field, {}))
            return opened(tmp_path / "data.npz")
        Image.fromarray(IMAGES[0]).save(tmp_path / "0.png")
        tables = {
            "images": [{"id": 0, "file_name": "0.png"}],
            "annotations": [{"image_id": 0, "category_id": 0, "bbox": [1, 1, 2, 2]}],
            "categories": [{"id": 0, "name": "a"}],
        }
        (tmp_path / "data.json").write_text(json.dumps(tables))
        return opened(tmp_path / "data.json")

    return make


@pytest.mark.parametrize("field", ["", "boxes", *ARRAYS])
@pytest.mark.parametrize("task", TASKS.names())
def test_annotations_of_another_kind_are_warned_of(task, field, data):
    warning = task_choice.unfit_annotations(task, data(field))
    needed = TASKS.load(task).ANNOTATION
    # A box has a class, so boxes say which classes are right too.
    fits = needed in (field, "") or not field or (needed, field) == ("labels", "boxes")
    assert (warning is None) == fits
    if warning:
        assert f"and {task} is judged by" in warning.message


@pytest.mark.parametrize("task", TASKS.names())
def test_one_class_is_refused_where_a_task_is_judged_by_it(task, data, tmp_path):
    task_choice.require_classes(task, data("label"))
    np.savez(tmp_path / "one.npz", images=IMAGES, labels=np.zeros(12, int))
    one = opened(tmp_path / "one.npz")
    if TASKS.load(task).ANNOTATION == "label":
        with pytest.raises(InputError, match=r"one class"):
            task_choice.require_classes(task, one)
    else:
        task_choice.require_classes(task, one)
    task_choice.require_classes("", one)


def test_every_field_of_an_annotation_has_words():
    needed = {TASKS.load(name).ANNOTATION for name in TASKS.names()} - {""}
    assert needed <= set(task_choice._SAYS)


class Listener:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def chosen(*outputs, requested="", classes=0):
    image = ModelInput("image", "image", (8, 6, 3))
    listener = Listener()
    task = task_choice.choose(Signature((image,), outputs), requested, classes, listener)
    return task, " ".join(listener.lines)


@pytest.mark.parametrize(
    ("output", "classes", "task"),
    [
        (ModelOutput("y", (5,), "softmax"), 0, "classification"),
        (ModelOutput("y", (5,)), 5, "classification"),
        (ModelOutput("y", (5,)), 0, "tensors"),
        (ModelOutput("y", (5,)), 9, "tensors"),
        (ModelOutput("y", (5,), "sigmoid"), 5, "multilabel"),
        (ModelOutput("y", (1,), "sigmoid"), 0, "binary"),
        (ModelOutput("y", (1,)), 2, "binary"),
        (ModelOutput("y", (1,)), 0, "tensors"),
        (ModelOutput("y", (4, 4, 3), "softmax"), 0, "segmentation"),
        (ModelOutput("y", (4, 4, 3)), 0, "tensors"),
    ],
)
def test_between_two_readings_none_is_guessed(output, classes, task):
    named, line = chosen(output, classes=classes)
    assert named == task
    assert line.startswith(f"task: {task}, since ") and "--task names another" in line
    if task == "tensors":
        assert line.count("which may mean anything") == 1
        fitting = [name for name, each in TASKS.each() if not each.mismatch((output,))]
        assert len(fitting) > 1
        assert all(chosen(output, requested=name) == (name, "") for name in fitting)


def test_a_task_that_the_outputs_cannot_have_is_refused_with_those_that_fit():
    with pytest.raises(UsageError, match="not segmentation") as refused:
        chosen(ModelOutput("y", (5,)), requested="segmentation")
    assert refused.value.hint == (
        "--task classification or embedding or multilabel or regression or tensors"
    )
