"""Metrics of predictions: top-1, top-5, agreement, confusion, and the error of logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax

from mobiledeploy.core.types import ModelOutput, Prediction

BEST = 5
GOLDEN_VALUES = 1024
"""The most values of an output that a golden sample keeps."""
SURE = 0.8
_HOTTEST = 1e6
LARGEST_SQNR_DB = 200.0
"""The value for equal numbers: JSON has no infinity, and float32 resolves at most 150 dB."""


def best(scores: ArrayLike, count: int = BEST) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The classes of the `count` highest of `scores` [classes] and those scores, best first.

    Equal scores, which int8 has often, rank by the lower index.
    """
    row = np.asarray(scores)
    order = np.argsort(-row.astype(np.float64), kind="stable")[:count]
    return tuple(int(index) for index in order), tuple(float(row[index]) for index in order)


def top(predictions: Sequence[Prediction], count: int) -> float | None:
    """The share of labelled images whose label is among the best `count`; None without any.

    A model with fewer classes than `count` ranks them all and is always right: None too.
    """
    labelled = [p for p in predictions if p.label >= 0]
    if not labelled or any(len(p.classes) < count for p in labelled):
        return None
    return sum(p.label in p.classes[:count] for p in labelled) / len(labelled)


def agreement(predictions: Sequence[Prediction], reference: Sequence[Prediction]) -> float | None:
    """The share of common images with the same best class; None without any."""
    reference_class: Mapping[str, int] = {p.sample: p.classes[0] for p in reference}
    both = [p for p in predictions if p.sample in reference_class]
    if not both:
        return None
    return sum(p.classes[0] == reference_class[p.sample] for p in both) / len(both)


def confusion(predictions: Sequence[Prediction]) -> tuple[tuple[int, int, int], ...]:
    """(true, predicted, count) of the labelled images that were wrong, largest count first."""
    wrong = Counter(
        (p.label, p.classes[0]) for p in predictions if p.label >= 0 and p.label != p.classes[0]
    )
    ordered = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return tuple((true, predicted, count) for (true, predicted), count in ordered)


def before_softmax(outputs: Sequence[ModelOutput]) -> tuple[ModelOutput, ...]:
    """The outputs as files are compared: a single one is taken before its softmax."""
    if len(outputs) > 1 or outputs[0].activation != "softmax":
        return tuple(outputs)
    return (replace(outputs[0], activation="none"),)


def golden_row(outputs: Sequence[ArrayLike]) -> NDArray[Any]:
    """The values of a sample's outputs in a row; of a long one `GOLDEN_VALUES`, evenly spaced."""
    rows = [np.asarray(output).reshape(-1) for output in outputs]
    return np.concatenate([row[_places(len(row))] for row in rows])


def _places(count: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, GOLDEN_VALUES)).round().astype(np.int64)


def divergence(reference: ArrayLike, logits: ArrayLike, temperature: float = 1.0) -> float:
    """KL(p || q) of the softmax p of `reference` and q of `logits`, [N, classes]: mean, in nats.

    The effect of an error of the logits on the answer: an error shared by all classes has none, and
    an error for an image with a certain class almost none. Both logits are divided by
    `temperature`.
    """
    scaled = (np.asarray(z, np.float64) / temperature for z in (reference, logits))
    return float(np.mean(divergences(*scaled)))


def divergences(reference: ArrayLike, logits: ArrayLike) -> NDArray[np.float64]:
    """As `divergence`, of the last axis alone: [..., classes] gives [...]."""
    log_p, log_q = (log_softmax(np.asarray(z, np.float64), axis=-1) for z in (reference, logits))
    # Rounding may take what is next to nothing below it.
    return np.asarray(np.maximum(0.0, np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)))


def bernoulli_divergences(reference: ArrayLike, logits: ArrayLike) -> NDArray[np.float64]:
    """KL(p || q) of the sigmoid p of each number of `reference` and q of `logits`, in nats."""
    z, y = (np.asarray(x, np.float64) for x in (reference, logits))
    right = expit(z) * (log_expit(z) - log_expit(y))
    wrong = expit(-z) * (log_expit(-z) - log_expit(-y))
    return np.asarray(np.maximum(0.0, right + wrong))


def temperature(reference: ArrayLike) -> float:
    """The least of 1 or more at which the softmax of `reference` [N, classes] has warnings.

    A network that is sure of nearly every image shows in its divergence the few that it is not
    sure of, and chance says which these are. At the temperature at which its best class has
    `SURE` on average, all of them tell.
    """
    # It takes longer to import than most commands that import this file.
    from scipy.optimize import brentq

    logits = np.asarray(reference, np.float64)

    def surer(t: float) -> float:
        return float(np.mean(np.exp(log_softmax(logits / t, axis=1)).max(axis=1))) - SURE

    if surer(1.0) <= 0:
        return 1.0
    hottest = 2.0
    while surer(hottest) > 0:
        hottest *= 2
        if hottest > _HOTTEST:
            return _HOTTEST
    return float(brentq(surer, 1.0, hottest))


def sqnr_db(reference: ArrayLike, values: ArrayLike) -> float:
    """Signal to quantization noise, 10 log10(sum reference^2 / sum (reference - values)^2), in dB.

    Over all numbers of both, which have the same shape; at most 200. NaN if one of them is not
    finite or the reference is all zero.
    """
    signal, other = np.asarray(reference, np.float64), np.asarray(values, np.float64)
    if signal.shape != other.shape:
        raise ValueError(f"shapes {signal.shape} and {other.shape} differ")
    return decibels(float(np.sum(signal**2)), float(np.sum((signal - other) ** 2)))


def decibels(power: float, noise: float) -> float:
    """The ratio of a signal's power to that of its noise in dB, at most 200; NaN for no signal."""
    if not np.isfinite(power + noise) or power == 0:
        return float("nan")
    return (
        LARGEST_SQNR_DB if noise == 0 else min(LARGEST_SQNR_DB, 10 * float(np.log10(power / noise)))
    )


@dataclass
class Distance:
    """Accumulates the distance of answers from those of a reference, sample by sample."""

    images: int = 0
    _power: float = 0.0
    _noise: float = 0.0
    _divergence: float = 0.0

    def add(
        self, reference: Sequence[ArrayLike], outputs: Sequence[ArrayLike], divergence: float
    ) -> None:
        """One sample's outputs of both, and the divergence of its task."""
        self.images += 1
        self._divergence += divergence
        for exact, other in zip(reference, outputs, strict=True):
            signal, value = np.asarray(exact, np.float64), np.asarray(other, np.float64)
            self._power += float(np.sum(signal**2))
            self._noise += float(np.sum((signal - value) ** 2))

    @property
    def sqnr_db(self) -> float:
        """As the function of that name, over all samples."""
        return decibels(self._power, self._noise)

    @property
    def divergence(self) -> float:
        """The mean over all samples."""
        return self._divergence / self.images
