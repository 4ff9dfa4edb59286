"""Comma-separated values: a line for each figure, in base units; what is not known is empty."""

from __future__ import annotations

import csv
import dataclasses
import io

from mobiledeploy.core.types import Report, Result

SUFFIX = ".csv"
# Fields of several values have a column for each.
_SPREAD = ("latency_interval_ns", "forecast")
# A spreadsheet takes what begins so for a formula, and names are the user's.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(report: Report) -> str:
    """A heading, then the results in their order."""
    names = [f.name for f in dataclasses.fields(Result) if f.name not in _SPREAD]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    estimate = ("estimate_card", "estimate_ns", "estimate_low_ns", "estimate_high_ns")
    writer.writerow([*names, "latency_low_ns", "latency_high_ns", *estimate, "estimate_error"])
    for r in report.results:
        low, high = r.latency_interval_ns or ("", "")
        f = r.forecast
        cells: tuple[object, ...] = ("",) * 5
        if f is not None:
            cells = (_cell(f.card), f.latency_ns, *f.interval_ns, f.error)
        writer.writerow([*(_cell(getattr(r, name)) for name in names), low, high, *cells])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
