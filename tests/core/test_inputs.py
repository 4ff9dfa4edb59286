"""The one place that opens input files: what no file of a kind can be is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mobiledeploy.cli import _frame
from mobiledeploy.core import artifacts, cards, device_cards, inputs, recording, runs
from mobiledeploy.core.errors import BrokenImage, DeployError, InputError
from mobiledeploy.core.plugins import DATASETS, SOURCES
from mobiledeploy.steps import baseline, diff_figures, estimate, published, store_records
from mobiledeploy.verbs import calibrate


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A file and what is none, by what it is."""
    names = ("file", "pipe", "loop", "gone", "endless", "folder", "locked")
    found = {name: tmp_path / name for name in names}
    found["file"].write_bytes(b"content")
    os.mkfifo(found["pipe"])
    found["loop"].symlink_to("loop")
    found["endless"].symlink_to("/dev/zero")
    found["folder"].mkdir()
    found["locked"].write_bytes(b"content")
    found["locked"].chmod(0)
    return found | {
        "below a file": found["file"] / "x",
        "long": tmp_path / ("x" * 300),
        "NUL": Path(f"{tmp_path}/a\0b"),
        "surrogate": Path(f"{tmp_path}/a\ud800b"),
        "not UTF-8": Path(f"{tmp_path}/a\udcffb"),
    }


def test_a_file_is_read(places):
    assert inputs.read(places["file"], 7) == b"content"
    with inputs.opened(places["file"]) as stream:
        assert stream.read(3) == b"con"
    assert inputs.text(places["file"], 7) == "content"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pipe", "pipe is not a regular file; pipes and devices are not read"),
        ("endless", "endless is not a regular file"),
        ("folder", "folder is a folder"),
        ("loop", "loop cannot be read: Too many levels of symbolic links"),
        ("gone", "gone cannot be read: No such file or directory; check its name"),
        ("below a file", "cannot be read: Not a directory"),
        ("long", "cannot be read: File name too long"),
        ("NUL", "a.0b is no name that a file can have"),
        ("surrogate", "a.ud800b is no name that a file can have"),
        ("not UTF-8", "a.udcffb cannot be read: No such file"),
    ],
)
def test_what_is_no_file_is_refused_at_once(places, name, said):
    with pytest.raises(InputError, match=said):
        inputs.read(places[name], 100)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file (run as another user)")
def test_what_may_not_be_read_is_refused(places):
    with pytest.raises(InputError, match="locked cannot be read: Permission denied"):
        inputs.read(places["locked"], 100)


def test_a_socket_is_no_file(tmp_path):
    code = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, "s"], cwd=tmp_path, check=True)
    with pytest.raises(InputError, match="s cannot be read: No such device or address"):
        inputs.read(tmp_path / "s", 100)


def test_larger_than_its_kind_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(InputError, match=f"too large: {1 << 40} bytes, where {inputs.MODEL} are"):
        inputs.read(path, inputs.MODEL)
    with pytest.raises(InputError, match="7 bytes, where 6 are"):
        path.write_bytes(b"content")
        inputs.read(path, 6)


def test_a_disk_that_fails_later_is_refused_by_the_files_name():
    """Nothing is at the start of a process's memory: it opens, and cannot be read."""
    with (
        pytest.raises(InputError, match="/proc/self/mem cannot be read: Input/output error"),
        inputs.opened(Path("/proc/self/mem")) as stream,
    ):
        stream.readline()


def test_only_what_is_not_there_is_absent(places):
    for name in ("gone", "below a file", "NUL"):
        with pytest.raises(inputs.Absent):
            inputs.read(places[name], 100)
    with pytest.raises(InputError) as caught:
        inputs.read(places["folder"], 100)
    assert not isinstance(caught.value, inputs.Absent)


def test_what_grows_while_it_is_read_is_refused(places, monkeypatch):
    monkeypatch.setattr(
        os, "fstat", lambda handle: os.stat_result((0o100644, *(0,) * 5, 3, 0, 0, 0))
    )
    with pytest.raises(InputError, match="was changed while it was read"):
        inputs.read(places["file"], 100)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = \xff", "byte 4 is not UTF-8"),
        (b"a = ", "cannot be read"),
        (b"a = " + b"[" * 5000, "nests too deep"),
        (b"a = " + b"9" * 5000, "Exceeds the limit"),
        (b'a = "\\u0000"', "NUL"),
        (b'[[b]]\n"\\u0000" = 1', "NUL"),
    ],
)
def test_what_is_no_toml_is_refused(tmp_path, content, said):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        inputs.toml(path)


def test_toml_is_read(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('[a]\nb = [1, "c"]\n')
    assert inputs.toml(path) == {"a": {"b": [1, "c"]}}


READERS: dict[str, Callable[[Path], object]] = {
    "a baseline": lambda path: baseline.read(path, ""),
    "a device card": device_cards.read,
    "a figure": diff_figures._read,
    "a finished model": lambda path: estimate.read(path, ""),
    "a list of latencies": lambda path: list(calibrate._listed(path, "litert", 1)),
    "a model card": cards.read,
    "a numpy archive": lambda path: DATASETS.load("npz").open(
        str(path), "all", resolution=(8, 8), labels=()
    ),
    "a published table": published.read,
    "a recording": recording.read,
    "a run": runs.read,
    "an artifact": artifacts.load,
    "class names": _frame.read_labels,
    "Keras weights": SOURCES.load("tf_keras").detect,
    "records": lambda path: list(store_records.read(path)),
}


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("place", ["pipe", "endless", "gone"])
def test_no_reader_waits_or_fills_the_memory(tmp_path, what, place):
    path = tmp_path / ("x.tflite" if what == "a finished model" else "x.h5")
    if place == "pipe":
        os.mkfifo(path)
    elif place == "endless":
        path.symlink_to("/dev/zero")
    artifacts.record_path(path).write_text("{}")
    with pytest.raises(
        DeployError, match="not a regular file|cannot be read|not there|no base|Art"
    ):
        READERS[what](path)


def test_an_image_in_a_pipe_is_one_broken_image(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    held = DATASETS.load("folder").open(str(tmp_path), "all", resolution=(8, 8), labels=())
    assert held.identity
    with pytest.raises(BrokenImage, match="not a regular file"):
        held.image(0)
