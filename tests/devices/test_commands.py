"""The command line on a phone of the tests' own: codes, lines, Ctrl-C, and Google's tool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiledeploy.cli import bench
from mobiledeploy.core.errors import UsageError
from tests import warm
from tests.variants import slow_but

TOOL = Path(__file__).resolve().parent / "printing_benchmark_model.py"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


@pytest.fixture
def path(exported) -> str:
    return str(exported["int8_ptq", "tflite"])


def test_google_s_tool_is_driven_and_recorded(phone, path, here) -> None:
    tool = ("--runner", "benchmark_model", "--benchmark-model", str(TOOL))
    done = command(
        "bench",
        path,
        "--device",
        "pixel",
        *tool,
        "--delegate",
        "gpu",
        "--json",
        "--no-fixed-performance",
        "--record",
        "session.json",
    )
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)["measurements"]
    assert made["kind"] == "measured"
    assert made["target"] == {
        "device": f"adb:{phone.serial}",
        "runner": "benchmark_model",
        "runtime": "litert",
        "threads": 1,
        "delegate": "gpu",
    }
    assert made["median_ns"] == pytest.approx(2e6, rel=0.01)
    assert made["runtime_version"].endswith("(medians of its starts)")
    assert (made["delegated_nodes"], made["total_nodes"]) == (31, 31)
    assert phone.files() == []
    # Without the phone, and without the tool.
    phone.stop()
    again = command("bench", path, "--device", "replay:session.json", "--json")
    then = json.loads(again.stdout)
    assert then.pop("recorded_at")
    assert then == {k: v for k, v in json.loads(done.stdout).items() if k != "recorded_at"}
    table = command("bench", path, "--device", "replay:session.json")
    assert "measured on Pixel 3 (SM8150, adb:127.0.0.1:" in table.stdout


def test_a_model_s_name_without_such_a_phone(phone, path, here) -> None:
    done = command("bench", path, "--device", "pixel-6", "--via", "adb")
    assert done.returncode == 5
    assert done.stderr == (
        f"error: no phone pixel-6 is connected; connected: adb:{phone.serial} (Pixel 3); --device "
        "takes adb, emulator, host, replay, ssh, a phone's model, or a card that `mobiledeploy "
        "devices` lists\n"
    )


@pytest.mark.slow
def test_a_void_measurement_ends_in_4(phone, path, here) -> None:
    done = command(
        "bench",
        path,
        "--device",
        "adb",
        "--runner",
        "benchmark_model",
        "--delegate",
        "gpu",
        "--benchmark-model",
        str(gpu_that_stays_out(here)),
        "--no-fixed-performance",
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith(
        "error: void: int8_ptq.tflite: gpu took no operator of the graph; "
    )
    assert phone.files() == []


def gpu_that_stays_out(folder: Path) -> Path:
    tool = folder / "benchmark_model"
    tool.write_text(TOOL.read_text().replace("Replacing 31 out of", "Leaving all"))
    tool.chmod(0o755)
    return tool


@pytest.mark.parametrize("sent", slow_but([signal.SIGINT, signal.SIGTERM], signal.SIGINT))
def test_an_interrupted_run_leaves_nothing(phone, path, here, sent) -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mobiledeploy",
            "bench",
            path,
            "--device",
            "adb",
            "--runs",
            "100000",
            "--runner",
            "benchmark_model",
            "--benchmark-model",
            str(TOOL),
            "--no-fixed-performance",
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in range(600):
            if any("graph=" in line for line in phone.lines_of("commands")):
                break
            time.sleep(0.05)
        time.sleep(0.3)
        assert TOOL.name in phone.files()
        process.send_signal(sent)
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert said.split() == ["interrupted"]
    assert phone.files() == []
    assert not [found for found in map(where, Path("/proc").glob("[0-9]*")) if phone.root in found]


def where(process: Path) -> tuple[Path, ...]:
    """The folders above the one that a process works in; () for one that may not be asked."""
    try:
        return tuple((process / "cwd").readlink().parents)
    except OSError:
        return ()


@pytest.mark.slow
def test_two_artifacts_are_compared(exported, here) -> None:
    a, b = (str(exported[key]) for key in (("int8_ptq", "tflite"), ("float32", "tflite")))
    done = command("bench", a, b, "--compare", "--rounds", "6", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["rounds"] == 6
    assert [block["artifact_sha256"] for block in made["blocks"][:4]] == [
        made["blocks"][i]["artifact_sha256"] for i in (0, 1, 1, 0)
    ]
    assert made["interval"][0] <= made["ratio"] <= made["interval"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "--compare"), "takes two artifacts, not 1"),
        (("--compare", "a", "b", "--rounds", "3"), "3 rounds have no interval"),
        (("a", "b", "--compare", "--runs", "9"), "leave out --runs"),
        (("a", "b", "--compare", "--device", "emulator"), "emulator counts instructions"),
        (("a", "--device", "emulator", "--record", "r.json"), "emulator counts instructions"),
        (("a", "--rounds", "9"), "--rounds is for --compare"),
        (("a", "--record", "no/where.json"), "there is no folder no"),
        (("a", "--runner", "benchmark_model"), "benchmark_model is for phones"),
    ],
)
def test_invalid_requests_are_refused(here, arguments, message) -> None:
    done = CliRunner().invoke(bench.command, arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_phones_are_listed(phone) -> None:
    done = command("devices")
    ready, _, _ = done.stdout.partition("\nnot ready\n")
    (line,) = [text for text in ready.splitlines() if text.startswith("adb:")]
    assert phone.serial in line
    assert "Pixel 3, through adb" in line
