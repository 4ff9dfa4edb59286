"""Whether `choose` names the best cell of an exported grid, against brute force; its CPU time.

    python benchmarks/choose.py [--folder FOLDER]

`mobiledeploy sweep` exports a grid of the built-in networks as TFLite, judges each file on the
1,000 built-in images, and estimates its latency on a phone from the device card. Then `choose` is
asked with many budgets of latency, size and top-1, and brute force over the rows of the store says
what the answer must be:

- the file to take is one of the most accurate of those that are within the budget with their whole
  intervals; there is none exactly if no file is;
- each of the most accurate files by the figures alone is a contender, and is printed.

That says nothing of figures that are wrong by chance. So the rule is also tried on draws: half of
the images judge, and each latency is drawn from the interval of its estimate; the truth is the
accuracy on all images, and the latency that was drawn. Then the command is timed in the folder.

The card refuses most of these small networks, so few files have a latency: the result says how many
(`with_latency`). The grid takes about ten minutes of CPU time. With --folder it is kept, and a
folder with a store is taken as it is. Writes build/benchmarks/choose.json.
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
from dataclasses import asdict, dataclass
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
from mobiledeploy.analysis import choice
from mobiledeploy.analysis.choice import Bounded, ChoiceLimits, ChoiceOption
from mobiledeploy.core.types import Result
from mobiledeploy.store.database import Store
from mobiledeploy.verbs.choose import ChoiceGroup

DEVICE = "pixel-6"
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
FEWEST = 60
# The limits of the budgets, as quantiles of the figures of all files.
LATENCIES = (None, 0.1, 0.35, 0.6, 0.9)
SIZES = (None, 0.3, 0.7)
TOP1S = (None, 0.3, 0.7)
DRAWS = 2000
CONFIDENCE = 0.95
RUNS = 3
MOST_ROWS = 15
"""So many does the command print."""


@dataclass(frozen=True)
class Cell:
    """A file of the store; `latency_ns` is None for a recipe that no card estimates."""

    model: str
    recipe: str
    sha256: str
    accuracy: Bounded
    size_bytes: int
    latency_ns: Bounded | None


@dataclass(frozen=True)
class Asked:
    """One budget, and how the answer compares with brute force.

    `best_is_right` is as in the module's first rule, `all_contend` and `all_printed` say whether
    every one of the `truths` (the most accurate files by the figures alone) is a contender, and is
    among the rows that the command prints.
    """

    max_latency_ms: float | None
    max_size: int | None
    min_top1: float | None
    truths: int
    has_best: bool
    best_is_right: bool
    all_contend: bool
    all_printed: bool
    contenders: int


def cells() -> list[Cell]:
    """The evaluated files of this folder's store, with the newest estimate for the phone."""
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
        estimates = [r for r in own if r.kind == "estimated" and r.device == DEVICE]
        latency = None
        if estimates:
            value, interval = estimates[0].latency_ns, estimates[0].latency_interval_ns
            assert value is not None
            assert interval is not None
            latency = Bounded(value, *interval)
        accuracy = Bounded(own[0].value, float(ends.low), float(ends.high))
        results.append(
            Cell(own[0].model, own[0].recipe, sha256, accuracy, own[0].size_bytes, latency)
        )
    return results


def within(
    one: Cell, latency_ns: float | None, size: int | None, top1: float | None, *, surely: bool
) -> bool:
    """Whether a file is within the limits: by its figures, or `surely` by its whole intervals."""
    if latency_ns is not None:
        if one.latency_ns is None:
            return False
        if (one.latency_ns.high if surely else one.latency_ns.value) > latency_ns:
            return False
    if size is not None and one.size_bytes > size:
        return False
    return top1 is None or (one.accuracy.low if surely else one.accuracy.value) >= top1


def ask(
    every: Sequence[Cell], latency: float | None, size: int | None, top1: float | None
) -> Asked:
    """Asks with one budget; `latency` in nanoseconds, `top1` a fraction."""
    answer = mobiledeploy.choose(
        device=None if latency is None else DEVICE,
        max_latency=None if latency is None else latency / 1e6,
        max_size=size,
        min_top1=None if top1 is None else 100 * top1,
        reporter=mobiledeploy.SILENT,
    )
    group = own_group(answer.groups, {one.sha256 for one in every})
    by_sha256 = {one.sha256: one for one in every}
    files = [ranked.candidate.artifact_sha256 for ranked in group.candidates]
    assert set(files) == set(by_sha256)
    most = most_accurate([c for c in every if within(c, latency, size, top1, surely=False)])
    sure = most_accurate([c for c in every if within(c, latency, size, top1, surely=True)])
    contenders = {files[n] for n, one in enumerate(group.candidates) if one.contender}
    printed = {files[n] for n in group.shown(MOST_ROWS)}
    best = None if group.best is None else files[group.best]
    return Asked(
        None if latency is None else latency / 1e6,
        size,
        top1,
        len(most),
        best is not None,
        best in sure if sure else best is None,
        most <= contenders,
        most <= printed,
        len(contenders),
    )


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
    def limits(values: Sequence[float], shares: Sequence[float | None]) -> list[float | None]:
        return [None if q is None else float(np.quantile(values, q)) for q in shares]

    latencies = limits([c.latency_ns.value for c in every if c.latency_ns], LATENCIES)
    sizes = [None if s is None else round(s) for s in limits([c.size_bytes for c in every], SIZES)]
    top1s = limits([c.accuracy.value for c in every], TOP1S)
    return [one for one in itertools.product(latencies, sizes, top1s) if any(one)]


@dataclass(frozen=True)
class Drawn:
    """The draws: the share in which a most accurate file is a contender, and its 95 % interval."""

    draws: int
    share: float
    interval: tuple[float, float]
    contenders: float


def drawn(every: Sequence[Cell], right: NDArray[np.bool_], draws: int) -> Drawn:
    """The rule on draws; `right` [cells, images] is whether each answer is right.

    The limits are drawn too. Draws in which no file is within them in truth are drawn again.
    """
    dice = np.random.default_rng(0)
    timed = [n for n, one in enumerate(every) if one.latency_ns is not None]
    own = [every[n] for n in timed]
    right = right[timed]
    means = right.mean(axis=1)
    images = right.shape[1]
    half = images // 2
    ends = [_interval(k, half) for k in range(half + 1)]
    estimates = np.array([[c.latency_ns.value, c.latency_ns.high] for c in own if c.latency_ns])
    spreads = np.log(estimates[:, 1] / estimates[:, 0]) / stats.norm.ppf((1 + CONFIDENCE) / 2)
    kept, count = 0, []
    while len(count) < draws:
        truly = estimates[:, 0] * np.exp(spreads * dice.standard_normal(len(own)))
        limit = float(np.exp(dice.uniform(*np.log([truly.min(), truly.max()]))))
        size = float(dice.choice([one.size_bytes for one in own]))
        inside = [n for n, c in enumerate(own) if truly[n] <= limit and c.size_bytes <= size]
        if not inside:
            continue
        part = dice.permutation(images)[:half]
        hits = right[:, part].sum(axis=1)
        options = [
            ChoiceOption(
                Bounded(int(k) / half, *ends[int(k)]),
                (c.latency_ns, Bounded(*(float(c.size_bytes),) * 3)),
            )
            for k, c in zip(hits, own, strict=True)
        ]
        contenders = choice.contenders(options, ChoiceLimits((limit, size)))
        best = max(means[n] for n in inside)
        kept += any(n in contenders for n in inside if means[n] == best)
        count.append(len(contenders))
    share = stats.binomtest(kept, draws).proportion_ci(method="exact")
    return Drawn(draws, kept / draws, (float(share.low), float(share.high)), float(np.mean(count)))


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
    # It estimates what has no estimate yet, such as files of a grid that was interrupted.
    mobiledeploy.choose(device=DEVICE, max_latency=1.0, reporter=mobiledeploy.SILENT)
    every = cells()
    assert len(every) >= FEWEST, len(every)
    asked = [ask(every, *budget) for budget in budgets(every)]
    draws = drawn(every, answers(every), DRAWS)
    times = [
        timed("--device", DEVICE, "--max-latency", "1ms"),
        timed("--device", "raspberry-pi-5", "--max-latency", "30ms"),
        timed("--max-size", "500kB"),
    ]
    n = len(asked)
    table = Table("what", "figure", "goal")
    for name, kept in (
        ("the file to take is that of brute force", sum(a.best_is_right for a in asked)),
        ("each most accurate file is a contender", sum(a.all_contend for a in asked)),
        (f"each is among the {MOST_ROWS} rows printed", sum(a.all_printed for a in asked)),
    ):
        table.add_row(f"{name}, of {n} budgets", str(kept), str(n))
    table.add_row("budgets with a file to take", str(sum(a.has_best for a in asked)), "–")
    low, high = draws.interval
    table.add_row(
        f"draws with the best file a contender, of {draws.draws:,}",
        f"{draws.share:.1%} ({low:.1%} to {high:.1%})",
        f"{CONFIDENCE:.0%}",
    )
    seconds = Table("command", "CPU time, median", "goal")
    for one in times:
        seconds.add_row(one.command, f"{np.median(one.cpu_s):.2f} s", "2 s")
    for one in (table, seconds):
        console.print(one)
    met = all(a.best_is_right and a.all_contend for a in asked) and draws.share >= CONFIDENCE
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
