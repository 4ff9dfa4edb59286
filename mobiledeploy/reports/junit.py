"""JUnit XML, the dialect that Jenkins, GitLab and GitHub's reporters read.

A suite for each artifact, a test case for each verdict: one a metric, and one a class.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from mobiledeploy.core.types import Check, Failed, Regression, Report, Verdict

SUFFIX = ".xml"
# What XML 1.0 cannot hold, in whatever way it is written: class names are the user's.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """The XML document, its totals on every level."""
    suites = ElementTree.Element("testsuites", {"name": _plain(report.title)})
    checks: tuple[Check | Regression, ...] = (*report.checks, *report.regressions)
    for check in checks:
        suites.append(_suite(check, report.on_inconclusive))
    suites.extend(map(_unjudged, report.failed))
    for total in ("tests", "failures", "errors", "skipped"):
        suites.set(total, str(sum(int(suite.get(total, "0")) for suite in suites)))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, "unicode", xml_declaration=True) + "\n"


# The element of a case that did not pass, and its counter in the suite. Too few images are not a
# regression: readers show that separately.
_KINDS = {
    ("fail", "fail"): ("failure", "failures"),
    ("fail", "warn"): ("failure", "failures"),
    ("inconclusive", "fail"): ("error", "errors"),
    ("inconclusive", "warn"): ("skipped", "skipped"),
}


def _suite(check: Check | Regression, on_inconclusive: str) -> ElementTree.Element:
    counts = dict.fromkeys(("failures", "errors", "skipped"), 0)
    suite = ElementTree.Element("testsuite", {"name": _plain(check.path)})
    for verdict in check.verdicts:
        case = _case(check, verdict)
        line = _plain(verdict.line)
        if verdict.outcome == "pass":
            ElementTree.SubElement(case, "system-out").text = line
        else:
            kind, counter = _KINDS[verdict.outcome, on_inconclusive]
            attributes = {"message": line, "type": verdict.outcome}
            ElementTree.SubElement(case, kind, attributes).text = line
            counts[counter] += 1
        suite.append(case)
    for name, count in {"tests": len(check.verdicts), **counts}.items():
        suite.set(name, str(count))
    if check.warnings:
        out = ElementTree.SubElement(suite, "system-out")
        out.text = _plain("\n".join(f"{d.name}: {d.message}" for d in check.warnings))
    return suite


def _unjudged(failed: Failed) -> ElementTree.Element:
    """A suite of one case for a file that has no verdict."""
    path, line = _plain(failed.what), _plain(failed.message)
    totals = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    suite = ElementTree.Element("testsuite", {"name": path, **totals})
    case = ElementTree.SubElement(suite, "testcase", {"classname": path, "name": "judged"})
    attributes = {"message": line, "type": f"exit code {failed.exit_code}"}
    ElementTree.SubElement(case, "error", attributes).text = line
    return suite


def _case(check: Check | Regression, verdict: Verdict) -> ElementTree.Element:
    name = f"{verdict.metric}[{verdict.subject}]" if verdict.subject else verdict.metric
    where = f"{check.model}.{check.recipe}.{check.format}"
    return ElementTree.Element("testcase", {"classname": _plain(where), "name": _plain(name)})


def _plain(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
