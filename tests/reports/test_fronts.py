"""Accuracy in the reports names its network and its images."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobiledeploy.analysis import gate
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Answers, Report, Result
from mobiledeploy.reports import html

PHOTOS = {"data_source": "my/photos", "data_split": "all", "data_identity": "f" * 64}
DEMO = {"data_source": "demo", "data_split": "validation", "data_identity": "e" * 64}


def result(sha: str, ns: float, top1: float, **change: object) -> Result:
    metric = {"task": "classification", "metric": "top1", "value": top1}
    return Result(
        "2026-01-01T00:00:00.000+00:00",
        sha * 64,
        "net",
        "float32",
        "tflite",
        10**6,
        "measured",
        "host",
        "python",
        "litert",
        "2",
        1,
        "none",
        ns,
        (ns, ns),
        None,
        top1,
        None,
        **(metric | change),
    )


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


def test_reports_tell_files_of_other_ends_apart() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    both = Report(
        "t",
        results=(
            result("a", 1e6, 0.9, io="int8", **DEMO),
            result("b", 2e6, 0.8, io="uint8", **DEMO),
        ),
    )
    text = REPORTS.load("markdown").render(both)
    assert "| float32.tflite |" in text and "| float32.tflite uint8 |" in text
    text = REPORTS.load("html").render(both)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["words"]["format"] == ["tflite", "tflite uint8"]
    assert "tflite uint8" in REPORTS.load("svg").render(both)


def test_svg_draws_each_data_set_on_axes_of_its_own() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    text = REPORTS.load("svg").render(REPORT)
    titles = re.findall(r">(Measured latency[^<]*)<", text)
    assert set(titles) == {
        "Measured latency (ms), judged on demo validation",
        "Measured latency (ms), judged on photos ffffffff",
    }


def test_a_shape_tells_the_device_where_there_are_several() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    small, large = "emulator:cortex-a53", "emulator:cortex-a76"
    counts = [replace(REPORT.results[0], device=device) for device in (small, large)]
    text = REPORTS.load("svg").render(Report("t", results=tuple(counts)))
    assert "Format and device" in text
    assert "tflite, cortex-a53" in text and "tflite, cortex-a76" in text
    assert "Format and device" not in REPORTS.load("svg").render(
        Report("t", results=tuple(counts[:1]))
    )


def answers(sha: str, right: list[bool]) -> Answers:
    packed = base64.b64encode(np.packbits(right).tobytes()).decode()
    return Answers(sha * 64, "s", len(right), packed)


TIED = Report(
    "t",
    results=(
        result("a", 1e6, 0.66, **DEMO),
        result("b", 2e6, 0.67, **DEMO),
        result("c", 3e6, 0.9, **DEMO),
    ),
    answers=tuple(
        answers(sha, [n < right for n in range(100)])
        for sha, right in (("a", 66), ("b", 67), ("c", 90))
    ),
)


def test_a_tie_is_drawn_off_the_front_with_its_interval() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    from mobiledeploy.reports import svg

    known_values = {a.artifact_sha256: a for a in TIED.answers}
    (plot, *_) = svg._of_images("x", list(TIED.results), known_values)
    data = {name.partition(" ")[0]: rows for name, rows in plot["datasets"].items()}
    assert [p["value"] for p in data["front"]] == [66, 90]
    (tie,) = data["ties"]
    low, high = gate.bounds(0, 1, 100)
    assert (tie["value"], tie["low"], tie["high"]) == (67, 66 - 100 * high, 66 - 100 * low)
    assert "stroke-dasharray" in REPORTS.load("svg").render(TIED)


# b, c, d and e have the same mult-adds. d is the best of them; only b ties with it.
LEVEL = Report(
    "t",
    results=tuple(
        result(sha, ns, right / 100, mult_adds=adds, **DEMO)
        for sha, ns, right, adds in (
            ("a", 1e6, 50, 10**6),
            ("b", 2e6, 66, 2 * 10**6),
            ("c", 3e6, 55, 2 * 10**6),
            ("d", 4e6, 67, 2 * 10**6),
            ("e", 5e6, 49, 2 * 10**6),
            ("f", 6e6, 90, 3 * 10**6),
        )
    ),
    answers=tuple(
        answers(sha, [n < right for n in range(100)])
        for sha, right in (("a", 50), ("b", 66), ("c", 55), ("d", 67), ("e", 49), ("f", 90))
    ),
)


def test_a_tie_of_equal_cost_is_drawn_too() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    from mobiledeploy.reports import svg

    known_values = {a.artifact_sha256: a for a in LEVEL.answers}
    *_, plot = svg._of_images("x", list(LEVEL.results), known_values)
    data = {name.partition(" ")[0]: rows for name, rows in plot["datasets"].items()}
    assert [(p["x"], p["value"]) for p in data["front"]] == [(1, 50), (2, 67), (3, 90)]
    (tie,) = data["ties"]
    low, high = gate.bounds(1, 0, 100)
    assert (tie["x"], tie["value"]) == (2, 66)
    assert (tie["low"], tie["high"]) == (67 - 100 * high, 67 - 100 * low)


PAGE = """
const [,, script, data] = process.argv, fs = await import("node:fs"), made = {}, drawn = {};
const get = (id) => made[id] ??= {
  value: "", dataset: {}, textContent: "", listeners: {},
  setAttribute() {},
  add(option) { if (!this.options) this.value = option.value; this.options = true; },
  addEventListener() {}, append() {}, replaceChildren() {},
  getBoundingClientRect: () => ({ top: 0, bottom: 1 }),
};
get("data").textContent = fs.readFileSync(data, "utf8");
globalThis.Option = class { constructor(text, value) { Object.assign(this, { text, value }); } };
Object.assign(globalThis, { innerHeight: 100, window: { addEventListener() {} } });
globalThis.vegaEmbed = async (id, spec) => { drawn[id] = spec.datasets; return { view: {} }; };
const createElement = () => get("new"), body = get("body");
globalThis.document = { getElementById: get, querySelector: get, createElement, body };
await import("data:text/javascript," + encodeURIComponent(fs.readFileSync(script, "utf8")));
while (!body.dataset.ready) await new Promise((later) => setTimeout(later));
const said = (name) => get(`#plot-${name} figcaption`).textContent;
console.log(JSON.stringify({ drawn, said: said("measured"), level: said("multadds") }));
"""


def drawn(report: Report, folder: Path) -> dict[str, Any]:
    """The plots of the page's own script, and the text below them."""
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node (apt install nodejs)")
    text = REPORTS.load("html").render(report)
    (folder / "data.json").write_text(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    (folder / "page.mjs").write_text(PAGE)
    script = Path(html.__file__).with_name("templates") / "page.js"
    process = subprocess.run(
        [node, folder / "page.mjs", script, folder / "data.json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_the_page_draws_ties_by_the_same_interval(tmp_path: Path) -> None:
    message = drawn(TIED, tmp_path)
    plot = message["drawn"]["#view-measured"]
    assert [p["value"] for p in plot["front"]] == [66, 90]
    (tie,) = plot["ties"]
    low, high = gate.bounds(0, 1, 100)
    assert tie["low"] == pytest.approx(66 - 100 * high, abs=1e-9)
    assert tie["high"] == pytest.approx(66 - 100 * low, abs=1e-9)
    assert "net float32.tflite, 67 %, a tie with the cheaper one beside it: +1.0" in message["said"]


def test_the_page_draws_ties_of_equal_cost(tmp_path: Path) -> None:
    message = drawn(LEVEL, tmp_path)
    plot = message["drawn"]["#view-multadds"]
    assert [(p["x"], p["value"]) for p in plot["front"]] == [(1, 50), (2, 67), (3, 90)]
    (tie,) = plot["ties"]
    low, high = gate.bounds(1, 0, 100)
    assert (tie["x"], tie["value"]) == (2, 66)
    assert tie["low"] == pytest.approx(67 - 100 * high, abs=1e-9)
    assert tie["high"] == pytest.approx(67 - 100 * low, abs=1e-9)
    assert "6 points, 4 on the front" in message["level"]
    assert (
        "net float32.tflite, 66 %, a tie with the best of the same cost: -1.0" in message["level"]
    )


def test_the_page_knows_them_too() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    text = REPORTS.load("html").render(REPORT)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["words"]["images"] == ["demo validation", "photos ffffffff"]
    assert data["words"]["model"] == ["net demo", "net run 22222222"]
    assert data["columns"]["images"] == [0, 1]
