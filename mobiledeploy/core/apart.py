"""Environments of their own, for what does not fit beside everything else that we need.

`environments/<name>.lock` says what is in one (`make lock` writes it from `<name>.in`). It is made
in the user's cache, once for each content of the lock, and called as a process: nothing is imported
from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import MissingError
from mobiledeploy.core.package import PACKAGE

TORCH = "torch"
FIX = {TORCH: "mobiledeploy doctor --torch"}
"""The line that makes each of them."""
# Written last: without it an environment is half made.
WHOLE = "whole"


@dataclass(frozen=True)
class Environment(Record):
    """One that is there: the folder, and the versions of its packages."""

    path: str
    versions: dict[str, str]


def lock(name: str) -> Path:
    """The list of what is in it, with a hash for each file."""
    return PACKAGE / "core" / "environments" / f"{name}.lock"


def place(name: str) -> Path:
    """Where it is, or would be."""
    return cache_dir() / "apart" / f"{name}-{records.sha256(lock(name))[:16]}"


def python(name: str) -> Path:
    """Its interpreter; MissingError where it is not made, or its Python is gone."""
    folder = place(name)
    there = folder / "bin" / "python"
    if not (folder / WHOLE).is_file() or not there.exists():
        raise MissingError(f"the environment for {name} is not here", FIX[name])
    return there


def versions(name: str) -> dict[str, str]:
    """Package -> the version that the lock pins; of several, that for the oldest Python."""
    found: dict[str, str] = {}
    for line in inputs.text(lock(name), inputs.TABLE).splitlines():
        pinned = re.match(r"([a-z0-9-]+)==(\S+)", line)
        if pinned:
            found.setdefault(pinned[1], pinned[2])
    return found
