"""Numpy archives (.npz) that somebody else may have made: nothing in one is unpickled.

Numpy believes what a header promises before it reads on. Here all promises are held against the
file first, so that a small file cannot take much memory, and each fault is one line.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import inputs
from mobiledeploy.core.errors import InputError

# What zipfile and numpy raise on bytes that are none of theirs.
_BROKEN = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deflate makes at most 1032 bytes of one.
_DEFLATED_MOST = 1032
_SUFFIX = ".npy"


class Archive:
    """An open archive: the names of its arrays in `files`, each array by its name."""

    def __init__(self, archive: zipfile.ZipFile, where: str, most: int) -> None:
        self._archive, self._where = archive, where
        self._members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for member in archive.infolist():
            name = member.filename.removesuffix(_SUFFIX)
            if name == member.filename or name in self._members:
                raise InputError(f"{where} holds {member.filename!r}, which is no array of its own")
            if member.compress_type not in _METHODS:
                raise InputError(
                    f"{where}: {member.filename} is packed by an unknown method",
                    "numpy.savez and numpy.savez_compressed make what is read",
                )
            total += member.file_size
            packed = member.compress_type == zipfile.ZIP_DEFLATED
            if member.file_size > member.compress_size * (_DEFLATED_MOST if packed else 1):
                raise InputError(f"{where}: {member.filename} is cut short")
            self._members[name] = member
        if total > most:
            raise InputError(
                f"{where} would take more than {most >> 20} MB of memory",
                "divide it into several files",
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the arrays, in their order."""
        return tuple(self._members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array; InputError where it cannot be read. KeyError for a name not in `files`."""
        member = self._members[name]
        npy: Any = np.lib.format  # not typed in every numpy that we run on
        with _refusing(self._where):
            with self._archive.open(member) as stream:
                first = npy.read_magic(stream) == (1, 0)
                read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
                shape, _, dtype = read(stream)
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
                raise InputError(f"{self._where}: {member.filename} is cut short")
            with self._archive.open(member) as stream:
                array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
                return array


@contextmanager
def opened(path: Path, most: int) -> Iterator[Archive]:
    """The archive at `path`.

    Args:
        path: a regular file.
        most: bytes that all its arrays may take in memory.

    Raises:
        InputError: see `inputs.opened`; it is no archive of arrays alone, or promises more than it
            holds.
    """
    with inputs.opened(path, inputs.ARRAYS) as stream, reading(stream, str(path), most) as archive:
        yield archive


@contextmanager
def reading(stream: BinaryIO, where: str, most: int) -> Iterator[Archive]:
    """The archive in `stream`; `where` names it in errors, which are those of `opened`."""
    with _refusing(where):
        found = zipfile.ZipFile(stream)
    with found:
        yield Archive(found, where, most)


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise InputError(f"{where} does not fit into memory", "divide it") from error
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where} is no readable numpy archive: {reason}") from error
