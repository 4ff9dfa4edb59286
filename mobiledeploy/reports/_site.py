"""What the pages of a site show besides the page's content: a leaderboard, and accepted files."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mobiledeploy.analysis import pareto
from mobiledeploy.core import metric_columns, units
from mobiledeploy.core.types import AcceptedDifference, Answers, Report, Result
from mobiledeploy.reports import _page, _plots

MOST_ROWS = 50
"""Of the leaderboard of one data set."""
MOST_COSTS = 3
"""So many kinds of figure have a column of the leaderboard, those of most files."""
_LONGEST_STEM = 60


@dataclass(frozen=True)
class LeaderRow:
    """A place of a leaderboard.

    `rank` is that of the leader where the images do not tell the two apart. `bar` is where the
    value and its interval are, in percent of the width. `costs` holds a figure and its interval for
    each column of costs.
    """

    rank: int
    tie: str
    name: str
    href: str
    value: str
    interval: str
    bar: tuple[float, float, float] | None
    size: str
    costs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Leaderboard:
    """The files that were judged on the same images by the same metric, the best first."""

    heading: str
    metric: str
    costs: tuple[str, ...]
    rows: tuple[LeaderRow, ...]
    files: int


@dataclass(frozen=True)
class AcceptedRow:
    """The newest file beside the accepted one."""

    name: str
    same: bool
    facts: tuple[tuple[str, str, str, str], ...]
    layers: dict[str, Any] | None


def page_of(model: str) -> str:
    """The path of a model's page: letters and digits of its name, and a hash that tells two apart.

    '' for a file without a model.
    """
    if not model:
        return ""
    stem = re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")[:_LONGEST_STEM] or "model"
    digest = hashlib.sha256(units.whole(model).encode()).hexdigest()[:8]
    return f"models/{stem}-{digest}.html"


def index(report: Report) -> dict[str, Any]:
    """The variables of index.html."""
    # The pages of the models have the details of their files.
    context = _page.context(dataclasses.replace(report, details=(), cold_starts=()))
    models = sorted({_network(r) for r in report.results} - {""})
    pages = {units.one_line(m): page_of(m) for m in models}
    return context | {
        "root": "",
        "data": context["data"] | {"pages": pages},
        "models": [(m, page_of(m)) for m in models],
        "boards": leaderboards(report),
    }


def models(
    report: Report, accepted: Sequence[AcceptedDifference]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, the variables of model.html) for each model."""
    by_model: dict[str, list[Result]] = {}
    for r in report.results:
        by_model.setdefault(_network(r), []).append(r)
    for model, results in by_model.items():
        if not model:
            continue
        hashes = {r.artifact_sha256 for r in results}
        part = Report(
            model,
            results=tuple(results),
            details=tuple(d for d in report.details if d.artifact_sha256 in hashes),
            verdicts=tuple(v for v in report.verdicts if v.artifact_sha256 in hashes),
            answers=tuple(a for a in report.answers if a.artifact_sha256 in hashes),
            cold_starts=tuple(
                c for c in report.cold_starts if c.cold_start.artifact_sha256 in hashes
            ),
        )
        context = _page.context(part)
        yield (
            page_of(model),
            context
            | _without_name(context, model)
            | {
                "root": "../",
                "data": context["data"] | {"titled": True},
                "site": report.title,
                "accepted": [_accepted(a) for a in accepted if a.model == model],
            },
        )


def _without_name(context: dict[str, Any], model: str) -> dict[str, Any]:
    """What names files on a model's page, without the model, which is the page's title."""
    own = f"{model} "
    judgements = [
        dataclasses.replace(one, artifact=one.artifact.removeprefix(own))
        for one in context["judgements"]
    ]
    cold = context["cold"]
    if cold:
        rows = [row | {"name": row["name"].removeprefix(own)} for row in cold["rows"]]
        cold = cold | {"rows": rows}
    details = [one | {"name": one["name"].removeprefix(own)} for one in context["details"]]
    return {"judgements": judgements, "cold": cold, "details": details}


def _network(r: Result) -> str:
    return units.network(r.model, r.weights, r.weights_sha256)


def leaderboards(report: Report) -> list[Leaderboard]:
    """One for each data set and metric, that of most files first."""
    by_set: dict[str, dict[str, list[Result]]] = {}
    for r in report.results:
        if r.value is not None:
            files = by_set.setdefault(metric_columns.judged_on(r), {})
            files.setdefault(r.artifact_sha256, []).append(r)
    answers = {a.artifact_sha256: a for a in report.answers}
    names = _page.names(report.results)
    ordered = sorted(by_set.items(), key=lambda item: -len(item[1]))
    return [_leaderboard(name, files, answers, names) for name, files in ordered]


def _leaderboard(
    heading: str,
    files: dict[str, list[Result]],
    answers: dict[str, Answers],
    names: dict[str, str],
) -> Leaderboard:
    metric = metric_columns.of(next(iter(files.values()))[0])
    sign = 1 if metric.higher_is_better else -1
    best = sorted(files.values(), key=lambda rows: -sign * (rows[0].value or 0))[:MOST_ROWS]
    targets = Counter({(r.kind, r.device) for rows in best for r in rows if r.kind})
    for rows in best:
        targets.update({(r.kind, r.device) for r in rows if r.kind})
    columns = [target for target, _ in targets.most_common(MOST_COSTS)]
    values = [rows[0].value or 0.0 for rows in best]
    intervals = [_plots.accuracy_interval(rows[0]) for rows in best]
    ends = [end for interval in intervals if interval for end in interval]
    leader, rank = best[0][0], 1
    rows_: list[LeaderRow] = []
    for place, (rows, interval) in enumerate(zip(best, intervals, strict=True), 1):
        r = rows[0]
        tie = "" if place == 1 else _tie(r, leader, answers)
        if place > 1 and not tie:
            leader, rank = r, place
        rows_.append(
            LeaderRow(
                rank,
                tie,
                names[r.artifact_sha256],
                page_of(_network(r)),
                units.metric(r.value, metric.unit),
                "–" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f} %",
                _bar(100 * values[place - 1], interval, ends),
                "–" if r.size_bytes is None else units.size(r.size_bytes),
                tuple(_cost(rows, target) for target in columns),
            )
        )
    titles = tuple(f"{kind} on {device}" for kind, device in columns)
    return Leaderboard(heading, metric.title, titles, tuple(rows_), len(files))


def _tie(one: Result, leader: Result, answers: dict[str, Answers]) -> str:
    """Why `one` has the place of the leader; "" if it has not."""
    mine, theirs = answers.get(one.artifact_sha256), answers.get(leader.artifact_sha256)
    gain = pareto.gain(mine, theirs) if mine and theirs else None
    if gain is None:
        return "the same figure" if one.value == leader.value else ""
    return units.gain(gain.value, gain.low, gain.high, gain.tie) if gain.tie else ""


def _bar(
    value: float, interval: tuple[float, float] | None, ends: Sequence[float]
) -> tuple[float, float, float] | None:
    """Low end, value and high end of an interval between the outermost of all."""
    if interval is None:
        return None
    least, most = min(ends), max(ends)
    low, middle, high = (
        100 * (x - least) / ((most - least) or 1) for x in (interval[0], value, interval[1])
    )
    return low, middle, high


def _cost(rows: Sequence[Result], target: tuple[str, str]) -> tuple[str, str]:
    """The newest figure of a file on a target, and its interval."""
    r = next((r for r in rows if (r.kind, r.device) == target), None)
    if r is not None and r.instructions is not None:
        return f"{r.instructions / 1e6:.4g} M instructions", ""
    if r is None or r.latency_ns is None:
        return "–", ""
    if r.latency_interval_ns is None:
        return units.duration(r.latency_ns), ""
    value, low, high = units.durations((r.latency_ns, *r.latency_interval_ns))
    return value, f"{low.partition(' ')[0]} to {high}"


def _accepted(a: AcceptedDifference) -> AcceptedRow:
    facts = [
        ("file", a.artifact_sha256[:12], a.accepted_sha256[:12], ""),
        (
            "size",
            "–" if a.size_bytes is None else units.size(a.size_bytes),
            "–" if a.accepted_size_bytes is None else units.size(a.accepted_size_bytes),
            _ratio(a.size_bytes, a.accepted_size_bytes),
        ),
        (
            a.metric.title,
            units.metric(a.value, a.metric.unit, 2),
            units.metric(a.accepted_value, a.metric.unit, 2),
            "–" if a.gain is None else units.gain(**dataclasses.asdict(a.gain), tie=a.gain.tie),
        ),
    ]
    layers = None
    if a.layers is not None:
        rows = [[_page.short_layer(row[0]), *row[1:]] for row in a.layers.rows]
        layers = {"headers": a.layers.headers, "rows": rows}
    same = a.artifact_sha256 == a.accepted_sha256
    return AcceptedRow(f"{a.recipe}.{a.format}", same, tuple(facts), layers)


def _ratio(now: int | None, before: int | None) -> str:
    return "–" if now is None or not before else f"{100 * (now / before - 1):+.1f} %"
