"""The only encoder: frozen dataclasses <-> JSON, and files that are whole or not there.

Every record is ``{"schema_version": 1, "record": "<type>", ...fields}``. Reading is strict: an
unknown or missing field, a wrong type or another schema is an InputError, for records are input
like any other file.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mobiledeploy.core import inputs
from mobiledeploy.core.errors import InputError, UsageError

SCHEMA_VERSION = 1
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
# Halves of surrogate pairs, but for those that stand for bytes of a file's name.
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_LONGEST_TOLD = 80
T = TypeVar("T")


def encode(value: Any) -> Any:
    """Plain JSON types for a dataclass, tuple, mapping or scalar; NaN and infinity become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(record: Any) -> str:
    """One record as JSON text, its type and the schema's version in front."""
    head = {"schema_version": SCHEMA_VERSION, "record": type(record).__name__}
    return json.dumps(head | encode(record), indent=1)


def line(record: Any) -> str:
    """`dumps` on one line: what processes tell each other."""
    head = {"schema_version": SCHEMA_VERSION, "record": type(record).__name__}
    return json.dumps(head | encode(record), separators=(",", ":"))


def loads(kind: type[T], text: str | bytes, where: str = "record") -> T:
    """The record in `text`; InputError naming `where` and the field that is wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("record") != kind.__name__:
        raise InputError(f"{where} is not a record of {kind.__name__}")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{where} has schema version {data.get('schema_version')!r}, "
            f"this mobiledeploy reads {SCHEMA_VERSION}",
            "export it again, or use the mobiledeploy that wrote it",
        )
    body = {key: item for key, item in data.items() if key not in ("schema_version", "record")}
    return typing.cast(T, decode(kind, body, where))


def decode(kind: Any, value: Any, where: str = "record") -> Any:
    """`value`, as `encode` gave it, as the type `kind` again."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        # Of several kinds, the value itself says which.
        return decode(kinds[0] if len(kinds) == 1 else _same_type(kinds, value), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(
                f"{where}: {_told(value)} is none of {', '.join(map(repr, arguments))}"
            )
        return value
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise InputError(f"{where}: not a mapping")
        return {
            decode(str, key, where): decode(arguments[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if kind is float and value is None:
        return math.nan
    if kind is float and type(value) in (int, float):
        return _float(value, where)
    if kind is Any or type(value) is kind:
        _check_plain(value, where)
        return value
    raise InputError(f"{where}: {_told(value)} is not of type {getattr(kind, '__name__', kind)}")


def _float(value: float, where: str) -> float:
    # No encoder of ours writes an infinity; 1e999 is one, and so is the double of 10**400.
    number = float(value) if abs(value) <= sys.float_info.max else math.inf
    if not math.isfinite(number):
        raise InputError(f"{where}: {_told(value)} is not a finite number")
    return number


def _check_plain(value: Any, where: str) -> None:
    """InputError for an integer that no column, and for a text that no file can hold."""
    if type(value) is int and not _LEAST <= value <= _MOST:
        raise InputError(f"{where}: {_told(value)} has more than 64 bits")
    if type(value) is str and _HALVES.search(value):
        raise InputError(f"{where}: {_told(value)} holds half of a surrogate pair")


def _told(value: Any) -> str:
    """A wrong value in an error: short, whatever it is."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if type(value) is int and not _LEAST <= value <= _MOST:
        # Python writes no number of many thousand digits.
        return "a number of so many digits"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}…"


def _same_type(kinds: Sequence[Any], value: Any) -> Any:
    if isinstance(value, dict):
        # Records that stand for each other say in `kind` which of them they are.
        said = value.get("kind")
        return next((kind for kind in kinds if getattr(kind, "kind", None) == said), kinds[0])
    return next((kind for kind in kinds if type(value) is kind), kinds[0])


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}: not a {kind.__name__}")
    hints, needed = _fields(kind)
    unknown = value.keys() - hints.keys()
    absent = needed - value.keys()
    if unknown or absent:
        raise InputError(f"{where}: fields {', '.join(sorted(unknown | absent))} do not fit")
    return kind(**{n: decode(hints[n], item, f"{where}.{n}") for n, item in value.items()})


@functools.lru_cache(maxsize=64)
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields, and which of them have no default."""
    needed = frozenset(
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    return typing.get_type_hints(kind), needed


def _decode_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: not a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        if arguments[0] is int and {type(item) for item in value} <= {int}:
            _check_plain(min(value, default=0), where)
            _check_plain(max(value, default=0), where)
            return tuple(value)
        floats = arguments[0] is float and {type(item) for item in value} <= {float}
        if floats and all(map(math.isfinite, value)):
            return tuple(value)
        if arguments[0] is str and {type(item) for item in value} <= {str}:
            _check_plain("".join(value), where)
            return tuple(value)
        return tuple(decode(arguments[0], item, where) for item in value)
    if len(arguments) != len(value):
        raise InputError(f"{where}: {len(value)} values, not {len(arguments)}")
    return tuple(decode(a, item, where) for a, item in zip(arguments, value, strict=True))


def sha256(data: bytes | Path) -> str:
    """Hex sha256 of bytes or of a file's content; errors as of `inputs.opened`."""
    if isinstance(data, Path):
        with inputs.opened(data, inputs.ARRAYS) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes `path` whole or not at all: aside, flushed to disk, then renamed over."""
    # A name of a file may hold bytes that are no text.
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with writing(path.parent):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def need_folder(path: Path) -> None:
    """UsageError where there is no folder to write `path` in: before the work, not after it."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for {path.name}", "make it first")


class writing:  # noqa: N801 - reads as a statement: ``with writing(folder):``
    """Turns the operating system's refusals to write below `folder` into one-line errors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno).lower()
            mend = {errno.ENOENT: "make that folder first", errno.ENOSPC: "free some space"}
            raise UsageError(
                f"cannot write in {self.folder}: {reason}",
                mend.get(error.errno, "choose another folder"),
            ) from error
