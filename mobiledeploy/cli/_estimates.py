"""How estimates are shown: never like a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mobiledeploy.cli import _frame
from mobiledeploy.core import units
from mobiledeploy.core.types import Estimated


def show(made: Mapping[Path, Estimated]) -> None:
    """The table of estimates, which says what they are in its first line."""
    first = next(iter(made.values()))
    _frame.table(
        ("file", "estimated", "95 % interval", "for", "threads", "points", "their error"),
        [
            (
                str(path),
                units.duration(m.latency_ns),
                " to ".join(units.duration(end) for end in m.interval_ns),
                f"{m.target.runtime} {m.fit.version or m.fit.year or ''}".strip(),
                str(m.target.threads),
                _points(m),
                f"{units.percent(m.fit.rmspe)}, {m.fit.held_out} left out",
            )
            for path, m in made.items()
        ],
        title=f"estimated, not measured: {first.target.device}, batch 1",
    )


def _points(estimated: Estimated) -> str:
    like = len(estimated.fit.borrowed)
    borrowed = f", borrowing from {like} like" if like else ""
    return f"{estimated.fit.points}{borrowed}"
