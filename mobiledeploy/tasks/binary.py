"""Yes or no by one number: the sigmoid of the second class, or its logit.

The answer is 1 where the sigmoid is above 0.5, which is where the logit is above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.analysis.corpus import Mean, Ranking
from mobiledeploy.core.ports import Array, Corpus
from mobiledeploy.core.types import (
    Annotation,
    AnnotationField,
    Gate,
    Metric,
    ModelOutput,
    Prediction,
)
from mobiledeploy.tasks import _ends

SUMMARY = "yes or no, by one score"
ANNOTATION: AnnotationField = "label"
METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "accuracy", "share"),
    Metric("auc", "AUC", "share"),
)
GATE: Gate = "exact"
ONE_UNIT = True


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why this is not one score."""
    reason = _ends.row_mismatch(outputs, "binary")
    if not reason and (count := _ends.width(outputs[0])) > 1:
        return f"it gives {count} numbers for each image; binary needs one"
    if not reason and outputs[0].activation == "softmax":
        return "the softmax of one number is always 1; binary needs a sigmoid or a logit"
    return reason


def classes(outputs: Sequence[ModelOutput]) -> int:
    """Two: no and yes."""
    return 2


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """Both classes, the answer first, with their probabilities; `values` holds that of class 1."""
    chance = float(_ends.probabilities(np.ravel(outputs[0]), ends[0])[0])
    classes, scores = accuracy.best([1 - chance, chance])
    return Prediction("", classes=classes, scores=scores, values=(chance,))


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """The share of right answers, and the area under the ROC curve.

    The area is the share of pairs of a positive and a negative sample in which the positive one has
    the higher score; equal scores count half. It needs both.
    """
    right = scores(predictions, annotations)
    labelled = np.isfinite(right)
    if not labelled.any():
        return {}
    chance = _ends.values(predictions)[:, 0]
    labels = np.array([a.label for a in annotations])
    ranking = Ranking(chance[labelled][None], labels[labelled][None] == 1)
    area = float(ranking.auc(np.ones(int(labelled.sum()), np.int64))[0])
    figures = {"accuracy": float(right[labelled].mean()), "auc": area}
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: 1 where the answer is the label, else 0; NaN without a label.

    InputError for a label above 1.
    """
    for p, a in zip(predictions, annotations, strict=True):
        if a.label > 1:
            raise _ends.unfit(
                p.sample,
                f"has the label {a.label}; binary has the classes 0 and 1",
                "give data of two classes",
            )
    return np.array(
        [
            np.nan if a.label < 0 else float(p.classes[0] == a.label)
            for p, a in zip(predictions, annotations, strict=True)
        ]
    )


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """The mean of the scores."""
    return Mean(scores(predictions, annotations))


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: KL(p || q) of yes and no with the sigmoids p and q, in nats."""
    each = _ends.yes_divergences(_ends.rows(reference[0]), _ends.rows(outputs[0]), ends[0])
    return np.asarray(each[:, 0])


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether both say yes, or both say no."""
    return one.classes[0] == other.classes[0]
