"""What is true of any Linux behind a POSIX shell: /sys, `df`, programs. Text in, facts out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

# One script is one round trip. It holds no text of the user's, so nothing needs quoting.
_CPU = "/sys/devices/system/cpu/cpu[0-9]*"
FILES = " ".join(
    [
        *(f"{_CPU}/{name}" for name in ("cpu_capacity", "cpufreq/stats/time_in_state")),
        *(
            f"{_CPU}/cpufreq/cpuinfo_max_freq {_CPU}/cpufreq/scaling_{name}"
            for name in ("max_freq", "cur_freq", "governor")
        ),
        *(f"/sys/class/thermal/thermal_zone*/{name}" for name in ("type", "temp")),
    ]
)
"""The files that `state` reads; none of their names needs quoting."""


def sections(text: str) -> dict[str, list[str]]:
    """The lines below each line `=NAME`, by NAME; names are of small letters."""
    lines_by_name: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"=[a-z]+", line):
            lines = lines_by_name.setdefault(line[1:], [])
        else:
            lines.append(line.strip())
    return lines_by_name


def state(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Facts of clocks and temperatures in the output of `grep -H . FILES`."""
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


def free_bytes(text: str) -> int | None:
    """Available bytes in the output of `df -k DIR`; None if it cannot be parsed."""
    lines = text.strip().splitlines()
    # A long name of the file system is on a separate line.
    numbers = [int(n) for n in re.findall(r"(?<=\s)\d+(?=\s)", lines[-1])] if lines else []
    return numbers[2] * 1024 if len(numbers) >= 3 else None
