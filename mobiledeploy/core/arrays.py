"""Numpy archives (.npz) from untrusted sources: nothing in one is unpickled.

Numpy trusts the sizes in a header before it reads the data. Here all sizes are compared with the
file first. So a small file cannot take much memory, and each fault is reported in one line.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.core import inputs, zips
from mobiledeploy.core.errors import DeviceError, InputError
from mobiledeploy.core.types import Tensor

# What zipfile and numpy raise for bytes that they cannot read.
_BROKEN = (*zips.BROKEN, ArithmeticError, SyntaxError, TypeError, tokenize.TokenError)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deflate expands one byte to at most 1032.
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
                raise InputError(
                    f"{where} holds {member.filename!r}, which is not an array or is there twice"
                )
            if member.compress_type not in _METHODS:
                raise InputError(
                    f"{where}: {member.filename} is compressed with an unknown method",
                    "write it with numpy.savez or numpy.savez_compressed",
                )
            total += member.file_size
            is_deflated = member.compress_type == zipfile.ZIP_DEFLATED
            if member.file_size > member.compress_size * (_DEFLATED_MOST if is_deflated else 1):
                raise InputError(f"{where}: {member.filename} is truncated")
            self._members[name] = member
        if total > most:
            raise InputError(
                f"{where} would take more than {most >> 20} MB of memory",
                "split it into several files",
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the arrays, in the order of the file."""
        return tuple(self._members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array; InputError if it cannot be read, KeyError for a name not in `files`."""
        member = self._members[name]
        npy: Any = np.lib.format  # not typed in every numpy that we run on
        with _refusing(self._where):
            with self._archive.open(member) as stream:
                is_version_1 = npy.read_magic(stream) == (1, 0)
                read_header = (
                    npy.read_array_header_1_0 if is_version_1 else npy.read_array_header_2_0
                )
                shape, _, dtype = read_header(stream)
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
                raise InputError(f"{self._where}: {member.filename} is truncated")
            with self._archive.open(member) as stream:
                array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
                return array


@contextmanager
def open_archive(path: Path, most: int) -> Iterator[Archive]:
    """The archive at `path`.

    Args:
        path: a regular file.
        most: bytes that all its arrays may take in memory.

    Raises:
        InputError: see `inputs.open_file`; also if the file is not an archive of arrays only, or is
            smaller than its headers say.
    """
    with (
        inputs.open_file(path, inputs.ARRAYS) as stream,
        read_archive(stream, str(path), most) as archive,
    ):
        yield archive


@contextmanager
def read_archive(stream: BinaryIO, where: str, most: int) -> Iterator[Archive]:
    """The archive in `stream`; `where` names it in errors, which are those of `open_archive`."""
    with _refusing(where):
        archive = zipfile.ZipFile(stream)
    with archive:
        yield Archive(archive, where, most)


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise InputError(f"{where} does not fit into memory", "split it") from error
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where} is not a readable numpy archive: {reason}") from error


def raw(content: bytes, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """The tensors that lie one after the other in `content`, each of its shape, little-endian.

    DeviceError if their sizes are others: a runner on a device wrote them, where nobody checked.
    """
    sizes = [np.dtype(t.dtype).itemsize * math.prod(t.shape) for t in tensors]
    if len(content) != sum(sizes):
        raise DeviceError(
            f"the runner's answer has {len(content)} bytes, its model's outputs take {sum(sizes)}"
        )
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        np.frombuffer(content, np.dtype(t.dtype).newbyteorder("<"), math.prod(t.shape), start)
        .astype(t.dtype)
        .reshape(t.shape)
        for t, start in zip(tensors, starts, strict=True)
    ]
