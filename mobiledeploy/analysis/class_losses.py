"""Which classes lost where a metric is the mean of its classes (mAP, mIoU), by the same draws.

`paired` bounds the mean. Here the question is whether a class lost anything at all: `gate` asks it
of classes whose samples are right or wrong, by counting, and this module by a bootstrap.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
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


def heaviest(annotated: ArrayLike) -> float:
    """The largest part of a mean over classes that one sample carries.

    Args:
        annotated: [N, C] how much each sample has of each class; classes without any do not count.
    """
    return float(np.mean(_shares(annotated), axis=1).max())


def class_losses(
    accepted: DrawnClasses, candidate: DrawnClasses
) -> tuple[tuple[ClassLoss, ...], int]:
    """The classes that lost more than `gate.CLASS_MARGIN`, and surely lost something.

    A sample that is wholly gained is added to each draw, as in `paired`: of ten samples the draws
    alone would be too sure. With it the loss L of a draw stays above 0 with the probability
    1 - exp(-L / s), where s is the share of the class that its heaviest sample has. The mean of
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
    shares = _shares(annotated[:, supported]).max(axis=0)
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


def _shares(annotated: ArrayLike) -> NDArray[np.float64]:
    """[N, C]: the share of each annotated class that a sample has."""
    table = np.asarray(annotated, np.float64)
    whole = table.sum(axis=0)
    return np.asarray(table[:, whole > 0] / whole[whole > 0])
