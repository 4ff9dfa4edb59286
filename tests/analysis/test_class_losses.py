"""Losses of classes: by hand, and how often a class is named that lost nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mobiledeploy.analysis import class_losses, gate, paired
from mobiledeploy.analysis.class_losses import DrawnClasses


class Means:
    """The mean score of the samples of each class, as a metric of classes."""

    def __init__(self, scores, labels, classes):
        self.classes = tuple(range(10, 10 + classes))
        self.annotated = np.eye(classes, dtype=np.int64)[labels]
        self.worth = np.ones(classes)
        self.scores = self.annotated * np.asarray(scores, float)[:, None]
        self.calls = 0

    def of_classes(self, counts):
        self.calls += 1
        whole = counts @ self.annotated
        return np.where(whole > 0, counts @ self.scores / np.maximum(whole, 1), np.nan)

    def metric(self, counts):
        return float(np.nanmean(self.of_classes(counts)))


def compared(before, now, labels, classes, seed=1):
    one, other = (DrawnClasses(Means(scores, labels, classes)) for scores in (before, now))
    loss = paired.corpus_bounds(one, other, len(labels), seed=seed)
    return loss, *class_losses.class_losses(one, other)


def test_a_class_that_lost_the_same_everywhere_has_the_chance_of_the_added_sample():
    labels = np.repeat([0, 1, 2], [20, 20, 9])
    before = np.full(49, 0.8)
    loss, (first, second), untested = compared(before, before - 0.5 * (labels == 1), labels, 3)
    assert untested == 1
    assert (first.index, first.n, first.before, first.now) == (10, 20, *[pytest.approx(0.8)] * 2)
    assert (first.p, first.regressed) == (1, False)
    # Each sample of twenty has a twentieth; two classes are tested.
    assert second.p == pytest.approx(2 * math.exp(-0.5 * 20), rel=1e-6)
    assert second.regressed
    assert loss.loss == pytest.approx(0.5 / 3)


def test_a_loss_below_the_margin_of_classes_is_no_regression_however_sure():
    labels = np.repeat([0, 1], 500)
    before = np.full(1000, 0.8)
    small = gate.CLASS_MARGIN - 0.01
    _, changes, _ = compared(before, before - small, labels, 2)
    assert all(c.p < 1e-6 and not c.regressed for c in changes)
    _, changes, _ = compared(before, before - small - 0.02, labels, 2)
    assert all(c.regressed for c in changes)


def test_the_tail_of_a_large_class_is_no_thinner_than_the_normal_one():
    """Seventy of a thousand samples lost and thirty gained: z = 4, which no draw of 2,000 shows."""
    labels = np.zeros(1000, int)
    before, now = np.full(1000, 0.5), np.full(1000, 0.5)
    before[:70], now[:70] = 1, 0
    before[70:100], now[70:100] = 0, 1
    _, (change,), _ = compared(before, now, labels, 1)
    assert 1e-5 < change.p < 1e-3
    assert change.p > math.erfc(0.04 / math.sqrt(0.1) * math.sqrt(1000) / math.sqrt(2)) / 2


def test_the_draws_are_computed_once_for_several_comparisons():
    labels = np.arange(60) % 3
    scores = np.linspace(0, 1, 60)
    one, other, third = (DrawnClasses(Means(s, labels, 3)) for s in (scores, scores**2, scores / 2))
    first = paired.corpus_bounds(one, other, 60, seed=3)
    calls = other.corpus.calls
    assert calls == paired.DRAWS + 1
    paired.corpus_bounds(third, other, 60, seed=3)
    assert other.corpus.calls == calls
    plain = paired.corpus_bounds(one.corpus, other.corpus, 60, seed=3)
    assert first.bounds == plain.bounds
    assert one.draws.shape == (paired.DRAWS + 1, 3)


def test_samples_of_a_rare_class_carry_most():
    equal = Means(np.ones(40), np.arange(40) % 4, 4)
    assert class_losses.heaviest(equal) == pytest.approx(1 / 40)
    rare = Means(np.ones(41), np.repeat([0, 1], [40, 1]), 2)
    assert class_losses.heaviest(rare) == pytest.approx(1 / 2)
    rare.worth = np.array([1.0, 2.0])
    assert class_losses.heaviest(rare) == 1
    # A class that nobody annotated carries nothing.
    without = Means(np.ones(40), np.arange(40) % 4, 5)
    assert class_losses.heaviest(without) == pytest.approx(1 / 40)
    equal.worth = np.zeros(4)
    assert class_losses.heaviest(equal) == 1 / 40


@pytest.mark.parametrize(
    ("classes", "size", "changed"),
    [
        (20, 12, 0.4),
        pytest.param(4, 60, 0.3, marks=pytest.mark.slow),
        pytest.param(2, 150, 0.5, marks=pytest.mark.slow),
    ],
)
def test_at_most_one_check_in_a_hundred_names_a_class_that_lost_nothing(classes, size, changed):
    """Of 60 checks one at most: at a rate of one in a hundred that is so in 88 of 100 cases."""
    dice = np.random.default_rng(5)
    labels = np.repeat(np.arange(classes), size)
    named = 0
    counts = [c for c, _ in paired.draws(len(labels), 1)][:300]
    for _ in range(60):
        right = dice.random(len(labels)) < 0.7
        again = np.where(dice.random(len(labels)) < changed, dice.random(len(labels)) < 0.7, right)
        one, other = (DrawnClasses(Means(s, labels, classes)) for s in (right, again))
        for row in counts:
            one.metric(row), other.metric(row)
        changes, _ = class_losses.class_losses(one, other)
        named += any(c.regressed for c in changes)
    assert named <= 1
