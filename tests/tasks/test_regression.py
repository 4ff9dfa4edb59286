from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.tasks import regression
from tests.tasks.conftest import end


def answers(*values):
    return [regression.decode([np.array(row)], [end(len(row))]) for row in values]


def targets(*values):
    return [Annotation(values=row) for row in values]


def test_the_figures_are_those_of_their_formulas():
    dice = np.random.default_rng(0)
    truth = dice.normal(5, [2, 30], (50, 2))
    wrong = truth + dice.normal(0, [1, 9], (50, 2))
    figures = regression.metrics(answers(*wrong), targets(*map(tuple, truth.tolist())))
    errors = wrong - truth
    assert figures["mae"] == pytest.approx(np.abs(errors).mean())
    assert figures["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    shares = (errors**2).mean(axis=0) / truth.var(axis=0)
    assert figures["r2"] == pytest.approx(np.mean(1 - shares))


def test_a_score_is_the_error_as_a_share_of_the_spread():
    given = answers([10.0], [25.0], [1000.0], [7.0])
    annotations = [*targets((10.0,), (20.0,), (30.0,)), Annotation()]
    np.testing.assert_allclose(
        regression.scores(given, annotations), [1, 0.75, 0, np.nan], atol=1e-12
    )


def test_of_several_values_the_bound_is_the_mean_of_their_spreads():
    annotations = targets((0.0, 1000.0), (10.0, 1030.0))
    given = answers([0.0, 1000.0], [15.0, 1035.0])
    np.testing.assert_allclose(regression.scores(given, annotations), [1, 1 - 5 / 20])


def test_targets_that_are_all_equal_have_no_bound_and_no_r2():
    annotations = targets((3.0,), (3.0,))
    given = answers([3.0], [3.5])
    np.testing.assert_array_equal(regression.scores(given, annotations), [1, 0])
    assert set(regression.metrics(given, annotations)) == {"mae", "rmse"}


def test_an_answer_that_is_no_number_scores_nothing():
    scores = regression.scores(answers([np.nan], [np.inf], [1.0]), targets((0.0,), (1.0,), (1.0,)))
    np.testing.assert_array_equal(scores, [0, 0, 1])
    assert regression.metrics(answers([np.nan], [1.0]), targets((0.0,), (1.0,))) == {}
    corpus = regression.corpus(answers([np.nan], [1.5]), targets((0.0,), (1.0,)))
    assert corpus.metric(np.array([1, 1])) == np.inf
    assert corpus.metric(np.array([0, 2])) == 0.5


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="has 1 target, and the model gives 2"):
        regression.metrics(answers([1.0, 2.0]), targets((1.0,)))
    with pytest.raises(InputError, match="no number"):
        regression.scores(answers([1.0]), targets((np.inf,)))


def test_unlike_values_weigh_alike_in_the_divergence():
    reference = np.random.default_rng(0).normal(0, [1, 1000], (100, 2))
    one, other = (
        regression.divergence([reference], [reference + np.array(error)], [end(2)]).mean()
        for error in ([0.1, 0], [0, 100])
    )
    assert one == pytest.approx(other, rel=0.3)
    assert one == pytest.approx(0.1**2 / reference[:, 0].var() / 2)


def test_what_does_not_fit():
    assert "softmax" in regression.mismatch([end(3, activation="softmax")])
    assert "2 outputs" in regression.mismatch([end(1), end(1)])
