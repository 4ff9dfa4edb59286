from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts, device_cards
from mobiledeploy.core.device_cards import Workload
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import Measured, Target
from mobiledeploy.steps import estimate
from mobiledeploy.store.database import Store
from mobiledeploy.verbs.calibrate import calibrate


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def works(monkeypatch) -> dict[str, Workload]:
    """A dozen networks by the name of their file: reading one is not what is tested here."""
    made = {}
    for index in range(12):
        size = 1 + index
        made[f"m{index}"] = Workload(
            "net", 30 * size, 25 * size, 5 * size, 40 + size * size % 17, 9 + 3 * (index % 5), 7
        )
    monkeypatch.setattr(estimate, "read", lambda path, family: ("float32", made[path.stem]))
    return made


def latency_ms(work: Workload) -> float:
    return (2 * work.dense + 3 * work.activations + work.kernels) / 10


def table(folder: Path, works: dict[str, Workload], count: int = 12) -> Path:
    path = folder / "measured.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "latency_ms", "family"])
        for name, work in list(works.items())[:count]:
            writer.writerow([f"{name}.tflite", latency_ms(work), "net"])
    return path


def test_a_table_becomes_a_card_that_estimates(tmp_path, works) -> None:
    made = calibrate("mine", csv=table(tmp_path, works), threads=4, title="My phone")
    (judged,) = made.series
    assert (judged.points, judged.series) == (12, "tflite, float32, 4 threads")
    assert judged.rmspe < 0.1 < judged.mult_adds_rmspe
    card = device_cards.load("mine")
    assert card == made.card
    assert card.title == "My phone"
    assert Path(made.path).parent == device_cards.user_folder()
    (choice,) = estimate.choices(card)
    fitted = estimate.fitted(choice, "net").model
    for work in works.values():
        expected = fitted.predict(len(choice.like), work).latency_ns
        assert expected == pytest.approx(latency_ms(work) * 1e6, rel=0.05)


def test_measurements_of_the_store_become_a_card(exported, here, works, monkeypatch) -> None:
    paths = [exported["float32", "tflite"], exported["float16", "tflite"]]
    with pytest.raises(UsageError, match="was not measured on host in this folder"):
        calibrate("mine", paths)
    target = Target("adb:X", "native", "litert", 4, "xnnpack")
    with Store.open() as store:
        for number, path in enumerate(paths):
            # The newest counts.
            for median in (1.0, 5e6 + number):
                store.add_measurement(measured(path, target, median))
    monkeypatch.setattr(estimate, "read", lambda path, family: ("float32", works["m1"]))
    with pytest.raises(UsageError, match="was not measured on host"):
        calibrate("mine", paths)
    # Other cards give XNNPACK its form.
    made = calibrate("mine", paths, device="adb:X")
    (series,) = made.card.series
    assert (series.runtime, series.delegate, series.threads) == ("litert", "xnnpack", 4)
    assert [point.latency_ns for point in series.points] == [5_000_000, 5_000_001]


def measured(path: Path, target: Target, median_ns: float) -> Measured:
    return Measured(
        artifacts.load(path).sha256,
        target,
        "2.1",
        (1,) * 6,
        (1,),
        median_ns,
        (median_ns, median_ns),
        1,
        None,
        None,
        {},
        {},
    )


def test_too_few_points_of_a_kind_are_refused_or_left_out(tmp_path, works, monkeypatch) -> None:
    with pytest.raises(UsageError, match="8 points of 6 networks make a model, and there are 7 of"):
        calibrate("mine", csv=table(tmp_path, works, count=7), runtime="own")
    assert not device_cards.user_folder().exists()
    kinds = {name: "int8" if name in ("m3", "m7") else "float32" for name in works}
    monkeypatch.setattr(estimate, "read", lambda path, family: (kinds[path.stem], works[path.stem]))
    made = calibrate("mine", csv=table(tmp_path, works), runtime="own")
    assert [judged.points for judged in made.series] == [10]
    (warning,) = made.warnings
    assert "left out: 2 of 2 networks for own none, int8, 1 thread" in warning.message


def test_one_point_makes_a_card_where_other_cards_know_the_engine(tmp_path, works) -> None:
    made = calibrate("mine", csv=table(tmp_path, works, count=1))
    (judged,) = made.series
    # Without the point, nothing tells the speed.
    assert (judged.points, judged.rmspe, judged.mult_adds_rmspe) == (1, None, None)
    assert "–" in made.tables()[0].rows[0]
    (choice,) = estimate.choices(device_cards.load("mine"))
    point = estimate.fitted(choice, "net").model.predict(len(choice.like), works["m0"])
    assert point.latency_ns == pytest.approx(1e6 * latency_ms(works["m0"]), rel=0.01)


def test_a_card_that_is_there_is_kept(tmp_path, works) -> None:
    listing = table(tmp_path, works)
    made = calibrate("mine", csv=listing)
    with pytest.raises(UsageError, match="is there already"):
        calibrate("mine", csv=listing, title="Other")
    assert device_cards.load("mine") == made.card
    assert calibrate("mine", csv=listing, title="Other", force=True).card.title == "Other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\nm1.tflite\n", "has no column latency_ms"),
        ("", "has no column file"),
        ("file,latency_ms\nm1.tflite,fast\n", "line 2: 'fast' is not a latency in ms"),
        ("file,latency_ms\nm1.tflite,-1\n", "line 2: '-1' is not a latency in ms"),
        ("file,latency_ms\nm1.tflite,nan\n", "line 2: 'nan' is not a latency in ms"),
        ("file,latency_ms\nm1.tflite\n", "line 2: None is not a latency in ms"),
        ("file,latency_ms\nm1.tflite,inf\n", "line 2: 'inf' is not a latency in ms"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path, works, text, message) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        calibrate("mine", csv=path)


@pytest.mark.parametrize("name", ["", "../mine", "a b", "a/b", "ä", ".."])
def test_a_name_cannot_lead_elsewhere(tmp_path, works, name) -> None:
    with pytest.raises(UsageError, match="is not a name for a card"):
        calibrate(name, csv=table(tmp_path, works))


def test_either_artifacts_or_a_table(tmp_path, works, exported) -> None:
    for given in ({}, {"csv": table(tmp_path, works)}):
        paths = [exported["float32", "tflite"]] if given else []
        with pytest.raises(UsageError, match="name either artifacts"):
            calibrate("mine", paths, **given)
    with pytest.raises(InputError, match="cannot be read"):
        calibrate("mine", csv=tmp_path / "absent.csv")
