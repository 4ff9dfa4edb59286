from __future__ import annotations

import csv
import dataclasses
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


# Points for a card that is there.


def test_a_point_joins_a_copy_of_a_card_of_the_package(tmp_path, works) -> None:
    before = device_cards.load("pixel-3")
    file = Path(before.folder, "pixel-3.toml")
    content = file.read_bytes()
    made = calibrate("pixel-3", csv=table(tmp_path, works, count=1), runtime="litert", add=True)
    assert Path(made.path).parent == device_cards.user_folder()
    assert file.read_bytes() == content
    card = device_cards.load("pixel-3")
    assert card == made.card
    assert (card.title, card.cores, card.emulate, card.models) == (
        before.title,
        before.cores,
        before.emulate,
        before.models,
    )
    *published, own = card.series
    assert tuple(published) == before.series
    assert [(p.network, p.source) for p in own.points] == [("m0", "measured")]
    assert own.is_own
    assert not any(series.is_own for series in published)
    # The timings of its owner come before more points that are published.
    assert estimate.choose(card, "float32", "tflite").series == own
    (shown,) = made.series
    assert (shown.series, shown.points) == ("litert, float32, 1 thread", 1)


def test_points_join_one_after_the_other_and_a_network_is_measured_anew(tmp_path, works) -> None:
    calibrate("mine", csv=table(tmp_path, works, count=2), title="My phone")
    slower = tmp_path / "slower.csv"
    slower.write_text("file,latency_ms\nm1.tflite,99\nm2.tflite,7\n")
    made = calibrate("mine", csv=slower, add=True)
    (series,) = made.card.series
    assert made.card.title == "My phone"
    assert {p.network: (p.latency_ns, p.source) for p in series.points} == {
        "m0": (round(latency_ms(works["m0"]) * 1e6), "measured"),
        "m1": (99_000_000, "measured_2"),
        "m2": (7_000_000, "measured_2"),
    }
    assert [source.title for source in made.card.sources.values()] == [
        "measured by the owner, measured.csv",
        "measured by the owner, slower.csv",
    ]
    # Another number of threads is another series.
    made = calibrate("mine", csv=slower, threads=4, add=True)
    assert [(s.threads, len(s.points)) for s in made.card.series] == [(1, 3), (4, 2)]


@pytest.mark.parametrize("version", ["2.2.0", "2.3.0", ""])
def test_a_point_joins_published_ones_of_its_version_alone(
    exported, here, works, monkeypatch, version
) -> None:
    path = exported["float32", "tflite"]
    monkeypatch.setattr(estimate, "read", lambda path, family: ("float32", works["m1"]))
    before = device_cards.load("pixel-9-pro")
    one = measured(path, Target("adb:X", "native", "litert", 1, "xnnpack"), 5e6)
    facts = {"model": "Pixel 9 Pro"}
    with Store.open() as store:
        store.add_measurement(dataclasses.replace(one, runtime_version=version, facts_before=facts))
    made = calibrate("pixel-9-pro", path, device="adb:X", add=True)
    joins = version == "2.2.0"
    assert len(made.card.series) == len(before.series) + (not joins)
    (own,) = [series for series in made.card.series if series.is_own]
    assert len(own.points) == (5 if joins else 1)


def test_a_file_named_like_a_published_network_leaves_that_as_it_is(tmp_path, works) -> None:
    name = device_cards.load("pixel-3").series[0].points[0].network
    works[name] = works["m3"]
    (tmp_path / "own.csv").write_text(f"file,latency_ms\n{name}.tflite,5\n")
    made = calibrate("pixel-3", csv=tmp_path / "own.csv", add=True)
    networks = device_cards.workloads(made.card)
    assert networks[name] == device_cards.networks()[name]
    assert made.card.series[-1].points[-1].network == f"{name}_2"
    assert networks[f"{name}_2"] == works["m3"]


def test_a_card_knows_the_machine_of_its_timings(exported, here, works, monkeypatch) -> None:
    path = exported["float32", "tflite"]
    monkeypatch.setattr(estimate, "read", lambda path, family: ("float32", works["m1"]))

    def keep(device: str, model: str) -> None:
        one = measured(path, Target(device, "native", "litert", 1, "xnnpack"), 5e6)
        with Store.open() as store:
            store.add_measurement(dataclasses.replace(one, facts_before={"model": model}))

    keep("adb:X", "Pixel 3")
    keep("adb:Y", "Pixel 6")
    keep("ssh:board", "Raspberry Pi 5 Model B Rev 1.0")
    made = calibrate("mine", path, device="adb:X")
    assert (made.card.devices, made.card.models) == (("adb:X",), ("Pixel 3",))
    assert device_cards.of_device("adb:X").name == "mine"
    assert device_cards.of_device("adb:Z") is None
    # Of two cards of a model, the one with most points.
    assert device_cards.of_device("adb:Z", "Pixel 3").name == "pixel-3"
    with pytest.raises(UsageError, match="mine is the card of Pixel 3, and the timings .* Pixel 6"):
        calibrate("mine", path, device="adb:Y", add=True)
    with pytest.raises(UsageError, match="pixel-3 is the card of Pixel 3, Pixel 3 XL, and"):
        calibrate("pixel-3", path, device="ssh:board", add=True)
    assert device_cards.load("mine") == made.card
    board = calibrate("board", path, device="ssh:board").card
    assert board.describes("ssh:board", "")
    assert board.describes("ssh:other", "Raspberry Pi 5 Model B Rev 1.0")


def test_points_are_added_to_a_card_that_is_there(tmp_path, works) -> None:
    listing = table(tmp_path, works)
    with pytest.raises(UsageError, match="no device card named 'absent'"):
        calibrate("absent", csv=listing, add=True)
    with pytest.raises(UsageError, match="give one of them|--add keeps it"):
        calibrate("mine", csv=listing, add=True, force=True)
    assert not device_cards.user_folder().exists()
