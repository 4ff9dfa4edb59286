from __future__ import annotations

import json

from click.testing import CliRunner

from mobiledeploy.cli import devices
from mobiledeploy.core.plugins import DEVICES


def test_this_machine_is_listed_and_ready() -> None:
    done = CliRunner().invoke(devices.command, [])
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stdout.splitlines() if line.startswith("host "))
    assert "measured" in line
    assert line.endswith("ready")


def test_every_device_says_what_it_sees() -> None:
    done = CliRunner().invoke(devices.command, ["--json"])
    seen = json.loads(done.stdout)["seen"]
    for one in seen:
        kind = one["name"].partition(":")[0]
        assert kind in DEVICES.names()
        assert one["kind"] == DEVICES.load(kind).KIND
        assert one["about"]
    assert len({one["name"] for one in seen}) == len(seen)
