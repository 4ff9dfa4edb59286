"""Compares a new figure with an old one of the same kind: ratio, interval, verdict."""

from __future__ import annotations

from collections.abc import Sequence

from mobiledeploy.analysis import stats
from mobiledeploy.core.types import Counted, Estimated, Measured, Measurement, Outcome

EXACT_MARGIN = 0.001
"""The margin of exact figures: instructions and estimates do not scatter, so 0.1 % more is a
regression."""
TIME_MARGIN = 0.05
"""The margin of times, which differ by some percent between starts of the process."""
ROUGH = frozenset(("busy-machine", "unsteady", "wide-interval", "uneven-counts"))
"""Warnings that a figure may not be reproducible: no verdict is based on it."""

# Each median within its 97.5 % interval: both hold at once in 95 % of cases at least (Bonferroni).
_EACH = 0.975


def ratio(new: Measurement, old: Measurement) -> tuple[float, float, float]:
    """(ratio, low, high) of new to old: of medians with their 95 % interval, or exact.

    The interval covers the timed runs only, not the difference between starts of the process.

    Raises:
        ValueError: two kinds of figure, or an old one of zero.
    """
    if isinstance(new, Measured) and isinstance(old, Measured):
        return ratio_of_medians(new.samples_ns, old.samples_ns)
    if isinstance(new, Counted) and isinstance(old, Counted):
        if old.instructions > 0:
            return (new.instructions / old.instructions,) * 3
    elif isinstance(new, Estimated) and isinstance(old, Estimated):
        if old.latency_ns > 0:
            return (new.latency_ns / old.latency_ns,) * 3
    else:
        raise ValueError(f"{new.kind} and {old.kind} figures are not compared")
    raise ValueError("the old figure is zero")


def ratio_of_medians(new: Sequence[int], old: Sequence[int]) -> tuple[float, float, float]:
    """(ratio, low, high) of the medians of two independent sets of samples, at 95 %.

    Raises:
        ValueError: too few samples, or old ones of zero.
    """
    middle, low, high = stats.median_interval(new, _EACH)
    before, least, most = stats.median_interval(old, _EACH)
    if least <= 0:
        raise ValueError("the old figure is zero")
    return middle / before, low / most, high / least


def outcome(low: float, high: float, margin: float) -> Outcome:
    """The outcome of a ratio's interval: pass if all of it is within 1 + margin, fail if none."""
    return "pass" if high <= 1 + margin else "fail" if low > 1 + margin else "inconclusive"
