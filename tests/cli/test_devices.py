from __future__ import annotations

import json

from click.testing import CliRunner

from mobiledeploy.analysis import latency_model
from mobiledeploy.cli import devices
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.plugins import DEVICES


def test_this_machine_is_listed_and_ready() -> None:
    result = CliRunner().invoke(devices.command, [])
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("host "))
    assert "measured" in line
    assert line.endswith("ready")


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
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "estimated" in lines["pixel-3"]
    assert lines["pixel-3"].endswith("ready")
    assert lines["snapdragon-820"].endswith("too few of a kind: mobiledeploy devices calibrate")
    ready = CliRunner().invoke(devices.command, [])
    assert "\npixel-3 " in ready.stdout
    assert "snapdragon-820 " not in ready.stdout
    assert ready.stdout.endswith("an estimate: mobiledeploy devices --all\n")


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
