"""The counts of networks that nobody built, against the networks."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from mobiledeploy.core import cards, device_cards
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import FORMATS, RECIPES
from mobiledeploy.core.types import Model
from mobiledeploy.steps import candidates, card_specs, network_counts
from tests.conftest import press
from tests.scripts import REPOSITORY, script


@pytest.fixture(scope="module")
def tool():
    with script("tools/model_counts.py") as module:
        yield module


def test_the_table_has_every_network_of_the_published_grids(tool) -> None:
    table = network_counts.load()
    assert set(table) == {spec.name for spec in tool.networks()}
    assert len(table) > 70


@pytest.mark.slow
def test_a_row_is_what_the_tool_counts(tool) -> None:
    spec = next(spec for spec in tool.networks() if spec.name == "mobilenet_v1_0.25_128")
    assert tool.count(spec) == network_counts.load()[spec.name]


def test_a_row_is_written_as_it_is_read() -> None:
    with (REPOSITORY / "models" / network_counts.FILE).open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    table = network_counts.load()
    written = [network_counts.row(table[line["network"]]) for line in lines]
    assert [{name: str(v) for name, v in line.items()} for line in written] == lines


@pytest.mark.slow
def test_every_row_is_what_the_tool_counts(tool) -> None:
    counted = {
        spec.name: tool.count(spec) for spec in tool.networks() if spec.card not in tool.TRACED
    }
    table = network_counts.load()
    assert counted == {name: table[name] for name in counted}


def test_the_table_agrees_with_that_of_the_device_cards() -> None:
    table, other = network_counts.load(), device_cards.networks()
    shared = table.keys() & other.keys()
    assert len(shared) > 20
    assert {n: table[n].work for n in shared} == {n: other[n] for n in shared}


@pytest.mark.slow
def test_other_classes_are_counted_as_if_it_were_built(tool) -> None:
    spec = card_specs.spec(cards.load("mobilenet_v1"), alpha=0.25, res=128, classes=7)
    assert network_counts.load()[spec.name].with_classes(7) == tool.count(spec)
    convolution_last = [one for one in network_counts.load().values() if not one.features]
    assert all(one.with_classes(7) is None for one in convolution_last)
    assert convolution_last


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["float32", "float16", "int8_ptq"])
def test_the_size_of_a_file_is_in_the_interval(recipe) -> None:
    from mobiledeploy.architectures import mobilenet_v1

    network = mobilenet_v1.build(alpha=0.25, resolution=(64, 64), classes=12)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype(np.float32)
    content = press(Model("tf_keras", network), recipe, "tflite", images)
    # The weights of a MobileNet v1 do not depend on the resolution.
    counts = network_counts.load()["mobilenet_v1_0.25_128"].with_classes(12)
    assert counts is not None
    size = counts.size_bytes(RECIPES.load(recipe).RECIPE)
    low, high = candidates.SIZE_REACH
    sealed = FORMATS.load("tflite").seal(content, ["image"], ["scores"])
    assert low * size <= len(sealed) <= high * size


@pytest.mark.parametrize(
    ("column", "value"), [("mult_adds", "-1"), ("mult_adds", "many"), ("network", None)]
)
def test_a_broken_table_of_the_users_is_named(tmp_path, monkeypatch, column, value) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = cards.folders()[0] / network_counts.FILE
    path.parent.mkdir(parents=True)
    row = dict.fromkeys(network_counts.COLUMNS, "1") | {column: value}
    columns = [name for name in network_counts.COLUMNS if row[name] is not None]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerow({name: row[name] for name in columns})
    with pytest.raises(InputError, match=r"counts\.csv is damaged"):
        network_counts.load()
