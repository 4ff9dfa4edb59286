"""Finished model files: each is accepted only together with its record."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.core import inputs, locks, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import (
    Activation,
    Artifact,
    DataRef,
    ModelInput,
    ModelOutput,
    Output,
    Preprocessing,
    Signature,
)

if TYPE_CHECKING:
    from mobiledeploy.core import protocol

_STAGING = ".staging"
_ACTIVATION: dict[Output, Activation] = {
    "model": "none",
    "logits": "none",
    "pooled": "none",
    "softmax": "softmax",
}
_ROOM = "set TMPDIR to a folder that you can write in and that has space left"
_AGAIN = "export it again, with --force"
_TIMED = "make the file again, with a batch of 1; bench times it as it is"
_PLAIN = ("float32", "float16", "int32", "int64", "bool")
_ZERO_POINTS = {"int8": range(-128, 128), "uint8": range(256), "int16": range(1)}
"""The zero points that each integer type of an input or output may have.

16-bit kernels allow only 0.
"""


def record_path(path: Path) -> Path:
    """<artifact>.json, beside it."""
    # Not with_name: it fails for "." and "/".
    return path.parent / f"{path.name}.json"


def without_records(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths without duplicates, and without the records of artifacts that are in the list.

    A shell pattern such as ``build/*/int8_ptq.*`` matches these records too.
    """
    once = tuple(dict.fromkeys(paths))
    records_ = {record_path(path) for path in once}
    return tuple(path for path in once if path not in records_)


def load(path: Path) -> Artifact:
    """The record beside a model file; what the file itself says if there is none.

    InputError if the record describes another file, or if there is no model file.
    """
    record = record_path(path)
    if path.is_dir():
        raise InputError(f"{path} is not a file")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.suffix == ".json" and path.with_suffix("").is_file():
        raise InputError(f"{path} is the record of an artifact", f"name {path.stem} itself")
    if not record.exists():
        # Not at the top: doctor also looks for staging folders, and numpy may be missing there.
        from mobiledeploy.core import unrecorded

        return unrecorded.artifact(path)
    artifact = records.loads(Artifact, inputs.read(record, inputs.RECORD), str(record))
    digest = records.sha256(path)
    check(artifact, str(record))
    if digest != artifact.sha256:
        raise InputError(f"{path} is not the file that its record describes", _AGAIN)
    return artifact


def signature(artifact: Artifact) -> Signature:
    """The inputs and outputs of an artifact, also of one that an earlier version made."""
    if artifact.signature is not None:
        return artifact.signature
    spec = artifact.spec
    channels = 1 if spec.preprocessing.channels == "gray" else 3
    image = ModelInput(
        artifact.inputs[0].name, "image", (*spec.resolution, channels), spec.preprocessing
    )
    scores = ModelOutput(artifact.outputs[0].name, (spec.classes,), _ACTIVATION[artifact.output])
    return Signature((image,), (scores,))


def same_spec(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts state one model: each may scale its pixels in its own way."""
    # Not at the top: numpy may be missing where doctor looks for staging folders.
    from mobiledeploy.core import preprocessing

    scaled = replace(one.spec, preprocessing=other.spec.preprocessing)
    return scaled == other.spec and preprocessing.alike(
        one.spec.preprocessing, other.spec.preprocessing
    )


def work(
    artifact: Artifact, data: DataRef, preprocessing: Preprocessing | None = None
) -> protocol.Work:
    """What a runner must know to answer for the samples of `data`.

    `preprocessing` takes the place of that of all images, where it is another than that of the
    first one; a gray image stays gray.

    Raises:
        InputError: a file of another tool that takes or gives no single sample.
    """
    # Not at the top: numpy may be missing where doctor looks for staging folders.
    from mobiledeploy.core import protocol

    _need_single_samples(artifact)
    ends = signature(artifact)
    inputs_ = ends.inputs
    if ends.image and preprocessing and preprocessing != ends.image.preprocessing:
        inputs_ = tuple(
            replace(end, preprocessing=preprocessing.for_channels(end.shape[-1]))
            if end.kind == "image"
            else end
            for end in inputs_
        )
    return protocol.Work(data, inputs_, artifact.layout, artifact.inputs, artifact.outputs)


def _need_single_samples(artifact: Artifact) -> None:
    """InputError for a file that cannot answer for one sample after another; any can be timed."""
    name, names = artifact.path, [tensor.name for tensor in artifact.inputs]
    if not names:
        raise InputError(
            f"{name} takes no inputs, so all its answers are the same", "bench times it as it is"
        )
    repeated = next((one for one in names if names.count(one) > 1), None)
    if repeated is not None:
        raise InputError(
            f"{name} has {names.count(repeated)} inputs named {repeated!r}, and data has one of "
            "that name",
            "give each input a name of its own",
        )
    for verb, tensors in (("takes", artifact.inputs), ("gives", artifact.outputs)):
        for tensor in tensors:
            what = f"{name} {verb} {tensor.name} as {tensor.dtype} {list(tensor.shape)}"
            if tensor.dtype not in _NUMBERS:
                raise InputError(
                    f"{what}, which is not supported",
                    "make the file again, with float32, bool or integers",
                )
            if tensor.shape[:1] != (1,):
                raise InputError(f"{what}, not as one sample [1, ...]", _TIMED)


def check(artifact: Artifact, record: str) -> None:
    """InputError for values that no export writes: records are untrusted input too."""
    # Not at the top: doctor also looks for staging folders, and numpy may be missing there.
    from mobiledeploy.core import preprocessing

    spec = artifact.spec
    try:
        preprocessing.validate(spec.preprocessing)
    except UsageError as error:
        raise InputError(f"{record}: {error.message}", _AGAIN) from error
    ends = (*artifact.inputs, *artifact.outputs)
    checks = {
        "inputs and outputs": _fits(artifact),
        "dtype": all(tensor.dtype in (*_PLAIN, *_ZERO_POINTS) for tensor in ends),
        "scale": all(
            len(t.scale) == len(t.zero_point) == (t.dtype in _ZERO_POINTS)
            and all(0 < scale < math.inf for scale in t.scale)
            and all(zero in _ZERO_POINTS[t.dtype] for zero in t.zero_point)
            for t in ends
        ),
        "resolution": min(spec.resolution) > 0 or signature(artifact).image is None,
        "classes": spec.classes > (spec.task == "classification"),
        "size": artifact.size_bytes > 0,
    }
    for field, is_valid in checks.items():
        if not is_valid:
            raise InputError(f"{record}: {field} is not valid", _AGAIN)


def _fits(artifact: Artifact) -> bool:
    """Whether the record's signature is that of its tensors and its model."""
    if not (artifact.inputs and artifact.outputs):
        return False
    if artifact.signature is None:
        return len(artifact.inputs) == len(artifact.outputs) == 1
    ends = artifact.signature
    image, spec = ends.image, artifact.spec
    if image is not None and (
        image.shape[:2] != spec.resolution
        or (image.preprocessing is not None and image.preprocessing != spec.preprocessing)
    ):
        return False
    own = [math.prod(end.shape) for end in ends.inputs], [math.prod(e.shape) for e in ends.outputs]
    tensors = (
        [math.prod(tensor.shape) for tensor in artifact.inputs],
        [math.prod(tensor.shape) for tensor in artifact.outputs],
    )
    return own == tensors and min(*own[0], *own[1], 1) > 0


_NUMBERS = (*_PLAIN, *_ZERO_POINTS, "float64", "uint16", "uint32", "uint64")
"""The types of inputs and outputs that have a real value for each number."""


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`; it is removed afterwards, with any parents made for it.

    Files made there are renamed into `folder` when they are complete. The folder holds one file at
    first, `lock`: it is locked while the process that made the folder lives. A process id would not
    do, since ids are reused, in containers soon.
    """
    new_parents = [p for p in (folder.parent, *folder.parent.parents) if not p.exists()]
    temporary: Path | None = None
    try:
        with records.writing(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            for abandoned in abandoned_folders(folder.parent):
                shutil.rmtree(abandoned, ignore_errors=True)
            # It gets its name after it is locked: before that it would look abandoned.
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            lock = (temporary / "lock").open("w")
            locks.lock(lock)
            temporary = temporary.rename(temporary.with_name(temporary.name + _STAGING))
        with lock:
            yield temporary
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for path in new_parents:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder as of `staging` for temporary files; folders of killed processes are removed too.

    Raises:
        UsageError: the folder cannot be made, or its disk is full.
    """
    with ExitStack() as stack:
        try:
            parent = Path(tempfile.gettempdir())
            folder = stack.enter_context(staging(parent / "mobiledeploy"))
        except OSError as error:
            raise UsageError(f"there is no place for temporary files: {error}", _ROOM) from error
        except UsageError as error:
            raise UsageError(error.message, _ROOM) from error
        try:
            yield folder
        except OSError as error:
            # Python names no file if the disk became full while writing.
            ours = error.filename is None or folder in Path(os.fsdecode(error.filename)).parents
            if error.errno != errno.ENOSPC or not ours:
                raise
            reason = os.strerror(errno.ENOSPC).lower()
            raise UsageError(f"cannot write in {parent}: {reason}", _ROOM) from error


def abandoned_folders(folder: Path) -> Iterator[Path]:
    """The staging folders of this user in `folder` whose process has ended."""
    for path in folder.glob(f".*{_STAGING}"):
        try:
            # Others can write in /tmp too: a link or a pipe may have this name.
            if hasattr(os, "geteuid") and path.lstat().st_uid != os.geteuid():
                continue
            handle = inputs.descriptor(path / "lock", follow=False)
        except OSError:
            # Just gone.
            continue
        try:
            locks.lock(handle, wait=False)
        except OSError:
            # Alive.
            continue
        finally:
            os.close(handle)
        yield path
