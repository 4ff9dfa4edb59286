"""bench and its rules on a simulated phone, through the stock adb."""

from __future__ import annotations

import json
import threading
import time

import pytest
from click.testing import CliRunner

from mobiledeploy.cli.bench import command
from mobiledeploy.core import records
from mobiledeploy.core.errors import DeviceError, InputError, UsageError, VoidError
from mobiledeploy.devices import _remote
from mobiledeploy.steps import phones, resolve
from mobiledeploy.store.database import Store
from mobiledeploy.verbs import results
from mobiledeploy.verbs.bench import bench
from mobiledeploy.verbs.calibrate import calibrate
from mobiledeploy.verbs.cold_start import cold_start
from mobiledeploy.verbs.compare import compare
from tests import figures


@pytest.fixture(autouse=True)
def _soon_cool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phones, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(phones, "COOL_SECONDS", 0.05)
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 1.0)


@pytest.fixture
def path(exported):
    return exported["int8_ptq", "tflite"]


def test_a_phone_is_measured(phone, scripted, path, here, heard) -> None:
    (measurement,) = bench([path], device="pixel", runner="scripted", reporter=heard).measurements
    assert measurement.kind == "measured"
    assert measurement.target.device == f"adb:{phone.serial}"
    assert measurement.median_ns == pytest.approx(2e6, rel=0.01)
    assert (measurement.delegated_nodes, measurement.total_nodes) == (31, 31)
    assert measurement.facts_before["model"] == measurement.facts_after["model"] == "Pixel 3"
    # One thread: the one prime core; two: the next cluster too.
    assert set(phone.lines_of("masks")) == {"80"}
    with Store.open() as store:
        assert store.measurement(measurement.artifact_sha256, measurement.target) == measurement
    assert phone.files() == []
    bench([path], device="adb", runner="scripted", threads=2, runs=10, reporter=heard)
    assert phone.lines_of("masks")[-1] == "f0"


def test_a_card_is_held_against_the_phone_and_gets_its_points(
    phone, scripted, exported, here, monkeypatch, heard
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    device, paths = f"adb:{phone.serial}", [exported["float32", "tflite"]]
    figures.write_card(paths[0], device, slower=8.6)
    bench(paths, device="mine", reporter=heard)
    bench(paths, device="adb", runner="scripted", reporter=heard)
    (one,) = results.results_calibration(reporter=heard).calibrations
    (pair,) = one.pairs
    assert (one.card, pair.device, one.counted) == ("mine", device, 1)
    assert pair.latency_ns == pytest.approx(2e6, rel=0.01)
    before = pair.forecast
    assert before.error == pytest.approx(before.latency_ns / pair.latency_ns - 1)
    assert 0.05 < before.error < 0.2
    # The timing becomes a point, and the card expects it.
    card = calibrate("mine", paths, device=device, add=True, reporter=heard).card
    assert card.models == ("Pixel 3",)
    (again,) = bench(paths, device="mine", reporter=heard).measurements
    assert again.fit.is_point
    assert abs(again.latency_ns / pair.latency_ns - 1) < abs(before.error)
    # What was expected before it was a point is still what is held against the timing.
    assert results.results_calibration(reporter=heard).calibrations == (one,)


def test_a_phone_starts_fresh_processes(phone, scripted, path, here, heard) -> None:
    (cold,) = cold_start([path], device="pixel", runner="scripted", reporter=heard).cold_starts
    assert cold.target.device == f"adb:{phone.serial}"
    assert cold.facts_before["model"] == cold.facts_after["model"] == "Pixel 3"
    samples = {figure.name: figure.samples for figure in cold.figures}
    assert samples["first_inference_ns"] == tuple(range(1_000_001, 1_000_011))
    assert samples["first_answer_ns"] == tuple(range(8_000_001, 8_000_011))
    assert samples["library_ns"] == (5_000_000,) * 10
    assert "load_ns" not in samples
    assert set(phone.lines_of("masks")) == {"80"}
    assert phone.lines_of("cmd") == []
    assert phone.files() == []
    with Store.open() as store:
        assert [kept.cold_start for kept in store.cold_starts()] == [cold]


@pytest.mark.slow
def test_a_cold_start_is_void_like_a_timing(phone, scripted, path, here, heard) -> None:
    charger(phone)
    (cold,) = cold_start(
        [path], device="adb", runner="scripted", runs=6, reporter=heard
    ).cold_starts
    assert cold.facts_before["charger"] == "none"
    (again,) = [line for line in heard.said if "void" in line]
    assert "the charger went USB -> none; cooling down, then try 2 of 3" in again
    throttle(phone)
    with pytest.raises(VoidError, match="int8_ptq.tflite in 3 tries: .*throttles"):
        cold_start([path], device="adb", runner="scripted", runs=6, reporter=heard)
    with Store.open() as store:
        assert len(store.cold_starts()) == 1
    assert phone.files() == []


def test_a_runner_that_does_not_tell_its_steps_is_refused(
    phone, scripted, path, here, heard
) -> None:
    phone.plant("old")
    with pytest.raises(DeviceError, match="did not tell its times of loading"):
        cold_start([path], device="adb", runner="scripted", reporter=heard)
    phone.heal("old")
    phone.plant("garbage", "hello")
    with pytest.raises(DeviceError, match="which is not a line of its protocol"):
        cold_start([path], device="adb", runner="scripted", reporter=heard)
    # A runner of another package, of before there were cold starts.
    del scripted.cold
    with pytest.raises(UsageError, match="scripted does not tell how a model is loaded"):
        cold_start([path], device="adb", runner="scripted", reporter=heard)
    assert phone.files() == []


@pytest.mark.slow
def test_fixed_performance_is_used_if_it_helps(phone, scripted, path, here, heard):
    (measurement,) = bench([path], device="adb", runner="scripted", reporter=heard).measurements
    effect = measurement.facts_before["fixed_performance"]
    assert effect.startswith(("on: with it 1.00 times", "off: with it 1.00 times"))
    assert [line.split()[-1] for line in phone.lines_of("cmd")][:5] == [
        "true",
        "false",
        "true",
        "true",
        "false",
    ]
    assert phone.lines_of("cmd")[-1].endswith("false")
    before = len(phone.lines_of("cmd"))
    bench([path], device="adb", runner="scripted", runs=9, fixed_performance=False, reporter=heard)
    assert len(phone.lines_of("cmd")) == before


def meanwhile(phone, command: str) -> None:
    """A shell command that happens on the phone when a runner is started."""
    phone.tool("taskset", f'#!/bin/sh\n{command}\nshift; exec "$@"\n')


def throttle(phone) -> None:
    meanwhile(phone, 'sed -i "s/Status: ./Status: 2/" "$PHONE/dumpsys-thermalservice"')


def charger(phone) -> None:
    meanwhile(phone, 'sed -i "s/USB powered: true/USB powered: false/" "$PHONE/dumpsys-battery"')


def screen(phone) -> None:
    meanwhile(phone, 'echo mWakefulness=Dozing > "$PHONE/dumpsys-power"')


def cap(phone) -> None:
    cpu = '"$PHONE/sys/devices/system/cpu/cpu7/cpufreq'
    meanwhile(phone, f'echo 1800000 > {cpu}/scaling_max_freq"')


def clock(phone) -> None:
    cpu = '"$PHONE/sys/devices/system/cpu/cpu7/cpufreq'
    ticks = "300000 5\\n1800000 30\\n2800000 115\\n"
    meanwhile(phone, f'printf "{ticks}" > {cpu}/stats/time_in_state"')


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (throttle, "throttles .thermal status 2 after"),
        pytest.param(charger, "the charger went USB -> none", marks=pytest.mark.slow),
        pytest.param(screen, "the screen went on -> off", marks=pytest.mark.slow),
        pytest.param(cap, "the highest clock allowed went", marks=pytest.mark.slow),
    ],
)
def test_a_change_during_the_timing_voids_the_measurement(
    phone, scripted, path, here, heard, happens, message
) -> None:
    happens(phone)
    settings = {
        "device": "adb",
        "runner": "scripted",
        "fixed_performance": False,
        "reporter": heard,
    }
    if happens is throttle:
        with pytest.raises(VoidError, match=f"int8_ptq.tflite in 3 tries: .*{message}") as excinfo:
            bench([path], **settings)
        assert excinfo.value.exit_code == 4
        assert len(heard.said) == 2
        assert not list(here.glob("*.json"))
    else:
        # It happens once; the next attempt is valid.
        (measurement,) = bench([path], **settings).measurements
        assert measurement.median_ns
        (line,) = heard.said
        assert "void" in line
        assert "then try 2 of 3" in line
    assert phone.files() == []


def test_a_clock_that_moves_voids_it(phone, scripted, path, here, heard) -> None:
    clock(phone)
    bench(
        [path], device="adb", runner="scripted", runs=300, fixed_performance=False, reporter=heard
    )
    assert "the clock moved between 2800000 and 1800000 kHz" in heard.said[0]


def test_a_phone_that_slows_down_voids_it(phone, scripted, path, here, heard) -> None:
    phone.pace(drift=0.5, span=1.0)
    with pytest.raises(VoidError, match="% slower from their first to last quarter"):
        bench(
            [path],
            device="adb",
            runner="scripted",
            runs=500,
            fixed_performance=False,
            reporter=heard,
        )


@pytest.mark.slow
def test_an_uncertain_median_voids_it(phone, scripted, path, here, heard) -> None:
    phone.pace(noise=1.5, **{"": 3e7})
    settings = {
        "device": "adb",
        "runner": "scripted",
        "fixed_performance": False,
        "reporter": heard,
    }
    with pytest.raises(VoidError, match="the median is known to"):
        bench([path], seconds=0.01, **settings)
    (measurement,) = bench([path], runs=10, **settings).measurements
    assert "wide-interval" in {warning.name for warning in measurement.warnings}


def test_an_unused_delegate_voids_it(phone, scripted, path, here, heard) -> None:
    phone.pace(delegated=0)
    with pytest.raises(VoidError, match="void: int8_ptq.tflite: xnnpack took no operator"):
        bench([path], device="adb", runner="scripted", fixed_performance=False, reporter=heard)
    (measurement,) = bench(
        [path], device="adb", runner="scripted", delegate="none", reporter=heard
    ).measurements
    assert measurement.target.delegate == "none"
    phone.pace(delegated=20)
    with pytest.raises(VoidError, match="gpu took 20 of 31 operators only"):
        bench(
            [path],
            device="adb",
            runner="scripted",
            delegate="gpu",
            fixed_performance=False,
            reporter=heard,
        )


@pytest.mark.parametrize(
    ("fault", "content", "message"),
    [
        ("garbage", "WARNING: linker: unsupported flags", "which is not a line of its protocol"),
        pytest.param("killed", "", "was killed by signal 9", marks=pytest.mark.slow),
        ("unplug-run", "Timed", "was lost|is offline"),
        pytest.param("unplug-push", "20000", "was lost|is offline", marks=pytest.mark.slow),
        ("full", "", "is full"),
        pytest.param("corrupt", "", "as another file", marks=pytest.mark.slow),
        ("hang", "scripted_runner.py bench", "hangs: no output for 2 s"),
    ],
)
def test_faults_end_in_one_line_and_leave_nothing(
    phone, scripted, path, here, heard, monkeypatch, fault, content, message
) -> None:
    monkeypatch.setattr("mobiledeploy.steps.timings.PATIENCE_S", 2.0)
    phone.plant(fault, content)
    settings = {"device": f"adb:{phone.serial}", "runner": "scripted", "reporter": heard}
    with pytest.raises(DeviceError, match=message) as excinfo:
        bench([path], fixed_performance=False, record=here / "record.json", **settings)
    assert "\n" not in str(excinfo.value)
    assert not (here / "record.json").exists()
    phone.heal(fault)
    if fault.startswith("unplug"):
        phone.heal("refuse")
        phone.connect()
        bench([path], runs=6, fixed_performance=False, **settings)
    assert phone.files() == []
    with Store.open() as store:
        target = resolve.ResolvedDevice("adb", f"adb:{phone.serial}")
        assert target.phone
        assert (store._rows("SELECT count(*) FROM measurement") == [1]) == fault.startswith(
            "unplug"
        )


def test_a_phone_that_is_back_within_ten_seconds_is_left_clean(
    phone, scripted, path, here, heard, monkeypatch
) -> None:
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 10.0)
    phone.plant("unplug-run", "Timed")

    def plug_in() -> None:
        while not (phone.root / "faults/refuse").exists():
            time.sleep(0.05)
        time.sleep(1)
        phone.heal("unplug-run")
        phone.heal("refuse")
        phone.connect()

    hand = threading.Thread(target=plug_in)
    hand.start()
    settings = {"runner": "scripted", "fixed_performance": False, "reporter": heard}
    with pytest.raises(DeviceError, match="was lost|is offline"):
        bench([path], device=f"adb:{phone.serial}", **settings)
    hand.join()
    assert phone.files() == []
    assert "left-behind" not in {warning.name for warning in heard.warnings}


@pytest.mark.slow
def test_a_slow_link_is_only_slow(phone, scripted, path, here, heard) -> None:
    phone.plant("slow", "500000")
    (measurement,) = bench(
        [path], device="adb", runner="scripted", runs=6, fixed_performance=False, reporter=heard
    ).measurements
    assert len(measurement.samples_ns) == 6


@pytest.mark.slow
def test_two_phones_serve_two_jobs_at_once(new_phone, scripted, path, here, heard) -> None:
    both = [new_phone("Pixel 3"), new_phone("Pixel 6")]
    made = {}

    def job(name: str) -> None:
        (made[name],) = bench([path], device=name, runner="scripted", reporter=heard).measurements

    threads = [threading.Thread(target=job, args=(name,)) for name in ("pixel-3", "pixel-6")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made[name].target.device for name in ("pixel-3", "pixel-6")] == [
        f"adb:{phone.serial}" for phone in both
    ]
    assert [phone.files() for phone in both] == [[], []]


def test_a_phone_by_its_model(new_phone, scripted, path, here) -> None:
    with pytest.raises(DeviceError, match="no phone pixel is connected; no phone is connected"):
        resolve.resolve("pixel", "adb")
    one, _ = new_phone("Pixel 3a"), new_phone("Galaxy S21")
    for name in ("pixel", "Pixel-3a", "pixel 3A"):
        assert resolve.resolve(name) == resolve.ResolvedDevice("adb", f"adb:{one.serial}")
    message = r"no phone pixel-3 is connected; connected: .*\(.*\), .*\(.*\); --device takes"
    with pytest.raises(DeviceError, match=message) as excinfo:
        resolve.resolve("pixel-3", "adb")
    assert excinfo.value.exit_code == 5
    new_phone("Pixel 6")
    with pytest.raises(UsageError, match="2 phones are a pixel; choose one: --device adb:"):
        resolve.resolve("pixel")
    with pytest.raises(UsageError, match="no Python runs on a phone"):
        bench([path], device="pixel-6", runner="python")


def test_a_recording_gives_the_same_bytes(phone, scripted, path, exported, here, heard) -> None:
    other = exported["float32", "tflite"]
    phone.pace(noise=0.05)
    file = here / "session.json"
    made = bench(
        [path, other], device="adb", runner="scripted", record=file, reporter=heard
    ).measurements
    phone.stop()
    again = bench([path, other], device=f"replay:{file}", reporter=heard).measurements
    assert [records.dumps(m) for m in again] == [records.dumps(m) for m in made]
    # A replay does not add a second figure, whenever it is done.
    assert [r.recorded for r in results.results().results] == [False, False]
    with pytest.raises(
        InputError, match=r"float16.tflite; name .*: int8_ptq.tflite, float32.tflite$"
    ):
        bench([exported["float16", "tflite"]], device=f"replay:{file}", reporter=heard)


@pytest.mark.slow
def test_a_void_session_is_recorded_too(phone, scripted, path, here, heard) -> None:
    phone.thermal(3)
    file = here / "session.json"
    with pytest.raises(VoidError) as first:
        bench([path], device="adb", runner="scripted", record=file, reporter=heard)
    with pytest.raises(VoidError) as second:
        bench([path], device=f"replay:{file}", reporter=heard)
    assert str(first.value) == str(second.value)


def test_a_file_that_is_not_a_recording_is_refused(here, path) -> None:
    (here / "cut.json").write_text('{"record": "Recording"')
    (here / "other.json").write_text(json.dumps({"schema_version": 1, "record": "Recording"}))
    for file, message in (
        ("none.json", "cannot be read"),
        ("cut.json", "is not JSON"),
        ("other.json", "asked"),
    ):
        with pytest.raises(InputError, match=message):
            bench([path], device=f"replay:{file}")
    with pytest.raises(UsageError, match="replay needs a recording; --device replay:FILE"):
        bench([path], device="replay")


@pytest.mark.slow
@pytest.mark.parametrize("slowdown", [pytest.param(1.0, marks=pytest.mark.slow), 1.05])
def test_a_drift_deceives_a_then_b_and_not_abba(
    phone, scripted, path, exported, here, heard, slowdown: float
) -> None:
    from mobiledeploy.analysis.comparison import one_after_the_other

    other = exported["float32", "tflite"]
    rounds, seconds = 6, 0.01
    # 10 % over what the comparison takes of the phone's own time.
    names = {path.name: 2e6, other.name: 2e6 * slowdown}
    phone.pace(noise=0.01, drift=0.1, span=4 * rounds * 0.06, **names)
    asked = {"device": "adb", "runner": "scripted", "seconds": seconds, "reporter": heard}
    file = here / "turns.json"
    made = compare(path, other, rounds=rounds, record=file, **asked)
    assert compare(path, other, device=f"replay:{file}") == made
    # Whether 1 lies in a 95 % interval is chance in one of twenty runs: benchmarks/drift.py counts.
    assert abs(made.ratio - slowdown) < 0.02
    low, high = made.interval
    assert high - low < 0.04
    assert phone.files() == []
    if slowdown > 1:
        assert made.changed
        arguments = [str(path), str(other), "--compare", "--device", f"replay:{file}"]
        done = CliRunner().invoke(command, arguments)
        assert "slower" in done.stdout
        assert f"{made.ratio:.3f}" in done.stdout
        return
    # The usual way, on the same phone.
    (phone.root / "lived").unlink()
    phone.pace(noise=0.01, drift=0.1, span=2 * rounds * 0.06, **names)
    blocks = [
        bench([file], runs=25, fixed_performance=False, **asked).measurements[0].median_ns
        for file in [path] * rounds + [other] * rounds
    ]
    usual = one_after_the_other(blocks[:rounds], blocks[rounds:])
    assert usual.changed
    assert usual.low > 1.02
