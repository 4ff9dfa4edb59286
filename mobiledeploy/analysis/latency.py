"""Times of runs: where the warm-up ends, and when there are enough runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobiledeploy.analysis import stats

RELATIVE_WIDTH = 0.01
"""Runs are enough if each end of the median's 95 % interval is within this fraction of the
median."""

_WINDOW = 5
_LOW, _HIGH = 0.05, 0.95


def warmups(samples_ns: Sequence[int]) -> int:
    """The number of runs at the start that belong to the warm-up.

    The rule: the later half of the runs shows what is usual, from its 5 % to its 95 % quantile.
    Warm-up ends with the first five runs in a row whose median is usual; the very first run, which
    packs weights and touches memory for the first time, always belongs to it. Where no five runs
    of the earlier half are usual, all of that half is warm-up (see `steady`).

    Returns:
        From 0 (for an empty sequence) or 1 to half of the runs, rounded up.
    """
    times = np.asarray(samples_ns, np.float64)
    half = (len(times) + 1) // 2
    if len(times) < 2 * _WINDOW:
        return min(1, len(times))
    low, high = np.quantile(times[half:], (_LOW, _HIGH))
    windows = np.lib.stride_tricks.sliding_window_view(times[1 : half + _WINDOW - 1], _WINDOW)
    medians = np.median(windows, axis=1)
    usual = np.flatnonzero((low <= medians) & (medians <= high))
    return min(half, int(usual[0]) + 1) if len(usual) else half


def steady(samples_ns: Sequence[int]) -> bool:
    """Whether the times became steady: the warm-up ended within the first half of the runs."""
    return len(samples_ns) >= 2 * _WINDOW and warmups(samples_ns) < (len(samples_ns) + 1) // 2


def enough(samples_ns: Sequence[int], relative_width: float = RELATIVE_WIDTH) -> bool:
    """Whether the median's 95 % interval is narrow enough: see `stats.relative_width`.

    Asking again and again while samples arrive makes the interval cover a little less than 95 %,
    and so do runs that depend on each other; both are usual for benchmarks and not corrected.
    """
    return stats.relative_width(samples_ns) <= relative_width
