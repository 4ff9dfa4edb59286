"""The Pareto front: the points that no other point beats in both cost and accuracy."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core.types import Answers, Evaluation, Gain


def _no_answers(_: int) -> None:
    """None: no answers are known."""


def front(
    points: Sequence[tuple[float, float]], answers: Callable[[int], Answers | None] = _no_answers
) -> tuple[int, ...]:
    """Indices of the points (cost, accuracy) that no other point dominates, cheapest first.

    A point dominates another if it costs no more and is no less accurate, and is better in one of
    the two. Of two points of equal cost that tie (`Gain.tie`) neither dominates the other; of one
    cost the most accurate point comes first. If answers are not known, the first of equal points
    stays.

    Args:
        points: (cost, accuracy) of each.
        answers: of the point with this index; asked for points of equal cost alone.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    indices: list[int] = []
    # The most accurate point of the last cost that is on the front, and how accurate cheaper ones
    # are.
    best, cheaper = -1, -math.inf
    for index in order:
        cost, accuracy = points[index]
        if best >= 0 and cost == points[best][0]:
            if accuracy > cheaper and _tie(answers(index), answers(best)):
                indices.append(index)
        elif best < 0 or accuracy > points[best][1]:
            cheaper = points[best][1] if best >= 0 else cheaper
            best = index
            indices.append(index)
    return tuple(indices)


def _tie(one: Answers | None, other: Answers | None) -> bool:
    """Whether two artifacts tie; an artifact does not tie with itself."""
    if one is None or other is None or one.artifact_sha256 == other.artifact_sha256:
        return False
    difference = gain(one, other)
    return difference is not None and difference.tie


def answers(evaluation: Evaluation, samples: str) -> Answers:
    """Which images were classified correctly; `samples` is the sha256 of their names."""
    right = np.array([p.classes[:1] == (p.label,) for p in evaluation.predictions], np.bool_)
    bits = base64.b64encode(np.packbits(right).tobytes()).decode()
    return Answers(evaluation.artifact_sha256, samples, len(right), bits)


def gain(one: Answers, other: Answers, confidence: float = 0.95) -> Gain | None:
    """The gain of `one` over `other`; None if they were not evaluated on the same images.

    Each of its bounds holds with `confidence`.
    """
    # It brings scipy.stats, and a front alone needs none of it.
    from mobiledeploy.analysis import gate

    if one.samples != other.samples or one.images != other.images or not one.images:
        return None
    mine, theirs = _right(one), _right(other)
    losses, gains = int((theirs & ~mine).sum()), int((mine & ~theirs).sum())
    low, high = gate.bounds(losses, gains, one.images, confidence=confidence)
    return Gain((gains - losses) / one.images, -high, -low)


def beside(costs: Sequence[float]) -> tuple[int | None, ...]:
    """Along a front, in its order: the place of the point that each one is compared with.

    The first point of a cost is compared with the first of the cost before (None if there is none),
    the others of a cost with the first of it.
    """
    places: list[int | None] = []
    first: int | None = None
    for place, cost in enumerate(costs):
        places.append(first)
        if first is None or cost != costs[first]:
            first = place
    return tuple(places)


def gains(along: Sequence[Answers | None], costs: Sequence[float]) -> tuple[Gain | None, ...]:
    """Along a front, in its order: the gain of each point over the one `beside` it."""
    results: list[Gain | None] = []
    for now, other in zip(along, beside(costs), strict=True):
        before = None if other is None else along[other]
        results.append(None if now is None or before is None else gain(now, before))
    return tuple(results)


def _right(answers: Answers) -> NDArray[np.bool_]:
    bits = np.frombuffer(base64.b64decode(answers.right), np.uint8)
    return np.unpackbits(bits, count=answers.images).astype(np.bool_)
