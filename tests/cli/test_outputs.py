"""Where a command writes: files, links, pipes, devices and standard output."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mobiledeploy.core.ports import SILENT
from mobiledeploy.steps.export_plan import ExportConfig, plan
from mobiledeploy.store.database import Store
from tests import warm
from tests.figures import artifact, measured

WRITERS = [("results", "export"), ("report", "--format", "json", "--out")]
writers = pytest.mark.parametrize("argv", WRITERS, ids=["results", "report"])


def run(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.program(), "-m", "mobiledeploy", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def kept(here: Path) -> Path:
    """A folder whose store holds a figure."""
    with Store.open() as store:
        store.add_artifact(artifact())
        store.add_measurement(measured())
    return here


@writers
def test_on_standard_output_is_the_file_and_nothing_else(argv: Sequence[str], kept: Path) -> None:
    assert run(*argv, "file").returncode == 0
    result = run(*argv, "/dev/stdout")
    assert result.returncode == 0, result.stderr
    assert result.stdout == Path("file").read_text()
    assert result.stderr.startswith("/dev/stdout: ")


@writers
def test_a_link_and_a_pipe_stay_what_they_are(argv: Sequence[str], kept: Path) -> None:
    assert run(*argv, "file").returncode == 0
    Path("link").symlink_to("elsewhere")
    os.mkfifo("pipe")
    assert run(*argv, "link").returncode == 0
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        assert run(*argv, "pipe").returncode == 0
        assert reader.communicate()[0] == Path("file").read_text()
    assert Path("elsewhere").read_text() == Path("file").read_text()
    assert Path("link").is_symlink()
    assert Path("pipe").is_fifo()


def test_a_store_that_is_a_device_is_refused(kept: Path) -> None:
    environment = os.environ | {"MOBILEDEPLOY_STORE": "/dev/null"}
    result = subprocess.run(
        [sys.executable, "-m", "mobiledeploy", "results"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert result.returncode == 2
    assert "error: /dev/null is not a regular file" in result.stderr


def test_an_export_does_not_begin_where_a_pipe_stands_for_a_file(here: Path) -> None:
    folder = plan(ExportConfig(alpha=0.25, res=96), SILENT).folder
    folder.mkdir(parents=True)
    os.mkfifo(folder / "int8_ptq.tflite")
    result = run("export", "--alpha", "0.25", "--res", "96", "--recipe", "int8_ptq")
    assert result.returncode == 2, result.stderr
    assert "int8_ptq.tflite is not a regular file" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["int8_ptq.tflite"]
