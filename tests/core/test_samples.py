import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import samples
from mobiledeploy.core.errors import InputError


@given(st.integers(1, 5000))
def test_calibration_and_validation_share_nothing_and_leave_nothing(count):
    calibration = set(samples.part(count, "calibration").tolist())
    validation = set(samples.part(count, "validation").tolist())
    assert len(calibration) == min(200, max(1, count // 5))
    assert not calibration & validation
    assert calibration | validation == set(range(count))
    assert samples.part(count, "all").tolist() == list(range(count))


def test_the_split_never_changes():
    assert samples.part(10, "calibration").tolist() == [4, 6]
    assert samples.part(500, "calibration")[:6].tolist() == [8, 9, 15, 20, 39, 41]


@given(count=st.integers(2, 3000))
def test_training_images_and_held_back_ones_do_not_overlap(count):
    train, held_back = (set(samples.part(count, split).tolist()) for split in ("train", "held"))
    assert not train & held_back
    assert train | held_back == set(range(count))
    assert len(held_back) == max(1, count // 5)
    assert not set(samples.part(count, "calibration").tolist()) & held_back


def test_names_match_whole_lines_and_first_words():
    labels = ("n01 tench", "n02 goldfish", "great white shark")
    assert samples.match(["n02", "n01 tench", "great white shark"], labels, "data") == (1, 0, 2)
    assert samples.match(["a", "b"], (), "data") == (0, 1)


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["n03"], ("n01 tench", "n02 goldfish"), "'n03' of data is none of the 2"),
        (["great"], ("great shark", "great tit"), "more than one"),
        (["n01", "n01 tench"], ("n01 tench", "n02"), "same label"),
    ],
)
def test_names_that_do_not_fit_are_named(names, labels, message):
    with pytest.raises(InputError, match=message):
        samples.match(names, labels, "data")


def test_a_whole_line_wins_over_a_first_word():
    assert samples.match(["great"], ("great shark", "great", "great tit"), "data") == (1,)


def test_one_class_is_enough_to_calibrate_but_not_to_evaluate():
    samples.require_two_classes("calibration", 1, "data")
    for split in ("validation", "test", "all"):
        with pytest.raises(InputError, match=r"one class"):
            samples.require_two_classes(split, 1, "data")


def test_only_the_background_class_is_an_offset():
    assert samples.class_offset(1000, 1001) == 1
    assert samples.class_offset(1001, 1000) == -1
    assert samples.class_offset(12, 12) == 0
    assert samples.class_offset(12, 13) is None


def test_a_class_has_the_name_of_its_label_with_a_background_before_it_too():
    labels = [f"label {n}" for n in range(1000)]
    assert samples.class_name(labels, 1000, 7) == "label 7"
    assert samples.class_name(labels, 1001, 8) == "label 7"
    assert samples.class_name(labels, 1001, 0) == "0"
    assert samples.class_name(labels, 12, 7) == "7"
    assert samples.class_name((), 12, 7) == "7"
