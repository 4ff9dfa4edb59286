"""doctor --phone on a simulated phone: each fault of a first contact has a line of advice."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from mobiledeploy.cli.doctor import command
from mobiledeploy.core import native, records
from mobiledeploy.core.errors import UsageError
from mobiledeploy.devices import _remote
from mobiledeploy.steps import first_contact
from mobiledeploy.steps.first_contact import ContactStep, FirstContact
from mobiledeploy.verbs.doctor import doctor_phone

# A phone of this machine's kind: the native runner is not emulated there.
PROPERTIES = """ro.product.model=Pixel 3
ro.soc.model=SM8150
ro.product.cpu.abilist=x86_64
ro.serialno=R58M999SECRET
ro.build.fingerprint=google/eng.alice/1
gsm.operator.alpha=Telecom
"""


@pytest.fixture(autouse=True)
def _soon_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 1.0)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)


@pytest.fixture
def linux_phone(emulator, phone):
    (phone.root / "properties").write_text(PROPERTIES)
    return phone


def contact(heard) -> FirstContact:
    """The contact, which is also in its file."""
    contact_ = doctor_phone(record="contact.json", reporter=heard)
    assert records.loads(FirstContact, Path("contact.json").read_text()) == contact_
    assert tuple(step.name for step in contact_.steps) == first_contact.STEPS
    return contact_


def steps(heard) -> dict[str, ContactStep]:
    return {step.name: step for step in contact(heard).steps}


def test_a_ready_phone_is_ready(linux_phone, here, heard) -> None:
    contact_ = contact(heard)
    states = {step.name: step.state for step in contact_.steps}
    # It is no Android and has no battery's files, which is told; all else is as it should be.
    assert {name for name, state in states.items() if state != "ok"} == {"system", "energy"}
    assert contact_.exit_code == 0
    by_name = {step.name: step for step in contact_.steps}
    assert by_name["runner"].about == "it starts, and opens litert"
    assert by_name["heat"].about == "thermal status 0, CPU 43.0 °C"
    assert by_name["battery"].about == "87 %, 28.1 °C, charger USB"
    assert len(heard.said) == len(first_contact.STEPS)
    assert heard.said[0].startswith("1 of 13, adb: ok: version ")
    assert linux_phone.files() == []
    # Nothing is set on it.
    assert linux_phone.lines_of("cmd") == []


def test_the_record_holds_nothing_private(linux_phone, here, heard, monkeypatch) -> None:
    battery = linux_phone.root / "dumpsys-battery"
    battery.write_text(battery.read_text() + "  serial number: R58M999SECRET\n  voltage: 4100\n")
    mouse = linux_phone.root / "sys/class/power_supply/hid-aa:bb:cc:dd:ee:ff-battery"
    mouse.mkdir(parents=True)
    (mouse / "type").write_text("Battery\n")
    contact_ = contact(heard)
    text = Path("contact.json").read_text()
    for private in (
        linux_phone.serial,
        "R58M999SECRET",
        "alice",
        "aa:bb:cc",
        "Telecom",
        socket.gethostname(),
        str(Path.home()),
        str(linux_phone.root),
    ):
        assert private not in text, private
    assert contact_.answers["battery"][-1] == "voltage: 4100"
    assert "Thermal Status: 0" in contact_.answers["thermal"]
    assert set(contact_.facts) <= set(first_contact.FACTS)
    assert contact_.facts["model"] == "Pixel 3"


def test_messages_lose_the_serial_number_and_whose_lease_it_is(phone, here, heard) -> None:
    folder = phone.root / "data/local/tmp/mobiledeploy"
    folder.mkdir()
    (folder / "lease").write_text("alices-laptop-1234 9999999999 abc\n")
    step = steps(heard)["lease"]
    assert step.state == "failed"
    assert step.about.startswith("phone SERIAL is leased to another computer for ")
    assert "alices-laptop" not in Path("contact.json").read_text()


def test_a_file_that_cannot_be_written_is_refused_before_the_first_step(here, heard) -> None:
    with pytest.raises(UsageError, match="there is no folder nowhere"):
        doctor_phone(record="nowhere/contact.json", reporter=heard)
    assert heard.said == []


def test_without_adb_the_rest_is_skipped(here, heard, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    contact_ = contact(heard)
    assert contact_.exit_code == 6
    first, *others = contact_.steps
    assert (first.name, first.state, first.about) == ("adb", "failed", "adb is not installed")
    assert first.advice.startswith("apt install adb")
    assert {step.state for step in others} == {"skipped"}


def test_without_a_phone_there_is_nothing_to_send(here, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    done = CliRunner().invoke(command, ["--phone"])
    assert "No phone was reached: first-contact.json holds these steps only." in done.stdout
    assert "issue" not in done.stdout


def test_a_phone_that_lets_nobody_in_leaves_nothing_to_send(new_phone, here) -> None:
    new_phone(state="unauthorized", unauthorized="")
    done = CliRunner().invoke(command, ["--phone"])
    assert "No phone was reached: first-contact.json holds these steps only." in done.stdout


def test_an_adb_without_a_server_is_told(here, heard, monkeypatch) -> None:
    program = here / "adb"
    program.write_text(
        "#!/bin/sh\n[ $1 = version ] && echo Version 36.0.0-1 && exit\n"
        "echo 'cannot bind: Address already in use' >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("MOBILEDEPLOY_ADB", str(program))
    step = steps(heard)["adb"]
    assert step.about == "adb cannot start its server: cannot bind: Address already in use"
    assert "kill-server" in step.advice


def adb_that_lists(here: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """An adb for states that the simulated phone cannot have."""
    program = here / "adb"
    program.write_text(
        f"#!/bin/sh\n[ $1 != devices ] || printf 'List of devices attached\\n{line}'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("MOBILEDEPLOY_ADB", str(program))


@pytest.mark.parametrize(
    ("line", "name", "about", "advice"),
    [
        ("", "phone", "adb lists no phone", "tap Build number seven times"),
        ("R5 unauthorized", "permission", "its state is: unauthorized", "allow USB debugging"),
        ("R5 no permissions", "permission", "its state is: no permissions", "add udev rules"),
        ("R5 offline", "permission", "its state is: offline", "plug it in again"),
        ("R5 recovery", "permission", "its state is: recovery", "start Android on it"),
        ("R5 strange", "permission", "its state is: strange", "look at its screen"),
        ("R5 device\\nR6 device", "permission", "2 phones are connected", "ANDROID_SERIAL"),
    ],
)
def test_a_phone_that_is_not_ready(
    line: str, name: str, about: str, advice: str, here, heard, monkeypatch
) -> None:
    adb_that_lists(here, monkeypatch, line)
    contact_ = contact(heard)
    assert contact_.exit_code == 5
    step = contact_.failed
    assert step is not None
    assert (step.name, step.about) == (name, about)
    assert advice in step.advice
    assert contact_.steps[-1].state == "skipped"


def test_the_chosen_one_is_taken(here, heard, monkeypatch) -> None:
    adb_that_lists(here, monkeypatch, "R5 offline\\nR6 device")
    monkeypatch.setenv("ANDROID_SERIAL", "R5")
    assert steps(heard)["permission"].about == "its state is: offline"
    monkeypatch.delenv("ANDROID_SERIAL")
    # The only one that is ready; this adb knows no shell.
    by_name = steps(heard)
    assert (by_name["permission"].state, by_name["lease"].state) == ("ok", "failed")
    monkeypatch.setenv("ANDROID_SERIAL", "R7")
    assert steps(heard)["permission"].about == "the phone of ANDROID_SERIAL is not connected"
    assert "R6" not in Path("contact.json").read_text()


def test_a_real_unauthorized_phone(new_phone, here, heard) -> None:
    new_phone(state="unauthorized", unauthorized="")
    assert (
        steps(heard)["permission"].advice == "unlock it and allow USB debugging for this computer"
    )


def test_a_phone_in_a_bad_state_is_told_how(linux_phone, here, heard) -> None:
    linux_phone.thermal(3)
    battery = linux_phone.root / "dumpsys-battery"
    battery.write_text(battery.read_text().replace("level: 87", "level: 9"))
    (linux_phone.root / "dumpsys-power").write_text("mWakefulness=Dozing\n")
    linux_phone.tool("taskset", "#!/bin/sh\nexit 1\n")
    linux_phone.tool(
        "df", "#!/bin/sh\nprintf 'F 1K-blocks Used Available\\n/d 9 9 90000 9%% /d\\n'\n"
    )
    by_name = steps(heard)
    assert "throttles" in by_name["heat"].advice
    assert "charge it" in by_name["battery"].advice
    assert "Stay awake" in by_name["screen"].advice
    assert by_name["storage"].about == "92.16 MB are free"
    assert by_name["storage"].advice == "free some space on it"
    assert {step.state for step in by_name.values()} == {"ok", "warning"}


def test_what_a_phone_does_not_tell_is_told(linux_phone, here, heard) -> None:
    for name in ("dumpsys-battery", "dumpsys-thermalservice", "dumpsys-power"):
        (linux_phone.root / name).unlink()
    for core in (linux_phone.root / "sys/devices/system/cpu").iterdir():
        (core / "cpufreq" / "stats" / "time_in_state").unlink()
    by_name = steps(heard)
    assert by_name["heat"].about == "no thermal status"
    battery = by_name["battery"]
    assert (battery.state, battery.about) == ("warning", "no battery is told")
    assert by_name["clocks"].about == "governor schedutil; it does not tell time_in_state"


def test_what_a_phone_tells_of_its_power(linux_phone, here, heard) -> None:
    linux_phone.battery(-210_000)
    contact_ = contact(heard)
    by_name = {step.name: step for step in contact_.steps}
    assert by_name["energy"].about == "it tells its power (battery): bench --energy"
    assert "/sys/class/power_supply/battery/current_now:-210000" in contact_.answers["energy"]
    linux_phone.battery(210_000, status="Charging")
    step = steps(heard)["energy"]
    assert "is on a charger" in step.about
    assert "adb tcpip 5555" in step.advice


def test_a_phone_of_another_machine_has_no_runner(phone, here, heard) -> None:
    properties = phone.root / "properties"
    properties.write_text(properties.read_text().replace("arm64-v8a,x86_64", "armeabi-v7a"))
    contact_ = contact(heard)
    by_name = {step.name: step for step in contact_.steps}
    assert by_name["abi"].about == "armeabi-v7a, pages of 4096 bytes: no runner of ours"
    assert "benchmark_model" in by_name["abi"].advice
    # The steps after it are taken.
    assert by_name["heat"].state == "ok"
    assert contact_.exit_code == 5


def test_without_the_native_parts_the_line_is_told(linux_phone, here, heard, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    contact_ = contact(heard)
    step = contact_.failed
    assert step is not None
    assert (step.name, step.advice, contact_.exit_code) == ("runner", native.FIX, 6)


def test_a_runner_that_does_not_start_is_told(phone, emulator, here, heard) -> None:
    # It is for AArch64, and the simulated phone is not.
    contact_ = contact(heard)
    step = contact_.failed
    assert step is not None
    assert step.name == "runner"
    assert step.about.startswith("the runner does not start there: ")
    assert "Exec format error" in step.about
    assert step.advice == "send us the record of this contact"
    assert phone.files() == []


def test_a_phone_that_is_lost_ends_no_walk_without_a_record(linux_phone, here, heard) -> None:
    linux_phone.plant("unplug-run", "ro.product.model")
    contact_ = contact(heard)
    step = contact_.failed
    assert step is not None
    assert step.name == "system"
    # Whatever adb says of a phone in the first moment.
    assert step.about in ("phone SERIAL was lost", "phone SERIAL is offline")
    assert step.advice
    assert contact_.exit_code == 5


def test_the_command_line(linux_phone, here) -> None:
    linux_phone.thermal(1)
    done = CliRunner().invoke(command, ["--phone"])
    assert done.exit_code == 0, done.output
    assert "first-contact.json holds this" in done.stdout
    assert "heat" in done.stdout
    os.remove("first-contact.json")  # noqa: PTH107
    done = CliRunner().invoke(command, ["--phone", "--json", "--record", "it.json"])
    assert json.loads(done.stdout)["record"] == "FirstContact"
    assert [path.name for path in here.glob("*.json")] == ["it.json"]


def test_an_aarch64_machine_with_the_real_adbd(arm_phone, emulator, here, heard) -> None:
    by_name = steps(heard)
    assert by_name["runner"].about == "it starts, and opens litert"
    assert by_name["abi"].state == "ok"
