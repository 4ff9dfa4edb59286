from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts, records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import ColdStart, Report, Target
from mobiledeploy.steps import baseline
from mobiledeploy.steps.defaults import BASELINE, REPORT_FORMATS
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import bench, evaluate, report
from tests import figures, warm
from tests.pages import cold

pytest.importorskip("vl_convert", reason="no vl-convert-python (mobiledeploy[report])")


@pytest.fixture(scope="module")
def known(exported, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """The float and the int8 TFLite, and a folder whose store knows that they were judged.

    One of them was timed.
    """
    paths = [exported["float32", "tflite"], exported["int8_ptq", "tflite"]]
    folder = tmp_path_factory.mktemp("known")
    with contextlib.chdir(folder):
        with Store.open() as store:
            store.add_export("key", {str(path): artifacts.load(path) for path in paths})
        evaluate.evaluate(paths)
        bench.bench(paths[1:], runs=6)
    return paths, folder


@pytest.fixture
def kept(known: tuple[list[Path], Path], here: Path) -> list[Path]:
    """The paths; a copy of the store is in the current folder."""
    paths, folder = known
    shutil.copytree(folder, here, dirs_exist_ok=True)
    return paths


def test_what_is_gathered(kept: list[Path]) -> None:
    found = report.gather({}, title="t", detailed=True, reporter=SILENT)
    assert {(r.recipe, r.kind) for r in found.results} == {
        ("float32", ""),
        ("int8_ptq", "measured"),
    }
    assert all(r.mult_adds for r in found.results)
    details = {d.recipe: d for d in found.details}
    assert details["int8_ptq"].against == "float32.tflite"
    assert details["float32"].against == ""
    assert sum(n for _, n, _ in details["int8_ptq"].classes) == 13
    assert sum(x.value for x in details["int8_ptq"].profile) == found.results[0].mult_adds
    assert "cpu" in details["int8_ptq"].environment
    before, now = (evaluate.evaluate([path]).evaluations[0] for path in kept)
    flips = sum(
        a.classes[0] != b.classes[0]
        for a, b in zip(before.predictions, now.predictions, strict=True)
    )
    assert details["int8_ptq"].flipped == flips
    assert all(f.image.startswith("data:image/jpeg") for f in details["int8_ptq"].flips)


def test_the_newest_cold_start_of_each_target_is_gathered(kept: list[Path]) -> None:
    sha = artifacts.load(kept[1]).sha256
    older, newer, phone = (
        dataclasses.replace(cold("a", ns, device).cold_start, artifact_sha256=sha)
        for ns, device in ((9_000_000, "host"), (8_000_000, "host"), (7_000_000, "adb:1"))
    )
    with Store.open() as store:
        for one in (older, newer, phone, cold("f", 1_000_000).cold_start):
            store.add_cold_start(one)

    def gathered(**where: str) -> list[ColdStart]:
        found = report.gather(where, title="t", detailed=False, reporter=SILENT)
        return [stored.cold_start for stored in found.cold_starts]

    assert gathered() == [phone, newer]
    assert gathered(device="host") == gathered(kind="measured", device="host") == [newer]
    found = report.gather({}, title="t", detailed=False, reporter=SILENT)
    written = REPORTS.load("markdown").render(found)
    assert "| host | litert 2.1, native | 8 ms | 7.2 ms to 8.8 ms | 58.00 MB |" in written


@pytest.mark.parametrize("format_", REPORT_FORMATS)
def test_every_format_is_written(kept: list[Path], here: Path, format_: str) -> None:
    result = report.report(out=here / "out", format=format_)
    content = (here / "out").read_bytes()
    assert result.size_bytes == len(content)
    begins = {
        "png": b"\x89PNG",
        "svg": b"<svg",
        "html": b"<!doctype html>",
        "markdown": b"## ",
        "csv": b"made_at,",
        "json": b"{",
    }
    assert content.startswith(begins[format_])
    if format_ == "json":
        assert len(records.loads(Report, content).results) == 2


def test_a_site_has_the_difference_from_the_accepted_file(kept: list[Path], here: Path) -> None:
    folder = here / "site"
    answer = report.report(site=folder, title="ours")
    pages = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.html"))
    assert (answer.path, answer.format, answer.results) == (str(folder), "site", 2)
    assert answer.size_bytes == sum(
        p.stat().st_size for p in folder.rglob("*") if p.suffix in (".html", ".js")
    )
    assert len(pages) == 2 and pages[0] == "index.html"
    assert "Against the accepted files" not in (folder / pages[1]).read_text()
    # As if the float file had been accepted in the place of the int8 one.
    old, new = (artifacts.load(path) for path in kept)
    with Store.open() as store:
        before, now = (store.judgement(a.sha256) for a in (old, new))
    assert before is not None and now is not None
    entry = dataclasses.replace(baseline.entry(old, before), recipe="int8_ptq", seal="")
    entry = dataclasses.replace(entry, seal=baseline.seal(entry))
    baseline.write(Path(BASELINE), baseline.Baseline((entry,)))
    report.report(site=folder)
    text = (folder / pages[1]).read_text()
    assert "Against the accepted files" in text and "The layers that changed most" in text
    gathered = report.gather({}, title="t", detailed=False, reporter=SILENT)
    (difference,) = report._accepted(gathered, SILENT)
    assert (difference.artifact_sha256, difference.accepted_sha256) == (new.sha256, old.sha256)
    assert (difference.value, difference.accepted_value) == (now.top1, before.top1)
    assert difference.gain is not None and now.top1 is not None and before.top1 is not None
    assert difference.gain.value == pytest.approx(now.top1 - before.top1)
    assert difference.gain.low <= difference.gain.value <= difference.gain.high


def test_a_site_is_no_file_and_takes_no_folder_of_others(kept: list[Path], here: Path) -> None:
    for change in ({"out": "x.html"}, {"format": "csv"}):
        with pytest.raises(UsageError, match="a site has files of its own"):
            report.report(site=here / "site", **change)
    (here / "mine").mkdir()
    (here / "mine" / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and no site of mobiledeploy"):
        report.report(site=here / "mine")
    assert not (here / "site").exists()


def test_a_file_that_is_gone_is_done_without(kept: list[Path], here: Path, monkeypatch) -> None:
    with Store.open() as store:
        monkeypatch.setattr(type(store), "places", lambda _: (str(here / "gone.tflite"),))
        found = report.gather({}, title="t", detailed=True, reporter=SILENT)
    assert all(r.mult_adds is None for r in found.results)
    assert all(d.profile == () for d in found.details)


def test_nothing_to_report_is_said(here: Path) -> None:
    with pytest.raises(UsageError, match="nothing is kept"):
        report.report(out=here / "out")
    assert list(here.iterdir()) == []


def test_the_command_line(kept: list[Path], here: Path) -> None:
    argv = [warm.program(), "-m", "mobiledeploy", "report"]
    result = subprocess.run([*argv, "--kind", "measured"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("report.html: 1 figures")
    result = subprocess.run([*argv, "--site", "pages"], capture_output=True, text=True)
    assert (result.returncode, (here / "pages" / "index.html").exists()) == (0, True)
    assert result.stdout.startswith("pages: 2 figures")
    result = subprocess.run([*argv, "--device", "moon"], capture_output=True, text=True)
    assert (result.returncode, "no figure" in result.stderr) == (2, True)
    result = subprocess.run([*argv, "--out", "no/where/x.html"], capture_output=True, text=True)
    assert result.returncode == 2


@pytest.mark.parametrize("format_", ["html", "markdown", "csv", "json"])
def test_estimates_stand_beside_timings(here: Path, format_: str) -> None:
    phone = Target("adb:X", "native", "litert", 1, "xnnpack")
    for letter, ns, is_point in (("a", 1_100_000, False), ("b", 1_500_000, True)):
        one = figures.estimated(letter * 64, ns, interval_ns=(0.9 * ns, 1.1 * ns))
        fit = dataclasses.replace(one.fit, is_point=is_point)
        goal = Target("pixel-6", "none", "tflite", 1, "xnnpack")
        figures.keep(
            figures.artifact(letter * 64, f"<net-{letter}>"),
            dataclasses.replace(one, fit=fit, target=goal),
            figures.measured(
                letter * 64, 1_000_000, target=phone, facts_before={"model": "Pixel 6"}
            ),
        )
    written = report.report(out=here / "out", format=format_)
    text = (here / "out").read_text()
    assert written.results == 4
    if format_ == "csv":
        rows = {
            r["artifact_sha256"][0]: r
            for r in csv.DictReader(io.StringIO(text))
            if r["kind"] == "measured"
        }
        assert (rows["a"]["estimate_card"], rows["a"]["estimate_ns"]) == ("pixel-6", "1100000.0")
        assert float(rows["a"]["estimate_error"]) == pytest.approx(0.1)
    elif format_ == "json":
        (one,) = records.loads(Report, text).calibrations
        assert (one.card, one.counted, one.within, len(one.pairs)) == ("pixel-6", 1, 1, 2)
    else:
        assert "pixel-6, litert 2024 with xnnpack, int8, 1 thread" in text
        assert "1 of 1 network within the 95 % interval" in text
        assert "+10.0 %" in text
        assert "yes, a point" not in text
        assert "no, a point" in text
    if format_ == "html":
        # A plot without a script, in which no text is a user's.
        plot = text[text.index("<svg", text.index('id="calibrations"')) :]
        plot = plot[: plot.index("</svg>")]
        assert "net-a" not in plot
        assert "&lt;net-a&gt;" in text
        assert "<net-a>" not in text.partition('<script type="application/json"')[0]
