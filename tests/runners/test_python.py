from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mobiledeploy.core import artifacts, protocol, records
from mobiledeploy.core.plugins import FORMATS, RUNNERS, dataset
from mobiledeploy.core.types import Failure, Target
from mobiledeploy.runners import python

LITERT = Target("host", "python", "litert", 1, "")


def start(argv: tuple[str, ...], **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def talk(argv: tuple[str, ...], message: str = "") -> tuple[list[protocol.Event], int, str]:
    with start(argv) as child:
        out, err = child.communicate(message, timeout=120)
    return [protocol.parse(line) for line in out.splitlines()], child.returncode, err


def work(path: Path) -> protocol.Work:
    artifact = artifacts.load(path)
    return artifacts.work(artifact, artifact.data)


def test_it_is_on_the_shelf() -> None:
    assert RUNNERS.load("python").files("x86_64", "litert") == {}
    assert "litert" in RUNNERS.load("python").runtimes()


def test_bench_reports_every_run_until_it_is_stopped(exported) -> None:
    path = exported["int8_ptq", "tflite"]
    with start(python.bench(str(path), LITERT, None, {})) as child:
        assert child.stdout
        assert child.stdin
        ready = protocol.parse(child.stdout.readline())
        first = protocol.parse(child.stdout.readline())
        child.stdin.close()
        rest = [protocol.parse(line) for line in child.stdout]
        assert child.wait(60) == 0
        assert child.stderr
        assert child.stderr.read() == ""
    assert isinstance(ready, protocol.Ready)
    assert (ready.runtime, ready.delegate, ready.threads) == ("litert", "xnnpack", 1)
    assert [tensor.dtype for tensor in ready.inputs] == ["int8"]
    assert isinstance(first, protocol.Timed)
    # A block ends with the first run that ends after its time, however slow the machine is.
    assert sum(first.samples_ns[:-1]) < python.BLOCK_NS
    assert min(first.samples_ns) > 0
    assert isinstance(rest[-1], protocol.Done)
    assert all(isinstance(event, protocol.Timed) for event in rest[:-1])
    # A Python with numpy and LiteRT, and no TensorFlow, which takes ten times that.
    assert 20e6 < rest[-1].peak_rss_bytes < 300e6


def test_the_number_of_runs_can_be_bounded(exported) -> None:
    argv = (
        *python.bench(
            str(exported["float32", "onnx"]),
            Target("host", "python", "onnxruntime", 1, "none"),
            None,
            {},
        ),
        "--max-runs",
        "7",
    )
    with start(argv) as child:
        events = [protocol.parse(line) for line in child.stdout or ()]
    times = [ns for event in events if isinstance(event, protocol.Timed) for ns in event.samples_ns]
    assert len(times) == 7


def test_a_sample_is_the_tensors_bytes(exported, tmp_path) -> None:
    path = exported["int8_ptq", "tflite"]
    sample = tmp_path / "sample.bin"
    sample.write_bytes(np.zeros((1, 64, 64, 3), np.int8).tobytes())
    events, status, _ = talk(python.bench(str(path), LITERT, str(sample), {}))
    assert status == 0
    assert isinstance(events[-1], protocol.Done)
    sample.write_bytes(b"short")
    events, status, _ = talk(python.bench(str(path), LITERT, str(sample), {}))
    assert status == 7
    assert events == [Failure(7, "the sample has 5 bytes, the input is int8 [1, 64, 64, 3]", "")]


@pytest.mark.parametrize("recipe", ["float32", "int8_ptq"])
@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_predict_answers_the_requested_images(exported, recipe, format_) -> None:
    path = exported[recipe, format_]
    job = work(path)
    runtime = {"tflite": "litert", "onnx": "onnxruntime"}[format_]
    argv = python.predict(str(path), Target("host", "python", runtime, 1, ""), {})
    events, status, _ = talk(argv, f"{records.line(job)}\n3 5\n0 1\n")
    ready, *answers, end = events
    assert status == 0
    assert isinstance(ready, protocol.Ready)
    # The engine may not know scales; the record does, so its tensors are reported.
    assert (ready.inputs, ready.outputs) == (job.inputs, job.outputs)
    assert isinstance(end, protocol.Done)
    samples = dataset(job.data.source).open(
        job.data.source, "validation", resolution=job.data.resolution, labels=job.data.labels
    )
    assert [a.index for a in answers] == [3, 4, 0]
    assert [a.sample for a in answers] == [samples.id(i) for i in (3, 4, 0)]
    assert [a.label for a in answers] == [samples.label(i) for i in (3, 4, 0)]
    for answer in answers:
        row = np.frombuffer(base64.b64decode(answer.rows[0]), "<f4")
        assert row.shape == (12,)
        assert row.sum() == pytest.approx(1, abs=0.05)


def test_predict_refuses_a_file_that_differs_from_its_record(exported) -> None:
    job = work(exported["int8_ptq", "tflite"])
    argv = python.predict(str(exported["float32", "tflite"]), LITERT, {})
    events, status, _ = talk(argv, records.line(job) + "\n")
    assert status == 7
    assert "float32.tflite has" in events[0].message
    assert "its record says int8" in events[0].message


def test_a_refusal_is_an_event(exported, tmp_path) -> None:
    (tmp_path / "a.tflite").write_text("no model")
    events, status, _ = talk(python.bench(str(tmp_path / "a.tflite"), LITERT, None, {}))
    assert status == 7
    assert isinstance(events[0], Failure)
    target = Target("host", "python", "nothing", 1, "")
    events, status, _ = talk(python.bench(str(exported["float32", "tflite"]), target, None, {}))
    assert (status, events[0].exit_code) == (2, 2)


PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(99)
"""


def test_it_does_not_outlive_its_parent(exported) -> None:
    argv = python.bench(str(exported["int8_ptq", "tflite"]), LITERT, None, {})
    with start((sys.executable, "-c", PARENT, *argv)) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the runner was still there after 5 s")


MODULES_SCRIPT = """
import json, sys
from mobiledeploy.runners import python
status = python.main(sys.argv[1:])
print(json.dumps(sorted(m for m in sys.modules if "." not in m)), file=sys.stderr)
"""


def test_it_loads_one_runtime_and_no_tensorflow(exported) -> None:
    path = str(exported["float32", "tflite"])
    argv = ("bench", "--model", path, "--runtime", "litert", "--threads", "1", "--max-runs", "1")
    events, _, err = talk((sys.executable, "-c", MODULES_SCRIPT, *argv))
    modules = set(json.loads(err))
    assert isinstance(events[-1], protocol.Done)
    assert "ai_edge_litert" in modules
    assert not modules & {
        "tensorflow",
        "keras",
        "tf_keras",
        "onnx",
        "onnxruntime",
        "tflite_runtime",
        "scipy",
        "click",
        "rich",
    }


def test_layers_runs_subgraphs_as_they_are_named(exported, tmp_path) -> None:
    source = exported["float32", "tflite"]
    shelf = FORMATS.load("tflite")
    facts = shelf.inspect(source.read_bytes())
    names = [tensor.name for tensor in shelf.activations(facts)]
    image = np.zeros(facts.inputs[0].shape, np.float32)
    feeds = []
    # More than it keeps loaded, and then the first one again.
    for number in (*range(python.MAX_LOADED_PARTS + 2), 0):
        part = tmp_path / f"{number}.tflite"
        part.write_bytes(
            shelf.extract_subgraph(source.read_bytes(), ["image"], names[-2 - number :][:2])
        )
        np.savez(tmp_path / "in.npz", **{"0": image})
        out = str(tmp_path / f"{len(feeds)}.npz")
        feeds.append(protocol.Feed(str(part), str(tmp_path / "in.npz"), out))
    events, status, _ = talk(python.layers(LITERT), "".join(records.line(f) + "\n" for f in feeds))
    assert status == 0
    assert events[:-1] == [protocol.Fed(feed.outputs) for feed in feeds]
    assert isinstance(events[-1], protocol.Done)
    with np.load(feeds[0].outputs) as first, np.load(feeds[-1].outputs) as again:
        assert first["1"].shape == (1, 12)
        assert (first["0"] == again["0"]).all()


def test_layers_refuses_a_file_that_is_not_a_subgraph(tmp_path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"nothing")
    feed = protocol.Feed(str(tmp_path / "a.tflite"), "in.npz", "out.npz")
    events, status, _ = talk(python.layers(LITERT), records.line(feed) + "\n")
    assert status == 7
    assert isinstance(events[-1], Failure)
    assert "a.tflite" in events[-1].message
