"""GitHub's workflow commands: annotations, at most ten, for GitHub shows no more of a step."""

from __future__ import annotations

from mobiledeploy.core import units
from mobiledeploy.core.types import Check, Regression, Report, Verdict

SUFFIX = ".txt"
MOST = 10
_GRAVITY = {"fail": 0, "inconclusive": 1, "pass": 2}
_LEVEL = {"fail": "error", "inconclusive": "warning"}


def render(report: Report) -> str:
    """A line for each file without a verdict, then for each verdict that is no pass, gravest first.

    One notice where all passed.
    """
    checks: tuple[Check | Regression, ...] = (*report.checks, *report.regressions)
    failures = [(c, v) for c in checks for v in c.verdicts if v.outcome != "pass"]
    failures.sort(key=lambda pair: _GRAVITY[pair[1].outcome])
    lines_ = [
        f"::error title={_property(f.what)}%3A error::{_data(f.message)}" for f in report.failed
    ]
    lines_ += [_annotation(check, verdict) for check, verdict in failures]
    lines = lines_ if len(lines_) <= MOST else lines_[: MOST - 1]
    if len(lines_) > len(lines):
        rest = f"{len(lines_) - len(lines)} more verdicts are in the step's summary"
        lines.append(f"::warning title={_property(report.title)}::{rest}")
    if not lines_:
        text = f"{units.several(len(checks), 'artifact')} passed"
        lines.append(f"::notice title={_property(report.title)}::{text}")
    return "\n".join(lines) + "\n"


def _annotation(check: Check | Regression, verdict: Verdict) -> str:
    title = _property(f"{check.path}: {verdict.outcome}")
    return f"::{_LEVEL[verdict.outcome]} title={title}::{_data(verdict.line)}"


def _data(text: str) -> str:
    """On one line, and escaped as GitHub's own toolkit does: no name can begin a command."""
    return units.one_line(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
