from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mobiledeploy.analysis import latency, stats
from mobiledeploy.cli import results as results_command
from mobiledeploy.cli.bench import command
from mobiledeploy.core import artifacts, leases, protocol, recording, records
from mobiledeploy.core.errors import DeviceError, InputError, UsageError, VoidError
from mobiledeploy.core.plugins import REPORTS
from mobiledeploy.core.types import Report
from mobiledeploy.devices import _child
from mobiledeploy.steps import bench_figures, resolve, store_records, timings
from mobiledeploy.steps.timings import SECONDS, target
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import results
from mobiledeploy.verbs.bench import bench
from mobiledeploy.verbs.compare import compare

KEYS = [("int8_ptq", "tflite"), ("float32", "onnx")]


@pytest.mark.parametrize("device", ["host", "pixel-3", "adb"])
@pytest.mark.parametrize("runs", [-1, 5, timings.MOST_RUNS + 1, 10**30])
def test_a_number_of_runs_that_cannot_be_is_refused_before_any_work(runs, device) -> None:
    """Before a device is looked for, or an artifact, neither of which is there."""
    with pytest.raises(UsageError, match=f"^{runs} runs "):
        bench(device=device, runs=runs)


def test_the_record_holds_what_was_measured(exported, here, heard) -> None:
    paths = [exported[key] for key in KEYS]
    made = bench(paths, reporter=heard).measurements
    for path, m in zip(paths, made, strict=True):
        assert m.artifact_sha256 == artifacts.load(path).sha256
        assert m.target.threads == 1
        assert len(m.warmups_ns) >= 1
        low, high = m.interval_ns
        assert low <= m.median_ns <= high
        assert m.median_ns == np.median(m.samples_ns)
        assert m.peak_rss_bytes > 20e6
        assert m.facts_before["kernel"] == m.facts_after["kernel"]
        # It is known to 1 %, or it says that it is not.
        uncertain = "wide-interval" in {warning.name for warning in m.warnings}
        assert (stats.relative_width(m.samples_ns) > latency.RELATIVE_WIDTH) == uncertain
        with Store.open() as store:
            assert store.measurement(m.artifact_sha256, m.target) == m
    assert (made[0].target.runtime, made[1].target.runtime) == ("litert", "onnxruntime")
    assert made[0].total_nodes
    assert made[1].total_nodes is None
    assert heard.warnings == [warning for m in made for warning in m.warnings]


def test_the_number_of_runs_can_be_fixed(exported, here, heard) -> None:
    (made,) = bench([exported["int8_ptq", "tflite"]], runs=37, reporter=heard).measurements
    assert len(made.samples_ns) == 37
    (made,) = bench(
        [exported["int8_ptq", "tflite"]], runs=stats.FEWEST, threads=2, reporter=heard
    ).measurements
    assert len(made.samples_ns) == stats.FEWEST
    assert made.target.threads == 2
    with pytest.raises(UsageError, match="give 6 or more"):
        bench([exported["int8_ptq", "tflite"]], runs=5, reporter=heard)


def test_time_is_limited_and_the_limit_is_told(exported, here, heard) -> None:
    began = time.monotonic()
    (made,) = bench([exported["float32", "onnx"]], seconds=0.2, reporter=heard).measurements
    assert time.monotonic() - began < SECONDS + 20
    assert sum(made.samples_ns) < 1e9
    assert heard.steps[-1] == ("timing float32.onnx", 100, 100)


def test_without_names_it_takes_what_was_exported_last(exported, here, heard) -> None:
    with pytest.raises(UsageError, match="nothing was exported"):
        bench(reporter=heard)
    assert not (here / ".mobiledeploy").exists()
    path = exported["int8_ptq", "tflite"]
    with Store.open() as store:
        store.add_export("key", {str(path): artifacts.load(path)})
    (made,) = bench(runs=10, reporter=heard).measurements
    assert made.artifact_sha256 == artifacts.load(path).sha256


def test_what_stays_on_the_cpu_is_named_and_strict_takes_no_figure(exported, here, heard) -> None:
    whole, part = exported["float32", "tflite"], exported["int8x4_ptq", "tflite"]
    # XNNPACK has no kernels for convolutions with weights of 4 bits.
    (made,) = bench([part], runs=6, reporter=heard).measurements
    taken, total = made.delegated_nodes, made.total_nodes
    assert len(made.left_operators) == total - taken > 0
    assert made.left_operators[0].op == "CONV_2D"
    name = made.left_operators[0].layers[0]
    line = f"xnnpack took {taken} of {total} operators; on the CPU: CONV_2D ({name})"
    assert any(line in said for said in heard.said)
    done = bench([whole, part], runs=6, strict=True, reporter=heard)
    assert [m.left_operators for m in done.measurements] == [()]
    (failed,) = done.failed
    assert (failed.what, failed.exit_code) == (str(part), 4)
    assert f"took {taken} of {total} operators only" in failed.message
    with pytest.raises(VoidError, match="operators only"):
        compare(whole, part, strict=True, reporter=heard)
    for without in ({"delegate": "none"}, {"runtime": "onnxruntime"}):
        file = exported["int8_ptq", "onnx" if "runtime" in without else "tflite"]
        with pytest.raises(UsageError, match="--strict is about what a delegate takes"):
            bench([file], strict=True, **without)
    with pytest.raises(UsageError, match="--strict is for timings"):
        bench([whole], device="pixel-3", strict=True, reporter=heard)


def test_a_native_timing_compares_a_gpu_with_the_cpu(
    emulator, exported, software_gpu, here, heard
) -> None:
    path = exported["float32", "tflite"]
    (made,) = bench([path], runner="native", delegate="gpu", runs=6, reporter=heard).measurements
    assert made.delegated_nodes == made.total_nodes
    assert "SwiftShader" in made.facts_before["gpu"]
    # Another order of additions, and nothing more.
    assert 0 < made.cpu_steps < 0.1
    names = {warning.name for warning in made.warnings}
    assert "software-gpu" in names
    assert not names & {"differs-from-cpu", "same-as-cpu", "partly-delegated"}
    path = exported["int16x8_ptq", "tflite"]
    (made,) = bench([path], runner="native", delegate="gpu", runs=6, reporter=heard).measurements
    assert "on the CPU: CONV_2D (" in next(w.message for w in made.warnings if "partly" in w.name)


def test_a_delegate_that_stays_out_is_warned_of(exported, here, heard) -> None:
    pytest.importorskip(
        "tflite_runtime",
        reason="no tflite_runtime (Python 3.11: pip install 'mobiledeploy[tflite-runtime]')",
    )
    path = exported["int8_ptq", "tflite"]
    (made,) = bench([path], runtime="tflite_runtime", runs=20, reporter=heard).measurements
    assert made.delegated_nodes == 0
    assert "not-delegated" in {warning.name for warning in made.warnings}
    (made,) = bench([path], runtime="litert", delegate="none", runs=20, reporter=heard).measurements
    assert (made.target.delegate, made.delegated_nodes) == ("none", 0)
    assert "not-delegated" not in {warning.name for warning in made.warnings}


def test_invalid_requests_are_refused(exported, here, heard) -> None:
    path = [exported["float32", "tflite"]]
    for given, message in (
        ({"runner": "nativ"}, "no runners named 'nativ'"),
        ({"runtime": "tensorrt"}, "no runtime 'tensorrt'; there are .*litert"),
        ({"delegate": "gpu"}, "no delegate 'gpu'; there are xnnpack, none"),
        ({"threads": 0}, "0 threads"),
    ):
        with pytest.raises(UsageError, match=message):
            bench(path, reporter=heard, **given)
    with pytest.raises(InputError, match="does not exist"):
        bench([here / "nothing.tflite"], reporter=heard)


def test_one_that_fails_does_not_lose_the_others(exported, here, heard) -> None:
    path, gone, bare = exported["int8_ptq", "tflite"], here / "gone.tflite", here / "bare.tflite"
    shutil.copy(path, bare)
    # Its golden image is not beside it, which is found out when its turn comes.
    artifacts.record_path(bare).write_text(artifacts.record_path(path).read_text())
    result = bench([gone, bare, path], runs=10, reporter=heard)
    assert result.paths == (str(path),)
    assert [m.artifact_sha256 for m in result.measurements] == [artifacts.load(path).sha256]
    assert [(f.what, f.exit_code) for f in result.failed] == [(str(gone), 7), (str(bare), 7)]
    result = bench([gone, path], runs=12, reporter=heard)
    assert [f.message for f in result.failed] == [f"{gone} does not exist"]
    with Store.open() as store:
        kept = store.measurements_of(artifacts.load(path).sha256)
        assert [len(m.samples_ns) for m in kept] == [12, 10]
    output = CliRunner().invoke(command, [str(gone), str(path), "--runs", "10"])
    assert output.exit_code == 7
    assert "measured on" in output.stdout
    assert [x for x in output.stderr.splitlines() if x.startswith("error: ")] == [
        f"error: {gone} does not exist"
    ]
    output = CliRunner().invoke(command, [str(gone), str(path), "--runs", "10", "--json"])
    assert output.exit_code == 7
    assert len(records.loads(bench_figures.BenchResult, output.stdout).measurements) == 1


def test_a_golden_image_that_is_none_is_named(exported, here, heard) -> None:
    path = exported["int8_ptq", "tflite"]
    shutil.copy(path, here)
    shutil.copy(artifacts.record_path(path), here)
    with pytest.raises(InputError, match="golden image .*png is not there"):
        bench([here / path.name], runs=10, reporter=heard)


def test_a_golden_image_is_the_one_that_the_record_names(exported, here, heard) -> None:
    folder = here / "theirs"
    (folder / "golden").mkdir(parents=True)
    path = exported["int8_ptq", "tflite"]
    shutil.copy(path, folder)
    artifact = artifacts.load(path)
    (own,) = artifact.golden.images
    image = path.parent / own

    def name(named: str) -> None:
        golden = dataclasses.replace(artifact.golden, images=(named,))
        record = records.dumps(dataclasses.replace(artifact, golden=golden))
        artifacts.record_path(folder / path.name).write_text(record)

    def refused(named: str) -> str:
        name(named)
        with pytest.raises(InputError) as error_info:
            bench([folder / path.name], runs=10, reporter=heard)
        return error_info.value.message

    # The right content at a place that is none of its own.
    shutil.copy(image, here)
    (folder / "golden" / "link.png").symlink_to(here / image.name)
    os.mkfifo(folder / "golden" / "pipe.png")
    for named in (
        f"../{image.name}",
        str(here / image.name),
        "golden/link.png",
        "golden/pipe.png",
        "golden",
    ):
        assert "is not in the artifact's folder" in refused(named)
    assert "cannot be read" in refused("golden/\0.png")
    Image.new("RGB", (8, 8)).save(folder / own)
    assert "is not the one that its name says" in refused(own)
    shutil.copy(image, folder / own)
    (made,) = bench([folder / path.name], runs=10, reporter=heard).measurements
    assert len(made.samples_ns) == 10


def runner() -> int:
    """The one runner below this process, when it is there."""
    for _ in range(600):
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == os.getpid() and b"runners.python" in command:
                return int(entry.name)
        time.sleep(0.02)
    raise AssertionError("no runner after 12 s")


@pytest.mark.parametrize("delay", [0.0, 1.5])
def test_a_runner_that_is_killed_is_a_device_error(exported, here, heard, delay: float) -> None:
    def murder() -> None:
        found = runner()
        time.sleep(delay)
        os.kill(found, signal.SIGKILL)

    thread = threading.Thread(target=murder)
    thread.start()
    with pytest.raises(DeviceError, match="killed by signal 9"):
        bench([exported["int8_ptq", "tflite"]], runs=10_000_000, reporter=heard)
    thread.join()
    with Store.open() as store:
        artifact = artifacts.load(exported["int8_ptq", "tflite"])
        assert store.measurement(artifact.sha256, target(artifact)) is None


def test_a_runner_that_hangs_is_given_up(exported, here, heard) -> None:
    def stop_it() -> None:
        stopped.append(runner())
        os.kill(stopped[0], signal.SIGSTOP)

    stopped: list[int] = []
    thread = threading.Thread(target=stop_it)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timings, "PATIENCE_S", 2.0)
        with pytest.raises(DeviceError, match="int8_ptq.tflite hangs: no output for 2 s"):
            bench([exported["int8_ptq", "tflite"]], runs=10_000_000, reporter=heard)
    thread.join()
    assert not Path(f"/proc/{stopped[0]}").exists()


def test_a_runner_that_will_not_end_is_given_up(exported, here, heard) -> None:
    path = exported["int8_ptq", "tflite"]
    tensor = artifacts.load(path).inputs[0]
    ready = protocol.Ready(2, "litert", "2", (tensor,), (tensor,), "none", 0, 1, 1, "x")
    script = (
        "import time\n"
        f"print({protocol.line(ready)!r}, flush=True)\n"
        "while True:\n"
        f"    print({protocol.line(protocol.Timed((5,) * 10))!r}, flush=True)\n"
        "    time.sleep(0.05)"
    )
    options = recording.BenchRequest("host", "python", None, 1, None, 6, 1.0, False)
    timing = timings.Timing(path, artifacts.load(path), options, False, heard)
    child = _child.Child([sys.executable, "-c", script])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timings, "PATIENCE_S", 1.0)
        with pytest.raises(DeviceError, match="goes on 1 s after it was asked to end"):
            timing._listen(child)
    child.kill()


def test_a_time_limit_stands_for_a_number_of_runs(exported, here, heard) -> None:
    """The short blocks that try a phone's clocks are short, whatever was asked for."""
    path = exported["int8_ptq", "tflite"]
    options = recording.BenchRequest("host", "python", None, 1, None, 10**9, 600.0, False)
    timing = timings.Timing(path, artifacts.load(path), options, False, heard)
    with timings.open_session(resolve.resolve("host"), options, None, heard) as session:
        assert sum(timing.measure(session, seconds=0.2).samples_ns) < 60e9


def test_nothing_of_the_current_folder_is_run(exported, here, heard) -> None:
    for name in ("queue", "numpy", "mobiledeploy"):
        (here / f"{name}.py").write_text(f"open('{name}-was-here', 'w')\nraise SystemExit(3)\n")
    (made,) = bench([exported["float32", "tflite"]], runs=10, reporter=heard).measurements
    assert len(made.samples_ns) == 10
    assert list(here.glob("*-was-here")) == []


def test_a_runtime_that_does_not_fit_is_refused_before_anything_runs(exported, here, heard) -> None:
    paths = [exported["float32", "onnx"], exported["int8_ptq", "tflite"]]
    with pytest.raises(UsageError, match=r"onnxruntime runs \.onnx files, not int8_ptq\.tflite"):
        bench(paths, runtime="onnxruntime", reporter=heard)
    assert heard.steps == []
    assert not (here / ".mobiledeploy").exists()


def test_the_target_is_the_one_of_the_record(exported, here, heard) -> None:
    path = exported["int8_ptq", "tflite"]
    artifact = artifacts.load(path)
    (plain,) = bench([path], runs=10, reporter=heard).measurements
    (other,) = bench([path], runs=10, threads=2, delegate="none", reporter=heard).measurements
    assert plain.target == target(artifact)
    assert other.target == target(artifact, threads=2, delegate="none")
    with Store.open() as store:
        assert store.measurement(artifact.sha256, target(artifact)) == plain
        assert store.measurement(artifact.sha256, other.target) == other


@pytest.mark.slow
def test_what_is_played_back_keeps_its_date_and_says_so(exported, here, heard, monkeypatch) -> None:
    path, other = (exported[key] for key in KEYS)
    file, old = here / "session.json", here / "old.json"
    turns = here / "turns.json"
    (made,) = bench([path], record=file, runs=10, reporter=heard).measurements
    compare(path, other, rounds=6, seconds=0.01, record=turns, reporter=heard)
    for each in (file, turns):
        session = json.loads(each.read_text())
        session["made_at"] = "2025-01-02T03:04:05+01:00"
        each.write_text(json.dumps(session))
    del session["made_at"]
    old.write_text(json.dumps(session))
    os.utime(old, (1e9, 1e9))
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "elsewhere.db"))
    for _ in range(2):
        bench([path], device=f"replay:{file}", reporter=heard)
        compare(path, other, device=f"replay:{turns}", reporter=heard)
    (row,) = results.results().results
    assert (row.made_at, row.recorded) == ("2025-01-02T02:04:05.000+00:00", True)
    (turn,) = results.results_compared().comparisons
    assert (turn.made_at, turn.recorded) == (row.made_at, True)
    # On other machines too; and it answers for no machine of here.
    results.results_export(here / "all.jsonl")
    with Store.open(here / "other.db") as store:
        store.load(store_records.read(here / "all.jsonl"))
        assert store.results() == (row,)
        assert store.comparisons() == (turn,)
        assert store.measurement(made.artifact_sha256, made.target) is None
    for each in (file, turns):
        assert each.read_text().count("2025-01-02") == 1
    result = CliRunner().invoke(command, [str(path), "--device", f"replay:{file}"])
    assert result.stdout.startswith("recorded on 2025-01-02, measured on ")
    turned = [str(path), str(other), "--compare", "--device", f"replay:{turns}"]
    result = CliRunner().invoke(command, turned)
    assert result.stdout.startswith("recorded on 2025-01-02, measured on ")
    for argv in ([], ["--csv"], ["compared"]):
        output = CliRunner().invoke(results_command.command, argv).stdout
        assert "recorded" in output
        assert "2025-01-02T02:04" in output
    assert "measured, recorded" in REPORTS.load("markdown").render(Report("", results=(row,)))
    # One of an earlier mobiledeploy says nothing: its file does.
    monkeypatch.setenv("MOBILEDEPLOY_STORE", str(here / "third.db"))
    compare(path, other, device=f"replay:{old}", reporter=heard)
    assert results.results_compared().comparisons[0].made_at.startswith("2001-09-09")
    old.write_text(json.dumps(session | {"made_at": "yesterday"}))
    with pytest.raises(InputError, match="does not say when it was made: 'yesterday'"):
        compare(path, other, device=f"replay:{old}", reporter=heard)


def test_it_waits_for_a_lease_and_says_so(exported, here, heard) -> None:
    script = (
        "import sys\nfrom mobiledeploy.core import leases\n"
        "with leases.hold('host', exclusive=False, reporter=None):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        threading.Timer(1.0, other.kill).start()
        bench([exported["int8_ptq", "tflite"]], runs=10, reporter=heard)
        assert other.wait() == -signal.SIGKILL
    assert heard.said[0] == "waiting: another mobiledeploy works on host"
    heard.said.clear()
    with leases.hold("host", exclusive=True, reporter=heard):
        assert heard.said == []
