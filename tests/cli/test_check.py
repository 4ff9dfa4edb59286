"""`mobiledeploy check` as a user and a CI system see it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.types import Report
from tests import warm
from tests.figures import of_another_file


def run(*argv: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


BASELINE = "mobiledeploy-baseline.json"


@pytest.fixture(scope="module")
def accepted(exported, tmp_path_factory) -> Path:
    """A baseline with the figures of int8_ptq.tflite, as if they were those of another file."""
    folder = tmp_path_factory.mktemp("accepted")
    argv = ("check", exported["int8_ptq", "tflite"], "--update-baseline")
    with contextlib.chdir(folder):
        result = run(*argv)
    assert result.returncode == 0, result.stderr
    assert "v1 int8_ptq tflite: new, top-1" in result.stdout
    assert "v1 float32 tflite: new, top-1" in result.stdout
    assert f"{BASELINE} is written: commit it" in result.stdout
    of_another_file(folder / BASELINE)
    return folder / BASELINE


@pytest.fixture
def path(exported, accepted, here) -> Path:
    """An artifact whose baseline stands in the current folder; thirteen images decide nothing."""
    shutil.copy(accepted, here)
    artifact: Path = exported["int8_ptq", "tflite"]
    return artifact


def test_too_few_images_are_inconclusive_and_every_report_says_so(path, here):
    result = run(
        "check",
        path,
        "--github",
        "--junit",
        "check.xml",
        "--markdown",
        "check.md",
        GITHUB_STEP_SUMMARY=str(here / "summary.md"),
    )
    assert result.returncode == 3, result.stderr
    head, row = result.stdout.splitlines()[:2]
    assert head.split()[:3] == ["file", "verdict", "images"]
    assert row.split()[:3] == [str(path), "inconclusive", "13"]
    assert "about 361 images like these would decide (13 here)" in result.stdout
    assert "::warning title=" in result.stderr
    suites = ElementTree.parse("check.xml").getroot()
    assert int(suites.get("errors", "")) == 1
    assert Path("summary.md").read_text() == Path("check.md").read_text()
    result = run("check", path, "--on-inconclusive", "warn")
    assert result.returncode == 0
    assert "[inconclusive]" in result.stderr


def test_json_is_one_record_and_fail_wins_over_inconclusive(path):
    result = run("check", path, "--json", "-q", "--floor", "99.5")
    assert result.returncode == 1
    report = records.loads(Report, result.stdout)
    assert report.checks[0].outcome == "fail"
    assert json.loads(result.stdout)["schema_version"] == records.SCHEMA_VERSION
    assert {v.metric for v in report.checks[0].verdicts} == {"accuracy", "float", "floor"}


def test_an_update_prints_what_changes(path):
    assert "the same file" not in run("check", path, "--update-baseline").stdout
    result = run("check", path, "--update-baseline")
    assert result.returncode == 0
    assert "0 of 13 answers changed, the same file" in result.stdout
    assert "float32" not in result.stdout


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("--baseline", "none.json"), 6, "--baseline none.json --update-baseline"),
        (("--input-range", "0,1"), 7, "input_range: 0,1, not 0,255; mean: 0,0,0, not 127,127,127"),
        (("--margin", "0"), 2, "0.0 is not in the range"),
        (("--junit", "nowhere/check.xml"), 2, "no folder nowhere"),
        (("--runtime", "onnxruntime"), 2, "onnxruntime runs .onnx files"),
        (("--baseline", "broken.json"), 7, "is not JSON"),
        (("--labels", "stale.txt"), 7, "line 1 is 'b', not 'a', and 1 more"),
    ],
)
def test_what_cannot_be_compared_is_one_line(path, argv, code, message):
    Path("broken.json").write_text('{"schema_version": 1')
    Path("stale.txt").write_text("\n".join("bacdefghijkl"))
    result = run("check", path, *argv)
    assert result.returncode == code
    assert message in result.stderr
    assert len([ln for ln in result.stderr.splitlines() if ln.startswith("error: ")]) == 1


def test_a_broken_file_does_not_lose_the_verdicts_of_the_others(path, exported, here):
    sound = exported["float32", "tflite"]
    Path("junk.tflite").write_bytes(b"junk")
    options = ("check", "junk.tflite", path, sound, exported["float32", "onnx"])
    result = run(*options, "--junit", "check.xml", "--json", "-q")
    assert result.returncode == 7, result.stderr
    report = records.loads(Report, result.stdout)
    assert [check.path for check in report.checks] == [str(path), str(sound)]
    # Without a record, and without an entry of the baseline.
    assert [(f.what, f.exit_code) for f in report.failed] == [
        ("junk.tflite", 7),
        (str(exported["float32", "onnx"]), 6),
    ]
    assert ElementTree.parse("check.xml").getroot().get("errors") is not None
    assert result.stderr.count("error: ") == 2

    before = Path("mobiledeploy-baseline.json").read_bytes()
    result = run(*options, "--update-baseline")
    assert result.returncode == 7
    assert Path("mobiledeploy-baseline.json").read_bytes() == before


def test_an_interrupted_update_leaves_the_baseline_as_it_was(path):
    before = Path("mobiledeploy-baseline.json").read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "mobiledeploy", "check", str(path), "--update-baseline"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    # Its runners are its children: the work has begun.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text().split():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert message.decode().splitlines()[-1] == "interrupted"
    assert Path("mobiledeploy-baseline.json").read_bytes() == before
