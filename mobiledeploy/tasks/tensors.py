"""Any numbers, of which nothing is known: how near they are to those of the float model.

There are no annotations. `annotations` hold the float model's numbers as `values`. The figures are
over all numbers of all outputs; for the figures of one output, give that output alone.

The score of a sample is its SQNR in dB over `BOUND_DB`, from 0 to 1: noise beyond the signal is as
bad as can be, and what is below ten bits makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import accuracy
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

SUMMARY = "any numbers, compared with those of the float model"
ANNOTATION: AnnotationField = ""
METRICS: tuple[Metric, ...] = (
    Metric("sqnr", "SQNR", "dB"),
    Metric("cosine", "cosine", ""),
    Metric("largest_error", "largest error", "", higher_is_better=False),
)
GATE: Gate = "mean"
ONE_UNIT = False
BOUND_DB = 60.0
"""The noise of rounding to ten bits, of 6.02 dB each."""
SAME = 0.1
"""Answers whose difference is below this share of their size are the same: 20 dB."""


class SignalAndNoise:
    """The power of the reference and of the error of each sample, [N] each."""

    def __init__(self, power: NDArray[np.float64], noise: NDArray[np.float64]) -> None:
        self._power, self._noise = power, noise

    def metric(self, counts: NDArray[np.int64]) -> float:
        """The SQNR of the counted samples in dB, as `accuracy.sqnr_db`."""
        return accuracy.decibels(float(counts @ self._power), float(counts @ self._noise))


def mismatch(outputs: Sequence[ModelOutput]) -> str:
    """Why these are no numbers: there are none."""
    return "" if outputs else "it has no outputs"


def classes(outputs: Sequence[ModelOutput]) -> int | None:
    """None: numbers name no class."""
    return None


def decode(outputs: Sequence[Array], ends: Sequence[ModelOutput]) -> Prediction:
    """The numbers of all outputs, one after the other, as `values`.

    Of an output with more than `accuracy.GOLDEN_VALUES` numbers so many, evenly spaced: answers
    are kept for every sample.
    """
    return Prediction("", values=tuple(map(float, accuracy.golden_row(outputs))))


def metrics(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> Mapping[str, float]:
    """SQNR = 10 log10(sum of reference² / sum of errors²), at most 200 dB; and two more.

    The cosine is the mean over the samples, the largest error that of any number.
    """
    pairs = [pair for pair in _pairs(predictions, annotations) if pair[0].size]
    if not pairs:
        return {}
    power, noise = _powers(pairs)
    figures = {
        "sqnr": accuracy.decibels(float(power.sum()), float(noise.sum())),
        "cosine": float(np.mean([_cosine(*pair) for pair in pairs])),
        "largest_error": max(float(np.abs(a - b).max()) for a, b in pairs),
    }
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def scores(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> NDArray[np.float64]:
    """[N]: the SQNR of each sample over `BOUND_DB`, from 0 to 1; NaN without a reference.

    An answer that is not finite has 0. A reference of zeros has 1 if the answer is zero, else 0.
    """
    result = []
    for reference, values in _pairs(predictions, annotations):
        if not reference.size:
            result.append(np.nan)
        elif np.array_equal(reference, values):
            result.append(1.0)
        else:
            ratio = accuracy.sqnr_db(reference, values)
            result.append(min(max(ratio, 0.0), BOUND_DB) / BOUND_DB if np.isfinite(ratio) else 0.0)
    return np.array(result, np.float64)


def corpus(predictions: Sequence[Prediction], annotations: Sequence[Annotation]) -> Corpus:
    """Signal and noise of each sample."""
    return SignalAndNoise(*_powers(_pairs(predictions, annotations)))


def divergence(
    reference: Sequence[Array], outputs: Sequence[Array], ends: Sequence[ModelOutput]
) -> NDArray[np.float64]:
    """[N]: noise over signal: squared errors / squares of the reference, mean over the outputs.

    Each output's signal is its mean over the samples: of unlike outputs none outweighs the others,
    and a sample near zero does not outweigh all other samples.
    """
    total = np.zeros(len(reference[0]))
    for one, other in zip(reference, outputs, strict=True):
        exact, value = _ends.rows(one), _ends.rows(other)
        signal = np.mean(np.sum(exact**2, axis=1))
        total += np.sum((exact - value) ** 2, axis=1) / (signal if signal > 0 else 1.0)
    return np.asarray(total / len(reference))


def agrees(one: Prediction, other: Prediction) -> bool:
    """Whether the difference is below `SAME` of the larger answer, by their Euclidean norms."""
    mine, theirs = np.asarray(one.values), np.asarray(other.values)
    size = max(np.linalg.norm(mine), np.linalg.norm(theirs))
    return bool(np.linalg.norm(mine - theirs) <= SAME * size)


def _pairs(
    predictions: Sequence[Prediction], annotations: Sequence[Annotation]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The reference and the answer of each sample, both empty without a reference.

    InputError where they differ in number.
    """
    pairs = []
    for p, a in zip(predictions, annotations, strict=True):
        if a.values and len(a.values) != len(p.values):
            raise _ends.unfit(
                p.sample,
                f"has {units.several(len(a.values), 'number')} of the float model, "
                f"and {len(p.values)} of this one",
                "compare models with the same outputs",
            )
        values = p.values if a.values else ()
        pairs.append((np.array(a.values, np.float64), np.array(values, np.float64)))
    return pairs


def _powers(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    power = np.array([np.sum(reference**2) for reference, _ in pairs], np.float64)
    noise = np.array([np.sum((reference - values) ** 2) for reference, values in pairs], np.float64)
    return power, noise


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if np.array_equal(one, other):
        return 1.0
    size = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / size) if size > 0 else 0.0
