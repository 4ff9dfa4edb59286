from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import InputError


def copied(path: Path, folder: Path) -> Path:
    shutil.copy(path, folder)
    shutil.copy(artifacts.record_path(path), folder)
    return folder / path.name


def test_an_artifact_is_its_file_and_its_record(exported, tmp_path) -> None:
    path = copied(exported["int8_ptq", "tflite"], tmp_path)
    artifact = artifacts.load(path)
    assert (artifact.path, artifact.format) == ("int8_ptq.tflite", "tflite")
    assert artifact.recipe.name == "int8_ptq"


def test_half_an_artifact_is_refused(exported, tmp_path) -> None:
    path = copied(exported["float32", "onnx"], tmp_path)
    with path.open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(InputError, match="not the file that its record speaks of"):
        artifacts.load(path)
    artifacts.record_path(path).write_text('{"schema_version": 1, "record": "Artifact"}')
    with pytest.raises(InputError, match="do not fit"):
        artifacts.load(path)
    artifacts.record_path(path).unlink()
    with pytest.raises(InputError, match=r"no record.*export"):
        artifacts.load(path)
    path.unlink()
    with pytest.raises(InputError, match="is not there"):
        artifacts.load(path)
    with pytest.raises(InputError, match="is no file"):
        artifacts.load(tmp_path)
