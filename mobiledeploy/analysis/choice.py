"""The choice of a network within budgets, where figures have intervals.

An option is excluded only if its figures exclude it: it is over a budget with its whole interval,
or an option that is within all budgets with its whole interval is more accurate beyond doubt. For
this question the 95 % intervals are widened for the number of options (Bonferroni), so that all of
them hold at once. What is left are the contenders, and the best option is among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

Fits = Literal["yes", "maybe", "no"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Bounded:
    """A figure and its 95 % interval, which is the figure itself where it is exact."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ChoiceOption:
    """What can be chosen: how accurate it is, and what it costs.

    `costs` are in the order of the limits, None for a figure that nobody has. `upper_bound` says
    that the accuracy is that of the float network, and that the loss of the option is not known.
    """

    accuracy: Bounded
    costs: tuple[Bounded | None, ...]
    upper_bound: bool = False


@dataclass(frozen=True)
class ChoiceLimits:
    """The largest costs, None without a limit, and the least accuracy."""

    costs: tuple[float | None, ...]
    accuracy: float | None = None


def fits(option: ChoiceOption, limits: ChoiceLimits) -> Fits:
    """Whether an option is within all limits: with its intervals, perhaps, or not.

    A cost that nobody knows is not within a limit.
    """
    answers: list[Fits] = []
    for cost, limit in zip(option.costs, limits.costs, strict=True):
        if limit is not None:
            answers.append("no" if cost is None else _below(cost, limit))
    if limits.accuracy is not None:
        a = option.accuracy
        answers.append(_below(Bounded(-a.value, -a.high, -a.low), -limits.accuracy))
    return "no" if "no" in answers else "maybe" if "maybe" in answers else "yes"


def _below(cost: Bounded, limit: float) -> Fits:
    return "yes" if cost.high <= limit else "maybe" if cost.low <= limit else "no"


def best(options: Sequence[ChoiceOption], limits: ChoiceLimits) -> int | None:
    """The most accurate option that is within all limits with its intervals; None for none.

    Of equal accuracy, first one whose loss is known, then the one of least costs.
    """
    sure = [index for index, option in enumerate(options) if fits(option, limits) == "yes"]
    return max(
        sure,
        key=lambda i: (
            options[i].accuracy.value,
            not options[i].upper_bound,
            *(-math.inf if cost is None else -cost.value for cost in options[i].costs),
        ),
        default=None,
    )


def contenders(options: Sequence[ChoiceOption], limits: ChoiceLimits) -> tuple[int, ...]:
    """The options that may be the best one within the limits, in their order."""
    wide = [widened(option, len(options)) for option in options]
    answers = [fits(option, limits) for option in wide]
    sure = [option for option, answer in zip(wide, answers, strict=True) if answer == "yes"]
    # An accuracy that is an upper bound excludes only its like.
    least = max((x.accuracy.low for x in sure if not x.upper_bound), default=-math.inf)
    least_bound = max((x.accuracy.low for x in sure), default=-math.inf)
    return tuple(
        index
        for index, (option, answer) in enumerate(zip(wide, answers, strict=True))
        if answer != "no" and option.accuracy.high >= (least_bound if option.upper_bound else least)
    )


def widened(option: ChoiceOption, count: int) -> ChoiceOption:
    """The option with intervals that hold for `count` options at once.

    Costs are widened by their ratios, and accuracies by their differences within 0 to 1.
    """
    normal = NormalDist()
    level = (1 - CONFIDENCE) / 2
    factor = normal.inv_cdf(1 - level / max(1, count)) / normal.inv_cdf(1 - level)
    a = option.accuracy
    accuracy = Bounded(
        a.value,
        max(min(0.0, a.low), a.value - factor * (a.value - a.low)),
        min(max(1.0, a.high), a.value + factor * (a.high - a.value)),
    )
    costs = tuple(None if cost is None else _wide_cost(cost, factor) for cost in option.costs)
    return ChoiceOption(accuracy, costs, option.upper_bound)


def _wide_cost(cost: Bounded, factor: float) -> Bounded:
    if not 0 < cost.low <= cost.value <= cost.high:
        return cost
    low, high = cost.low / cost.value, cost.high / cost.value
    return Bounded(cost.value, cost.value * low**factor, cost.value * high**factor)


def probability(cost: Bounded, limit: float) -> float:
    """The probability that a cost is within a limit: its logarithm is normal about its value."""
    width = math.log(cost.high / cost.low) if cost.low > 0 else 0.0
    if width == 0:
        return float(cost.value <= limit)
    spread = width / (2 * NormalDist().inv_cdf((1 + CONFIDENCE) / 2))
    return NormalDist().cdf(math.log(limit / cost.value) / spread)


def excess(option: ChoiceOption, limits: ChoiceLimits) -> float:
    """How far an option is over its limits: the largest share over a cost, or of accuracy missed.

    0 or less if its figures are within them, infinite for a limited cost that nobody knows.
    """
    over = [
        math.inf if cost is None else cost.value / limit - 1
        for cost, limit in zip(option.costs, limits.costs, strict=True)
        if limit is not None
    ]
    if limits.accuracy is not None:
        over.append(1 - option.accuracy.value / limits.accuracy)
    return max(over, default=0.0)


def share_interval(share: float, images: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95 % interval of a share of so many images."""
    # scipy.special takes longer to import than most commands that import this file.
    from scipy.special import betaincinv

    right = round(share * images)
    level = (1 - CONFIDENCE) / 2
    low = float(betaincinv(right, images - right + 1, level)) if right else 0.0
    high = float(betaincinv(right + 1, images - right, 1 - level)) if right < images else 1.0
    return min(share, low), max(share, high)
