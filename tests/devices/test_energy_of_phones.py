"""bench --energy on a simulated phone that tells the current of its battery, and on replay."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiledeploy.cli.bench import command
from mobiledeploy.core import records
from mobiledeploy.core.errors import DeviceError, UsageError, VoidError
from mobiledeploy.core.types import Measured
from mobiledeploy.devices import _remote
from mobiledeploy.steps import energy
from mobiledeploy.store.database import Store
from mobiledeploy.verbs.bench import bench
from tests import perfetto

PI = """#!/bin/sh
[ "$*" = pmic_read_adc ] || exit 0
load=$(cat "$PHONE/sys/class/power_supply/battery/current_now")
echo "  VDD_CORE_A current(7)=$((load / 1000000)).50000000A"
echo "  VDD_CORE_V volt(15)=2.00000000V"
"""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 1.0)
    for name, seconds in (("BLOCK", 0.03), ("SETTLE", 0.01), ("PERIOD", 0.01)):
        monkeypatch.setattr(
            energy, f"{name}_SECONDS", dict.fromkeys(("battery", "pmic", "rails"), seconds)
        )


@pytest.fixture
def path(exported) -> Path:
    return exported["int8_ptq", "tflite"]


def measured(path: Path, heard, **options) -> Measured:
    (figure,) = bench(
        [path], runs=6, fixed_performance=False, energy=True, reporter=heard, **options
    ).measurements
    assert isinstance(figure, Measured)
    return figure


def test_a_phone_tells_its_energy(phone, scripted, path, here, heard) -> None:
    phone.battery(-200_000)
    phone.pace(load_ua=-900_000)
    figure = measured(path, heard, device="adb", runner="scripted", record="it.json")
    found = figure.energy
    assert found is not None
    assert (found.source, found.method) == ("battery", "current")
    assert found.idle_w == pytest.approx([0.8] * 6)
    assert found.load_w == pytest.approx([3.6] * 6)
    assert found.run_ns == pytest.approx([2e6] * 6, rel=0.01)
    # 2.8 W for 2 ms.
    assert found.above_idle_j == pytest.approx(5.6e-3, rel=0.01)
    assert found.interval_j == pytest.approx((5.6e-3, 5.6e-3), rel=0.01)
    assert found.whole_j == pytest.approx(7.2e-3, rel=0.01)
    assert figure.kind == "measured"
    with Store.open() as store:
        assert store.measurement(figure.artifact_sha256, figure.target) == figure
    assert phone.files() == []
    assert ("energy of int8_ptq.tflite", 12, 12) in heard.steps
    # Played back, it is the same to the byte.
    phone.stop()
    (again,) = bench([path], device="replay:it.json", reporter=heard).measurements
    assert records.dumps(again) == records.dumps(figure)


@pytest.mark.slow
def test_the_energy_of_several_files_is_played_back(phone, scripted, exported, here, heard) -> None:
    phone.battery(200_000)
    phone.pace(load_ua=900_000)
    # Each reading of the facts is another.
    phone.tool("getconf", '#!/bin/sh\necho x >> "$PHONE/asked"; wc -l < "$PHONE/asked"\n')
    paths = [exported["float32", "tflite"], exported["int8_ptq", "tflite"]]
    options = {"runs": 6, "fixed_performance": False, "energy": True, "reporter": heard}
    figures = bench(
        paths, device="adb", runner="scripted", record="it.json", **options
    ).measurements
    again = bench(paths, device="replay:it.json", reporter=heard).measurements
    assert [m.facts_before["page_bytes"] for m in figures] == [
        m.facts_before["page_bytes"] for m in again
    ]
    assert again == figures


def test_a_pmic_is_read_where_there_is_one(phone, scripted, path, here, heard) -> None:
    phone.battery(1_000_000)
    phone.pace(load_ua=3_000_000)
    phone.tool("vcgencmd", PI)
    found = measured(path, heard, device="adb", runner="scripted").energy
    assert found is not None
    assert (found.source, found.method) == ("pmic", "rails")
    assert found.idle_w == pytest.approx([3.0] * 6)
    assert found.load_w == pytest.approx([7.0] * 6)


RAILS = """#!/bin/sh
cat > "$PHONE/config"
load=$(cat "$PHONE/sys/class/power_supply/battery/current_now")
cat "$PHONE/trace-$load"
"""


def test_a_pixel_tells_its_rails_also_with_a_charger(phone, scripted, path, here, heard) -> None:
    phone.battery(1, status="Charging", charger="USB")
    phone.pace(load_ua=2)
    phone.tool("perfetto", RAILS)
    (phone.root / "trace-1").write_bytes(perfetto.trace([0.25, 0.75], 9))
    (phone.root / "trace-2").write_bytes(perfetto.trace([0.25, 2.75], 9))
    found = measured(path, heard, device="adb", runner="scripted", record="it.json").energy
    assert found is not None
    assert (found.source, found.method) == ("rails", "rails")
    assert found.idle_w == pytest.approx([1.0] * 6)
    assert found.load_w == pytest.approx([3.0] * 6)
    assert found.above_idle_j == pytest.approx(4e-3, rel=0.01)
    config = (phone.root / "config").read_text()
    assert "duration_ms: 40 data_sources" in config
    assert "collect_power_rails: true" in config
    (again,) = bench([path], device="replay:it.json", reporter=heard).measurements
    assert isinstance(again, Measured)
    assert again.energy == found


def test_the_command_line_shows_it(phone, scripted, path, here) -> None:
    phone.battery(200_000)
    phone.pace(load_ua=900_000)
    done = CliRunner().invoke(
        command, [str(path), "--device=adb", "--runner=scripted", "--runs=6", "--energy"]
    )
    assert done.exit_code == 0, done.output
    assert "energy of an inference, measured by its battery's current" in done.stdout
    assert "5.6 mJ" in done.stdout
    done = CliRunner().invoke(command, [str(path), "--energy", "--cold"])
    assert "--cold and --energy are two questions" in str(done.exception)


@pytest.mark.parametrize(
    ("battery", "reason", "advice"),
    [
        (None, "tells neither the current nor the charge", "measure another machine"),
        ({"status": "Charging"}, "is on a charger", "adb tcpip 5555"),
        ({"charger": "USB"}, "is on a charger", "adb tcpip 5555"),
    ],
)
def test_a_phone_that_cannot_tell_says_so_first(
    battery, reason: str, advice: str, phone, scripted, path, here, heard
) -> None:
    if battery:
        phone.battery(200_000, **battery)
    with pytest.raises(DeviceError, match=f"no energy: .*{reason}") as refusal:
        measured(path, heard, device="adb", runner="scripted")
    assert advice in refusal.value.hint
    # Nothing was timed.
    assert phone.lines_of("masks") == []
    assert phone.files() == []


@pytest.mark.parametrize(
    ("idle", "load", "reason"),
    [
        (200_000, 200_000, "is not above that at idle"),
        pytest.param(20, 90, "cannot be right", marks=pytest.mark.slow),
    ],
)
def test_what_the_readings_do_not_tell_is_void(
    idle: int, load: int, reason: str, phone, scripted, path, here, heard
) -> None:
    phone.battery(idle)
    phone.pace(load_ua=load)
    with pytest.raises(VoidError, match=f"void: energy of int8_ptq.tflite: .*{reason}"):
        measured(path, heard, device="adb", runner="scripted")
    with Store.open() as store:
        assert store.measurements_of(records.sha256(path)) == ()
    assert phone.files() == []


@pytest.mark.slow
def test_a_phone_that_throttles_meanwhile_has_none(phone, scripted, path, here, heard) -> None:
    phone.battery(200_000)
    phone.pace(load_ua=900_000)
    count = 'n=$(wc -l < "$PHONE/masks")'
    hot = 'sed -i "s/Status: ./Status: 2/" "$PHONE/dumpsys-thermalservice"'
    # After the timing, in the third block of load.
    phone.tool(
        "taskset",
        f'#!/bin/sh\necho $1 >> "$PHONE/masks"; {count}; [ $n -lt 4 ] || {hot}\nshift; exec "$@"\n',
    )
    with pytest.raises(VoidError, match="void: energy of .*: the phone throttles"):
        measured(path, heard, device="adb", runner="scripted")


def test_other_devices_and_runners_are_refused(phone, path, here, heard, monkeypatch) -> None:
    with pytest.raises(UsageError, match="--energy is for phones and boards, not for host"):
        measured(path, heard, device="host")
    monkeypatch.setenv("MOBILEDEPLOY_BENCHMARK_MODEL", "/bin/true")
    with pytest.raises(UsageError, match="benchmark_model pauses between its starts"):
        measured(path, heard, device="adb", runner="benchmark_model")
