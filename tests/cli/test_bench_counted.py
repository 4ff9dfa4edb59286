"""What the command line says of counts: never a time."""

from __future__ import annotations

import json
import re

from click.testing import CliRunner

from mobiledeploy.cli import bench


def test_a_table_of_counts_has_no_time_in_it(emulator, exported, here) -> None:
    path = str(exported["int8_ptq", "tflite"])
    result = CliRunner().invoke(bench.command, [path, "--device", "emulator:cortex-a53"])
    assert result.exit_code == 0, result.output
    assert "counted on an emulated cortex-a53" in result.stdout
    assert "not a time" in result.stdout
    assert "DWConv, mla" in result.stdout
    assert not re.search(r"\d (ms|us|s)\b", result.stdout)


def test_json_says_that_it_was_counted(emulator, exported, here) -> None:
    path = str(exported["int8_ptq", "tflite"])
    result = CliRunner().invoke(bench.command, [path, "--device", "emulator", "--json"])
    (made,) = json.loads(result.stdout)["measurements"]
    assert made["kind"] == "counted"
    assert made["core"] == "cortex-a76"
    assert made["instructions"] == sum(made["by_class"].values())
    assert not [name for name in made if name.endswith("_ns")]
