"""Parses the output of Android's tools: properties, /sys, dumpsys. Text in, facts out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mobiledeploy.devices import _linux

# One script is one round trip. It holds no text of the user's, so nothing needs quoting.
FACTS = f"""
echo =getprop; getprop
echo =kernel; uname -r
echo =files; grep -H . {_linux.FILES} 2>/dev/null
echo =battery; dumpsys battery 2>/dev/null
echo =thermal; dumpsys thermalservice 2>/dev/null
echo =power; dumpsys power 2>/dev/null | grep -m 1 mWakefulness=
echo =taskset; command -v taskset
echo =pages; getconf PAGE_SIZE 2>/dev/null
echo =free; df -k /data/local/tmp 2>/dev/null
echo =end
"""

# The part of it that tells the model: other systems with an adbd may ignore a property's name.
MODEL = "echo =getprop; getprop"

_PROPERTIES = {
    "model": ("ro.product.model",),
    "manufacturer": ("ro.product.manufacturer",),
    "soc": ("ro.soc.model", "ro.board.platform", "ro.hardware"),
    "android": ("ro.build.version.release",),
    "sdk": ("ro.build.version.sdk",),
    "abis": ("ro.product.cpu.abilist", "ro.product.cpu.abi"),
    "build": ("ro.build.fingerprint",),
}
_MACHINE_OF = {"arm64-v8a": "aarch64", "x86_64": "x86_64", "armeabi-v7a": "armv7l", "x86": "i686"}
_ABI_OF = {machine: abi for abi, machine in _MACHINE_OF.items()}
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
    facts_by_name = dict(_facts(_linux.sections(text)))
    return {key: " ".join(value.split()) for key, value in facts_by_name.items() if value}


def abi(machine: str) -> str:
    """Android's name of the ABI of a machine that `uname -m` names."""
    return _ABI_OF.get(machine, machine)


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
    page = "".join(sections.get("pages", [])[:1])
    yield "page_bytes", page if page.isdecimal() else ""
    free = _linux.free_bytes("\n".join(sections.get("free", [])))
    yield "free_bytes", "" if free is None else str(free)
    yield from _linux.state(sections.get("files", []))
    yield from _battery(sections.get("battery", []))
    yield from _thermal(sections.get("thermal", []))
    wake = re.search(r"mWakefulness=(\w+)", "".join(sections.get("power", [])))
    if wake:
        yield "screen", "on" if wake[1] == "Awake" else "off"


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
