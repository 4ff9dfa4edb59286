"""Statistics of samples without assumptions about their distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

FEWEST = 6
"""Fewer samples have no 95 % interval of the median: 5 leave it out once in 16 times."""


def median_interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """(median, low, high): the median and its distribution-free confidence interval.

    The interval ends on order statistics: the count of samples below the true median is binomial
    with p = 1/2, so that low = x_(k) and high = x_(n+1-k) for the largest k that
    P(X <= k - 1) <= (1 - confidence) / 2 allows (David and Nagaraja, Order Statistics, 7.1). The
    coverage is at least `confidence` for independent samples of any distribution.

    Args:
        samples: [n] finite numbers, in any unit; n must be at least 6 for 95 %.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: too few samples for such an interval, or NaN among them.
    """
    # scipy.special takes longer to import than most commands that import this file.
    from scipy.special import bdtr

    values = np.sort(np.asarray(samples, np.float64).ravel())
    count = len(values)
    if count and not math.isfinite(values[-1] - values[0]):
        raise ValueError("samples are not finite")
    places = np.arange(1, count // 2 + 1)
    fits = places[bdtr(places - 1.0, count, 0.5) <= (1 - confidence) / 2]
    if not len(fits):
        raise ValueError(f"{count} samples have no {confidence:.0%} interval of their median")
    k = int(fits[-1])
    return float(np.median(values)), float(values[k - 1]), float(values[count - k])


def relative_width(samples: ArrayLike) -> float:
    """The width of the 95 % interval of the median, relative to the median.

    The farther of the two ends counts. Infinite for fewer than 6 samples, or a median of 0 with
    an interval about it.
    """
    values = np.asarray(samples)
    if values.size < FEWEST:
        return math.inf
    middle, low, high = median_interval(values)
    reach = max(middle - low, high - middle)
    if reach == 0:
        return 0.0
    return reach / abs(middle) if middle else math.inf


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float]
) -> tuple[float, float, float]:
    """(median, low, high) of the ratios of paired, interleaved runs, at 95 %; 6 pairs at least."""
    pairs = zip(numerators, denominators, strict=True)
    return median_interval([top / bottom for top, bottom in pairs])
