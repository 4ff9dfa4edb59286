"""Comma-separated values: a line for each figure, in base units; what is not known is empty."""

from __future__ import annotations

import csv
import dataclasses
import io

from mobiledeploy.core.types import Report, Result

SUFFIX = ".csv"
# A spreadsheet takes what begins so for a formula, and names are the user's.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(report: Report) -> str:
    """A heading, then the results in their order."""
    names = [f.name for f in dataclasses.fields(Result) if f.name != "latency_interval_ns"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, "latency_low_ns", "latency_high_ns"])
    for r in report.results:
        low, high = r.latency_interval_ns or ("", "")
        writer.writerow([*(_cell(getattr(r, name)) for name in names), low, high])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
