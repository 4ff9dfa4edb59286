"""Numbers: one for each sample, or several.

The score of a sample is 1 - min(error, bound) / bound. Its error is the mean absolute error of its
values. The bound is the spread (largest minus smallest) of the annotated values over the data, of
several values the mean of their spreads. So an answer that is wrong by the whole range is as bad as
can be, and one wild value cannot outweigh all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis.corpus import Mean
from mobiledeploy.core import units
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

SUMMARY = "numbers, such as an age or coordinates"
ANNOTATION: AnnotationField = "values"
METRICS: tuple[Metric, ...] = (
    Metric("mae", "MAE", "", higher_is_better=False),
    Metric("rmse", "RMSE", "", higher_is_better=False),
    Metric("r2", "R²", ""),
)
GATE: Gate = "mean"
ONE_UNIT = False
SAME = 0.02
"""Answers that differ by less than this share of the larger one are the same: five of the 256 steps
of int8."""


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why these are not plain numbers."""
    reason = _ends.row_mismatch(outputs, "regression")
    if not reason and outputs[0].activation == "softmax":
        return "it ends in a softmax, which gives the scores of classes; regression needs numbers"
    return reason


def classes(outputs: Sequence[ModelOutput]) -> int | None:
    """None: numbers name no class."""
    return None


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """The numbers as `values`."""
    return Prediction("", values=tuple(np.ravel(outputs[0]).astype(np.float64).tolist()))


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """MAE, RMSE over all values; R² = 1 - sum of squared errors / that of the mean as the answer.

    R² of several values is the mean of theirs; one that never changes has none. There are no
    figures where an answer is no number.
    """
    annotated, answers, targets = _tables(predictions, annotations)
    if not annotated.any():
        return {}
    errors = answers - targets
    figures = {"mae": float(np.mean(np.abs(errors))), "rmse": float(np.sqrt(np.mean(errors**2)))}
    spread = np.sum((targets - targets.mean(axis=0)) ** 2, axis=0)
    varies = np.ptp(targets, axis=0) > 0
    if varies.any():
        unexplained = np.sum(errors**2, axis=0)[varies] / spread[varies]
        figures["r2"] = float(np.mean(1 - unexplained))
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: 1 - min(error, bound) / bound, as above; NaN without annotated values.

    Where all annotations are equal there is no bound: a right answer has 1, any other 0.
    """
    annotated, answers, targets = _tables(predictions, annotations)
    result = np.full(len(predictions), np.nan)
    if annotated.any():
        errors = np.mean(np.abs(answers - targets), axis=1)
        bound = float(np.mean(np.ptp(targets, axis=0)))
        lost = np.minimum(errors, bound) / bound if bound > 0 else (errors > 0).astype(np.float64)
        result[annotated] = 1 - np.where(np.isfinite(lost), lost, 1.0)
    return result


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """The mean of the samples' errors; that of an answer that is no number is infinite."""
    annotated, answers, targets = _tables(predictions, annotations)
    errors = np.full(len(predictions), np.nan)
    if annotated.any():
        each = np.mean(np.abs(answers - targets), axis=1)
        errors[annotated] = np.where(np.isnan(each), np.inf, each)
    return Mean(errors)


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: the squared error over the variance of the reference over the samples.

    The mean over the values of an answer. A value that never changes is measured by its square.
    """
    one, other = (_ends.rows(x[0]) for x in (reference, outputs))
    variance = one.var(axis=0)
    power = np.mean(one**2, axis=0)
    # The rounding of a constant is no variance.
    scale = np.where(variance > 1e-12 * power, variance, np.where(power > 0, power, 1.0))
    return np.asarray(np.mean((one - other) ** 2 / scale, axis=1))


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether no value differs by more than `SAME` of the largest value of both."""
    mine, theirs = np.asarray(one.values), np.asarray(other.values)
    largest = max(np.abs(mine).max(initial=0), np.abs(theirs).max(initial=0))
    return bool(np.abs(mine - theirs).max(initial=0) <= SAME * largest)


def _tables(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """[N] whether a sample is annotated; the answers and the targets of those, [annotated, values].

    InputError where there are more or fewer targets than answers, or a target is no number.
    """
    for p, a in zip(predictions, annotations, strict=True):
        if a.values and len(a.values) != len(p.values):
            raise _ends.unfit(
                p.sample,
                f"has {units.several(len(a.values), 'target')}, "
                f"and the model gives {len(p.values)}",
                "give one target for each number of the model's output",
            )
        if not np.isfinite(a.values).all():
            raise _ends.unfit(p.sample, "has a target that is no number", "correct it")
    annotated = np.array([bool(a.values) for a in annotations], bool)
    answers = _ends.values(predictions)[annotated]
    targets = np.array([a.values for a in annotations if a.values], np.float64)
    return annotated, answers, targets
