"""Whether a model's answers are right in another order of the labels.

A model that was trained on the same classes in another order is wrong almost always, and in a way
that repeats: what is a dog in the data is class 3 in the model, each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from mobiledeploy.analysis import gate

LEAST_GAIN = 0.1
"""An order that wins less is not named."""
_SURE = 0.001


@dataclass(frozen=True)
class LabelOrder:
    """Another order: `order[k]` is the label of the data that the model's class k is.

    `top1` is what it would give. It was found on one half of the samples and counted on the other,
    both ways, so that it owes nothing to chance.
    """

    top1: float
    order: tuple[int, ...]


def better_order(answers: ArrayLike, labels: ArrayLike, classes: int) -> LabelOrder | None:
    """The order of labels that fits the answers best, if it is clearly better than the present one.

    Clearly: by `LEAST_GAIN` of top-1, and with a two-sided exact binomial test (McNemar's) of the
    samples that it changes at p < 0.001.

    Args:
        answers: [N], the best class of each sample.
        labels: [N], its label; -1 for none.
        classes: the number of both.
    """
    answered, truth = (np.asarray(values, np.int64) for values in (answers, labels))
    known = (truth >= 0) & (truth < classes) & (answered >= 0) & (answered < classes)
    answered, truth = answered[known], truth[known]
    if not truth.size:
        return None
    halves = _halves(truth)
    reordered = np.empty_like(truth)
    for half in (halves, ~halves):
        reordered[~half] = _best_order(answered[half], truth[half], classes)[answered[~half]]
    now, then = answered == truth, reordered == truth
    gained, lost = int(np.sum(then & ~now)), int(np.sum(now & ~then))
    if then.mean() - now.mean() < LEAST_GAIN or gate.mcnemar(lost, gained) >= _SURE:
        return None
    return LabelOrder(float(then.mean()), tuple(_best_order(answered, truth, classes).tolist()))


def _halves(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N]: every second sample of each label."""
    order = np.argsort(labels, kind="stable")
    halves = np.empty(len(labels), bool)
    halves[order] = np.arange(len(labels)) % 2 == 0
    return halves


def _best_order(
    answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """[classes]: the label of each class so that most samples are right, each label once."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (answers, labels), 1)
    # What the samples leave open stays as it is.
    places = linear_sum_assignment(2.0 * classes * counts + np.eye(classes), maximize=True)
    order: NDArray[np.int64] = places[1].astype(np.int64)
    return order
