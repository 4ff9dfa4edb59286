"""The door between the wings: a finished model file is taken with its record, or not at all."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import Artifact

_STAGING = ".staging"
_ROOM = "set TMPDIR to a folder that you can write in and that has space left"
_AGAIN = "export it again, with --force"
_ZERO_POINTS = {"int8": range(-128, 128), "uint8": range(256), "int16": range(1)}
"""Of the integers that an end may be of; kernels of 16 bits have none but 0."""


def record_path(path: Path) -> Path:
    """<artifact>.json, beside it."""
    # Not with_name: "." and "/" have none.
    return path.parent / f"{path.name}.json"


def named(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Paths, each once, without the records of artifacts that are among them.

    A shell's pattern such as ``build/*/int8_ptq.*`` brings these along.
    """
    once = tuple(dict.fromkeys(paths))
    records_ = {record_path(path) for path in once}
    return tuple(path for path in once if path not in records_)


def load(path: Path) -> Artifact:
    """The record beside an artifact; InputError where it is absent or speaks of another file."""
    record = record_path(path)
    if path.is_dir():
        raise InputError(f"{path} is no file")
    if not path.exists():
        raise InputError(f"{path} is not there")
    if path.suffix == ".json" and path.with_suffix("").is_file():
        raise InputError(f"{path} is the record of an artifact", f"name {path.stem} itself")
    if not record.exists():
        raise InputError(
            f"{path} has no record ({record.name}) beside it",
            "only what mobiledeploy export made can be taken, a model file alone cannot yet",
        )
    artifact = records.loads(Artifact, inputs.read(record, inputs.RECORD), str(record))
    digest = records.sha256(path)
    check(artifact, str(record))
    if digest != artifact.sha256:
        raise InputError(f"{path} is not the file that its record speaks of", _AGAIN)
    return artifact


def check(artifact: Artifact, record: str) -> None:
    """InputError for what no export writes: records are input like any other file."""
    # Not at the top: doctor looks for staging folders where numpy is missing, too.
    from mobiledeploy.core import preprocessing

    spec = artifact.spec
    try:
        preprocessing.validate(spec.preprocessing)
    except UsageError as error:
        raise InputError(f"{record}: {error.message}", _AGAIN) from error
    ends = (*artifact.inputs, *artifact.outputs)
    sound = {
        "inputs and outputs": len(artifact.inputs) == len(artifact.outputs) == 1,
        "dtype": all(tensor.dtype in ("float32", *_ZERO_POINTS) for tensor in ends),
        "scale": all(
            len(t.scale) == len(t.zero_point) == (t.dtype in _ZERO_POINTS)
            and all(0 < scale < math.inf for scale in t.scale)
            and all(zero in _ZERO_POINTS[t.dtype] for zero in t.zero_point)
            for t in ends
        ),
        "resolution": min(spec.resolution) > 0,
        "classes": spec.classes > 1,
        "size": artifact.size_bytes > 0,
    }
    for field, holds in sound.items():
        if not holds:
            raise InputError(f"{record}: {field} cannot be so", _AGAIN)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, gone afterwards, with whatever was made on the way to it.

    What is made there is renamed into `folder` when it is whole. The one file in it, `lock`, tells
    that its maker lives: process ids come again, in containers soon.
    """
    import fcntl

    created = [p for p in (folder.parent, *folder.parent.parents) if not p.exists()]
    aside: Path | None = None
    try:
        with records.writing(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            for stale in left_aside(folder.parent):
                shutil.rmtree(stale, ignore_errors=True)
            # It has its name when it is locked: before that it would be taken for a left one.
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            lock = (aside / "lock").open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            aside = aside.rename(aside.with_name(aside.name + _STAGING))
        with lock:
            yield aside
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for path in created:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder as of `staging` for what nobody keeps; those of killed makers go, too.

    Raises:
        UsageError: it cannot be made, or its disk is full.
    """
    with ExitStack() as stack:
        try:
            place = Path(tempfile.gettempdir())
            folder = stack.enter_context(staging(place / "mobiledeploy"))
        except OSError as error:
            raise UsageError(f"there is no place for temporary files: {error}", _ROOM) from error
        except UsageError as error:
            raise UsageError(error.message, _ROOM) from error
        try:
            yield folder
        except OSError as error:
            # Python names no file where a disk was full by the time of writing.
            ours = error.filename is None or folder in Path(os.fsdecode(error.filename)).parents
            if error.errno != errno.ENOSPC or not ours:
                raise
            reason = os.strerror(errno.ENOSPC).lower()
            raise UsageError(f"cannot write in {place}: {reason}", _ROOM) from error


def left_aside(folder: Path) -> Iterator[Path]:
    """The staging folders of this user in `folder` whose maker is gone."""
    import fcntl

    for path in folder.glob(f".*{_STAGING}"):
        try:
            # Where others write too (/tmp), a link or a pipe may wait under this name.
            if path.lstat().st_uid != os.geteuid():
                continue
            handle = os.open(path / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            # Just gone.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Alive.
            continue
        finally:
            os.close(handle)
        yield path
