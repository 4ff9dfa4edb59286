"""A site is whole or not there, and nothing of others is touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mobiledeploy.core.errors import UsageError
from mobiledeploy.steps import site_folder

PAGES = [("vega.js", "code"), ("models/a-1.html", "a"), ("index.html", "front")]


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder but the list of ours."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != site_folder.LIST]
    return {p.relative_to(folder).as_posix(): p.read_text() for p in files}


def broken() -> Iterator[tuple[str, str]]:
    yield "vega.js", "newer"
    raise KeyboardInterrupt


@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty"])
def test_a_new_site_is_there_as_a_whole(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "site"
    if exists:
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        site_folder.write(folder, broken())
    assert content(tmp_path) == {}
    assert folder.exists() == exists
    assert site_folder.write(folder, PAGES) == len("codeafront")
    assert content(folder) == dict(PAGES) | {".nojekyll": ""}
    # A web server can read it.
    assert folder.stat().st_mode & 0o055 == 0o055
    # The folder that it was made in is gone.
    assert list(tmp_path.iterdir()) == [folder]


def test_a_site_is_brought_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    site_folder.write(folder, PAGES)
    (folder / "CNAME").write_text("example.org")
    (folder / "models" / "mine.html").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        site_folder.write(folder, broken())
    others = {".nojekyll": "", "CNAME": "example.org", "models/mine.html": "mine"}
    assert content(folder) == dict(PAGES) | others
    newer = [("vega.js", "code"), ("models/b-2.html", "b"), ("index.html", "newer")]
    site_folder.write(folder, newer)
    assert content(folder) == dict(newer) | others


def test_the_current_folder_and_a_link_are_places_too(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    monkeypatch.chdir(tmp_path / "place")
    for _ in range(2):
        site_folder.write(Path(), PAGES)
        assert content(tmp_path / "place") == dict(PAGES) | {".nojekyll": ""}
        monkeypatch.chdir(tmp_path / "place")
    site_folder.write(tmp_path / "link", [("index.html", "newer")])
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "place") == {"index.html": "newer", ".nojekyll": ""}


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and no site of mobiledeploy"):
        site_folder.write(tmp_path, PAGES)
    with pytest.raises(UsageError, match="is not a folder"):
        site_folder.write(tmp_path / "mine.txt", PAGES)
    assert content(tmp_path) == {"mine.txt": "mine"}


def test_an_edited_list_removes_nothing_of_others(tmp_path: Path) -> None:
    outside = tmp_path / "index.html"
    outside.write_text("mine")
    folder = tmp_path / "site"
    site_folder.write(folder, PAGES)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("mine")
    names = [
        "../index.html",
        str(outside),
        ".git/config",
        "models/../../index.html",
        "models/a-1.html",
    ]
    (folder / site_folder.LIST).write_text("\n".join(names))
    site_folder.write(folder, [("index.html", "newer")])
    assert outside.read_text() == (folder / ".git" / "config").read_text() == "mine"
    assert not (folder / "models" / "a-1.html").exists()
