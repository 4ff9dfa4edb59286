from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobiledeploy.core.errors import DeviceError, MissingError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.devices import _remote
from mobiledeploy.devices import adb as device
from mobiledeploy.steps import resolve, shell_output
from tests import elves

ODD = [
    "a b",
    "'",
    '"',
    "; touch $PHONE/hacked",
    "$(touch $PHONE/hacked)",
    "`id`",
    "*",
    "\\",
    "-n",
    "a\nb",
    "",
    "ü",
    "&",
    "|",
    "#",
]


def session(phone, reporter=SILENT):
    return device.open(f"adb:{phone.serial}", exclusive=True, reporter=reporter)


def test_arguments_arrive_as_they_are(phone) -> None:
    echo = phone.root / "echo.py"
    echo.write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    with session(phone) as session_:
        process = session_.run([sys.executable, str(echo), *ODD])
        assert json.loads("".join(process.lines())) == ODD
        assert process.wait() == (0, "")
    assert not (phone.root / "hacked").exists()
    assert phone.files() == []


def test_a_command_reads_input_writes_output_and_ends(phone) -> None:
    with session(phone) as session_:
        process = session_.run(["cat"])
        process.send("abc")
        assert next(process.lines()) == "abc\n"
        process.stop()
        assert process.wait()[0] == 0
        assert session_.run(["sh", "-c", "kill -9 $$"]).wait()[0] == -9
        status, tail = session_.run(["sh", "-c", "echo wrong >&2; exit 3"]).wait()
        assert (status, tail.strip()) == (3, "wrong")


@pytest.mark.parametrize(
    "name",
    [
        "int8.tflite",
        "a b.tflite",
        "-x.tflite",
        "$(touch hacked);'\"`.tflite",
        "ü.tflite",
        "lease",
        "n" * 200 + ".bin",
    ],
)
def test_files_are_pushed_and_pulled_whatever_their_names(phone, tmp_path, name: str) -> None:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / name
    path.write_bytes(bytes(range(256)) * 1000)
    with session(phone) as session_:
        remote = session_.push(path)
        assert remote.startswith(device.FOLDER + "/")
        assert session_.push(path) == remote
        session_.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert phone.files() == []
    assert not list(tmp_path.rglob("hacked"))


def test_files_of_the_same_name_do_not_collide(phone, tmp_path) -> None:
    paths = [tmp_path / "a" / "m.tflite", tmp_path / "b" / "m.tflite"]
    with session(phone) as session_:
        for number, path in enumerate(paths):
            path.parent.mkdir()
            path.write_text(str(number))
        first, second = map(session_.push, paths)
        assert first != second
        assert second.endswith(".tflite")


def test_facts(phone) -> None:
    with session(phone) as session_:
        facts = session_.facts()
    expected = {
        "model": "Pixel 3",
        "soc": "SM8150",
        "android": "12",
        "sdk": "31",
        "charger": "USB",
        "battery_percent": "87",
        "battery_c": "28.1",
        "thermal_status": "0",
        "screen": "on",
        "temperature_cpu_c": "43.0",
        "taskset": "yes",
        "time_in_state": "300000:5 2800000:80",
        "core_capacity": "0:325 1:325 2:325 3:325 4:870 5:870 6:870 7:1024",
    }
    assert {key: facts.get(key) for key in expected} == expected
    assert facts["governor"].startswith("0:schedutil 1:")


def test_a_program_for_smaller_pages_is_refused_or_named(phone, heard, tmp_path) -> None:
    elf = elves.write(tmp_path / "runner", 4096)
    with session(phone, heard) as session_:
        assert session_.facts()["page_bytes"] == "4096"
        session_.push(elf)
    (warning,) = heard.warnings
    assert warning.name == "small-pages"
    assert warning.message.startswith("runner is linked for pages of 4096 bytes: phones with 16 KB")
    phone.tool("getconf", "#!/bin/sh\necho 16384\n")
    with (
        session(phone) as session_,
        pytest.raises(DeviceError, match=r"4096 bytes, and phone .* has pages of 16384; .*-Wl,-z,"),
    ):
        session_.push(elf)
    with session(phone, heard) as session_:
        session_.push(elves.write(tmp_path / "runner", 16384))
    assert len(heard.warnings) == 1
    assert phone.files() == []


def test_a_program_of_another_machine_is_refused(phone, tmp_path) -> None:
    elf = tmp_path / "runner"
    elf.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x28\x00" + bytes(40))
    with (
        session(phone) as session_,
        pytest.raises(DeviceError, match=r"runner is for armeabi-v7a, and .* runs arm64-v8a"),
    ):
        session_.push(elf)
    assert phone.files() == []


def test_programs_may_be_executed(phone, tmp_path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o700)
    with session(phone) as session_:
        session_.push(program)
        assert "".join(session_.run(["./program"]).lines()) == "here\n"


@pytest.mark.parametrize(
    ("fault", "content", "message"),
    [
        ("corrupt", "", "arrived .* as another file"),
        ("full", "", "is full"),
        ("unplug-push", "1000", "was lost|is offline"),
    ],
)
def test_a_push_that_fails(phone, tmp_path, heard, monkeypatch, fault, content, message) -> None:
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 1.0)
    file = tmp_path / "file"
    file.write_bytes(bytes(300_000))
    phone.plant(fault, content)
    with pytest.raises(DeviceError, match=message), session(phone, heard) as session_:
        session_.push(file)
    if fault == "unplug-push":
        assert [warning.name for warning in heard.warnings] == ["left-behind"]
        assert "lease" in phone.files()
        phone.heal("refuse")
        phone.heal(fault)
        phone.connect()
        # The next job removes it without waiting for the lease to end.
        with session(phone):
            assert phone.files() == ["lease", "mobiledeploy"]
    assert phone.files() == []


def test_too_little_space_is_noticed_before(phone, tmp_path) -> None:
    phone.tool(
        "df",
        "#!/bin/sh\necho 'Filesystem 1K-blocks Used Available Use% Mounted on'\n"
        "echo '/dev/block/dm-5 100000 99000 1000 99% /data'\n",
    )
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    with pytest.raises(DeviceError, match="has 1,024 kB free"), session(phone) as session_:
        session_.push(file)
    assert phone.files() == []


def test_a_phone_that_comes_back_is_cleaned(phone, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(300_000))
    phone.plant("unplug-push", "1000")
    with pytest.raises(DeviceError, match="was lost|is offline"), session(phone) as session_:
        try:
            session_.push(file)
        finally:
            phone.heal("refuse")
            phone.connect()
    assert phone.files() == []


def test_a_shell_that_hangs(phone, monkeypatch, heard) -> None:
    monkeypatch.setattr(_remote, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 0.1)
    phone.plant("hang", "=getprop")
    with pytest.raises(DeviceError, match="hangs: no answer to adb shell"), session(phone) as it:
        it.facts()
    assert phone.files() == []
    assert heard.warnings == []


def test_a_command_has_a_time_limit(phone) -> None:
    with session(phone) as session_:
        assert shell_output.lines(session_, ["echo", "here"]) == ["here"]
        with pytest.raises(DeviceError, match=r"did not end within 0\.3 s"):
            shell_output.lines(session_, ["sleep", "20"], limit_s=0.3)
        assert shell_output.lines(session_, ["echo", "again"]) == ["again"]


def test_commands_end_with_the_session(phone) -> None:
    with session(phone) as session_:
        session_.run(["sh", "-c", "trap '' HUP TERM; echo $$ > pid; while :; do sleep 0.1; done"])
        pid = phone.root / "data/local/tmp/mobiledeploy/pid"
        while not (pid.exists() and pid.read_text().strip()):
            time.sleep(0.01)
        number = pid.read_text().strip()
    assert (
        not Path(f"/proc/{number}/cwd").is_dir() or "Z" in Path(f"/proc/{number}/stat").read_text()
    )
    assert phone.files() == []


def test_one_job_at_a_time(phone, heard) -> None:
    script = (
        "import sys\nfrom mobiledeploy.devices import adb\n"
        "from mobiledeploy.core.ports import SILENT\n"
        f"with adb.open('adb:{phone.serial}', exclusive=True, reporter=SILENT):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        before = phone.root / "data/local/tmp/mobiledeploy/lease"
        owner = before.read_text()
        other.kill()
        # A dead job of this user left its lease.
        with session(phone, heard):
            assert before.read_text().split()[0] == owner.split()[0]
            assert before.read_text() != owner
    assert phone.files() == []


def test_another_computer_s_lease_is_respected_until_it_ends(phone) -> None:
    folder = phone.root / "data/local/tmp/mobiledeploy"
    folder.mkdir()
    (folder / "lease").write_text(f"laptop-1a2b {int(time.time()) + 500} 77\n")
    with (
        pytest.raises(DeviceError, match="is leased to laptop-1a2b for (500|499|49.) s more"),
        session(phone),
    ):
        pass
    assert "lease" in phone.files()
    (folder / "lease").write_text(f"laptop-1a2b {int(time.time()) - 1} 77\n")
    with session(phone):
        assert "laptop" not in (folder / "lease").read_text()
    assert phone.files() == []


def test_a_lease_is_renewed_and_its_loss_is_noticed(phone, monkeypatch) -> None:
    monkeypatch.setattr(_remote, "LEASE_SECONDS", 0)
    lease = phone.root / "data/local/tmp/mobiledeploy/lease"
    with session(phone) as session_:
        lease.write_text(lease.read_text().replace(" ", "  "))
        assert list(session_.run(["echo", "1"]).lines()) == ["1\n"]
        assert "  " not in lease.read_text()
    assert phone.files() == []
    with pytest.raises(DeviceError, match="another job has taken the lease"), session(phone) as it:
        lease.write_text("laptop-1a2b 99999999999 77\n")
        it.run(["echo", "1"])
    # The files of another job stay.
    assert "laptop" in lease.read_text()


def test_fixed_performance_is_turned_off_again(phone) -> None:
    with session(phone) as session_:
        assert session_.hold_clocks(True)
    assert phone.lines_of("cmd")[-1].endswith("false")
    assert len(phone.lines_of("cmd")) == 2
    (phone.root / "cmd-says").write_text("Failed to set FIXED_PERFORMANCE mode\n")
    with session(phone) as session_:
        assert not session_.hold_clocks(True)


def test_which_phone(new_phone, monkeypatch) -> None:
    with pytest.raises(DeviceError, match="no phone is connected; connect a phone"):
        device.open("adb", exclusive=True, reporter=SILENT).__enter__()
    one = new_phone("Pixel 3")
    with device.open("adb", exclusive=True, reporter=SILENT) as session_:
        assert session_.facts()["model"] == "Pixel 3"
    two = new_phone("Pixel 6")
    with pytest.raises(DeviceError, match=r"2 phones .* adb:SERIAL: there are .*\(Pixel"):
        device.open("adb", exclusive=True, reporter=SILENT).__enter__()
    with pytest.raises(DeviceError, match="no phone emulator-1 is connected; there are 127"):
        device.open("adb:emulator-1", exclusive=True, reporter=SILENT).__enter__()
    monkeypatch.setenv("ANDROID_SERIAL", two.serial)
    # Two phones serve two jobs at the same time.
    with device.open("adb", exclusive=True, reporter=SILENT) as second, session(one) as first:
        assert second.facts()["model"] == "Pixel 6"
        assert first.facts()["model"] == "Pixel 3"
    assert [one.files(), two.files()] == [[], []]
    assert [
        (device_info.name, device_info.about, device_info.fix) for device_info in device.available()
    ] == sorted((f"adb:{p.serial}", f"{p.model}, through adb", "") for p in (one, two))


def test_a_phone_whose_banner_lacks_its_model_is_asked(new_phone, monkeypatch) -> None:
    phone = new_phone("Pixel 3", nameless="")
    (info,) = device.available()
    assert info.about == "Pixel 3, through adb"
    assert resolve.resolve("pixel-3").name == f"adb:{phone.serial}"
    with pytest.raises(DeviceError, match=rf"there are {phone.serial} \(Pixel 3\)"):
        device.open("adb:elsewhere", exclusive=True, reporter=SILENT).__enter__()
    monkeypatch.setattr(device, "_MODEL_SECONDS", 0.5)
    phone.plant("hang", "=getprop; getprop")
    (info,) = device.available()
    assert info.about == "a phone, through adb"


def test_a_phone_that_is_not_ready_has_a_fix(new_phone) -> None:
    phone = new_phone(state="unauthorized", unauthorized="")
    with pytest.raises(DeviceError, match="is unauthorized; unlock it and allow USB debugging"):
        session(phone).__enter__()
    (device_info,) = device.available()
    assert device_info.fix.startswith("unauthorized: unlock it")
    # Such a phone does not tell its model: it may be the one that is meant.
    with pytest.raises(DeviceError, match=r"connected: adb:\S+ \(unauthorized: unlock it"):
        resolve.resolve("galaxy-s9")
    (warning,) = resolve.unready_phones()
    assert warning.message == (
        f"adb:{phone.serial} is connected, tells no model, and is not timed: it is unauthorized"
    )


def test_a_phone_that_is_offline(phone) -> None:
    phone.plant("refuse")
    subprocess.run(["adb", "-s", phone.serial, "shell", "true"], capture_output=True, check=False)
    with pytest.raises(DeviceError, match="is offline; plug it in again|no phone .* is connected"):
        session(phone).__enter__()


def test_without_adb(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="adb is not installed; apt install adb"):
        device.open("adb", exclusive=True, reporter=SILENT).__enter__()
    (device_info,) = device.available()
    assert "apt install adb" in device_info.fix
    monkeypatch.setenv("MOBILEDEPLOY_ADB", str(tmp_path / "none"))
    with pytest.raises(MissingError, match="is not an executable adb"):
        device.open("adb", exclusive=True, reporter=SILENT).__enter__()
