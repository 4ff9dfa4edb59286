"""Markdown: a pull request's comment, or the summary of a CI step."""

from __future__ import annotations

import re

from mobiledeploy.core import metric_columns, units
from mobiledeploy.core.types import Check, Report, Result

SUFFIX = ".md"
_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❓"}
_ESCAPED = re.compile(r"([\\`*_\[\]<>|#~])")
# A class that passed is one row of very many.
_MAX_ROWS = 20


def render(report: Report) -> str:
    """A heading, a table of the artifacts, and for each what decided."""
    lines = [f"## {_cell(report.title)}", ""]
    if report.checks or report.failed:
        lines += [
            f"| file | verdict | images | {report.decided_by} | accepted | flips | McNemar p |",
            "|---|---|--:|--:|--:|--:|--:|",
            *map(_row, report.checks),
            *(f"| {_cell(one.what)} | ❗ error |{' – |' * 5}" for one in report.failed),
            "",
        ]
    for one in report.failed:
        lines += [f"### {_cell(one.what)}", "", f"- ❗ {_cell(one.message)}", ""]
    for check in report.checks:
        lines += _details(check)
    for regression in report.regressions:
        sign = _SIGNS[regression.outcome]
        lines += [f"- {sign} {_cell(verdict.line)}" for verdict in regression.verdicts]
    if report.results:
        heading = metric_columns.header(report.results)
        headers = (*_FIGURES[:4], _cell(heading), *_FIGURES[4:])
        lines += ["", f"| {' | '.join(headers)} |", f"|---|---|---|{'--:|' * 2}---|--:|--:|---|"]
        lines += (_figure(r, heading) for r in report.results)
    return "\n".join(lines).rstrip() + "\n"


def _row(check: Check) -> str:
    p = "–" if check.mcnemar_p is None else f"{check.mcnemar_p:.3g}"
    cells = (
        _cell(check.path),
        f"{_SIGNS[check.outcome]} {check.outcome}",
        str(check.images),
        *map(_cell, check.figures()),
        units.percent(check.flips, 2),
        p,
    )
    return f"| {' | '.join(cells)} |"


_FIGURES = (
    "model",
    "recipe",
    "device",
    "size",
    "judged on",
    "latency",
    "instructions",
    "kind",
)


def _figure(r: Result, heading: str) -> str:
    cells = (
        _cell(units.network(r.model, r.weights, r.weights_sha256)),
        _cell(f"{r.recipe}.{units.format_name(r.format, r.io)}"),
        _cell(r.device or "–"),
        "–" if r.size_bytes is None else units.size(r.size_bytes),
        _cell(metric_columns.cell(r, heading)),
        _cell(units.images(r.data_source, r.data_split, r.data_identity) or "–"),
        "–" if r.latency_ns is None else units.duration(r.latency_ns),
        "–" if r.instructions is None else f"{r.instructions:,}",
        f"{r.kind}, recorded" if r.recorded else r.kind or "–",
    )
    return f"| {' | '.join(cells)} |"


def _details(check: Check) -> list[str]:
    lines = [f"### {_cell(check.path)}", ""]
    passing_classes = [v for v in check.verdicts if v.metric == "class" and v.outcome == "pass"]
    lines += [
        f"- {_SIGNS[verdict.outcome]} {_cell(verdict.line)}"
        for verdict in check.verdicts
        if verdict not in passing_classes
    ]
    if passing_classes:
        lines.append(
            f"- {_SIGNS['pass']} {units.several(len(passing_classes), 'class')} did not regress"
        )
    if check.untested:
        lines.append(f"- {check.untested} classes have too few images for a verdict of their own")
    lines += [f"- ⚠️ {_cell(warning.message)} ({_cell(warning.name)})" for warning in check.warnings]
    lines.append("")
    if check.moved:
        lines += ["| class | taken for | before | now |", "|---|---|--:|--:|"]
        for pair in check.moved[:_MAX_ROWS]:
            names = f"{_cell(pair.true)} | {_cell(pair.predicted)}"
            lines.append(f"| {names} | {pair.before} | {pair.now} |")
        lines.append("")
    return lines


def _cell(text: str) -> str:
    """`text` as it stands, on one line: names are the user's and may hold Markdown's signs."""
    return _ESCAPED.sub(r"\\\1", units.one_line(text))
