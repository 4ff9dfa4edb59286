"""The report as one JSON object, as `--json` prints it."""

from __future__ import annotations

from mobiledeploy.core import records
from mobiledeploy.core.types import Report

SUFFIX = ".json"


def render(report: Report) -> str:
    """The record of `report`."""
    return records.dumps(report) + "\n"
