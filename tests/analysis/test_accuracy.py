from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.types import Prediction

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0]), min_size=1, max_size=20)


def prediction(sample: str, label: int, *classes: int) -> Prediction:
    return Prediction(sample, label, classes, (0.0,) * len(classes))


@given(SCORES, st.integers(1, 7))
def test_the_best_are_highest_first_and_ties_go_to_the_lower_index(scores, count) -> None:
    classes, values = accuracy.best(np.asarray(scores, np.float32), count)
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count]
    assert list(classes) == expected
    assert list(values) == [scores[index] for index in expected]


def test_top_counts_labelled_images_only() -> None:
    values = [
        prediction("a", 1, 1, 0, 2, 3, 4),
        prediction("b", 2, 1, 2, 0, 3, 4),
        prediction("c", 5, 1, 2, 0, 3, 4),
        prediction("d", -1, 1, 2, 0, 3, 4),
    ]
    assert accuracy.top(values, 1) == pytest.approx(1 / 3)
    assert accuracy.top(values, 5) == pytest.approx(2 / 3)
    assert accuracy.top(values[3:], 1) is None


def test_top_5_of_two_classes_is_none() -> None:
    assert accuracy.top([prediction("a", 1, 0, 1)], 5) is None
    assert accuracy.top([prediction("a", 1, 0, 1)], 1) == 0


def test_agreement_is_over_common_images() -> None:
    left = [prediction("a", -1, 1), prediction("b", -1, 2), prediction("c", -1, 3)]
    right = [prediction("b", -1, 2), prediction("a", -1, 7), prediction("x", -1, 3)]
    assert accuracy.agreement(left, right) == 0.5
    assert accuracy.agreement(left, right[2:]) is None


def test_confusion_is_of_the_wrong_ones_largest_first() -> None:
    values = [prediction(str(n), *pair) for n, pair in enumerate([(1, 2), (0, 0), (1, 2), (2, 0)])]
    assert accuracy.confusion(values) == ((1, 2, 2), (2, 0, 1))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.floats(0.5, 20))
def test_a_relative_error_gives_its_own_sqnr(values, quarters) -> None:
    reference = np.asarray(values)
    wrong = reference * (1 + 10 ** (-quarters / 4))
    assert accuracy.sqnr_db(reference, wrong) == pytest.approx(5 * quarters, abs=1e-3)
    assert accuracy.sqnr_db(-reference, -wrong) == accuracy.sqnr_db(reference, wrong)


def test_sqnr_at_its_ends() -> None:
    assert accuracy.sqnr_db([1.0, 2.0], [1.0, 2.0]) == accuracy.LARGEST_SQNR_DB
    assert math.isnan(accuracy.sqnr_db([1.0, 2.0], [1.0, math.nan]))
    assert math.isnan(accuracy.sqnr_db([0.0, 0.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match="differ"):
        accuracy.sqnr_db([1.0], [1.0, 2.0])


@given(
    arrays(float, (4, 3), elements=st.floats(-9, 9)), arrays(float, 4, elements=st.floats(-9, 9))
)
def test_divergence_is_zero_for_a_common_offset_and_positive_otherwise(logits, shared):
    assert accuracy.divergence(logits, logits + shared[:, None]) == pytest.approx(0, abs=1e-9)
    other = logits.copy()
    other[:, 0] += 1
    assert accuracy.divergence(logits, other) > 0


def test_an_error_of_an_image_that_is_sure_of_its_class_costs_less():
    unsure, sure = np.zeros((1, 3)), np.array([[20.0, 0, 0]])
    error = np.array([[0.5, 0, 0]])
    assert accuracy.divergence(unsure, unsure + error) > 1e3 * accuracy.divergence(
        sure, sure + error
    )


def test_a_distance_is_that_of_all_images_together() -> None:
    dice = np.random.default_rng(0)
    reference = dice.normal(0, 3, (50, 7))
    logits = reference + dice.normal(0, 0.2, (50, 7))
    distance = accuracy.Distance()
    for one, other in zip(reference, logits, strict=True):
        distance.add([one], [other], accuracy.divergence([one], [other]))
    assert distance.images == 50
    assert distance.sqnr_db == pytest.approx(accuracy.sqnr_db(reference, logits))
    assert distance.divergence == pytest.approx(accuracy.divergence(reference, logits))


def test_the_divergence_of_each_sample_has_the_mean_of_all():
    dice = np.random.default_rng(1)
    reference, logits = dice.normal(0, 3, (2, 50, 4, 7))
    each = accuracy.divergences(reference, logits)
    assert each.shape == (50, 4)
    assert each[:, 0].mean() == pytest.approx(
        accuracy.divergence(reference[:, 0], logits[:, 0]), abs=1e-12
    )


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_the_divergence_of_yes_and_no_is_that_of_two_classes(one, other):
    of_two = accuracy.divergences([[0.0, one]], [[0.0, other]])[0]
    assert accuracy.bernoulli_divergences(one, other) == pytest.approx(of_two, abs=1e-12)
