"""Tests in an order that was fixed before their data were seen, which need no correction.

Hypotheses are tested one after another, each at the full level, up to the first that is not
rejected. The chance of any wrong rejection is at most the level: the first true hypothesis in the
order is rejected wrongly with that chance, and what follows it is tested only then (Maurer, Hothorn
and Lehmacher 1995; Westfall and Krishen 2001, Journal of Statistical Planning and Inference 99:25).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mobiledeploy.core.types import Outcome


def passed(outcomes: Iterable[Outcome]) -> int:
    """How many pass before the first that does not; no outcome after that one is asked for."""
    count = 0
    for outcome in outcomes:
        if outcome != "pass":
            break
        count += 1
    return count


def joint(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of several that must all pass, each at the full level (Berger 1982)."""
    if "fail" in outcomes:
        return "fail"
    return "inconclusive" if "inconclusive" in outcomes else "pass"


def prefixes(count: int, most: int) -> tuple[int, ...]:
    """At most `most` lengths from 0 to `count`, each about the same factor above the last.

    Raises:
        ValueError: a negative count, or less than two lengths.
    """
    if count < 0 or most < 2:
        raise ValueError(f"{most} prefixes of {count}")
    if most == 2 or count < 2:
        return (0, count) if count else (0,)
    lengths = np.geomspace(1, count, most - 1).round().astype(int)
    return (0, *(int(n) for n in np.unique(lengths)))
