"""The Makefile answers a machine that lacks something with one line, before it does anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

if shutil.which("make") is None:
    pytest.skip("make is not installed (apt install make)", allow_module_level=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that `make install` reads, at a path with a space in it."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def python(folder: Path, change: str) -> Path:
    """An interpreter that differs from this one by `change`, run before what it is asked to."""
    path = folder / "python-for-test"
    prelude = f"import sys; {change}; exec(sys.argv.pop(1))"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && exec "{sys.executable}" -V\n'
        f'shift\nexec "{sys.executable}" -c "{prelude}" "$@"\n'
    )
    path.chmod(0o755)
    return path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "PYTHON")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_is_the_default_and_names_every_verb(checkout):
    said = make(checkout)
    assert said.returncode == 0
    verbs = {line.split()[1] for line in said.stdout.splitlines()}
    assert verbs == {
        "benchmarks",
        "clean",
        "coverage",
        "demo",
        "docs",
        "emulator",
        "gate",
        "help",
        "install",
        "lint",
        "lock",
        "oracle",
        "test",
        "test-quick",
        "test-slow",
        "train-demo",
    }
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("sys.modules['ensurepip'] = None", "apt install python3-venv"),
        ("sys.version_info = (3, 10, 1)", "3.11 to 3.13 is needed"),
        ("sys.version_info = (3, 14, 0)", "3.11 to 3.13 is needed"),
    ],
)
@pytest.mark.parametrize("verb", ["demo", "install", "test"])
def test_an_unfit_python_is_answered_in_one_line(verb, change, answer, checkout):
    done = make(checkout, verb, f"PYTHON={python(checkout.parent, change)}")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(errors) == 1
    assert answer in errors[0]
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_answered_in_one_line(checkout):
    done = make(checkout, "demo", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(errors) == 1
    assert "apt install python3 python3-venv" in errors[0]


def test_clean_keeps_what_was_measured(checkout):
    ours = ("mobiledeploy", "tests", "benchmarks", "tools")
    for name in ("build/a", "dist", ".mobiledeploy", *ours):
        (checkout / name).mkdir(parents=True)
    assert make(checkout, "clean").returncode == 0
    assert (checkout / ".mobiledeploy").is_dir()
    assert not (checkout / "build").exists()
