"""Every file of the shelf renders every report, hostile names included."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import (
    Check,
    Failed,
    MovedAnswers,
    NamedWarning,
    Report,
    Result,
    StoredVerdict,
    Verdict,
)

HOSTILE = "<b>|`::error::*[x](y)\n::set-output %0A&\x00\x1b[31m\ud800"


def verdict(outcome, metric="accuracy", subject="", line="it was so"):
    return Verdict(metric, subject, outcome, 0.01, (0.0, 0.02), 0.01, 1000, None, line)


def check(*verdicts, path="build/a.tflite", **given):
    known_values = Check(
        path=path,
        model="m",
        recipe="int8_ptq",
        format="tflite",
        artifact_sha256="a",
        accepted_sha256="b",
        images=1000,
        top1=0.9,
        accepted_top1=0.91,
        losses=12,
        gains=2,
        flips=0.02,
        mcnemar_p=0.012,
        untested=3,
        moved=(MovedAnswers("cat", "dog", 1, 20),),
        verdicts=verdicts,
        warnings=(NamedWarning("other-isa", "another machine"),),
    )
    return replace(known_values, **given)


MIXED = Report(
    "mobiledeploy check",
    (
        check(verdict("pass"), verdict("fail", "class", "cat", "cat regressed")),
        check(verdict("inconclusive", line="1,855 images would decide"), path="build/b.onnx"),
    ),
)
# One file passed, the other has no verdict.
BROKEN = Report(
    "mobiledeploy check",
    (check(verdict("pass")),),
    failed=(Failed("build/c.onnx", "build/c.onnx is not there", 7),),
)


@pytest.mark.parametrize("name", REPORTS.names())
@pytest.mark.parametrize(
    "report",
    [
        MIXED,
        BROKEN,
        Report("lost", failed=(Failed(HOSTILE, HOSTILE, 7),)),
        Report("nothing"),
        Report(HOSTILE, (check(verdict("fail", "class", HOSTILE, HOSTILE), path=HOSTILE),)),
        Report("none", (check(verdict("pass"), top1=None, accepted_top1=None, mcnemar_p=None),)),
    ],
    ids=["mixed", "broken", "lost", "empty", "hostile", "unlabelled"],
)
def test_every_report_is_text_that_ends_in_a_newline(name, report):
    shelf = REPORTS.load(name)
    text = shelf.render(report)
    assert shelf.SUFFIX.startswith(".")
    assert text.endswith("\n")
    assert "\x00" not in text


@pytest.mark.parametrize("kind", ["measured", "counted", "estimated"])
def test_a_drawing_is_xml_whatever_the_names_in_it(kind):
    """A control character in one of them ended the whole process."""
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    samples = Result(
        "2026-01-01T00:00:00.000+00:00",
        "a" * 64,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        1000,
        kind,
        HOSTILE,
        "python",
        HOSTILE,
        HOSTILE,
        1,
        HOSTILE,
        1e6,
        None,
        10**6,
        0.5,
        0.9,
        10**7,
    )
    svg = REPORTS.load("svg").render(Report(HOSTILE, results=(samples,)))
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    assert any(text.startswith("<b>|") for text in texts)


def test_json_is_the_record():
    assert records.loads(Report, REPORTS.load("json").render(MIXED)) == MIXED


def test_junit_counts_a_case_for_each_verdict():
    root = ElementTree.fromstring(REPORTS.load("junit").render(MIXED))
    assert {k: root.get(k) for k in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    cases = {(s.get("name"), c.get("name")): c for s in root for c in s.iter("testcase")}
    failed = cases["build/a.tflite", "class[cat]"].find("failure")
    assert failed.get("message") == failed.text == "cat regressed"
    assert cases["build/a.tflite", "accuracy"].find("failure") is None
    assert cases["build/b.onnx", "accuracy"].find("error").get("type") == "inconclusive"


def test_junit_skips_warnings():
    root = ElementTree.fromstring(
        REPORTS.load("junit").render(replace(MIXED, on_inconclusive="warn"))
    )
    assert (root.get("errors"), root.get("skipped"), root.get("failures")) == ("0", "1", "1")
    assert root.find(".//skipped").get("message") == "1,855 images would decide"


def test_a_file_without_a_verdict_is_an_error_beside_the_others():
    root = ElementTree.fromstring(REPORTS.load("junit").render(BROKEN))
    assert (root.get("tests"), root.get("errors"), root.get("failures")) == ("2", "1", "0")
    assert root.find(".//error").get("message") == "build/c.onnx is not there"
    assert REPORTS.load("github").render(BROKEN) == (
        "::error title=build/c.onnx%3A error::build/c.onnx is not there\n"
    )
    text = REPORTS.load("markdown").render(BROKEN)
    assert "| build/a.tflite | ✅ pass |" in text
    assert "| build/c.onnx | ❗ error | – |" in text
    assert "- ❗ build/c.onnx is not there" in text


def test_the_page_says_which_artifact_a_verdict_is_of():
    row = Result(
        "2026-01-01",
        "a" * 64,
        "net",
        "int8_ptq",
        "tflite",
        1,
        "",
        "",
        "",
        "",
        "",
        0,
        "",
        None,
        None,
        None,
        0.5,
        None,
        None,
        weights="run",
        weights_sha256="b" * 64,
    )
    message = StoredVerdict("2026-01-02", "a" * 64, "check", "golden", "pass", "as it was")
    page = REPORTS.load("html").render(Report("x", results=(row,), verdicts=(message,)))
    row_of = (
        '<td role="cell" class="name">net run bbbbbbbb int8_<wbr>ptq.<wbr>tflite</td>'
        '<td role="cell" class="why"><p>as it was</p>'
    )
    assert f"✓</span> pass</span></td>{row_of}" in page
    page = REPORTS.load("html").render(BROKEN)
    row_of = (
        '<td role="cell" class="name">build/<wbr>c.<wbr>onnx</td>'
        '<td role="cell" class="why"><p>build/c.onnx is not there</p>'
    )
    assert f"!</span> error</span></td>{row_of}" in page


def test_junit_of_hostile_names_can_be_read():
    report = Report("x", (check(verdict("fail", "class", HOSTILE, HOSTILE), path=HOSTILE),))
    root = ElementTree.fromstring(REPORTS.load("junit").render(report))
    assert "<b>" in root.find("testsuite").get("name")


def test_github_shows_ten_at_most_and_the_gravest_first():
    verdicts = [verdict("inconclusive")] + [verdict("fail", "class", str(i)) for i in range(20)]
    lines = REPORTS.load("github").render(Report("gate", (check(*verdicts),))).splitlines()
    assert len(lines) == 10
    assert all(line.startswith("::error ") for line in lines[:9])
    assert "12 more" in lines[9]


def test_github_names_cannot_begin_a_command():
    report = Report("x", (check(verdict("fail", "class", "c", HOSTILE), path=HOSTILE),))
    text = REPORTS.load("github").render(report)
    assert len(text.splitlines()) == 1
    assert text.startswith("::error title=<b>|`%3A%3Aerror")


def test_github_reports_success():
    assert REPORTS.load("github").render(Report("gate", (check(verdict("pass")),))) == (
        "::notice title=gate::1 artifact passed\n"
    )


def test_markdown_shows_names_literally():
    report = Report("x", (check(verdict("fail", "class", "c", HOSTILE), path=HOSTILE),))
    text = REPORTS.load("markdown").render(report)
    assert "\\<b\\>\\|\\`::error::\\*\\[x\\](y) ::set-output" in text
    rows = [line for line in text.splitlines() if line.startswith("| \\<b")]
    assert len(rows) == 1


def test_markdown_lists_passing_classes_in_one_line():
    passed = [verdict("pass", "class", str(i), f"class {i}") for i in range(30)]
    text = REPORTS.load("markdown").render(Report("x", (check(*passed),)))
    assert "30 classes did not regress" in text
    assert "class 7" not in text
