"""`mobiledeploy train` as a user runs it: killed, interrupted, resumed, by two workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mobiledeploy.cli import train
from mobiledeploy.core import records, runs
from mobiledeploy.verbs import train as train_verb

PROGRAM = (sys.executable, "-m", "mobiledeploy", "train", "--alpha", "0.25", "--res", "32")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    labels = np.arange(400) % 2
    images = np.random.default_rng(0).integers(0, 90, (400, 32, 32, 3), np.uint8)
    images += (labels * 100).astype(np.uint8)[:, None, None, None]
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    return tmp_path


def started(folder: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, "--data", "data.npz", "--batch", "8", *more],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


def until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}")


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def arrays(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_what_is_refused_is_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        [*PROGRAM, "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "is not a known data set" in result.stderr
    assert not (tmp_path / "run").exists()


def test_help_names_the_schedules() -> None:
    output = CliRunner().invoke(train.command, ["--help"]).output
    for word in ("paper", "v2", "finetune", "--teacher", "--label-smoothing", "--input-range"):
        assert word in output


@pytest.mark.parametrize(("count", "best"), [(1, 0), (3, 1), (100, 57)])
def test_a_table_shows_some_epochs_and_the_kept_one(count: int, best: int) -> None:
    output = train_verb._some(count, best)
    assert len(output) <= 10
    assert {0, best, count - 1} <= set(output) <= set(range(count))


@pytest.mark.slow
def test_a_killed_training_ends_where_an_unbroken_one_does(data: Path) -> None:
    whole = started(data, "--epochs", "4", "--out", "whole", "--ema", "--json")
    out, _ = whole.communicate()
    assert whole.returncode == 0
    answer = json.loads(out)
    assert answer["schema_version"] == records.SCHEMA_VERSION
    assert len(answer["run"]["history"]) == 4

    broken = started(data, "--epochs", "4", "--out", "broken", "--ema")
    until(broken, "epoch 2 of 4")
    (child,) = children(broken.pid)
    broken.kill()
    broken.communicate()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the child outlived its parent")
    assert not (data / "broken" / "run.json").exists()

    again = started(data, "--epochs", "4", "--out", "broken", "--ema")
    message = again.communicate()[1]
    assert again.returncode == 0
    assert "going on after epoch" in message
    assert "epoch 1 of 4" not in message
    assert len((data / "broken" / "log.csv").read_text().splitlines()) == 5
    one, other = (arrays(data / name / "weights.h5") for name in ("whole", "broken"))
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_an_interrupt_is_answered_at_once_and_says_how_to_go_on(data: Path) -> None:
    process = started(data, "--epochs", "50", "--out", "run")
    until(process, "epoch 1 of 50")
    process.send_signal(signal.SIGINT)
    start = time.perf_counter()
    message = process.communicate()[1]
    assert time.perf_counter() - start < 3
    assert process.returncode == 130
    assert message.splitlines()[-1] == "interrupted; the same command resumes the training"


def workers(data: Path, *outs: str, epochs: int) -> list[subprocess.Popen[str]]:
    """Processes that train together, each with its own --out."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [
        started(
            data,
            "--epochs",
            str(epochs),
            "--strategy",
            "multiworker",
            "--out",
            out,
            "--json",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        )
        for index, out in enumerate(outs)
    ]


@pytest.mark.slow
def test_workers_that_begin_at_different_epochs_are_refused(data: Path) -> None:
    for worker in workers(data, "run", "elsewhere", epochs=1):
        assert worker.communicate() and worker.returncode == 0
    for worker in workers(data, "run", "elsewhere", epochs=2):
        _, error = worker.communicate()
        assert worker.returncode == 2, error
        assert "different numbers of epochs (1, 0)" in error
    for worker in workers(data, "run", "run", epochs=2):
        _, error = worker.communicate()
        assert worker.returncode == 0, error


@pytest.mark.slow
def test_two_workers_train_one_network(data: Path) -> None:
    answers = []
    for worker in workers(data, "run", "run", epochs=2):
        out, error = worker.communicate()
        assert worker.returncode == 0, error
        answers.append(json.loads(out)["run"])
    losses = [[epoch["loss"] for epoch in answer["history"]] for answer in answers]
    assert losses[0] == pytest.approx(losses[1])
    assert answers[0]["spec"]["weights"]["sha256"] == runs.load(data / "run").spec.weights.sha256
    assert sorted(path.name for path in (data / "run").iterdir()) == [
        "log.csv",
        "run.json",
        "state",
        "tensorboard",
        "weights.h5",
    ]


@pytest.mark.slow
def test_one_host_with_a_mirrored_network(data: Path) -> None:
    process = started(data, "--epochs", "1", "--strategy", "mirrored", "--out", "run")
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert "Next: mobiledeploy export run" in out


@pytest.mark.slow
def test_the_next_command_can_be_pasted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    options = ["--alpha", "0.25", "--res", "32", "--data", "data.npz", "--epochs", "1"]
    result = CliRunner().invoke(train.command, [*options, "--out", "my runs/first"])
    assert result.exit_code == 0, result.output
    assert "Next: mobiledeploy export 'my runs/first'" in result.output
