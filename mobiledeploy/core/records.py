"""The only encoder: frozen dataclasses <-> JSON, and files that are complete or absent.

Every record is ``{"schema_version": 2, "record": "<type>", ...fields}``. Reading is strict: an
unknown or missing field, a wrong type or another schema is an InputError, since records are
untrusted input too.
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
import stat
import sys
import tempfile
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mobiledeploy.core import inputs
from mobiledeploy.core.errors import InputError, UsageError

SCHEMA_VERSION = 2
# The names in schema version 1, which is still read and never written.
_FORMER_RECORDS = {"Compared": "LatencyComparison"}
_FORMER_FIELDS = {"doubts": "warnings"}
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
# Halves of surrogate pairs, except those that Python uses for bytes of a file's name.
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_LONGEST_TOLD = 80
T = TypeVar("T")


def file_name(name: str | Path) -> str:
    """A file's name as text for a record, also if the name is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def timestamp(moment: datetime) -> str:
    """A moment in UTC with milliseconds; the texts sort in the order of time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


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
    """One record as JSON text; it starts with the schema's version and the type."""
    head = {"schema_version": SCHEMA_VERSION, "record": type(record).__name__}
    return json.dumps(head | encode(record), indent=1)


def line(record: Any) -> str:
    """`dumps` on one line: processes exchange records in this form."""
    head = {"schema_version": SCHEMA_VERSION, "record": type(record).__name__}
    return json.dumps(head | encode(record), separators=(",", ":"))


def loads(kind: type[T], text: str | bytes, where: str = "record") -> T:
    """The record in `text`; InputError naming `where` and the field that is wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error})") from error
    if isinstance(data, dict) and data.get("schema_version") == 1:
        data = from_version_1(data)
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


def from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """A record of schema version 1 with today's names."""
    name = data.get("record")
    if isinstance(name, str):
        data = data | {"record": _FORMER_RECORDS.get(name, name)}
    record = _rename_fields(data)
    assert isinstance(record, dict)
    return record | {"schema_version": SCHEMA_VERSION}


def _rename_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {_FORMER_FIELDS.get(key, key): _rename_fields(item) for key, item in value.items()}
    # Raw samples are long, and hold no fields.
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return list(map(_rename_fields, value))
    return value


def decode(kind: Any, value: Any, where: str = "record") -> Any:
    """`value` of `encode` as the type `kind` again."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        # The value itself decides between several kinds.
        return decode(kinds[0] if len(kinds) == 1 else _same_type(kinds, value), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(
                f"{where}: {_short(value)} is none of {', '.join(map(repr, arguments))}"
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
    raise InputError(f"{where}: {_short(value)} is not of type {getattr(kind, '__name__', kind)}")


def _float(value: float, where: str) -> float:
    # Our encoders write no infinity; 1e999 is one, and so is the double of 10**400.
    number = float(value) if abs(value) <= sys.float_info.max else math.inf
    if not math.isfinite(number):
        raise InputError(f"{where}: {_short(value)} is not a finite number")
    return number


def _check_plain(value: Any, where: str) -> None:
    """InputError for an integer that no column can hold, and for a text that no file can hold."""
    if type(value) is int and not _LEAST <= value <= _MOST:
        raise InputError(f"{where}: {_short(value)} has more than 64 bits")
    if type(value) is str and _HALVES.search(value):
        raise InputError(f"{where}: {_short(value)} holds half of a surrogate pair")


def _short(value: Any) -> str:
    """A wrong value for an error message, shortened."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if type(value) is int and not _LEAST <= value <= _MOST:
        # Python refuses to print numbers of many thousand digits.
        return "a number of too many digits"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}…"


def _same_type(kinds: Sequence[Any], value: Any) -> Any:
    if isinstance(value, dict):
        # Records that are alternatives have a field `kind`.
        kind_name = value.get("kind")
        return next((kind for kind in kinds if getattr(kind, "kind", None) == kind_name), kinds[0])
    return next((kind for kind in kinds if type(value) is kind), kinds[0])


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}: not a {kind.__name__}")
    hints, required = _fields(kind)
    surplus = value.keys() - hints.keys()
    absent = required - value.keys()
    if surplus or absent:
        raise InputError(f"{where}: fields {', '.join(sorted(surplus | absent))} do not fit")
    return kind(**{n: decode(hints[n], item, f"{where}.{n}") for n, item in value.items()})


@functools.lru_cache(maxsize=64)
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields, and which of them have no default."""
    required = frozenset(
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    return typing.get_type_hints(kind), required


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
    """Hex sha256 of bytes or of a file's content; errors as of `inputs.open_file`."""
    if isinstance(data, Path):
        with inputs.open_file(data, inputs.ARRAYS) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


def keep_out_of_git(folder: Path) -> None:
    """Writes a `.gitignore` that ignores all of `folder`, which is of ours, unless it has one."""
    file = folder / ".gitignore"
    if not file.exists():
        write_atomic(file, "*\n")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes `path`; a regular file or a new one is written completely or not at all.

    The bytes are written to a temporary file, flushed to disk, and renamed to `path`; an existing
    file keeps its mode and owner. A link is followed. A device, a pipe or an open file of ours
    (/dev/stdout) is not replaced: the bytes are written into it.
    """
    # A file's name may hold bytes that are not text.
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    number = _open_file(path)
    if number is not None:
        # The reader may have closed the pipe (`| head`): that is not an error.
        with (
            writing(path.parent),
            suppress(BrokenPipeError),
            os.fdopen(os.dup(number), "wb") as stream,
        ):
            stream.write(content)
        return
    with writing(path.parent):
        if not _replaceable(path):
            with path.open("wb") as stream:
                stream.write(content)
            return
        target = Path(os.path.realpath(path))
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            _rename(Path(name), target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def put(source: Path, path: Path) -> None:
    """Renames the finished file `source` to `path`; a link is followed, as by `write_atomic`.

    Raises:
        UsageError: `path` is neither a regular file nor nothing, or it cannot be written.
    """
    refuse_irregular(path)
    with writing(path.parent):
        target = Path(os.path.realpath(path))
        try:
            _rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The link points to another disk.
            write_atomic(path, source.read_bytes())
            source.unlink()


def append(path: Path, text: str) -> None:
    """Appends `text` to `path`, of whatever kind it is."""
    with writing(path.parent), path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def refuse_irregular(path: Path) -> None:
    """UsageError if `path`, links followed, exists and is not a regular file."""
    with writing(path.parent):
        regular = _replaceable(path)
    if not regular:
        what = "a folder" if path.is_dir() else "not a regular file"
        raise UsageError(f"{path} is {what}", "remove it, or choose another place")


def is_stdout(path: Path) -> bool:
    """Whether writing to `path` writes to standard output."""
    return _open_file(path) == 1


def _replaceable(path: Path) -> bool:
    """Whether `path`, links followed, is a regular file or nothing."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _open_file(path: Path) -> int | None:
    """The number of the open file of this process that `path` names: /dev/stdout, /dev/fd/3."""
    descriptors = os.path.realpath("/proc/self/fd")
    place = path.absolute()
    for _ in range(40):  # the kernel's own limit on links
        if os.path.realpath(place.parent) == descriptors and place.name.isdecimal():
            return int(place.name)
        if not place.is_symlink():
            return None
        place = place.parent / place.readlink()
    return None


def _rename(source: Path, target: Path) -> None:
    """Renames `source` to `target`, whose mode and owner stay; everyone can read a new file."""
    mode = 0o644
    with suppress(FileNotFoundError):
        before = target.stat()
        mode = stat.S_IMODE(before.st_mode)
        own = source.stat()
        if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
            # Only root can change a file's owner.
            with suppress(PermissionError):
                os.chown(source, before.st_uid, before.st_gid)
    source.chmod(mode)
    source.replace(target)


def need_folder(path: Path) -> None:
    """UsageError if `path` is a folder, or its folder does not exist.

    Called before the work starts.
    """
    place = Path(os.path.realpath(path))
    if not path.exists() and not place.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for {path.name}", "make it first")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "name a file in it")


class writing:  # noqa: N801 - reads as a statement: ``with writing(folder):``
    """Turns the operating system's errors of writing below `folder` into one-line errors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno).lower()
            fix = {errno.ENOENT: "make that folder first", errno.ENOSPC: "free some space"}
            raise UsageError(
                f"cannot write in {self.folder}: {reason}",
                fix.get(error.errno, "choose another folder"),
            ) from error
