"""The zip file of a bundle: the same content always gives the same bytes.

Members are stored without compression, in the order of their names, with one fixed time and one
fixed mode. So the bytes depend on nothing but names and contents, a member cannot expand, and
whatever else a zip file may hold is refused by name when it is read.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mobiledeploy.core import artifacts, inputs, records, units, zips
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import InputError

MANIFEST = "MANIFEST.json"
LARGEST = inputs.MODEL
"""Bytes of a bundle: below the size from which zip files need other headers."""
_MOST_MEMBERS = 10_000
_MOST_DIRECTORY = 4 << 20
_LONGEST_NAME = 240
_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = stat.S_IFREG | 0o644
_UNIX = 3
_ENCRYPTED = 0x1
_PLAIN_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
_AGAIN = "take it again from where it was made"


@dataclass(frozen=True)
class BundleMember(Record):
    """One file of a bundle; `name` is its path there."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class BundleManifest(Record):
    """MANIFEST.json of a bundle: every other file of it, sorted by name."""

    members: tuple[BundleMember, ...]


@dataclass(frozen=True)
class FileToPack:
    """A file whose content becomes a member, and its sha256."""

    path: Path
    sha256: str


def plain(name: str) -> str:
    """A name for a member: ASCII letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII).lstrip(".-")[:80] or "model"


def write(path: Path, contents: Mapping[str, bytes | FileToPack]) -> BundleManifest:
    """Writes the zip file `path`, whole or not at all.

    Args:
        path: where it goes; its folder exists.
        contents: the members by name.

    Returns:
        The members with the hashes of the bytes that were written.

    Raises:
        UsageError: it cannot be written there.
        InputError: a file cannot be read or was changed, or all of them are too large.
    """
    records.refuse_irregular(path)
    with artifacts.staging(path) as folder, records.writing(path.parent):
        draft = folder / "bundle.zip"
        members = []
        with zipfile.ZipFile(draft, "w") as archive:
            for name in sorted(contents):
                members.append(_add(archive, name, contents[name]))
                if archive.start_dir > LARGEST - _MOST_DIRECTORY:
                    raise InputError(
                        f"{path} would be larger than {units.size(LARGEST)}",
                        "bundle fewer artifacts in one file",
                    )
            manifest = BundleManifest(tuple(members))
            _add(archive, MANIFEST, records.dumps(manifest).encode())
        records.put(draft, path)
    return manifest


def _add(archive: zipfile.ZipFile, name: str, content: bytes | FileToPack) -> BundleMember:
    if not _is_plain(name):
        raise InputError(f"a bundle cannot hold a file of the name {_shown(name)}", "rename it")
    if isinstance(content, FileToPack):
        file, content = content, inputs.read(content.path, inputs.FINISHED)
        if records.sha256(content) != file.sha256:
            raise InputError(f"{file.path} was changed while it was packed", "try again")
    info = zipfile.ZipInfo(name, _TIME)
    info.create_system, info.external_attr = _UNIX, _MODE << 16
    archive.writestr(info, content, zipfile.ZIP_STORED)
    return BundleMember(name, records.sha256(content), len(content))


class OpenBundle:
    """A bundle that is open for reading: each member by its name, checked against the manifest."""

    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self._archive, self._where = archive, where
        self._infos = _sound_members(archive, where)
        if MANIFEST not in self._infos:
            raise InputError(f"{where} has no {MANIFEST}, so it is no bundle", _AGAIN)
        if self._infos[MANIFEST].file_size > inputs.TABLE:
            raise InputError(f"{where}: {MANIFEST} is too large")
        self.manifest = records.loads(
            BundleManifest, self._content(MANIFEST), f"{where}: {MANIFEST}"
        )
        listed = [member.name for member in self.manifest.members]
        if len(set(listed)) < len(listed) or MANIFEST in listed:
            raise InputError(f"{where}: {MANIFEST} lists a member twice, or itself", _AGAIN)
        for name in listed:
            if name not in self._infos:
                raise InputError(f"{where}: member {_shown(name)} is missing", _AGAIN)
        for name in self._infos:
            if name != MANIFEST and name not in listed:
                raise InputError(f"{where}: member {name} is not in {MANIFEST}", _AGAIN)
        self._members = {member.name: member for member in self.manifest.members}

    def read(self, name: str) -> bytes:
        """The content of a member of the manifest.

        InputError if it is not the one of the manifest.
        """
        content = self._content(name)
        member = self._members[name]
        if (len(content), records.sha256(content)) != (member.size_bytes, member.sha256):
            raise InputError(
                f"{self._where}: member {name} was changed: it is not the one of {MANIFEST}", _AGAIN
            )
        return content

    def _content(self, name: str) -> bytes:
        try:
            return self._archive.read(self._infos[name])
        except MemoryError as error:
            raise InputError(f"{self._where}: member {name} does not fit into memory") from error
        except zips.BROKEN as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{self._where}: member {name} was changed or is damaged: {reason}", _AGAIN
            ) from error


@contextmanager
def opened(path: Path) -> Iterator[OpenBundle]:
    """The bundle at `path`, its members not read yet.

    Raises:
        InputError: it is no bundle; or a member has a path that leads elsewhere, is a link, is
            there twice, is encrypted or compressed, is missing or too many.
    """
    with inputs.open_file(path, LARGEST) as stream:
        where = inputs.printable(path)
        _check_end(stream, where)
        try:
            archive = zipfile.ZipFile(stream)
        except zips.BROKEN as error:
            raise InputError(f"{where} is not a readable zip file: {error}", _AGAIN) from error
        with archive:
            yield OpenBundle(archive, where)


def extract(path: Path, folder: Path) -> tuple[BundleManifest, str]:
    """Reads all members of the bundle at `path` into `folder`, and checks its bytes as a whole.

    Returns:
        The manifest, and the sha256 of the bundle.

    Raises:
        InputError: as of `opened`; also a member that is not the one of the manifest, or bytes that
            `write` would not write: a comment, a gap, another time or mode.
    """
    contents: dict[str, bytes | FileToPack] = {}
    with opened(path) as bundle:
        for member in bundle.manifest.members:
            file = folder / member.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bundle.read(member.name))
            contents[member.name] = FileToPack(file, member.sha256)
    copy = folder.with_name(f"{folder.name}.zip")
    rewritten = write(copy, contents)
    sha256 = records.sha256(copy)
    copy.unlink()
    if rewritten != bundle.manifest or sha256 != records.sha256(path):
        raise InputError(
            f"{inputs.printable(path)} was changed outside of its members: it holds other bytes "
            "than a bundle of them",
            _AGAIN,
        )
    return rewritten, sha256


def _check_end(stream: BinaryIO, where: str) -> None:
    """InputError unless the file ends as a small zip file without a comment does."""
    end = zips.end_record(stream)
    if end is None or end.rest:
        raise InputError(
            f"{where} does not end as a bundle does: it is truncated, has more bytes, or is no "
            "bundle",
            _AGAIN,
        )
    here, count = end.counts
    if end.directory_bytes > _MOST_DIRECTORY or count > _MOST_MEMBERS:
        raise InputError(f"{where} lists more members than a bundle can have", _AGAIN)
    is_last = end.directory_place + end.directory_bytes == end.place
    if any(end.disks) or here != count or end.comment_bytes or not is_last:
        raise InputError(f"{where} has another directory than a bundle has", _AGAIN)


def _sound_members(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    infos: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    total = 0
    for info in archive.infolist():
        # `filename` ends at a NUL; the rest of the name would be overlooked.
        name = info.orig_filename
        problem = _problem(info, name)
        if problem:
            raise InputError(f"{where}: member {_shown(name)} {problem}", _AGAIN)
        if name.casefold() in folded:
            raise InputError(f"{where}: member {name} is there twice", _AGAIN)
        folded.add(name.casefold())
        total += info.file_size
        infos[name] = info
    folders = {folder for name in folded for folder in _folders(name)}
    if folders & folded:
        raise InputError(f"{where}: {_shown(min(folders & folded))} is a file and a folder", _AGAIN)
    if total > archive.start_dir:
        raise InputError(f"{where}: its members are larger than the file", _AGAIN)
    return infos


def _folders(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def _problem(info: zipfile.ZipInfo, name: str) -> str:
    """What a bundle does not allow about a member, "" for nothing."""
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "is a link"
    parts = name.split("/")
    if ".." in parts or name.startswith("/"):
        return "leads out of the folder"
    if not _is_plain(name):
        return "has a name that no bundle gives"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        return "is compressed, or is of another size than it says"
    if info.file_size > inputs.FINISHED:
        return "is too large"
    if mode != _MODE or info.create_system != _UNIX:
        return "is not a plain file of mode 644"
    return ""


def _is_plain(name: str) -> bool:
    dots = {".", ".."} & set(name.split("/"))
    return len(name) <= _LONGEST_NAME and _PLAIN_NAME.fullmatch(name) is not None and not dots


def _shown(name: str) -> str:
    text = units.one_line(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
