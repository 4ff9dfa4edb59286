"""The folder of an app: what it holds, and what of it may be replaced.

`files.sha256` lists the files that we wrote, in the form of sha256sum. A file that is still as we
wrote it is replaced by a later app; one that was changed is the user's code by now.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import UsageError

MANIFEST = "files.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


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
    # A new file's name may be one that the user took.
    _refuse_files(place, dict.fromkeys(files, "") | earlier, force)
    for name in earlier.keys() - files.keys():
        with records.writing(place):
            if _is_as_written(place / name, earlier[name]):
                (place / name).unlink()
    for name, content in files.items():
        with records.writing(place):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
        records.write_atomic(place / name, content)
    lines = (f"{records.sha256(content)}  {name}\n" for name, content in sorted(files.items()))
    records.write_atomic(place / MANIFEST, "".join(lines))
    return tuple(sorted((*files, MANIFEST)))


def _refuse_files(place: Path, hashes: Mapping[str, str], force: bool) -> None:
    root = os.path.realpath(place)
    for name, sha256 in hashes.items():
        path = place / name
        if os.path.realpath(path) != os.path.join(root, name):  # noqa: PTH118 - not resolved
            raise UsageError(f"{path} is a link, which is not followed", "remove it")
        if not force and os.path.lexists(path) and not _is_as_written(path, sha256):
            raise UsageError(
                f"{path} is not as an app of ours was written: it would be replaced",
                "move it away, choose another --out, or give --force to write over it",
            )


def _is_as_written(path: Path, sha256: str) -> bool:
    return path.is_file() and records.sha256(path) == sha256


def _listed(place: Path) -> dict[str, str]:
    """The hash of each file that we wrote, by its name; {} where we wrote none."""
    manifest = place / MANIFEST
    if not manifest.exists():
        return {}
    hashes = {}
    for line in inputs.text(manifest, inputs.TABLE).splitlines():
        match = _LINE.fullmatch(line)
        name = PurePosixPath(match[2]) if match else None
        if match is None or name is None or name.is_absolute() or ".." in name.parts:
            raise UsageError(f"{manifest} is damaged", "remove the folder")
        hashes[str(name)] = match[1]
    return hashes
