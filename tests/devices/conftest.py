"""A simulated phone (daemon.py) for the stock adb; tests are skipped if adb is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mobiledeploy.core import assets
from mobiledeploy.core.plugins import RUNNERS
from tests import namespaces
from tests.devices.board import Board, need

HERE = Path(__file__).resolve().parent
# The folder of arm_phone_root.sh, read before the tests get their own cache.
ARM_PHONE = assets.cache_dir() / "arm-phone"

TOOLS = {
    "getprop": """#!/bin/sh
[ "$1" ] || exec sed 's/^\\(.*\\)=\\(.*\\)$/[\\1]: [\\2]/' "$PHONE/properties"
sed -n "s/^$1=//p" "$PHONE/properties"
""",
    "dumpsys": '#!/bin/sh\ncat "$PHONE/dumpsys-$1" 2>/dev/null\n',
    "taskset": '#!/bin/sh\necho "$1" >> "$PHONE/masks"; shift; exec "$@"\n',
    "cmd": '#!/bin/sh\necho "$@" >> "$PHONE/cmd"; cat "$PHONE/cmd-says" 2>/dev/null; :\n',
}
PROPERTIES = """ro.product.model={model}
ro.product.manufacturer=Tests
ro.soc.model=SM8150
ro.build.version.release=12
ro.build.version.sdk=31
ro.product.cpu.abilist=arm64-v8a,x86_64
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  level: 87
  temperature: 281
"""
THERMAL = """IsStatusOverride: false
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=99.0, mType=0, mName=CPU0, mStatus=0}}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{{mValue=41.5, mType=0, mName=CPU0, mStatus=0}}
\tTemperature{{mValue=43.0, mType=0, mName=CPU7, mStatus=0}}
\tTemperature{{mValue=28.1, mType=2, mName=battery, mStatus=0}}
"""


class Phone:
    """A running phone: its files, and its faults."""

    def __init__(self, root: Path, model: str) -> None:
        self.root, self.model = root, model
        for folder in ("data/local/tmp", "faults", "system/bin"):
            (root / folder).mkdir(parents=True)
        for name, text in TOOLS.items():
            self.tool(name, text)
        (root / "properties").write_text(PROPERTIES.format(model=model))
        (root / "dumpsys-battery").write_text(BATTERY)
        (root / "dumpsys-power").write_text("Power Manager State:\n  mWakefulness=Awake\n")
        self.thermal(0)
        self.pace()
        for core in range(8):
            self.core(core, 1024 if core == 7 else 870 if core > 3 else 325)
        self._port = "0"
        self.start()

    def start(self) -> None:
        """Plugs it in."""
        self._daemon = subprocess.Popen(
            [sys.executable, str(HERE / "daemon.py"), str(self.root), self.model, self._port],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._daemon.stdout
        self._port = self._daemon.stdout.readline().strip()
        self.serial = f"127.0.0.1:{self._port}"

    def connect(self, state: str = "device") -> None:
        """Makes adb see it, in a state."""
        adb("connect", self.serial)
        for _ in range(300):
            if f"{self.serial}\t{state}" in adb("devices"):
                return
            time.sleep(0.05)
        raise AssertionError(f"not {state}: {adb('devices')}")

    def stop(self) -> None:
        """Removes it for good."""
        adb("disconnect", self.serial)
        self._daemon.kill()
        self._daemon.wait()
        assert self._daemon.stdout
        self._daemon.stdout.close()

    def tool(self, name: str, text: str) -> None:
        path = self.root / "system" / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def core(self, number: int, capacity: int, cap: int = 2_800_000) -> None:
        folder = self.root / f"sys/devices/system/cpu/cpu{number}"
        (folder / "cpufreq" / "stats").mkdir(parents=True, exist_ok=True)
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
        (folder / "cpufreq" / "scaling_governor").write_text("schedutil\n")
        (folder / "cpufreq" / "scaling_cur_freq").write_text(f"{cap}\n")
        (folder / "cpufreq" / "scaling_max_freq").write_text(f"{cap}\n")
        (folder / "cpufreq" / "stats" / "time_in_state").write_text(f"300000 5\n{cap} 80\n")

    def battery(self, current_ua: int, status: str = "Discharging", charger: str = "none") -> None:
        """Makes the battery tell its current, on a charger or not."""
        supply = self.root / "sys/class/power_supply/battery"
        supply.mkdir(parents=True, exist_ok=True)
        values = {"type": "Battery", "status": status, "voltage_now": "4000000"}
        for name, value in {**values, "current_now": str(current_ua)}.items():
            (supply / name).write_text(f"{value}\n")
        text = (
            BATTERY
            if charger == "USB"
            else BATTERY.replace("USB powered: true", "USB powered: false")
        )
        (self.root / "dumpsys-battery").write_text(text)

    def thermal(self, status: int) -> None:
        (self.root / "dumpsys-thermalservice").write_text(THERMAL.format(status=status))

    def pace(self, **settings: float) -> None:
        (self.root / "pace").write_text(json.dumps(settings))

    def plant(self, fault: str, content: str = "") -> None:
        (self.root / "faults" / fault).write_text(content)

    def heal(self, fault: str) -> None:
        (self.root / "faults" / fault).unlink(missing_ok=True)

    def files(self) -> list[str]:
        """The files in the folder of jobs."""
        return sorted(p.name for p in (self.root / "data/local/tmp").rglob("*"))

    def lines_of(self, name: str) -> list[str]:
        """The lines of a file that the phone wrote; [] if there is none."""
        path = self.root / name
        return path.read_text().splitlines() if path.exists() else []


def adb(*arguments: str) -> str:
    """The output of the stock adb."""
    process = subprocess.run(
        ["adb", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return process.stdout + process.stderr


@pytest.fixture
def new_phone(tmp_path: Path) -> Iterator[Callable[..., Phone]]:
    """Makes phones that adb is connected to: a model's name -> the phone."""
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed (apt install adb)")
    phones: list[Phone] = []

    def make(model: str = "Pixel 3", state: str = "device", **faults: str) -> Phone:
        phones.append(Phone(tmp_path / f"phone-{len(phones)}", model))
        for fault, content in faults.items():
            phones[-1].plant(fault, content)
        phones[-1].connect(state)
        return phones[-1]

    yield make
    for phone in phones:
        phone.stop()


@pytest.fixture
def phone(new_phone: Callable[..., Phone]) -> Phone:
    """The only phone."""
    return new_phone()


@pytest.fixture(scope="session")
def a_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """The board of all tests: this machine, with a real sshd."""
    need()
    board = Board(tmp_path_factory.mktemp("board"))
    yield board
    board.stop()


@pytest.fixture
def board(a_board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board that the user's ssh knows as `board`, without files or faults."""
    a_board.reset()
    monkeypatch.setenv("PATH", f"{a_board.folder / 'client'}:{os.environ['PATH']}")
    return a_board


@pytest.fixture(scope="module")
def arm_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """An AArch64 board that the user's ssh knows as `board`: busybox and a C library, by qemu."""
    need()
    if not (ARM_PHONE / "done").exists():
        pytest.skip(f"no AArch64 root (tests/devices/arm_phone_root.sh {ARM_PHONE})")
    board = Board(
        tmp_path_factory.mktemp("board"),
        str(ARM_PHONE / "root"),
        str(ARM_PHONE / "qemu-aarch64-static"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{board.folder / 'client'}:{os.environ['PATH']}")
        yield board
    board.stop()


@pytest.fixture(scope="module")
def arm_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The serial number of an AArch64 machine with Debian's adbd, the only phone that adb sees."""
    for tool in ("adb", "unshare"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install adb util-linux)")
    if not (ARM_PHONE / "done").exists():
        pytest.skip(f"no AArch64 phone (tests/devices/arm_phone_root.sh {ARM_PHONE})")
    folder = tmp_path_factory.mktemp("arm")
    log = folder / "log"
    with pytest.MonkeyPatch.context() as patch, log.open("wb") as output:
        patch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{folder}/adb")
        machine = subprocess.Popen(
            [
                "unshare",
                "-Urmnpf",
                "--kill-child",
                str(HERE / "arm_phone.sh"),
                str(ARM_PHONE / "root"),
                str(ARM_PHONE / "qemu-aarch64-static"),
                str(folder / "adb"),
            ],
            stdout=output,
            stderr=output,
        )
        try:
            yield _serial_of(machine, log)
        finally:
            machine.kill()
            machine.wait()


def _serial_of(machine: subprocess.Popen[bytes], log: Path) -> str:
    serial = "127.0.0.1:6555"
    for _ in range(200):
        if machine.poll() is not None:
            last = log.read_text().strip().splitlines() or ["it says nothing"]
            pytest.skip(f"no AArch64 phone in namespaces: {last[-1]} ({namespaces.REMEDY})")
        if b"adbd started" in log.read_bytes():
            break
        time.sleep(0.1)
    adb("connect", serial)
    assert adb("-s", serial, "shell", "uname -m") == "aarch64\n", log.read_text()
    return serial


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The runner `scripted` on the shelf: scripted_runner.py, pushed as it is."""
    runner = SimpleNamespace(
        runtimes=lambda: ("litert",),
        files=lambda machine, runtime, delegate="": {"program": HERE / "scripted_runner.py"},
        bench=lambda model, target, sample, files: (
            files["program"],
            "bench",
            "--model",
            model,
            "--runtime",
            target.runtime,
            "--threads",
            str(target.threads),
            "--delegate",
            target.delegate,
        ),
        hear=lambda process, target: process,
    )
    runner.cold = lambda *asked: (*runner.bench(*asked), "--cold", "--max-runs", "1")
    load = RUNNERS.load
    monkeypatch.setattr(RUNNERS, "load", lambda name: runner if name == "scripted" else load(name))
    return runner
