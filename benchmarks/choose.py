"""Whether `choose` names the best cell of an exported grid, against brute force; its CPU time.

    python benchmarks/choose.py [--folder FOLDER]

`mobiledeploy sweep` exports a grid of the built-in networks as TFLite, judges each file on the
1,000 built-in images, and times it on this host. Then `choose` is asked with many budgets of
latency, size and top-1, some of which no file meets and some of which are exactly the figure or the
interval of a file. Brute force over the rows of the store, file by file and pair by pair, says what
the answer must be:

- the file to take is one of the most accurate of those that are within the budget with their whole
  intervals; there is none exactly if no file is;
- a file is a contender exactly if, with intervals that hold for all files at once, it may be within
  the budget and no file that surely is within it is surely more accurate;
- each of the most accurate files by the figures alone is a contender, and is printed;
- the front has the points that no other file beats.

That says nothing of figures that are wrong by chance. So the rule is also tried on draws: half of
the images judge, and each latency is drawn from the interval of its timing; the truth is the
accuracy on all images, and the latency that was drawn. In each draw one of the truly best files
must be printed. `by_figures` is how often the best file by the figures alone is one of them: the
draws test the intervals only where it is not. Then the command is timed in the folder.

The grid takes about ten minutes of CPU time. With --folder it is kept, and a folder with a store is
taken as it is; only files without a timing are timed. Writes build/benchmarks/choose.json.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import _results
import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

import mobiledeploy
from mobiledeploy.analysis.choice import Bounded, ChoiceLimits
from mobiledeploy.cli.choose import MOST_ROWS
from mobiledeploy.core.types import Result
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import choose as verb
from mobiledeploy.verbs.choose import ChoiceGroup

DEVICE = "host"
RECIPES = ("float32", "float16", "dynamic_int8", "int8_ptq", "int8_best", "int8x4_ptq")
GRID: dict[str, Any] = {
    "alpha": (0.25, 0.5),
    "res": (32, 40, 48, 56, 64, 72),
    "recipe": RECIPES,
    "format": "tflite",
    "weights": "demo",
    "data": "demo",
    "device": DEVICE,
}
TIMED_RUNS = 20
FEWEST = 60
# The limits of the budgets, as quantiles of the figures of all files. A latency is that of a file,
# or with HIGH the end of its interval; SHORT is half of the shortest one.
HIGH, SHORT = "high", "short"
LATENCIES: tuple[float | tuple[str, float] | None, ...] = (
    *(None, 0.05, 0.1, 0.25, 0.5, 0.75, 1),
    *((HIGH, 0.1), (HIGH, 0.5), (SHORT, 0.0)),
)
SIZES = (None, 0.1, 0.3, 0.7)
TOP1S = (None, 0.3, 0.7, 1)
DRAWS = 1000
CONFIDENCE = 0.95
RUNS = 5


@dataclass(frozen=True)
class Cell:
    """A file of the store; `latency_ns` is None without a timing."""

    model: str
    recipe: str
    sha256: str
    accuracy: Bounded
    size_bytes: int
    latency_ns: Bounded | None


@dataclass(frozen=True)
class Asked:
    """One budget, and how the answer compares with brute force.

    `possible` is the number of files that may be within the budget. `best_is_right`,
    `contenders_are_right` and `front_is_right` are the module's rules; `all_contend` and
    `all_printed` say whether every one of the `truths` (the most accurate files by the figures
    alone) is a contender, and is among the rows that the command prints; `contenders_printed` says
    so of all contenders.
    """

    max_latency_ms: float | None
    max_size: int | None
    min_top1: float | None
    possible: int
    truths: int
    has_best: bool
    best_is_right: bool
    contenders_are_right: bool
    front_is_right: bool
    all_contend: bool
    all_printed: bool
    contenders: int
    contenders_printed: bool


def cells() -> list[Cell]:
    """The evaluated files of this folder's store, with the newest timing on this host."""
    with Store.open() as store:
        rows = [*store.results(newest=True), *store.unmeasured()]
    by_file: dict[str, list[Result]] = {}
    for row in rows:
        if row.value is not None:
            by_file.setdefault(row.artifact_sha256, []).append(row)
    results = []
    for sha256, own in by_file.items():
        assert own[0].value is not None
        assert own[0].size_bytes is not None
        right = round(own[0].value * own[0].images)
        # Not the interval of the code that is judged here.
        ends = stats.binomtest(right, own[0].images).proportion_ci(CONFIDENCE, "exact")
        timings = [r for r in own if r.kind == "measured" and r.device == DEVICE and r.threads == 1]
        latency = None
        if timings:
            value, interval = timings[0].latency_ns, timings[0].latency_interval_ns
            assert value is not None
            assert interval is not None
            latency = Bounded(value, *interval)
        accuracy = Bounded(own[0].value, float(ends.low), float(ends.high))
        results.append(
            Cell(own[0].model, own[0].recipe, sha256, accuracy, own[0].size_bytes, latency)
        )
    return results


def time_missing() -> None:
    """Times the files of the store that have no timing on this host."""
    answer = mobiledeploy.choose(device=DEVICE, max_latency=1.0, reporter=mobiledeploy.SILENT)
    files = [one.candidate for group in answer.groups for one in group.candidates]
    paths = [one.path for one in files if one.path and one.latency_ns is None]
    if paths:
        mobiledeploy.bench(paths, runs=TIMED_RUNS)


def within(
    one: Cell, latency_ns: float | None, size: int | None, top1: float | None, which: str
) -> bool:
    """Whether a file is within the limits by its figure, "surely" or "perhaps" by the intervals."""
    if latency_ns is not None:
        if one.latency_ns is None:
            return False
        if _end(one.latency_ns, which, worst="high") > latency_ns:
            return False
    if size is not None and one.size_bytes > size:
        return False
    return top1 is None or _end(one.accuracy, which, worst="low") >= top1


def _end(figure: Bounded, which: str, worst: str) -> float:
    low_is_wanted = (worst == "low") == (which == "surely")
    return {"figure": figure.value}.get(which, figure.low if low_is_wanted else figure.high)


def wide(one: Cell, count: int) -> Cell:
    """The file with intervals that hold for `count` files at once."""
    factor = stats.norm.isf((1 - CONFIDENCE) / 2 / count) / stats.norm.isf((1 - CONFIDENCE) / 2)
    a, t = one.accuracy, one.latency_ns
    low, high = a.value - factor * (a.value - a.low), a.value + factor * (a.high - a.value)
    accuracy = Bounded(a.value, max(0.0, low), min(1.0, high))
    if t is not None:
        ratios = (t.low / t.value) ** factor, (t.high / t.value) ** factor
        t = Bounded(t.value, *(t.value * ratio for ratio in ratios))
    return replace(one, accuracy=accuracy, latency_ns=t)


def ask(
    every: Sequence[Cell], latency: float | None, size: int | None, top1: float | None
) -> Asked:
    """Asks with one budget; `latency` in nanoseconds, `top1` a fraction."""
    ms = None if latency is None else latency / 1e6
    percent = None if top1 is None else 100 * top1
    # As the command has them, so that a limit which is exactly a figure stays so on both sides.
    latency = None if ms is None else ms * 1e6
    top1 = None if percent is None else percent / 100
    device = None if ms is None else DEVICE
    answer = mobiledeploy.choose(
        device=device,
        max_latency=ms,
        max_size=size,
        min_top1=percent,
        reporter=mobiledeploy.SILENT,
    )
    group = own_group(answer.groups, {one.sha256 for one in every})
    by_sha256 = {one.sha256: one for one in every}
    files = [ranked.candidate.artifact_sha256 for ranked in group.candidates]
    assert set(files) == set(by_sha256)
    limits = latency, size, top1
    most = most_accurate([c for c in every if within(c, *limits, "figure")])
    sure = most_accurate([c for c in every if within(c, *limits, "surely")])
    widened = [wide(one, len(every)) for one in every]
    surely = [c for c in widened if within(c, *limits, "surely")]
    may_be_best = {
        c.sha256
        for c in widened
        if within(c, *limits, "perhaps")
        and not any(other.accuracy.low > c.accuracy.high for other in surely)
    }
    contenders = {files[n] for n, one in enumerate(group.candidates) if one.contender}
    front = {files[n] for n, one in enumerate(group.candidates) if one.on_front}
    printed = {files[n] for n in group.shown(MOST_ROWS)}
    best = None if group.best is None else files[group.best]
    points = {c.sha256: point for c in every if (point := _point(c, latency is not None))}
    return Asked(
        ms,
        size,
        top1,
        sum(within(c, *limits, "perhaps") for c in every),
        len(most),
        best is not None,
        best in sure if sure else best is None,
        contenders == may_be_best,
        {points[one] for one in front} == unbeaten(set(points.values())),
        most <= contenders,
        most <= printed,
        len(contenders),
        contenders <= printed,
    )


def _point(one: Cell, by_latency: bool) -> tuple[float, float] | None:
    """The cost and the accuracy of a file; None without the cost."""
    if not by_latency:
        return one.size_bytes, one.accuracy.value
    return None if one.latency_ns is None else (one.latency_ns.value, one.accuracy.value)


def unbeaten(points: set[tuple[float, float]]) -> set[tuple[float, float]]:
    """The points that no other one beats in cost or accuracy without being worse in the other."""
    return {
        (cost, accuracy)
        for cost, accuracy in points
        if not any(c <= cost and a >= accuracy for c, a in points - {(cost, accuracy)})
    }


def own_group(groups: Sequence[ChoiceGroup], files: set[str]) -> ChoiceGroup:
    """The group of the files; published networks and trainings have others."""
    (group,) = (
        one for one in groups if {c.candidate.artifact_sha256 for c in one.candidates} <= files
    )
    return group


def most_accurate(those: Sequence[Cell]) -> set[str]:
    best = max((one.accuracy.value for one in those), default=math.nan)
    return {one.sha256 for one in those if one.accuracy.value == best}


def budgets(every: Sequence[Cell]) -> list[tuple[float | None, int | None, float | None]]:
    timings = [c.latency_ns for c in every if c.latency_ns]

    def latency(share: float | tuple[str, float] | None) -> float | None:
        if share is None:
            return None
        what, quantile = share if isinstance(share, tuple) else ("", share)
        values = [one.high if what == HIGH else one.value for one in timings]
        return _figure(values, quantile) / (2 if what == SHORT else 1)

    sizes = [None if q is None else int(_figure([c.size_bytes for c in every], q)) for q in SIZES]
    top1s = [None if q is None else _figure([c.accuracy.value for c in every], q) for q in TOP1S]
    limits = itertools.product(map(latency, LATENCIES), sizes, top1s)
    return [one for one in limits if any(one)]


def _figure(values: Sequence[float], quantile: float) -> float:
    """The quantile that is one of the values."""
    return float(np.quantile(values, quantile, method="nearest"))


@dataclass(frozen=True)
class Drawn:
    """The draws: how often a truly best file is printed, with the 95 % interval, or a contender.

    `by_figures` is how often the most accurate file by the figures alone is a truly best one.
    `contenders` and `printed_rows` are means.
    """

    draws: int
    printed: float
    interval: tuple[float, float]
    contender: float
    by_figures: float
    contenders: float
    printed_rows: float


def drawn(every: Sequence[Cell], right: NDArray[np.bool_], draws: int) -> Drawn:
    """The rule on draws; `right` [cells, images] is whether each answer is right.

    The limits are drawn too. Draws in which no file is within them in truth are drawn again.
    """
    dice = np.random.default_rng(0)
    answer = mobiledeploy.choose(device=DEVICE, max_latency=1.0, reporter=mobiledeploy.SILENT)
    group = own_group(answer.groups, {one.sha256 for one in every})
    candidates = {x.candidate.artifact_sha256: x.candidate for x in group.candidates}
    rows = [n for n, one in enumerate(every) if one.latency_ns is not None]
    right, own = right[rows], [every[n] for n in rows]
    timings = [c.latency_ns for c in own if c.latency_ns]
    place = {c.sha256: n for n, c in enumerate(own)}
    means = right.mean(axis=1)
    images = right.shape[1]
    half = images // 2
    ends = [_interval(k, half) for k in range(half + 1)]
    values = np.array([t.value for t in timings])
    # The interval of a median may reach farther to one side.
    z = stats.norm.ppf((1 + CONFIDENCE) / 2)
    below = np.log([t.value / t.low for t in timings]) / z
    above = np.log([t.high / t.value for t in timings]) / z
    printed, contend, by_figures, contenders, printed_rows = 0, 0, 0, [], []
    while len(contenders) < draws:
        dots = dice.standard_normal(len(own))
        truly = values * np.exp(np.where(dots < 0, below, above) * dots)
        limit = float(np.exp(dice.uniform(*np.log([truly.min(), truly.max()]))))
        size = int(dice.choice([one.size_bytes for one in own]))
        inside = [n for n, c in enumerate(own) if truly[n] <= limit and c.size_bytes <= size]
        if not inside:
            continue
        hits = right[:, dice.permutation(images)[:half]].sum(axis=1)
        judged = [
            replace(
                candidates[c.sha256],
                accuracy=replace(
                    candidates[c.sha256].accuracy,
                    value=int(k) / half,
                    low=ends[int(k)][0],
                    high=ends[int(k)][1],
                ),
            )
            for k, c in zip(hits, own, strict=True)
        ]
        ranked = verb._group("draws", judged, ChoiceLimits((limit, size, None)), DEVICE)
        best = {n for n in inside if means[n] == max(means[inside])}
        places = [place[one.candidate.artifact_sha256] for one in ranked.candidates]
        possible = {places[n] for n, one in enumerate(ranked.candidates) if one.contender}
        rows_ = {places[n] for n in ranked.shown(MOST_ROWS)}
        fast = [n for n, c in enumerate(own) if timings[n].value <= limit and c.size_bytes <= size]
        printed += bool(best & rows_)
        contend += bool(best & possible)
        by_figures += bool(fast) and max(fast, key=lambda n: hits[n]) in best
        contenders.append(len(possible))
        printed_rows.append(len(rows_))
    share = stats.binomtest(printed, draws).proportion_ci(method="exact")
    return Drawn(
        draws,
        printed / draws,
        (float(share.low), float(share.high)),
        contend / draws,
        by_figures / draws,
        float(np.mean(contenders)),
        float(np.mean(printed_rows)),
    )


def _interval(hits: int, images: int) -> tuple[float, float]:
    ends = stats.binomtest(hits, images).proportion_ci(CONFIDENCE, "exact")
    return float(ends.low), float(ends.high)


def answers(every: Sequence[Cell]) -> NDArray[np.bool_]:
    """[cells, images] whether the answer of each file to each image is right."""
    rows = []
    with Store.open() as store:
        for one in every:
            evaluation = store.evaluation_of(one.sha256)
            assert evaluation is not None
            rows.append([p.classes[0] == p.label for p in evaluation.predictions])
    return np.array(rows)


@dataclass(frozen=True)
class Timed:
    """Seconds of the whole command; `cpu_s` is user and system time."""

    command: str
    cpu_s: tuple[float, ...]
    elapsed_s: tuple[float, ...]


def timed(*arguments: str) -> Timed:
    cpu, elapsed = [], []
    for _ in range(RUNS):
        before, start = os.times(), time.perf_counter()
        argv = [sys.executable, "-P", "-m", "mobiledeploy", "choose", *arguments, "--json"]
        done = subprocess.run(argv, capture_output=True, check=False)
        after = os.times()
        # 3 is no error: nothing is surely within the budget.
        assert done.returncode in (0, 3), done.stderr.decode()
        assert json.loads(done.stdout)["record"] == "ChoiceResult"
        cpu.append(
            round(
                sum(after[2:4]) - sum(before[2:4]),
                2,
            )
        )
        elapsed.append(round(time.perf_counter() - start, 2))
    return Timed(" ".join(("mobiledeploy choose", *arguments)), tuple(cpu), tuple(elapsed))


def judged(folder: Path, console: Console) -> tuple[dict[str, Any], list[Table], bool]:
    os.chdir(folder)
    if not (folder / ".mobiledeploy").exists():
        mobiledeploy.sweep(**GRID)
    # Such as files of a grid that was interrupted.
    time_missing()
    every = cells()
    assert len(every) >= FEWEST, len(every)
    asked = [ask(every, *budget) for budget in budgets(every)]
    draws = drawn(every, answers(every), DRAWS)
    times = [
        timed("--device", DEVICE, "--max-latency", "1ms"),
        timed("--device", "pixel-6", "--max-latency", "1ms"),
        timed("--device", "raspberry-pi-5", "--max-latency", "30ms"),
        timed("--max-size", "500kB"),
    ]
    n = len(asked)
    table = Table("what", "figure", "goal")
    for name, kept in (
        ("the file to take is that of brute force", sum(a.best_is_right for a in asked)),
        ("the contenders are those of brute force", sum(a.contenders_are_right for a in asked)),
        ("the front is that of brute force", sum(a.front_is_right for a in asked)),
        ("the most accurate files are contenders", sum(a.all_contend for a in asked)),
        ("and are printed", sum(a.all_printed for a in asked)),
    ):
        table.add_row(f"{name}, of {n} budgets", str(kept), str(n))
    for name, kept in (
        ("budgets with a file to take", sum(a.has_best for a in asked)),
        ("budgets that no file can meet", sum(not a.possible for a in asked)),
    ):
        table.add_row(name, str(kept), "–")
    low, high = draws.interval
    for name, figure, goal in (
        (
            f"a best file is printed, of {draws.draws:,} draws",
            f"{draws.printed:.1%} ({low:.1%} to {high:.1%})",
            f"{CONFIDENCE:.0%}",
        ),
        ("a best file is a contender", f"{draws.contender:.1%}", f"{CONFIDENCE:.0%}"),
        ("the best file by the figures alone is a best one", f"{draws.by_figures:.1%}", "–"),
        (
            f"rows printed in a draw, of {len(every)} files: mean",
            f"{draws.printed_rows:.1f}",
            "–",
        ),
    ):
        table.add_row(name, figure, goal)
    seconds = Table("command", "CPU time, median", "goal")
    for one in times:
        seconds.add_row(one.command, f"{np.median(one.cpu_s):.2f} s", "2 s")
    for one in (table, seconds):
        console.print(one)
    met = all(
        a.best_is_right
        and a.contenders_are_right
        and a.front_is_right
        and a.all_contend
        and a.all_printed
        for a in asked
    )
    met = met and min(draws.printed, draws.contender) >= CONFIDENCE
    met = met and all(np.median(one.cpu_s) <= 2 for one in times)
    result = {
        "cells": sorted(f"{one.model} {one.recipe}" for one in every),
        "with_latency": sum(one.latency_ns is not None for one in every),
        "asked": [*map(asdict, asked)],
        "drawn": asdict(draws),
        "timed": [*map(asdict, times)],
    }
    return result, [table, seconds], met


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path | None) -> None:
    console = Console(width=110)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        place = (folder or Path(scratch)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        try:
            result, tables, met = judged(place, console)
        finally:
            os.chdir(before)
    _results.write("choose", result, tables)
    if not met:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
