"""Separate environments for packages that cannot be installed beside ours.

`environments/<name>.lock` lists the packages of one (`make lock` writes it from `<name>.in`). An
environment is made in the user's cache, once for each content of the lock. It is called as a
process: nothing is imported from it.
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
"""The command that makes each environment."""
# This file is written last: without it an environment is incomplete.
WHOLE = "whole"


@dataclass(frozen=True)
class Environment(Record):
    """An environment in the cache: its folder, and the versions of its packages."""

    path: str
    versions: dict[str, str]


def lock(name: str) -> Path:
    """The list of its packages, with a hash for each file."""
    return PACKAGE / "core" / "environments" / f"{name}.lock"


def folder(name: str) -> Path:
    """The folder of the environment, whether it exists or not."""
    return cache_dir() / "apart" / f"{name}-{records.sha256(lock(name))[:16]}"


def python(name: str) -> Path:
    """Its interpreter; MissingError if the environment or its Python does not exist."""
    environment = folder(name)
    interpreter = environment / "bin" / "python"
    if not (environment / WHOLE).is_file() or not interpreter.exists():
        raise MissingError(f"the environment for {name} is not here", FIX[name])
    return interpreter


def versions(name: str) -> dict[str, str]:
    """Package -> the pinned version; the one for the oldest Python if the lock pins several."""
    pins: dict[str, str] = {}
    for line in inputs.text(lock(name), inputs.TABLE).splitlines():
        pin = re.match(r"([a-z0-9-]+)==(\S+)", line)
        if pin:
            pins.setdefault(pin[1], pin[2])
    return pins
