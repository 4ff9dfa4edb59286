import pytest

from mobiledeploy.core import builtin_data
from mobiledeploy.core.plugins import TASKS, data_of_task, dataset


def test_each_name_is_a_data_set_that_is_built_in():
    for name in builtin_data.NAMES:
        assert len(dataset(name).open(name, "calibration", resolution=(32, 32), labels=())) == 200


@pytest.mark.parametrize(
    ("task", "source"),
    [
        ("classification", "demo"),
        ("embedding", "demo"),
        ("detection", "demo-boxes"),
        ("segmentation", "demo-masks"),
        ("", "demo"),
    ],
)
def test_the_word_means_what_the_task_is_judged_by(task, source):
    assert data_of_task("demo", task) == source
    needed = TASKS.load(task).ANNOTATION if task else ""
    if needed not in ("label", ""):
        samples = dataset(source).open(source, "calibration", resolution=(32, 32), labels=())
        assert getattr(samples.annotation(0), needed)


def test_other_data_is_what_it_is():
    assert data_of_task("photos", "detection") == "photos"
    assert data_of_task("demo-boxes", "classification") == "demo-boxes"
