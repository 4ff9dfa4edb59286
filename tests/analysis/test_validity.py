from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobiledeploy.analysis import validity
from mobiledeploy.core.types import LeftOperator, Measured, Target

FACTS = {
    "thermal_status": "0",
    "screen": "on",
    "charger": "USB",
    "governor": "0:schedutil",
    "frequency_cap_khz": "0:1800000 7:2800000",
    "temperature_cpu_c": "40.0",
    "time_in_state": "300000:100 2800000:1000",
    "battery_c": "28.0",
}
NOISE = np.random.Generator(np.random.PCG64(0)).normal(2e6, 1e4, 400)
STEADY = tuple(int(n) for n in NOISE)  # 0.8 s


def measured(samples=STEADY, before=FACTS, after=FACTS, **given) -> Measured:
    plain = Measured(
        "0" * 64,
        Target("adb:1", "native", "litert", 1, "xnnpack"),
        "2.3.0",
        samples,
        (),
        2e6,
        (2e6, 2e6),
        1,
        31,
        31,
        before,
        after,
    )
    return replace(plain, **given)


def test_a_quiet_phone_is_valid() -> None:
    assert validity.disturbances(measured()) == ()
    # A phone without facts proves nothing.
    assert validity.disturbances(measured(before={}, after={})) == ()
    after = FACTS | {"time_in_state": "300000:130 2800000:1078"}
    assert validity.disturbances(measured(after=after)) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thermal_status": "1"}, "throttles (thermal status 1 after"),
        ({"screen": "off"}, "the screen went on -> off"),
        ({"charger": "none"}, "the charger went USB -> none"),
        ({"governor": "0:powersave"}, "the governor went"),
        ({"frequency_cap_khz": "0:1800000 7:2000000"}, "the highest clock allowed went"),
        (
            {"time_in_state": "300000:102 1800000:40 2800000:1042"},
            "the clock moved between 2800000 and 1800000 kHz",
        ),
    ],
)
def test_a_disturbance_is_named(change, message) -> None:
    (reason,) = validity.disturbances(measured(after=FACTS | change))
    assert message in reason
    assert validity.disturbances(measured(before=FACTS | change, after=FACTS | change)) == (
        ()
        if "status" not in message
        else (
            "the phone throttles (thermal status 1 before the runs)",
            "the phone throttles (thermal status 1 after the runs)",
        )
    )


def test_other_clocks_before_and_after_the_runs_do_not_count() -> None:
    # 0.8 s of runs; 0.5 s more at the low clock while the model was loaded.
    after = FACTS | {"time_in_state": "300000:150 2800000:1080"}
    assert validity.disturbances(measured(after=after)) == ()


def test_slowing_down_and_wide_intervals() -> None:
    slower = tuple(int(n * (1 + 0.1 * i / 400)) for i, n in enumerate(NOISE))
    (reason,) = validity.disturbances(measured(slower))
    assert reason == "the runs got 7 % slower from their first to last quarter"
    wild = tuple(int(n) for n in np.random.Generator(np.random.PCG64(0)).lognormal(14, 1, 30))
    assert any("the median is known to" in r for r in validity.disturbances(measured(wild)))
    assert not any("median" in r for r in validity.disturbances(measured(wild), fixed_runs=True))


def test_a_runner_s_own_readings_leave_nothing_else_in() -> None:
    """What facts cannot tell, since a runner also loads the model between them."""

    def change(*readings: str) -> tuple[str, ...]:
        loading = {"time_in_state": "300000:300 2800000:1500"}
        return validity.disturbances(
            measured(after=FACTS | loading | validity.clocks_of_runs(readings))
        )

    assert change() == ()
    assert change("300000:5 2800000:80", "300000:5 2800000:160") == ()
    assert change("300000:5 1800000:0 2800000:80", "300000:5 1800000:30 2800000:130") == (
        "the clock moved between 2800000 and 1800000 kHz",
    )
    # Neighbours of the main clock are no other speed.
    assert change("2750000:0 2800000:0", "2750000:40 2800000:45") == ()
    # The ramp at the beginning, and too few ticks.
    assert change("1800000:0 2800000:0", "1800000:15 2800000:85") == ()
    assert change("1800000:0 2800000:0", "1800000:9 2800000:10") == ()
    for nonsense in (("", ""), ("a b", "1:x"), ("2800000:80",), ("5:9", "5:1")):
        assert validity.clocks_of_runs(nonsense) == {}


def test_delegates() -> None:
    gpu = Target("adb:1", "benchmark_model", "litert", 1, "gpu")
    assert validity.unused_delegate(measured()) == ""
    assert validity.unused_delegate(measured(delegated_nodes=20)) == ""
    assert (
        validity.unused_delegate(measured(delegated_nodes=0))
        == "xnnpack took no operator of the graph"
    )
    assert validity.unused_delegate(measured(target=gpu, delegated_nodes=20)) == (
        "gpu took 20 of 31 operators only"
    )
    assert validity.unused_delegate(measured(delegated_nodes=None, total_nodes=None)) == ""
    none = Target("adb:1", "native", "litert", 1, "none")
    assert validity.unused_delegate(measured(target=none, delegated_nodes=0)) == ""


def test_an_accelerator_that_leaves_operators_names_them() -> None:
    left = (
        LeftOperator("CAST", ("cast_1", "cast_2"), "Not supported Cast case."),
        LeftOperator("SOFTMAX", ("scores",)),
        LeftOperator("MEAN", ("pool",)),
        LeftOperator("PAD", ()),
    )
    gpu = Target("adb:1", "benchmark_model", "litert", 1, "gpu")
    one = measured(target=gpu, delegated_nodes=27, left_operators=left)
    assert validity.unused_delegate(one) == (
        "gpu took 27 of 31 operators only; on the CPU: CAST (cast_1 or cast_2): Not supported Cast "
        "case., SOFTMAX (scores), MEAN (pool), 1 more"
    )
    nnapi = replace(gpu, delegate="nnapi")
    assert "nnapi took 27 of" in validity.unused_delegate(
        measured(target=nnapi, delegated_nodes=27)
    )


def test_strict_takes_the_whole_graph_only() -> None:
    def reason(**given) -> str:
        return validity.unused_delegate(measured(**given), strict=True)

    assert reason() == ""
    assert reason(delegated_nodes=30) == "xnnpack took 30 of 31 operators only"
    assert reason(delegated_nodes=0) == "xnnpack took no operator of the graph"
    # What is not known is not the whole graph.
    for unknown in ({"delegated_nodes": None}, {"total_nodes": None}):
        assert reason(**unknown) == "which operators xnnpack took is not known"


def test_cool() -> None:
    assert validity.cool(FACTS, FACTS)
    assert validity.cool(FACTS, FACTS | {"temperature_cpu_c": "40.9"})
    assert not validity.cool(FACTS, FACTS | {"temperature_cpu_c": "45.0"})
    assert not validity.cool(FACTS, FACTS | {"thermal_status": "2"})
    assert validity.cool(FACTS, {})
    assert validity.cool(FACTS, FACTS | {"battery_c": "warm"})
