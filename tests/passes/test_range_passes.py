"""Activation ranges by squared error and by percentile."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mobiledeploy.graphs.ranges import Histogram
from mobiledeploy.graphs.readers import hard_swish
from mobiledeploy.passes import ranges_mse, ranges_percentile

SAMPLES = st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=200)


def histogram(samples):
    values = np.array(samples)
    values = values[values != 0]
    extent = (min(0.0, *samples), max(0.0, *samples))
    if extent[0] == extent[1]:
        extent = (0.0, 1.0)
    counts, edges = np.histogram(values, 256, extent)
    return Histogram(counts.astype(float), edges)


def error(samples, low, high):
    step = (high - low) / 255
    if step <= 0:
        return float(np.mean(np.square(samples)))
    codes = np.round((np.clip(samples, low, high) - low) / step)
    return float(np.mean((np.array(samples) - (low + codes * step)) ** 2))


@settings(max_examples=100)
@given(SAMPLES)
def test_ranges_are_within_the_values_and_include_zero(samples):
    histogram_ = histogram(samples)
    for low, high in (ranges_mse.best(histogram_), ranges_percentile.common(histogram_)):
        assert histogram_.edges[0] <= low <= 0 <= high <= histogram_.edges[-1]
        assert low < high


def test_a_lone_large_value_is_clipped_for_the_sake_of_the_others():
    random = np.random.default_rng(0)
    samples = np.append(np.abs(random.normal(0, 1, 1_000_000)), 60.0)
    low, high = ranges_mse.best(histogram(samples))
    assert low == 0
    assert 3 < high < 30
    assert error(samples, low, high) < 0.5 * error(samples, 0, 60)
    assert 3 < ranges_percentile.common(histogram(samples))[1] < 6


def test_even_values_keep_their_range():
    samples = np.linspace(-3, 5, 10_001)
    low, high = ranges_mse.best(histogram(samples))
    np.testing.assert_allclose((low, high), (-3, 5), atol=0.1)


def test_nothing_but_zeros_keeps_its_range():
    nothing = Histogram(np.zeros(4), np.linspace(0, 1, 5))
    assert ranges_mse.best(nothing) == ranges_percentile.common(nothing) == (0.0, 1.0)


def test_the_error_before_a_hard_swish_is_judged_behind_it():
    """The best range behind it has less error there than the best range of the values."""
    samples = np.clip(np.random.default_rng(0).normal(0, 2, 100_000), -3, None)
    before = histogram(samples)
    behind = dataclasses.replace(before, reader=hard_swish)

    def swished_error(low, high):
        step = (high - low) / 255
        codes = np.round((np.clip(samples, low, high) - low) / step)
        return float(np.mean((hard_swish(samples) - hard_swish(low + codes * step)) ** 2))

    (low, high), (usual_low, usual_high) = ranges_mse.best(behind), ranges_mse.best(before)
    assert swished_error(low, high) < 0.98 * swished_error(usual_low, usual_high)
    # What is clipped above 3 is off by as much behind it.
    assert high > usual_high
