from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.tasks import binary
from tests.tasks.conftest import end, sigmoid

SIGMOID, LOGIT = end(1, activation="sigmoid"), end(1)


@pytest.mark.parametrize(
    ("number", "output", "answer"),
    [(0.51, SIGMOID, 1), (0.5, SIGMOID, 0), (0.3, LOGIT, 1), (0.0, LOGIT, 0), (-0.3, LOGIT, 0)],
)
def test_the_threshold_is_that_of_the_end(number, output, answer):
    assert binary.decode([np.array([number], np.float32)], [output]).classes[0] == answer


def test_accuracy_and_auc_leave_out_the_unlabelled():
    dice = np.random.default_rng(0)
    numbers = np.round(dice.normal(0, 1, 300), 1)
    labels = (numbers + dice.normal(0, 1, 300) > 0).astype(int)
    labels[:20] = -1
    answers = [binary.decode([np.array([x])], [LOGIT]) for x in numbers]
    figures = binary.metrics(answers, [Annotation(label=int(x)) for x in labels])
    known = labels >= 0
    assert figures["accuracy"] == pytest.approx(np.mean((numbers > 0)[known] == labels[known]))
    yes, no = numbers[labels == 1], numbers[labels == 0]
    wins = stats.mannwhitneyu(yes, no).statistic / yes.size / no.size
    assert figures["auc"] == pytest.approx(wins, abs=1e-12)


def test_one_class_alone_has_no_auc():
    answers = [binary.decode([np.array([0.9])], [SIGMOID])] * 3
    assert binary.metrics(answers, [Annotation(label=1)] * 3) == {"accuracy": 1}


def test_a_third_class_is_refused():
    answers = [binary.decode([np.array([0.9])], [SIGMOID])]
    with pytest.raises(InputError, match="has the label 2; binary has the classes 0 and 1"):
        binary.metrics(answers, [Annotation(label=2)])


def test_a_sigmoid_diverges_as_its_logit_does():
    reference, logits = np.random.default_rng(0).normal(0, 1, (2, 30, 1))
    by_sigmoid = binary.divergence([sigmoid(reference)], [sigmoid(logits)], [SIGMOID])
    np.testing.assert_allclose(by_sigmoid, binary.divergence([reference], [logits], [LOGIT]))


def test_what_does_not_fit():
    assert binary.mismatch([end(3)]) == "it gives 3 numbers for each image; binary needs one"
    assert "softmax of one number" in binary.mismatch([end(1, activation="softmax")])
