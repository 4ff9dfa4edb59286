from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.tasks import tensors
from tests.tasks.conftest import end


def answers(table):
    return [tensors.decode([row], [end(*row.shape)]) for row in table]


def references(table):
    return [Annotation(values=tuple(np.ravel(row).tolist())) for row in table]


def test_the_figures_are_those_of_their_formulas():
    dice = np.random.default_rng(0)
    exact = dice.normal(0, 1, (20, 3, 4))
    value = exact + dice.normal(0, 0.05, exact.shape)
    figures = tensors.metrics(answers(value), references(exact))
    assert figures["sqnr"] == pytest.approx(accuracy.sqnr_db(exact, value))
    assert figures["largest_error"] == pytest.approx(np.abs(exact - value).max())
    flat, other = exact.reshape(20, -1), value.reshape(20, -1)
    sizes = np.linalg.norm(flat, axis=1) * np.linalg.norm(other, axis=1)
    assert figures["cosine"] == pytest.approx(np.mean(np.sum(flat * other, axis=1) / sizes))


def test_scores_are_decibels_over_the_bound():
    exact = np.ones((6, 4))
    value = exact * np.array([1, 1.001, 1.1, 2, 9, np.nan])[:, None]
    np.testing.assert_allclose(
        tensors.scores(answers(value), references(exact)), [1, 1, 20 / 60, 0, 0, 0], atol=1e-9
    )


def test_zeros_are_right_or_wrong():
    scores = tensors.scores(answers(np.array([[0.0], [0.1]])), references(np.zeros((2, 1))))
    np.testing.assert_array_equal(scores, [1, 0])


def test_an_output_of_large_numbers_does_not_hide_another():
    dice = np.random.default_rng(0)
    reference = [dice.normal(0, 1, (20, 3)), dice.normal(0, 1e4, (20, 3))]
    ruined = [np.zeros((20, 3)), reference[1]]
    assert tensors.divergence(reference, ruined, [end(3), end(3)]).mean() == pytest.approx(0.5)


def test_another_number_of_values_is_refused():
    with pytest.raises(InputError, match="has 3 numbers of the float model, and 4 of this one"):
        tensors.metrics(answers(np.zeros((1, 4))), references(np.zeros((1, 3))))


def test_answers_agree_to_20_db():
    one, near, far = answers(np.array([[1.0, 1.0], [1.09, 1.09], [1.2, 1.2]]))
    assert tensors.agrees(one, near)
    assert not tensors.agrees(one, far)
