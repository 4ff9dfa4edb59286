"""Aligns the elements of two sequences."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator, Sequence


def pairs(a: Sequence[Hashable], b: Sequence[Hashable]) -> Iterator[tuple[int | None, int | None]]:
    """Places in A and in B, in their order; None if the other has no such element.

    What stands in the place of other elements is their change, one for one as far as both reach.
    """
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        together = min(i2 - i1, j2 - j1) if tag in ("equal", "replace") else 0
        yield from zip(range(i1, i1 + together), range(j1, j1 + together), strict=True)
        yield from ((i, None) for i in range(i1 + together, i2))
        yield from ((None, j) for j in range(j1 + together, j2))
