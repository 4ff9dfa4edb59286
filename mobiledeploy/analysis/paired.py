"""How much a candidate loses against the accepted model where scores are not just right or wrong.

`gate` counts right and wrong answers. Here are means of bounded scores and metrics that are no mean
over samples (mAP, mIoU, AUC). Both take the same samples for both models, and both bounds are
one-sided, at 95 %.

Few samples may carry a loss: at 100 images, a model that loses one in a hundred wholly shows no
loss at all in 37 % of the draws. So one sample that is wholly lost is added before the upper bound,
and one that is wholly gained before the lower one. The bound of a mean is the quantile of its
Bayesian bootstrap (Rubin 1981, Annals of Statistics 9:130) with that sample, which is the bound of
Gaffke (2005) and of Learned-Miller and Thomas (2019, arXiv:1905.06208). For scores of 0 and 1 it is
the exact one (Clopper and Pearson); for others its coverage is conjectured, and simulated in
benchmarks/gate_statistics.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from mobiledeploy.analysis import gate
from mobiledeploy.core.ports import Corpus
from mobiledeploy.core.types import Outcome

DRAWS = 2000
"""Draws of a bootstrap: its bounds scatter by 5 % of the standard error."""
GRAIN = 1000
"""The mean count of a sample in a draw: counts are whole, weights of a bootstrap are not."""


@dataclass(frozen=True)
class PairedLoss:
    """What is lost on `n` samples, in units of the metric, with one-sided 95 % bounds.

    `deviation` is of one sample's part in the loss. `weight` is how much of the metric a sample of
    the heaviest class carries, as a multiple of 1 / n: 1 in a plain mean.
    """

    loss: float
    lower: float
    upper: float
    n: int
    deviation: float
    weight: float

    @property
    def bounds(self) -> tuple[float, float]:
        """(lower, upper)."""
        return self.lower, self.upper


def mean_bounds(accepted: ArrayLike, candidate: ArrayLike) -> PairedLoss:
    """The loss of a mean of scores, deterministic.

    Args:
        accepted: [N] the scores of the accepted model, 0 to 1; NaN where nothing is annotated.
        candidate: [N] those of the candidate on the same samples.

    Raises:
        ValueError: scores that are not pairs, are not from 0 to 1, or are all NaN.
    """
    before, now = np.asarray(accepted, np.float64), np.asarray(candidate, np.float64)
    if before.ndim != 1 or before.shape != now.shape:
        raise ValueError(f"scores of shape {before.shape} and {now.shape} are no pairs")
    if (np.isnan(before) != np.isnan(now)).any():
        raise ValueError("a sample has a score of one model only")
    # Sorted, so that not even rounding depends on the order of the samples.
    losses = np.sort((before - now)[~np.isnan(before)])
    if not len(losses):
        raise ValueError("no sample has a score")
    if np.nanmin((before, now)) < 0 or np.nanmax((before, now)) > 1:
        raise ValueError("a score is outside of 0 to 1")
    return PairedLoss(
        loss=float(losses.mean()),
        lower=-_upper(-losses[::-1]),
        upper=_upper(losses),
        n=len(losses),
        deviation=float(losses.std()),
        weight=1.0,
    )


def corpus_bounds(
    accepted: Corpus, candidate: Corpus, n: int, *, seed: int, share: float | None = None
) -> PairedLoss:
    """The loss of a metric that is no mean over samples, by a Bayesian bootstrap over the samples.

    Each draw weighs all samples anew, the same for both models, and none is left out, so that no
    class ever lacks. The annotations of one sample stay together.

    Args:
        accepted: the answers of the accepted model; metrics from 0 to 1.
        candidate: those of the candidate to the same samples.
        n: the number of samples.
        seed: equal seeds give equal bounds; from the data, so that nobody can choose it.
        share: how much of the metric one sample carries, of the class whose samples carry most;
            from 1 / n to 1. The default is 1 / n, which is right where all weigh the same. An AUC
            of 50 positives and 950 negatives loses 1 / 50 with one positive. A mean over classes is
            of the sizes [n, classes] of what is annotated: of a class, sum(sizes^2) / sum(sizes)^2
            / classes, the share of the sample in which an average part of the class lies. An IoU of
            u loses u (1 + u) of that, since what is covered instead is wrong too.

    Raises:
        ValueError: no sample, a share that is not between 1 / n and 1, or a metric of NaN.
    """
    if n < 1:
        raise ValueError("no sample")
    weight = 1.0 if share is None else share * n
    if not 1 - 1e-9 <= weight <= n * (1 + 1e-9):
        raise ValueError(f"a share of {share} with {n} samples")
    rows = [(accepted.metric(c) - candidate.metric(c), part) for c, part in draws(n, seed)]
    losses, added = np.array(rows).T
    equal = np.ones(n, np.int64)
    loss = accepted.metric(equal) - candidate.metric(equal)
    if not (math.isfinite(loss) and np.isfinite(losses).all()):
        raise ValueError("the metric of these samples is not defined")
    lower, upper = (
        float(np.quantile((1 - added) * losses + sign * added * weight, at, method="weibull"))
        for sign, at in ((-1, 1 - gate.CONFIDENCE), (1, gate.CONFIDENCE))
    )
    deviation = float(losses.std()) * math.sqrt(n + 1)
    return PairedLoss(float(loss), max(-1.0, lower), min(1.0, upper), n, deviation, weight)


def draws(n: int, seed: int) -> Iterator[tuple[NDArray[np.int64], float]]:
    """Of each of `DRAWS` draws the counts [n] of the samples, and the share of the added one.

    The counts of a draw over their sum are uniform on the simplex (Rubin 1981), as exponential
    variables are; whole ones, geometric, are the same to a part in `GRAIN`.
    """
    dice = np.random.default_rng(seed)
    for _ in range(DRAWS):
        counts = dice.geometric(1 / GRAIN, n + 1)
        yield counts[:n], float(counts[n] / counts.sum())


def outcome(loss: PairedLoss, margin: float) -> Outcome:
    """The outcome for a margin; no pass below `gate.unflipped` samples, whatever the bounds are."""
    result = gate.outcome(loss.bounds, margin)
    return "inconclusive" if result == "pass" and loss.n < gate.unflipped(margin) else result


def samples_needed(loss: PairedLoss, margin: float) -> int | None:
    """The number of samples that would decide with 80 % power, if they were like these.

    As `gate.images_needed`, with what the added sample adds to mean, deviation and skewness.

    Returns:
        None if the loss is so near to the margin that no number of samples is enough.
    """
    reach = abs(margin - max(0.0, loss.loss))
    confidence, power = (float(stats.norm.ppf(p)) for p in (gate.CONFIDENCE, gate.POWER))

    def missing(logarithm: float) -> float:
        count = math.exp(logarithm)
        variance = loss.deviation**2 * count
        total = variance + loss.weight**2
        skewness = (confidence**2 - 1) / 3 * loss.weight**3 / total
        spread = confidence * math.sqrt(total) + power * math.sqrt(variance)
        return (loss.weight + skewness + spread) / count - reach

    most = math.log(gate.MOST_IMAGES)
    if missing(most) > 0:
        return None
    enough = math.exp(optimize.brentq(missing, 0.0, most)) if missing(0.0) > 0 else 1.0
    # These were too few: a guess from few losses that says fewer is no help.
    return math.ceil(max(enough, gate.unflipped(margin), loss.n + 1))


def _upper(losses: NDArray[np.float64]) -> float:
    """The 95 % quantile of the mean of `losses` [n] and one of 1 under uniform weights.

    P(sum E_i (x_i - t) > 0) = 5 % is solved for t, E exponential, by the approximation of Lugannani
    and Rice (1980, Advances in Applied Probability 12:475) in the form of Barndorff-Nielsen (1986).
    It is at most 0.6 % too wide for losses of 0 and 1, and needs no draws. The saddle point tilts
    the weights to 1 / (1 + tilt y_i), y_i = 1 - x_i, and t to their mean.
    """
    left = np.append(1 - losses, 0.0)
    scale = float(left.max())
    if scale <= 0:
        return 1.0
    left /= scale
    quantile = float(stats.norm.ppf(gate.CONFIDENCE))

    def tilted(tilt: float) -> tuple[float, float]:
        """(1 - t over the scale, the normal quantile that belongs to it)."""
        tilts = 1 + tilt * left
        mean = float((left / tilts).sum() / (1 / tilts).sum())
        root = math.sqrt(2 * float(np.log(tilts / (1 + tilt * mean)).sum()))
        score = tilt * math.sqrt(float((((left - mean) / tilts) ** 2).sum()))
        return mean, root + math.log(score / root) / root

    # A tilt of 0 would be 0 / 0. This one moves the mean by a tenth of its standard error.
    low = 0.1 / math.sqrt(float(((left - left.mean()) ** 2).sum()))
    high = 2 * low
    while tilted(high)[1] < quantile:
        high *= 2
    tilt = optimize.brentq(lambda x: tilted(x)[1] - quantile, low, high, rtol=1e-12)
    return 1 - scale * tilted(tilt)[0]
