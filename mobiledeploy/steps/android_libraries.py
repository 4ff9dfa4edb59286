"""The native libraries of an Android app, and whether phones with pages of 16 KB load them.

https://developer.android.com/guide/practices/page-sizes
"""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path, PurePosixPath
from typing import Literal

from mobiledeploy.core import elf, inputs, units, zips
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.elf import ElfFile
from mobiledeploy.core.errors import InputError, first_line

LibraryState = Literal["ok", "small-pages", "misplaced", "lacking"]

# lib/arm64-v8a/libx.so in an .apk, base/lib/... in an .aab, jni/... in an .aar.
_IN_ARCHIVE = re.compile(r"(.*/)?(lib|jni)/[^/]+/[^/]+\.so")
_MACHINES_OF_64_BITS = ("aarch64", "x86_64", "riscv64")
_MOST_LIBRARIES = 10_000
_MOST_DIRECTORY = 64 << 20
# What stands before a member's name; its last two numbers are the sizes of name and extra field.
_MEMBER_BYTES = 30


@dataclass(frozen=True)
class AndroidLibrary(Record):
    """A native library of an app; `name` is its path in the app, `machine` as `uname -m` has it.

    `page_bytes` is the largest page that it can be loaded with. `state` is `small-pages` if that is
    below 16 KB on a machine of 64 bits, `misplaced` if it is stored in an .apk at a place that is
    no multiple of 16 KB, `lacking` if it needs a library that neither Android nor the app has.
    `fix` is what helps.
    """

    name: str
    machine: str
    page_bytes: int | None
    state: LibraryState
    fix: str = ""


@dataclass(frozen=True)
class AndroidLibraries(Record):
    """The answer of `doctor --android`: the native libraries of the app at `path`, by name."""

    path: str
    libraries: tuple[AndroidLibrary, ...]

    @property
    def unfit(self) -> tuple[AndroidLibrary, ...]:
        """Those that some phones, or all of them, do not load."""
        return tuple(one for one in self.libraries if one.state != "ok")

    def tables(self) -> tuple[Table, ...]:
        """A row for each library."""
        rows = tuple(
            (
                units.one_line(one.name),
                one.machine,
                "–" if one.page_bytes is None else f"{one.page_bytes // 1024} KB",
                f"{one.state}: {one.fix}" if one.fix else one.state,
            )
            for one in self.libraries
        )
        title = f"{units.one_line(self.path)}: native libraries"
        return (Table(("library", "machine", "pages", "state"), rows, title),)


@dataclass(frozen=True)
class _Packed:
    """A library, and its place in an .apk that does not compress it."""

    name: str
    file: ElfFile
    offset: int | None = None


def check(path: Path) -> AndroidLibraries:
    """Reads the libraries of an .apk, .aab or .aar, of a folder, or a single library.

    InputError for another file, and for a damaged one.
    """
    packed = sorted(_libraries(path), key=lambda one: one.name)
    names: dict[str, set[str]] = defaultdict(set)
    for one in packed:
        # An app has a folder for each ABI.
        names[str(PurePosixPath(one.name).parent)].add(PurePosixPath(one.name).name)
    return AndroidLibraries(
        str(path),
        tuple(_judged(one, names[str(PurePosixPath(one.name).parent)]) for one in packed),
    )


def _judged(one: _Packed, brought: set[str]) -> AndroidLibrary:
    file, wide = one.file, one.file.machine in _MACHINES_OF_64_BITS
    state: LibraryState = "ok"
    fix = ""
    if wide and file.page_bytes is not None and file.page_bytes < elf.PAGE_BYTES:
        state, fix = "small-pages", f"a newer version, or link it with {elf.LINKER_OPTION}"
    elif lacking := file.lacking(brought):
        names = units.one_line(", ".join(lacking))
        state, fix = "lacking", f"no {names} on Android; build it with the NDK, or pack that too"
    elif wide and one.offset is not None and one.offset % elf.PAGE_BYTES:
        state, fix = "misplaced", "zipalign -P 16 -f 4 IN.apk OUT.apk, then sign it again"
    return AndroidLibrary(one.name, file.machine, file.page_bytes, state, fix)


def _libraries(path: Path) -> Iterator[_Packed]:
    if path.is_dir():
        for number, file in enumerate(sorted(path.rglob("*.so"))):
            _check_count(number, path)
            facts = elf.read(file) if file.is_file() else None
            if facts is not None:
                yield _Packed(file.relative_to(path).as_posix(), facts)
        return
    with inputs.open_file(path) as stream:
        facts = elf.parse(stream, inputs.printable(path))
        if facts is not None:
            yield _Packed(path.name, facts)
            return
        try:
            _check_directory(stream)
            with zipfile.ZipFile(stream) as archive:
                yield from _members(archive, stream, path)
        except zips.BROKEN as error:
            raise InputError(
                f"{inputs.printable(path)} is not a readable app: {first_line(error)}",
                "name an .apk, .aab or .aar, a folder, or a library",
            ) from error


def _members(
    archive: zipfile.ZipFile, stream: BufferedReader[FileIO], path: Path
) -> Iterator[_Packed]:
    members = [one for one in archive.infolist() if _IN_ARCHIVE.fullmatch(one.filename)]
    _check_count(len(members), path)
    if sum(member.file_size for member in members) > inputs.MODEL:
        raise ValueError("its libraries are larger than 2 GB")
    for member in members:
        # It is read at several places, and each step back would expand it anew.
        with archive.open(member) as content, tempfile.TemporaryFile() as expanded:
            shutil.copyfileobj(content, expanded)
            expanded.seek(0)
            facts = elf.parse(expanded, units.one_line(member.filename))
        if facts is None:
            continue
        # Android maps a library out of an .apk if it is stored as it is.
        mapped = path.suffix == ".apk" and member.compress_type == zipfile.ZIP_STORED
        yield _Packed(member.filename, facts, _offset(stream, member) if mapped else None)


def _offset(stream: BufferedReader[FileIO], member: zipfile.ZipInfo) -> int:
    """Where the content of a stored member begins."""
    stream.seek(member.header_offset)
    name, extra = struct.unpack_from("<HH", stream.read(_MEMBER_BYTES), _MEMBER_BYTES - 4)
    return member.header_offset + _MEMBER_BYTES + int(name) + int(extra)


def _check_count(number: int, path: Path) -> None:
    if number > _MOST_LIBRARIES:
        raise InputError(f"{inputs.printable(path)} has more than {_MOST_LIBRARIES:,} libraries")


def _check_directory(stream: BufferedReader[FileIO]) -> None:
    """ValueError for a directory that zipfile would read whole, and that no app has."""
    end = zips.end_record(stream)
    if end is None:
        raise ValueError("it is no zip file")
    if end.located or end.directory_bytes > _MOST_DIRECTORY:
        raise ValueError("its directory is too large")
