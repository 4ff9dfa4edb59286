"""A folder of linked pages: made whole beside its place, or brought up to date file by file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mobiledeploy.core import artifacts, inputs, records
from mobiledeploy.core.errors import UsageError

LIST = ".mobiledeploy-site"
"""The list of what we wrote in a folder, one name in a line: the sign that it is ours."""
# What the folder is served with: without this GitHub Pages runs a generator of sites over it.
_PLAIN = ".nojekyll"
_NAMES = re.compile(r"(models/)?[a-z0-9][a-z0-9_.-]*\.(html|js)")


def check(folder: Path) -> None:
    """UsageError for a file, and for a folder with content that is not a site of ours."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "name a new one")
    with records.writing(folder):
        content = list(folder.iterdir()) if folder.exists() else []
    if content and not (folder / LIST).is_file():
        raise UsageError(
            f"{folder} is not empty, and no site of mobiledeploy",
            "name a new folder, or one that report --site made",
        )


def write(folder: Path, pages: Iterable[tuple[str, str]]) -> int:
    """Writes (name, text) of each page; returns their size in bytes.

    A new site gets its place when all pages are complete. In an existing one each page is replaced
    as a whole, in the order of `pages`, and pages of models that are gone are removed afterwards;
    files of others stay.
    """
    check(folder)
    # The current folder has no name, and a link none that can be replaced.
    folder = folder.resolve()
    size, names = 0, []
    with artifacts.staging(folder) as aside:
        new = aside / "site"
        (new / "models").mkdir(parents=True)
        for name, text in pages:
            assert _NAMES.fullmatch(name), name
            content = text.encode("utf-8", "backslashreplace")
            records.write_atomic(new / name, content)
            names.append(name)
            size += len(content)
        with records.writing(folder.parent):
            records.write_atomic(new / _PLAIN, "")
            if not (folder / LIST).is_file():
                _list(new, names)
                new.rename(folder)
                return size
        _update(new, folder, names)
    return size


def _update(new: Path, folder: Path, names: list[str]) -> None:
    text = inputs.read(folder / LIST, inputs.RECORD).decode("utf-8", "replace")
    # A list that somebody edited removes nothing but pages.
    before = {name for name in text.splitlines() if _NAMES.fullmatch(name)}
    # Whatever is interrupted from here on, the list names it.
    _list(folder, sorted(before | set(names)))
    with records.writing(folder):
        (folder / "models").mkdir(exist_ok=True)
        for name in names:
            records.put(new / name, folder / name)
        for name in before - set(names):
            (folder / name).unlink(missing_ok=True)
    _list(folder, names)


def _list(folder: Path, names: Iterable[str]) -> None:
    records.write_atomic(folder / LIST, "".join(f"{name}\n" for name in names))
