"""The table of a comment, as GitHub's own Markdown shows it, whatever a stranger's report holds."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Failed, NamedWarning, Report
from tests.reports.test_every_report import HOSTILE, MIXED, check, verdict

cmarkgfm = pytest.importorskip(
    "cmarkgfm", reason="cmarkgfm is not installed (pip install 'mobiledeploy[dev]')"
)
render = REPORTS.load("comment").render
COLUMNS = 7
NAMES = [
    HOSTILE,
    "@octocat and @github/security",
    "fixes #1, GH-2, torvalds/linux#3",
    "https://evil.example/x www.evil.example mail@evil.example",
    "[click](javascript:alert(1)) ![](https://evil.example/beacon.png)",
    "<img src=x onerror=alert(1)><script>alert(1)</script><!-- <details>",
    "a | b\\| c \\\\| d",
    "`@octocat` ``` @octocat \\` @octocat",
    "&#96;@octocat&#124; &lt;b&gt;",
    "\\",
    "line\n| another | row |\n\n# heading\n\n* * *",
    "\u202egnp.exe \u200b @octo\u200bcat",
    "x" * 100_000,
    "",
]


class Shown(HTMLParser):
    """The cells of each row, the tags, and all text that is in no code span."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.bare = [], [], ""
        self._cell = self._code = False
        self.feed(cmarkgfm.github_flavored_markdown_to_html(text))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True
        self._code |= tag == "code"

    def handle_endtag(self, tag):
        self._code &= tag != "code"
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data
        if not self._code:
            self.bare += data


def of(name):
    """A report that has a name wherever it can."""
    return Report(
        name,
        (
            check(
                verdict("fail", "class", name, name),
                path=name,
                model=name,
                recipe=name,
                warnings=(NamedWarning(name, name, name),),
            ),
        ),
        failed=(Failed(name, name, 7),),
    )


def is_harmless(text):
    shown = Shown(text)
    assert [len(row) for row in shown.rows] == [COLUMNS] * 3
    assert set(shown.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    # Mentions and references become links after Markdown, in all text but code.
    assert not set("@#/:<>&") & set(shown.bare)
    assert "www." not in shown.bare
    assert len(text) < 5_000
    return True


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_hostile_name_is_shown_as_it_stands(name):
    assert is_harmless(render(of(name)))


@given(st.text(st.characters() | st.sampled_from("`|\\@#<&\n"), max_size=60))
def test_no_text_at_all_leaves_its_cell(name):
    assert is_harmless(render(of(name)))


def test_the_table_has_new_beside_accepted_and_the_gravest_first():
    rows = Shown(render(MIXED)).rows
    assert rows[0] == [
        "file",
        "verdict",
        "new top-1",
        "accepted",
        "flips",
        "images",
        "why",
    ]
    assert rows[1] == [
        "build/a.tflite",
        "❌ fail",
        "90.00 %",
        "91.00 %",
        "2.00 %",
        "1000",
        "cat regressed; ⚠️ other-isa",
    ]
    assert rows[2][:2] == ["build/b.onnx", "❓ inconclusive"]
    report = Report("x", (check(verdict("pass"), warnings=()), *MIXED.checks))
    assert [row[1] for row in Shown(render(report)).rows[1:]] == [
        "❌ fail",
        "❓ inconclusive",
        "✅ pass",
    ]
    assert Shown(render(report)).rows[3][-1] == ""


def test_more_reasons_are_counted():
    one = check(*[verdict("fail", "class", str(i), f"class {i}") for i in range(5)], warnings=())
    assert Shown(render(Report("x", (one,)))).rows[1][-1] == "class 0; 4 more"


def test_a_comment_has_at_most_what_github_takes():
    name = "é@`|" * 1000
    checks = (check(*[verdict("fail", "class", name, name)] * 3, path=name),) * 5_000
    text = render(Report(name, checks))
    assert len(text) < 60_000
    assert text.endswith("\n\n4960 more are in the summary of the run.\n")
    assert len(Shown(text).rows) == 41


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324])
def test_impossible_figures_stay_short(value):
    one = check(verdict("pass"), top1=value, accepted_top1=value, flips=value, images=2**63 - 1)
    assert is_harmless(render(Report("x", (one,), failed=(Failed("a", "b", 7),))))


def test_nothing_judged_is_said():
    assert render(Report("x")) == "No artifact was judged.\n"
