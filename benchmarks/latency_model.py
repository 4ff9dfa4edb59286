"""How well latencies of phones and boards are estimated: each published point by all others.

`python benchmarks/latency_model.py` leaves out each point of the device cards and predicts it by
nested cross-validation. The outer fold is a point: the model sees the other points of its series
and no other series of its card. All that is fitted (spreads, reach of the intervals) is fitted
inside of the fold, the spreads without the card. It prints for each series

- RMSPE (root of the mean squared relative error), beside that of mult-adds alone;
- the share of points within 10 %;
- how many points lie in the 95 % interval that was made without them;
- RMSPE with the whole family left out, on all series and in the counts of instructions;
- RMSPE without all that the same source published about other cards;
- how many of these predictions would be refused, because half of the interval is over 30 %.

Series of one point have no speed without it and are not judged. Then it prints sums by engine, the
coverage of all intervals with an interval that resamples cards, the refusals of all pairs of a card
and a published network, and networks of the XNNPACK README that are on no card. It takes about two
minutes, and writes build/benchmarks/latency_model.json.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

import _results
import numpy as np
from rich.console import Console
from rich.table import Table

from mobiledeploy.analysis import latency_model as model
from mobiledeploy.analysis.latency_model import LatencyModel, PointSeries, Sample
from mobiledeploy.core import device_cards
from mobiledeploy.core.device_cards import DeviceCard
from mobiledeploy.core.errors import DeployError
from mobiledeploy.steps import estimate, network_counts
from mobiledeploy.steps.estimate import SeriesFit

FEWEST = 3
"""Series of fewer points have no row of their own."""
WITHIN = 0.1
RESAMPLES = 10_000
SEED = 0

# The goals.
IN_FAMILY = 0.05
OTHER_FAMILY = 0.10
NEAR = 0.95
COVERED = 0.95
REFUSED = 0.15

README = "https://github.com/google/XNNPACK/blob/0085ae3628ee7dc042342df5a4e98ebdb55a806c/README.md"
UNSEEN = {
    ("pixel-1", 1): {"mobilenet_v2_1_224": 49, "mobilenet_v3_small_1_224": 12},
    ("pixel-2", 1): {"mobilenet_v2_1_224": 53, "mobilenet_v3_small_1_224": 14},
    ("pixel-3a", 1): {"mobilenet_v2_1_224": 55, "mobilenet_v3_small_1_224": 14},
    ("pixel-1", 2): {"mobilenet_v2_1_224": 26, "mobilenet_v3_small_1_224": 7},
    ("pixel-2", 4): {"mobilenet_v2_1_224": 18, "mobilenet_v3_small_1_224": 6},
    ("pixel-3a", 2): {"mobilenet_v2_1_224": 28, "mobilenet_v3_small_1_224": 8},
}
"""Milliseconds of float32 networks that are not on the cards (README, March 2020)."""


@dataclass(frozen=True)
class Judged:
    """A prediction of a point that was left out; latencies in nanoseconds."""

    card: str
    engine: str
    series: str
    network: str
    true_ns: float
    expected_ns: float
    low_ns: float
    high_ns: float
    by_mult_adds_ns: float | None
    in_family: bool

    @property
    def error(self) -> float:
        """Relative to the true latency."""
        return self.expected_ns / self.true_ns - 1

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds the true latency."""
        return self.low_ns <= self.true_ns <= self.high_ns

    @property
    def is_refused(self) -> bool:
        """Whether an estimate would be refused for its wide interval."""
        half = model.half_width(self.expected_ns, (self.low_ns, self.high_ns))
        return half > model.WIDEST


@dataclass(frozen=True)
class Figures:
    """What the errors of some points come to; fractions, None where there are no points."""

    points: int
    rmspe: float | None
    mult_adds: float | None
    within_10_percent: float | None
    inside: int
    refused: int
    answered_rmspe: float | None
    answered_within_10_percent: float | None


def rmspe(errors: Iterable[float]) -> float | None:
    squares = [error**2 for error in errors]
    return math.sqrt(sum(squares) / len(squares)) if squares else None


def within(errors: Sequence[float]) -> float | None:
    return sum(abs(error) <= WITHIN for error in errors) / len(errors) if errors else None


def figures(points: Sequence[Judged]) -> Figures:
    answered = [one.error for one in points if not one.is_refused]
    return Figures(
        len(points),
        rmspe(one.error for one in points),
        rmspe(
            one.by_mult_adds_ns / one.true_ns - 1
            for one in points
            if one.by_mult_adds_ns is not None
        ),
        within([one.error for one in points]),
        sum(one.is_inside for one in points),
        sum(one.is_refused for one in points),
        rmspe(answered),
        within(answered),
    )


def judged(
    choice: SeriesFit, like: Sequence[PointSeries], left_out: Collection[str]
) -> list[Judged]:
    """The points of a series in these networks, predicted from its others and from `like`.

    `left_out` are all points that are left out with each of them: itself at least.
    """
    own = choice.every[-1]
    rest = tuple(one for one in own.samples if one.network not in left_out)
    if not rest:
        return []
    every = (*like, dataclasses.replace(own, samples=rest))
    lent = tuple(like) if any(map(estimate.is_latency, like)) else every
    fit = LatencyModel(every, estimate.spreads_of(lent))
    reach = model.reach(estimate.comparable(every, fit.held_out()))
    mult_adds = sum(math.log(one.latency_ns / one.workload.mult_adds) for one in rest) / len(rest)
    families = {one.workload.family for one in rest}
    results = []
    for sample in own.samples:
        if sample.network in left_out:
            prediction = fit.predict(len(like), sample.workload)
            results.append(
                Judged(
                    choice.card.name,
                    estimate.engine_of(choice.series),
                    choice.what,
                    sample.network,
                    sample.latency_ns,
                    prediction.latency_ns,
                    *model.interval_ns(prediction, reach),
                    math.exp(mult_adds) * sample.workload.mult_adds,
                    sample.workload.family in families,
                )
            )
    return results


def points_left_out(choice: SeriesFit) -> list[Judged]:
    return [one for sample in choice.own for one in judged(choice, choice.like, {sample.network})]


def families_left_out(choice: SeriesFit) -> list[Judged]:
    results = []
    for family in sorted({sample.workload.family for sample in choice.own}):
        names = {one.network for one in choice.own if one.workload.family == family}
        like = [estimate.without_family(one, family) for one in choice.like]
        results += judged(choice, [one for one in like if one.samples], names)
    return results


def publications_left_out(choice: SeriesFit, cards: Sequence[DeviceCard]) -> list[Judged]:
    """As `points_left_out`, without what the sources of the series published on other cards."""
    titles = {choice.card.sources[point.source].title for point in choice.series.points}
    others = []
    for card in cards:
        series = [
            dataclasses.replace(
                one,
                points=tuple(p for p in one.points if card.sources[p.source].title not in titles),
            )
            for one in card.series
        ]
        kept = tuple(one for one in series if one.points)
        others.append(dataclasses.replace(card, series=kept))
    alone = estimate.choices(choice.card, others)[choice.card.series.index(choice.series)]
    return points_left_out(alone)


def coverage(points: Sequence[Judged]) -> tuple[float, float, float]:
    """The share of points in their intervals, and its own 95 % interval, cards resampled."""
    by_card: dict[str, list[bool]] = {}
    for one in points:
        by_card.setdefault(one.card, []).append(one.is_inside)
    inside = np.array([sum(one) for one in by_card.values()])
    count = np.array([len(one) for one in by_card.values()])
    dice = np.random.Generator(np.random.PCG64(SEED))
    drawn = dice.integers(0, len(count), (RESAMPLES, len(count)))
    shares = inside[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(inside.sum() / count.sum()), float(low), float(high)


@dataclass(frozen=True)
class Pairs:
    """The published networks that a card's usual series for a TFLite refuses, of `networks`."""

    card: str
    precision: str
    engine: str
    networks: int
    refused: int


def pairs(cards: Sequence[DeviceCard]) -> list[Pairs]:
    results = []
    networks = tuple(network_counts.load().values())
    for card in cards:
        for precision in sorted({series.precision for series in card.series}):
            try:
                choice = estimate.choose(card, precision, "tflite")
            except DeployError:
                results.append(Pairs(card.name, precision, "–", len(networks), len(networks)))
                continue
            # The fit depends on the family by this alone.
            fits = {
                family in choice.families: estimate.fitted(choice, family)
                for family in {
                    one.work.family in choice.families: one.work.family for one in networks
                }.values()
            }
            refused = 0
            for one in networks:
                try:
                    fits[one.work.family in choice.families].latency(one.work, one.network)
                except estimate.TooWide:
                    refused += 1
            engine = estimate.engine_of(choice.series)
            results.append(Pairs(card.name, precision, engine, len(networks), refused))
    return results


def unseen(cards: Sequence[DeviceCard]) -> list[Judged]:
    """Networks of the README that no card has, by the cards' series of the same benchmark."""
    workloads = {name: one.work for name, one in network_counts.load().items()}
    results = []
    for choice in (one for card in cards for one in estimate.choices(card, cards)):
        points = UNSEEN.get((choice.card.name, choice.series.threads), {})
        if choice.series.runtime != "xnnpack" or choice.series.year != 2020 or not points:
            continue
        samples = (Sample(name, workloads[name], ms * 1e6) for name, ms in points.items())
        wider = dataclasses.replace(choice, own=(*choice.own, *samples))
        results += judged(wider, wider.like, points)
    return results


def at_most(error: float | None, most: float) -> bool:
    return error is not None and error <= most


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def cells(one: Figures) -> tuple[str, ...]:
    return (
        str(one.points),
        percent(one.rmspe),
        percent(one.mult_adds),
        percent(one.within_10_percent),
        f"{one.inside} of {one.points}",
        f"{one.refused}, else {percent(one.answered_rmspe)}" if one.refused else "–",
    )


HEADERS = ("points", "left out", "by mult-adds", "within 10 %", "in 95 %", "refused")


def main() -> int:
    cards = device_cards.all_()
    chosen = [one for card in cards for one in estimate.choices(card, cards) if len(one.own) > 1]
    points: list[Judged] = []
    families: list[Judged] = []
    rows = []
    table = Table("card", "points of", *HEADERS, "family left out", "refused", "source left out")
    for choice in chosen:
        one, family = points_left_out(choice), families_left_out(choice)
        publication = publications_left_out(choice, cards)
        points += one
        families += family
        row = [figures(part) for part in (one, family, publication)]
        rows.append(
            {"card": choice.card.name, "series": choice.what}
            | dict(zip(("points", "families", "publications"), map(asdict, row), strict=True))
        )
        if len(choice.own) >= FEWEST:
            table.add_row(
                choice.card.name,
                choice.what,
                *cells(row[0]),
                percent(row[1].rmspe),
                str(row[1].refused),
                percent(row[2].rmspe),
            )
    console = Console(width=200)
    console.print(table)

    sums = Table("engine", "what is left out", *HEADERS)
    engines = dict.fromkeys(one.engine for one in points)
    by_engine = {}
    for engine in (*engines, ""):
        for name, part in (("a point", points), ("a family", families)):
            own = [one for one in part if engine in ("", one.engine)]
            by_engine[f"{engine or 'all'}, {name}"] = asdict(figures(own))
            if own:
                sums.add_row(engine or "all", name, *cells(figures(own)))
    console.print(sums)

    share, low, high = coverage(points)
    refusals = pairs(cards)
    refused, networks = sum(one.refused for one in refusals), sum(one.networks for one in refusals)
    by_pairs = Table("card", "precision", "engine", "networks", "refused")
    for pair in refusals:
        by_pairs.add_row(*map(str, asdict(pair).values()))
    console.print(by_pairs)
    readme = unseen(cards)
    in_family = figures([one for one in points if one.in_family])
    others = figures([one for one in points if not one.in_family])
    every = figures(points)
    goals = (
        (at_most(in_family.rmspe, IN_FAMILY), f"in family, RMSPE {percent(in_family.rmspe)}"),
        (at_most(others.rmspe, OTHER_FAMILY), f"another family, RMSPE {percent(others.rmspe)}"),
        (
            (every.within_10_percent or 0) >= NEAR,
            f"within 10 %: {percent(every.within_10_percent)} of the points",
        ),
        (
            low <= COVERED <= high,
            f"in their 95 % intervals: {percent(share)}, {percent(low)} to {percent(high)}",
        ),
        (refused <= REFUSED * networks, f"{refused} of {networks} pairs refused"),
    )
    by_goal = Table("goal", "bar")
    for is_met, goal in goals:
        by_goal.add_row(goal, "met" if is_met else "MISSED")
    console.print(by_goal)
    for name, part in (("in family", in_family), ("another family", others)):
        print(
            f"{name}, answered ones only: {percent(part.answered_rmspe)}, "
            f"{percent(part.answered_within_10_percent)} within 10 %"
        )
    seen = figures(readme)
    print(
        f"unseen networks of {README}: {percent(seen.rmspe)} (mult-adds {percent(seen.mult_adds)})"
        f", {percent(seen.within_10_percent)} within 10 %, {seen.inside} of {seen.points} in 95 %, "
        f"{seen.refused} refused"
    )
    record = {
        "series": rows,
        "sums": by_engine,
        "in_family": asdict(in_family),
        "another_family": asdict(others),
        "coverage": {"share": share, "low": low, "high": high},
        "pairs": [asdict(one) for one in refusals],
        "unseen": asdict(seen) | {"source": README},
    }
    _results.write("latency_model", rounded(record), [by_goal, sums, table, by_pairs])
    return 0


def rounded(value: object) -> object:
    """Numbers with four digits: the rest differs between machines."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.exit(main())
