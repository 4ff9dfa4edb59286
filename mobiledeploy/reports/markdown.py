"""Markdown: a pull request's comment, or the summary of a CI step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mobiledeploy.core import cold_columns, metric_columns, units
from mobiledeploy.core.types import Check, Report, Result, StoredColdStart

SUFFIX = ".md"
_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❓"}
# A class that passed is one row of very many.
_MAX_ROWS = 20


def render(report: Report) -> str:
    """A heading, a table of the artifacts, and for each what decided."""
    lines = [f"## {units.markdown(report.title)}", ""]
    if report.checks or report.failed:
        lines += [
            f"| file | verdict | images | {report.decided_by} | accepted | flips | McNemar p |",
            "|---|---|--:|--:|--:|--:|--:|",
            *map(_row, report.checks),
            *(f"| {units.markdown(one.what)} | ❗ error |{' – |' * 5}" for one in report.failed),
            "",
        ]
    for one in report.failed:
        lines += [f"### {units.markdown(one.what)}", "", f"- ❗ {units.markdown(one.message)}", ""]
    for check in report.checks:
        lines += _details(check)
    for regression in report.regressions:
        sign = _SIGNS[regression.outcome]
        lines += [f"- {sign} {units.markdown(verdict.line)}" for verdict in regression.verdicts]
    if report.results:
        heading = metric_columns.header(report.results)
        headers = (*_FIGURES[:4], units.markdown(heading), *_FIGURES[4:])
        lines += ["", f"| {' | '.join(headers)} |", f"|---|---|---|{'--:|' * 2}---|--:|--:|---|"]
        lines += (_figure(r, heading) for r in report.results)
    if report.cold_starts:
        lines += _cold_starts(report.cold_starts)
    for table in (t for one in report.calibrations for t in one.tables()):
        lines += ["", units.markdown(table.title), "", f"| {' | '.join(table.headers)} |"]
        lines += [f"|---|---|---|{'--:|' * 4}---|"]
        lines += (f"| {' | '.join(map(units.markdown, row))} |" for row in table.rows)
    return "\n".join(lines).rstrip() + "\n"


def _cold_starts(cold_starts: Sequence[StoredColdStart]) -> Iterator[str]:
    headers = (
        *("model", "recipe", "device", "runtime"),
        *(
            part
            for name in cold_columns.FIRST
            for part in (cold_columns.LABELS[name], "95 % interval")
        ),
        "processes",
    )
    yield from ("", f"| {' | '.join(headers)} |", f"|---|---|---|---|{'--:|' * 5}")
    for stored in cold_starts:
        cold = stored.cold_start
        figures = {f.name: cold_columns.shown(f) for f in cold.figures}
        cells = (
            *(stored.model, f"{stored.recipe}.{stored.format}", cold.target.device),
            f"{cold.target.runtime} {cold.runtime_version}, {cold.target.runner}",
            *(part for name in cold_columns.FIRST for part in figures.get(name, ("–", "–"))),
            str(cold.processes),
        )
        yield f"| {' | '.join(map(units.markdown, cells))} |"


def _row(check: Check) -> str:
    p = "–" if check.mcnemar_p is None else f"{check.mcnemar_p:.3g}"
    cells = (
        units.markdown(check.path),
        f"{_SIGNS[check.outcome]} {check.outcome}",
        str(check.images),
        *map(units.markdown, check.figures()),
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
        units.markdown(units.network(r.model, r.weights, r.weights_sha256)),
        units.markdown(f"{r.recipe}.{units.format_name(r.format, r.io)}"),
        units.markdown(r.device or "–"),
        "–" if r.size_bytes is None else units.size(r.size_bytes),
        units.markdown(metric_columns.cell(r, heading)),
        units.markdown(units.images(r.data_source, r.data_split, r.data_identity) or "–"),
        "–" if r.latency_ns is None else units.duration(r.latency_ns),
        "–" if r.instructions is None else f"{r.instructions:,}",
        f"{r.kind}, recorded" if r.recorded else r.kind or "–",
    )
    return f"| {' | '.join(cells)} |"


def _details(check: Check) -> list[str]:
    lines = [f"### {units.markdown(check.path)}", ""]
    passing_classes = [v for v in check.verdicts if v.metric == "class" and v.outcome == "pass"]
    lines += [
        f"- {_SIGNS[verdict.outcome]} {units.markdown(verdict.line)}"
        for verdict in check.verdicts
        if verdict not in passing_classes
    ]
    if passing_classes:
        lines.append(
            f"- {_SIGNS['pass']} {units.several(len(passing_classes), 'class')} did not regress"
        )
    if check.untested:
        lines.append(f"- {check.untested} classes have too few images for a verdict of their own")
    lines += [
        f"- ⚠️ {units.markdown(warning.message)} ({units.markdown(warning.name)})"
        for warning in check.warnings
    ]
    lines.append("")
    if check.moved:
        lines += ["| class | taken for | before | now |", "|---|---|--:|--:|"]
        for pair in check.moved[:_MAX_ROWS]:
            names = f"{units.markdown(pair.true)} | {units.markdown(pair.predicted)}"
            lines.append(f"| {names} | {pair.before} | {pair.now} |")
        lines.append("")
    return lines
