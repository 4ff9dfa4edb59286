"""Pairs of models whose true loss is known, as scores of samples and as metrics over them.

Each population is named for how the loss is spread. `independent`: every answer may move a little.
`clustered`: all answers to one image move together. `1 in 100` and `1 in 300`: so many images lose
everything, the rest of the loss is the same for all, and nothing else differs. `rare class`: all of
the loss is of the rarest class, some images of which lose it wholly. At a loss of 0 the models of
these three are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

Array = NDArray[np.float64]
Dice = np.random.Generator

RARE = {"1 in 100": 1 / 100, "1 in 300": 1 / 300}
POPULATIONS = ("independent", "clustered", *RARE)
RARE_CLASS = "rare class"
SCORES = ("flips", *POPULATIONS)
"""`flips`: answers that are right or wrong, 3 % of which change."""


# Scores of samples


def score_losses(population: str, dice: Dice, n: int, loss: float) -> Array:
    """[n]: the score of the accepted model less the candidate's, `loss` in the mean."""
    if population == "independent":
        return loss + dice.uniform(-0.2, 0.2, n)
    if population == "flips":
        worse, better = max(0.03 + loss, 2 * loss) / 2, max(0.03 - loss, 0) / 2
        rolled = dice.random(n)
        return (rolled < worse) * 1.0 - (rolled > 1 - better)
    if population == "clustered":
        # One image in ten is affected: of its 8 objects a share that is its own, all one way.
        objects = dice.binomial(8, dice.random(n)) / 8
        rolled = dice.random(n)
        return objects * ((rolled < 0.05 + loss) * 1.0 - (rolled > 0.95 + loss))
    rate = min(RARE[population], loss)
    return np.where(dice.random(n) < rate, 1.0, (loss - rate) / (1 - rate))


# Metrics over samples


@dataclass(frozen=True)
class Metric:
    """A metric of two models on the same samples, for many counts of them at once.

    `losses` takes counts [draws, n] and gives the loss [draws]. `share` is the largest part of the
    metric that one sample carries.
    """

    n: int
    share: float
    losses: Callable[[Array], Array]


def by_parts(losses: Callable[[Array], Array], counts: Array) -> Array:
    """`losses` of counts [draws, n], as it takes some of them, [n, draws]: its sums are fast so."""
    parts = np.array_split(counts, 1 + counts.size // 200_000)
    return np.concatenate([losses(np.ascontiguousarray(part.T)) for part in parts])


def share_of(sizes: Array) -> float:
    """How much of a mean over classes the sample carries in which an average part of it lies.

    Of `sizes` [n, classes], as pixels or objects: over all classes, or over the one whose samples
    carry most.
    """
    shares = sizes / sizes.sum(axis=0) / sizes.shape[1]
    of_class = (shares**2).sum(axis=0) / shares.sum(axis=0)
    return float(max(of_class.max(), (shares.sum(axis=1) ** 2).sum()))


def auc(population: str, dice: Dice, n: int, loss: float, positives: float = 0.5) -> Metric:
    """AUC of normal scores; a positive that is lost falls below all negatives."""
    mean, kept = 1.8, 0.97
    whole = float(stats.norm.cdf(mean / np.sqrt(2)))
    lost = min(RARE.get(population, 0.0), loss / whole)
    mean_now = float(stats.norm.ppf((whole - loss) / (1 - lost))) * np.sqrt(2)
    is_positive = dice.random(n) < positives
    noise = dice.standard_normal(n)
    before = mean * is_positive + noise
    if population == "independent":
        noise = kept * noise + np.sqrt(1 - kept**2) * dice.standard_normal(n)
    now = mean_now * is_positive + noise
    now[is_positive & (dice.random(n) < lost)] = -np.inf
    orders = [np.argsort(model) for model in (before, now)]

    def losses(counts: Array) -> Array:
        return by_parts(some, counts)

    def some(counts: Array) -> Array:
        above = []
        for order in orders:
            weights, is_yes = counts[order], is_positive[order]
            negatives = np.cumsum(weights * ~is_yes[:, None], axis=0)
            above.append((weights[is_yes] * negatives[is_yes]).sum(axis=0))
        pairs = counts[is_positive].sum(axis=0) * counts[~is_positive].sum(axis=0)
        return (above[0] - above[1]) / pairs

    return Metric(n, 1 / min(is_positive.sum(), (~is_positive).sum()), losses)


def miou(population: str, dice: Dice, n: int, loss: float) -> Metric:
    """Mean IoU of 4 classes of different frequency; a lost image has no pixel right.

    Of an area a model covers a share s, and as much that is not of the class as it leaves out: the
    IoU of a class is E s / (2 - E s).
    """
    share = 0.8
    whole = share / (2 - share)
    is_hit = np.arange(4) == 3 if population == RARE_CLASS else np.ones(4, bool)
    left = whole - loss * is_hit / is_hit.mean()
    target = 2 * left / (1 + left)
    rate = 1.0 if population == RARE_CLASS else RARE.get(population, 0.0)
    lost = np.minimum(rate, 1 - target / share)
    move = share - target / (1 - lost)
    areas = dice.beta(1, 2, (n, 4)) * (dice.random((n, 4)) < (0.8, 0.6, 0.4, 0.2))
    before = share + dice.uniform(-0.05, 0.05, (n, 4))
    now = before - move
    if population == "independent":
        now += dice.uniform(-0.15, 0.15, (n, 4))
    elif population == "clustered":
        now += dice.uniform(-0.15, 0.15, (n, 1))
    now[dice.random((n, 1)) < lost] = 0
    sums = np.concatenate(
        [areas * x for s in (before, now) for x in (s, 2 - s)], axis=1, dtype=np.float32
    )

    def losses(counts: Array) -> Array:
        old, old_union, new, new_union = np.split(counts @ sums, 4, axis=1)
        return (old / old_union - new / new_union).mean(axis=1)

    # What is covered instead of a lost class is wrong too: an IoU of u loses u (1 + u) shares.
    return Metric(n, share_of(areas) * whole * (1 + whole), losses)


FREQUENCIES = (0.5, 0.3, 0.2)
OBJECTS, FALSE, FOUND, GAINED = 2.5, 1.0, 0.85, 0.1
MEAN_SCORE, IMAGE_EFFECT = 1.2, 0.7


def average_precision(found: float, spread: float) -> float:
    """AP over infinitely many images where this share of objects is found."""

    def part(score: float) -> float:
        true = OBJECTS * found * stats.norm.sf(score, MEAN_SCORE, spread)
        wrong = FALSE * stats.norm.sf(score, 0, spread)
        return float(stats.norm.pdf(score, MEAN_SCORE, spread) * true / (true + wrong))

    low, high = MEAN_SCORE - 8 * spread, MEAN_SCORE + 8 * spread
    return found * float(integrate.quad(part, low, high, epsabs=1e-9, limit=200)[0])


_FOUND: dict[tuple[float, float], float] = {}


def found_after(loss: float, spread: float) -> float:
    """The share of objects that leaves an AP lower by `loss`."""
    if (loss, spread) not in _FOUND:
        target = average_precision(FOUND, spread) - loss
        _FOUND[loss, spread] = float(
            optimize.brentq(lambda f: average_precision(f, spread) - target, 0.5, FOUND + 1e-9)
        )
    return _FOUND[loss, spread]


def mean_ap(population: str, dice: Dice, n: int, loss: float) -> Metric:
    """Mean AP of 3 classes; a lost image has none of its objects found."""
    effect = IMAGE_EFFECT if population == "clustered" else 0.0
    found = found_after(loss, np.sqrt(1 + effect**2))
    rare = min(RARE.get(population, 0.0), 1 - found / FOUND)
    gained = 0.0 if population in RARE else GAINED
    lost = 1 - (found / (1 - rare) - (1 - FOUND) * gained) / FOUND
    objects, wrong = 1 + dice.poisson(OBJECTS - 1, n), dice.poisson(FALSE, n)
    images = np.repeat(np.tile(np.arange(n), 2), np.concatenate([objects, wrong]))
    total = len(images)
    is_object = np.arange(total) < objects.sum()
    classes = dice.choice(3, total, p=FREQUENCIES)
    scores = MEAN_SCORE * is_object + (effect * dice.standard_normal(n))[images]
    noise = dice.standard_normal(total)
    was_found = ~is_object | (dice.random(total) < FOUND)
    losing, gaining = np.full(n, lost), np.full(n, gained)
    if population == "clustered":
        losing = lost * 8 * (dice.random(n) < 1 / 8)
        gaining = gained * 8 * (dice.random(n) < 1 / 8)
    chance = np.where(was_found, 1 - losing[images], gaining[images])
    is_found = ~is_object | (dice.random(total) < chance)
    if rare:
        is_found &= ~(is_object & (dice.random(n) < rare)[images])
    before = np.where(was_found, scores + noise, -np.inf)
    if population not in RARE:
        noise = 0.98 * noise + np.sqrt(1 - 0.98**2) * dice.standard_normal(total)
    now = np.where(is_found, scores + noise, -np.inf)
    sizes = np.zeros((n, 3), np.float32)
    np.add.at(sizes, (images[is_object], classes[is_object]), 1)

    orders = []
    for model in (before, now):
        for index in range(3):
            here = np.flatnonzero((classes == index) & np.isfinite(model))
            here = here[np.argsort(-model[here])]
            orders.append((images[here], np.flatnonzero(is_object[here])))

    def losses(counts: Array) -> Array:
        return by_parts(some, counts)

    def some(counts: Array) -> Array:
        precisions = []
        for of, true in orders:
            weights = counts[of]
            ranks = np.cumsum(weights, axis=0)[true]
            hits = weights[true]
            precisions.append((hits * np.cumsum(hits, axis=0) / ranks).sum(axis=0))
        parts = np.stack(precisions)
        return ((parts[:3] - parts[3:]) / (sizes.T @ counts)).mean(axis=0)

    return Metric(n, share_of(sizes), losses)
