from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core import samples
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Annotation


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


@dataclass
class Labelled:
    """Samples of which only the annotations are asked for."""

    truths: list[Annotation]
    source: str = "data"
    classes: tuple[str, ...] = ("a", "b", "c")

    def __len__(self):
        return len(self.truths)

    def label(self, index):
        return self.truths[index].label

    def annotation(self, index):
        return self.truths[index]


@pytest.mark.parametrize(
    ("labels", "refused"),
    [([1, 1, 1], True), ([-1, 0, -1, 0], True), ([0, 1], False), ([-1, -1], False), ([], False)],
)
def test_one_class_says_nothing_of_an_accuracy_and_no_label_claims_none(labels, refused):
    data = Labelled([Annotation(label) for label in labels])
    if refused:
        with pytest.raises(InputError, match=r"data holds one class.*enough for calibration"):
            samples.require_two_classes(data)
    else:
        samples.require_two_classes(data)


@pytest.mark.parametrize(
    ("truths", "classes"),
    [
        ([Annotation(0)], 3),
        ([Annotation(), Annotation(2)], 3),
        ([Annotation()], 0),
        # Marks of classes may exclude each other or not, and a number may be a class or a value.
        ([Annotation(0, (0,))], 0),
        ([Annotation(values=(1.0,))], 0),
    ],
)
def test_classes_count_only_where_each_sample_has_one(truths, classes):
    assert samples.labelled_classes(Labelled(truths)) == classes


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_marks_are_all_right_classes_and_the_only_one_is_the_label(marks):
    truth = samples.right_classes(np.array(marks))
    assert [place in truth.labels for place in range(len(marks))] == marks
    assert truth.label == (truth.labels[0] if sum(marks) == 1 else -1)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["0 cat", "1 great white shark"], ("cat", "great white shark")),
        (["0 cat", " 1\tdog "], ("cat", "dog")),
        # These numbers count nothing: they belong to the names.
        (["1 cat", "2 dog"], ("1 cat", "2 dog")),
        (["0 cat", "2 dog"], ("0 cat", "2 dog")),
        (["0", "1"], ("0", "1")),
        (["00 cat", "01 dog"], ("00 cat", "01 dog")),
        (["n01 tench", "n02 goldfish"], ("n01 tench", "n02 goldfish")),
    ],
)
def test_numbers_that_count_the_labels_are_no_part_of_them(lines, names):
    assert samples.label_names(lines, "labels") == names


def test_an_empty_line_between_labels_is_named():
    with pytest.raises(InputError, match=r"labels.txt has an empty line 2"):
        samples.label_names(["a", " ", "b"], "labels.txt")


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
