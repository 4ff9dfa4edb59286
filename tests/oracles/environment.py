"""Judges of our files that do not fit requirements.lock: each in an environment of its own.

`<name>.lock` says what is in it (`make lock` writes it from `<name>.in`), and `make oracle` makes
it in the user's cache, once for each content of the lock. A test that asks it runs a script of this
folder by that environment's Python, and reads JSON.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from mobiledeploy.core import assets

HERE = Path(__file__).resolve().parent
# Packages of npm, which are never shipped: the folder with the lock, the file that tests use, and
# the size. axe-core (MPL-2.0) judges the report's page, Kotlin's compiler (Apache-2.0) the apps for
# Android, LiteRT.js (Apache-2.0) runs our files in a browser.
PACKAGES = {
    "axe": ("node_modules/axe-core/axe.min.js", "3 MB"),
    "kotlin": ("node_modules/kotlin-compiler/bin/kotlinc", "97 MB"),
    "litertjs": ("node_modules/@litertjs/core/dist/index.js", "38 MB"),
}
# Found out before the tests have a cache of their own.
ENVIRONMENTS = assets.cache_dir() / "oracles"
# Written last: without it an environment is half made.
WHOLE = "whole"


def place(name: str) -> Path:
    """Where the oracle's environment is, or would be."""
    lock = (HERE / f"{name}.lock").read_bytes()
    return ENVIRONMENTS / f"{name}-{hashlib.sha256(lock).hexdigest()[:16]}"


def python(name: str) -> Path | None:
    """The oracle's interpreter; None where its environment is not made, or its Python is gone."""
    folder = place(name)
    there = folder / "bin" / "python"
    return there if (folder / WHOLE).is_file() and there.exists() else None


def make(name: str) -> None:
    """Makes the environment, in the place of one that was left half made."""
    folder = place(name)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    subprocess.run(
        [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "-r",
            HERE / f"{name}.lock",
        ],
        check=True,
    )
    (folder / WHOLE).touch()


def axe() -> Path | None:
    """axe-core's script, which judges a page's accessibility; None where it was not fetched."""
    return package("axe")


def axe_place() -> Path:
    """Where the package of axe-core is, or would be."""
    return package_place("axe")


def package(name: str) -> Path | None:
    """The file of a package of npm that tests use; None where it was not fetched."""
    folder = package_place(name)
    file = folder / PACKAGES[name][0]
    return file if (folder / WHOLE).is_file() and file.is_file() else None


def package_place(name: str) -> Path:
    """Where a package of npm is, or would be."""
    lock = (HERE / name / "package-lock.json").read_bytes()
    return ENVIRONMENTS / f"{name}-{hashlib.sha256(lock).hexdigest()[:16]}"


def fetch(name: str) -> None:
    """Fetches a package of npm as its lock pins it, and runs none of its scripts."""
    npm, folder = shutil.which("npm"), package_place(name)
    if npm is None:
        raise OSError("no npm (apt install npm)")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / name, folder)
    subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True
    )
    (folder / WHOLE).touch()


def main() -> int:
    """All of them; 6 where one cannot be had."""
    try:
        ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
        with (ENVIRONMENTS / "lock").open("w") as turn:
            # Two checkouts share a cache.
            fcntl.flock(turn, fcntl.LOCK_EX)
            for lock in sorted(HERE.glob("*.lock")):
                if python(lock.stem) is None:
                    print(f"making the oracle {lock.stem}, about 650 MB, in {place(lock.stem)}")
                    make(lock.stem)
            for name, (_, size) in PACKAGES.items():
                if package(name) is None:
                    print(f"fetching the oracle {name}, about {size}, in {package_place(name)}")
                    fetch(name)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"error: the oracles cannot be made: {error}", file=sys.stderr)
        return 6
    return 0


if __name__ == "__main__":
    sys.exit(main())
