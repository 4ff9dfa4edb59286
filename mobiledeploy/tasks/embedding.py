"""A vector of which only the direction counts, as of a face or of an image to look for.

Labels say which samples show the same thing. Vectors are compared by their cosine, rounded to six
digits, which is what float32 resolves. A vector of zeros has the cosine 0 with all others, and so
has one with numbers that are not finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

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

SUMMARY = "a vector that is near to those of similar images"
ANNOTATION: AnnotationField = "label"
METRICS: tuple[Metric, ...] = (
    Metric("recall_at_1", "recall@1", "share"),
    Metric("verification", "verification accuracy", "share"),
)
GATE: Gate = "exact"
ONE_UNIT = True
SAME = 0.95
"""Vectors of this cosine or more are the same answer: 18 degrees apart at most."""
THRESHOLDS = 2000
"""The cosines from -1 to 1 are counted in so many steps of 0.001."""
_DIGITS = 6
_ROWS = 256


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why this is not one vector."""
    reason = _ends.row_mismatch(outputs, "embedding")
    if not reason and _ends.width(outputs[0]) < 2:
        return "it gives one number for each image; embedding needs a vector of two or more"
    if not reason and outputs[0].activation == "softmax":
        return "it ends in a softmax, which gives the scores of classes; embedding needs a vector"
    return reason


def classes(outputs: Sequence[ModelOutput]) -> int | None:
    """None: a vector names no class."""
    return None


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """The vector as `values`."""
    return Prediction("", values=tuple(np.ravel(outputs[0]).astype(np.float64).tolist()))


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """The share of samples whose nearest other sample has their label, and pairs told apart.

    Verification asks of every pair of samples whether both have one label, and says yes from a
    threshold of the cosine on. Its accuracy is the mean of the shares of equal and of unequal pairs
    that are right, at the best of the thresholds -1, -0.999, ..., 1: there are many more unequal
    pairs, and each kind counts half. It needs both kinds.
    """
    right = scores(predictions, annotations)
    figures = {}
    if np.isfinite(right).any():
        figures["recall_at_1"] = float(np.nanmean(right))
    vectors, labels, _ = _gallery(predictions, annotations)
    equal, unequal = np.zeros((2, THRESHOLDS + 1), np.int64)
    for start, cosines in _blocks(vectors):
        steps = np.floor((cosines + 1) * (THRESHOLDS / 2) + 10.0**-_DIGITS).astype(np.int64)
        same = labels[start : start + len(cosines), None] == labels
        # Each pair once.
        later = np.arange(len(labels)) > np.arange(start, start + len(cosines))[:, None]
        equal += np.bincount(steps[same & later], minlength=THRESHOLDS + 1)
        unequal += np.bincount(steps[~same & later], minlength=THRESHOLDS + 1)
    if equal.any() and unequal.any():
        accepted = np.cumsum(equal[::-1])[::-1] / equal.sum()
        rejected = 1 - np.cumsum(unequal[::-1])[::-1] / unequal.sum()
        figures["verification"] = float(np.max(accepted + rejected) / 2)
    return figures


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: 1 where the nearest of the other samples has the sample's label, else 0.

    A sample of another label that is as near makes it 0: a model that gives one vector to all
    images finds nothing. Samples of the same name are the same one, and none finds itself. NaN
    without a label, and where no other sample has it.
    """
    vectors, labels, names = _gallery(predictions, annotations)
    right = np.full(len(labels), np.nan)
    for start, cosines in _blocks(vectors):
        part = slice(start, start + len(cosines))
        same = labels[part, None] == labels
        other = names[part, None] != names
        nearest = np.where(same & other, cosines, -np.inf).max(axis=1)
        rival = np.where(~same & other, cosines, -np.inf).max(axis=1)
        right[part] = np.where(np.isfinite(nearest), nearest > rival, np.nan)
    result = np.full(len(annotations), np.nan)
    result[[a.label >= 0 for a in annotations]] = right
    return result


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """The mean of the scores; each sample is still looked for among all others."""
    return Mean(scores(predictions, annotations))


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: 1 - cosine of both vectors, from 0 to 2."""
    one, other = (_ends.rows(x[0]) for x in (reference, outputs))
    cosines = np.sum(_unit(one) * _unit(other), axis=1)
    equal = np.all(one == other, axis=1)
    return np.where(equal, 0.0, np.clip(1 - cosines, 0, 2))


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether the cosine of both is at least `SAME`."""
    mine, theirs = (np.array([p.values]) for p in (one, other))
    return bool(divergence([mine], [theirs], ())[0] <= 1 - SAME)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def _gallery(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The labelled samples: unit vectors [M, D], labels [M], and a number for each name [M].

    Samples without a name are all different.
    """
    numbers: dict[str, int] = {}
    keys = [numbers.setdefault(p.sample or f"\0{n}", n) for n, p in enumerate(predictions)]
    labels = np.array([a.label for a in annotations], np.int64)
    labelled = labels >= 0
    vectors = _ends.values(predictions)[labelled]
    vectors[~np.isfinite(vectors).all(axis=1)] = 0
    return _unit(vectors), labels[labelled], np.array(keys, np.int64)[labelled]


def _blocks(vectors: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The first row and the cosines [rows, M] of a few vectors at a time with all of them."""
    for start in range(0, len(vectors), _ROWS):
        cosines = vectors[start : start + _ROWS] @ vectors.T
        yield start, np.clip(np.round(cosines, _DIGITS), -1, 1)
