"""The stock adb and Debian's adbd, all of the phone's programs AArch64 (arm_phone.sh)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mobiledeploy.core import artifacts
from mobiledeploy.core.errors import DeviceError
from mobiledeploy.core.plugins import RUNNERS
from mobiledeploy.core.ports import SILENT
from mobiledeploy.core.types import Target
from mobiledeploy.devices import adb as device
from mobiledeploy.devices import emulator as emulated
from mobiledeploy.verbs.evaluate import evaluate

ODD = [
    "a b",
    "'",
    '"',
    "; touch /data/hacked",
    "$(touch /data/hacked)",
    "`id`",
    "*",
    "\\",
    "-n",
    "",
    "ü",
    "&",
    "|",
    "#",
]


def shell(serial: str, command: str) -> str:
    return subprocess.run(
        ["adb", "-s", serial, "shell", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout


def test_a_session(arm_phone, tmp_path) -> None:
    file = tmp_path / "$(id);' x.bin"
    file.write_bytes(bytes(range(256)) * 4000)
    # The banner of Debian's adbd does not tell it.
    assert [one.about for one in device.available()] == ["ARM phone, through adb"]
    with device.open("adb", exclusive=True, reporter=SILENT) as session:
        facts = session.facts()
        assert (facts["model"], facts["machine"]) == ("ARM phone", "aarch64")
        assert (facts["core_capacity"], facts["taskset"]) == ("0:2400000", "yes")
        remote = session.push(file)
        session.pull(remote, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == file.read_bytes()
        process = session.run(["printf", "%s\\n", *ODD])
        assert [line.removesuffix("\n") for line in process.lines()] == ODD
        assert process.wait() == (0, "")
        echo = session.run(["cat"])
        echo.send("abc")
        assert next(echo.lines()) == "abc\n"
        echo.stop()
        assert echo.wait() == (0, "")
        assert session.run(["sh", "-c", "kill -9 $$"]).wait()[0] == -9
        session.run(["sleep", "1234"])
    assert shell(arm_phone, "ls -A /data/local/tmp; ls /data") == "local\n"
    assert "1234" not in shell(arm_phone, "cat /proc/[0-9]*/cmdline")


def test_a_program_of_this_machine_is_refused(arm_phone) -> None:
    program = Path("/bin/true").resolve()
    with (
        device.open("adb", exclusive=True, reporter=SILENT) as session,
        pytest.raises(DeviceError, match="true is for x86_64, and .* runs arm64-v8a"),
    ):
        session.push(program)


@pytest.mark.parametrize("machine", ["aarch64", "android-aarch64"])
def test_the_runner_there_answers_as_it_does_on_an_emulated_core(
    arm_phone, emulator, exported, tmp_path, machine: str
) -> None:
    path = exported["int8_ptq", "tflite"]
    target = Target("", "native", "litert", 1, "xnnpack")
    runner = RUNNERS.load("native")
    outputs = []
    for plugin, name in ((device, "adb"), (emulated, "emulator:cortex-a76")):
        with plugin.open(name, exclusive=True, reporter=SILENT) as session:
            # Of Android's kind, it brings all that it needs.
            wanted = runner.files(machine if plugin is device else "aarch64", "litert")
            files = {role: session.push(file) for role, file in wanted.items()}
            model = session.push(path)
            remote = f"{device.FOLDER}/out" if plugin is device else str(tmp_path / "there")
            argv = runner.bench(model, target, None, files)
            process = session.run([*argv, "--output", remote, "--max-runs", "2"])
            message = list(process.lines())
            assert process.wait()[0] == 0, message
            assert any('"record":"Done"' in line for line in message)
            session.pull(remote, tmp_path / plugin.__name__)
            outputs.append((tmp_path / plugin.__name__).read_bytes())
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == artifacts.load(path).spec.classes


def test_a_file_is_judged_there_as_on_the_host(arm_phone, emulator, unsigned, here, heard) -> None:
    path = unsigned / "int8_ptq.tflite"
    (away,) = evaluate([path], device="adb", limit=4, reporter=heard).evaluations
    (own,) = evaluate([path], limit=4, reporter=heard).evaluations
    assert away.predictions == own.predictions
    assert (away.target.device, away.target.delegate) == (f"adb:{arm_phone}", "xnnpack")
    assert away.isa == "aarch64 asimd asimdhp asimddp"
    assert shell(arm_phone, "ls -A /data/local/tmp") == ""
