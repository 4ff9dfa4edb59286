"""An emulated ARM core on this machine, by qemu-user: it counts instructions and gives no times.

Programs are the same aarch64 Linux programs that a board runs; the core's features decide which
kernels a runtime uses, as on the board. A program that marks what is to be counted runs with our
counter (android_bench/counter), whose events appear between the program's own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mobiledeploy.core import artifacts, leases, native
from mobiledeploy.core.errors import DeployError, DeviceError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import DeviceInfo, Kind
from mobiledeploy.devices._child import Child, Local

KIND: Kind = "counted"
COUNTED = "--marks"
"""The argument of a program that marks what is to be counted."""
RUNNER = "native"
REMOTE = False
DEFAULT_CORE = "cortex-a76"


@dataclass(frozen=True)
class Core:
    """A core as Linux describes it in /proc/cpuinfo, by which engines choose their kernels.

    `part` is Arm's part number (MIDR_EL1), `features` are its features in Linux's words.
    """

    part: int
    features: str
    about: str


_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
# Technical reference manuals of the cores, section "MIDR_EL1, Main ID Register".
CORES = {
    "cortex-a53": Core(0xD03, _V8, "2012, little: Snapdragon 410 to 450, Raspberry Pi 3"),
    "cortex-a55": Core(0xD05, _V82, "2017, little, dot products: beside A75 and later"),
    "cortex-a72": Core(0xD08, _V8, "2015, big: Raspberry Pi 4"),
    "cortex-a76": Core(0xD0B, _V82, "2018, big, dot products: Snapdragon 855, Raspberry Pi 5"),
    "cortex-a710": Core(0xD47, f"{_V82} i8mm bf16 sve sve2", "2021, big, int8 matrices, SVE2"),
}

# Everything that could differ between two runs of a program is fixed: the address of its memory,
# its random numbers, and its environment.
_FIXED_OPTIONS = ("-R", "0x2000000000", "-seed", "1")


def available() -> tuple[DeviceInfo, ...]:
    """The cores that the installed emulator supports; with a fix if there is no emulator."""
    try:
        cores = _cores_of_qemu(_qemu())
        fix = ""
    except DeployError as error:
        cores, fix = frozenset(CORES), error.hint
    return tuple(
        DeviceInfo(f"emulator:{name}", KIND, core.about, fix)
        for name, core in CORES.items()
        if name in cores
    )


@contextmanager
def open(name: str, *, exclusive: bool, reporter: Reporter) -> Iterator[Emulator]:
    """An emulated core, `emulator:CORE`; processes started on it end with the context.

    The host is leased as for any other work: counts do not depend on what else runs.

    Raises:
        UsageError: no such core, or the installed emulator does not support it.
        MissingError: the emulator is not installed.
    """
    core = name.partition(":")[2] or DEFAULT_CORE
    if core not in CORES:
        raise UsageError(f"no core named {core!r} is known", f"there are {', '.join(CORES)}")
    qemu = _qemu()
    if core not in _cores_of_qemu(qemu):
        raise UsageError(
            f"{qemu.version} does not have the core {core}",
            f"it has {', '.join(c for c in CORES if c in _cores_of_qemu(qemu))}",
        )
    with (
        leases.hold("host", exclusive=False, reporter=reporter),
        artifacts.scratch() as folder,
    ):
        emulator = Emulator(qemu, core, folder)
        try:
            yield emulator
        finally:
            emulator.close()


@dataclass(frozen=True)
class _Qemu:
    program: str
    libraries: str
    version: str


class Emulator(Local):
    """An emulated core, open."""

    def __init__(self, qemu: _Qemu, core: str, folder: Path) -> None:
        super().__init__()
        self._qemu, self._core, self._folder = qemu, core, folder
        _furnish(folder / "root", CORES[core])

    def facts(self) -> Mapping[str, str]:
        """The core, and the versions of everything that a count depends on (`version_...`)."""
        equipment = native.equipment()
        versions = {"qemu": self._qemu.version, **equipment.versions}
        return {
            "core": self._core,
            "machine": "aarch64",
            **{f"version_{part}": version for part, version in versions.items()},
        }

    def run(self, argv: Sequence[str]) -> Child:
        """Starts an aarch64 program; the counter's events come on its standard output too.

        Without marks there is nothing to count, and the program runs faster without the counter.
        """
        if argv[0].startswith("-"):
            raise DeviceError(f"{argv[0]} is not a program")
        counter = ("-plugin", f"{native.counter()},out=/proc/self/fd/1")
        libraries = self._qemu.libraries
        return super().run(
            (
                "env",
                "-i",
                *([f"LD_LIBRARY_PATH={libraries}"] if libraries else []),
                self._qemu.program,
                "-L",
                str(self._folder / "root"),
                "-cpu",
                self._core,
                *_FIXED_OPTIONS,
                "-U",
                "LD_LIBRARY_PATH",
                *(counter if COUNTED in argv else ()),
                *argv,
            )
        )


def _furnish(root: Path, core: Core) -> None:
    """Prepares the root folder of programs: the arm64 libraries, and a description of the core.

    Before 8.2 qemu does not provide the description, and programs would read that of this machine.
    """
    sysroot = native.sysroot()
    (root / "proc").mkdir(parents=True)
    for name in ("lib", "usr"):
        (root / name).symlink_to(sysroot / name)
    (root / "proc" / "cpuinfo").write_text(
        "processor\t: 0\nBogoMIPS\t: 38.40\n"
        f"Features\t: {core.features}\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {core.part:#x}\nCPU revision\t: 0\n\n"
    )


def _qemu() -> _Qemu:
    program, libraries = str(native.qemu()), ""
    folder = native.equipment().qemu_libraries
    if folder:
        libraries = ":".join(map(str, sorted((native.folder() / folder).iterdir())))
    output = _ask(program, libraries, "--version")
    match = re.search(r"version (.+)", output)
    return _Qemu(program, libraries, f"qemu {match[1]}" if match else "qemu")


@cache
def _cores_of_qemu(qemu: _Qemu) -> frozenset[str]:
    return frozenset(_ask(qemu.program, qemu.libraries, "-cpu", "help").split())


@cache
def _ask(program: str, libraries: str, *arguments: str) -> str:
    environment = {"LD_LIBRARY_PATH": libraries} if libraries else {}
    try:
        process = subprocess.run(
            [program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError(
            f"the emulator {program} does not run: {error}",
            "mobiledeploy doctor --clean --emulator",
        ) from error
    # `-cpu help` ends with status 1 in some versions.
    return process.stdout
