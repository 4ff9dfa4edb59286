"""Several classes, each right or not: sigmoid scores or logits.

An answer is every class whose sigmoid is above 0.5. A sample without labels has no class that is
right, which is an annotation too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
from mobiledeploy.analysis.corpus import Ranking
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

SUMMARY = "several classes, each right or not"
ANNOTATION: AnnotationField = "labels"
METRICS: tuple[Metric, ...] = (
    Metric("map", "mAP", "share"),
    Metric("f1", "F1", "share"),
)
GATE: Gate = "corpus"
ONE_UNIT = True
THRESHOLD = 0.5


class LabelRanking:
    """The samples, ranked by each class's score."""

    def __init__(self, chances: NDArray[np.float64], truth: NDArray[np.bool_]) -> None:
        self._ranking = Ranking(chances.T, truth.T)
        self.classes = tuple(range(truth.shape[1]))
        self.annotated = truth.astype(np.int64)
        self.worth = np.ones(truth.shape[1])

    def of_classes(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """[C] the average precision; NaN for a class that no counted sample has."""
        return self._ranking.average_precision(counts)

    def metric(self, counts: NDArray[np.int64]) -> float:
        """The mean average precision of the classes that a counted sample has."""
        return _mean(self.of_classes(counts))


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why these are not the scores of classes of which several can be right."""
    reason = _ends.class_mismatch(outputs, "multilabel")
    if not reason and outputs[0].activation == "softmax":
        return (
            "its classes exclude each other, for it ends in a softmax; "
            "multilabel needs sigmoids or logits"
        )
    return reason


def classes(outputs: Sequence[ModelOutput]) -> int:
    """One for each number of the row."""
    return _ends.width(outputs[0])


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """The sigmoids of all classes as `values`, and the best five with their classes."""
    chances = _ends.probabilities(np.ravel(outputs[0]), ends[0])
    classes, scores = accuracy.best(chances)
    return Prediction("", classes=classes, scores=scores, values=tuple(chances.tolist()))


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """Means over the classes that a sample has: average precision, and F1 at 0.5.

    The average precision is the sum of precisions at each score, each weighted by what the recall
    gains there, without interpolation. F1 is 2 TP / (2 TP + FP + FN).
    """
    chances, truth = _tables(predictions, annotations)
    if not truth.any():
        return {}
    answers = chances > THRESHOLD
    annotated = truth.any(axis=0)
    hits = np.sum(answers & truth, axis=0)[annotated]
    both = (answers.sum(axis=0) + truth.sum(axis=0))[annotated]
    whole = LabelRanking(chances, truth).metric(np.ones(len(chances), np.int64))
    return {"map": whole, "f1": float(np.mean(2 * hits / both))}


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: F1 of the classes of each sample; 1 where neither side has any."""
    chances, truth = _tables(predictions, annotations)
    answers = chances > THRESHOLD
    hits = np.sum(answers & truth, axis=1)
    both = answers.sum(axis=1) + truth.sum(axis=1)
    return np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """The ranking of the samples for each class."""
    return LabelRanking(*_tables(predictions, annotations))


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: the sum over the classes of KL(p || q) of yes and no, in nats."""
    each = _ends.yes_divergences(_ends.rows(reference[0]), _ends.rows(outputs[0]), ends[0])
    return np.asarray(each.sum(axis=1))


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether both answer the same classes."""
    mine, theirs = (np.asarray(p.values) > THRESHOLD for p in (one, other))
    return bool(np.array_equal(mine, theirs))


def _tables(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """[N, C] sigmoids, and whether each class is right; InputError for a class that is none."""
    chances = _ends.values(predictions)
    truth = np.zeros(chances.shape, bool)
    for n, (p, a) in enumerate(zip(predictions, annotations, strict=True)):
        for label in a.labels:
            if not 0 <= label < len(p.values):
                raise _ends.unfit(
                    p.sample,
                    f"has the class {label}, and the model has {len(p.values)} classes",
                    "give data with the model's classes",
                )
            truth[n, label] = True
    return chances, truth


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
