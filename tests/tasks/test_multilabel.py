from __future__ import annotations

import numpy as np
import pytest

from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Annotation
from mobiledeploy.tasks import multilabel
from tests.analysis.test_corpus import average_precision
from tests.tasks.conftest import end


def case(seed: int, classes: int = 4, n: int = 60):
    dice = np.random.default_rng(seed)
    truth = dice.random((n, classes)) < 0.3
    # No sample has the last class.
    truth[:, -1] = False
    logits = np.round(dice.normal(0, 1, truth.shape) + 2 * truth - 1, 1)
    answers = [multilabel.decode([row], [end(classes)]) for row in logits]
    annotations = [Annotation(labels=tuple(np.flatnonzero(row).tolist())) for row in truth]
    return logits, truth, answers, annotations


def test_the_figures_are_those_of_their_formulas():
    logits, truth, answers, annotations = case(0)
    figures = multilabel.metrics(answers, annotations)
    precisions, f1 = [], []
    for column, of in zip(logits.T[:-1], truth.T[:-1], strict=True):
        precisions.append(average_precision(column.tolist(), of.tolist()))
        hits = sum((column > 0) & of)
        precision, recall = hits / sum(column > 0), hits / sum(of)
        f1.append(2 * precision * recall / (precision + recall))
    assert figures["map"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert figures["f1"] == pytest.approx(np.mean(f1), abs=1e-12)


def test_a_sample_without_labels_counts():
    answers = [multilabel.decode([np.array([x, -1.0])], [end(2)]) for x in (2.0, 1.0, -1.0)]
    annotations = [Annotation(), Annotation(labels=(0,)), Annotation()]
    assert multilabel.metrics(answers, annotations)["map"] == 0.5
    np.testing.assert_array_equal(multilabel.scores(answers, annotations), [0, 1, 1])


@pytest.mark.parametrize("label", [-1, 2])
def test_a_class_that_the_model_lacks_is_refused(label):
    answers = [multilabel.decode([np.array([1.0, 2.0])], [end(2)])]
    with pytest.raises(InputError, match=f"has the class {label}, and the model has 2 classes"):
        multilabel.metrics(answers, [Annotation(labels=(label,))])


def test_what_does_not_fit():
    assert multilabel.mismatch([end(1)]) == (
        "it gives one number for each image; multilabel needs two classes or more"
    )
    assert "exclude each other" in multilabel.mismatch([end(3, activation="softmax")])
