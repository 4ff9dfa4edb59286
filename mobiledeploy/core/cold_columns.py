"""How tables show the figures of a cold start."""

from __future__ import annotations

from mobiledeploy.core import units
from mobiledeploy.core.types import ColdFigure

LABELS = {
    "library_ns": "open the runtime",
    "load_ns": "load the file",
    "prepare_ns": "prepare",
    "first_inference_ns": "first inference",
    "first_answer_ns": "all until the first answer",
    "peak_rss_bytes": "peak memory",
}
"""The figures of a cold start in their order, and what people call them."""

FIRST = ("first_answer_ns", "peak_rss_bytes")
"""What a user waits for, and what it takes: a report has these first."""


def shown(figure: ColdFigure) -> tuple[str, str]:
    """The median and the interval of a figure, for people."""
    in_bytes = figure.name.endswith("_bytes")
    median, low, high = (
        units.size(round(value)) if in_bytes else units.duration(value)
        for value in (figure.median, *figure.interval)
    )
    return median, f"{low} to {high}"
