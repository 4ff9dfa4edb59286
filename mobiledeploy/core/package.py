"""Where the package lies, and what came along with it. Imports nothing else of ours."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str) -> Path:
    """`models` or `android_bench`: beside the package in a checkout, within it where installed."""
    installed = PACKAGE / "_data" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder
