import json

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import TASKS, dataset
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
