"""The front of a search: what nothing else beats in both cost and accuracy."""

from __future__ import annotations

from collections.abc import Sequence


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
