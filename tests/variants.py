"""Matrices of which some variants run always, and all of them in `make test-slow`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def slow_but(values: Iterable[object], *quick: object) -> list[object]:
    """The values for `parametrize`: all are slow but those that are `quick`.

    Raises:
        ValueError: one that is to be quick is none of them.
    """
    known = list(values)
    if missing := [value for value in quick if value not in known]:
        message = f"not among the variants: {missing}"
        raise ValueError(message)
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in known]
