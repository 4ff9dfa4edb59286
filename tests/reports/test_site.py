"""The pages of a site, as text: links, leaderboards, and what is said of accepted files."""

from __future__ import annotations

import base64
import dataclasses
import re
import time
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest

from mobiledeploy.core.display import Table
from mobiledeploy.core.types import (
    AcceptedDifference,
    Answers,
    Gain,
    Metric,
    Report,
    Result,
    StoredVerdict,
)

pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
pytest.importorskip("jinja2", reason="no jinja2 (mobiledeploy[report])")

from mobiledeploy.reports import _site, html

HOSTILE = """</a><script>alert(1)</script>"'javascript:alert(2)//../../x"""


def result(sha: str, right: int, **change: object) -> Result:
    """A file that classifies `right` of 100 images correctly, in 1 ms."""
    row = Result(
        "2026-01-01T00:00:00.000+00:00",
        sha * 64,
        f"net_{sha}",
        "int8_ptq",
        "tflite",
        1_000_000,
        "measured",
        "host",
        "python",
        "litert",
        "2.1",
        1,
        "none",
        1e6,
        (0.9e6, 1.1e6),
        None,
        right / 100,
        None,
        task="classification",
        metric="top1",
        value=right / 100,
        images=100,
        data_source="my/photos",
        data_identity="9" * 64,
    )
    return dataclasses.replace(row, **change)


def answers(sha: str, right: int) -> Answers:
    bits = np.packbits([n < right for n in range(100)]).tobytes()
    return Answers(sha * 64, "s", 100, base64.b64encode(bits).decode())


RIGHT = {"a": 66, "b": 91, "c": 90, "d": 65}
REPORT = Report(
    "Our models",
    results=tuple(result(sha, right) for sha, right in RIGHT.items()),
    answers=tuple(answers(sha, right) for sha, right in RIGHT.items()),
    verdicts=(
        StoredVerdict("2026-01-02T00:00:00", "a" * 64, "check", "golden", "fail", "a differs"),
        StoredVerdict("2026-01-02T00:00:00", "b" * 64, "check", "golden", "pass", "b is the same"),
    ),
)
ACCEPTED = AcceptedDifference(
    *("net_a", "int8_ptq", "tflite", "a" * 64, "e" * 64, 1_000_000, 2_000_000),
    *(Metric("top1", "top-1", "share"), 0.66, 0.7, Gain(-0.04, -0.08, -0.01)),
    Table(("layer", "operator"), (("x" * 30 + "first/" + "y" * 30, "Conv"),)),
)


class Elements(HTMLParser):
    """Links, and all texts outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_script = tag in ("script", "style")
        self.links += [v or "" for name, v in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if not self._in_script:
            self.texts.append(data)


def resolved(page: str, link: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / link).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


@pytest.mark.parametrize("model", ["net", HOSTILE, "\x00\ud800", "..", "é" * 300])
def test_every_link_leads_to_a_page(model: str) -> None:
    rows = (*REPORT.results, result("f", 50, model=model), result("e", 50, model=""))
    pages = dict(html.pages(dataclasses.replace(REPORT, results=rows), ()))
    assert list(pages)[-1] == "index.html"
    # A file without a model has no page of its own.
    assert len(pages) == 2 + len(RIGHT) + 1
    for path, text in pages.items():
        assert re.fullmatch(r"(models/)?[a-z0-9][a-z0-9-]*\.(html|js)", path), path
        if path.endswith(".html"):
            links = [link for link in Elements(text).links if not link.startswith("#")]
            assert links and {resolved(path, link) for link in links} <= pages.keys()


def test_names_that_differ_only_in_signs_have_pages_of_their_own() -> None:
    assert len({_site.page_of(name) for name in ("a b", "a-b", "A b", "a_b")}) == 4


def test_the_leaderboard_shares_places_among_ties() -> None:
    (board,) = _site.leaderboards(REPORT)
    assert board.heading == "photos 99999999"
    assert [(row.rank, row.name[:5]) for row in board.rows] == [
        (1, "net_b"),
        (1, "net_c"),
        (3, "net_a"),
        (3, "net_d"),
    ]
    assert [bool(row.tie) for row in board.rows] == [False, True, False, True]
    assert board.rows[1].tie.startswith("-1.0 points (") and board.rows[1].tie.endswith("a tie")
    assert board.rows[0].interval == "83.6 to 95.8 %"
    assert board.rows[0].costs == (("1 ms", "0.9 to 1.1 ms"),)


def test_without_answers_equal_figures_share_a_place() -> None:
    rows = (result("a", 90), result("b", 90), result("c", 80))
    (board,) = _site.leaderboards(Report("x", results=rows))
    assert [row.rank for row in board.rows] == [1, 1, 3]


def test_of_errors_the_least_is_the_best() -> None:
    change: dict[str, Any] = {"task": "regression", "metric": "mae", "top1": None}
    rows = (result("a", 90, **change), result("b", 20, **change), result("c", 80))
    boards = _site.leaderboards(Report("x", results=rows))
    assert [(b.metric, [row.name[:5] for row in b.rows]) for b in boards] == [
        ("MAE", ["net_b", "net_a"]),
        ("top-1", ["net_c"]),
    ]
    assert boards[0].rows[0].interval == "–"


def test_the_page_of_a_model_has_what_is_its_own() -> None:
    pages = dict(html.pages(REPORT, [ACCEPTED]))
    text = "\n".join(Elements(pages[_site.page_of("net_a")]).texts)
    assert "a differs" in text and "b is the same" not in text
    for part in ("-50.0 %", "66.00 %", "70.00 %", "-4.0 points (-8.0 to -1.0)"):
        assert part in text
    assert "first/" not in text and f"{'x' * 21}…{'y' * 22}" in text
    other = "\n".join(Elements(pages[_site.page_of("net_b")]).texts)
    assert "b is the same" in other and "Against the accepted files" not in other
    unchanged = dataclasses.replace(ACCEPTED, layers=Table(("layer",), ()))
    text = dict(html.pages(REPORT, [unchanged]))[_site.page_of("net_a")]
    assert "Every layer has the same type and weights" in text
    same = dataclasses.replace(ACCEPTED, accepted_sha256="a" * 64)
    text = dict(html.pages(REPORT, [same]))[_site.page_of("net_a")]
    assert "this is the accepted file" in text


def test_hostile_names_are_no_markup() -> None:
    changes = dict.fromkeys(("recipe", "format", "device", "runtime", "data_source"), HOSTILE)
    rows = [dataclasses.replace(r, model=HOSTILE, **changes) for r in REPORT.results]
    table = Table((HOSTILE,), ((HOSTILE,),))
    accepted = dataclasses.replace(
        ACCEPTED, model=HOSTILE, recipe=HOSTILE, metric=Metric("m", HOSTILE, "share"), layers=table
    )
    plain = dict(html.pages(REPORT, [ACCEPTED]))
    hostile = dict(html.pages(dataclasses.replace(REPORT, results=tuple(rows)), [accepted]))
    for path in ("index.html", _site.page_of(HOSTILE)):
        found = Elements(hostile[path])
        model = Elements(plain["index.html" if path == "index.html" else _site.page_of("net_a")])
        assert set(found.tags) <= set(model.tags)
        assert found.tags.count("script") == model.tags.count("script") == 3
        assert not [link for link in found.links if ":" in link]


@pytest.mark.slow
def test_a_hundred_thousand_figures_of_fifty_models() -> None:
    rows = tuple(
        result("a", 50 + n % 40, artifact_sha256=f"{n % 1000:064x}", model=f"net_{n % 50}")
        for n in range(100_000)
    )
    start = time.perf_counter()
    pages = dict(html.pages(Report("many", results=rows), ()))
    seconds = time.perf_counter() - start
    largest = max(map(len, pages.values()))
    print(f"{len(pages)} files in {seconds:.1f} s, the largest of {largest / 1e6:.1f} MB")
    assert seconds < 60
    assert largest < 15e6
