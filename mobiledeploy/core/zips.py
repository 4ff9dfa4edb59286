"""Zip files from outside: what a damaged one raises, and the record at its end."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from typing import BinaryIO, NamedTuple

BROKEN = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile raises for bytes that it cannot read."""

# Signature, four counts, size and place of the directory, a comment's size.
_END = struct.Struct("<4s4H2LH")
_SIGNATURE = b"PK\5\6"
_LONGEST_COMMENT = 0xFFFF
# What leads to the directory of a file above 4 GB, right before that end.
_LOCATOR, _LOCATOR_BYTES = b"PK\6\7", 20


class EndRecord(NamedTuple):
    """The record that zipfile takes for the end of a file; `rest` is the bytes behind it.

    `disks` has the numbers of this disk and of that of the directory, `counts` those of the members
    on this disk and in all. `directory_bytes` begin at `directory_place`. `located`: a record
    before it names another directory, of any size.
    """

    disks: tuple[int, int]
    counts: tuple[int, int]
    directory_bytes: int
    directory_place: int
    comment_bytes: int
    place: int
    rest: int
    located: bool


def end_record(stream: BinaryIO) -> EndRecord | None:
    """The end of a zip file; None for a file without one. Reads the file's last 64 KB."""
    size = stream.seek(0, os.SEEK_END)
    before = max(0, size - _END.size - _LONGEST_COMMENT)
    stream.seek(before)
    tail = stream.read()
    # One without a comment comes first.
    place = len(tail) - _END.size
    if place < 0 or not (tail.startswith(_SIGNATURE, place) and tail.endswith(b"\0\0")):
        place = tail.rfind(_SIGNATURE)
    if place < 0 or len(tail) - place < _END.size:
        return None
    _, disk, start, here, count, directory, directory_place, comment = _END.unpack_from(tail, place)
    return EndRecord(
        (disk, start),
        (here, count),
        directory,
        directory_place,
        comment,
        before + place,
        len(tail) - place - _END.size,
        tail.startswith(_LOCATOR, max(0, place - _LOCATOR_BYTES)),
    )
