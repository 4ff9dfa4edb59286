from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.analysis import accuracy
from mobiledeploy.core.types import Annotation
from mobiledeploy.tasks import classification
from tests.tasks.conftest import end, softmax


def test_equal_scores_go_to_the_lower_index():
    answer = classification.decode([np.array([0.25, 0.5, 0.5, 0])], [end(4, activation="softmax")])
    assert answer.classes == (1, 2, 0, 3)
    assert answer.scores == (0.5, 0.5, 0.25, 0)


def test_top_1_and_top_5_count_labelled_samples():
    rows = np.eye(6)[[0, 1, 2]]
    answers = [classification.decode([row], [end(6)]) for row in rows]
    annotations = [Annotation(label=0), Annotation(label=5), Annotation()]
    assert classification.metrics(answers, annotations) == {"top1": 0.5, "top5": 0.5}
    np.testing.assert_array_equal(classification.scores(answers, annotations), [1, 0, np.nan])


def test_two_classes_have_no_top_5():
    answers = [classification.decode([np.array([0.1, 0.9])], [end(2)])]
    assert classification.metrics(answers, [Annotation(label=1)]) == {"top1": 1}


def test_a_softmax_diverges_as_its_logits_do():
    reference, logits = np.random.default_rng(0).normal(0, 1, (2, 30, 5))
    by_softmax = classification.divergence(
        [softmax(reference)], [softmax(logits)], [end(5, activation="softmax")]
    )
    by_logits = classification.divergence([reference], [logits], [end(5)])
    np.testing.assert_allclose(by_softmax, by_logits, rtol=1e-9)
    assert by_logits.mean() == pytest.approx(accuracy.divergence(reference, logits))


def test_zeros_of_int8_are_no_loss():
    """A thousand classes of which few have a step of int8 or more."""
    ends = [end(1000, activation="softmax")]
    logits = np.random.default_rng(0).normal(0, 3, (30, 1000))
    reference = softmax(logits)
    rounded = np.round(reference * 256) / 256
    assert np.mean(rounded == 0) > 0.9
    rounding = classification.divergence([reference], [rounded], ends).mean()
    assert rounding < 0.02
    # What int8 does not round away is still seen in full.
    worse = logits + np.random.default_rng(1).normal(0, 0.3, logits.shape)
    value = classification.divergence([reference], [softmax(worse)], ends).mean()
    assert value > 3 * rounding
    assert value == pytest.approx(accuracy.divergence(logits, worse), rel=0.3)


def test_a_class_that_one_side_rounds_to_zero_still_counts():
    ends = [end(3, activation="softmax")]
    one, other = np.array([[0.5, 0.5, 0]]), np.array([[0.5, 0, 0.5]])
    assert classification.divergence([one], [other], ends) > 1


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        (
            [end(1, activation="sigmoid")],
            "it gives one number for each image; classification needs two classes or more",
        ),
        ([end(3), end(4)], "it has 2 outputs; classification reads one"),
        (
            [end(8, 8, 3)],
            "its output has the shape 8 × 8 × 3; classification reads one row of numbers",
        ),
        (
            [end(3, activation="sigmoid")],
            "each of its numbers ends in a sigmoid of its own; "
            "classification needs a softmax or logits",
        ),
    ],
)
def test_what_does_not_fit(ends, sentence):
    assert classification.mismatch(ends) == sentence
