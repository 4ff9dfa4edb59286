"""Where the native parts lie: the C runner, its runtimes, the emulator and what it stands on; adb.

`mobiledeploy doctor --emulator` puts them into the user's cache (steps/equip.py), under a name that
stands for our C sources and for the versions that are pinned: parts of another version are never
taken for these.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.display import Record
from mobiledeploy.core.errors import MissingError
from mobiledeploy.core.package import shipped

FIX = "mobiledeploy doctor --emulator"
SOURCES = ("runner", "counter")


@dataclass(frozen=True)
class Wheel:
    """A wheel of a machine: pip's tag of its platform, and the hash that it must have."""

    platform: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """A package from PyPI, in one version, its wheels by machine (x86_64, aarch64)."""

    version: str
    wheels: Mapping[str, Wheel]


@dataclass(frozen=True)
class Assets:
    """android_bench/assets.toml: packages by name, and the names of Debian's by purpose."""

    apt: Mapping[str, tuple[str, ...]]
    packages: Mapping[str, Package]


@dataclass(frozen=True)
class Equipment(Record):
    """What `equip` put into the cache: versions by part, Debian's and ours.

    `qemu` is the emulator's program, `qemu_libraries` a folder of libraries for it ("" for none):
    where the system had no fit one, both lie in the cache.
    """

    versions: Mapping[str, str]
    qemu: str
    qemu_libraries: str


@cache
def assets() -> Assets:
    """What is fetched, as assets.toml pins it."""
    path = shipped("android_bench") / "assets.toml"
    data = inputs.toml(path)
    found: Assets = records.decode(
        Assets, {"apt": data.pop("apt", {}), "packages": data}, str(path)
    )
    return found


def folder() -> Path:
    """Where the parts of this version lie, or will."""
    digest = sha256()
    bench = shipped("android_bench")
    for path in (
        bench / "assets.toml",
        *(p for s in SOURCES for p in sorted((bench / s).iterdir())),
    ):
        digest.update(path.name.encode() + b"\0" + inputs.read(path, inputs.FINISHED))
    return cache_dir() / "native" / digest.hexdigest()[:16]


def equipment() -> Equipment:
    """What is there; MissingError where nothing is, or parts of another version only."""
    record = folder() / "equipment.json"
    if not record.is_file():
        raise MissingError("the native parts are not here", FIX)
    return records.loads(Equipment, inputs.read(record, inputs.RECORD), str(record))


def runner(machine: str) -> Path:
    """The C runner for x86_64 or aarch64."""
    return _part(folder() / machine / "runner")


def counter() -> Path:
    """The instruction counter, a plugin of the emulator."""
    return _part(folder() / "libcounter.so")


def qemu() -> Path:
    """The emulator, in the cache or the system's."""
    return _part(folder() / equipment().qemu)


def sysroot() -> Path:
    """The libraries of an aarch64 Linux."""
    return _part(folder() / "sysroot")


def library(machine: str, package: str, pattern: str) -> Path:
    """A runtime's shared library: this machine's is the installed package's own."""
    if machine == platform.machine():
        spec = importlib.util.find_spec(pattern.partition("/")[0])
        if spec is None or spec.origin is None:
            raise MissingError(f"{package} is not installed", f"pip install {package}")
        place = Path(spec.origin).parent.parent
    else:
        place = _part(folder() / machine)
    return next(iter(sorted(place.glob(pattern))), place / pattern)


def library_version(path: str, package: str, pattern: str) -> str:
    """The version of the package that a library is of: the installed one's, or else the pinned."""
    if Path(path) == library(platform.machine(), package, pattern):
        return metadata.version(package)
    return assets().packages[package].version


def adb() -> str:
    """The user's adb: MOBILEDEPLOY_ADB, then the SDK's, then the PATH's; MissingError without."""
    chosen = os.environ.get("MOBILEDEPLOY_ADB")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise MissingError(f"{chosen} is no adb that can be run", "give another --adb FILE")
        return found
    for home in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        tools = Path(os.environ.get(home) or "/nonexistent") / "platform-tools" / "adb"
        if os.access(tools, os.X_OK):
            return str(tools)
    found = shutil.which("adb")
    if found is None:
        raise MissingError("adb is not installed", "apt install adb, or give --adb FILE")
    return found


def _part(path: Path) -> Path:
    if not path.exists():
        raise MissingError(f"the native part {path.name} is not here", FIX)
    return path
