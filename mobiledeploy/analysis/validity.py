"""When a time of a phone or a board is not valid: it throttled, or something changed meanwhile.

Facts are those of a device's `facts()`, before and after, by the names that `devices/adb.py` and
`devices/ssh.py` give them. Facts that a device does not give are absent and prove nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mobiledeploy.analysis import stats
from mobiledeploy.core.types import LeftOperator, Measured

RELATIVE_WIDTH = 0.05
"""If the median's 95 % interval is wider than this fraction, the median is uncertain."""

SLOWED = 0.05
"""The last quarter of the runs takes longer than the first by more than this fraction."""

CLOCK_SHARE = 0.2
"""The share of the runs at other clock frequencies that is too much."""

NAMED = 3
"""So many operators that were left to the CPU are named in a line; the record has all."""

ACCELERATORS = ("gpu", "nnapi")
"""Delegates that are machines of their own, beside the CPU."""

# What a Raspberry Pi says of now in its lowest bits, and of all time since its start 16 bits up:
# https://www.raspberrypi.com/documentation/computers/os.html#vcgencmd
_PI_FLAGS = {
    0: "its voltage is too low",
    1: "its clock is capped",
    2: "it throttles",
    3: "it is at its soft temperature limit",
}

# time_in_state counts in units of USER_HZ: https://docs.kernel.org/cpu-freq/cpufreq-stats.html
_TICK_NS = 10_000_000

# The fact of the clocks that a runner read itself. With fewer ticks, a share is chance.
_CLOCKS_OF_RUNS = "time_in_state_of_runs"
_FEWEST_TICKS = 20

# These must not change between the two readings.
_UNTOUCHED = {
    "screen": "the screen went {} -> {}",
    "charger": "the charger went {} -> {}",
    "governor": "the governor went {} -> {}",
    "frequency_cap_khz": "the highest clock allowed went {} -> {} kHz",
}


def disturbances(measurement: Measured, *, fixed_runs: bool = False) -> tuple[str, ...]:
    """The disturbances of a device during the timing, one reason per line; () if there were none.

    Another attempt may succeed.

    Args:
        measurement: with the facts of a phone or a board.
        fixed_runs: the number of runs was fixed, however wide their interval is.
    """
    m, before, after = measurement, measurement.facts_before, measurement.facts_after
    reasons = [*state_disturbances(before, after)]
    if change := _clock_change(before, after, sum(m.warmups_ns) + sum(m.samples_ns)):
        reasons.append(change)
    if slowed := _slowed(m.samples_ns):
        reasons.append(f"the runs got {100 * slowed:.0f} % slower from their first to last quarter")
    width = stats.relative_width(m.samples_ns)
    if not fixed_runs and width > RELATIVE_WIDTH:
        reasons.append(f"the median is known to ±{100 * width:.0f} % only")
    return tuple(reasons)


def state_disturbances(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """What the facts alone tell of a disturbance, whatever ran between the two readings."""
    return (*_throttling(before, after), *_flags(before, after), *_changes(before, after))


def unused_delegate(measurement: Measured, *, strict: bool = False) -> str:
    """What a delegate left to the CPU that should run the graph; "" if it ran the graph.

    Another attempt would give the same. XNNPACK may leave single operators to builtin kernels,
    which the same core runs; an accelerator that does so is not the requested machine. `strict`
    takes the whole graph only.
    """
    delegated, total, name = (
        measurement.delegated_nodes,
        measurement.total_nodes,
        measurement.target.delegate,
    )
    if name == "none":
        return ""
    if strict or (name in ACCELERATORS and delegated is not None and total is not None):
        return not_whole(name, delegated, total, measurement.left_operators)
    return f"{name} took no operator of the graph" if delegated == 0 else ""


def not_whole(
    delegate: str, taken: int | None, total: int | None, left: Sequence[LeftOperator]
) -> str:
    """Why it is not certain that a delegate took all operators of a graph; "" if it took them."""
    if taken == 0:
        return f"{delegate} took no operator of the graph{_named(left)}"
    if taken is None or total is None:
        return f"which operators {delegate} took is not known"
    return f"{delegate} took {taken} of {total} operators only{_named(left)}" * (taken < total)


def left_over(measurement: Measured) -> str:
    """What a delegate took, and the operators that it left to the CPU."""
    m = measurement
    total = "" if m.total_nodes is None else f" of {m.total_nodes}"
    return (
        f"{m.target.delegate} took {m.delegated_nodes}{total} operators{_named(m.left_operators)}"
    )


def _named(left: Sequence[LeftOperator]) -> str:
    """The operators with their layers, as the end of a sentence."""
    texts = [_operator(one) for one in left[:NAMED]]
    more = [f"{len(left) - NAMED} more"] if len(left) > NAMED else []
    return f"; on the CPU: {', '.join(texts + more)}" if texts else ""


def _operator(left: LeftOperator) -> str:
    layers = " or ".join(left.layers[:NAMED]) + (" ..." if len(left.layers) > NAMED else "")
    where = f" ({layers})" if layers else ""
    return f"{left.op}{where}" + (f": {left.reason}" if left.reason else "")


def cool(start: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a device is as cool as it was at `start`, and not throttled."""
    if now.get("thermal_status", "0") != "0" or _bits(now) & 0xF:
        return False
    return all(
        _celsius(now, key) <= _celsius(start, key) + 1
        for key in ("temperature_cpu_c", "battery_c")
        if key in start and key in now
    )


def _celsius(facts: Mapping[str, str], key: str) -> float:
    match = re.fullmatch(r"-?\d+(\.\d+)?", facts[key])
    return float(match[0]) if match else 0.0


def _throttling(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    facts_by_time = {"before": before, "after": after}
    return [
        f"the phone throttles (thermal status {facts['thermal_status']} {when} the runs)"
        for when, facts in facts_by_time.items()
        if facts.get("thermal_status", "0") != "0"
    ]


def _flags(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What a board reports of itself: the flags of a Raspberry Pi, the counters of x86."""
    start, end = _bits(before), _bits(after)
    now, meanwhile = start | end, (end & ~start) >> 16
    reasons = [
        f"the board says: {text}" for bit, text in _PI_FLAGS.items() if (now | meanwhile) >> bit & 1
    ]
    counts = [facts.get("throttle_count", "") for facts in (before, after)]
    if all(map(str.isdecimal, counts)) and (more := int(counts[1]) - int(counts[0])) > 0:
        reasons.append(f"the processor throttled {more} times")
    return reasons


def _bits(facts: Mapping[str, str]) -> int:
    match = re.fullmatch(r"0x[0-9a-fA-F]{1,8}", facts.get("throttled", ""))
    return int(match[0], 16) if match else 0


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        text.format(before[key], after[key])
        for key, text in _UNTOUCHED.items()
        if key in before and key in after and before[key] != after[key]
    ]


def clocks_of_runs(readings: Sequence[str]) -> dict[str, str]:
    """The fact of how long the runs took at each clock, from a runner's readings around them.

    {} without two readings.
    """
    if len(readings) != 2:
        return {}
    start, end = map(_times, readings)
    ticks = {khz: count - start.get(khz, 0) for khz, count in end.items()}
    text = " ".join(f"{khz}:{count}" for khz, count in ticks.items() if count > 0)
    return {_CLOCKS_OF_RUNS: text} if text else {}


def _clock_change(before: Mapping[str, str], after: Mapping[str, str], runs_ns: int) -> str:
    """The change between two clock frequencies of the fastest cores; "" if that is not certain."""
    if _CLOCKS_OF_RUNS in after:
        return _change_within(_times(after[_CLOCKS_OF_RUNS]))
    # More than the runs happened between these readings, possibly at any frequency.
    start, end = (_times(facts.get("time_in_state", "")) for facts in (before, after))
    time_by_clock = {khz: (ticks - start.get(khz, 0)) * _TICK_NS for khz, ticks in end.items()}
    if not start or len(time_by_clock) < 2:
        return ""
    (_, first), (time, second) = sorted(
        ((t, khz) for khz, t in time_by_clock.items()), reverse=True
    )[:2]
    besides = max(0, sum(time_by_clock.values()) - runs_ns)
    if time - besides <= CLOCK_SHARE * runs_ns:
        return ""
    return f"the clock moved between {first} and {second} kHz"


def _change_within(ticks: Mapping[str, int]) -> str:
    """The same, from the runs alone: clocks that are almost the main one are no change."""
    total = sum(ticks.values())
    if total < _FEWEST_TICKS:
        return ""
    main = max(ticks, key=ticks.__getitem__)
    others = {
        khz: count for khz, count in ticks.items() if abs(int(khz) / max(int(main), 1) - 1) > SLOWED
    }
    if sum(others.values()) <= CLOCK_SHARE * total:
        return ""
    return f"the clock moved between {main} and {max(others, key=others.__getitem__)} kHz"


def _times(text: str) -> dict[str, int]:
    """'300000:51 2803200:204' -> ticks by frequency."""
    return {khz: int(ticks) for khz, ticks in re.findall(r"\b(\d{1,9}):(\d{1,18})\b", text)}


def _slowed(samples_ns: Sequence[int]) -> float | None:
    """The fraction by which the last quarter is slower than the first, if that is too much."""
    quarter = len(samples_ns) // 4
    if quarter < 3:
        return None
    first, last = np.median(samples_ns[:quarter]), np.median(samples_ns[-quarter:])
    slower = float(last / first) - 1
    return slower if slower > SLOWED else None
