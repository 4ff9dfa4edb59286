"""The slowdown of B against A on a machine whose speed drifts: blocks in the order A B B A."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDER = "ABBA"
FEWEST = 6
"""Fewer rounds of A B B A give no useful interval."""

_RESAMPLES = 9999
_SEED = 20180113


@dataclass(frozen=True)
class Ratio:
    """Time of B over time of A, with its 95 % bootstrap interval; above 1, B is slower."""

    value: float
    low: float
    high: float

    @property
    def changed(self) -> bool:
        """Whether the interval excludes 1."""
        return not self.low <= 1 <= self.high


def interleaved(blocks: Sequence[float]) -> Ratio:
    """The ratio from block medians in the order A B B A A B B A ..., whole rounds.

    In each round log(B B / A A) / 2 is free of any drift that is linear in the round's time (the
    blocks of A lie as early as those of B on average). The interval resamples rounds, so that
    whatever the runs of one round share stays together.

    Raises:
        ValueError: no whole rounds, fewer than 6, or times that are not positive.
    """
    logs = _logs(blocks)
    if logs.size % 4 or logs.size < 4 * FEWEST:
        raise ValueError(f"{logs.size} blocks are not {FEWEST} or more rounds of {ORDER}")
    first, second, third, fourth = logs.reshape(-1, 4).T
    return _bootstrap((second + third - first - fourth) / 2)


def one_after_the_other(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """The usual way: the ratio from all blocks of A, then all of B, pair by pair.

    It only shows the effect of drift (docs/phones.md); no result uses it.
    """
    return _bootstrap(_logs(b) - _logs(a))


def _logs(blocks: Sequence[float]) -> NDArray[np.float64]:
    times = np.asarray(blocks, np.float64)
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise ValueError("times must be positive")
    return np.log(times)


def _bootstrap(log_ratios: NDArray[np.float64]) -> Ratio:
    """The studentized bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 12.5).

    Of 8 normal values it leaves the mean out in 4 % of samples, the BCa and the percentile
    interval of scipy.stats.bootstrap in 9 to 11 % (tests/analysis/test_comparison.py).
    """
    count, middle = log_ratios.size, float(log_ratios.mean())
    spread = float(log_ratios.std(ddof=1))
    dice = np.random.Generator(np.random.PCG64(_SEED))
    resamples = log_ratios[dice.integers(0, count, (_RESAMPLES, count))]
    # A resample of a single value has no spread to scale by.
    usable = resamples[np.ptp(resamples, axis=1) > 0]
    if spread == 0 or not len(usable):
        return Ratio(*(float(np.exp(middle)),) * 3)
    off = (usable.mean(axis=1) - middle) / usable.std(axis=1, ddof=1)
    least, most = np.quantile(off, (0.025, 0.975))
    return Ratio(
        float(np.exp(middle)),
        float(np.exp(middle - most * spread)),
        float(np.exp(middle - least * spread)),
    )
