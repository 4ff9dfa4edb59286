"""Shared by the loaders of model files: files under the right name, errors in one line."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobiledeploy.core import inputs, records, untrusted
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.types import ModelFile

Shape = tuple[int | None, ...]

_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_NODES = re.compile(r"\{\{function_node [^}]*\}\} ?")
_HEADINGS = (
    "Exception encountered when calling",
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    'File "',
    "Node: ",
)
_RAISED = re.compile(r"^ +[\w.]+(?:Error|Exception): ", re.MULTILINE)

REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What frameworks raise for a file that they cannot read."""


@contextmanager
def refusing(what: str, *own: type[Exception]) -> Iterator[None]:
    """Turns a framework's error, also `own` ones, into an InputError with its first useful line.

    An error in our own code is not the file's fault and is not changed.
    """
    refusals: tuple[type[Exception], ...] = (*REFUSALS, *own)
    try:
        yield
    except refusals as error:
        if isinstance(error, AssertionError | AttributeError | TypeError) and _is_ours(error):
            raise
        raise InputError(f"{what}: {first_line(error)}") from error


def _is_ours(error: BaseException) -> bool:
    """Whether a line of this package itself raised it.

    Our layers are excluded: Keras builds and calls them with values of the file.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    room = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return room.startswith("mobiledeploy.") and room not in untrusted.modules()


def need_model(loaded: Any, kind: type, where: str) -> None:
    """InputError if Keras loaded something other than a model, such as a layer or a mapping."""
    if not isinstance(loaded, kind):
        raise InputError(
            f"{where} holds a {type(loaded).__name__}, not a model", "save a whole model"
        )


def custom_objects(path: Path, name_of: Callable[[Any], str]) -> dict[str, Any]:
    """Runs the user's own Python file; returns its classes and functions by the names in models.

    Args:
        path: the file of `--custom-objects`.
        name_of: returns the name under which an object is registered in Keras.

    Raises:
        InputError: it cannot be read, or fails when it is run.
    """
    text = inputs.text(path, inputs.TABLE)
    module = types.ModuleType("custom_objects")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - the user asked for it
    # The user's own code may raise anything.
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"--custom-objects {path} cannot be run: {reason}") from error
    own = [
        value
        for value in vars(module).values()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    ]
    return {name: value for value in own for name in (value.__name__, name_of(value))}


def names(item: Any, attribute: str) -> list[str]:
    """The names that HDF5's `item` lists in an attribute, () without it."""
    values = np.asarray(item.attrs.get(attribute, ())).reshape(-1)
    return [name.decode() if isinstance(name, bytes) else str(name) for name in values]


def first_line(error: BaseException) -> str:
    """The first useful line of an error's text, of 200 characters at most.

    The traceback, headings and graph nodes that Keras and TensorFlow add are left out. A longer
    line is cut in the middle, since the cause may be at either end.
    """
    text = _NODES.sub("", _COLOURS.sub("", str(error)))
    if text.startswith("in user code:"):
        text = _RAISED.split(text, maxsplit=1)[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    useful = (line for line in lines if not line.startswith(_HEADINGS))
    line = next(useful, lines[0] if lines else type(error).__name__).split(" for '{{node")[0]
    return line if len(line) <= 200 else f"{line[:119]}…{line[-80:]}"


@contextmanager
def writing_temporary(*own: type[Exception]) -> Iterator[None]:
    """Turns errors of writing temporary files, also a framework's `own` ones, into a UsageError.

    Code inside that reads a user's file must convert its own errors first.
    """
    failures: tuple[type[Exception], ...] = (OSError, *own)
    try:
        yield
    except failures as error:
        number = error.errno if isinstance(error, OSError) else None
        # TensorFlow's message for it follows a path that may be long.
        full = os.strerror(errno.ENOSPC)
        if number is None and full in str(error):
            number = errno.ENOSPC
        reason = os.strerror(number).lower() if number else first_line(error)
        raise UsageError(
            f"cannot write temporary files in {tempfile.gettempdir()}: {reason}",
            "free some space there, or set TMPDIR",
        ) from error


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the duration of the context; see `writing_temporary`.

    TensorFlow runs in a child process whose temporary folder is inside one of its parent's, which
    also removes the files of a killed child (steps/child_process.py).
    """
    with writing_temporary(), tempfile.TemporaryDirectory(prefix="mobiledeploy-") as folder:
        yield Path(folder)


@contextmanager
def under_its_format(file: ModelFile, suffix: str) -> Iterator[Path]:
    """A copy of the file or folder with a name that ends in `suffix`; InputError if it changed.

    Keras determines a file's format by its name, we do by its content.
    """
    with temporary_folder() as folder:
        copy = folder / f"model{suffix}"
        _copy(Path(file.path), copy)
        digest = untrusted.read_folder(copy)[0] if copy.is_dir() else records.sha256(copy)
        require_same_hash(digest, file.sha256, file.path)
        yield copy


@contextmanager
def for_inference(
    file: ModelFile, suffix: str, custom: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """A whole Keras model as in `under_its_format`, without the parts for training.

    `own` are the user's classes and functions by name; None if there are none. Other code is
    refused, except in a trusted file. Losses, metrics and optimizers are removed from the
    configuration before Keras reads it, so that Keras loads exactly what core/untrusted.py has
    checked.
    """
    with under_its_format(file, suffix) as copy:
        if file.format == "h5":
            with h5py.File(copy, "r+") as file_:
                text = file_.attrs["model_config"]
                file_.attrs["model_config"] = _for_inference(text, file, custom)
                file_.attrs.pop("training_config", None)
            yield copy
        else:
            smaller = copy.with_name(f"inference{suffix}")
            with zipfile.ZipFile(copy) as old, zipfile.ZipFile(smaller, "w") as new:
                for member in old.infolist():
                    content = old.read(member)
                    if member.filename == "config.json":
                        content = _for_inference(content, file, custom)
                    new.writestr(member.filename, content)
            yield smaller


def _for_inference(config: bytes | str, file: ModelFile, custom: Mapping[str, Any] | None) -> bytes:
    """The configuration for Keras, checked again: the file may have changed since."""
    full_config = untrusted.parse_json(config, f"{file.path}: configuration")
    config_ = untrusted.without_compiling(full_config)
    if untrusted.keras_code(config_) != file.code:
        raise InputError(f"{file.path} changed while it was read", "try again")
    code = () if file.trusted else untrusted.keras_code(config_, custom or ())
    if code:
        raise InputError(
            f"{file.path} could run code of its own: {code[0]}",
            "the file of --custom-objects does not register it" if custom is not None else "",
        )
    if file.framework == "tf_keras" and file.format == "h5":
        config_ = _by_name(config_)
    return json.dumps(config_).encode()


def _by_name(config: Any) -> Any:
    """The configuration with functions as plain names.

    Keras 2 saves functions of TensorFlow or of the user as objects in HDF5, which it then cannot
    read.
    """
    if isinstance(config, list):
        return [_by_name(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "function" and isinstance(config.get("config"), str):
        return config["config"]
    return {key: _by_name(value) for key, value in config.items()}


def _copy(source: Path, copy: Path) -> None:
    if not source.is_dir():
        _copy_file(source, copy)
        return
    copy.mkdir()
    for path in source.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_file(path, target)


def _copy_file(source: Path, copy: Path) -> None:
    with inputs.open_file(source) as stream, copy.open("xb") as target:
        shutil.copyfileobj(stream, target)


def require_same_hash(digest: str, expected: str, path: str) -> None:
    """InputError unless the sha256 is that of the checked file."""
    if digest != expected:
        raise InputError(f"{path} changed while it was read", "try again")


def require_finite(arrays: Sequence[tuple[str, Any]], where: str) -> None:
    """InputError naming the first of (name, array) that holds NaN or an infinity."""
    for name, array in arrays:
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(
                f"{where}: the weights {name} hold NaN or infinite values",
                "its training diverged: train it again with a smaller learning rate",
            )
