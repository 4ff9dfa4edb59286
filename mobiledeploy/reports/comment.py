"""One table for a comment on a pull request: what is new beside what was accepted.

The report may be a stranger's, and who posts it has rights that the stranger has not. So each text
is in a code span, which GitHub shows as it stands: it mentions nobody and links to nothing. Its
length is limited, and so is the number of rows.
"""

from __future__ import annotations

from mobiledeploy.core import units
from mobiledeploy.core.types import Check, Failed, Report

SUFFIX = ".md"
MOST_ROWS = 40
# Characters of a cell; GitHub takes 65,536 of a comment.
_FIGURE, _PATH, _LINE = 40, 120, 400
# The gravest first.
_SIGNS = {"fail": "❌", "inconclusive": "❓", "pass": "✅"}


def render(report: Report) -> str:
    """The table: a row for each artifact, the first `MOST_ROWS` of them, the gravest first."""
    checks = sorted(report.checks, key=lambda check: list(_SIGNS).index(check.outcome))
    rows = [*map(_unjudged, report.failed), *map(_row, checks)]
    if not rows:
        return "No artifact was judged.\n"
    decided_by = report.decided_by
    lines = [
        f"| file | verdict | new {decided_by} | accepted | flips | images | why |",
        "|---|---|--:|--:|--:|--:|---|",
        *rows[:MOST_ROWS],
    ]
    if len(rows) > MOST_ROWS:
        lines += ["", f"{len(rows) - MOST_ROWS} more are in the summary of the run."]
    return "\n".join(lines) + "\n"


def _row(check: Check) -> str:
    now, accepted = check.figures()
    cells = (
        _code(check.path, _PATH),
        f"{_SIGNS[check.outcome]} {check.outcome}",
        _code(now, _FIGURE),
        _code(accepted, _FIGURE),
        _code(units.percent(check.flips, 2), _FIGURE),
        str(check.images),
        _reason(check),
    )
    return f"| {' | '.join(cells)} |"


def _unjudged(failed: Failed) -> str:
    cells = (_code(failed.what, _PATH), "❗ error", *("–",) * 4, _code(failed.message, _LINE))
    return f"| {' | '.join(cells)} |"


def _reason(check: Check) -> str:
    """The first verdict that decided against the file, and the names of the warnings."""
    deciding = [v.line for v in check.verdicts if v.outcome == check.outcome != "pass"]
    parts = [_code(line, _LINE) for line in deciding[:1]]
    if len(deciding) > 1:
        parts.append(f"{len(deciding) - 1} more")
    names = ", ".join(dict.fromkeys(warning.name for warning in check.warnings))
    parts += [f"⚠️ {_code(names, _PATH)}"] if names else []
    return "; ".join(parts)


def _code(text: str, most: int) -> str:
    """A code span of at most `most` characters: neither end of it nor a column begins in `text`."""
    shown = units.one_line(text[: 8 * most])
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    shown = shown.replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown else "–"
