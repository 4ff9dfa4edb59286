"""Simulation of `analysis.paired` on pairs of models whose true loss is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import _paired_populations as populations
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mobiledeploy.analysis import gate, paired

Z = stats.norm.ppf(gate.CONFIDENCE)
MEANS = tuple(itertools.product((100, 400, 1000, 3000, 5000), (0.005, 0.01, 0.02, 0.05)))
CORPORA = ((100, 0.05), (400, 0.01), (1000, 0.02))
LARGE = (*CORPORA, (3000, 0.01), (5000, 0.005))
FEW_POSITIVES = ((3000, 0.02),)
"""With one positive in ten: at fewer images even equal models are inconclusive."""
WRONGLY_PASSED, LIMIT, WRONGLY_FAILED, POWER = 0.055, 0.065, 0.05, 0.8
ENOUGH_SETS = 1000
"""With fewer data sets the upper limit of a rate says nothing."""
MORE_SETS = {"mean": 4, "mIoU": 2, "mIoU, one class": 2}
"""So many times more data sets where they cost little."""
SETS_PER_DRAW = 100
STAGES = (100, 300, 800, paired.DRAWS)


@dataclass(frozen=True)
class PairedCell:
    """Shares of `sets` simulated data sets.

    `passed` is at a true loss of the margin, `limit` its upper 99 % limit, `passed_plain` that of a
    t interval or a bootstrap as they stand, `passed_added` with one lost sample in mean and
    variance. `failed` and `power` (passed) are at no loss.
    """

    metric: str
    population: str
    images: int
    margin: float
    sets: int
    passed: float
    limit: float
    passed_plain: float
    passed_added: float
    failed: float
    power: float


Counted = NDArray[np.float64]
"""Passed, passed by the plain way and with one added to mean and variance; failed."""


def mean_verdicts(
    population: str, n: int, margin: float, loss: float, sets: int, dice: np.random.Generator
) -> Counted:
    counted = np.zeros(4)
    for _ in range(sets):
        losses = populations.score_losses(population, dice, n, loss)
        plain = losses.mean() + Z * losses.std(ddof=1) / np.sqrt(n)
        with_one = np.append(losses, 1.0)
        added = with_one.mean() + Z * with_one.std(ddof=1) / np.sqrt(n + 1)
        # The bound lies within one image of this one: farther off, the verdict is the same.
        passed, failed = added < margin, False
        if abs(added - margin) < 1.5 / n:
            passed = paired.mean_bounds(*pair(losses)).upper < margin
        without = losses.mean() - Z * losses.std(ddof=1) / np.sqrt(n)
        if without > margin - 1.5 / n:
            failed = paired.mean_bounds(*pair(losses)).lower > margin
        counted += passed, plain < margin, added < margin, failed
    return counted / sets


def pair(losses: Counted) -> tuple[Counted, Counted]:
    """Scores of two models with these losses."""
    return np.maximum(losses, 0), np.maximum(-losses, 0)


Population = Callable[[str, np.random.Generator, int, float], populations.Metric]


def corpus_verdicts(
    make: Population,
    population: str,
    n: int,
    margin: float,
    loss: float,
    sets: int,
    dice: np.random.Generator,
) -> Counted:
    """As `paired.corpus_bounds` judges, with few draws where they are enough.

    Several data sets share their draws.
    """
    counted = np.zeros(4)
    for index in range(sets):
        if index % SETS_PER_DRAW == 0:
            drawn = list(paired.draws(n, int(dice.integers(2**31))))
            weights = np.array([c for c, _ in drawn], np.float32) / paired.GRAIN
            added = np.array([share for _, share in drawn])
        metric = make(population, dice, n, loss)
        losses = np.zeros(0)
        for count in STAGES:
            losses = np.append(losses, metric.losses(weights[len(losses) : count]))
            one = added[:count] * metric.share * n
            rest = (1 - added[:count]) * losses
            passed, failed = surely_below(rest + one, margin), surely_below(one - rest, -margin)
            if None not in (passed, failed):
                break
        # The other ways by as many draws as that took.
        others = [below(x, margin) for x in (losses, rest + added[:count])]
        counted += passed, *others, failed
    return counted / sets


def below(losses: Counted, margin: float) -> bool:
    """Whether the 95 % quantile of the draws is below the margin."""
    return bool(np.quantile(losses, gate.CONFIDENCE, method="weibull") < margin)


def surely_below(losses: Counted, margin: float) -> bool | None:
    """Whether the 95 % quantile of all draws is below the margin, None if these do not show it."""
    if len(losses) == paired.DRAWS:
        return below(losses, margin)
    # By 3.5 standard deviations: of data sets at the very limit, one in 4,000 is misjudged.
    share, wanted = (losses >= margin).mean(), 1 - gate.CONFIDENCE
    reach = 3.5 * np.sqrt(wanted * (1 - wanted) / len(losses))
    return bool(share < wanted) if abs(share - wanted) > reach else None


AUC_POPULATIONS = tuple(x for x in populations.POPULATIONS if x != "clustered")
"""One score an image: nothing is clustered."""
METRICS: dict[str, tuple[Population, Sequence[str], Sequence[tuple[int, float]]]] = {
    "AUC": (populations.auc, AUC_POPULATIONS, LARGE[:-1]),
    "AUC, 1 in 10 positive": (
        partial(populations.auc, positives=0.1),
        AUC_POPULATIONS,
        FEW_POSITIVES,
    ),
    "mIoU": (populations.miou, populations.POPULATIONS, LARGE),
    # Its ranks take long: larger ones would double the time of all.
    "mAP": (populations.mean_ap, populations.POPULATIONS, CORPORA),
    "mIoU, one class": (populations.miou, (populations.RARE_CLASS,), LARGE),
}
PLAN = tuple(
    (metric, population, n, margin)
    for metric, of_metric, grid in (
        ("mean", populations.SCORES, MEANS),
        *((name, *rest) for name, (_, *rest) in METRICS.items()),
    )
    for n, margin in grid
    for population in of_metric
    # Fewer never pass.
    if n >= gate.unflipped(margin)
)


def paired_cell(sets: int, number: int) -> PairedCell:
    """The cell of this number in the plan."""
    metric, population, n, margin = PLAN[number]
    dice = np.random.default_rng(number)
    sets *= MORE_SETS.get(metric, 1)
    if metric == "mean":
        verdicts = partial(mean_verdicts, population, n, margin)
    else:
        verdicts = partial(corpus_verdicts, METRICS[metric][0], population, n, margin)
    passed, plain, added, _ = verdicts(loss=margin, sets=sets, dice=dice)
    # Power is far from its bar, and models that fail are rarer still: fewer data sets show it.
    power, _, _, failed = verdicts(loss=0.0, sets=max(1, sets // 5), dice=dice)
    limit = stats.binomtest(round(passed * sets), sets, alternative="less").proportion_ci(0.99).high
    rates = (passed, limit, plain, added, failed, power)
    return PairedCell(metric, population, n, margin, sets, *map(float, rates))


def paired_cells(sets: int, largest: int) -> Iterator[PairedCell]:
    """The cells of at most `largest` images, simulated on all cores."""
    numbers = [i for i, (_, _, n, _) in enumerate(PLAN) if n <= largest]
    # The largest first, so that no core waits long for the last one.
    numbers.sort(key=lambda i: -PLAN[i][2])
    with ProcessPoolExecutor() as pool:
        yield from pool.map(partial(paired_cell, sets), numbers)


def paired_missed(cells: list[PairedCell]) -> Iterator[str]:
    """What is not as it should be."""
    for c in cells:
        where = f"{c.metric}, {c.population}, {c.images} images, {100 * c.margin:g} %"
        if c.passed > WRONGLY_PASSED or (c.sets >= ENOUGH_SETS and c.limit > LIMIT):
            yield f"{where}: a loss of the margin passes {c.passed:.4f}, at most {c.limit:.4f}"
        if c.failed > WRONGLY_FAILED:
            yield f"{where}: no loss fails {c.failed:.4f}"
        if (c.images, c.margin) == (1000, 0.02) and c.power < POWER:
            yield f"{where}: no loss passes {c.power:.4f}"
