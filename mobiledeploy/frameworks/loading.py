"""What the loaders of model files share: files under the right name, errors in one line."""

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
"""What frameworks raise on a file that they cannot make sense of."""


@contextmanager
def refusing(what: str, *own: type[Exception]) -> Iterator[None]:
    """Turns a framework's error, `own` ones too, into an InputError with its first useful line.

    A slip in our own code is none of the file: it stays what it is.
    """
    refusals: tuple[type[Exception], ...] = (*REFUSALS, *own)
    try:
        yield
    except refusals as error:
        if isinstance(error, AssertionError | AttributeError | TypeError) and _is_ours(error):
            raise
        raise InputError(f"{what}: {first_line(error)}") from error


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised by a line of this package, and not by what that line called.

    But for our layers: Keras builds and calls them with what a file says.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    room = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return room.startswith("mobiledeploy.") and room not in untrusted.modules()


def need_model(loaded: Any, kind: type, where: str) -> None:
    """InputError where what Keras made of a file is no model of its: a layer, or just a mapping."""
    if not isinstance(loaded, kind):
        raise InputError(f"{where} holds a {type(loaded).__name__}, no model", "save a whole model")


def registered(path: Path, name_of: Callable[[Any], str]) -> dict[str, Any]:
    """Runs the user's own Python file; its classes and functions by the names that models have.

    Args:
        path: what `--custom-objects` named.
        name_of: tells the name under which an object is registered in Keras.

    Raises:
        InputError: it cannot be read, or fails when it is run.
    """
    text = inputs.text(path, inputs.TABLE)
    module = types.ModuleType("custom_objects")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - it was asked for
    # Whatever the user's own code may raise.
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
    listed = np.asarray(item.attrs.get(attribute, ())).reshape(-1)
    return [name.decode() if isinstance(name, bytes) else str(name) for name in listed]


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says anything, of 200 characters at most.

    The traceback, headings and graph nodes that Keras and TensorFlow put around it are left out.
    Of a longer line both ends are kept, for the cause stands at either.
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
    """Turns errors of writing temporary files, a framework's `own` ones too, into a UsageError.

    Whatever reads a user's file in there must turn its own errors into others first.
    """
    failures: tuple[type[Exception], ...] = (OSError, *own)
    try:
        yield
    except failures as error:
        number = error.errno if isinstance(error, OSError) else None
        # TensorFlow's words for it stand behind a path that may be long.
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
    """A folder for as long as the context lasts; see `writing_temporary`.

    TensorFlow's wing runs in a child, whose temporary folder is in one of its parent's: what is
    left there by a killed child goes with that (steps/child_process.py).
    """
    with writing_temporary(), tempfile.TemporaryDirectory(prefix="mobiledeploy-") as folder:
        yield Path(folder)


@contextmanager
def under_its_format(file: ModelFile, suffix: str) -> Iterator[Path]:
    """The file or folder, unchanged since it was looked into, under a name that ends in `suffix`.

    Keras tells a file's format by its name, we by its content.
    """
    with temporary_folder() as folder:
        copy = folder / f"model{suffix}"
        _copy(Path(file.path), copy)
        digest = untrusted.read_folder(copy)[0] if copy.is_dir() else records.sha256(copy)
        unchanged(digest, file.sha256, file.path)
        yield copy


@contextmanager
def for_inference(
    file: ModelFile, suffix: str, own: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """A whole Keras model as `under_its_format`, without what only training needs.

    `own` are the classes and functions of the user's, by name; None where none were given. What
    else could run code is refused, but in a trusted file.

    Losses, metrics and optimizers are gone from the configuration before Keras sees it, so that
    what it loads is what core/untrusted.py looked at.
    """
    with under_its_format(file, suffix) as copy:
        if file.format == "h5":
            with h5py.File(copy, "r+") as stored:
                text = stored.attrs["model_config"]
                stored.attrs["model_config"] = _for_inference(text, file, own)
                stored.attrs.pop("training_config", None)
            yield copy
        else:
            smaller = copy.with_name(f"inference{suffix}")
            with zipfile.ZipFile(copy) as old, zipfile.ZipFile(smaller, "w") as new:
                for member in old.infolist():
                    content = old.read(member)
                    if member.filename == "config.json":
                        content = _for_inference(content, file, own)
                    new.writestr(member.filename, content)
            yield smaller


def _for_inference(config: bytes | str, file: ModelFile, own: Mapping[str, Any] | None) -> bytes:
    """What Keras is given, looked at once more: the file may have been another then."""
    whole = untrusted.parse_json(config, f"{file.path}: configuration")
    smaller = untrusted.without_compiling(whole)
    if untrusted.keras_code(smaller) != file.code:
        raise InputError(f"{file.path} was changed while it was read", "try again")
    left = () if file.trusted else untrusted.keras_code(smaller, own or ())
    if left:
        raise InputError(
            f"{file.path} could run code of its own: {left[0]}",
            "the file of --custom-objects does not register it" if own is not None else "",
        )
    if file.framework == "tf_keras" and file.format == "h5":
        smaller = _by_name(smaller)
    return json.dumps(smaller).encode()


def _by_name(config: Any) -> Any:
    """The configuration with functions as plain names.

    Keras 2 saves one of TensorFlow's, or of the user's, as an object in HDF5, which it then cannot
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


def unchanged(digest: str, expected: str, path: str) -> None:
    """InputError unless the sha256 of what was read is that of what was looked into."""
    if digest != expected:
        raise InputError(f"{path} was changed while it was read", "try again")


def finite(arrays: Sequence[tuple[str, Any]], where: str) -> None:
    """InputError naming the first of (name, array) that holds NaN or an infinity."""
    for name, array in arrays:
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{where}: the weights {name} hold NaN or infinite values")


def only(kind: str, values: Sequence[Any], where: str) -> Any:
    """The one value; InputError for none or many."""
    if len(values) != 1:
        raise InputError(
            f"{where} has {len(values)} {kind}s; one image in and one row of scores out is needed"
        )
    return values[0]


def checked(
    input_: tuple[Sequence[int | None] | None, str], output: Sequence[int | None] | None, where: str
) -> tuple[Shape, Shape]:
    """Shapes of (shape, dtype) in and shape out; InputError unless an RGB image makes scores."""
    shape, dtype = input_
    if shape is None or len(shape) != 4 or shape[3] not in (3, None):
        raise InputError(
            f"{where} takes {_words(shape)}; a batch of RGB images [N, H, W, 3] is needed"
        )
    if shape[0] not in (1, None):
        raise InputError(
            f"{where} has a fixed batch of {shape[0]}; 1 or an open one is needed",
            "save it with an open batch",
        )
    if dtype != "float32":
        raise InputError(f"{where} takes {dtype}; float32 is needed")
    if output is None or len(output) != 2:
        raise InputError(f"{where} gives {_words(output)}; scores [N, classes] are needed")
    return tuple(shape), tuple(output)


def _words(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return "any shape"
    return f"[{', '.join('N' if side is None else str(side) for side in shape)}]"
