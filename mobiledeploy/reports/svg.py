"""SVG: the fronts of accuracy against what each kind of figure costs, one below the other.

Accuracies on different images are different questions: each data set has its own plots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import vl_convert

from mobiledeploy.analysis import pareto
from mobiledeploy.core import metric_columns, units
from mobiledeploy.core.types import Answers, Report, Result
from mobiledeploy.reports import _plots

SUFFIX = ".svg"


def render(report: Report) -> str:
    """One image; of a report without accuracies a title that says so."""
    results_by_images: dict[str, list[Result]] = {}
    for r in report.results:
        if r.value is not None:
            images = units.one_line(metric_columns.judged_on(r))
            results_by_images.setdefault(images, []).append(r)
    answers = {a.artifact_sha256: a for a in report.answers}
    plots = [
        plot
        for name in sorted(results_by_images)
        for plot in _of_images(name, results_by_images[name], answers)
    ]
    if not plots:
        empty = {"mark": "text", "data": {"values": [{}]}, "width": 640, "height": 40}
        empty_plot = {"encoding": {"text": {"value": "No result has a metric to draw."}}}
        return (
            str(
                vl_convert.vegalite_to_svg(
                    empty | empty_plot | {"title": units.one_line(report.title)}
                )
            )
            + "\n"
        )
    spec: dict[str, Any] = {
        "$schema": plots[0]["$schema"],
        "title": units.one_line(report.title),
        "vconcat": plots,
        "background": "white",
        "datasets": {},
    }
    for plot in plots:
        spec["datasets"] |= plot.pop("datasets")
        for key in ("$schema", "autosize", "background", "config"):
            plot.pop(key)
    return str(vl_convert.vegalite_to_svg(spec)) + "\n"


def _of_images(
    name: str, results: list[Result], answers: Mapping[str, Answers]
) -> Iterator[dict[str, Any]]:
    """The plots of what was judged on the same images, by the same metric."""
    of = f", judged on {name}" if name else ""
    once = {r.artifact_sha256: r for r in reversed(results)}.values()
    plots = [
        (title, [(r, x, r.device) for r in results if r.kind == kind for x in [_cost(r)] if x])
        for kind, (_, title, _) in _plots.KINDS.items()
    ]
    plots += [
        (_plots.PLAIN["size"][0], [(r, (r.size_bytes or 0) / 1e6, "") for r in once]),
        (_plots.PLAIN["multadds"][0], [(r, (r.mult_adds or 0) / 1e6, "") for r in once]),
    ]
    for title, rows in plots:
        plot = _plot(f"{title}{of}", rows, answers)
        if plot:
            yield plot


def _mark(format_: str, device: str) -> str:
    return f"{format_}, {device.removeprefix('emulator:')}"


def _cost(r: Result) -> float | None:
    if r.kind == "counted":
        return None if r.instructions is None else r.instructions / 1e6
    return None if r.latency_ns is None else r.latency_ns / 1e6


def _plot(
    title: str, rows: list[tuple[Result, float, str]], answers: Mapping[str, Answers]
) -> dict[str, Any]:
    """The plot of (result, cost, device); {} where there is nothing to draw."""
    # A control character makes no XML, and vl-convert then ends the whole process.
    points: list[dict[str, Any]] = [
        {
            "sha": r.artifact_sha256,
            "model": units.one_line(units.network(r.model, r.weights, r.weights_sha256)),
            "recipe": units.one_line(r.recipe),
            "format": units.one_line(units.format_name(r.format, r.io)),
            "device": units.one_line(device),
            "x": x,
            "x_low": low / 1e6,
            "x_high": high / 1e6,
            "value": value,
            "value_low": value_low,
            "value_high": value_high,
        }
        for r, x, device in rows
        for value in [metric_columns.height(r)]
        if x and value is not None
        for low, high in [(device and r.latency_interval_ns) or (1e6 * x, 1e6 * x)]
        for value_low, value_high in [_plots.accuracy_interval(r) or (value, value)]
    ]
    if not points:
        return {}
    marks = sorted({(p["device"], p["format"]) for p in points})
    several = len({device for device, _ in marks}) > 1 and len(marks) <= _plots.MOST_SHAPES
    for p in points:
        p["mark"] = _mark(p["format"], p["device"]) if several else p["format"]
    metric = metric_columns.of(rows[0][0])
    sign = 1 if metric.higher_is_better else -1
    best, ties = [], []
    for device in sorted({p["device"] for p in points}):
        mine = [p for p in points if p["device"] == device]
        answers_ = [answers.get(p["sha"]) for p in mine]
        front = pareto.front([(p["x"], sign * p["value"]) for p in mine], answers_.__getitem__)
        along, costs = [mine[i] for i in front], [mine[i]["x"] for i in front]
        gains = pareto.gains([answers_[i] for i in front], costs)
        for point, gain, other in zip(along, gains, pareto.beside(costs), strict=True):
            if gain is None or other is None or not gain.tie:
                best.append(point)
            else:
                before = along[other]["value"]
                ends = {"low": before + 100 * gain.low, "high": before + 100 * gain.high}
                ties.append(point | ends)
    plot = _plots.front(title, metric_columns.axis(metric), width=640)
    names = {part: f"{part} of {title}" for part in ("points", "front", "ties")}
    # The first device has the shapes that the formats have elsewhere.
    shape = plot["layer"][-1]["encoding"]["shape"]
    if several:
        shape["legend"] |= _plots.SEVERAL_DEVICES
        shape["scale"] = {"domain": [_mark(format_, device) for device, format_ in marks]}
    for layer in plot["layer"]:
        layer["data"] = {"name": names[layer["data"]["name"]]}
    plot["datasets"] = {names["points"]: points, names["front"]: best, names["ties"]: ties}
    return plot
