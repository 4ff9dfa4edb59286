"""Parses the output of Android's tools: properties, /sys, dumpsys. Text in, facts out."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mobiledeploy.core import inputs

# One script is one round trip. It holds no text of the user's, so nothing needs quoting.
_CPU = "/sys/devices/system/cpu/cpu[0-9]*"
_FILES = " ".join(
    [
        *(f"{_CPU}/{name}" for name in ("cpu_capacity", "cpufreq/stats/time_in_state")),
        *(
            f"{_CPU}/cpufreq/cpuinfo_max_freq {_CPU}/cpufreq/scaling_{name}"
            for name in ("max_freq", "cur_freq", "governor")
        ),
        *(f"/sys/class/thermal/thermal_zone*/{name}" for name in ("type", "temp")),
    ]
)
FACTS = f"""
echo =getprop; getprop
echo =kernel; uname -r
echo =files; grep -H . {_FILES} 2>/dev/null
echo =battery; dumpsys battery 2>/dev/null
echo =thermal; dumpsys thermalservice 2>/dev/null
echo =power; dumpsys power 2>/dev/null | grep -m 1 mWakefulness=
echo =taskset; command -v taskset
echo =end
"""

_PROPERTIES = {
    "model": ("ro.product.model",),
    "manufacturer": ("ro.product.manufacturer",),
    "soc": ("ro.soc.model", "ro.board.platform", "ro.hardware"),
    "android": ("ro.build.version.release",),
    "sdk": ("ro.build.version.sdk",),
    "abis": ("ro.product.cpu.abilist", "ro.product.cpu.abi"),
    "build": ("ro.build.fingerprint",),
}
# https://refspecs.linuxfoundation.org/elf: e_machine, and Android's names of ABIs.
_MACHINE_OF = {"arm64-v8a": "aarch64", "x86_64": "x86_64", "armeabi-v7a": "armv7l", "x86": "i686"}
_ABI_OF = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a", 243: "riscv64"}
# android.os.Temperature: TYPE_CPU. https://developer.android.com/reference/android/os
_CPU_TEMPERATURE = "0"


class ListedPhone(NamedTuple):
    """A line of `adb devices -l`."""

    serial: str
    state: str
    model: str


def parse_devices(text: str) -> list[ListedPhone]:
    """The phones in the output of `adb devices -l`, sorted by serial number."""
    _, _, below = text.partition("List of devices attached")
    phones = []
    for line in below.splitlines():
        # A state may be two words (no permissions), followed by a reason in brackets.
        match = re.match(r"(\S+)\s+(no permissions|\S+)", line)
        if match:
            model = re.search(r"\bmodel:(\S+)", line)
            phones.append(
                ListedPhone(match[1], match[2], model[1].replace("_", " ") if model else "")
            )
    return sorted(phones)


def facts(text: str) -> dict[str, str]:
    """Facts by name in the output of FACTS; facts that the phone does not give are absent."""
    facts_by_name = dict(_facts(_sections(text)))
    return {key: " ".join(value.split()) for key, value in facts_by_name.items() if value}


def abi(path: Path) -> str | None:
    """Android's name of the ABI of an ELF file; None for another file."""
    with inputs.open_file(path) as stream:
        head = stream.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])
    return _ABI_OF.get(machine, f"ELF machine {machine}")


def free_bytes(text: str) -> int | None:
    """Available bytes in the output of `df -k DIR`; None if it cannot be parsed."""
    lines = text.strip().splitlines()
    # A long name of the file system is on a separate line.
    numbers = [int(n) for n in re.findall(r"(?<=\s)\d+(?=\s)", lines[-1])] if lines else []
    return numbers[2] * 1024 if len(numbers) >= 3 else None


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"=[a-z]+", line):
            lines = sections.setdefault(line[1:], [])
        else:
            lines.append(line.strip())
    return sections


def _facts(sections: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    properties = {
        match[1]: match[2]
        for line in sections.get("getprop", [])
        if (match := re.fullmatch(r"\[(.*?)\]: \[(.*)\]", line))
    }
    for name, keys in _PROPERTIES.items():
        yield name, next((properties[key] for key in keys if properties.get(key)), "")
    first = next((properties[k] for k in _PROPERTIES["abis"] if properties.get(k)), "")
    machine = _MACHINE_OF.get(first.partition(",")[0], "")
    # A Linux that runs adbd has no such property, but the C library that our programs need.
    android = properties.get("ro.build.version.sdk")
    yield "machine", f"android-{machine}" if android and machine else machine
    yield "kernel", "".join(sections.get("kernel", [])[:1])
    yield "taskset", "yes" if sections.get("taskset") else ""
    yield from _files(sections.get("files", []))
    yield from _battery(sections.get("battery", []))
    yield from _thermal(sections.get("thermal", []))
    wake = re.search(r"mWakefulness=(\w+)", "".join(sections.get("power", [])))
    if wake:
        yield "screen", "on" if wake[1] == "Awake" else "off"


def _files(lines: list[str]) -> Iterator[tuple[str, str]]:
    values: dict[tuple[str, int], list[str]] = {}
    for line in lines:
        match = re.match(r"/sys/\S*?(?:cpu|thermal_zone)(\d+)/(?:\S*/)?(\w+):(.*)", line)
        if match:
            values.setdefault((match[2], int(match[1])), []).append(match[3])

    def each(name: str) -> dict[int, str]:
        return {core: texts[0] for (key, core), texts in sorted(values.items()) if key == name}

    capacity = each("cpu_capacity") or each("cpuinfo_max_freq")
    yield "core_capacity", _pairs(capacity)
    yield "governor", _pairs(each("scaling_governor"))
    yield "frequency_khz", _pairs(each("scaling_cur_freq"))
    yield "frequency_cap_khz", _pairs(each("scaling_max_freq"))
    if capacity:
        fastest = max(capacity, key=lambda core: int(capacity[core]))
        ticks = values.get(("time_in_state", fastest), [])
        yield "time_in_state", " ".join(":".join(line.split()) for line in ticks)
    kinds = each("type")
    yield (
        "temperatures_millicelsius",
        _pairs(
            {kinds.get(zone, str(zone)).replace(" ", "-"): t for zone, t in each("temp").items()}
        ),
    )


def _pairs(values: Mapping[int, str] | Mapping[str, str]) -> str:
    return " ".join(f"{key}:{value}" for key, value in values.items())


def _battery(lines: list[str]) -> Iterator[tuple[str, str]]:
    values = dict(line.split(": ", 1) for line in lines if ": " in line)
    yield "battery_percent", values.get("level", "")
    if values.get("temperature", "").lstrip("-").isdigit():
        yield "battery_c", f"{int(values['temperature']) / 10:.1f}"
    powered = [
        key.removesuffix(" powered")
        for key, on in values.items()
        if key.endswith(" powered") and on == "true"
    ]
    if values:
        yield "charger", "+".join(powered) or "none"


def _thermal(lines: list[str]) -> Iterator[tuple[str, str]]:
    text = "\n".join(lines)
    status = re.search(r"^Thermal Status: (\d+)", text, re.MULTILINE)
    if status:
        yield "thermal_status", status[1]
    # Cached values come first if there are both.
    current = text.rpartition("Current temperatures from HAL:")[2]
    cpus = [
        float(value)
        for value, kind in re.findall(r"mValue=(-?[\d.]+), mType=(-?\d+)", current)
        if kind == _CPU_TEMPERATURE
    ]
    if cpus:
        yield "temperature_cpu_c", f"{max(cpus):.1f}"
