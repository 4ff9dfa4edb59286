import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.analysis.label_order import better_order


def answers_of(labels, accuracy, classes, seed=0):
    """Answers of which so many are right, in the order of the labels."""
    random = np.random.default_rng(seed)
    others = (labels + random.integers(1, classes, len(labels))) % classes
    return np.where(random.random(len(labels)) < accuracy, labels, others)


@given(classes=st.integers(2, 12), accuracy=st.floats(0.85, 1), seed=st.integers(0, 10**6))
def test_the_order_that_the_model_was_trained_with_is_found(classes, accuracy, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(classes * 30) % classes
    order = random.permutation(classes)
    answers = np.argsort(order)[answers_of(labels, accuracy, classes, seed)]
    found = better_order(answers, labels, classes)
    top1 = float(np.mean(order[answers] == labels))
    if np.mean(answers == labels) < top1 - 0.2:
        assert found is not None
        assert found.order == tuple(order)
        assert found.top1 == pytest.approx(top1)


@given(classes=st.integers(2, 12), accuracy=st.floats(0.2, 1), seed=st.integers(0, 10**6))
def test_a_model_in_the_right_order_keeps_it(classes, accuracy, seed):
    labels = np.arange(classes * 30) % classes
    assert (
        better_order(
            answers_of(labels, max(accuracy, 1.5 / classes), classes, seed), labels, classes
        )
        is None
    )


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_model_that_knows_nothing_has_no_order(classes):
    for seed in range(50):
        random = np.random.default_rng(seed)
        answers, labels = random.integers(0, classes, (2, 400))
        assert better_order(answers, labels, classes) is None


def test_a_binary_model_the_other_way_round():
    labels = np.arange(100) % 2
    answers = np.where(np.arange(100) < 9, labels, 1 - labels)
    found = better_order(answers, labels, 2)
    assert found is not None
    assert found.order == (1, 0)
    assert found.top1 == 0.91


def test_classes_that_nobody_shows_stay_as_they_are():
    labels = np.arange(200) % 3
    found = better_order(np.array([2, 0, 1])[labels], labels, 6)
    assert found is not None
    assert found.order == (1, 2, 0, 3, 4, 5)


def test_without_labels_there_is_none():
    assert better_order([0, 1], [-1, -1], 2) is None
    assert better_order([], [], 2) is None
