"""Which classes lost where a metric is the mean of its classes (mAP, mIoU), by the same draws.

`paired` bounds the mean. Here the question is whether a class lost anything at all: `gate` asks it
of classes whose samples are right or wrong, by counting, and this module by a bootstrap.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mobiledeploy.analysis import gate
from mobiledeploy.core.ports import ClassCorpus


class DrawnClasses:
    """A corpus that keeps the metrics of its classes: a model is compared with several others."""

    def __init__(self, corpus: ClassCorpus) -> None:
        self.corpus = corpus
        self._rows: dict[bytes, NDArray[np.float64]] = {}

    @property
    def draws(self) -> NDArray[np.float64]:
        """[draws, C] of all counts so far, in the order in which they came first."""
        return np.array(list(self._rows.values()))

    def metric(self, counts: NDArray[np.int64]) -> float:
        """The mean of the classes that a counted sample has; NaN without any."""
        key = hashlib.sha256(counts.tobytes()).digest()
        if key not in self._rows:
            self._rows[key] = self.corpus.of_classes(counts)
        row = self._rows[key]
        known = row[np.isfinite(row)]
        return float(known.mean()) if known.size else float("nan")


@dataclass(frozen=True)
class ClassLoss:
    """The metric of one class, 0 to 1, before and now, on the `n` samples that have the class.

    `p` is the chance of such a loss if there is none, times the number of classes that were tested
    (Bonferroni), at most 1.
    """

    index: int
    n: int
    before: float
    now: float
    p: float
    regressed: bool


def heaviest(corpus: ClassCorpus) -> float:
    """How much of the mean one sample carries, of the class whose samples carry most.

    It is the share of the sample in which an average part of the class lies, as
    `paired.corpus_bounds` takes it; at least 1 / N. Classes without annotations do not count.
    """
    shares, there = _shares(corpus.annotated)
    shares /= shares.shape[1]
    lost = shares * np.asarray(corpus.worth)[there]
    of_class = (shares * lost).sum(axis=0) / shares.sum(axis=0)
    of_sample = (shares.sum(axis=1) * lost.sum(axis=1)).sum()
    return float(np.clip(max(of_class.max(), of_sample), 1 / len(shares), 1))


def class_losses(
    accepted: DrawnClasses, candidate: DrawnClasses
) -> tuple[tuple[ClassLoss, ...], int]:
    """The classes that lost more than `gate.CLASS_MARGIN`, and surely lost something.

    A sample that is wholly gained is added to each draw, as in `paired`: of ten samples the draws
    alone would be too sure. With it the loss L of a draw stays above 0 with the probability
    1 - exp(-L / s), where s is what its heaviest sample can bring the class. The mean of
    exp(-L / s) over the draws is p. Of large classes 2,000 draws do not show how thin the tail is,
    so p is at least that of a normal distribution with this mean and deviation.

    Args:
        accepted: the answers of the accepted model, in draws of `paired`.
        candidate: those of the candidate to the same samples, in the same draws.

    Returns:
        The classes of `gate.LEAST_SUPPORT` samples or more, and how many have fewer.
    """
    annotated = accepted.corpus.annotated
    samples = np.count_nonzero(annotated, axis=0)
    supported = np.flatnonzero(samples >= gate.LEAST_SUPPORT)
    small = int(np.count_nonzero(samples)) - len(supported)
    if not len(supported):
        return (), small
    shares, there = _shares(annotated)
    largest = np.zeros(len(there))
    largest[there] = shares.max(axis=0)
    shares = (largest * np.maximum(accepted.corpus.worth, 1))[supported]
    losses = (accepted.draws - candidate.draws)[:, supported]
    drawn = np.exp(-np.maximum(losses, 0) / shares).mean(axis=0)
    spread = np.hypot(losses.std(axis=0), shares)
    normal = stats.norm.sf((losses.mean(axis=0) - shares) / spread)
    chances = np.minimum(len(supported) * np.maximum(drawn, normal), 1)
    equal = np.ones(len(annotated), np.int64)
    before, now = (one.corpus.of_classes(equal)[supported] for one in (accepted, candidate))
    return tuple(
        ClassLoss(
            index=accepted.corpus.classes[column],
            n=int(samples[column]),
            before=float(old),
            now=float(new),
            p=float(p),
            regressed=bool(p <= gate.FALSE_DISCOVERIES and old - new > gate.CLASS_MARGIN),
        )
        for column, old, new, p in zip(supported, before, now, chances, strict=True)
    ), small


def _shares(annotated: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """[N, annotated classes] the share of each that a sample has; [C] which are annotated."""
    whole = annotated.sum(axis=0)
    there = whole > 0
    return annotated[:, there] / whole[there], there
