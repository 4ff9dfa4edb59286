"""Fetches and builds the content of the user's cache: native parts, and Python environments.

The native parts are the emulator, libraries and the runner.

apt fetches Debian's packages with its own configuration and checks them by its signed index; this
needs no root and changes nothing in the system. pip fetches packages from PyPI and checks the
hashes of android_bench/assets.toml. Then our C sources are compiled.
"""

from __future__ import annotations

import fnmatch
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mobiledeploy.core import apart, artifacts, leases, native, records
from mobiledeploy.core.errors import DeployError, InputError, MissingError
from mobiledeploy.core.native import Equipment
from mobiledeploy.core.package import shipped
from mobiledeploy.core.plugins import RUNTIMES
from mobiledeploy.core.ports import SILENT, Reporter

# apt refreshes lists of packages and pip fetches 100 MB: this takes minutes on a slow line.
PATIENCE_S = 900
# The packages take 5.3 GB after pip unpacks them.
LONG_PATIENCE_S = 7200
EMULATED = "aarch64"
C_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
# The glibc that the aarch64 wheels of the runtimes need.
TARGETS = {"aarch64": "aarch64-linux-gnu.2.34", "x86_64": "x86_64-linux-gnu.2.28"}
# We never allow this, even if the user's own configuration does.
_AUTHENTICATED = (
    "APT::Get::AllowUnauthenticated=false",
    "Acquire::AllowInsecureRepositories=false",
    "Acquire::AllowWeakRepositories=false",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
)


def equip(reporter: Reporter = SILENT) -> Equipment:
    """Fills the cache if it is not complete; returns its content.

    Raises:
        MissingError: a system without apt, no network, or a missing package.
        InputError: a fetched file is not the one that is pinned.
        UsageError: the cache cannot be written.
    """
    with leases.hold("native", exclusive=True, reporter=reporter):
        try:
            for part in (native.qemu, native.counter, native.sysroot):
                part()
            return native.equipment()
        except MissingError:
            pass
        if platform.machine() not in TARGETS or platform.system() != "Linux":
            raise MissingError(
                f"the emulator is not known to run on {platform.system()} {platform.machine()}",
                "use a Linux on x86-64 or aarch64",
            )
        folder = native.folder()
        with artifacts.staging(folder) as aside:
            parts = aside / "parts"
            equipment = _fetch(aside, parts, reporter)
            records.write_atomic(parts / "equipment.json", records.dumps(equipment))
            shutil.rmtree(folder, ignore_errors=True)
            parts.rename(folder)
        return equipment


def environment(name: str, reporter: Reporter = SILENT) -> apart.Environment:
    """The Python environment `name` of `core/apart.py`; it is made if it does not exist.

    Raises:
        MissingError: no network, a missing package, or no venv module.
        InputError: a fetched file is not the one that is pinned.
        UsageError: the cache cannot be written.
    """
    folder, versions = apart.folder(name), apart.versions(name)
    with leases.hold(f"apart-{name}", exclusive=True, reporter=reporter):
        try:
            apart.python(name)
        except MissingError:
            reporter.say(f"fetching {len(versions)} packages into {folder}: 5.3 GB on the disk")
            with records.writing(folder):
                # It is made in its place, because its programs hold their own path.
                shutil.rmtree(folder, ignore_errors=True)
                try:
                    _environment(name, folder)
                    (folder / apart.WHOLE).touch()
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    # An empty folder of environments does not stay either.
                    with suppress(OSError):
                        folder.parent.rmdir()
                    raise
    return apart.Environment(str(folder), versions)


def _environment(name: str, folder: Path) -> None:
    try:
        venv.create(folder, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise MissingError(
            "Python's venv module is not whole", "apt install python3-venv"
        ) from error
    # The lock lists all packages, without unused dependencies: none are resolved.
    _run(
        [
            str(folder / "bin" / "python"),
            "-I",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "--no-deps",
            "--require-hashes",
            "--requirement",
            str(apart.lock(name)),
        ],
        f"pip install for {name}",
        patience_s=LONG_PATIENCE_S,
    )


def _fetch(aside: Path, parts: Path, reporter: Reporter) -> Equipment:
    assets = native.assets()
    versions: dict[str, str] = {}
    reporter.say("fetching Debian's arm64 libraries: 10 MB of package lists and 3 MB")
    apt = _Apt(aside / "apt-arm64", "arm64")
    versions |= apt.unpack(assets.apt["arm64"], parts / "sysroot")
    qemu, libraries = _system_qemu(), ""
    if qemu is None:
        reporter.say("fetching Debian's qemu-user: the system has none that takes plugins")
        own = _Apt(aside / "apt-host", None)
        own.unpack(assets.apt["qemu"], parts / "qemu", dependencies=True)
        qemu, libraries = "qemu/usr/bin/qemu-aarch64", "qemu/usr/lib"
    for package in (r.PACKAGE for _, r in RUNTIMES.each() if r.NATIVE):
        reporter.say(f"fetching {package} {assets.packages[package].version} for {EMULATED}")
        _unpack_library(_wheel(package, EMULATED, aside / "wheels"), parts / EMULATED)
        versions[package] = assets.packages[package].version
    zig = assets.packages["ziglang"]
    reporter.say(f"fetching the compiler, ziglang {zig.version}: 100 MB")
    compiler = _wheel("ziglang", platform.machine(), aside / "wheels")
    reporter.say("compiling the runner and the counter")
    _build(compiler, aside / "zig", parts)
    versions["ziglang"] = zig.version
    versions["runner"] = versions["counter"] = native.folder().name
    for part in (parts / "sysroot" / "etc", parts / "sysroot" / "usr" / "share"):
        shutil.rmtree(part, ignore_errors=True)
    return Equipment(versions, qemu, libraries)


def _system_qemu() -> str | None:
    qemu = shutil.which("qemu-aarch64")
    if qemu is None or "-plugin" not in _run([qemu, "-h"], "qemu-aarch64", fail=False):
        return None
    return qemu


class _Apt:
    """Debian's archive by the system's own sources, with apt's files in a separate folder."""

    def __init__(self, folder: Path, architecture: str | None) -> None:
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise MissingError(
                "this system has no apt to fetch qemu and the arm64 libraries with",
                "run it on Debian or a derivative of it, or in a container of one",
            )
        self._folder = folder
        self._debs = folder / "cache" / "archives"
        (folder / "lists" / "partial").mkdir(parents=True)
        (self._debs / "partial").mkdir(parents=True)
        settings = [
            f"Dir::State={folder}",
            f"Dir::State::lists={folder / 'lists'}",
            f"Dir::Cache={folder / 'cache'}",
            "Debug::NoLocking=true",
            # Only we can write to the folder of downloads; apt's helper user cannot.
            "APT::Sandbox::User=root",
            *_AUTHENTICATED,
        ]
        if architecture:
            (folder / "status").touch()
            settings += [
                f"APT::Architecture={architecture}",
                f"APT::Architectures::={architecture}",
                f"Dir::State::status={folder / 'status'}",
            ]
        else:
            settings.append("Dir::State::status=/var/lib/dpkg/status")
        self._architecture = architecture
        self._apt = ["apt-get", "-q", "-y", *(x for s in settings for x in ("-o", s))]
        _run([*self._apt, "update"], "apt-get update")

    def unpack(
        self, packages: Sequence[str], destination: Path, *, dependencies: bool = False
    ) -> Mapping[str, str]:
        """Unpacks packages and returns their versions; `dependencies` adds those not installed."""
        names = [f"{p}:{self._architecture}" if self._architecture else p for p in packages]
        what = ["install", "--download-only", "--no-install-recommends"]
        _run(
            [*self._apt, *(what if dependencies else ["download"]), *names],
            f"apt-get for {', '.join(names)}",
            cwd=self._debs,
        )
        destination.mkdir(parents=True)
        versions = {}
        for deb in sorted(self._debs.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(deb), str(destination)], "dpkg-deb")
            name = _run(["dpkg-deb", "-f", str(deb), "Package"], "dpkg-deb").strip()
            versions[name] = _run(["dpkg-deb", "-f", str(deb), "Version"], "dpkg-deb").strip()
        return versions


def _wheel(package: str, machine: str, folder: Path) -> Path:
    """A pinned wheel from PyPI; pip refuses a wheel with another hash."""
    pin = native.assets().packages[package]
    wheel = pin.wheels[machine]
    own = folder / package
    own.mkdir(parents=True)
    requirements = own / "requirements.txt"
    requirements.write_text(f"{package}=={pin.version} --hash=sha256:{wheel.sha256}\n")
    _run(
        [
            sys.executable,
            "-P",
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--python-version",
            "3.11",
            "--platform",
            wheel.platform,
            "--dest",
            str(own),
            "--requirement",
            str(requirements),
        ],
        f"pip download {package}=={pin.version}",
    )
    return next(own.glob("*.whl"))


def _unpack_library(wheel: Path, destination: Path) -> None:
    """Unpacks the runtime's shared library from a wheel."""
    libraries = [r.NATIVE for _, r in RUNTIMES.each() if r.NATIVE]
    patterns = [name for one in libraries for name in (one.pattern, one.gpu) if name]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                archive.extract(name, destination)


def _build(compiler: Path, folder: Path, parts: Path) -> None:
    with zipfile.ZipFile(compiler) as archive:
        archive.extractall(folder)
    zig = folder / "ziglang" / "zig"
    zig.chmod(0o755)
    bench, host = shipped("android_bench"), platform.machine()
    jobs: list[tuple[str, list[Path], Path, tuple[str, ...]]] = [
        (
            target,
            sorted((bench / "runner").glob("*.c")),
            parts / machine / "runner",
            ("-ldl", "-pthread", "-rdynamic"),
        )
        for machine, target in TARGETS.items()
        if machine in (host, EMULATED)
    ]
    plugin = ("-shared", "-fPIC", "-fvisibility=hidden", "-Wl,--allow-shlib-undefined")
    counter = bench / "counter" / "counter.c"
    jobs.append((TARGETS[host], [counter], parts / "libcounter.so", plugin))
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "c"), "ZIG_LOCAL_CACHE_DIR": str(folder / "c")}
    for target, sources, out, flags in jobs:
        out.parent.mkdir(parents=True, exist_ok=True)
        argv = [str(zig), "cc", "-target", target, *C_FLAGS, "-o", str(out), *map(str, sources)]
        _run([*argv, *flags], f"the compiler, for {target}", environment=caches)


def _run(
    argv: Sequence[str],
    what: str,
    *,
    cwd: Path | None = None,
    fail: bool = True,
    environment: Mapping[str, str] | None = None,
    patience_s: int = PATIENCE_S,
) -> str:
    """Standard output of a command; MissingError with the line that says why it failed."""
    try:
        completed = subprocess.run(
            argv,
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=patience_s,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
        )
    except OSError as error:
        raise MissingError(f"{what} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"{what} took longer than {patience_s} s", "try again") from error
    if completed.returncode and fail:
        raise _refusal(what, list(_complaints(completed.stderr)))
    return completed.stdout


def _refusal(what: str, lines: Sequence[str]) -> DeployError:
    text = lines[0] if lines else "it says nothing of why"
    if any("HASH" in line.upper() for line in lines):
        return InputError(f"{what}: the file is not the one that is pinned", text)
    return MissingError(f"{what} failed: {text}", "check the network, then try again")


def _complaints(stderr: str) -> Iterator[str]:
    """The lines that say what is wrong, without the warnings of apt and pip."""
    for line in stderr.splitlines():
        text = re.sub(r"^(E|ERROR|error):\s*", "", line.strip())
        if text and not text.startswith(("W:", "N:", "WARNING", "[notice]", "NOTE")):
            yield text
