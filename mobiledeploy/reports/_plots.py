"""The plots as Vega-Lite: what the page draws in the browser, and what becomes SVG without one.

A plot is of one kind of figure. Accuracy stands on the vertical axis, what it costs on the
horizontal one, as in the MobileNet papers.
"""

from __future__ import annotations

import functools
from typing import Any

from mobiledeploy.analysis import choice
from mobiledeploy.core import metric_columns
from mobiledeploy.core.types import CardCalibration, Result

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_CONFIG = {
    "view": {"stroke": None},
    "font": "system-ui, sans-serif",
    # Beside each other two legends are wider than a phone.
    "legend": {"layout": {"top": {"direction": "vertical", "offset": 4}}},
}
MOST_SHAPES = 8
"""Vega has so many; of more formats on devices the shape tells only the format."""
SEVERAL_DEVICES = {"title": "Format and device", "columns": 2, "labelLimit": 130}
"""Of the legend of such shapes: two beside each other fit a phone."""
KINDS = {
    "measured": ("latency", "Measured latency (ms)", "Timed by a clock on the device."),
    "counted": (
        "instructions",
        "Instructions of one inference (millions)",
        "Counted on an emulated core: exact, and no time at all.",
    ),
    "estimated": (
        "latency",
        "Estimated latency (ms)",
        "What a model of the device expects; nobody timed it.",
    ),
}
PLAIN = {
    "size": ("Size of the file (MB)", "Accuracy and size"),
    "multadds": ("Mult-adds of one image (millions)", "Accuracy and mult-adds"),
}
# Tableau's ten, in an order that keeps neighbours apart for most colour-blind readers.
_COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"]


def front(x_title: str, y_title: str, *, width: int | str = "container") -> dict[str, Any]:
    """A plot of points `model recipe mark device x value` and of the line through the best of them.

    `mark` is the format, and the device where there are several: its shape tells both.
    Points of the line have 95 % intervals, of their value from `value_low` to `value_high` and of
    their cost from `x_low` to `x_high`. `ties` are points of the front that the images do not tell
    from the cheaper one beside them, or from the best of the same cost: the line leaves them out,
    and a dashed rule from `low` to `high` shows what their value may be.
    """
    x = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "axis": {"labelSeparation": 5},
        "scale": {"type": "log", "nice": False, "padding": 20},
    }
    y = {
        "field": "value",
        "type": "quantitative",
        "title": y_title,
        "scale": {"zero": False, "padding": 10},
    }
    return {
        "$schema": _SCHEMA,
        "width": width,
        "height": 320,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": "transparent",
        "datasets": {"points": [], "front": [], "ties": []},
        "layer": [
            {
                "data": {"name": "front"},
                "mark": {"type": "line", "interpolate": "step-after", "opacity": 0.5},
                "encoding": {
                    "x": x,
                    "y": y,
                    "detail": {"field": "device", "type": "nominal"},
                    "color": {"value": "#888"},
                },
            },
            *(_interval(x, y, *ends) for ends in (("y", "value"), ("x", "x"))),
            {
                "data": {"name": "ties"},
                "mark": {"type": "rule", "strokeDash": [4, 2], "strokeWidth": 2},
                "encoding": {
                    "x": x,
                    "y": {**y, "field": "low"},
                    "y2": {"field": "high"},
                    "color": {"value": "#888"},
                },
            },
            {
                "data": {"name": "points"},
                "mark": {
                    "type": "point",
                    "filled": True,
                    "opacity": 0.9,
                    "size": 70,
                    "tooltip": True,
                },
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": {
                        "field": "recipe",
                        "type": "nominal",
                        "title": "Recipe",
                        "scale": {"range": _COLORS},
                        "legend": {"orient": "top", "columns": 3, "symbolLimit": 12},
                    },
                    "shape": {
                        "field": "mark",
                        "type": "nominal",
                        "legend": {"title": "Format", "orient": "top", "symbolFillColor": "#888"},
                    },
                    "tooltip": [
                        {"field": "model"},
                        {"field": "recipe"},
                        {"field": "format"},
                        {"field": "device"},
                        {"field": "shown", "title": x_title},
                        {"field": "judged", "title": y_title},
                    ],
                },
            },
        ],
        "config": _CONFIG,
    }


def _interval(x: dict[str, Any], y: dict[str, Any], way: str, field: str) -> dict[str, Any]:
    """A rule along `way` through each point of the front, over the interval of `field`."""
    ends = {way: {**{"x": x, "y": y}[way], "field": f"{field}_low"}}
    return {
        "data": {"name": "front"},
        "mark": {"type": "rule", "opacity": 0.7},
        "encoding": {
            "x": x,
            "y": y,
            **ends,
            f"{way}2": {"field": f"{field}_high"},
            "color": {"value": "#888"},
        },
    }


def history() -> dict[str, Any]:
    """A small plot of one file's figures on one target over time.

    Its points are `when date y low high verdict`; the page says what the vertical axis is and how
    far it goes.
    """
    x = {
        "field": "when",
        "type": "temporal",
        "title": None,
        "axis": {"tickCount": 3, "labelOverlap": True, "grid": False},
        # The tables are in UTC, too.
        "scale": {"type": "utc", "padding": 8},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": None,
        "axis": {"tickCount": 4},
        "scale": {"zero": False, "nice": False},
    }
    outcomes = ["pass", "inconclusive", "fail", "not judged"]
    return {
        "$schema": _SCHEMA,
        "width": "container",
        "height": 130,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": "transparent",
        "datasets": {"points": []},
        "data": {"name": "points"},
        "encoding": {"x": x, "y": y},
        "layer": [
            {"mark": {"type": "line", "opacity": 0.5, "color": "#888"}},
            {
                "mark": {"type": "rule", "color": "#888"},
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {
                    "type": "point",
                    "filled": True,
                    "opacity": 1,
                    "size": 50,
                    "tooltip": True,
                },
                "encoding": {
                    "color": {
                        "field": "verdict",
                        "type": "nominal",
                        "legend": None,
                        "scale": {
                            "domain": outcomes,
                            "range": ["#2ca02c", "#ff7f0e", "#d62728", "#888888"],
                        },
                    },
                    "shape": {
                        "field": "verdict",
                        "type": "nominal",
                        "legend": None,
                        "scale": {
                            "domain": outcomes,
                            "range": ["circle", "diamond", "cross", "circle"],
                        },
                    },
                    "tooltip": [
                        {"field": "date", "type": "nominal", "title": "when (UTC)"},
                        {"field": "y", "title": "figure"},
                        {"field": "verdict"},
                    ],
                },
            },
        ],
        "config": _CONFIG,
    }


def accuracy_interval(r: Result) -> tuple[float, float] | None:
    """The exact 95 % interval of a top-1 in percent; None of another metric, or without images."""
    if r.value is None or not r.images or metric_columns.of(r) != metric_columns.TOP1:
        return None
    return _share_interval(r.value, r.images)


@functools.lru_cache(maxsize=1 << 16)
def _share_interval(share: float, images: int) -> tuple[float, float]:
    low, high = choice.share_interval(share, images)
    return round(100 * low, 4), round(100 * high, 4)


def calibration(one: CardCalibration, *, width: int = 320) -> dict[str, Any]:
    """A plot of estimated against measured latencies, with the line where both are equal."""
    points = [
        {
            "measured": pair.latency_ns / 1e6,
            "estimated": pair.forecast.latency_ns / 1e6,
            "low": pair.forecast.interval_ns[0] / 1e6,
            "high": pair.forecast.interval_ns[1] / 1e6,
            "counted": float(pair.forecast.is_point is False),
        }
        for pair in one.pairs
    ]
    ends = [point[name] for point in points for name in ("measured", "low", "high")]
    domain = [0.9 * min(ends), 1.1 * max(ends)]
    scale = {"type": "log", "domain": domain, "nice": False}

    def axis(field: str, title: str = "") -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": title or None, "scale": scale}

    x = axis("measured", "Measured (ms)")
    y = axis("estimated", "Estimated (ms)")
    line = [{"measured": end, "estimated": end} for end in domain]
    return {
        "$schema": _SCHEMA,
        "width": width,
        "height": width,
        "background": "white",
        "config": _CONFIG,
        "layer": [
            {
                "data": {"values": line},
                "mark": {"type": "line", "color": "#888", "strokeDash": [4, 4]},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": points},
                "mark": {"type": "rule", "opacity": 0.5},
                "encoding": {"x": x, "y": axis("low", "Estimated (ms)"), "y2": {"field": "high"}},
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "size": 60},
                "encoding": {
                    "x": x,
                    "y": y,
                    "fill": {
                        "condition": {"test": "datum.counted > 0", "value": _COLORS[0]},
                        "value": "white",
                    },
                    "stroke": {"value": _COLORS[0]},
                },
            },
        ],
    }
