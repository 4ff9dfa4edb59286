"""The gate's statistics: against published examples, exact enumeration and their own definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mobiledeploy.analysis import gate
from tests.variants import slow_but

Z = stats.norm.ppf(gate.CONFIDENCE)


@pytest.mark.parametrize(
    ("losses", "gains", "n", "low", "high"),
    [
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, chapter 8:
        # Cavo et al. 2012, as the authors' R package contingencytables prints it.
        (6, 16, 161, -0.1240, -0.0054),
        # The same, seen from the other model.
        (16, 6, 161, 0.0054, 0.1240),
    ],
)
def test_tangos_interval_is_the_published_one(losses, gains, n, low, high):
    result = gate.bounds(losses, gains, n, confidence=0.975, correction=0)
    assert result == pytest.approx((low, high), abs=5e-5)


counts = st.integers(1, 3000).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n)).flatmap(
        lambda t: st.tuples(st.just(t[0]), st.integers(0, t[1] - t[0]), st.just(t[1]))
    )
)


@given(counts, st.sampled_from([0.0, 0.5]))
def test_bounds_include_the_observed_loss_and_solve_the_score_equation(known, correction):
    b, c, n = known
    low, high = gate.bounds(b, c, n, correction=correction)
    assert -1 <= low <= (b - c) / n <= high <= 1
    if high < 1:
        assert gate.tango(b, c, n, high, correction) == pytest.approx(-Z, abs=1e-4)
    if low > -1:
        assert gate.tango(b, c, n, low, -correction) == pytest.approx(Z, abs=1e-4)


@given(counts)
def test_swapped_models_mirror_the_bounds(known):
    b, c, n = known
    low, high = gate.bounds(b, c, n)
    assert gate.bounds(c, b, n) == (pytest.approx(-high), pytest.approx(-low))


@given(counts, st.floats(0.001, 0.2))
def test_the_bounds_decide_as_the_statistic_does(known, margin):
    b, c, n = known
    result = gate.outcome(gate.bounds(b, c, n), margin)
    upper, lower = gate.tango(b, c, n, margin, 0.5), gate.tango(b, c, n, margin, -0.5)
    if abs(upper + Z) > 1e-6 and abs(lower - Z) > 1e-6:
        assert result == ("pass" if upper < -Z else "fail" if lower > Z else "inconclusive")


@pytest.mark.parametrize(("b", "c", "n"), [(1, 1, 1), (-1, 0, 5), (0, 0, 0)])
def test_invalid_counts_are_refused(b, c, n):
    with pytest.raises(ValueError, match="of"):
        gate.bounds(b, c, n)


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.05])
def test_few_images_without_a_flip_are_inconclusive(margin):
    enough = gate.unflipped(margin)
    assert gate.outcome(gate.bounds(0, 0, enough), margin) == "pass"
    assert gate.outcome(gate.bounds(0, 0, enough - 1), margin) == "inconclusive"


def enumerated(n, flips, loss):
    """Every likely (losses, gains) of n images with these true shares, and its probability."""
    worse, better = (flips + loss) / 2, (flips - loss) / 2
    b, c = (
        np.arange(stats.binom.ppf(1e-12, n, p), stats.binom.isf(1e-12, n, p) + 1)
        for p in (worse, better)
    )
    chance = stats.binom.pmf(b, n, worse)[:, None] * stats.binom.pmf(
        c, n - b[:, None], better / (1 - worse)
    )
    return b[:, None], c[None, :], chance


@pytest.mark.parametrize("n", [200, 270, 400, 1000, 5000])
@pytest.mark.parametrize("flips", [0.01, 0.02, 0.05, 0.1])
def test_a_loss_of_the_margin_passes_once_in_twenty_at_most(n, flips):
    b, c, chance = enumerated(n, flips, 0.01)
    assert chance.sum() == pytest.approx(1)
    assert chance[gate.tango(b, c, n, 0.01, 0.5) < -Z].sum() <= 0.05


def test_without_the_correction_it_would_pass_more_often():
    b, c, chance = enumerated(270, 0.01, 0.01)
    assert chance[gate.tango(b, c, 270, 0.01) < -Z].sum() > 0.06


@pytest.mark.parametrize(("flips", "reference_model"), [(0.03, 1855), (0.06, 3710)])
def test_needed_images_are_those_of_the_textbook_and_decide(flips, reference_model):
    n = 1000
    needed = gate.images_needed(round(n * flips / 2), round(n * flips / 2), n, 0.01)
    assert reference_model < needed < reference_model + 110
    b, c, chance = enumerated(needed, flips, 0.0)
    power = chance[gate.tango(b, c, needed, 0.01, 0.5) < -Z].sum()
    assert power == pytest.approx(0.8, abs=0.02)


def test_needed_images_are_more_than_there_were():
    assert gate.images_needed(0, 0, 200, 0.01) == gate.unflipped(0.01)
    assert gate.images_needed(12, 2, 1000, 0.01) is None
    for b, c, n in ((1, 0, 200), (30, 10, 3000), (1, 1, 364)):
        assert gate.images_needed(b, c, n, 0.01) > n


def test_mcnemar_is_exact():
    assert gate.mcnemar(0, 0) == 1
    assert gate.mcnemar(5, 0) == pytest.approx(2 / 2**5)


def test_flips_have_exact_bounds():
    # The rule of three: nothing of n happened.
    low, high = gate.flip_bounds(0, 100)
    assert (low, high) == (0, pytest.approx(1 - 0.05 ** (1 / 100)))


# Classes


def test_a_collapsed_class_is_named_even_if_the_mean_moved_little():
    classes = np.repeat(np.arange(100), 50)
    losses = classes == 7
    gains = np.zeros(len(classes), bool)
    gains[:40] = True
    groups, small = gate.regressed_classes(classes, losses, gains)
    assert [g.index for g in groups if g.regressed] == [7]
    assert small == 0


def test_a_class_of_few_images_is_counted_and_has_no_verdict():
    classes = np.repeat([0, 1], [9, 10])
    groups, small = gate.regressed_classes(classes, np.ones(19, bool), np.zeros(19, bool))
    assert ([g.index for g in groups], small) == ([1], 1)
    assert groups[0].regressed


def test_a_sure_loss_that_is_small_names_no_class():
    classes = np.zeros(10_000, int)
    losses = np.arange(10_000) < 300
    groups, _ = gate.regressed_classes(classes, losses, np.zeros(10_000, bool))
    assert groups[0].p < 1e-9
    assert not groups[0].regressed


@pytest.mark.parametrize("count", slow_but([10, 200], 10))
def test_chance_alone_names_a_class_once_in_a_hundred_checks_at_most(count):
    """2,000 checks, 100 of many classes, in which every class loses as much as it gains."""
    dice = np.random.default_rng(5)
    classes = np.repeat(np.arange(count), 20)
    names_ = 0
    for _ in range(2000 if count == 10 else 100):
        rolled = dice.random(len(classes))
        groups, _ = gate.regressed_classes(classes, rolled < 0.15, rolled > 0.85)
        names_ += any(g.regressed for g in groups)
    assert names_ <= (20 if count == 10 else 1)


def test_answers_of_a_class_that_changed_are_named_without_labels():
    answers = np.repeat([0, 1, 2], 40)
    flips = (answers == 1) & (np.arange(120) % 2 == 0)
    groups, _ = gate.changed_classes(answers, flips)
    assert [g.index for g in groups if g.regressed] == [1]


def test_pairs_that_moved_are_those_that_grew_for_sure():
    truth = np.repeat([0, 1, 2], 50)
    before = truth.copy()
    now = truth.copy()
    now[:30] = 1  # 30 of class 0 are taken for 1
    now[50] = 2  # one of class 1 for 2: chance
    assert gate.moved_pairs(truth, before, now) == ((0, 1, 0, 30),)
    assert gate.moved_pairs(truth, before, before) == ()
