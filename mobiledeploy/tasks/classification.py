"""One class of several: a row of softmax scores or of logits.

The answer is the class with the highest score, of equal ones that with the lower index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.analysis.corpus import Mean
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

SUMMARY = "one class of several"
ANNOTATION: AnnotationField = "label"
METRICS: tuple[Metric, ...] = (
    Metric("top1", "top-1", "share"),
    Metric("top5", "top-5", "share"),
)
GATE: Gate = "exact"
ONE_UNIT = True


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why these are not the scores of classes of which one is right."""
    reason = _ends.class_mismatch(outputs, "classification")
    if not reason and outputs[0].activation == "sigmoid":
        return (
            "each of its numbers ends in a sigmoid of its own; "
            "classification needs a softmax or logits"
        )
    return reason


def classes(outputs: Sequence[ModelOutput]) -> int:
    """One for each number of the row."""
    return _ends.width(outputs[0])


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """The best five classes and their scores, as the model gives them."""
    classes, scores = accuracy.best(np.ravel(outputs[0]))
    return Prediction("", classes=classes, scores=scores)


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """The shares of labelled samples whose label is the best class, or among the best five.

    A model of fewer than five classes has no top-5.
    """
    judged = [replace(p, label=a.label) for p, a in zip(predictions, annotations, strict=True)]
    figures = {"top1": accuracy.top(judged, 1), "top5": accuracy.top(judged, accuracy.BEST)}
    return {name: value for name, value in figures.items() if value is not None}


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: 1 where the best class is the label, else 0; NaN without a label."""
    return np.array(
        [
            np.nan if a.label < 0 else float(p.classes[:1] == (a.label,))
            for p, a in zip(predictions, annotations, strict=True)
        ]
    )


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """The mean of the scores."""
    return Mean(scores(predictions, annotations))


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: KL(p || q) of the softmax p of the reference and q of the output, in nats."""
    return _ends.class_divergences(_ends.rows(reference[0]), _ends.rows(outputs[0]), ends[0])


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether the best class is the same."""
    return one.classes[:1] == other.classes[:1]
