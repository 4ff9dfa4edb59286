"""The folder of an app: what it holds, and what of it may be replaced.

`files.sha256` lists the files that we wrote, in the form of sha256sum. A file that is still as we
wrote it is replaced by a later app; one that was changed is the user's code by now. While files are
replaced, the list has both the old and the new ones: after an interruption all of them are ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import UsageError

MANIFEST = "files.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\0]+)")


def refuse(place: Path, force: bool = False) -> None:
    """UsageError for a place with something that a new app would replace and that is not ours.

    With `force`, files are replaced whoever wrote them, but for links.
    """
    with records.writing(place):
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is not a folder", "remove it, or choose another --out")
        if not place.is_dir() or not any(place.iterdir()):
            return
    listed = _listed(place)
    if not listed and not force:
        raise UsageError(
            f"{place} holds files already",
            "remove it, choose another --out, or give --force to write over them",
        )
    _refuse_files(place, listed, force)


def write(place: Path, files: Mapping[str, bytes], force: bool = False) -> tuple[str, ...]:
    """Writes the files of an app, removes those of an earlier one, and lists them in the manifest.

    Args:
        place: the folder; it is made if it does not exist.
        files: by their names relative to it, with `/` between folders.
        force: replaces files whoever wrote them.

    Returns:
        The names of all files that were written, sorted.

    Raises:
        UsageError: as `refuse`; and a file of these names that is not ours.
    """
    refuse(place, force)
    earlier = _listed(place)
    hashes = {name: {records.sha256(content)} for name, content in files.items()}
    # A new file's name may be one that the user took.
    _refuse_files(place, {name: set[str]() for name in files} | earlier, force)
    with records.writing(place):
        place.mkdir(parents=True, exist_ok=True)
    _list(place, (earlier, hashes))
    for name in earlier.keys() - files.keys():
        with records.writing(place):
            if _is_as_written(place / name, earlier[name]):
                (place / name).unlink()
    for name, content in files.items():
        with records.writing(place):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
        records.write_atomic(place / name, content)
    _list(place, (hashes,))
    return tuple(sorted((*files, MANIFEST)))


def _list(place: Path, listings: Iterable[Mapping[str, Collection[str]]]) -> None:
    """Writes the manifest."""
    lines = {
        f"{sha256}  {name}\n"
        for hashes in listings
        for name, several in hashes.items()
        for sha256 in several
    }
    in_order = sorted(lines, key=lambda line: line.partition("  ")[2])
    records.write_atomic(place / MANIFEST, "".join(in_order))


def _refuse_files(place: Path, hashes: Mapping[str, Collection[str]], force: bool) -> None:
    for name, several in hashes.items():
        path = place / name
        _refuse_link(place, name)
        if not force and os.path.lexists(path) and not _is_as_written(path, several):
            raise UsageError(
                f"{path} is not as an app of ours was written: it would be replaced",
                "move it away, choose another --out, or give --force to write over it",
            )


def _refuse_link(place: Path, name: str) -> None:
    root, path = os.path.realpath(place), place / name
    if os.path.realpath(path) != os.path.join(root, name):  # noqa: PTH118 - not resolved
        raise UsageError(f"{path} is a link, which is not followed", "remove it")


def _is_as_written(path: Path, several: Collection[str]) -> bool:
    return path.is_file() and records.sha256(path) in several


def _listed(place: Path) -> dict[str, set[str]]:
    """The hashes of each file that we wrote, by its name; {} where we wrote none."""
    manifest = place / MANIFEST
    _refuse_link(place, MANIFEST)
    if not manifest.exists():
        return {}
    hashes: dict[str, set[str]] = {}
    for line in inputs.text(manifest, inputs.TABLE).splitlines():
        match = _LINE.fullmatch(line)
        name = PurePosixPath(match[2] if match else "")
        if not match or not name.parts or name.is_absolute() or ".." in name.parts:
            raise UsageError(
                f"{manifest} is damaged", "choose another --out, or remove it and give --force"
            )
        hashes.setdefault(str(name), set()).add(match[1])
    return hashes
