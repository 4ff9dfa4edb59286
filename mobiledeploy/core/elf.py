"""What an ELF file tells of itself: its machine, the pages that it is linked for, its libraries.

A system of 16 KB pages loads only files whose segments are aligned to 16 KB. Android has such
phones since 15: https://developer.android.com/guide/practices/page-sizes
The format: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from mobiledeploy.core import inputs
from mobiledeploy.core.errors import InputError

PAGE_BYTES = 16 * 1024
"""The largest page of Android phones."""

LINKER_OPTION = "-Wl,-z,max-page-size=16384"
"""How a linker is told to align segments to PAGE_BYTES."""

ANDROID_LIBRARIES = frozenset(
    f"lib{name}.so"
    for name in (
        *("EGL", "GLESv1_CM", "GLESv2", "GLESv3", "OpenMAXAL", "OpenSLES", "aaudio", "amidi"),
        *("android", "binder_ndk", "c", "camera2ndk", "dl", "icu", "jnigraphics", "log", "m"),
        *("mediandk", "nativehelper", "nativewindow", "neuralnetworks", "stdc++", "sync"),
        *("vulkan", "z"),
    )
)
"""What Android has for every program: https://developer.android.com/ndk/guides/stable_apis"""

# e_machine, in the words of `uname -m`.
_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRING_TABLE = 1, 5
# Tables of real files are far smaller.
_MOST_BYTES = 4 << 20
_LONGEST_NAME = 4096


class ElfSegment(NamedTuple):
    """A program header."""

    kind: int
    offset: int
    address: int
    file_bytes: int
    alignment: int


@dataclass(frozen=True)
class ElfFile:
    """An ELF file: `machine` is as `uname -m` names it.

    `page_bytes` is the largest page with which all its segments can be loaded; None if it has none.
    `needed` are the names of the libraries that it cannot start without; () if it is static.
    """

    machine: str
    page_bytes: int | None
    needed: tuple[str, ...]

    def lacking(self, brought: Collection[str]) -> tuple[str, ...]:
        """The needed libraries that neither Android has nor are among those `brought` along."""
        return tuple(n for n in self.needed if n not in brought and n not in ANDROID_LIBRARIES)


def read(path: Path) -> ElfFile | None:
    """What the file tells; None for a file that is not ELF, InputError for a damaged one."""
    with inputs.open_file(path) as stream:
        return parse(stream, inputs.printable(path))


def parse(stream: IO[bytes], name: str, *, libraries: bool = True) -> ElfFile | None:
    """As `read`, of an open file at its start. Without `libraries` only its begin is read.

    `name` is for messages.
    """
    head = stream.read(64)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    try:
        layout = _ElfNumbers(head)
        segments = layout.segments(stream, head)
        needed = _needed(stream, layout, segments) if libraries else ()
    except (struct.error, ValueError, OverflowError) as error:
        raise InputError(f"{name} is a damaged ELF file", "build or copy it again") from error
    pages = [_page_bytes(segment) for segment in segments if segment.kind == _LOAD]
    (number,) = struct.unpack_from(f"{layout.order}H", head, 18)
    machine = _MACHINES.get(number, f"ELF machine {number}")
    return ElfFile(machine, min(pages, default=None), needed)


class _ElfNumbers:
    """The sizes and the byte order of a file's numbers."""

    def __init__(self, head: bytes) -> None:
        self.wide = head[4] == 2
        self.order = ">" if head[5] == 2 else "<"
        # A header of a 32-bit file has its flags at another place.
        self._segment = struct.Struct(f"{self.order}{'IIQQQQQQ' if self.wide else 'IIIIIIII'}")
        self.entry = struct.Struct(f"{self.order}{'qQ' if self.wide else 'iI'}")

    def segments(self, stream: IO[bytes], head: bytes) -> tuple[ElfSegment, ...]:
        place, sizes = ("Q", 54) if self.wide else ("I", 42)
        (offset,) = struct.unpack_from(f"{self.order}{place}", head, 32 if self.wide else 28)
        size, count = struct.unpack_from(f"{self.order}HH", head, sizes)
        if count and size != self._segment.size:
            raise ValueError("program headers of another size")
        table = _at(stream, offset, size * count)
        return tuple(self._of(words) for words in self._segment.iter_unpack(table))

    def _of(self, words: tuple[int, ...]) -> ElfSegment:
        if self.wide:
            kind, _, offset, address, _, file_bytes, _, alignment = words
        else:
            kind, offset, address, _, file_bytes, _, _, alignment = words
        return ElfSegment(kind, offset, address, file_bytes, alignment)


def _page_bytes(segment: ElfSegment) -> int:
    """The largest page with which a segment can be loaded.

    A page is mapped whole, so its offset in the file and its address are equal modulo the page,
    whatever the header states.
    """
    distance = abs(segment.offset - segment.address)
    return min(segment.alignment, distance & -distance) if distance else segment.alignment


def _needed(
    stream: IO[bytes], layout: _ElfNumbers, segments: tuple[ElfSegment, ...]
) -> tuple[str, ...]:
    dynamic = next((segment for segment in segments if segment.kind == _DYNAMIC), None)
    if dynamic is None:
        return ()
    table = _at(stream, dynamic.offset, dynamic.file_bytes)
    entries = list(layout.entry.iter_unpack(table))
    address = next((value for tag, value in entries if tag == _STRING_TABLE), None)
    if address is None:
        return ()
    home = next(
        (
            segment
            for segment in segments
            if segment.kind == _LOAD and 0 <= address - segment.address < segment.file_bytes
        ),
        None,
    )
    if home is None:
        raise ValueError("no segment holds the names")
    names = address - home.address + home.offset
    places = dict.fromkeys(names + value for tag, value in entries if tag == _NEEDED)
    return tuple(_name(stream, place) for place in places)


def _name(stream: IO[bytes], offset: int) -> str:
    name, end, _ = _read(stream, offset, _LONGEST_NAME).partition(b"\0")
    if not end or not name:
        raise ValueError("a name without an end")
    return name.decode("utf-8", "replace")


def _at(stream: IO[bytes], offset: int, size: int) -> bytes:
    table = _read(stream, offset, size)
    if len(table) < size:
        raise ValueError("a table beyond the end")
    return table


def _read(stream: IO[bytes], offset: int, most: int) -> bytes:
    if most > _MOST_BYTES or offset > inputs.MODEL:
        raise ValueError("a table that is too large, or too far away")
    stream.seek(offset)
    return stream.read(most)
