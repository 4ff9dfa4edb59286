"""The one module that opens untrusted files.

A name can refer to a pipe that nobody writes into, to an endless device, or to a circle of links.
So a file is opened without waiting, examined, and read only if it is a regular file that is not
larger than its kind can be. `tests/test_house.py` checks that no other module opens such files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from mobiledeploy.core import units
from mobiledeploy.core.errors import InputError

# The largest size of each kind of file in bytes. Parsed JSON takes 24 times the memory of its text.
SETTINGS = 1 << 20
"""TOML: settings and cards."""
TABLE = 16 << 20
"""CSV, and class names, one per line."""
RECORD = 32 << 20
"""JSON: a record, a recording, a baseline."""
RECORDS = 1 << 30
"""Records of a whole store, one per line, each of `RECORD` at most."""
ANNOTATIONS = 256 << 20
"""COCO's JSON, most of which are the numbers of polygons: 5 times the memory of its text."""
IMAGE = 256 << 20
FINISHED = 768 << 20
"""A model file that is read into memory (TFLite, ONNX): VGG-16 in float32 has 553 MB."""
MODEL = 2 << 30
"""Weights and models that are read piece by piece; also files that are only copied or hashed."""
ARRAYS = 4 << 30
"""A numpy archive."""

_LONGEST_SHOWN = 300
_HINTS = {
    errno.EACCES: "take the right to read it",
    errno.ELOOP: "its link leads back to itself",
    errno.ENOENT: "check its name",
}


class Absent(InputError):
    """The file does not exist."""


class _CheckedFile(FileIO):
    """An open file. A later read error raises the same InputError as an error at opening."""

    def __init__(self, path: Path, handle: int) -> None:
        super().__init__(handle, "rb")
        self._path = path

    def readinto(self, buffer: Any) -> int | None:
        """As in FileIO; InputError for a read error."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise _refusal(self._path, error) from error

    def readall(self) -> bytes:
        """As `readinto`, up to the end."""
        try:
            return super().readall()
        except OSError as error:
            raise _refusal(self._path, error) from error


@contextmanager
def open_file(path: Path, most: int = MODEL) -> Iterator[BufferedReader[FileIO]]:
    """The file, open for reading from its start.

    Args:
        path: a regular file, or a link to one.
        most: the largest allowed size in bytes.

    Raises:
        Absent: it does not exist.
        InputError: it cannot be opened, is not a regular file, or is too large; also later, for a
            read error.
    """
    handle = _handle(path)
    try:
        _check(path, os.fstat(handle), most)
    except InputError:
        os.close(handle)
        raise
    reader: FileIO = _CheckedFile(path, handle)
    with BufferedReader(reader) as stream:
        yield stream


def read(path: Path, most: int) -> bytes:
    """The file's content; errors as in `open_file`."""
    with open_file(path, most) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(size + 1)
    if len(content) > size:
        raise InputError(f"{printable(path)} changed while it was read", "try again")
    return content


def text(path: Path, most: int, encoding: str = "utf-8") -> str:
    """The file's content as text; errors as in `open_file`, and InputError if it is not text."""
    try:
        return read(path, most).decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{printable(path)} cannot be read: byte {error.start} is not UTF-8", "save it as UTF-8"
        ) from error


def toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; errors as in `text`, and InputError if it is not TOML."""
    # Imported here, since a help text needs no settings.
    import tomllib

    try:
        tables = tomllib.loads(text(path, SETTINGS))
        if "\0" in _strings(tables):
            raise ValueError("a text holds the character NUL")
    except (ValueError, RecursionError) as error:
        # ValueError also for numbers with more digits than Python reads.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{printable(path)} cannot be read: {reason}") from error
    return tables


def printable(path: Path) -> str:
    """The name for error messages: a few hundred characters at most, all of them printable."""
    name = str(path)
    if len(name) > _LONGEST_SHOWN:
        name = f"{name[:_LONGEST_SHOWN]}…"
    return units.whole(name).replace("\0", "\\0")


def descriptor(path: Path, *, follow: bool = True) -> int:
    """Opens a file for reading, without waiting: nobody may ever write into a pipe.

    Without `follow` a link is an OSError where the system can tell.
    """
    flags = ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
    # Windows lacks most of them, others lack O_BINARY.
    wanted = sum(getattr(os, flag, 0) for flag in (*flags, *([] if follow else ["O_NOFOLLOW"])))
    return os.open(path, os.O_RDONLY | wanted)


def _handle(path: Path) -> int:
    try:
        return descriptor(path)
    except OSError as error:
        raise _refusal(path, error) from error
    except ValueError as error:
        # A NUL, or half of a surrogate pair.
        raise Absent(f"{printable(path)} is not a valid file name", "check its name") from error


def _check(path: Path, facts: os.stat_result, most: int) -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise InputError(f"{printable(path)} is a folder", "give a file")
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(
            f"{printable(path)} is not a regular file",
            "pipes and devices are not read: save the content into a file first",
        )
    if facts.st_size > most:
        raise InputError(
            f"{printable(path)} is too large: {facts.st_size} bytes, the limit is {most}",
            "check that it is the right file",
        )


def _strings(value: Any) -> str:
    """All keys and strings in parsed TOML, concatenated."""
    if isinstance(value, dict):
        return "".join(key + _strings(item) for key, item in value.items())
    if isinstance(value, list):
        return "".join(map(_strings, value))
    return value if isinstance(value, str) else ""


def _refusal(path: Path, error: OSError) -> InputError:
    kind = Absent if error.errno in (errno.ENOENT, errno.ENOTDIR) else InputError
    reason = os.strerror(error.errno or 0)
    return kind(f"{printable(path)} cannot be read: {reason}", _HINTS.get(error.errno or 0, ""))
