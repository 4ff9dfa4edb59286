from __future__ import annotations

import re

import pytest

from mobiledeploy.core import device_cards
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.devices import emulator
from mobiledeploy.steps import network_counts

CARD = """\
name = "mine"
title = "My phone"
soc = "Chip"
models = ["X1"]

[[cores]]
name = "Cortex-A76"
count = 4
clock_hz = 2_400_000_000

[sources.own]
title = "measured"

[[series]]
runtime = "tflite"
year = 2024
precision = "int8"
threads = 4
points = [
  { network = "mobilenet_v1_1_224", latency_ns = 5_000_000, source = "own" },
  { network = "tiny", latency_ns = 1_000_000, source = "own" },
]

[networks.tiny]
family = "tiny"
mult_adds = 30
dense = 20
depthwise = 10
activations = 5
kernels = 2
classifier = 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "mobiledeploy" / "devices"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(CARD)
    return folder


def test_a_card_is_read_whole(folder):
    card = device_cards.load("mine")
    (series,) = card.series
    assert (series.runtime, series.year, series.precision, series.threads) == (
        "tflite",
        2024,
        "int8",
        4,
    )
    assert card.cores[0].clock_hz == 2_400_000_000
    assert card.points == 2
    assert card.folder == str(folder)
    workloads = device_cards.workloads(card)
    assert workloads["tiny"].dense == 20
    assert workloads["mobilenet_v1_1_224"].mult_adds == 568_740_352


def test_every_shipped_card_says_where_its_points_are_from():
    cards = device_cards.all_()
    assert len(cards) >= 20
    for card in cards:
        assert card.cores, card.name
        for series in card.series:
            assert series.points
            # No network appears twice: that would mix two settings in one series.
            networks = [point.network for point in series.points]
            assert len(set(networks)) == len(networks), (card.name, series)
        for source in card.sources.values():
            assert source.url.startswith("https://"), card.name


def test_the_fastest_cores_come_first_and_emulated_ones_are_known():
    for card in device_cards.all_():
        clocks = [core.clock_hz for core in card.cores]
        assert clocks == sorted(clocks, reverse=True), card.name
        assert set(card.emulate) <= set(emulator.CORES), card.name
        own = [core for core in emulator.CORES if f"({core})" in f"({card.cores[0].name})".lower()]
        assert card.emulate[: len(own)] == tuple(own), card.name


def test_pixel_is_the_pixel_with_most_points():
    assert device_cards.matching("pixel").name == "pixel-3"
    assert device_cards.matching("pixel-6").name == "pixel-6"
    assert device_cards.matching("raspberry-pi").name == "raspberry-pi-4"
    assert device_cards.matching("pix") is None
    assert device_cards.matching("host") is None


def test_the_users_folder_comes_first(folder):
    (folder / "pixel-3.toml").write_text(CARD.replace('"mine"', '"pixel-3"'))
    assert device_cards.load("pixel-3").title == "My phone"


def test_an_unknown_card_gets_a_suggestion():
    with pytest.raises(UsageError, match="did you mean pixel-3"):
        device_cards.load("pixel3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "mine"', 'name = "other"', "not that of the file"),
        ("count = 4", "count = 0", "count or clock of 0"),
        ("threads = 4", "threads = 0", "series.threads is 0"),
        ("latency_ns = 5_000_000", "latency_ns = 0", "takes no time"),
        ("latency_ns = 5_000_000", 'latency_ns = "5"', "latency_ns"),
        ("mobilenet_v1_1_224", "mobilenet_v9", "mobilenet_v9 is not known"),
        ('source = "own"', 'source = "hearsay"', "hearsay is no source"),
        ("dense = 20", "dense = -1", "count below 0"),
        ('precision = "int8"', 'precision = "int3"', "precision"),
        ("[networks.tiny]", "[networks.tiny", "cannot be read"),
        ('soc = "Chip"', 'soc = "Chip"\nfolder = "/"', "fields folder do not fit"),
        ('soc = "Chip"', 'soc = "Chip"\ncolour = "red"', "colour"),
    ],
)
def test_a_bad_card_is_named_with_its_field(folder, old, new, message):
    path = folder / "mine.toml"
    path.write_text(CARD.replace(old, new, 1))
    with pytest.raises(InputError, match=re.escape(message)) as excinfo:
        device_cards.load("mine")
    assert str(path) in str(excinfo.value)


def test_every_counted_network_is_known_and_faster_with_dot_products() -> None:
    table = device_cards.instructions()
    assert {core for core, _ in table} == {"cortex-a72", "cortex-a76"}
    known = network_counts.load()
    for counts in table.values():
        assert counts.keys() <= known.keys()
    without, with_ = table["cortex-a72", "int8"], table["cortex-a76", "int8"]
    assert without.keys() == with_.keys()
    assert all(with_[network] < without[network] for network in with_)
