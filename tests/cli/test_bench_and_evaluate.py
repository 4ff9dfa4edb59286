from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.artifacts import record_path
from mobiledeploy.steps import estimate
from mobiledeploy.steps.bench_figures import BenchResult
from mobiledeploy.verbs.evaluate import EvaluateResult
from tests import namespaces, warm


def run(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_bench_prints_a_line_for_each_artifact(exported, here) -> None:
    paths = [exported[key] for key in (("int8_ptq", "tflite"), ("float32", "onnx"))]
    result = run("bench", *paths, "--runs", 10, "--threads", 2)
    assert result.returncode == 0, result.stderr
    title, head, *rows = result.stdout.splitlines()
    assert title.endswith(", 2 threads, batch 1")
    assert head.split()[0] == "file"
    assert [row.split()[0] for row in rows] == [str(path) for path in paths]
    assert "xnnpack" in rows[0]
    result = run("bench", paths[0], "--runs", 10, "--json", "-q")
    benched = records.loads(BenchResult, result.stdout)
    assert benched.paths == (str(paths[0]),)
    assert len(benched.measurements[0].samples_ns) == 10
    assert json.loads(result.stdout)["schema_version"] == records.SCHEMA_VERSION


def write_card(path: Path, folder: Path, *more: str) -> None:
    """A card `phone-2` with points of networks like that of `path`."""
    _, work = estimate.read(path, "mobilenet_v1")
    lines = [
        'name = "phone-2"',
        'title = "Phone 2"',
        'soc = "Chip"',
        *more,
        "cores = []",
        "[sources.own]",
        'title = "me"',
        "[[series]]",
        'runtime = "tflite"',
        "year = 2020",
        'precision = "float32"',
        "threads = 4",
        "points = [",
    ]
    for size in range(1, 10):
        lines += [f'{{ network = "n{size}", latency_ns = {size}_000_000, source = "own" }},']
    lines += ["]"]
    for size in range(1, 10):
        amounts = {k: v * size // 4 for k, v in vars(work).items() if k != "family"}
        lines += [f'[networks.n{size}]\nfamily = "mobilenet_v1"']
        lines += [f"{name} = {amount}" for name, amount in amounts.items()]
    (folder / "mobiledeploy" / "devices").mkdir(parents=True)
    (folder / "mobiledeploy" / "devices" / "phone-2.toml").write_text("\n".join(lines))


def test_an_estimate_is_called_one_everywhere(exported, here, monkeypatch) -> None:
    path = exported["float32", "tflite"]
    write_card(path, here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here))
    result = run("bench", path, "--device", "phone")
    assert result.returncode == 0, result.stderr
    title, head, row = result.stdout.splitlines()
    assert title == "estimated, not measured: phone-2, batch 1"
    assert head.split()[:2] == ["file", "estimated"]
    assert float(row.split()[1]) == pytest.approx(4, rel=0.05)
    assert row.split()[2] == "ms"
    assert "tflite 2020" in row
    assert row.endswith("points left out")
    assert result.stderr.splitlines() == [
        "estimated, not measured: Phone 2, Chip, from the card phone-2; not counted: the card "
        "phone-2 names no emulated core that is like its own; --device emulator:CORE counts on one "
        "of your choice"
    ]
    result = run("bench", path, "--device", "phone", "--json", "-q")
    (estimated,) = records.loads(BenchResult, result.stdout).measurements
    assert estimated.kind == json.loads(result.stdout)["measurements"][0]["kind"] == "estimated"
    assert estimated.latency_ns == pytest.approx(4e6, rel=0.05)
    result = run("bench", path, "--device", "snapdragon-820")
    assert result.returncode == 5
    assert "its card cannot stand in: it has 5 points" in result.stderr
    assert result.stdout == ""


def test_both_kinds_have_tables_of_their_own(emulator, exported, here, monkeypatch) -> None:
    path = exported["float32", "tflite"]
    write_card(path, here, 'emulate = ["cortex-a53"]')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here))
    result = run("bench", path, "--device", "phone")
    assert result.returncode == 0, result.stderr
    (message,) = result.stderr.splitlines()
    assert message.startswith("estimated, not measured: Phone 2")
    assert message.endswith("counted, no time: on an emulated cortex-a53, in place of its own")
    estimated, counted, operators = result.stdout.split("\n\n")
    assert estimated.startswith("estimated, not measured: phone-2")
    assert counted.startswith("counted on an emulated cortex-a53")
    assert " ms" not in counted + operators
    result = run("bench", path, "--device", "phone", "--json", "-q")
    found = json.loads(result.stdout)
    assert [one["kind"] for one in found["measurements"]] == ["estimated", "counted"]
    assert found["paths"] == [str(path)] * 2


def test_evaluate_prints_a_line_for_each_artifact(exported, here) -> None:
    path = exported["int8_ptq", "tflite"]
    # As a shell's int8_ptq.tf* has it.
    result = run("evaluate", path, record_path(path), "--threads", 1)
    assert result.returncode == 0, result.stderr
    assert "13 images" in result.stderr
    head, row = result.stdout.splitlines()[:2]
    assert head.split()[:3] == ["file", "runtime", "images"]
    assert row.split()[:3] == [str(path), "litert", "13"]
    assert "%" in row
    result = run("evaluate", path, "--json")
    (evaluation,) = records.loads(EvaluateResult, result.stdout).evaluations
    assert evaluation.images == 13


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("bench",), 2, "nothing was exported in this folder yet"),
        (("bench", "nothing.tflite"), 7, "nothing.tflite does not exist"),
        (
            ("bench", "{path}", "--device", "pixel", "--via", "adb"),
            5,
            "no phone pixel is connected",
        ),
        (("bench", "{path}", "--device", "pixel9"), 5, "no phone pixel9 is connected"),
        (("bench", "{path}", "--device", "pixel", "--runs", "9"), 2, "nothing is timed"),
        (("bench", "{path}", "--delegate", "gpu"), 2, "there are xnnpack, none"),
        (("bench", "{path}", "--runs", "3"), 2, "give 6 or more"),
        (("evaluate",), 2, "Missing argument"),
        (("evaluate", "{raw}"), 2, "say --input-range"),
        (("evaluate", "{path}.json"), 7, "is the record of an artifact; name float32.tflite"),
        (("evaluate", "{path}", "--data", "nowhere"), 2, "not a known data set"),
        (("evaluate", "{path}", "--input-range", "1,0"), 2, "not low,high"),
    ],
)
def test_a_refusal_is_one_line_and_a_code(exported, here, argv, code, message) -> None:
    raw = here / "mine.tflite"
    raw.write_bytes(exported["float32", "tflite"].read_bytes())
    names = {"path": exported["float32", "tflite"], "raw": raw}
    result = run(*(text.format(**names) for text in argv))
    assert result.returncode == code
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.slow
def test_the_light_wing_has_no_tensorflow(exported, here) -> None:
    script = (
        "import sys; from mobiledeploy.cli.main import run; code = run();"
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'onnxruntime', 'ai_edge_litert.interpreter'};"
        "print(heavy & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    path = str(exported["int8_ptq", "tflite"])
    for argv in (("bench", path, "--runs", "6", "-q"), ("evaluate", path, "-q")):
        result = subprocess.run(
            [sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr.splitlines()[-1] == "set()"


def test_help_has_an_example() -> None:
    for command in ("bench", "evaluate"):
        result = run(command, "--help")
        assert f"mobiledeploy {command} build/" in result.stdout


@pytest.mark.slow
def test_what_is_asked_is_answered_in_a_folder_that_cannot_be_written(exported, here):
    """With a warning that it is not kept, once; what was kept there before is still known."""
    file = exported["int8_ptq", "tflite"]
    assert run("evaluate", file).returncode == 0
    assert run("check", file, "--update-baseline").returncode == 0
    (here / "disk").mkdir()
    copied = ".mobiledeploy mobiledeploy-baseline.json"
    script = f"mount -t tmpfs none disk && cp -r {copied} disk && mount -o remount,ro disk"
    for command in ("evaluate", "bench --runs 6", "check", "verify", "analyze"):
        stored = command not in ("verify", "analyze")
        tool = f"cd disk && {sys.executable} -m mobiledeploy {command} {file} --json"
        result = subprocess.run(
            ["unshare", "-Urm", "sh", "-c", f"{script} && {tool}"], capture_output=True, text=True
        )
        namespaces.need(result)
        assert result.returncode in ((0, 3) if command == "check" else (0,)), result.stderr
        assert json.loads(result.stdout)
        assert result.stderr.count("[not-stored]") == stored, (command, result.stderr)
