"""The one module that opens input files: a file that its kind cannot be is an error in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts, cards, device_cards, inputs, recording, runs
from mobiledeploy.core.errors import BrokenImage, DeployError, InputError
from mobiledeploy.core.plugins import DATASETS, SOURCES
from mobiledeploy.steps import arguments, baseline, diff_figures, estimate, published, store_records
from mobiledeploy.verbs import calibrate


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """A regular file and other paths, by kind."""
    names = ("file", "pipe", "loop", "gone", "endless", "folder", "locked")
    paths = {name: tmp_path / name for name in names}
    paths["file"].write_bytes(b"content")
    os.mkfifo(paths["pipe"])
    paths["loop"].symlink_to("loop")
    paths["endless"].symlink_to("/dev/zero")
    paths["folder"].mkdir()
    paths["locked"].write_bytes(b"content")
    paths["locked"].chmod(0)
    return paths | {
        "below a file": paths["file"] / "x",
        "long": tmp_path / ("x" * 300),
        "NUL": Path(f"{tmp_path}/a\0b"),
        "surrogate": Path(f"{tmp_path}/a\ud800b"),
        "not UTF-8": Path(f"{tmp_path}/a\udcffb"),
    }


def test_a_file_is_read(places):
    assert inputs.read(places["file"], 7) == b"content"
    with inputs.open_file(places["file"]) as stream:
        assert stream.read(3) == b"con"
    assert inputs.text(places["file"], 7) == "content"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe", "pipe is not a regular file; pipes and devices are not read"),
        ("endless", "endless is not a regular file"),
        ("folder", "folder is a folder"),
        ("loop", "loop cannot be read: Too many levels of symbolic links"),
        ("gone", "gone cannot be read: No such file or directory; check its name"),
        ("below a file", "cannot be read: Not a directory"),
        ("long", "cannot be read: File name too long"),
        ("NUL", "a.0b is not a valid file name"),
        ("surrogate", "a.ud800b is not a valid file name"),
        ("not UTF-8", "a.udcffb cannot be read: No such file"),
    ],
)
def test_a_path_that_is_not_a_regular_file_is_refused_at_once(places, name, message):
    with pytest.raises(InputError, match=message):
        inputs.read(places[name], 100)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file (run as another user)")
def test_an_unreadable_file_is_refused(places):
    with pytest.raises(InputError, match="locked cannot be read: Permission denied"):
        inputs.read(places["locked"], 100)


def test_a_socket_is_not_a_file(tmp_path):
    code = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, "s"], cwd=tmp_path, check=True)
    with pytest.raises(InputError, match="s cannot be read: No such device or address"):
        inputs.read(tmp_path / "s", 100)


def test_a_file_larger_than_its_kind_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(
        InputError, match=f"too large: {1 << 40} bytes, the limit is {inputs.MODEL}"
    ):
        inputs.read(path, inputs.MODEL)
    with pytest.raises(InputError, match="7 bytes, the limit is 6"):
        path.write_bytes(b"content")
        inputs.read(path, 6)


def test_a_later_read_error_names_the_file():
    """The start of a process's memory is not mapped: the file opens but cannot be read."""
    with (
        pytest.raises(InputError, match="/proc/self/mem cannot be read: Input/output error"),
        inputs.open_file(Path("/proc/self/mem")) as stream,
    ):
        stream.readline()


def test_only_a_missing_file_is_absent(places):
    for name in ("gone", "below a file", "NUL"):
        with pytest.raises(inputs.Absent):
            inputs.read(places[name], 100)
    with pytest.raises(InputError) as excinfo:
        inputs.read(places["folder"], 100)
    assert not isinstance(excinfo.value, inputs.Absent)


def test_a_file_that_grows_while_it_is_read_is_refused(places, monkeypatch):
    monkeypatch.setattr(
        os, "fstat", lambda handle: os.stat_result((0o100644, *(0,) * 5, 3, 0, 0, 0))
    )
    with pytest.raises(InputError, match="changed while it was read"):
        inputs.read(places["file"], 100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = \xff", "byte 4 is not UTF-8"),
        (b"a = ", "cannot be read"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"a = " + b"9" * 5000, "Exceeds the limit"),
        (b'a = "\\u0000"', "NUL"),
        (b'[[b]]\n"\\u0000" = 1', "NUL"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path, content, message):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
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
    "a list of latencies": lambda path: list(calibrate._from_table(path, "litert", 1)),
    "a model card": cards.read,
    "a numpy archive": lambda path: DATASETS.load("npz").open(
        str(path), "all", resolution=(8, 8), labels=()
    ),
    "a published table": published.read,
    "a recording": recording.read,
    "a run": runs.read,
    "an artifact": artifacts.load,
    "class names": arguments._labels,
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
        DeployError, match="not a regular file|cannot be read|does not exist|no base|Art"
    ):
        READERS[what](path)


def test_an_image_in_a_pipe_is_one_broken_image(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    samples_ = DATASETS.load("folder").open(str(tmp_path), "all", resolution=(8, 8), labels=())
    assert samples_.identity
    with pytest.raises(BrokenImage, match="not a regular file"):
        samples_.image(0)
