"""This machine: runners are child processes, files stay where they are."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mobiledeploy.core import cpu, leases
from mobiledeploy.core.errors import UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import DeviceInfo, Kind
from mobiledeploy.devices._child import Local

KIND: Kind = "measured"
RUNNER = "python"
REMOTE = False


def available() -> tuple[DeviceInfo, ...]:
    """This machine."""
    return (DeviceInfo("host", KIND, f"{cpu.name()}, {os.cpu_count()} cores"),)


@contextmanager
def open(name: str, *, exclusive: bool, reporter: Reporter) -> Iterator[Host]:
    """Leases this machine; processes started on it end with the context."""
    if name != "host":
        raise UsageError(f"the host has no parts: {name!r}", "--device host")
    with leases.hold("host", exclusive=exclusive, reporter=reporter):
        host = Host()
        try:
            yield host
        finally:
            host.close()


class Host(Local):
    """An open lease of this machine."""

    def facts(self) -> Mapping[str, str]:
        """What the machine is, and its present state; facts that it does not give are absent.

        `busy_cpu_s` and `stolen_cpu_s` are seconds of CPU since it started, over all cores: two
        readings show what else ran between them.
        """
        return {key: value for key, value in _facts() if value}


def _facts() -> Iterator[tuple[str, str]]:
    yield "cpu", cpu.name()
    yield "machine", platform.machine()
    yield "cores", str(os.cpu_count() or "")
    yield "governor", _each("/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
    yield "frequency_khz", _each("/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    yield "frequency_mhz", ",".join(cpu.info("cpu MHz"))
    yield "temperature_millicelsius", _each("/sys/class/thermal/thermal_zone*/temp")
    yield "load", " ".join(f"{load:.2f}" for load in os.getloadavg())
    yield from _cpu_seconds()
    yield "system", platform.system()
    yield "kernel", platform.release()
    yield "python", platform.python_version()
    yield "memory_kb", _meminfo("MemTotal")
    yield "memory_available_kb", _meminfo("MemAvailable")


def _cpu_seconds() -> Iterator[tuple[str, str]]:
    fields = _text("/proc/stat").partition("\n")[0].split()[1:]
    if len(fields) < 8:
        return
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    tick = os.sysconf("SC_CLK_TCK")
    yield "busy_cpu_s", f"{(user + nice + system + irq + softirq) / tick:.2f}"
    yield "stolen_cpu_s", f"{steal / tick:.2f}"


def _meminfo(key: str) -> str:
    lines = (line.partition(":") for line in _text("/proc/meminfo").splitlines())
    return next((value.split()[0] for name, _, value in lines if name == key), "")


def _each(pattern: str) -> str:
    """The contents of the files, each different value once."""
    texts = (_text(str(path)).strip() for path in sorted(Path("/").glob(pattern[1:])))
    return ",".join(dict.fromkeys(text for text in texts if text))


def _text(path: str) -> str:
    """A file of /proc or /sys; "" if this system does not have it."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
