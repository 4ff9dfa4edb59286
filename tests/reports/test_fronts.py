"""What the reports say of accuracy: of which network, on which images."""

from __future__ import annotations

import json
import re

import pytest

from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Report, Result

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


def test_the_page_knows_them_too() -> None:
    pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")
    text = REPORTS.load("html").render(REPORT)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["words"]["pictures"] == ["demo validation", "photos ffffffff"]
    assert data["words"]["model"] == ["net demo", "net run 22222222"]
    assert data["columns"]["pictures"] == [0, 1]
