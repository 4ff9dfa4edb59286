from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mobiledeploy.analysis.corpus import Mean, Ranking

# Few different scores: ties are what goes wrong.
SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans(), st.integers(0, 3)),
    min_size=1,
    max_size=20,
)


def auc(scores, positive) -> float:
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, of in zip(scores, positive, strict=True)
        if of
        for b, other in zip(scores, positive, strict=True)
        if not other
    ]
    return sum(pairs) / len(pairs) if pairs else math.nan


def average_precision(scores, positive) -> float:
    """The sum of (R_n - R_(n-1)) P_n over the thresholds, by its definition."""
    if not any(positive):
        return math.nan
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [of for score, of in zip(scores, positive, strict=True) if score >= threshold]
        recall = sum(taken) / sum(positive)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


@given(SAMPLES)
def test_areas_are_those_of_the_repeated_samples(samples):
    scores, positive, counts = map(np.array, zip(*samples, strict=True))
    ranking = Ranking(scores[None], positive[None])
    repeated = np.repeat(scores, counts).tolist(), np.repeat(positive, counts).tolist()
    assert ranking.auc(counts)[0] == pytest.approx(auc(*repeated), nan_ok=True)
    assert ranking.average_precision(counts)[0] == pytest.approx(
        average_precision(*repeated), nan_ok=True
    )


def test_the_auc_is_that_of_scipy_for_each_class():
    dice = np.random.default_rng(0)
    scores = np.round(dice.normal(0, 1, (3, 200)), 1)
    positive = dice.random((3, 200)) < [[0.1], [0.5], [0.9]]
    values = Ranking(scores, positive).auc(np.ones(200, np.int64))
    for row, of, value in zip(scores, positive, values, strict=True):
        wins = stats.mannwhitneyu(row[of], row[~of]).statistic
        assert value == pytest.approx(wins / of.sum() / (~of).sum(), abs=1e-12)


def test_a_class_without_positives_has_no_figure_and_the_others_do():
    ranking = Ranking([[0.1, 0.9], [0.1, 0.9]], [[False, True], [False, False]])
    once = np.ones(2, np.int64)
    np.testing.assert_array_equal(ranking.auc(once), [1, np.nan])
    np.testing.assert_array_equal(ranking.average_precision(once), [1, np.nan])


def test_a_mean_leaves_out_what_is_not_a_number():
    mean = Mean([1.0, np.nan, 4.0])
    assert mean.metric(np.array([1, 5, 2])) == 3
    assert math.isnan(mean.metric(np.array([0, 5, 0])))
