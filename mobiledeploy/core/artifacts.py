"""The door between the wings: a finished model file is taken with its record, or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mobiledeploy.core import records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.types import Artifact


def record_path(path: Path) -> Path:
    """<artifact>.json, beside it."""
    return path.with_name(path.name + ".json")


def load(path: Path) -> Artifact:
    """The record beside an artifact; InputError where it is absent or speaks of another file."""
    record = record_path(path)
    if not path.is_file():
        raise InputError(f"{path} is not there" if not path.exists() else f"{path} is no file")
    if not record.is_file():
        raise InputError(
            f"{path} has no record ({record.name}) beside it",
            "only what mobiledeploy export made can be taken, a model file alone cannot yet",
        )
    try:
        artifact = records.loads(Artifact, record.read_bytes(), str(record))
        digest = records.sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if digest != artifact.sha256:
        raise InputError(f"{path} is not the file that its record speaks of", "export it again")
    return artifact


def staging(folder: Path) -> Path:
    """Where this process makes what will be renamed into `folder`: .<name>.<process>.staging."""
    return folder.parent / f".{folder.name}.{os.getpid()}.staging"


def left_aside(folder: Path) -> Iterator[Path]:
    """The staging folders in `folder` whose process is gone."""
    for path in folder.iterdir() if folder.is_dir() else ():
        found = re.fullmatch(r"\..+\.(\d+)\.staging", path.name)
        if found and not _runs(int(found[1])):
            yield path


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True
