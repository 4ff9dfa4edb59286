from __future__ import annotations

import json

from click.testing import CliRunner

from mobiledeploy.analysis import latency_model
from mobiledeploy.cli import devices
from mobiledeploy.core import device_cards
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import DEVICES
from tests import warm
from tests.terminals import on_terminal


def test_this_machine_is_listed_and_ready() -> None:
    result = CliRunner().invoke(devices.command, [])
    assert result.exit_code == 0, result.output
    ready = result.stdout.partition("\nnot ready\n")[0]
    line = next(line for line in ready.splitlines() if line.startswith("host "))
    assert "measured" in line


def test_every_device_says_what_it_sees() -> None:
    result = CliRunner().invoke(devices.command, ["--json"])
    seen = json.loads(result.stdout)["devices"]
    here = [one for one in seen if one["kind"] != "estimated"]
    for one in here:
        kind = one["name"].partition(":")[0]
        assert kind in DEVICES.names()
        assert one["kind"] == DEVICES.load(kind).KIND
        assert one["about"]
    assert len({one["name"] for one in seen}) == len(seen)


def test_device_cards_are_listed_as_what_they_are() -> None:
    result = CliRunner().invoke(devices.command, ["--all"])
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "estimated, not measured" in result.stdout
    assert "tflite 2019, int8" in lines["pixel-3"]
    assert lines["pixel-3"].endswith("ready")
    assert lines["snapdragon-820"].endswith("too few of a kind: mobiledeploy devices calibrate")
    ready = CliRunner().invoke(devices.command, [])
    assert "\npixel-3 " in ready.stdout
    assert "snapdragon-820 " not in ready.stdout
    assert ready.stdout.endswith("and 1 with too few points\n")


def test_the_list_fits_a_screen_and_own_cards_come_before_ours(tmp_path) -> None:
    folder = tmp_path / "mobiledeploy" / "devices"
    folder.mkdir(parents=True)
    ours = (device_cards.folders()[1] / "pixel-3.toml").read_text("utf-8")
    (folder / "bench-phone.toml").write_text(
        ours.replace('name = "pixel-3"', 'name = "bench-phone"'), "utf-8"
    )
    argv = (warm.program(), "-m", "mobiledeploy", "devices")
    lines = on_terminal(80, *argv, XDG_CONFIG_HOME=str(tmp_path))
    assert len(lines) <= 42
    assert max(map(len, lines)) <= 80
    first = [line.split("  ")[0] for line in lines]
    title = next(place for place, line in enumerate(lines) if line.startswith("device cards"))
    assert first.index("bench-phone") < title < first.index("pixel-3")
    # Each card of ours takes one line.
    cards = [line for line in lines[title + 2 : -1] if line.strip()]
    assert len(cards) == len(device_cards.names_in((device_cards.folders()[1],))) - 1


def test_calibrate_prints_how_good_the_model_is(exported, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    table = tmp_path / "measured.csv"
    table.write_text("file,latency_ms\n" + f"{exported['float32', 'tflite']},1.5\n" * 9)
    result = CliRunner().invoke(
        devices.command, ["calibrate", "mine", "--csv", str(table), "--runtime", "own"]
    )
    assert isinstance(result.exception, UsageError)
    assert "there are 9 of 1 networks" in str(result.exception)
    monkeypatch.setattr(latency_model, "FEWEST_NETWORKS", 1)
    result = CliRunner().invoke(
        devices.command, ["calibrate", "mine", "--csv", str(table), "--threads", "2"]
    )
    assert result.exit_code == 0, result.output
    title, head, row = result.stdout.splitlines()
    assert title == "mine: how well the points are estimated by each other"
    assert head.startswith("points of")
    assert row.startswith("tflite, float32, 2 threads")
    assert "mobiledeploy bench --device mine" in result.stderr
    result = CliRunner().invoke(
        devices.command, ["calibrate", "mine", "--csv", str(table), "--json"]
    )
    assert isinstance(result.exception, UsageError)
    result = CliRunner().invoke(
        devices.command, ["calibrate", "mine", "--csv", str(table), "--json", "--force"]
    )
    assert json.loads(result.stdout)["card"]["name"] == "mine"
