"""Two ways of doing one thing, run in turns on the same machine, and the ratio of their times.

Machines are shared and noisy: only a ratio from interleaved runs says anything, and only with its
interval. Neighbouring runs see the same weather, so the ratio is the median of the paired ratios,
with its distribution-free 95 % interval (`mobiledeploy.analysis.stats`).

Errors of two tools on the same images are pairs too: their ratio is that of the means, with an
interval over the images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import _results
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import bootstrap

from mobiledeploy.analysis import stats
from mobiledeploy.core.errors import UsageError

RESAMPLES = 9999


@dataclass(frozen=True)
class Comparison:
    """Seconds of each run, and ours over theirs: median of pairs with its 95 % interval."""

    name: str
    ours: str
    theirs: str
    ours_s: tuple[float, ...]
    theirs_s: tuple[float, ...]
    ratio: float
    interval: tuple[float, float]
    bar: float
    met: bool


def compare(
    name: str,
    ours: tuple[str, Callable[[], float]],
    theirs: tuple[str, Callable[[], float]],
    *,
    bar: float,
    runs: int = 7,
    median: bool = False,
) -> Comparison:
    """Runs both in turns, each run returning its seconds; met when the interval reaches `bar`.

    With `median`, only the ratio itself meets it. The bar is on seconds of ours over theirs, and is
    met from above. UsageError for fewer runs than an interval needs.
    """
    if runs < stats.FEWEST:
        raise UsageError(f"{runs} runs have no 95 % interval", f"give {stats.FEWEST} or more")
    pairs = []
    for index in track(range(runs), description=name, console=Console(stderr=True)):
        order = (ours, theirs) if index % 2 == 0 else (theirs, ours)
        seconds = {label: run() for label, run in order}
        pairs.append((seconds[ours[0]], seconds[theirs[0]]))
    first, second = (tuple(column) for column in zip(*pairs, strict=True))
    ratio, low, high = stats.ratio_interval(first, second)
    met = (ratio if median else low) <= bar
    return Comparison(name, ours[0], theirs[0], first, second, ratio, (low, high), bar, met)


def report(comparisons: list[Comparison], path: Path) -> NoReturn:
    """A table on the terminal, and all of it as JSON at `path`; ends in 1 where a bar is missed.

    The stem of `path` is the name of the benchmark.
    """
    table = Table("what", "way", "median", "spread (min to max)", "ratio, 95 % interval", "bar")
    for c in comparisons:
        low, high = c.interval
        for label, seconds, ratio, bar in (
            (
                c.ours,
                c.ours_s,
                f"{c.ratio:.3f} ({low:.3f} to {high:.3f})",
                f"<= {c.bar:g}: {'met' if c.met else 'MISSED'}",
            ),
            (c.theirs, c.theirs_s, "1", ""),
        ):
            spread = f"{min(seconds):.2f} to {max(seconds):.2f} s"
            table.add_row(c.name, label, f"{np.median(seconds):.2f} s", spread, ratio, bar)
    Console(width=140).print(table)
    content = {"comparisons": [asdict(c) for c in comparisons]}
    _results.write(path.stem, content, [table], path)
    sys.exit(0 if all(c.met for c in comparisons) else 1)


def mean_ratio(
    ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> tuple[float, float, float]:
    """The ratio of the means of errors [N] of two tools on the same N images, and its limits.

    The limits are the ends of the 95 % interval by the paired bootstrap over the images (BCa, B.
    Efron 1987, Journal of the American Statistical Association 82:171).
    """

    def ratio(
        top: NDArray[np.float64], bottom: NDArray[np.float64], axis: int = -1
    ) -> NDArray[np.float64]:
        return np.asarray(top.mean(axis=axis) / bottom.mean(axis=axis))

    found = bootstrap(
        (ours, theirs),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=100,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(ratio(ours, theirs)), float(found.low), float(found.high)
