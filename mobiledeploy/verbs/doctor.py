"""What is installed, what is missing, and the line that fixes it.

The requirements come from our own package metadata, so there is no second list. No library is
imported, because this must work without any of them, even without numpy.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mobiledeploy import __version__
from mobiledeploy.core import apart, artifacts, assets, native, package, records
from mobiledeploy.core.apart import Environment
from mobiledeploy.core.display import Record, Table
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.native import Equipment
from mobiledeploy.core.plugins import RUNTIMES, shelves
from mobiledeploy.core.types import NamedWarning
from mobiledeploy.core.units import size
from mobiledeploy.steps import android_libraries, first_contact
from mobiledeploy.steps.android_libraries import AndroidLibraries
from mobiledeploy.steps.first_contact import FirstContact
from mobiledeploy.steps.reporters import PythonReporter
from mobiledeploy.store import database as store

if TYPE_CHECKING:
    from mobiledeploy.core.ports import Reporter

State = Literal["ok", "missing", "unfit", "unavailable"]

# Programs of the system: how devices find them, their purpose, and how to install them.
TOOLS: dict[str, tuple[Callable[[], str | Path], str, str]] = {
    "adb": (native.adb, "phones", "apt install adb, or name it in MOBILEDEPLOY_ADB"),
    "ssh": (native.ssh, "boards", "apt install openssh-client"),
    "qemu-aarch64": (native.qemu, "emulator", native.FIX),
}
OURS = "mobiledeploy"
BASE = "base"
# Packages for work on mobiledeploy itself, which needs a checkout.
DEVELOPMENT = ("dev", "docs")
# Their packages are not listed one by one: `all` is the union of others.
UNLISTED = ("all", "dev")
# TensorFlow takes 660 MB after its import, and a conversion about the same again.
LITTLE_MEMORY_BYTES = 2 * 10**9
# The export extra takes 1.8 GB, and pip downloads before it unpacks.
LITTLE_DISK_BYTES = 3 * 10**9


@dataclass(frozen=True)
class InstalledPart(Record):
    """A package or a program. `fix` is the line that installs it, or why that is impossible.

    `extra` is base for the needs of every command, export or tflite-runtime for parts of these
    extras, phones, boards or emulator for programs of the system, and .pt2 for the environment that
    opens such files. `state` is `unfit` for a version that we do not support, and `unavailable` if
    this Python or system cannot have the part. `size_bytes` is that of its files here, without what
    it needs; None if it is not installed, or is no Python package.
    """

    name: str
    extra: str
    version: str | None
    state: State
    fix: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True)
class InstalledExtra(Record):
    """An extra of the installation, or `base`, which every installation has.

    `packages` are the installed ones that it brings, with those that these need in turn, and
    `size_bytes` is the size of their files: for an extra without those of `base`. Extras may share
    packages, so their sizes do not add up. `missing` are requirements of its own that are not here
    in a version that fits; without them, its size is not known.
    """

    name: str
    packages: tuple[str, ...]
    missing: tuple[str, ...]
    state: State
    size_bytes: int | None


@dataclass(frozen=True)
class CleanedFolder(Record):
    """A place of our files. `size_bytes` is None if nothing is there yet."""

    name: str
    path: str
    size_bytes: int | None


@dataclass(frozen=True)
class Installation(Record):
    """The answer of `doctor`.

    `places` are empty in a broken installation. Free memory is None if the system does not tell it.
    """

    version: str
    python: str
    platform: str
    parts: tuple[InstalledPart, ...]
    places: tuple[CleanedFolder, ...]
    free_disk_bytes: int
    free_memory_bytes: int | None
    warnings: tuple[NamedWarning, ...]
    extras: tuple[InstalledExtra, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """A row for each part, then one for each extra, then one for each place."""
        parts = tuple(
            (
                f"{p.name} {p.version}" if p.version else p.name,
                p.extra,
                _size_cell(p.size_bytes),
                f"{p.state}: {p.fix}" if p.fix else p.state,
            )
            for p in self.parts
        )
        extras = tuple(
            (
                e.name,
                str(len(e.packages)) if e.packages else "–",
                _size_cell(e.size_bytes),
                f"{e.state}: {', '.join(e.missing)}" if e.missing else e.state,
            )
            for e in self.extras
        )
        title = f"mobiledeploy {self.version}, Python {self.python}, {self.platform}"
        places = tuple((p.path, p.name, _size_cell(p.size_bytes)) for p in self.places)
        whole = "sizes with all packages that are needed; of an extra, without those of base"
        return (
            Table(("part", "for", "size", "state"), parts, title, ("size",), ("part",)),
            Table(("extra", "packages", "size", "state"), extras, whole),
            Table(("path", "place", "size"), places),
        )

    @property
    def broken(self) -> tuple[InstalledPart, ...]:
        """The required parts that are not ok."""
        return tuple(p for p in self.parts if p.extra == BASE and p.state != "ok")


def _size_cell(bytes_: int | None) -> str:
    return "–" if bytes_ is None else size(bytes_)


@dataclass(frozen=True)
class CleanResult(Record):
    """The folders that `doctor --clean` removed, with their sizes."""

    removed: tuple[CleanedFolder, ...]


def versions() -> Mapping[str, str | None]:
    """Package of a runtime -> its version, None if it is not installed; imports none of them."""
    return {runtime.PACKAGE: _version(runtime.PACKAGE) for _, runtime in RUNTIMES.each()}


def doctor() -> Installation:
    """Checks what is installed, what is missing, and the line that fixes it.

    It changes nothing and imports no library.

    Example:
        >>> [(part.name, part.fix) for part in md.doctor().parts if part.state != "ok"]

    Returns:
        The packages and programs, the places of our files, free disk and memory, and warnings.
    """
    # Packages may have come and gone since the last time.
    _requirements.cache_clear()
    sizes = _Sizes()
    parts = (*_packages(sizes), *_tools(), *_apart())
    whole = all(part.state == "ok" for part in parts if part.extra == BASE)
    memory = _free_memory()
    disk = shutil.disk_usage(Path.cwd()).free
    return Installation(
        version=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        parts=parts,
        places=places() if whole else (),
        free_disk_bytes=disk,
        free_memory_bytes=memory,
        warnings=tuple(_warnings({part.name: part for part in parts}, disk, memory)),
        extras=tuple(_extras(sizes)),
    )


def doctor_emulator(*, reporter: Reporter | None = None) -> Equipment:
    """Fetches the emulated ARM cores and builds their runner, in the user's cache.

    This is `doctor --emulator` on the command line. It fetches nothing that exists already.

    Args:
        reporter: is told of progress; the default is a `PythonReporter`.

    Returns:
        The content of the cache afterwards.

    Raises:
        MissingError: a system without apt, no network, or a missing package.
        InputError: a fetched file is not the one that is pinned.
        UsageError: the cache cannot be written.
    """
    # Not at the top: the rest of this file must work without numpy.
    from mobiledeploy.steps import equip

    return equip.equip(reporter or PythonReporter())


def doctor_torch(*, reporter: Reporter | None = None) -> Environment:
    """Fetches the packages that open a .pt2 of torch.export, 5.3 GB, into the user's cache.

    This is `doctor --torch` on the command line. It fetches nothing that exists already.

    Args:
        reporter: is told of progress; the default is a `PythonReporter`.

    Returns:
        The environment and the versions of its packages.

    Raises:
        MissingError: no network.
        UsageError: the cache cannot be written.
    """
    from mobiledeploy.steps import equip

    return equip.environment(apart.TORCH, reporter or PythonReporter())


def doctor_android(app: str | os.PathLike[str]) -> AndroidLibraries:
    """Checks whether all phones can load the native libraries of an Android app.

    This is `doctor --android APP` on the command line. Phones with pages of 16 KB load nothing that
    is linked for smaller ones.

    Example:
        >>> [(one.name, one.fix) for one in md.doctor_android("app-release.apk").unfit]

    Args:
        app: an .apk, .aab or .aar, a folder, or one library.

    Returns:
        A line for each library; `unfit` are those that some phones do not load.

    Raises:
        InputError: a file of another kind, or a damaged one.
    """
    return android_libraries.check(Path(app))


def doctor_phone(
    *,
    record: str | os.PathLike[str] = "first-contact.json",
    reporter: Reporter | None = None,
) -> FirstContact:
    """Takes the steps of the first contact with a phone, and says what each still needs.

    This is `doctor --phone` on the command line. The phone is that of ANDROID_SERIAL, otherwise the
    only one. Nothing stays on it, and none of its settings changes.

    Example:
        >>> [(step.name, step.advice) for step in md.doctor_phone().steps if step.advice]

    Args:
        record: the file for the answer; it can be sent as an issue (`FirstContact` says what is in
            it).
        reporter: is told each step; the default is a `PythonReporter`.

    Returns:
        The steps. A failed one is no error here: `exit_code` and `failed` tell it.

    Raises:
        UsageError: the file cannot be written.
    """
    records.need_folder(Path(record))
    contact = first_contact.walk(reporter or PythonReporter())
    records.write_atomic(Path(record), records.dumps(contact))
    return contact


def places() -> tuple[CleanedFolder, ...]:
    """The cache, the user's configuration, and this folder's store."""
    folders = (
        ("cache", assets.cache_dir()),
        ("configuration", package.config_dir()),
        ("store", store.path()),
    )
    return tuple(
        CleanedFolder(name, str(path.absolute()), _size(path) if path.exists() else None)
        for name, path in folders
    )


def doctor_clean() -> CleanResult:
    """Removes our caches, and leftovers of killed exports in ./build.

    This is `doctor --clean` on the command line. Leases stay, because a process may wait for one.

    Returns:
        The removed folders, with their sizes.

    Raises:
        UsageError: a folder that cannot be removed.
    """
    cache = assets.cache_dir()
    folders = []
    for path in (*_children(cache), *artifacts.abandoned_folders(Path("build"))):
        if path == cache / "leases":
            continue
        bytes_ = _size(path)
        with records.writing(path.parent):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        folders.append(CleanedFolder(path.name, str(path), bytes_))
    return CleanResult(tuple(folders))


def _children(folder: Path) -> tuple[Path, ...]:
    with records.writing(folder):
        return tuple(sorted(folder.iterdir())) if folder.is_dir() else ()


def _packages(sizes: _Sizes) -> Iterator[InstalledPart]:
    """Compares our requirements, from our own metadata, with the installed packages."""
    requirements = _requirements(OURS)
    if requirements is None:
        yield InstalledPart(OURS, BASE, None, "missing", "make install")
        return
    names = set()
    for requirement in requirements:
        extra = _extra(requirement)
        own = requirement.name != OURS and extra not in UNLISTED and _of_use(extra)
        if extra == BASE and requirement.marker and not requirement.marker.evaluate():
            # Another system needs it.
            continue
        if own and requirement.name not in names:
            names.add(requirement.name)
            part = _part(requirement, extra)
            yield part if part.version is None else replace(part, size_bytes=sizes.of(part.name))


def _of_use(extra: str) -> bool:
    return extra not in DEVELOPMENT or package.in_checkout()


def _extras(sizes: _Sizes) -> Iterator[InstalledExtra]:
    """What each extra of our metadata costs on this disk, `base` first."""
    base = _closure(OURS, ()) - {OURS}
    extras = dict.fromkeys(map(_extra, _requirements(OURS) or ()))
    for extra in (BASE, *sorted(filter(_of_use, extras.keys() - {BASE}))):
        direct = [r for r in _direct(extra) if r.name != OURS]
        applicable = [r for r in direct if not r.marker or r.marker.evaluate({"extra": _extra(r)})]
        states = {r.name: _part(r, _extra(r)).state for r in applicable}
        missing = tuple(dict.fromkeys(name for name, state in states.items() if state != "ok"))
        packages = base if extra == BASE else _closure(OURS, (extra,)) - base - {OURS}
        package_sizes = [sizes.of(name) for name in packages]
        state: State = "ok"
        if missing:
            state = states[missing[0]]
        elif direct and not applicable:
            state = "unavailable"
        whole = state == "ok" and None not in package_sizes
        yield InstalledExtra(
            extra,
            tuple(sorted(packages)),
            missing,
            state,
            sum(filter(None, package_sizes)) if whole else None,
        )


def _direct(extra: str) -> Iterator[Requirement]:
    """Our requirements for an extra, with those of the extras that it is the union of."""
    for requirement in _requirements(OURS) or ():
        if _extra(requirement) == extra:
            yield requirement
            if requirement.name == OURS:
                for part in sorted(requirement.extras):
                    yield from _direct(part)


def _closure(package: str, extras: Iterable[str]) -> set[str]:
    """The installed packages that a package needs with these extras, and itself."""
    closure: set[str] = set()
    # A package and one of its extras, "" for what it needs in any case.
    steps = [(package, extra) for extra in ("", *extras)]
    # It grows while it is walked.
    for name, extra in steps:
        requirements = _requirements(name)
        if requirements is None:
            continue
        closure.add(name)
        for requirement in requirements:
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            more = [(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)]
            steps += [step for step in more if step not in steps]
    return closure


@functools.cache
def _requirements(package: str) -> list[Requirement] | None:
    """Those of an installed package; None if it is not installed."""
    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return None
    requirements = []
    for line in lines:
        # Old packages of others have lines that pip does not take any more.
        with contextlib.suppress(InvalidRequirement):
            requirements.append(Requirement(line))
    return requirements


class _Sizes:
    """The sizes of installed packages, each of which is measured once."""

    def __init__(self) -> None:
        self._by_name: dict[str, int | None] = {}

    def of(self, package: str) -> int | None:
        """The bytes of its files; None if it does not list them."""
        name = canonicalize_name(package)
        if name not in self._by_name:
            self._by_name[name] = _files_size(name)
        return self._by_name[name]


def _files_size(package: str) -> int | None:
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
    # Not `distribution.files`: it makes two objects of each of a hundred thousand paths.
    lines = (distribution.read_text("RECORD") or "").splitlines()
    root, total = str(distribution.locate_file("")), 0
    for name, *_ in filter(None, csv.reader(lines)):
        # Files may be gone: caches of bytecode come and go.
        with contextlib.suppress(OSError):
            total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 - of many files
    return total if lines else None


def _extra(requirement: Requirement) -> str:
    match = re.search(r"extra == .([\w-]+).", str(requirement.marker))
    return match[1] if match else BASE


def _part(requirement: Requirement, extra: str) -> InstalledPart:
    name, version = requirement.name, _version(requirement.name)
    line = "pip install mobiledeploy" if extra == BASE else f"pip install 'mobiledeploy[{extra}]'"
    if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
        return InstalledPart(name, extra, version, "unavailable", "Python 3.11 on Linux has it")
    if version is None:
        return InstalledPart(name, extra, None, "missing", line)
    if not requirement.specifier.contains(Version(version), prereleases=True):
        return InstalledPart(
            name, extra, version, "unfit", f"pip install '{name}{requirement.specifier}'"
        )
    return InstalledPart(name, extra, version, "ok")


def _tools() -> Iterator[InstalledPart]:
    for name, (find, what, fix) in TOOLS.items():
        try:
            yield InstalledPart(name, what, _program_version(str(find())), "ok")
        except DeployError:
            yield InstalledPart(name, what, None, "missing", fix)


def _apart() -> Iterator[InstalledPart]:
    """The state of packages with their own environment."""
    try:
        version = apart.versions(apart.TORCH)["litert-torch"]
        apart.python(apart.TORCH)
        yield InstalledPart("litert-torch", ".pt2", version, "ok")
    except DeployError as error:
        yield InstalledPart("litert-torch", ".pt2", None, "missing", error.hint)


def _program_version(path: str) -> str | None:
    """The last version in a program's output; None without one.

    The first version of adb is that of its protocol, which does not change for years. ssh tells its
    own on standard error, and knows no long options.
    """
    option = "-V" if Path(path).name == "ssh" else "--version"
    try:
        done = subprocess.run(
            [path, option], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    output = done.stdout + done.stderr
    return next(reversed(re.findall(r"(?i)\b(?:version |openssh_)([^\s,]+)", output)), None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _warnings(
    parts: Mapping[str, InstalledPart], disk: int, memory: int | None
) -> Iterator[NamedWarning]:
    for error in (error for shelf in shelves() for error in shelf.broken()):
        yield NamedWarning("broken-plugin", error.message, error.hint)
    runtime, numpy = parts.get("tflite-runtime"), parts.get("numpy")
    if (
        runtime
        and runtime.version
        and numpy
        and numpy.version
        and Version(numpy.version).major >= 2
    ):
        yield NamedWarning(
            "numpy-2-with-tflite-runtime",
            f"tflite-runtime {runtime.version} cannot run with numpy {numpy.version}",
            "pip install 'numpy<2', or use --runtime litert, its successor",
        )
    tensorflow = parts.get("tensorflow")
    if tensorflow and tensorflow.version is None and disk < LITTLE_DISK_BYTES:
        yield NamedWarning(
            "little-disk",
            f"{size(disk)} are free here, and the export extra takes about 2 GB",
            "free some space before installing it",
        )
    if memory is not None and memory < LITTLE_MEMORY_BYTES:
        yield NamedWarning(
            "little-memory",
            f"{size(memory)} of memory are free, and TensorFlow alone takes 0.7 GB",
            "close something before an export",
        )


def _free_memory() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _size(path: Path) -> int:
    """The bytes of a file, or of a folder's readable files, without following links."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            # Another process may have removed it.
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total
