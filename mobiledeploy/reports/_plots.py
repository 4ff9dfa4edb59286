"""The plots as Vega-Lite: what the page draws in the browser, and what becomes SVG without one.

A plot is of one kind of figure. Accuracy stands on the vertical axis, what it costs on the
horizontal one, as in the MobileNet papers.
"""

from __future__ import annotations

from typing import Any

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
    """A plot of points `model recipe device x value` and of the line through the best of them.

    `ties` are points of the front that the images do not tell from the cheaper one beside them, or
    from the best of the same cost: the line leaves them out, and a rule from `low` to `high` shows
    what their value may be.
    """
    x = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "scale": {"type": "log", "nice": False, "padding": 20},
    }
    y = {
        "field": "value",
        "type": "quantitative",
        "title": y_title,
        "scale": {"zero": False, "padding": 10},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
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
                "mark": {"type": "point", "filled": True, "size": 70, "tooltip": True},
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
                        "field": "format",
                        "type": "nominal",
                        "title": "Format",
                        "legend": {"orient": "top", "symbolFillColor": "#888"},
                    },
                    "tooltip": [
                        {"field": "model"},
                        {"field": "recipe"},
                        {"field": "format"},
                        {"field": "device"},
                        {"field": "shown", "title": x_title},
                        {"field": "value", "title": y_title},
                    ],
                },
            },
        ],
        "config": {"view": {"stroke": None}, "font": "system-ui, sans-serif"},
    }


def history(y_title: str) -> dict[str, Any]:
    """A plot of figures over time, a line for each recipe and target."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 260,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": "transparent",
        "datasets": {"points": []},
        "data": {"name": "points"},
        "mark": {"type": "line", "point": True, "tooltip": True},
        "encoding": {
            "x": {"field": "when", "type": "temporal", "title": "When"},
            "y": {"field": "y", "type": "quantitative", "title": y_title, "scale": {"zero": False}},
            "color": {
                "field": "series",
                "type": "nominal",
                "title": None,
                "legend": {"orient": "top", "columns": 1, "labelLimit": 300},
                "scale": {"range": _COLORS},
            },
            "tooltip": [
                {"field": "series"},
                {"field": "when", "type": "temporal"},
                {"field": "y", "title": y_title},
                {"field": "verdict"},
            ],
        },
        "config": {"view": {"stroke": None}, "font": "system-ui, sans-serif"},
    }
