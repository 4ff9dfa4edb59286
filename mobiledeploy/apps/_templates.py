"""The files of apps that stand beside this one: code that no model changes."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def read(folder: str) -> dict[str, bytes]:
    """The content of each file of a folder of templates by its name."""
    files = sorted(path for path in (_HERE / folder).iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in files}
