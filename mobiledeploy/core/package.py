"""Where the package lies, what came along with it, and where the user's own things lie.

Imports nothing else of ours.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str) -> Path:
    """`models` or `android_bench`: beside the package in a checkout, within it where installed."""
    installed = PACKAGE / "_data" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def home() -> Path:
    """The user's home; a folder that is not there for a user who has none.

    A path that is relative would make somebody's own of whatever folder a command is called in.
    """
    try:
        path = Path.home()
    except RuntimeError:  # no HOME, and no such user: a container's
        path = Path()
    return path if path.is_absolute() else Path("/nonexistent")


def config_dir() -> Path:
    """The user's folder for settings and cards: XDG_CONFIG_HOME or ~/.config, /mobiledeploy."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else home() / ".config") / "mobiledeploy"
