"""Metrics of samples that count several times each, as in the draws of a bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Mean:
    """A metric that is the mean of a figure of each sample; NaN is no figure."""

    def __init__(self, figures: ArrayLike) -> None:
        values = np.asarray(figures, np.float64)
        self._places = np.flatnonzero(~np.isnan(values))
        self._values = values[self._places]

    def metric(self, counts: NDArray[np.int64]) -> float:
        """The mean where sample n counts `counts[n]` times; NaN without any figure."""
        weights = counts[self._places]
        counted = weights > 0
        total = weights.sum()
        return float(weights[counted] @ self._values[counted] / total) if total else float("nan")


class Ranking:
    """N samples ranked by the scores of each of C classes; equal scores share one rank.

    Args:
        scores: [C, N], higher is more of the class.
        positive: [C, N] whether the sample is of the class.
    """

    def __init__(self, scores: ArrayLike, positive: ArrayLike) -> None:
        table = np.asarray(scores, np.float64)
        self._order = np.argsort(-table, axis=1, kind="stable")
        ranked = np.take_along_axis(table, self._order, axis=1)
        self._positive = np.take_along_axis(np.asarray(positive, bool), self._order, axis=1)
        places = np.broadcast_to(np.arange(table.shape[1]), table.shape)
        differs = ranked[:, 1:] != ranked[:, :-1]
        edge = np.ones((len(table), 1), bool)
        last = np.concatenate([differs, edge], axis=1)
        first = np.concatenate([edge, differs], axis=1)
        # The first and the last place of the samples with the same score.
        self._first = np.maximum.accumulate(np.where(first, places, 0), axis=1)
        backwards = np.where(last, places, table.shape[1])[:, ::-1]
        self._last = np.minimum.accumulate(backwards, axis=1)[:, ::-1]
        # Of each positive: its class and sample, where its class starts and its score ends among
        # all samples of all classes in a row, and the same among the positives.
        self._class, place = np.nonzero(self._positive)
        self._samples = self._order[self._class, place]
        self._start = self._class * table.shape[1]
        self._end = self._start + self._last[self._class, place] + 1
        self._from = np.searchsorted(self._start + place, self._start)
        self._until = np.searchsorted(self._start + place, self._end)

    def average_precision(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """[C]: the sum over the scores s of (R(s) - R(next higher s)) P(s); NaN for no positives.

        P and R are the precision and the recall of the samples with s or more, without any
        interpolation.
        """
        above_all = _sums(counts[self._order.ravel()])
        weights = counts[self._samples]
        above = _sums(weights)
        precision = (above[self._until] - above[self._from]) / np.maximum(
            above_all[self._end] - above_all[self._start], 1
        )
        classes = len(self._order)
        return _ratio(
            np.bincount(self._class, weights * precision, minlength=classes),
            np.bincount(self._class, weights, minlength=classes),
        )

    def auc(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """[C]: the share of pairs (positive, negative) in which the positive has the higher score.

        Equal scores count half. NaN without positives or without negatives.
        """
        weights = counts[self._order].astype(np.float64)
        positive, negative = weights * self._positive, weights * ~self._positive
        seen = np.cumsum(negative, axis=1)
        total = seen[:, -1:]
        lower = total - np.take_along_axis(seen, self._last, axis=1)
        lower_or_equal = total - np.take_along_axis(seen - negative, self._first, axis=1)
        wins = np.sum(positive * (lower + lower_or_equal) / 2, axis=1)
        return _ratio(wins, np.sum(positive, axis=1) * total[:, 0])


def _sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N + 1]: the sum of the first n values for each n."""
    return np.concatenate([[0], np.cumsum(values)])


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
