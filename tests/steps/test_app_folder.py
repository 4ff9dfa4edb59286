"""An app replaces what we wrote, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.steps import app_folder

FILES = {"app.py": b"one", "golden/0.png": b"two"}


def content(place: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name != app_folder.MANIFEST}


@pytest.fixture
def place(tmp_path) -> Path:
    folder = tmp_path / "new" / "app"
    assert app_folder.write(folder, FILES) == ("app.py", app_folder.MANIFEST, "golden/0.png")
    return folder


def test_files_as_we_wrote_them_are_replaced_and_old_ones_removed(place):
    assert content(place) == FILES
    subprocess.run(["sha256sum", "--check", "--strict", app_folder.MANIFEST], cwd=place, check=True)
    (place / "mine.txt").write_bytes(b"mine")
    app_folder.write(place, {"app.py": b"three", "golden/1.png": b"four"})
    assert content(place) == {"app.py": b"three", "golden/1.png": b"four", "mine.txt": b"mine"}


def test_a_changed_file_is_refused_by_its_name_unless_forced(place):
    (place / "app.py").write_bytes(b"mine")
    for refused in (app_folder.refuse, lambda place: app_folder.write(place, FILES)):
        with pytest.raises(UsageError, match=r"app/app\.py is not as .*--force"):
            refused(place)
    assert content(place) == FILES | {"app.py": b"mine"}
    app_folder.write(place, FILES, force=True)
    assert content(place) == FILES


def test_a_file_of_the_user_with_the_name_of_a_new_one_is_refused(place):
    (place / "new.py").write_bytes(b"mine")
    app_folder.refuse(place)
    with pytest.raises(UsageError, match=r"new\.py is not as an app"):
        app_folder.write(place, {"new.py": b"ours"})
    assert content(place) == FILES | {"new.py": b"mine"}


def test_links_are_not_followed_even_with_force(place, tmp_path):
    """Their content may be known: a folder may come from a stranger."""
    (tmp_path / "elsewhere.py").write_bytes(b"one")
    (place / "app.py").unlink()
    (place / "app.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(UsageError, match=r"app\.py is a link"):
        app_folder.write(place, {"app.py": b"new"}, force=True)
    assert (tmp_path / "elsewhere.py").read_bytes() == b"one"
    (place / "app.py").unlink()
    (place / app_folder.MANIFEST).unlink()
    (place / app_folder.MANIFEST).symlink_to(tmp_path / "new.txt")
    with pytest.raises(UsageError, match=r"files\.sha256 is a link"):
        app_folder.write(place, FILES, force=True)
    assert not (tmp_path / "new.txt").exists()


@pytest.mark.parametrize("earlier", [{}, FILES], ids=["first", "second"])
@pytest.mark.parametrize("count", range(4))
def test_an_interrupted_app_is_written_by_the_next_one(tmp_path, monkeypatch, earlier, count):
    place, later = tmp_path / "app", {"app.py": b"three", "golden/1.png": b"four"}
    if earlier:
        app_folder.write(place, earlier)
    write_atomic, writes = records.write_atomic, iter(range(count))

    def write(path, data):
        if next(writes, None) is None:
            raise KeyboardInterrupt
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", write)
        with pytest.raises(KeyboardInterrupt):
            app_folder.write(place, later)
    app_folder.write(place, later)
    assert content(place) == later
    assert len((place / app_folder.MANIFEST).read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["../victim", "/victim", "golden/../../victim", "a\0b", "."])
def test_a_list_that_names_files_elsewhere_is_refused(place, name):
    victim = place.parent / "victim"
    victim.write_bytes(b"one")
    line = (place / app_folder.MANIFEST).read_text().splitlines()[0]
    (place / app_folder.MANIFEST).write_text(line.replace("app.py", name) + "\n")
    with pytest.raises(UsageError, match=r"files\.sha256 is damaged"):
        app_folder.write(place, {"app.py": b"new"}, force=True)
    assert victim.exists()
