"""An app replaces what we wrote, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["../victim", "/victim", "golden/../../victim"])
def test_a_list_that_names_files_elsewhere_is_refused(place, name):
    victim = place.parent / "victim"
    victim.write_bytes(b"one")
    line = (place / app_folder.MANIFEST).read_text().splitlines()[0]
    (place / app_folder.MANIFEST).write_text(line.replace("app.py", name) + "\n")
    with pytest.raises(UsageError, match=r"files\.sha256 is damaged"):
        app_folder.write(place, {"app.py": b"new"}, force=True)
    assert victim.exists()
