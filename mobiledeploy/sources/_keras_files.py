"""Keras files: HDF5 (whole models and weights, Keras 2 and 3) and the .keras zip, read by h5py.

Keras is not imported. Files with references to other files, or that would inflate to more memory
than a mobile network needs, are refused here, before a framework opens them.
"""

from __future__ import annotations

import importlib
import io
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mobiledeploy.core import inputs, records, untrusted, zips
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.plugins import missing
from mobiledeploy.core.types import ModelFile
from mobiledeploy.sources._inputs import may_take_images

LARGEST_BYTES = 2 << 30
"""The largest size of all inflated weights of a model."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_OBJECTS = 100_000
_DEEPEST = 64
_WEIGHTS = "model.weights.h5"
_INPUT_SHAPES = ("batch_input_shape", "batch_shape", "build_input_shape")
"""Where Keras 2 and 3 write the shape of an input, the batch included."""
_SUFFIXES = (".h5", ".hdf5", ".keras")
_BROKEN = (OSError, RuntimeError, ValueError, KeyError, TypeError, LookupError)


def detect(path: Path, framework: str | None = None) -> ModelFile | None:
    """What the file at `path` is, by its content and not by its suffix.

    Args:
        path: any file.
        framework: keras3 or tf_keras, to accept only files of this one.

    Returns:
        None if it is neither HDF5 nor a zip and has no such suffix, and for another framework's
        file.

    Raises:
        MissingError: it is HDF5, or a Keras zip, and h5py is not installed.
        InputError: missing, truncated, too large, with references to other files, or other HDF5.
    """
    try:
        if path.is_dir():
            return None
        with inputs.open_file(path) as stream:
            if _is_hdf5(stream):
                return _hdf5(stream, path, framework)
            if zipfile.is_zipfile(stream):
                return _zip(stream, path, framework)
            empty = not stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    if path.suffix.lower() not in _SUFFIXES:
        return None
    what = "empty" if empty else "neither HDF5 nor a Keras zip"
    raise InputError(f"{path} is {what}", "it may be truncated: download or save it again")


def configuration(path: Path) -> str:
    """The configuration of a whole model that `detect` has checked, as JSON."""
    with inputs.open_file(path) as stream:
        if _is_hdf5(stream):
            with _h5py().File(stream, "r") as file:
                return _text(file.attrs["model_config"])
        with zipfile.ZipFile(stream) as archive:
            return _read(archive, "config.json").decode()


def _is_hdf5(stream: BinaryIO) -> bool:
    """Whether the signature is where HDF5 looks for it: at 0, 512, 1024, 2048 and so on."""
    size = stream.seek(0, os.SEEK_END)
    places = (0, *(1 << power for power in range(9, size.bit_length())))
    has_signature = False
    for place in places:
        stream.seek(place)
        has_signature = has_signature or stream.read(len(_SIGNATURE)) == _SIGNATURE
    stream.seek(0)
    return has_signature


def _h5py() -> Any:
    """The library, which is not needed for TFLite files."""
    try:
        return importlib.import_module("h5py")
    except ModuleNotFoundError as error:
        raise missing("h5py") from error


def _hdf5(stream: BinaryIO, path: Path, accepted: str | None) -> ModelFile | None:
    h5py = _h5py()
    try:
        with h5py.File(stream, "r") as file:
            _check_objects(file, str(path))
            version = _text(file.attrs.get("keras_version", ""))
            framework = "keras3" if version and int(version.split(".")[0]) >= 3 else "tf_keras"
            if "model_config" not in file.attrs and "layer_names" not in file.attrs:
                if "layers" not in file and "_layer_checkpoint_dependencies" not in file:
                    raise InputError(
                        f"{path} is HDF5, but holds neither a Keras model nor Keras weights"
                    )
                framework = "keras3"
            if accepted not in (None, framework):
                return None
            facts = ModelFile(str(path), "h5", framework, "weights", records.sha256(path))
            if "model_config" in file.attrs:
                text = _text(file.attrs["model_config"])
                config = untrusted.parse_json(text, f"{path}: the model's configuration")
                return ModelFile(
                    str(path),
                    "h5",
                    framework,
                    "model",
                    facts.sha256,
                    _code(config),
                    images=_may_take_images(config),
                )
            if "layer_names" in file.attrs:
                return ModelFile(
                    str(path), "h5", framework, "weights", facts.sha256, classes=_classes(file)
                )
            return facts
    except _BROKEN as error:
        raise InputError(
            f"{path} is broken HDF5: {_reason(error)}",
            "it may be truncated: download or save it again",
        ) from error


def _check_objects(file: Any, where: str) -> None:
    """InputError for links, data in other files, and too much data."""
    waiting: list[tuple[Any, int]] = [(file, 0)]
    objects = total = 0
    h5py = _h5py()
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            objects += 1
            if objects > _MOST_OBJECTS or depth > _DEEPEST:
                raise InputError(
                    f"{where} holds too many groups, or groups that contain themselves"
                )
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InputError(f"{where} holds a link ({name}), which may lead out of it")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append((item, depth + 1))
                continue
            if not isinstance(item, h5py.Dataset):
                continue
            if item.external or item.is_virtual:
                raise InputError(f"{where} keeps the data of {name} in another file")
            total += item.nbytes
            if total > LARGEST_BYTES:
                raise InputError(f"{where} holds more than {LARGEST_BYTES >> 30} GiB of weights")


def _classes(file: Any) -> int | None:
    """The width of the last layer that has weights."""
    for name in reversed([_text(name) for name in file.attrs["layer_names"]]):
        weights = [_text(weight) for weight in file[name].attrs["weight_names"]]
        if weights:
            shape = file[name][weights[-1]].shape
            return int(shape[-1]) if shape else None
    return None


def _zip(stream: BinaryIO, path: Path, accepted: str | None) -> ModelFile | None:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = [member.filename for member in archive.infolist()]
            if not {"config.json", "metadata.json"} <= set(names):
                if path.suffix.lower() in _SUFFIXES:
                    raise InputError(
                        f"{path} is a zip, but not a Keras model: it has no config.json"
                    )
                return None
            _check_members(archive, path)
            if _WEIGHTS not in names:
                # Keras would read weights of another format, which were not checked.
                raise InputError(f"{path} is not a Keras model: it has no {_WEIGHTS}")
            metadata = untrusted.parse_json(_read(archive, "metadata.json"), f"{path}: metadata")
            config = untrusted.parse_json(_read(archive, "config.json"), f"{path}: configuration")
            for name in names:
                if name.endswith(".h5"):
                    with _h5py().File(io.BytesIO(archive.read(name)), "r") as file:
                        _check_objects(file, f"{path}: {name}")
    except (*zips.BROKEN, *_BROKEN) as error:
        raise InputError(
            f"{path} is a broken Keras zip: {_reason(error)}",
            "it may be truncated: download or save it again",
        ) from error
    if not isinstance(metadata, dict) or not isinstance(config, dict):
        raise InputError(f"{path}: the configuration is not that of a Keras model")
    version = metadata.get("keras_version")
    major = version.split(".")[0] if isinstance(version, str) else ""
    if major not in ("2", "3"):
        raise InputError(f"{path} is of Keras version {version!r}; 2 and 3 are supported")
    framework = "keras3" if major == "3" else "tf_keras"
    if accepted not in (None, framework):
        return None
    return ModelFile(
        str(path),
        "keras",
        framework,
        "model",
        records.sha256(path),
        _code(config),
        images=_may_take_images(config),
    )


def _code(config: Any) -> tuple[str, ...]:
    """The code that loading it could run.

    `frameworks/loading.py` loads it without the same entries.
    """
    return untrusted.keras_code(untrusted.without_compiling(config))


def _may_take_images(config: Any) -> bool:
    """Whether an input, at any depth, may be an image; true where none has a shape."""
    shapes: list[Any] = []
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            shapes += [value[key] for key in _INPUT_SHAPES if isinstance(value.get(key), list)]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return not shapes or may_take_images(shapes)


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise InputError(f"{path} holds two files of the same name")
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
            raise InputError(f"{path} holds a file that would land outside ({name!r})")
    if any(m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for m in members):
        raise InputError(f"{path} holds a file that is compressed with an unknown method")
    if sum(member.file_size for member in members) > LARGEST_BYTES:
        raise InputError(f"{path} would inflate to more than {LARGEST_BYTES >> 30} GiB")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > untrusted.LARGEST_JSON:
        raise InputError(f"{name} is larger than {untrusted.LARGEST_JSON >> 20} MB")
    return archive.read(name)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    raise TypeError(f"a text is of type {type(value).__name__}")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).splitlines()[0] if str(error) else type(error).__name__
