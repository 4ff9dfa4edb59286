"""Whether a model is worse than another on the same images: a paired test that may be inconclusive.

Of n images, `losses` are those that only the accepted model classified correctly, `gains` those
that only the candidate did. The loss of accuracy is d = (losses - gains) / n. Non-inferiority with
a margin m: **pass** if the upper 95 % bound of d is below m, **fail** if the lower one is above it,
**inconclusive** otherwise. Both bounds are one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from mobiledeploy.core.types import Outcome

CONFIDENCE = 0.95
POWER = 0.8
CORRECTION = 0.5
"""Half an image: losses less gains come in whole ones."""
FALSE_DISCOVERIES = 0.01
"""If no class regressed, at most one check in a hundred names one, for any number of classes."""
LEAST_SUPPORT = 10
"""A class of fewer images has no verdict of its own."""
CLASS_MARGIN = 0.05
"""The share of its images that a class may lose, however certain that loss is."""
CLASS_FLIPS = 0.25
"""Without labels: the share of a class's answers that may change."""
MOST_IMAGES = 10_000_000
"""Above it the loss practically equals the margin: no number of images decides."""


def tango(
    losses: ArrayLike, gains: ArrayLike, n: ArrayLike, d: ArrayLike, correction: float = 0.0
) -> NDArray[np.float64]:
    """Tango's score statistic for the hypothesis that the true loss is d, broadcast; near N(0, 1).

        T(d) = (b - c - n d + correction) / sqrt(n (2 q + d (1 - d)))

    with b losses and c gains, where q is the maximum-likelihood estimate of the share of gains
    under the hypothesis, the larger root of 2n q^2 + B q - c d (1 - d) = 0 with
    B = (2n - b + c) d - b - c (Tango 1998, Statistics in Medicine 17:891). `correction` is his 0,
    or half an image towards the hypothesis. Where that leaves no variance, T is 0 for what it says
    and infinite for all else.
    """
    b, c, n, d = (np.asarray(x, np.float64) for x in (losses, gains, n, d))
    linear = (2 * n - b + c) * d - b - c
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * d * (1 - d), 0))
    share = np.maximum((root - linear) / (4 * n), 0)
    above = b - c - n * d + correction
    spread = np.sqrt(np.maximum(n * (2 * share + d * (1 - d)), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = above / spread
    return np.where(spread > 0, score, np.where(above == 0, 0.0, np.copysign(np.inf, above)))


def bounds(
    losses: int,
    gains: int,
    n: int,
    *,
    confidence: float = CONFIDENCE,
    correction: float = CORRECTION,
) -> tuple[float, float]:
    """(lower, upper): one-sided bounds of the loss d, each at `confidence`.

    They are where `tango` meets the normal quantile. With a correction of 0 this is Tango's own
    interval, at a confidence of 2 `confidence` - 1. That one passes too often where few images
    flip: at 270 images, 6.5 % of the models that truly lose one in a hundred. With half an image
    (as Chang et al. 2024, Journal of Applied Statistics 51:139, correct it) no cell of
    benchmarks/gate_statistics.py passes more than 5 %.

    Raises:
        ValueError: invalid counts.
    """
    if n < 1 or min(losses, gains) < 0 or losses + gains > n:
        raise ValueError(f"{losses} losses and {gains} gains of {n} images")
    quantile = float(stats.norm.ppf(confidence))
    lower = -_upper(gains, losses, n, quantile, correction)
    return lower, _upper(losses, gains, n, quantile, correction)


def _upper(losses: int, gains: int, n: int, quantile: float, correction: float) -> float:
    observed_loss = (losses - gains + correction) / n
    if observed_loss >= 1:
        return 1.0

    def beyond(d: float) -> float:
        return float(tango(losses, gains, n, d, correction)) + quantile

    # The statistic falls with d, from 0 at what was seen.
    highest = 1 - 1e-12
    if not math.isfinite(beyond(highest)) or beyond(highest) >= 0:
        return 1.0
    return float(optimize.brentq(beyond, observed_loss, highest, xtol=1e-12))


def outcome(interval: tuple[float, float], margin: float) -> Outcome:
    """The outcome for the bounds of a loss and a margin."""
    lower, upper = interval
    return "pass" if upper < margin else "fail" if lower > margin else "inconclusive"


def images_needed(losses: int, gains: int, n: int, margin: float) -> int | None:
    """The number of images that would decide with 80 % power, if they were like these.

    n = r (z_a + z_b)^2 / (margin - d)^2 with the share r of losses and gains, z_a of 95 % and z_b
    of 80 %, and d what is lost now, 0 where nothing is; with what half an image of correction
    adds (Fleiss, Statistical Methods for Rates and Proportions, 3.2). At least as many as pass
    without any flip.

    Returns:
        None if the loss is so near to the margin that no number of images is enough.
    """
    reach = abs(margin - max(0.0, (losses - gains) / n))
    if reach == 0:
        return None
    quantiles = float(stats.norm.ppf(CONFIDENCE) + stats.norm.ppf(POWER))
    plain = (losses + gains) / n * (quantiles / reach) ** 2
    count = plain
    if plain:
        count = plain / 4 * (1 + math.sqrt(1 + 4 * CORRECTION / (plain * reach))) ** 2
    # These were too few: a guess from few flips that says fewer is no help.
    count = max(count, unflipped(margin), n + 1)
    return None if count > MOST_IMAGES else math.ceil(count)


def unflipped(margin: float) -> int:
    """The number of images without any flip that is enough to pass."""
    quantile = float(stats.norm.ppf(CONFIDENCE))
    # From n m - 1/2 > z sqrt(n m (1 - m)), a quadratic in sqrt(n).
    root = quantile * math.sqrt(margin * (1 - margin))
    return (
        math.floor(((root + math.sqrt(root**2 + 4 * margin * CORRECTION)) / (2 * margin)) ** 2) + 1
    )


def least_margin(n: int) -> float:
    """The smallest margin that n images can decide if none flips."""
    return bounds(0, 0, n)[1]


def least_flips(n: int) -> float:
    """The smallest share of flips that n images can decide if none flips."""
    return flip_bounds(0, n)[1]


def flips_needed(flips: int, n: int, most: float) -> int | None:
    """The number of images that would decide whether fewer than `most` of them flip.

    It assumes images like these. None if the share is so near to `most` that no number is enough.
    """
    share = flips / n
    if share == most:
        return None
    quantiles = float(stats.norm.ppf(CONFIDENCE) + stats.norm.ppf(POWER))
    plain = share * (1 - share) * (quantiles / (most - share)) ** 2
    # So many pass without a flip: (1 - most)^n < 5 %.
    count = max(plain, math.log(1 - CONFIDENCE) / math.log(1 - most), n + 1)
    return None if count > MOST_IMAGES else math.ceil(count)


def mcnemar(losses: int, gains: int) -> float:
    """The exact two-sided p of McNemar's test: as many losses as gains are to be expected."""
    if losses + gains == 0:
        return 1.0
    return float(stats.binomtest(losses, losses + gains, 0.5).pvalue)


def flip_bounds(flips: int, n: int) -> tuple[float, float]:
    """(lower, upper): exact (Clopper-Pearson) one-sided 95 % bounds of the share of flips."""
    interval = stats.binomtest(flips, n).proportion_ci(2 * CONFIDENCE - 1, method="exact")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Group:
    """The images of one class: `worse` and `better` of `n` changed for the worse or the better.

    `p` is exact and one-sided, adjusted for all groups tested (Benjamini and Hochberg 1995).
    """

    index: int
    n: int
    worse: int
    better: int
    p: float
    regressed: bool


def regressed_classes(
    classes: ArrayLike, losses: ArrayLike, gains: ArrayLike
) -> tuple[tuple[Group, ...], int]:
    """The classes that certainly lost more than `CLASS_MARGIN`.

    The test is McNemar's, exact and one-sided, in every class of `LEAST_SUPPORT` images or more:
    given its flips, as many gains as losses are to be expected. What is called regressed is so at a
    false discovery rate of `FALSE_DISCOVERIES`.

    Args:
        classes: [n] the true class of each image.
        losses: [n] whether only the accepted model was right.
        gains: [n] whether only the candidate was.

    Returns:
        The classes that were tested, and how many had too few images.
    """
    labels, worse, better = np.asarray(classes), np.asarray(losses), np.asarray(gains)
    supported, small = _supported(labels)
    counts = [(int(worse[labels == i].sum()), int(better[labels == i].sum())) for i in supported]
    chances = [float(stats.binom.sf(b - 1, b + c, 0.5)) for b, c in counts]
    return _groups(labels, supported, counts, chances, CLASS_MARGIN), small


def changed_classes(classes: ArrayLike, flips: ArrayLike) -> tuple[tuple[Group, ...], int]:
    """The classes in which more than `CLASS_FLIPS` of the accepted answers certainly changed.

    As `regressed_classes`, by the accepted answers instead of labels, with an exact binomial test.
    """
    labels, is_changed = np.asarray(classes), np.asarray(flips)
    supported, small = _supported(labels)
    counts = [(int(is_changed[labels == i].sum()), 0) for i in supported]
    sizes = [int((labels == i).sum()) for i in supported]
    chances = [
        float(stats.binom.sf(worse - 1, size, CLASS_FLIPS))
        for (worse, _), size in zip(counts, sizes, strict=True)
    ]
    return _groups(labels, supported, counts, chances, CLASS_FLIPS), small


def _supported(labels: NDArray[np.int64]) -> tuple[list[int], int]:
    """The classes with enough images, and how many have too few."""
    values, sizes = np.unique(labels, return_counts=True)
    enough = sizes >= LEAST_SUPPORT
    return [int(value) for value in values[enough]], int((~enough).sum())


def _groups(
    labels: NDArray[np.int64],
    supported: Sequence[int],
    counts: Sequence[tuple[int, int]],
    chances: Sequence[float],
    margin: float,
) -> tuple[Group, ...]:
    adjusted_p = stats.false_discovery_control(chances) if chances else ()
    groups = []
    for index, (worse, better), p in zip(supported, counts, adjusted_p, strict=True):
        size = int((labels == index).sum())
        surely = bool(p <= FALSE_DISCOVERIES) and worse - better > margin * size
        groups.append(Group(index, size, worse, better, float(p), surely))
    return tuple(groups)


def moved_pairs(
    classes: ArrayLike, before: ArrayLike, now: ArrayLike
) -> tuple[tuple[int, int, int, int], ...]:
    """Pairs (true, predicted, count before, count now) of wrong answers that surely became more.

    An exact sign test of the images that came to the pair and those that left it, adjusted as the
    classes are. Largest growth first.
    """
    labels, old, new = (np.asarray(x) for x in (classes, before, now))
    pairs = sorted({(int(t), int(p)) for t, p in zip(labels, new, strict=True) if t != p})
    rows, chances = [], []
    for true, predicted in pairs:
        was = (labels == true) & (old == predicted)
        is_ = (labels == true) & (new == predicted)
        arrivals, losses = int((is_ & ~was).sum()), int((was & ~is_).sum())
        rows.append((true, predicted, int(was.sum()), int(is_.sum())))
        chances.append(float(stats.binom.sf(arrivals - 1, arrivals + losses, 0.5)))
    if not chances:
        return ()
    adjusted_p = stats.false_discovery_control(chances)
    sure = [row for row, p in zip(rows, adjusted_p, strict=True) if p <= FALSE_DISCOVERIES]
    return tuple(sorted(sure, key=lambda row: (row[2] - row[3], row)))
