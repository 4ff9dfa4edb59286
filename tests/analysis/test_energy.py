"""Energy of an inference from what machines tell: known power, gauges of all kinds, and reasons."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mobiledeploy.analysis import energy
from mobiledeploy.analysis.energy import PowerBlocks, PowerReading

# What a Raspberry Pi 5 prints, shortened to four rails.
PMIC = """
   3V7_WL_SW_A current(0)=0.10000000A
     VDD_CORE_A current(7)=2.00000000A
      HDMI_A current(22)=0.02000000A
   3V7_WL_SW_V volt(8)=3.70000000V
     VDD_CORE_V volt(15)=0.75000000V
      HDMI_V volt(23)=5.00000000V
       EXT5V_V volt(24)=5.14893000V
        BATT_V volt(25)=0.00000000V
"""
BATTERY = """=reading 100.25
/sys/class/power_supply/battery/type:Battery
/sys/class/power_supply/usb/type:USB
/sys/class/power_supply/battery/status:Discharging
/sys/class/power_supply/battery/current_now:-512000
/sys/class/power_supply/usb/current_now:77
/sys/class/power_supply/battery/voltage_now:4000000
/sys/class/power_supply/battery/charge_counter:2431000
"""


def one(text: str) -> PowerReading:
    (reading,) = energy.readings(text.splitlines())
    return reading


def gauge(
    watts: float, seconds: int, start: float = 0.0, charge: float = 3e6, **other
) -> list[PowerReading]:
    """A battery of 4 V: its readings each second, and its charge counter in steps of 100 uAh."""
    current = watts / 4 * 1e6
    return [
        PowerReading(
            start + s,
            "battery",
            None,
            current,
            4.0,
            charge - current * s / 3600 // 100 * 100,
            False,
        )._replace(**other)
        for s in range(seconds)
    ]


def test_a_pmic_is_the_sum_of_its_rails() -> None:
    reading = one(f"login text\n=reading 12.5\n{PMIC}\nx_A current(1)=a")
    assert (reading.seconds, reading.source) == (12.5, "pmic")
    assert reading.watts == pytest.approx(0.1 * 3.7 + 2 * 0.75 + 0.02 * 5)
    assert energy.reason_without(reading) == ""


def test_a_battery_tells_its_current() -> None:
    reading = one(BATTERY)
    assert reading == PowerReading(100.25, "battery", None, 512000, 4.0, 2431000, False)
    assert energy.reason_without(reading) == ""
    assert len(energy.readings((BATTERY * 3).splitlines())) == 3


def test_a_gauge_beside_the_battery_is_not_it() -> None:
    other = BATTERY.replace("/battery/", "/maxfg/").replace("512000", "1")
    assert one(BATTERY + other.partition("\n")[2]).current == 512000
    assert one(other).current == 1


def test_android_tells_the_charge_where_files_are_closed() -> None:
    reading = one("=reading 1\nCharge counter: 2431000\nstatus: 3\nvoltage: 3900\n")
    assert reading == PowerReading(1, "battery", None, None, 3.9, 2431000, False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("=reading 1\n", "neither the current nor the charge of a battery"),
        ("=reading 1\nvoltage: 3900\n", "neither the current nor the charge"),
        ("=reading 1\nCharge counter: 9000\nvoltage: 3900\nstatus: 2\n", "is on a charger"),
        (BATTERY.replace("Discharging", "Charging"), "is on a charger"),
        (BATTERY.replace("Discharging", "Full"), "is on a charger"),
        (f"{BATTERY}/sys/class/power_supply/usb/online:1\n", "is on a charger"),
        (f"{BATTERY}AC powered: true\n", "is on a charger"),
        (BATTERY.replace("-512000", "garbage").replace(":2431000", ":"), "neither the current"),
    ],
)
def test_a_machine_without_energy_has_a_reason(text: str, reason: str) -> None:
    assert reason in energy.reason_without(one(text))


def test_current_and_voltage_are_power() -> None:
    idle, load = ([gauge(watts, 40, charge_uah=None)] * 6 for watts in (1.0, 3.0))
    blocks = energy.powers(idle, load, 10)
    assert (blocks.source, blocks.method) == ("battery", "current")
    assert blocks.idle_w == pytest.approx([1.0] * 6)
    assert blocks.load_w == pytest.approx([3.0] * 6)
    # Two watts for 5 ms.
    assert energy.per_inference(blocks, [5e6] * 6) == pytest.approx((0.01, 0.01, 0.01))


def test_the_begin_of_a_block_is_left_out() -> None:
    late = [*gauge(9.0, 10), *gauge(3.0, 30, start=10)]
    late = [reading._replace(charge_uah=None) for reading in late]
    blocks = energy.powers([gauge(1.0, 40)], [late], 10)
    assert blocks.load_w == pytest.approx([3.0])


def test_the_charge_counter_alone_suffices_if_it_is_fine() -> None:
    def alone(watts: float) -> list[PowerReading]:
        return gauge(watts, 60, current=None)

    blocks = energy.powers([alone(1.0)] * 6, [alone(3.0)] * 6, 10)
    assert blocks.method == "charge counter"
    assert blocks.idle_w == pytest.approx([1.0] * 6, rel=0.05)
    assert blocks.load_w == pytest.approx([3.0] * 6, rel=0.05)
    with pytest.raises(ValueError, match="too coarse for blocks of this length"):
        energy.powers([alone(0.1)] * 6, [alone(3.0)] * 6, 10)


def series(scale: float, counter: float) -> list[PowerReading]:
    """A long discharge at 2 W; its current is told `scale` times, its charge `counter` times."""
    return [
        reading._replace(
            current=(reading.current or 0) * scale,
            charge_uah=3e6 - (3e6 - (reading.charge_uah or 0)) * counter,
        )
        for reading in gauge(2.0, 400)
    ]


def test_the_counter_tells_the_unit_of_the_current() -> None:
    for scale in (1.0, 1e-3):
        whole = series(scale, 1.0)
        blocks = energy.powers([whole[:200]], [whole[200:]], 10)
        assert blocks.load_w == pytest.approx([2.0])
    whole = series(1.0, 2.0)
    with pytest.raises(ValueError, match="its current and its charge counter disagree"):
        energy.powers([whole[:200]], [whole[200:]], 10)
    # Without a counter, a current that no phone is awake with.
    whole = [reading._replace(charge_uah=None) for reading in series(1e-3, 1.0)]
    with pytest.raises(ValueError, match="current of 500 microamperes cannot be right"):
        energy.powers([whole[:200]], [whole[200:]], 10)


def test_a_charger_in_between_is_a_reason() -> None:
    block = gauge(1.0, 40)
    charged = [*block[:20], *(reading._replace(charging=True) for reading in block[20:])]
    with pytest.raises(energy.ChargedError, match="is on a charger"):
        energy.powers([block], [charged], 10)


def test_a_reading_that_failed_is_left_out() -> None:
    block = gauge(1.0, 40, charge_uah=None)
    failed = PowerReading(20.5, None, None, None, None, None, False)
    load = [gauge(3.0, 40, charge_uah=None)] * 6
    blocks = energy.powers([[*block[:20], failed, *block[21:]]] * 6, load, 10)
    assert (blocks.source, blocks.method) == ("battery", "current")
    assert blocks.idle_w == pytest.approx([1.0] * 6)
    with pytest.raises(ValueError, match="too seldom"):
        energy.powers([[failed] * 9 + block[9:]] * 6, load, 10)


@pytest.mark.parametrize("block", [[], gauge(1.0, 11)])
def test_too_few_readings_are_a_reason(block: list[PowerReading]) -> None:
    with pytest.raises(ValueError, match="too seldom"):
        energy.powers([gauge(1.0, 40)], [block], 10)


def test_a_load_that_is_not_seen_has_no_energy() -> None:
    blocks = PowerBlocks("battery", "current", (1.0,) * 6, (1.1, 1.1, 1.1, 1.1, 1.1, 0.9))
    with pytest.raises(ValueError, match=r"\(0.9 to 1.1 W\) is not above that at idle \(1 to 1 W"):
        energy.per_inference(blocks, [5e6] * 6)
    one_more = dataclasses.replace(blocks, load_w=(1.1,) * 6)
    assert energy.per_inference(one_more, [5e6] * 6)[0] == pytest.approx(5e-4)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """A machine that warms up: its idle power drifts by a tenth, and each block spreads by 3 %."""
    dice = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        drift = np.linspace(1.0, 1.1, 12)
        watts = np.where([n % 4 in (1, 2) for n in range(12)], 3.0, 1.0) + drift - 1
        watts *= dice.normal(1, 0.03, 12)
        load = [w for n, w in enumerate(watts) if n % 4 in (1, 2)]
        idle = [w for n, w in enumerate(watts) if n % 4 not in (1, 2)]
        blocks = PowerBlocks("pmic", "rails", tuple(idle), tuple(load))
        _, low, high = energy.per_inference(blocks, [1e9] * 6)
        held += low <= 2.0 <= high
    assert held / 400 > 0.94
