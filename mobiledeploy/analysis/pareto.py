"""The front of a search: what nothing else beats in both cost and accuracy."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.analysis import gate
from mobiledeploy.core.types import Answers, Evaluation, Gain


def front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Indices of the points (cost, accuracy) that no other point dominates, cheapest first.

    A point dominates another where it costs no more and is no less accurate, and is better in one
    of the two. Of equal points the first stands.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    kept: list[int] = []
    for index in order:
        if not kept or points[index][1] > points[kept[-1]][1]:
            kept.append(index)
    return tuple(kept)


def answers(evaluation: Evaluation, samples: str) -> Answers:
    """Which images were named rightly; `samples` is the sha256 over their names."""
    right = np.array([p.classes[:1] == (p.label,) for p in evaluation.predictions], np.bool_)
    packed = base64.b64encode(np.packbits(right).tobytes()).decode()
    return Answers(evaluation.artifact_sha256, samples, len(right), packed)


def gain(one: Answers, other: Answers) -> Gain | None:
    """By how much `one` is better than `other`; None where they were not judged on the same."""
    if one.samples != other.samples or one.images != other.images or not one.images:
        return None
    mine, theirs = _right(one), _right(other)
    losses, gains = int((theirs & ~mine).sum()), int((mine & ~theirs).sum())
    low, high = gate.bounds(losses, gains, one.images)
    return Gain((gains - losses) / one.images, -high, -low)


def gains(along: Sequence[Answers | None]) -> tuple[Gain | None, ...]:
    """Along a front, cheapest first: the gain of each point over the one before it."""
    found: list[Gain | None] = [None] * len(along)
    for place, (before, now) in enumerate(itertools.pairwise(along), 1):
        if before is not None and now is not None:
            found[place] = gain(now, before)
    return tuple(found)


def _right(answers: Answers) -> NDArray[np.bool_]:
    packed = np.frombuffer(base64.b64decode(answers.right), np.uint8)
    return np.unpackbits(packed, count=answers.images).astype(np.bool_)
