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
    judged: tuple[Check | Regression, ...] = (*report.checks, *report.regressions)
    found = [(c, v) for c in judged for v in c.verdicts if v.outcome != "pass"]
    found.sort(key=lambda pair: _GRAVITY[pair[1].outcome])
    told = [
        f"::error title={_property(f.what)}%3A error::{_data(f.message)}" for f in report.failed
    ]
    told += [_annotation(check, verdict) for check, verdict in found]
    lines = told if len(told) <= MOST else told[: MOST - 1]
    if len(told) > len(lines):
        rest = f"{len(told) - len(lines)} more verdicts are in the step's summary"
        lines.append(f"::warning title={_property(report.title)}::{rest}")
    if not told:
        passed = f"{units.several(len(judged), 'artifact')} passed"
        lines.append(f"::notice title={_property(report.title)}::{passed}")
    return "\n".join(lines) + "\n"


def _annotation(check: Check | Regression, verdict: Verdict) -> str:
    title = _property(f"{check.path}: {verdict.outcome}")
    return f"::{_LEVEL[verdict.outcome]} title={title}::{_data(verdict.line)}"


def _data(text: str) -> str:
    """On one line, and escaped as GitHub's own toolkit does: no name can begin a command."""
    return units.one_line(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
