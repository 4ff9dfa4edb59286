"""How well latencies of phones and boards are estimated: each published point by all others.

`python benchmarks/latency_model.py` prints, for every device card with points enough for a model,
the error of points left out one by one (RMSPE: root of the mean squared relative error), beside
that of latency in proportion to mult-adds; the same with whole families of networks left out,
where a device has three; and how many of the 95 % intervals hold the point that they were made
without. The last is the honest check of the intervals: each is made from the other points alone.

Bars: at most 6 % on the TFLite grids of Pixel 3 (float) and Pixel 1, 9 % on that of uint8.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mobiledeploy.analysis import latency_model as model
from mobiledeploy.core import device_cards
from mobiledeploy.steps import estimate
from mobiledeploy.steps.estimate import SeriesFit

OUT = Path("build", "benchmarks", "latency_model.json")
BARS = {
    ("pixel-3", "tflite", "none", "float32"): 0.06,
    ("pixel-3", "tflite", "none", "int8"): 0.09,
    ("pixel-1", "tflite", "none", "float32"): 0.06,
}


@dataclass(frozen=True)
class Row:
    """One series; errors are fractions, None where they cannot be had.

    `families` is of the points that would have been answered with their family left out; `refused`
    how many would not have been, and `refused_error` what they would have come to.
    """

    card: str
    series: str
    points: int
    borrowed: int
    left_out: float | None
    mult_adds: float | None
    families: float | None
    families_mult_adds: float | None
    refused: int
    refused_error: float | None
    covered: int | None
    bar: float | None
    met: bool


def row(choice: SeriesFit) -> Row:
    own, like = choice.own, choice.like
    families = {sample.workload.family for sample in own}
    several = len(own) >= estimate.FEWEST_ERRORS
    held = model.leave_one_out(own, like) if several else ()
    ruled = model.leave_one_out(own, like, by=model.rule) if several else ()
    wide = len(families) >= model.WIDE_FAMILIES
    by_family = model.leave_one_family_out(own, like) if wide else ()
    answered = [one for one in by_family if one.in_range]
    refused = [one for one in by_family if not one.in_range]
    same = {one.sample.network for one in answered}
    by_rule = [
        one
        for one in (model.leave_one_family_out(own, like, by=model.rule) if wide else ())
        if one.sample.network in same
    ]
    s = choice.series
    bar = BARS.get((choice.card.name, s.runtime, s.delegate, s.precision))
    error = model.rmspe(held) if held else None
    return Row(
        choice.card.name,
        choice.what,
        len(own),
        len(like),
        error,
        model.rmspe(ruled) if ruled else None,
        model.rmspe(answered) if answered else None,
        model.rmspe(by_rule) if by_rule else None,
        len(refused),
        model.rmspe(refused) if refused else None,
        covered(choice) if several else None,
        bar,
        bar is None or (error is not None and error <= bar),
    )


def covered(choice: SeriesFit) -> int:
    """How many points lie in the interval that was made without them."""
    inside = 0
    for index, sample in enumerate(choice.own):
        rest = [*choice.own[:index], *choice.own[index + 1 :]]
        expected = model.fit(rest, choice.like).latency_ns(sample.workload)
        errors = model.leave_one_out(rest, choice.like)
        low, high = model.interval_ns(expected, model.spread(errors), len(errors))
        inside += low <= sample.latency_ns <= high
    return inside


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def main() -> int:
    chosen = [c for card in device_cards.all_() for c in estimate.choices(card)]
    rows = [row(choice) for choice in chosen if choice.enough]
    table = Table(
        "card",
        "points of",
        "points",
        "like devices",
        "left out",
        "by mult-adds",
        "family left out",
        "by mult-adds",
        "refused, else",
        "in 95 %",
        "bar",
    )
    for one in rows:
        bar = "" if one.bar is None else f"<= {percent(one.bar)}: {'met' if one.met else 'MISSED'}"
        inside = "–" if one.covered is None else f"{one.covered} of {one.points}"
        table.add_row(
            one.card,
            one.series,
            str(one.points),
            str(one.borrowed),
            percent(one.left_out),
            percent(one.mult_adds),
            percent(one.families),
            percent(one.families_mult_adds),
            f"{one.refused}, {percent(one.refused_error)}" if one.refused else "–",
            inside,
            bar,
        )
    Console(width=170).print(table)
    known = [one for one in rows if one.covered is not None]
    inside, points = sum(one.covered or 0 for one in known), sum(one.points for one in known)
    print(f"{inside} of {points} points lie in the 95 % interval made without them")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(one) for one in rows], indent=1))
    return 0 if all(one.met for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
