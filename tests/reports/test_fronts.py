"""What the reports say of accuracy: of which network, on which images."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.analysis import gate
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Answers, Report, Result
from mobiledeploy.reports import html

PHOTOS = {"data_source": "my/photos", "data_split": "all", "data_identity": "f" * 64}
DEMO = {"data_source": "demo", "data_split": "validation", "data_identity": "e" * 64}


def result(sha: str, ns: float, top1: float, **change: object) -> Result:
    return Result(
        "2026-01-01T00:00:00.000+00:00", sha * 64, "net", "float32", "tflite", 10**6, "measured",
        "host", "python", "litert", "2", 1, "none", ns, (ns, ns), None, top1, None, **change,
    )  # fmt: skip


REPORT = Report(
    "t",
    results=(
        result("a", 1e6, 0.9, weights="demo", weights_sha256="1" * 64, **DEMO),
        result("b", 2e6, 0.5, weights="run", weights_sha256="2" * 64, **PHOTOS),
    ),
)


def test_markdown_says_whose_weights_and_which_images() -> None:
    text = REPORTS.load("markdown").render(REPORT)
    assert "| net demo | float32.tflite | host | 1.00 MB | 90.0 % | demo validation |" in text
    assert "| net run 22222222 | float32.tflite | host | 1.00 MB | 50.0 % | photos ffffffff" in text


def test_svg_draws_each_data_set_on_axes_of_its_own() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    text = REPORTS.load("svg").render(REPORT)
    titles = re.findall(r">(Measured latency[^<]*)<", text)
    assert set(titles) == {
        "Measured latency (ms), judged on demo validation",
        "Measured latency (ms), judged on photos ffffffff",
    }


def answers(sha: str, right: list[bool]) -> Answers:
    packed = base64.b64encode(np.packbits(right).tobytes()).decode()
    return Answers(sha * 64, "s", len(right), packed)


TIED = Report(
    "t",
    results=(
        result("a", 1e6, 0.66, **DEMO), result("b", 2e6, 0.67, **DEMO),
        result("c", 3e6, 0.9, **DEMO),
    ),
    answers=tuple(
        answers(sha, [n < right for n in range(100)])
        for sha, right in (("a", 66), ("b", 67), ("c", 90))
    ),
)  # fmt: skip


def test_a_tie_is_drawn_off_the_front_with_its_interval() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    from mobiledeploy.reports import svg

    known = {a.artifact_sha256: a for a in TIED.answers}
    (plot, *_) = svg._of_pictures("x", list(TIED.results), known)
    data = {name.partition(" ")[0]: rows for name, rows in plot["datasets"].items()}
    assert [p["top1"] for p in data["front"]] == [66, 90]
    (tie,) = data["ties"]
    low, high = gate.bounds(0, 1, 100)
    assert (tie["top1"], tie["low"], tie["high"]) == (67, 66 - 100 * high, 66 - 100 * low)
    assert "stroke-dasharray" in REPORTS.load("svg").render(TIED)


PAGE = """
const [,, script, data] = process.argv, fs = await import("node:fs"), made = {}, drawn = {};
const get = (id) => made[id] ??= {
  value: "", dataset: {}, textContent: "", listeners: {},
  add(option) { if (!this.options) this.value = option.value; this.options = true; },
  addEventListener() {}, append() {}, replaceChildren() {},
};
get("data").textContent = fs.readFileSync(data, "utf8");
globalThis.Option = class { constructor(text, value) { Object.assign(this, { text, value }); } };
globalThis.window = { addEventListener() {} };
globalThis.vegaEmbed = async (id, spec) => { drawn[id] = spec.datasets; return { view: {} }; };
const createElement = () => get("new"), body = get("body");
globalThis.document = { getElementById: get, querySelector: get, createElement, body };
await import("data:text/javascript," + encodeURIComponent(fs.readFileSync(script, "utf8")));
console.log(JSON.stringify({ drawn, said: get("#plot-measured figcaption").textContent }));
"""


def test_the_page_draws_ties_by_the_same_interval(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node (apt install nodejs)")
    text = REPORTS.load("html").render(TIED)
    (tmp_path / "data.json").write_text(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    (tmp_path / "page.mjs").write_text(PAGE)
    script = Path(html.__file__).with_name("page") / "page.js"
    done = subprocess.run(
        [node, tmp_path / "page.mjs", script, tmp_path / "data.json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    plot = said["drawn"]["#view-measured"]
    assert [p["top1"] for p in plot["front"]] == [66, 90]
    (tie,) = plot["ties"]
    low, high = gate.bounds(0, 1, 100)
    assert tie["low"] == pytest.approx(66 - 100 * high, abs=1e-9)
    assert tie["high"] == pytest.approx(66 - 100 * low, abs=1e-9)
    assert "net float32.tflite, 67 %, a tie with the cheaper one beside it: +1.0" in said["said"]


def test_the_page_knows_them_too() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    text = REPORTS.load("html").render(REPORT)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["words"]["pictures"] == ["demo validation", "photos ffffffff"]
    assert data["words"]["model"] == ["net demo", "net run 22222222"]
    assert data["columns"]["pictures"] == [0, 1]
