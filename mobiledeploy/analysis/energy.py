"""Energy of an inference, from what a machine tells of its own power without root.

Readings are taken in turns, while the machine idles and while it runs inferences without pause:

    joules = (power under load - power at idle) * time of a run

Idle and load are read with the same program, so its own share cancels. The sources are the battery
(https://docs.kernel.org/power/power_supply_class.html: current, voltage, charge counter), the PMIC
of a Raspberry Pi 5 (https://www.raspberrypi.com/documentation/computers/os.html#vcgencmd), and the
power rails of Pixels (`power_rails.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from mobiledeploy.analysis import power_rails, stats

Source = Literal["pmic", "rails", "battery"]
Method = Literal["rails", "power", "current", "charge counter"]

UNIT_STEPS = 20
"""A charge counter that fell by so many of its steps tells the unit of the current."""

DISAGREEMENT = 0.25
"""Current and charge counter may differ by this fraction."""

LEAST_CURRENT_UA = 10_000
"""No phone that is awake takes less; a smaller number is in another unit."""

USABLE_SHARE = 0.9
"""The share of readings that must have what is taken of all; the others are left out."""

LEAST_COUNTER_STEPS = 5
"""A charge counter must fall by so many of its steps in a block, if it is all that there is."""

# Also a battery that is full, or is not charged on purpose, is not what feeds the machine.
_CHARGED_STATES = ("Charging", "Full", "Not charging")
# android.os.BatteryManager has numbers for the same.
_CHARGED_NUMBERS = ("2", "4", "5")
_CHARGED = "it is on a charger, so the current of its battery is not what the machine takes"
_LONGEST_LINE = 300


class ChargedError(ValueError):
    """A charger gave current while the machine was measured."""


class PowerReading(NamedTuple):
    """What the machine told at a moment of its own clock; None for what it did not tell.

    `watts` are the sum of all rails, or the power that a battery's gauge states. The current is a
    battery's, positive, in the unit of its kernel driver, which should be microamperes.
    """

    seconds: float
    source: Source | None
    watts: float | None
    current: float | None
    volts: float | None
    charge_uah: float | None
    charging: bool


@dataclass(frozen=True)
class PowerBlocks:
    """Mean power in watts of each block, of idle and of load, and how it was read."""

    source: Source
    method: Method
    idle_w: tuple[float, ...]
    load_w: tuple[float, ...]


def readings(lines: Iterable[str]) -> tuple[PowerReading, ...]:
    """The readings in the output of a sampler: a line `=reading SECONDS`, then what it read.

    These are lines of `vcgencmd pmic_read_adc`, of `grep -H .` on files of a power supply, and of
    Android's `dumpsys battery`. Other lines are left out.
    """
    return tuple(_reading(seconds, part) for seconds, part in _parts(lines))


def rail_readings(trace: bytes) -> tuple[PowerReading, ...]:
    """The power of all rails between two moments of a perfetto trace, at the second of them.

    () if the trace has no rails, or is damaged.
    """
    try:
        moments = power_rails.readings(trace)
    except ValueError:
        return ()
    return tuple(
        PowerReading(
            second.seconds,
            "rails",
            (second.joules - first.joules) / (second.seconds - first.seconds),
            *(None, None, None),
            charging=False,
        )
        for first, second in pairwise(moments)
        if second.seconds > first.seconds
    )


def reason_without(one: PowerReading) -> str:
    """Why a machine that tells this has no energy to be measured; "" if it has."""
    if one.source is None:
        return "it tells neither the current nor the charge of a battery, and has no PMIC that does"
    if one.charging:
        return _CHARGED
    return ""


def powers(
    idle: Sequence[Sequence[PowerReading]],
    load: Sequence[Sequence[PowerReading]],
    settle_s: float,
) -> PowerBlocks:
    """The mean power of each block, without its first `settle_s` seconds.

    ValueError with the reason if the readings do not tell it: `ChargedError` of a charger.
    """
    blocks = (*idle, *load)
    every = [one for block in blocks for one in block]
    if any(one.charging for one in every):
        raise ChargedError(_CHARGED)
    method, tells = _way(every)
    source = next(one.source for one in every if one.source is not None)
    usable = [[one for one in block if tells(one)] for block in blocks]
    scale = (
        _amperes_per_unit([one for block in usable for one in block]) if method == "current" else 0
    )
    watts = [
        _by_counter(block)
        if method == "charge counter"
        else float(np.mean([_watts(one, scale) for one in block]))
        for block in (_settled(block, settle_s) for block in usable)
    ]
    return PowerBlocks(source, method, tuple(watts[: len(idle)]), tuple(watts[len(idle) :]))


def _way(every: Sequence[PowerReading]) -> tuple[Method, Callable[[PowerReading], bool]]:
    """What to take, the best that almost each reading has, and whether a reading has it.

    A file of a gauge may fail to be read once in a while.
    """
    rails = any(one.source in ("pmic", "rails") for one in every)
    # A reading that has what a way takes has a source, too.
    ways: tuple[tuple[Method, Callable[[PowerReading], bool]], ...] = (
        ("rails" if rails else "power", lambda one: one.watts is not None),
        ("current", lambda one: None not in (one.current, one.volts)),
        ("charge counter", lambda one: None not in (one.charge_uah, one.volts)),
    )
    for method, tells in ways:
        if every and sum(map(tells, every)) >= USABLE_SHARE * len(every):
            return method, tells
    raise ValueError("it told its power too seldom")


def _watts(one: PowerReading, scale: float) -> float:
    return one.watts if one.watts is not None else scale * (one.current or 0) * (one.volts or 0)


def per_inference(blocks: PowerBlocks, run_ns: Sequence[float]) -> tuple[float, float, float]:
    """(median, low, high) of the joules of an inference above idle, at 95 %.

    `run_ns` is the mean time of a run in each block of load. ValueError if the interval does not
    exclude 0.
    """
    joules = [
        (load - idle) * ns / 1e9
        for idle, load, ns in zip(blocks.idle_w, blocks.load_w, run_ns, strict=True)
    ]
    middle, low, high = stats.median_interval(joules)
    if low <= 0:
        raise ValueError(
            f"the power under load ({_range(blocks.load_w)}) is not above that at idle "
            f"({_range(blocks.idle_w)}) in each round"
        )
    return middle, low, high


def _parts(lines: Iterable[str]) -> Iterator[tuple[float, list[str]]]:
    part: list[str] | None = None
    seconds = 0.0
    for line in lines:
        text = line.strip()[:_LONGEST_LINE]
        match = re.fullmatch(r"=reading (\d{1,12}(?:\.\d{1,9})?)", text)
        if match:
            if part is not None:
                yield seconds, part
            seconds, part = float(match[1]), []
        elif part is not None:
            part.append(text)
    if part is not None:
        yield seconds, part


def _reading(seconds: float, lines: Sequence[str]) -> PowerReading:
    rails = _rails(lines)
    if rails is not None:
        return PowerReading(seconds, "pmic", rails, None, None, None, False)
    battery = _supply(lines)
    android = {
        match[1]: match[2]
        for line in lines
        if (match := re.fullmatch(r"(Charge counter|voltage|status): (-?\d{1,12})", line))
    }

    def number(name: str) -> float | None:
        text = battery.get(name, "")
        return float(text) if re.fullmatch(r"-?\d{1,12}", text) else None

    def size(name: str, unit: float) -> float | None:
        # Drivers do not agree on the sign of what leaves a battery.
        value = number(name)
        return None if value is None else abs(value) * unit

    watts = size("power_now", 1e-6)
    current = size("current_now", 1.0)
    volts = size("voltage_now", 1e-6)
    if volts is None and "voltage" in android:
        volts = int(android["voltage"]) / 1000
    charge = number("charge_counter")
    if charge is None:
        charge = number("charge_now")
    if charge is None and "Charge counter" in android:
        charge = float(android["Charge counter"])
    # A weak charger feeds a machine whose battery is discharged nevertheless.
    charging = (
        battery.get("status") in _CHARGED_STATES
        or android.get("status") in _CHARGED_NUMBERS
        or any(line.endswith(" powered: true") for line in lines)
        or any(files.get("online") == "1" for files in _supplies(lines, battery=False).values())
    )
    has_power = watts is not None or (
        volts is not None and (current is not None or charge is not None)
    )
    return PowerReading(
        seconds, "battery" if has_power else None, watts, current, volts, charge, charging
    )


def _rails(lines: Sequence[str]) -> float | None:
    """The sum over a PMIC's rails; None without one. Rails without a current feed others."""
    values = {
        (match[1], match[2]): float(match[3])
        for line in lines
        if (
            match := re.fullmatch(
                r"(\w+)_([AV]) (?:current|volt)\(\d+\)=(\d{1,4}\.\d{1,9})[AV]", line
            )
        )
    }
    watts = [
        value * values[name, "V"]
        for (name, kind), value in values.items()
        if kind == "A" and (name, "V") in values
    ]
    return math.fsum(watts) if watts else None


def _supply(lines: Sequence[str]) -> dict[str, str]:
    """The files of the battery; {} if there is none."""
    batteries = {
        name: files
        for name, files in _supplies(lines, battery=True).items()
        if files.keys() & {"current_now", "power_now", "charge_counter", "charge_now"}
    }
    # A phone may list its fuel gauge beside the battery that it is of.
    name = "battery" if "battery" in batteries else min(batteries, default="")
    return batteries.get(name, {})


def _supplies(lines: Sequence[str], *, battery: bool) -> dict[str, dict[str, str]]:
    """The files of batteries, or of all else that feeds the machine, in the output of grep."""
    supplies: dict[str, dict[str, str]] = {}
    for line in lines:
        match = re.fullmatch(r"/sys/class/power_supply/([\w.-]+)/(\w+):(.*)", line)
        if match:
            supplies.setdefault(match[1], {})[match[2]] = match[3].strip()
    return {
        name: files
        for name, files in supplies.items()
        if (files.get("type", "Battery") == "Battery") is battery
    }


def _settled(block: Sequence[PowerReading], settle_s: float) -> Sequence[PowerReading]:
    begin = block[0].seconds + settle_s if block else 0.0
    settled = [one for one in block if one.seconds >= begin]
    if len(settled) < 2:
        raise ValueError("it told its power too seldom")
    return settled


def _amperes_per_unit(every: Sequence[PowerReading]) -> float:
    """1e-6 for microamperes, 1e-3 for milliamperes; ValueError if neither fits the counter."""
    ordered = sorted(every, key=lambda one: one.seconds)
    currents = np.asarray([one.current for one in ordered], np.float64)
    counted = _counted_uah(ordered)
    if counted is None:
        if np.mean(currents) < LEAST_CURRENT_UA:
            raise ValueError(
                f"its current of {np.mean(currents):.0f} microamperes cannot be right, and no "
                "charge counter tells the unit"
            )
        return 1e-6
    lengths = np.diff([one.seconds for one in ordered])
    integral = float(np.sum((currents[1:] + currents[:-1]) / 2 * lengths)) / 3600
    for unit in (1.0, 1000.0):
        if abs(unit * integral / counted - 1) <= DISAGREEMENT:
            return unit * 1e-6
    raise ValueError(
        f"its current and its charge counter disagree: {integral:.0f} and {counted:.0f} uAh"
    )


def _counted_uah(ordered: Sequence[PowerReading]) -> float | None:
    """How far the charge counter fell in all; None if that is too little to be known."""
    charges = [one.charge_uah for one in ordered if one.charge_uah is not None]
    if len(charges) < len(ordered):
        return None
    steps = np.abs(np.diff(charges))
    smallest = float(np.min(steps[steps > 0], initial=math.inf))
    total = charges[0] - charges[-1]
    return total if total >= UNIT_STEPS * smallest else None


def _by_counter(block: Sequence[PowerReading]) -> float:
    values = np.asarray([one.charge_uah for one in block], np.float64)
    volts = [one.volts for one in block]
    if np.count_nonzero(np.diff(values) < 0) < LEAST_COUNTER_STEPS:
        raise ValueError("its charge counter is too coarse for blocks of this length")
    # The first and last step of the counter bound whole steps.
    moments = np.flatnonzero(np.diff(values) < 0) + 1
    first, last = int(moments[0]), int(moments[-1])
    coulombs = (values[first] - values[last]) * 3600e-6
    seconds = block[last].seconds - block[first].seconds
    return float(coulombs * np.mean(np.asarray(volts, np.float64)) / seconds)


def _range(watts: Sequence[float]) -> str:
    return f"{min(watts):.3g} to {max(watts):.3g} W"
