"""bench, evaluate, check and verify on a board, through the stock ssh and a real sshd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobiledeploy.core import records
from mobiledeploy.core.errors import DeviceError, UsageError, VoidError
from mobiledeploy.core.plugins import RUNNERS
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Target
from mobiledeploy.devices import _remote
from mobiledeploy.devices import emulator as emulated
from mobiledeploy.devices import ssh as device
from mobiledeploy.steps import energy, phones
from mobiledeploy.verbs import results
from mobiledeploy.verbs.bench import bench
from mobiledeploy.verbs.calibrate import calibrate
from mobiledeploy.verbs.check import check, update_baseline
from mobiledeploy.verbs.cold_start import cold_start
from mobiledeploy.verbs.compare import compare
from mobiledeploy.verbs.evaluate import evaluate
from mobiledeploy.verbs.verify import verify

DEVICE = "ssh:board"


@pytest.fixture(autouse=True)
def _soon_cool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phones, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(phones, "COOL_SECONDS", 0.05)
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 5.0)


@pytest.fixture
def path(unsigned: Path) -> Path:
    return unsigned / "int8_ptq.tflite"


def test_a_board_is_measured_recorded_and_played_back(board, scripted, path, here, heard) -> None:
    file = here / "session.json"
    asked = {"runner": "scripted", "runs": 60, "record": file, "reporter": heard}
    (made,) = bench([path], device=DEVICE, **asked).measurements
    assert (made.kind, made.target.device) == ("measured", DEVICE)
    assert made.median_ns == pytest.approx(2e6, rel=0.01)
    assert made.facts_before["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert made.facts_before["fixed_performance"] == "not there"
    assert board.files() == board.commands() == []
    board.unplug()
    try:
        done = bench([path], device=f"replay:{file}", reporter=heard)
    finally:
        board.plug()
    assert records.dumps(done.measurements[0]) == records.dumps(made)
    (table,) = done.tables()
    assert "Raspberry Pi 5 Model B Rev 1.0 (brcm,bcm2712, ssh:board)" in table.title


PMIC = """#!/bin/sh
case "$*" in
  get_throttled) cat "$PHONE/throttled";;
  pmic_read_adc)
    load=$(cat "$PHONE/sys/class/power_supply/battery/current_now")
    echo "  VDD_CORE_A current(7)=$load.50000000A"
    echo "  VDD_CORE_V volt(15)=2.00000000V"
    echo "  EXT5V_V volt(24)=5.15000000V";;
esac
"""


def test_a_board_tells_its_energy_by_its_pmic(
    board, scripted, path, here, heard, monkeypatch
) -> None:
    for name, seconds in (("BLOCK", 0.03), ("SETTLE", 0.01), ("PERIOD", 0.01)):
        monkeypatch.setattr(energy, f"{name}_SECONDS", {"pmic": seconds})
    supply = board.folder / "sys/class/power_supply/battery"
    supply.mkdir(parents=True)
    (supply / "current_now").write_text("1\n")
    board.pace(load_ua=3)
    board.tool("vcgencmd", PMIC)
    try:
        asked = {"runner": "scripted", "runs": 6, "energy": True, "reporter": heard}
        (made,) = bench([path], device=DEVICE, **asked).measurements
    finally:
        shutil.rmtree(supply.parent)
    found = made.energy
    assert (found.source, found.method) == ("pmic", "rails")
    assert found.idle_w == pytest.approx([3.0] * 6)
    assert found.load_w == pytest.approx([7.0] * 6)
    # 4 W for 2 ms.
    assert found.above_idle_j == pytest.approx(8e-3, rel=0.01)
    assert board.files() == board.commands() == []
    # Without a PMIC of that kind, and without a battery.
    board.throttled("0x0")
    with pytest.raises(DeviceError, match="no energy: it tells neither the current nor the charge"):
        bench([path], device=DEVICE, **asked)


def test_a_board_adds_points_to_a_card_of_the_package(
    board, scripted, path, here, monkeypatch, heard
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    bench([path], device=DEVICE, runner="scripted", runs=60, reporter=heard)
    card = calibrate("raspberry-pi-5", [path], device=DEVICE, add=True, reporter=heard).card
    assert card.devices == (DEVICE,)
    assert card.models == ("Raspberry Pi 5 Model B Rev 1.0",)
    assert [s.points[-1].latency_ns for s in card.series if s.is_own] == [
        pytest.approx(2e6, rel=0.01)
    ]
    bench([path], device="raspberry-pi-5", reporter=heard)
    (one,) = results.results_calibration(reporter=heard).calibrations
    assert one.card == "raspberry-pi-5"
    # A network that is a point says nothing about others.
    assert (one.counted, [pair.forecast.is_point for pair in one.pairs]) == (0, [True])


def meanwhile(board, command: str) -> None:
    """A shell command that happens on the board when a runner is started."""
    board.tool("taskset", f'#!/bin/sh\n{command}\nshift; exec "$@"\n')
    for core in range(4):
        board.core(core, 2_400_000 if core == 3 else 1_800_000)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ('echo throttled=0x50005 > "$PHONE/throttled"', "the board says: its voltage is too low"),
        pytest.param(
            'echo 1000000 > "$PHONE/sys/devices/system/cpu/cpu3/cpufreq/scaling_max_freq"',
            "the highest clock allowed went",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'echo performance > "$PHONE/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"',
            "the governor went",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_change_during_the_timing_voids_it(
    board, scripted, path, here, heard, command, message
) -> None:
    meanwhile(board, command)
    asked = {"device": DEVICE, "runner": "scripted", "runs": 60, "reporter": heard}
    if "throttled" in command:
        with pytest.raises(VoidError, match=f"in 3 tries: .*{message}") as void:
            bench([path], **asked)
        assert void.value.exit_code == 4
    else:
        # It happens once; the next try is valid.
        bench([path], **asked)
        (line,) = heard.said
        assert message in line
    assert board.files() == []


@pytest.mark.parametrize(
    ("fault", "content", "message"),
    [
        pytest.param(
            "garbage", "Welcome", "which is not a line of its protocol", marks=pytest.mark.slow
        ),
        pytest.param("killed", "", "was killed by signal 9", marks=pytest.mark.slow),
        ("unplug-run", "Timed", "the connection to board was lost"),
        pytest.param(
            "hang", "scripted_runner.py bench", "hangs: no output for 2 s", marks=pytest.mark.slow
        ),
    ],
)
def test_faults_end_in_one_line_and_leave_nothing(
    board, scripted, path, here, heard, monkeypatch, fault, content, message
) -> None:
    monkeypatch.setattr("mobiledeploy.steps.timings.PATIENCE_S", 2.0)
    board.plant(fault, content)
    with pytest.raises(DeviceError, match=message) as failed:
        bench([path], device=DEVICE, runner="scripted", record=here / "r.json", reporter=heard)
    assert failed.value.exit_code == 5
    assert "\n" not in str(failed.value)
    assert not (here / "r.json").exists()
    assert board.files() == []


def test_an_interrupted_timing_leaves_nothing(board, path, here, emulator) -> None:
    command = f"-m mobiledeploy bench --device {DEVICE} --runs 100000000".split()
    with subprocess.Popen(
        [sys.executable, *command, str(path)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        until = time.monotonic() + 60
        while not any(" --model " in line for line in board.commands()):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert said.split()[-1:] == ["interrupted"]
    assert board.files() == board.commands() == []


@pytest.mark.slow
def test_two_files_are_compared_in_turns(board, scripted, path, unsigned, here, heard) -> None:
    other = unsigned / "float32.tflite"
    board.pace(noise=0.01, **{path.name: 2e6, other.name: 2.4e6})
    file = here / "turns.json"
    asked = {"runner": "scripted", "seconds": 0.01, "rounds": 6, "reporter": heard}
    made = compare(path, other, device=DEVICE, record=file, **asked)
    assert abs(made.ratio - 1.2) < 0.02
    assert compare(path, other, device=f"replay:{file}") == made
    assert board.files() == []


def test_a_board_starts_fresh_processes(board, emulator, path, here, heard) -> None:
    (cold,) = cold_start([path], device=DEVICE, runs=6, reporter=heard).cold_starts
    assert (cold.target.device, cold.target.runner) == (DEVICE, "native")
    assert [len(figure.samples) for figure in cold.figures] == [6] * 6
    assert all(min(figure.samples) > 0 for figure in cold.figures)
    assert cold.library_bytes is not None
    assert board.files() == board.commands() == []


def test_a_board_predicts_as_the_host(board, emulator, path, here, heard) -> None:
    options = {"limit": 6, "reporter": heard}
    (own,) = evaluate([path], **options).evaluations
    (away,) = evaluate([path], device=DEVICE, threads=2, **options).evaluations
    assert away.predictions == own.predictions
    assert (away.target.device, away.target.runner, away.isa) == (DEVICE, "native", "x86_64")
    assert board.files() == board.commands() == []


@pytest.mark.slow
def test_an_answer_that_loses_a_bit(board, emulator, path, here, heard) -> None:
    board.plant("garble")
    with pytest.raises(DeviceError, match="image 11 arrived damaged") as failed:
        evaluate([path], device=DEVICE, limit=2, reporter=heard)
    assert failed.value.exit_code == 5
    assert board.files() == []


@pytest.mark.slow
def test_a_board_is_judged_as_a_phone(board, emulator, path, here, heard) -> None:
    accepted = {"baseline": here / "accepted.json", "no_labels": True, "reporter": heard}
    update_baseline([path], **accepted)
    (one,) = check([path], device=DEVICE, limit=4, max_flips=40.0, **accepted).checks
    assert (one.flips, one.images, one.target.device) == (0, 4, DEVICE)
    done = verify(path, device=DEVICE, reporter=heard)
    assert (done.sound, done.device, done.isa) == (True, DEVICE, "x86_64")
    (timing,) = bench([path], device=DEVICE, runs=6, reporter=heard).measurements
    assert timing.golden_steps <= 1
    assert board.files() == board.commands() == []


def test_what_a_board_does_not_have_is_refused(here, path, heard) -> None:
    with pytest.raises(UsageError, match="no Python runs on a phone or board; --runner native"):
        bench([path], device=DEVICE, runner="python", reporter=heard)


def test_an_aarch64_board(arm_board) -> None:
    with device.open(DEVICE, exclusive=True, reporter=SILENT) as session:
        facts = session.facts()
        expected = {"machine": "aarch64", "model": "Linux machine", "core_capacity": "0:2400000"}
        assert {key: facts.get(key) for key in expected} == expected
        with pytest.raises(DeviceError, match="true is for x86_64, and board is aarch64"):
            session.push(Path("/bin/true").resolve())
    assert arm_board.files() == []


@pytest.mark.parametrize(
    "machine", ["aarch64", pytest.param("bare-aarch64", marks=pytest.mark.slow)]
)
def test_the_runner_on_an_aarch64_board_answers_as_on_an_emulated_core(
    arm_board, emulator, path, tmp_path, machine: str
) -> None:
    target = Target("", "native", "litert", 1, "xnnpack")
    runner = RUNNERS.load("native")
    outputs = []
    for plugin, name in ((device, DEVICE), (emulated, "emulator:cortex-a76")):
        with plugin.open(name, exclusive=True, reporter=SILENT) as session:
            # A bare one gets all that the runner needs.
            wanted = runner.files(machine if plugin is device else "aarch64", "litert")
            files = {role: session.push(file) for role, file in wanted.items()}
            model = session.push(path)
            remote = f"{Path(model).parent}/out" if plugin is device else str(tmp_path / "there")
            argv = runner.bench(model, target, None, files)
            process = session.run([*argv, "--output", remote, "--max-runs", "2"])
            lines = list(process.lines())
            assert process.wait()[0] == 0, lines
            session.pull(remote, tmp_path / plugin.__name__)
            outputs.append((tmp_path / plugin.__name__).read_bytes())
    assert outputs[0] == outputs[1]
    assert outputs[0]


@pytest.mark.slow
def test_an_aarch64_board_is_judged(arm_board, emulator, path, here, heard) -> None:
    (away,) = evaluate([path], device=DEVICE, limit=4, reporter=heard).evaluations
    (own,) = evaluate([path], limit=4, reporter=heard).evaluations
    assert away.predictions == own.predictions
    assert away.isa == "aarch64 asimd asimdhp asimddp"
    assert verify(path, device=DEVICE, reporter=heard).sound
    assert arm_board.files() == []
