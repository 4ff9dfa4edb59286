"""The paths of the native parts: the C runner, its runtimes, the emulator, its libraries; adb, ssh.

`mobiledeploy doctor --emulator` puts them into the user's cache (steps/equip.py). The folder's name
is a hash of our C sources and of the pinned versions, so parts of another version are never used.
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
    """A wheel for one machine: pip's platform tag, and the hash that it must have."""

    platform: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """One version of a package from PyPI, with its wheels by machine (x86_64, aarch64)."""

    version: str
    wheels: Mapping[str, Wheel]


@dataclass(frozen=True)
class Assets:
    """android_bench/assets.toml: PyPI packages by name, and names of Debian packages by purpose."""

    apt: Mapping[str, tuple[str, ...]]
    packages: Mapping[str, Package]


@dataclass(frozen=True)
class Equipment(Record):
    """What `equip` put into the cache: the version of each part, Debian's and ours.

    `qemu` is the emulator's program, `qemu_libraries` a folder of libraries for it ("" for none).
    Both are in the cache if the system had no suitable emulator.
    """

    versions: Mapping[str, str]
    qemu: str
    qemu_libraries: str


@cache
def assets() -> Assets:
    """What is downloaded, as pinned in assets.toml."""
    path = shipped("android_bench") / "assets.toml"
    data = inputs.toml(path)
    assets_: Assets = records.decode(
        Assets, {"apt": data.pop("apt", {}), "packages": data}, str(path)
    )
    return assets_


def folder() -> Path:
    """The folder of the parts of this version, whether it exists or not."""
    digest = sha256()
    bench = shipped("android_bench")
    for path in (
        bench / "assets.toml",
        *(p for s in SOURCES for p in sorted((bench / s).iterdir())),
    ):
        digest.update(path.name.encode() + b"\0" + inputs.read(path, inputs.FINISHED))
    return cache_dir() / "native" / digest.hexdigest()[:16]


def equipment() -> Equipment:
    """The parts in the cache; MissingError if there are none of this version."""
    record = folder() / "equipment.json"
    if not record.is_file():
        raise MissingError("the native parts are not installed", FIX)
    return records.loads(Equipment, inputs.read(record, inputs.RECORD), str(record))


def runner(machine: str) -> Path:
    """The C runner for x86_64 or aarch64."""
    return _part(folder() / machine / "runner")


def counter() -> Path:
    """The instruction counter, a plugin for the emulator."""
    return _part(folder() / "libcounter.so")


def qemu() -> Path:
    """The emulator, from the cache or from the system."""
    return _part(folder() / equipment().qemu)


def sysroot() -> Path:
    """The libraries of an aarch64 Linux."""
    return _part(folder() / "sysroot")


def library(machine: str, package: str, pattern: str) -> Path:
    """A runtime's shared library; for this machine it is that of the installed package."""
    if machine == platform.machine():
        spec = importlib.util.find_spec(pattern.partition("/")[0])
        if spec is None or spec.origin is None:
            raise MissingError(f"{package} is not installed", f"pip install {package}")
        folder_ = Path(spec.origin).parent.parent
    else:
        folder_ = _part(folder() / machine)
    return next(iter(sorted(folder_.glob(pattern))), folder_ / pattern)


def library_version(path: str, package: str, pattern: str) -> str:
    """The version of a library's package: the installed version, otherwise the pinned one."""
    if Path(path) == library(platform.machine(), package, pattern):
        return metadata.version(package)
    return assets().packages[package].version


def adb() -> str:
    """The user's adb: from MOBILEDEPLOY_ADB, the SDK or PATH, in this order.

    MissingError if absent.
    """
    setting = os.environ.get("MOBILEDEPLOY_ADB")
    if setting:
        program = shutil.which(setting)
        if program is None:
            raise MissingError(
                f"{setting} is not an executable adb", "name another in --adb or MOBILEDEPLOY_ADB"
            )
        return program
    for home in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        tools = Path(os.environ.get(home) or "/nonexistent") / "platform-tools" / "adb"
        if os.access(tools, os.X_OK):
            return str(tools)
    program = shutil.which("adb")
    if program is None:
        raise MissingError(
            "adb is not installed", "apt install adb, or name it in MOBILEDEPLOY_ADB"
        )
    return program


def ssh() -> str:
    """The user's OpenSSH client; MissingError if absent."""
    program = shutil.which("ssh")
    if program is None:
        raise MissingError("ssh is not installed", "apt install openssh-client")
    return program


def _part(path: Path) -> Path:
    if not path.exists():
        raise MissingError(f"the native part {path.name} is not installed", FIX)
    return path
