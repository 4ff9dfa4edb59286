from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError, UsageError


def copy_artifact(path: Path, folder: Path) -> Path:
    shutil.copy(path, folder)
    shutil.copy(artifacts.record_path(path), folder)
    return folder / path.name


def test_an_artifact_is_its_file_and_its_record(exported, tmp_path) -> None:
    path = copy_artifact(exported["int8_ptq", "tflite"], tmp_path)
    artifact = artifacts.load(path)
    assert (artifact.path, artifact.format) == ("int8_ptq.tflite", "tflite")
    assert artifact.recipe.name == "int8_ptq"


def test_half_an_artifact_is_refused(exported, tmp_path) -> None:
    path = copy_artifact(exported["float32", "onnx"], tmp_path)
    with path.open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(InputError, match="not the file that its record describes"):
        artifacts.load(path)
    artifacts.record_path(path).write_text('{"schema_version": 1, "record": "Artifact"}')
    with pytest.raises(InputError, match="do not fit"):
        artifacts.load(path)
    artifacts.record_path(path).unlink()
    with pytest.raises(InputError, match="not an ONNX file, or a truncated one"):
        artifacts.load(path)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        artifacts.load(path)
    with pytest.raises(InputError, match="is not a file"):
        artifacts.load(tmp_path)


@pytest.mark.parametrize("place", [".", "/", ".."])
def test_a_folder_is_not_an_artifact(place: str) -> None:
    assert artifacts.without_records([Path(place)]) == (Path(place),)
    with pytest.raises(InputError, match="is not a file"):
        artifacts.load(Path(place))


def test_records_that_a_pattern_matches_are_left_out(tmp_path) -> None:
    names = ("a.onnx", "a.onnx.json", "a.tflite", "a.tflite.json", "b.tflite.json")
    for name in names:
        (tmp_path / name).touch()
    paths = [tmp_path / name for name in names]
    paths_alone = artifacts.without_records([*paths, paths[0]])
    assert [path.name for path in paths_alone] == ["a.onnx", "a.tflite", "b.tflite.json"]
    assert artifacts.without_records([paths[1]]) == (paths[1],)
    with pytest.raises(InputError, match="record of an artifact; name a.onnx itself"):
        artifacts.load(paths[1])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("inputs",), [], "inputs and outputs"),
        (("inputs", 0, "dtype"), "foo", "dtype"),
        (("inputs", 0, "zero_point"), [2**70], "zero_point"),
        (("outputs", 0, "scale"), [0.0], "scale"),
        (("outputs", 0, "scale"), [], "scale"),
        (("spec", "resolution"), [-5, 5], "resolution"),
        (("spec", "classes"), 1, "classes"),
        (("spec", "preprocessing", "std"), [0.0, 0.0, 0.0], "std"),
        (("spec", "preprocessing", "input_range"), [0.0, None], "range"),
    ],
)
def test_an_edited_record_is_refused_by_field(path, value, message, exported, tmp_path) -> None:
    file = copy_artifact(exported["int8_ptq", "tflite"], tmp_path)
    record = artifacts.record_path(file)
    data = json.loads(record.read_text())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    record.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message) as excinfo:
        artifacts.load(file)
    assert record.name in str(excinfo.value)


def test_a_staging_folder_is_removed_with_the_parents_made_for_it(tmp_path) -> None:
    with artifacts.staging(tmp_path / "a" / "b" / "made") as aside:
        assert aside.parent == tmp_path / "a" / "b"
        assert list(artifacts.abandoned_folders(aside.parent)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_staging_folder_of_a_killed_process_is_removed(tmp_path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from mobiledeploy.core import artifacts\n"
        "with artifacts.staging(pathlib.Path(sys.argv[1]) / 'made'):\n"
        "    print('made', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout and maker.stdout.readline() == b"made\n"
        assert list(artifacts.abandoned_folders(tmp_path)) == []
        maker.kill()
    (folder,) = artifacts.abandoned_folders(tmp_path)
    with artifacts.staging(tmp_path / "other"):
        assert not folder.exists()


def test_scratch_of_a_killed_process_is_removed_and_that_of_a_live_one_is_not(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import time\n"
        "from mobiledeploy.core import artifacts\n"
        "with artifacts.scratch() as folder:\n"
        "    (folder / 'input.bin').write_bytes(bytes(1000))\n"
        "    print(folder, flush=True); time.sleep(60)\n"
    )
    places = []
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for maker in makers:
            assert maker.stdout
            places.append(Path(maker.stdout.readline().strip()))
        makers[0].kill()
        makers[0].wait()
        with artifacts.scratch() as own:
            assert set(tmp_path.iterdir()) == {places[1], own}
            assert (places[1] / "input.bin").exists()
    finally:
        for maker in makers:
            maker.kill()
            maker.communicate()


def test_without_room_for_temporary_files_the_variable_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with (
        pytest.raises(UsageError, match="cannot write in .*file: ") as excinfo,
        artifacts.scratch(),
    ):
        pass
    assert "TMPDIR" in excinfo.value.hint
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(UsageError, match=f"cannot write in {tmp_path}: no space left") as excinfo,
        artifacts.scratch() as folder,
    ):
        (folder / "input.bin").symlink_to("/dev/full")
        (folder / "input.bin").write_bytes(bytes(1000))
    assert "TMPDIR" in excinfo.value.hint
    # The full disk is not that of our folder.
    with pytest.raises(OSError, match="No space left"), artifacts.scratch():
        raise OSError(errno.ENOSPC, "No space left on device", "/dev/full")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_no_folder_takes_temporary_files_the_variable_is_named() -> None:
    code = (
        "import resource\n"
        "from mobiledeploy.core import artifacts\n"
        "from mobiledeploy.core.errors import UsageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "try:\n"
        "    with artifacts.scratch(): pass\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.startswith("there is no place for temporary files: "), process.stderr
    assert "TMPDIR" in process.stdout


def test_a_folder_that_only_looks_abandoned_is_kept(tmp_path) -> None:
    """In a shared folder a pipe as the lock does not block us, and a link is not a lock."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lock").touch()
    (tmp_path / ".a.x.staging").symlink_to("mine")
    for name in ("b", "c"):
        (tmp_path / f".{name}.x.staging").mkdir()
    (tmp_path / ".b.x.staging" / "lock").symlink_to(tmp_path / "mine" / "lock")
    os.mkfifo(tmp_path / ".c.x.staging" / "lock")
    with artifacts.staging(tmp_path / "made"):
        pass
    assert (tmp_path / "mine" / "lock").exists()
    assert (tmp_path / ".b.x.staging").exists()
