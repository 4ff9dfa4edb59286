from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import quantile_test

from mobiledeploy.analysis import stats

TIMES = st.lists(st.integers(1, 10**9), min_size=stats.FEWEST, max_size=80)


@given(TIMES)
def test_the_interval_is_that_of_scipy(samples: list[int]) -> None:
    middle, low, high = stats.median_interval(samples)
    expected = quantile_test(samples, p=0.5).confidence_interval(0.95)
    assert (low, high) == (expected.low, expected.high)
    assert middle == np.median(samples)
    assert low <= middle <= high


@given(TIMES, st.randoms(), st.integers(1, 1000))
def test_order_does_not_matter_and_units_carry_through(samples, random, factor) -> None:
    mixed = list(samples)
    random.shuffle(mixed)
    scaled = stats.median_interval([factor * value for value in mixed])
    assert scaled == pytest.approx([factor * end for end in stats.median_interval(samples)])


def test_it_covers_the_true_median_as_often_as_it_says() -> None:
    dice = np.random.Generator(np.random.PCG64(3))
    draws = dice.exponential(size=(2000, 25))
    intervals = [stats.median_interval(row) for row in draws]
    share = np.mean([low <= math.log(2) <= high for _, low, high in intervals])
    # 95.7 % in theory for 25 samples; 2000 draws are within 1.5 points of it.
    assert 0.942 <= share <= 0.972


@pytest.mark.parametrize("count", range(stats.FEWEST))
def test_too_few_samples_have_no_interval(count: int) -> None:
    with pytest.raises(ValueError, match="no 95% interval"):
        stats.median_interval(range(1, count + 1))
    assert stats.relative_width(range(1, count + 1)) == math.inf


def test_six_samples_have_their_range() -> None:
    assert stats.median_interval([6, 1, 3, 2, 5, 4]) == (3.5, 1, 6)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        stats.median_interval([1.0] * 9 + [math.nan])


def test_the_width_is_that_of_the_farther_end() -> None:
    # Six samples: the interval is 99 to 110 about a median of 100.
    assert stats.relative_width([99, 100, 100, 100, 100, 110]) == pytest.approx(0.1)
    assert stats.relative_width([7] * 10) == 0
    assert stats.relative_width([-1, -1, -1, 1, 1, 1]) == math.inf


def test_ratios_are_of_pairs() -> None:
    tops, bottoms = [2.0, 4.0, 6.0, 8.0, 10.0, 13.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert stats.ratio_interval(tops, bottoms) == (2.0, 2.0, 13 / 6)
    with pytest.raises(ValueError, match="shorter|longer"):
        stats.ratio_interval(tops, bottoms[:-1])
