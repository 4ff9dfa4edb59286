"""The folders of the package, of its data, and of the user's own files.

Imports nothing else of ours.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str) -> Path:
    """`models` or `android_bench`: beside the package in a checkout, inside it if installed."""
    installed = PACKAGE / "_data" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def in_checkout() -> bool:
    """Whether this is the repository and no installed copy of the package."""
    return not (PACKAGE / "_data").is_dir()


def home() -> Path:
    """The user's home; a folder that does not exist for a user who has none.

    Never a relative path: it would turn the current folder into the user's own.
    """
    try:
        path = Path.home()
    except RuntimeError:  # no HOME, and no such user: a container's
        path = Path()
    return path if path.is_absolute() else Path("/nonexistent")


def project_folders() -> tuple[Path, ...]:
    """The current folder, then those above it up to the root of its git repository.

    The current folder alone outside of a repository, and where folders belong to several users: a
    stranger's folder above ours sets nothing.
    """
    here = Path.cwd()
    above: list[Path] = []
    for folder in (here, *here.parents):
        above.append(folder)
        try:
            if folder.stat().st_uid != here.stat().st_uid:
                break
            if (folder / ".git").exists():
                return tuple(above)
        except OSError:
            break
    return (here,)


def config_dir() -> Path:
    """The user's folder for settings and cards: XDG_CONFIG_HOME or ~/.config, /mobiledeploy."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else home() / ".config") / "mobiledeploy"
