"""How often the gate errs, counted exactly, beside Tango's, Wald's and a fixed threshold.

For every true state (images, share of answers that change between right and wrong, true loss) the
probability of each count of losses and gains is trinomial, and each count has its verdict: the sums
are the error rates, with no dice (what is left out has a probability below 1e-9). They depend on
the accuracy only in that it must leave room for the flips.

Where scores are not just right or wrong, and for metrics that are no mean over samples, the rates
are simulated, on the populations of _paired_populations.py. Writes
build/benchmarks/gate_statistics.json.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import _results
import numpy as np
from _paired_gate import PLAN, PairedCell, paired_cells, paired_missed
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from mobiledeploy.analysis import gate

Z = stats.norm.ppf(gate.CONFIDENCE)
SIZES = (200, 270, 400, 600, 1000, 2000, 5000, 10_000, 20_000, 50_000)
FLIPS = (0.005, 0.01, 0.02, 0.03, 0.06, 0.1)
ACCURACIES = (0.5, 0.7, 0.9, 0.95)
MARGIN = 0.01
# What a team without statistics writes: the loss that was seen, against half of the margin.
THRESHOLD = 0.005
GROSS = 0.03
WRONGLY_PASSED, WRONGLY_FAILED, GROSS_PASSED = 0.055, 0.05, 1e-6

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """Probabilities at one size and share of flips; None where the flips cannot hold the loss.

    `passed` is at a true loss of the margin, `failed` and `undecided` at none, `gross` is passing
    at 3 points. `covered` is of the 90 % interval, the least over true losses of 0, a half, one and
    three margins. `accuracies` are those of the grid that leave room for the flips.
    """

    images: int
    flips: float
    accuracies: tuple[float, ...]
    passed: float | None
    passed_tango: float | None
    passed_wald: float | None
    passed_threshold: float | None
    failed: float
    failed_threshold: float
    undecided: float
    gross: float | None
    covered: float
    covered_tango: float
    covered_wald: float


def states(n: int, flips: float, loss: float) -> tuple[Counts, Counts, Counts]:
    """Losses [B, 1], gains [1, C] and the probability [B, C] of both."""
    worse, better = (flips + loss) / 2, max((flips - loss) / 2, 0.0)
    b, c = (
        np.arange(stats.binom.ppf(1e-11, n, p), stats.binom.isf(1e-11, n, p) + 1)
        for p in (worse, better)
    )
    chance = stats.binom.pmf(b, n, worse)[:, None]
    chance = chance * stats.binom.pmf(c, n - b[:, None], better / (1 - worse))
    assert abs(chance.sum() - 1) < 1e-9
    return b[:, None], c[None, :], chance


def wald(b: Counts, c: Counts, n: int) -> tuple[Counts, Counts]:
    seen = (b - c) / n
    reach = Z * np.sqrt(np.maximum(b + c - (b - c) ** 2 / n, 0)) / n
    return seen - reach, seen + reach


def coverages(n: int, flips: float) -> tuple[float, float, float]:
    least = [1.0, 1.0, 1.0]
    for loss in (0.0, MARGIN / 2, MARGIN, GROSS):
        if loss > flips:
            continue
        b, c, chance = states(n, flips, loss)
        low, high = wald(b, c, n)
        inside = [
            (gate.tango(b, c, n, loss, half) >= -Z) & (gate.tango(b, c, n, loss, -half) <= Z)
            for half in (gate.CORRECTION, 0.0)
        ] + [(low <= loss) & (loss <= high)]
        least = [min(a, float(chance[i].sum())) for a, i in zip(least, inside, strict=True)]
    return least[0], least[1], least[2]


def cell(n: int, flips: float) -> Cell:
    none: dict[str, float | None] = dict.fromkeys(
        ("passed", "passed_tango", "passed_wald", "passed_threshold", "gross")
    )
    if flips >= MARGIN:
        b, c, chance = states(n, flips, MARGIN)
        none["passed"] = chance[gate.tango(b, c, n, MARGIN, gate.CORRECTION) < -Z].sum()
        none["passed_tango"] = chance[gate.tango(b, c, n, MARGIN) < -Z].sum()
        none["passed_wald"] = chance[wald(b, c, n)[1] < MARGIN].sum()
        none["passed_threshold"] = chance[(b - c) / n <= THRESHOLD].sum()
    if flips >= GROSS:
        b, c, chance = states(n, flips, GROSS)
        none["gross"] = chance[gate.tango(b, c, n, MARGIN, gate.CORRECTION) < -Z].sum()
    b, c, chance = states(n, flips, 0.0)
    failed = chance[gate.tango(b, c, n, MARGIN, -gate.CORRECTION) > Z].sum()
    passed = chance[gate.tango(b, c, n, MARGIN, gate.CORRECTION) < -Z].sum()
    covered = coverages(n, flips)
    return Cell(
        images=n,
        flips=flips,
        accuracies=tuple(a for a in ACCURACIES if flips / 2 <= min(a, 1 - a)),
        failed=float(failed),
        failed_threshold=float(chance[(b - c) / n > THRESHOLD].sum()),
        undecided=float(chance.sum() - failed - passed),
        covered=covered[0],
        covered_tango=covered[1],
        covered_wald=covered[2],
        **{key: None if value is None else float(value) for key, value in none.items()},
    )


def missed(cells: list[Cell]) -> Iterator[str]:
    """What is not as it should be."""
    for c in cells:
        where = f"{c.images} images, {100 * c.flips:g} % flips"
        if c.passed is not None and c.passed > WRONGLY_PASSED:
            yield f"{where}: a loss of the margin passes {c.passed:.4f}"
        if c.failed > WRONGLY_FAILED:
            yield f"{where}: no loss fails {c.failed:.4f}"
        if c.images >= 5000 and c.gross is not None and c.gross > GROSS_PASSED:
            yield f"{where}: a loss of three points passes {c.gross:.2g}"
        if c.covered < 2 * gate.CONFIDENCE - 1:
            yield f"{where}: the interval covers {c.covered:.4f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def exact_table(cells: list[Cell]) -> Table:
    table = Table(title=f"margin {100 * MARGIN:g} point; percent of checks")
    for head in (
        "images",
        "flips",
        "passed at the margin",
        "Tango's",
        "Wald's",
        "threshold's",
        "failed at no loss",
        "threshold's",
        "undecided at no loss",
        "3 points passed",
        "covered",
        "Tango's",
        "Wald's",
    ):
        table.add_column(head, justify="right")
    for c in cells:
        table.add_row(
            str(c.images),
            f"{100 * c.flips:g}",
            *(
                percent(value)
                for value in (
                    c.passed,
                    c.passed_tango,
                    c.passed_wald,
                    c.passed_threshold,
                    c.failed,
                    c.failed_threshold,
                    c.undecided,
                    c.gross,
                    c.covered,
                    c.covered_tango,
                    c.covered_wald,
                )
            ),
        )
    return table


def paired_table(cells: list[PairedCell]) -> Table:
    table = Table(title="means of scores and metrics over samples; percent of simulated checks")
    for head in ("metric", "population"):
        table.add_column(head)
    for head in (
        "images",
        "margin",
        "passed at the margin",
        "at most",
        "plain interval's",
        "with one added to mean and variance",
        "failed at no loss",
        "passed at no loss",
    ):
        table.add_column(head, justify="right")
    for c in cells:
        rates = (c.passed, c.limit, c.passed_plain, c.passed_added, c.failed, c.power)
        table.add_row(
            c.metric, c.population, str(c.images), f"{100 * c.margin:g}", *map(percent, rates)
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="leave larger sizes out")
    parser.add_argument(
        "--sets", type=int, default=1000, help="simulated data sets a cell; 0: none"
    )
    parser.add_argument("--out", type=Path, help="by default build/benchmarks/gate_statistics.json")
    arguments = parser.parse_args()
    grid = [p for p in itertools.product(SIZES, FLIPS) if p[0] <= arguments.largest]
    progress = Console(stderr=True)
    cells = [cell(n, flips) for n, flips in track(grid, "counting", console=progress)]
    simulated: list[PairedCell] = []
    if arguments.sets:
        count = sum(n <= arguments.largest for _, _, n, _ in PLAN)
        run = paired_cells(arguments.sets, arguments.largest)
        simulated = list(track(run, "simulating", count, console=progress))
        order = {key: place for place, key in enumerate(PLAN)}
        simulated.sort(key=lambda c: order[c.metric, c.population, c.images, c.margin])
    tables = [exact_table(cells), *([paired_table(simulated)] if simulated else [])]
    Console(width=max(160, Console().width)).print(*tables)
    wrong = [*missed(cells), *paired_missed(simulated)]
    record = {
        "cells": [asdict(c) for c in cells],
        "paired": [asdict(c) for c in simulated],
        "missed": wrong,
    }
    _results.write("gate_statistics", record, tables, arguments.out)
    for name, field in (
        ("the gate", "passed"),
        ("Tango's", "passed_tango"),
        ("Wald's", "passed_wald"),
    ):
        worst = max((getattr(c, field) or 0 for c in cells), default=0)
        print(f"at the margin, passed by {name}: {100 * worst:.2f} % at most")
    for name, field in (
        ("the bootstrap with a lost image", "passed"),
        ("a plain interval", "passed_plain"),
        ("one with a lost image in mean and variance", "passed_added"),
    ):
        if not simulated:
            continue
        worst = max(getattr(c, field) for c in simulated)
        print(f"simulated at the margin, passed by {name}: {100 * worst:.2f} % at most")
    print("\n".join(wrong) if wrong else "all bars met")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
