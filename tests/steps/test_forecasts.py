from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import CardCalibration, Estimated, Forecast, Target
from mobiledeploy.steps import forecasts
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import results
from tests import figures

PHONE = Target("adb:X", "native", "litert", 4, "xnnpack")
CARD = Target("pixel-3", "none", "tflite", 4, "none")
SHA = figures.SHA


def timed(
    ns: int, sha: str = SHA, model: str = "Pixel 3", name: str = "net", **change: object
) -> None:
    target = dataclasses.replace(PHONE, **change)
    timing = figures.measured(sha, ns, target=target, facts_before={"model": model})
    figures.keep(figures.artifact(sha, name), timing)


def estimate(
    ns: float, sha: str = SHA, is_point: bool | None = False, reach: float = 1.2, **change: object
) -> Estimated:
    one = figures.estimated(sha, ns, interval_ns=(ns / reach, ns * reach))
    fit = dataclasses.replace(
        one.fit, runtime="tflite", year=2019, precision="float32", is_point=is_point
    )
    one = dataclasses.replace(one, fit=fit, target=dataclasses.replace(CARD, **change))
    figures.keep(one)
    return one


def beside() -> Forecast | None:
    """What stands beside the timing in `results`."""
    (row,) = results.results(kind="measured").results
    return row.forecast


def calibrations() -> tuple[CardCalibration, ...]:
    with Store.open() as database:
        return forecasts.calibrations(database, database.results(newest=True))


def test_an_estimate_stands_beside_the_timing_that_came_later(here: Path) -> None:
    one = estimate(1_100_000.0)
    timed(1_000_000)
    forecast = beside()
    assert forecast is not None
    assert (forecast.card, forecast.series) == ("pixel-3", "tflite 2019, float32, 4 threads")
    assert (forecast.latency_ns, forecast.interval_ns) == (one.latency_ns, one.interval_ns)
    assert forecast.error == pytest.approx(0.1)
    assert forecast.within
    listed = results.results()
    # Nothing is estimated of an estimate.
    assert [r.forecast is None for r in listed.results] == [False, True]
    (table,) = listed.tables()
    place = table.headers.index("error")
    assert [row[place] for row in table.rows] == ["+10.0 %", "–"]
    assert table.headers[place - 1] == "estimated"


def test_without_an_estimate_the_table_is_as_it_was(here: Path) -> None:
    timed(1_000_000)
    assert beside() is None
    assert "error" not in results.results().tables()[0].headers
    assert calibrations() == ()


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 1},
        {"delegate": "gpu"},
        {"device": "pixel-6"},
        # Of a card that is gone.
        {"device": "no-card"},
        {"sha": "b" * 64},
    ],
)
def test_an_estimate_of_something_else_is_left_out(here: Path, change) -> None:
    timed(1_000_000)
    estimate(1_100_000.0, **change)
    assert beside() is None
    assert calibrations() == ()


def test_the_cards_own_points_are_shown_and_not_counted(here: Path) -> None:
    shas = [letter * 64 for letter in "abcd"]
    for sha, is_point in zip(shas, (False, False, True, None), strict=True):
        timed(1_000_000, sha, name=f"net_{sha[0]}")
        estimate(1_100_000.0 if sha != shas[1] else 1_300_000.0, sha, is_point)
    (one,) = calibrations()
    assert (one.card, one.series) == ("pixel-3", "tflite 2019, float32, 4 threads")
    assert (one.counted, one.within, len(one.pairs)) == (2, 1, 4)
    assert one.bias == pytest.approx(0.2)
    assert one.rmspe == pytest.approx((0.05) ** 0.5)
    assert one.coverage is not None
    assert one.coverage[0] < 0.5 < one.coverage[1]
    (table,) = one.tables()
    assert sorted(row[-1] for row in table.rows) == [
        "no",
        "yes",
        "yes, a point",
        "yes, perhaps a point",
    ]
    assert "1 of 2 networks within the 95 % interval" in table.title
    assert "RMSPE 22.4 %, median error +20.0 %" in table.title


def test_files_of_one_network_count_once(here: Path) -> None:
    for number in range(6):
        timed(1_000_000 + number, str(number) * 64)
        estimate(1_300_000.0, str(number) * 64)
    (one,) = calibrations()
    assert (one.counted, one.within, len(one.pairs)) == (1, 0, 6)
    assert one.bias == pytest.approx(1_300_000 / 1_000_005 - 1)
    assert one.coverage is not None
    # One network out of its interval says little about the others.
    assert one.coverage[1] > 0.9


def test_an_estimate_of_before_the_network_was_a_point_stays(here: Path) -> None:
    timed(1_000_000)
    estimate(1_300_000.0)
    estimate(1_050_000.0)
    estimate(1_000_000.0, is_point=True)
    forecast = beside()
    assert forecast is not None
    # The newest of those that could not know.
    assert forecast.latency_ns == 1_050_000.0
    (one,) = calibrations()
    assert one.counted == 1


def test_the_newest_timing_of_a_file_counts_once(here: Path) -> None:
    estimate(1_000_000.0)
    timed(2_000_000)
    timed(1_000_000)
    (one,) = calibrations()
    assert [(pair.latency_ns, pair.forecast.error) for pair in one.pairs] == [(1e6, 0.0)]
    errors = [r.forecast and r.forecast.error for r in results.results(kind="measured").results]
    assert errors == [0.0, -0.5]


def test_each_card_and_series_has_a_curve(here: Path) -> None:
    timed(1_000_000, model="Pixel 6", threads=1)
    estimate(1_000_000.0, device="pixel-6", threads=1)
    two = dataclasses.replace(
        figures.estimated(SHA, 2e6), target=dataclasses.replace(CARD, device="pixel-6", threads=1)
    )
    figures.keep(two)
    assert [(c.card, c.series) for c in calibrations()] == [
        ("pixel-6", "litert 2024, int8, 1 thread"),
        ("pixel-6", "tflite 2019, float32, 1 thread"),
    ]


def test_a_missing_estimate_is_made_from_the_file(here: Path, exported, monkeypatch, heard) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    path, unlike = exported["float32", "tflite"], exported["int8_ptq", "tflite"]
    kept = [artifacts.load(file) for file in (path, unlike)]
    for artifact in kept:
        timed(1_000_000, artifact.sha256, model="")
    figures.write_card(path, "adb:X", threads=4)
    with Store.open() as database:
        for file, artifact in zip((path, unlike), kept, strict=True):
            database.add_export("key", {str(file): artifact})
    (one,) = results.results_calibration(reporter=heard).calibrations
    assert one.card == "mine"
    (pair,) = one.pairs
    assert (pair.artifact_sha256, pair.forecast.is_point) == (kept[0].sha256, False)
    (line,) = [line for line in heard.said if "no estimate" in line]
    assert line.startswith(f"no estimate of {unlike} for adb:X: mine has no points of int8")
    again = results.results_calibration(device="adb:X", reporter=SILENT).calibrations
    assert again == (one,)
    assert results.results_calibration(device="host", reporter=SILENT).calibrations == ()
    # It is kept, once.
    assert sorted(r.kind for r in results.results().results) == ["estimated", *["measured"] * 2]
    (listed,) = results.results(kind="measured", artifact=kept[0].sha256).results
    assert listed.forecast == pair.forecast


def test_no_store_is_refused(here: Path) -> None:
    with pytest.raises(UsageError, match="nothing is kept"):
        results.results_calibration()
