"""Losses of means and of metrics: against exact bounds, by their symmetries, and where they err."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mobiledeploy.analysis import gate, paired
from tests.variants import slow_but

Z = stats.norm.ppf(gate.CONFIDENCE)
NAN = math.nan


def of_losses(losses):
    """The bounds of two models whose scores differ by `losses`."""
    losses = np.asarray(losses, float)
    return paired.mean_bounds(np.maximum(losses, 0), np.maximum(-losses, 0))


def lost_wholly(count, n):
    """`count` of `n` samples lose everything, and the others nothing."""
    return of_losses(np.arange(n) < count)


class Auc:
    """AUC of the scores [N] of samples that are positive or not."""

    def __init__(self, scores, is_positive):
        self.order = np.argsort(scores, kind="stable")
        self.is_positive = np.asarray(is_positive)[self.order]

    def metric(self, counts):
        ordered = np.asarray(counts)[self.order]
        yes, no = ordered * self.is_positive, ordered * ~self.is_positive
        return float((yes * np.cumsum(no)).sum() / (yes.sum() * no.sum()))


class Mean:
    """A mean of scores, as a metric over samples."""

    def __init__(self, scores):
        self.scores = np.asarray(scores)

    def metric(self, counts):
        return float(counts @ self.scores / counts.sum())


scores = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(0, 1), min_size=n, max_size=n)] * 2)
)


# Means


@pytest.mark.parametrize("n", [1, 2, 5, 30, 361, 5000])
def test_the_bounds_of_right_and_wrong_scores_are_the_exact_ones(n):
    for lost in {0, 1, 2, n // 10, n // 2, n - 1}:
        if lost < n:
            exact = stats.beta.ppf(0.95, lost + 1, n - lost)
            assert exact <= lost_wholly(lost, n).upper <= 1.006 * exact
    assert lost_wholly(n, n).upper == 1


def test_the_bounds_are_the_quantiles_of_drawn_weights():
    dice = np.random.default_rng(3)
    for losses in (dice.normal(0, 0.1, 80), dice.uniform(-1, 1, 80), dice.beta(0.3, 3, 80) - 0.2):
        weights = dice.dirichlet(np.ones(81), 100_000)
        result = of_losses(losses)
        reach = result.upper - result.loss
        high = np.quantile(weights @ np.append(losses, 1), 0.95)
        low = np.quantile(weights @ np.append(losses, -1), 0.05)
        assert result.bounds == pytest.approx((low, high), abs=0.02 * reach)


@given(scores)
@settings(max_examples=50)
def test_the_bounds_include_the_observed_loss(pair):
    result = paired.mean_bounds(*pair)
    assert -1 <= result.lower <= result.loss <= result.upper <= 1


@given(scores)
@settings(max_examples=50)
def test_swapped_models_mirror_the_bounds_of_a_mean(pair):
    accepted, candidate = pair
    one, other = paired.mean_bounds(accepted, candidate), paired.mean_bounds(candidate, accepted)
    assert other.bounds == pytest.approx((-one.upper, -one.lower))


@given(scores, st.randoms())
@settings(max_examples=50)
def test_the_order_of_samples_does_not_matter(pair, dice):
    order = list(range(len(pair[0])))
    dice.shuffle(order)
    shuffled = ([x[i] for i in order] for x in pair)
    assert paired.mean_bounds(*shuffled) == paired.mean_bounds(*pair)


@given(scores, st.data())
@settings(max_examples=50)
def test_a_candidate_that_gets_worse_has_no_lower_bound(pair, data):
    accepted, candidate = pair
    worse = [data.draw(st.floats(0, x)) for x in candidate]
    before, now = paired.mean_bounds(accepted, candidate), paired.mean_bounds(accepted, worse)
    assert now.upper >= before.upper - 1e-9
    assert now.lower >= before.lower - 1e-9


@given(st.integers(1, 1500), st.sampled_from([0.005, 0.01, 0.02, 0.05]))
@settings(max_examples=50)
def test_equal_models_pass_with_enough_images_and_never_fail(n, margin):
    scores = np.random.default_rng(n).random(n)
    result = paired.outcome(paired.mean_bounds(scores, scores), margin)
    assert result == ("pass" if n >= gate.unflipped(margin) else "inconclusive")


def test_too_few_images_never_pass_however_much_is_gained():
    result = paired.mean_bounds(np.zeros(300), np.ones(300))
    assert result.upper < -0.9
    assert paired.outcome(result, 0.01) == "inconclusive"
    assert paired.outcome(result, 0.05) == "pass"


def test_few_images_are_enough_to_fail():
    assert paired.outcome(lost_wholly(30, 40), 0.01) == "fail"


def test_samples_without_annotation_are_left_out():
    one = paired.mean_bounds([1, NAN, 0.5, 0.2], [0, NAN, 0.5, 0.3])
    assert one == paired.mean_bounds([1, 0.5, 0.2], [0, 0.5, 0.3])


@pytest.mark.parametrize(
    ("accepted", "candidate", "reason"),
    [
        ([1, 0], [1], "no pairs"),
        ([[1, 0]], [[1, 0]], "no pairs"),
        ([1, NAN], [1, 0], "one model only"),
        ([NAN], [NAN], "no sample"),
        ([], [], "no sample"),
        ([1.1], [0], "outside"),
        ([1], [-0.1], "outside"),
    ],
)
def test_invalid_scores_are_refused(accepted, candidate, reason):
    with pytest.raises(ValueError, match=reason):
        paired.mean_bounds(accepted, candidate)


# How often a loss of the margin passes


def most_that_pass(n, margin, passes):
    """The largest number of n images that may be lost wholly in a check that passes; -1 if none."""
    low, high = -1, math.ceil(n * margin)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle, n, margin) else (low, middle)
    return low


def passes(lost, n, margin):
    return paired.outcome(lost_wholly(lost, n), margin) == "pass"


def passes_added(lost, n, margin):
    """With one lost image in mean and variance of a normal interval."""
    share = (lost + 1) / n
    return n >= gate.unflipped(margin) and share + Z * math.sqrt(share * (1 - share) / n) < margin


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.05])
def test_a_loss_that_few_images_carry_passes_once_in_twenty_at_most(margin):
    """Each image is lost wholly with the probability of the margin: counted, not drawn."""
    sizes = np.unique(np.geomspace(100, 5000, 25).astype(int))
    rates = [stats.binom.cdf(most_that_pass(n, margin, passes), n, margin) for n in sizes]
    assert max(rates) <= 0.05
    plain = [stats.binom.cdf(most_that_pass(n, margin, passes_added), n, margin) for n in sizes]
    assert max(plain) > 0.055


# Metrics over samples


def two_aucs(n=400, positives=0.5, seed=0):
    dice = np.random.default_rng(seed)
    is_positive = np.arange(n) < n * positives
    accepted = is_positive + dice.normal(0, 0.7, n)
    return [Auc(x, is_positive) for x in (accepted, accepted + dice.normal(0, 0.1, n))]


def test_a_mean_as_a_metric_over_samples_has_the_bounds_of_a_mean():
    dice = np.random.default_rng(1)
    accepted = dice.random(300)
    candidate = np.clip(accepted - dice.exponential(0.05, 300), 0, 1)
    one = paired.mean_bounds(accepted, candidate)
    other = paired.corpus_bounds(Mean(accepted), Mean(candidate), 300, seed=5)
    reach = one.upper - one.lower
    assert other.loss == pytest.approx(one.loss)
    assert other.bounds == pytest.approx(one.bounds, abs=0.05 * reach)
    assert other.deviation == pytest.approx(one.deviation, rel=0.05)


def test_equal_seeds_give_equal_bounds():
    accepted, candidate = two_aucs()
    one, same, other = (
        paired.corpus_bounds(accepted, candidate, 400, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.bounds != other.bounds
    assert one.bounds == pytest.approx(other.bounds, abs=0.2 * (one.upper - one.lower))


def test_swapped_models_mirror_the_bounds_of_a_metric():
    accepted, candidate = two_aucs()
    one = paired.corpus_bounds(accepted, candidate, 400, seed=1, share=1 / 200)
    other = paired.corpus_bounds(candidate, accepted, 400, seed=1, share=1 / 200)
    assert other.bounds == pytest.approx((-one.upper, -one.lower))
    assert other.loss == pytest.approx(-one.loss)


def test_the_order_of_samples_moves_a_bootstrap_no_more_than_another_seed_does():
    dice = np.random.default_rng(2)
    is_positive = np.arange(300) % 2 == 0
    scores = is_positive + dice.normal(0, 0.7, (2, 300))
    order = dice.permutation(300)
    one, other = (
        paired.corpus_bounds(*(Auc(x[i], is_positive[i]) for x in scores), 300, seed=4)
        for i in (np.arange(300), order)
    )
    assert one.loss == pytest.approx(other.loss)
    assert one.bounds == pytest.approx(other.bounds, abs=0.1 * (one.upper - one.lower))


def test_no_sample_is_left_out_of_a_draw():
    counts, added = zip(*paired.draws(200, 7), strict=True)
    assert np.shape(counts) == (paired.DRAWS, 200)
    assert np.min(counts) >= 1
    assert np.mean(added) == pytest.approx(1 / 201, rel=0.1)
    # One positive is enough in every draw.
    accepted, candidate = two_aucs(n=200, positives=1 / 200)
    assert math.isfinite(paired.corpus_bounds(accepted, candidate, 200, seed=1).upper)


def test_few_positives_are_few_images_however_many_negatives_there_are():
    auc, _ = two_aucs(n=1000, positives=0.05)
    assert paired.outcome(paired.corpus_bounds(auc, auc, 1000, seed=1), 0.02) == "pass"
    result = paired.corpus_bounds(auc, auc, 1000, seed=1, share=1 / 50)
    assert paired.outcome(result, 0.02) == "inconclusive"
    assert paired.samples_needed(result, 0.02) == pytest.approx(3000, rel=0.1)


def test_a_metric_that_lost_much_fails():
    dice = np.random.default_rng(0)
    is_positive = np.arange(1000) % 2 == 0
    accepted = is_positive + dice.normal(0, 0.4, 1000)
    candidate = np.where(is_positive & (np.arange(1000) < 200), -9, accepted)
    pair = Auc(accepted, is_positive), Auc(candidate, is_positive)
    result = paired.corpus_bounds(*pair, 1000, seed=1, share=1 / 500)
    assert result.loss > 0.15
    assert paired.outcome(result, 0.05) == "fail"


@pytest.mark.parametrize("share", [0.001, 1.5, -1])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        paired.corpus_bounds(*two_aucs(), 400, seed=1, share=share)


def test_metrics_that_are_not_defined_are_refused():
    empty = Mean([NAN] * 10)
    with pytest.raises(ValueError, match="not defined"):
        paired.corpus_bounds(empty, empty, 10, seed=1)
    with pytest.raises(ValueError, match="no sample"):
        paired.corpus_bounds(empty, empty, 0, seed=1)


# Samples that would decide


@pytest.mark.parametrize("deviation", slow_but([0.1, 0.2], 0.2))
def test_needed_samples_pass_four_times_in_five(deviation):
    dice = np.random.default_rng(6)
    needed = paired.samples_needed(of_losses(deviation * np.array([1, -1] * 50)), 0.02)
    passed = sum(
        paired.outcome(of_losses(deviation * dice.choice((-1, 1), needed)), 0.02) == "pass"
        for _ in range(600)
    )
    assert passed / 600 == pytest.approx(0.8, abs=0.05)


def test_needed_samples_are_more_than_there_were_and_enough_without_any_loss():
    assert paired.samples_needed(lost_wholly(0, 100), 0.01) == gate.unflipped(0.01)
    assert paired.samples_needed(lost_wholly(1, 364), 0.01) > 364
    assert paired.samples_needed(lost_wholly(0, 364), 0.01) == 365
    assert paired.samples_needed(lost_wholly(10, 1000), 0.01) is None
