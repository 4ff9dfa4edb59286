from __future__ import annotations

import math

import numpy as np
import pytest

from mobiledeploy.analysis import choice
from mobiledeploy.analysis.choice import Bounded, ChoiceLimits, ChoiceOption


def exact(value: float) -> Bounded:
    return Bounded(value, value, value)


def option(accuracy: float, ms: float, reach: float = 1.0, **change: bool) -> ChoiceOption:
    return ChoiceOption(exact(accuracy), (Bounded(ms, ms / reach, ms * reach),), **change)


LIMITS = ChoiceLimits((10.0,))


def test_a_cost_fits_with_its_interval_perhaps_or_not() -> None:
    fits = [choice.fits(option(0.5, ms, 1.2), LIMITS) for ms in (8.0, 9.0, 11.0, 13.0)]
    assert fits == ["yes", "maybe", "maybe", "no"]
    assert choice.fits(ChoiceOption(exact(0.5), (None,)), LIMITS) == "no"
    assert choice.fits(ChoiceOption(exact(0.5), (None,)), ChoiceLimits((None,))) == "yes"
    judged = ChoiceOption(Bounded(0.60, 0.57, 0.63), (exact(1.0),))
    answers = [choice.fits(judged, ChoiceLimits((10.0,), least)) for least in (0.55, 0.6, 0.65)]
    assert answers == ["yes", "maybe", "no"]


def test_the_best_fits_beyond_doubt_and_the_rest_of_the_contenders_may() -> None:
    options = [
        option(0.50, 2.0, 1.1),
        option(0.60, 8.0, 1.1),
        option(0.70, 10.5, 1.1),
        option(0.80, 30.0, 1.1),
    ]
    assert choice.best(options, LIMITS) == 1
    assert choice.contenders(options, LIMITS) == (1, 2)
    assert choice.best(options[2:], LIMITS) is None
    assert choice.excess(options[3], LIMITS) == pytest.approx(2.0)
    assert choice.contenders([], LIMITS) == ()


def test_an_unknown_loss_beats_no_option_whose_accuracy_is_known() -> None:
    int8, float_ = option(0.7, 5.0, upper_bound=True), option(0.6, 9.0)
    assert choice.contenders([int8, float_], LIMITS) == (0, 1)
    assert choice.contenders([option(0.7, 5.0), float_], LIMITS) == (0,)
    worse = option(0.6, 9.0, upper_bound=True)
    assert choice.contenders([int8, worse], LIMITS) == (0,)
    assert choice.best([int8, option(0.7, 9.0)], LIMITS) == 1


def test_probability_is_that_of_the_interval() -> None:
    cost = Bounded(10.0, 10.0 / 1.2, 12.0)
    assert choice.probability(cost, 10.0) == pytest.approx(0.5)
    assert choice.probability(cost, 12.0) == pytest.approx(0.975, abs=1e-3)
    assert [choice.probability(exact(3.0), limit) for limit in (2.9, 3.0)] == [0.0, 1.0]


def test_intervals_of_shares_are_exact() -> None:
    from scipy.stats import binomtest

    for right in (0, 1, 77, 99, 100):
        interval = binomtest(right, 100).proportion_ci(0.95, "exact")
        expected = pytest.approx((interval.low, interval.high), abs=1e-9)
        assert choice.share_interval(right / 100, 100) == expected


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.12])
def test_the_true_best_is_among_the_contenders(spread: float) -> None:
    """Sixty cells of known truth: brute force over the truth, the choice over noisy figures."""
    random = np.random.default_rng(round(1000 * spread))
    limits, inside, sizes, runs = ChoiceLimits((10.0,)), 0, [], 100
    for _ in range(runs):
        latency = np.exp(random.uniform(math.log(2), math.log(50), 60))
        accuracy = 0.4 + 0.1 * np.log(latency) / math.log(2) / 2 + random.normal(0, 0.03, 60)
        fast = np.flatnonzero(latency <= 10.0)
        truth = int(fast[np.argmax(accuracy[fast])])
        seen = latency * np.exp(random.normal(0, spread, 60))
        judged = random.binomial(1000, accuracy) / 1000
        reach = math.exp(1.96 * spread)
        options = [
            ChoiceOption(
                Bounded(share, *choice.share_interval(share, 1000)),
                (Bounded(ms, ms / reach, ms * reach),),
            )
            for share, ms in zip(judged.tolist(), seen.tolist(), strict=True)
        ]
        contenders = choice.contenders(options, limits)
        best = choice.best(options, limits)
        assert best is None or best in contenders
        inside += truth in contenders
        sizes.append(len(contenders))
    # The intervals hold for all sixty at once in 95 of 100 grids, which is the least.
    assert inside >= 0.98 * runs
    assert np.mean(sizes) < 36
