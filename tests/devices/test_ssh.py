"""Boards through the stock ssh and a real sshd, which lets into namespaces of the board's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobiledeploy.analysis import validity
from mobiledeploy.core.errors import DeviceError, MissingError, UsageError
from mobiledeploy.core.ports import SILENT
from mobiledeploy.devices import _remote
from mobiledeploy.devices import ssh as device
from tests.devices.board import Board

ODD = ["a b", "'", '"', "; touch $PHONE/hacked", "$(touch $PHONE/hacked)", "`id`", "*", "\\"]
ODD += ["-n", "a\nb", "", "ü", "&", "|", "#", "!x", "~", "%h"]


def session(board: Board, reporter=SILENT, name: str = "ssh:board"):
    return device.open(name, exclusive=True, reporter=reporter)


@pytest.fixture(autouse=True)
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder for the sockets of connections, in which none may stay."""
    folder = Path("/tmp") / f"md{os.getpid()}"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(folder))
    yield folder
    left = list(folder.iterdir())
    for path in left:
        path.rmdir()
    folder.rmdir()
    assert not left


def test_arguments_arrive_as_they_are(board) -> None:
    echo = board.folder / "echo.py"
    echo.write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    board.plant("noise")
    with session(board) as session_:
        process = session_.run([sys.executable, str(echo), *ODD])
        assert json.loads("".join(process.lines())) == ODD
        assert process.wait() == (0, "")
    assert not (board.folder / "hacked").exists()
    assert board.files() == board.commands() == []


def test_a_command_reads_input_writes_output_and_ends(board) -> None:
    with session(board) as session_:
        process = session_.run(["cat"])
        process.send("abc")
        assert next(process.lines()) == "abc\n"
        process.stop()
        assert process.wait() == (0, "")
        assert session_.run(["sh", "-c", "kill -9 $$"]).wait()[0] == -9
        status, tail = session_.run(["sh", "-c", "echo wrong >&2; exit 3"]).wait()
        assert (status, tail.strip()) == (3, "wrong")
        # Not that of ssh, which would be 255 for its own failures.
        assert session_.run(["sh", "-c", "exit 100"]).wait() == (100, "")


@pytest.mark.parametrize("name", ["int8.tflite", "$(touch hacked);'\"`.tflite", "lease"])
def test_files_are_pushed_and_pulled_whatever_their_names(board, tmp_path, name: str) -> None:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / name
    path.write_bytes(bytes(range(256)) * 1000)
    with session(board) as session_:
        remote = session_.push(path)
        assert remote.startswith("/var/tmp/mobiledeploy/")
        assert session_.push(path) == remote
        session_.pull(remote, tmp_path / "back")
        assert sorted(board.files()) == sorted(["lease", "mobiledeploy", Path(remote).name])
        # Other users of the board may read whose it is, and nothing else.
        folder = board.folder / "var/tmp/mobiledeploy"
        modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
        assert modes == {"mobiledeploy": 0o711, "lease": 0o644, Path(remote).name: 0o600}
        with pytest.raises(DeviceError, match="none cannot be pulled; cat: .*No such file"):
            session_.pull("/var/tmp/mobiledeploy/none", tmp_path / "none")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert board.files() == []
    assert not list(tmp_path.rglob("hacked"))


def test_facts(board) -> None:
    with session(board) as session_:
        facts = session_.facts()
    expected = {
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "soc": "brcm,bcm2712",
        "machine": "x86_64",
        "governor": "0:ondemand 1:ondemand 2:ondemand 3:ondemand",
        "temperature_cpu_c": "51.2",
        "throttled": "0x0",
        "taskset": "yes",
        "kernel": os.uname().release,
    }
    assert {key: facts.get(key) for key in expected} == expected
    assert float(facts["busy_cpu_s"]) > 0
    assert "\0" not in "".join(facts.values())


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (("sha256sum",), None),
        (("sha256sum", "busybox"), None),
        (("sha256sum", "busybox", "openssl"), "nothing that computes a sha256; install coreutils"),
    ],
)
def test_a_board_without_coreutils(board, tmp_path, tools, expected) -> None:
    for tool in tools:
        board.tool(tool, "#!/bin/sh\nexit 127\n")
    file = tmp_path / "file"
    file.write_bytes(b"1234")
    if expected is None and tools == ("sha256sum",):
        board.tool("busybox", '#!/bin/sh\nshift; exec /usr/bin/sha256sum "$@"\n')
    with session(board) as session_:
        if expected:
            with pytest.raises(DeviceError, match=expected):
                session_.push(file)
        else:
            session_.push(file)
    assert board.files() == []


def test_a_program_of_another_machine_is_refused(board, tmp_path) -> None:
    elf = tmp_path / "runner"
    elf.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(40))
    with (
        session(board) as session_,
        pytest.raises(DeviceError, match="runner is for aarch64, and board is x86_64; take the"),
    ):
        session_.push(elf)
    assert board.files() == []


def test_programs_may_be_executed(board, tmp_path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o700)
    with session(board) as session_:
        session_.push(program)
        assert list(session_.run(["./program"]).lines()) == ["here\n"]


# The fault table of docs/phones.md: who is not let in.


def strange_key(board: Board) -> None:
    (board.folder / "known_hosts").write_text("")


def changed_key(board: Board) -> None:
    other = (board.folder / "key.pub").read_text().split()
    (board.folder / "known_hosts").write_text(f"[127.0.0.1]:{board.port} {' '.join(other[:2])}\n")


def other_key(board: Board) -> None:
    config = (board.folder / "config").read_text()
    (board.folder / "config").write_text(config.replace("/key\n", "/host\n"))


@pytest.mark.parametrize(
    ("happens", "name", "message"),
    [
        (Board.unplug, "ssh:board", "board cannot be reached: .*Connection refused; is it on"),
        (strange_key, "ssh:board", "the host key of board is not known; connect once by hand"),
        (changed_key, "ssh:board", r"find out why; .*: ssh-keygen -f /.*/known_hosts -R '\[127"),
        (other_key, "ssh:root@board", "root@board accepts no key of yours; ssh-copy-id root@board"),
        (None, "ssh:nobody.invalid", "no machine is called nobody.invalid; look at its name"),
    ],
)
def test_a_board_that_lets_nobody_in(board, happens, name, message) -> None:
    kept = {one: (board.folder / one).read_text() for one in ("known_hosts", "config")}
    try:
        if happens is not None:
            happens(board)
        with pytest.raises(DeviceError, match=message) as refused, session(board, name=name):
            pass
        assert refused.value.exit_code == 5
        assert "\n" not in str(refused.value)
        # Nothing was written to the user's own list of known machines.
        if happens is strange_key:
            assert (board.folder / "known_hosts").read_text() == ""
    finally:
        for one, text in kept.items():
            (board.folder / one).write_text(text)
        board.plug()
    assert board.files() == []


def test_no_shell(board) -> None:
    board.plant("nologin")
    message = "board has no shell for us: This account is currently not available.; this must work"
    with pytest.raises(DeviceError, match=message), session(board):
        pass


def test_a_login_that_takes_too_long(board, monkeypatch) -> None:
    monkeypatch.setattr(device, "CONNECT_SECONDS", 0.5)
    board.plant("hang", "=mounts")
    with pytest.raises(DeviceError, match="board does not let us in within"), session(board):
        pass
    assert board.files() == []


def test_a_folder_that_runs_no_programs_is_not_taken() -> None:
    greeting = """=folders
/var/tmp
=mounts
/dev/root / ext4 rw,relatime 0 0
tmpfs /var/tmp tmpfs rw,noexec 0 0
tmpfs /tmp tmpfs rw,noexec 0 0
"""
    message = "board has no folder that is writable and lets programs run; one of /var/tmp, /tmp"
    with pytest.raises(DeviceError, match=message):
        device._folder("board", greeting.splitlines(keepends=True))
    # Where /var/tmp is a link, the real path counts.
    greeting = greeting.replace("=mounts", "/volatile/tmp\n=mounts")
    assert device._folder("board", greeting.splitlines(keepends=True)) == "/volatile/tmp"
    with pytest.raises(DeviceError, match="no folder"):
        device._folder("board", ["=folders\n", "/a; b\n", "=mounts\n"])


@pytest.mark.parametrize(
    ("fault", "content", "message"),
    [
        ("corrupt", "", "file arrived on board as another file"),
        ("unplug-push", "1000", "the connection to board was lost; look at its power"),
        ("killed-shell", ",part", "board: a command's shell was ended there"),
    ],
)
def test_a_push_that_fails(board, tmp_path, heard, fault, content, message) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(300_000))
    board.plant(fault, content)
    with pytest.raises(DeviceError, match=message) as failed, session(board, heard) as session_:
        session_.push(file)
    assert failed.value.exit_code == 5
    # After a lost connection, another one finds nothing left, too.
    assert board.files() == []
    assert heard.warnings == []


def small_disk(board: Board, option: str = "size=200k") -> list[str]:
    mount = ["nsenter", "-t", (board.folder / "pid").read_text(), "-m"]
    subprocess.run([*mount, "mount", "-t", "tmpfs", "-o", option, "t", "/var/tmp"], check=True)
    return mount


def test_a_full_disk(board, tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(300_000))
    mount = small_disk(board)
    try:
        with (
            pytest.raises(DeviceError, match=r"board has 200 kB free, and file takes 300 kB"),
            session(board) as session_,
        ):
            session_.push(file)
        # A board whose df does not tell.
        board.tool("df", "#!/bin/sh\n")
        with (
            pytest.raises(DeviceError, match="board is full: file cannot be copied there"),
            session(board) as session_,
        ):
            session_.push(file)
        left = subprocess.run([*mount, "ls", "-A", "/var/tmp"], capture_output=True, check=True)
        assert left.stdout == b""
    finally:
        subprocess.run([*mount, "umount", "/var/tmp"], check=True)


def test_a_shell_that_hangs(board, monkeypatch, heard) -> None:
    monkeypatch.setattr(_remote, "ANSWER_SECONDS", 1.0)
    board.plant("hang", "=compatible")
    with (
        pytest.raises(DeviceError, match="board hangs: no answer for 1 s; ssh board"),
        session(board, heard) as session_,
    ):
        session_.facts()
    assert board.files() == []
    assert heard.warnings == []


def test_a_board_that_is_gone_is_named(board, monkeypatch, heard) -> None:
    monkeypatch.setattr(_remote, "RETURN_SECONDS", 0.3)
    with (
        pytest.raises(DeviceError, match="the connection to board was lost"),
        session(board, heard) as session_,
    ):
        board.unplug()
        os.kill(session_._link._keeper.pid, signal.SIGKILL)
        session_.facts()
    board.plug()
    assert [warning.name for warning in heard.warnings] == ["left-behind"]
    # It looks after itself, as soon as its sshd notices.
    assert board.left() == []


def test_a_network_that_falls_silent(board, monkeypatch, heard) -> None:
    options = [one.replace("Interval=5", "Interval=1") for one in device._OPTIONS]
    monkeypatch.setattr(device, "_OPTIONS", options)
    with (
        pytest.raises(DeviceError, match="the connection to board was lost; look at its power"),
        session(board, heard) as session_,
    ):
        process = session_.run(["sleep", "30"])
        children = Path(f"/proc/{board.sshd}/task/{board.sshd}/children")
        serving = [int(number) for number in children.read_text().split()]
        for number in serving:
            os.kill(number, signal.SIGSTOP)
        try:
            assert list(process.lines()) == []
            process.wait()
        finally:
            for number in serving:
                os.kill(number, signal.SIGCONT)
    assert board.files() == []
    assert heard.warnings == []


def test_commands_end_with_the_session(board) -> None:
    with session(board) as session_:
        session_.run(["sh", "-c", "trap '' HUP TERM; echo > on; while :; do sleep 0.1; done"])
        while "on" not in board.files():
            time.sleep(0.01)
    # A sleep may have started just before its shell was killed, and ends by itself.
    last = time.monotonic() + 5
    while board.commands() and time.monotonic() < last:
        time.sleep(0.05)
    assert board.files() == board.commands() == []


SCRIPT = """
import sys
from mobiledeploy.devices import ssh
from mobiledeploy.core.ports import SILENT
with ssh.open('ssh:board', exclusive=True, reporter=SILENT) as session:
    process = session.run(['sh', '-c', 'trap "" HUP TERM; echo on; while :; do sleep 0.1; done'])
    print(next(process.lines()), flush=True); sys.stdin.read()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_job_that_dies_leaves_nothing(board, sockets, sent) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(sockets)},
    ) as other:
        assert other.stdout
        other.stdout.readline()
        assert board.files() == ["lease", "mobiledeploy"]
        other.send_signal(sent)
        other.wait()
    assert board.left() == []
    until = time.monotonic() + 5
    while board.commands() and time.monotonic() < until:
        time.sleep(0.05)
    assert board.commands() == []
    for folder in sockets.iterdir():
        # Who is killed at once cannot remove it, but the socket in it ends with the connection.
        assert sent == signal.SIGKILL
        while list(folder.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        folder.rmdir()


def test_another_computer_s_lease_is_respected_until_it_ends(board) -> None:
    folder = board.folder / "var/tmp/mobiledeploy"
    folder.mkdir()
    (folder / "lease").write_text(f"laptop-1a2b {int(time.time()) + 500} 77\n")
    with (
        pytest.raises(DeviceError, match="board is leased to laptop-1a2b for (500|499|49.) s more"),
        session(board),
    ):
        pass
    assert "lease" in board.files()
    (folder / "lease").write_text(f"laptop-1a2b {int(time.time()) - 1} 77\n")
    with session(board):
        assert "laptop" not in (folder / "lease").read_text()
    assert board.files() == []


def test_a_board_of_two_names_serves_one_job(board) -> None:
    with session(board), pytest.raises(DeviceError, match="root@board is leased to .*:board for"):
        session(board, name="ssh:root@board").__enter__()
    assert board.files() == []


def test_a_lease_is_renewed_and_its_loss_is_noticed(board, monkeypatch) -> None:
    monkeypatch.setattr(_remote, "LEASE_SECONDS", 0)
    lease = board.folder / "var/tmp/mobiledeploy/lease"
    with session(board) as session_:
        lease.write_text(lease.read_text().replace(" ", "  "))
        assert list(session_.run(["echo", "1"]).lines()) == ["1\n"]
        assert "  " not in lease.read_text()
    with (
        pytest.raises(DeviceError, match="another job has taken the lease of board"),
        session(board) as session_,
    ):
        lease.write_text("laptop-1a2b 99999999999 77\n")
        session_.run(["echo", "1"])
    # The files of another job stay; not even the board itself removes them.
    time.sleep(0.3)
    assert "laptop" in lease.read_text()


def test_a_board_that_allows_one_session(board, heard) -> None:
    board.plug(sessions=1)
    try:
        with pytest.raises(DeviceError, match="allows no more sessions on one connection; fewer"):
            session(board, heard).__enter__()
    finally:
        board.plug()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ssh", "names no machine; --device ssh:.USER@.HOST"),
        ("ssh:", "names no machine"),
        ("ssh:-oProxyCommand=id", "is not .USER@.HOST.:PORT.; letters, digits"),
        ("ssh:-l@board", "is not"),
        ("ssh:board;id", "is not"),
        ("ssh:$(id)@board", "is not"),
        ("ssh:a b", "is not"),
        ("ssh:board\n", "is not"),
        ("ssh:böard", "is not"),
        ("ssh:%h", "is not"),
        ("ssh:board:", "is not"),
        ("ssh:board:70000", "70000 is not a port"),
        ("ssh:board:0", "0 is not a port"),
        ("ssh:fe80::1", "an IPv6 address stands in brackets"),
        ("ssh:[fe80:::1]", "is not an IPv6 address"),
        ("ssh:[fe80::1%$(id)]", "is not"),
        ("ssh:" + "a" * 300, "is not"),
    ],
)
def test_names_that_are_refused(name, message) -> None:
    with pytest.raises(UsageError, match=message):
        device.open(name, exclusive=True, reporter=SILENT).__enter__()


@pytest.mark.parametrize(
    ("text", "login", "known"),
    [
        ("board", ("--", "board"), "board"),
        ("pi@10.0.0.7:2222", ("-l", "pi", "-p", "2222", "--", "10.0.0.7"), "[10.0.0.7]:2222"),
        ("[fe80::1%eth0]:22", ("-p", "22", "--", "fe80::1%eth0"), "fe80::1%eth0"),
        ("_x.y-z_1", ("--", "_x.y-z_1"), "_x.y-z_1"),
    ],
)
def test_names_that_are_taken(text, login, known) -> None:
    address = device._address(text)
    assert (str(address), address.login, address.known) == (text, login, known)


def test_without_ssh(monkeypatch, tmp_path) -> None:
    (one,) = device.available()
    assert one.fix == "name it: --device ssh:[USER@]HOST[:PORT]"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="ssh is not installed; apt install openssh-client"):
        device.open("ssh:board", exclusive=True, reporter=SILENT).__enter__()
    (one,) = device.available()
    assert one.fix == "apt install openssh-client"


def test_a_long_place_for_temporary_files_is_not_taken(monkeypatch, tmp_path) -> None:
    for place in ("/x" * 60, "/tmp/%h", "/tmp/a b"):
        monkeypatch.setattr(device.tempfile, "gettempdir", lambda place=place: place)
        folder = device._short_folder()
        assert folder.parent == Path("/tmp")
        folder.rmdir()


@pytest.mark.parametrize(
    ("machine", "libraries", "glibc", "expected"),
    [
        ("aarch64", True, "glibc 2.36", "aarch64"),
        ("aarch64", True, "ld.so (Debian GLIBC 2.41-1) stable release version 2.41.", "aarch64"),
        ("aarch64", True, "glibc 2.31", "bare-aarch64"),
        ("aarch64", False, "glibc 2.36", "bare-aarch64"),
        ("aarch64", True, "", "bare-aarch64"),
        ("x86_64", False, "glibc 2.36", "x86_64"),
        ("armv7l", False, "", "armv7l"),
    ],
)
def test_a_board_brings_the_c_library_that_is_needed_or_gets_it(
    machine, libraries, glibc, expected
) -> None:
    paths = ["/lib/ld-linux-aarch64.so.1", "/usr/lib/aarch64-linux-gnu/libstdc++.so.6"]
    parts = {
        "machine": [machine],
        "libraries": paths if libraries else paths[1:],
        "glibc": [glibc],
    }
    assert dict(device._facts(parts))["machine"] == expected


@pytest.mark.parametrize("text", ["", "\0", "=x", "ü" * 99, "1:2:3", "-1", "throttled=0x1g"])
def test_facts_of_nonsense_are_absent(text: str) -> None:
    names = ("model", "compatible", "cpu", "machine", "cores", "glibc", "memory", "load", "ticks")
    parts = {name: [text] for name in (*names, "busy", "throttled", "throttles", "files")}
    facts = {key: value for key, value in device._facts(parts) if value}
    assert not {"busy_cpu_s", "memory_kb", "throttled", "throttle_count", "governor"} & set(facts)


def test_the_flags_of_a_board_are_judged() -> None:
    assert validity._flags({"throttled": "0x0"}, {"throttled": "0x0"}) == []
    # An event before the runs is no reason.
    assert validity._flags({"throttled": "0x50000"}, {"throttled": "0x50000"}) == []
    assert validity._flags({"throttled": "0x0"}, {"throttled": "0x40000"}) == [
        "the board says: it throttles"
    ]
    assert validity._flags({"throttled": "0x5"}, {}) == [
        "the board says: its voltage is too low",
        "the board says: it throttles",
    ]
    assert validity._flags({"throttle_count": "3"}, {"throttle_count": "5"}) == [
        "the processor throttled 2 times"
    ]
    assert validity._flags({"throttle_count": "3"}, {"throttled": "0xzz"}) == []
