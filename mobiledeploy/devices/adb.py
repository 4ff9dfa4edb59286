"""Phones, through the user's adb binary: `adb`, or `adb:SERIAL` if several are connected.

A job has one folder on the phone, FOLDER. The job that makes it has leased the phone; the file
`lease` in it names the owner and the end of the lease. The folder is removed with its content when
the job ends, however it ends.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mobiledeploy.core import inputs, leases, native, records
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.errors import DeviceError, MissingError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.records import writing
from mobiledeploy.core.types import DeviceInfo, Kind, NamedWarning
from mobiledeploy.devices import _android
from mobiledeploy.devices._child import Child

KIND: Kind = "measured"
RUNNER = "native"

FOLDER = "/data/local/tmp/mobiledeploy"
LEASE_SECONDS = 600
"""A lease that was not renewed for this long belongs to a dead job."""

ANSWER_SECONDS = 30.0
"""A phone that takes longer for a short command hangs."""

RETURN_SECONDS = 10.0
"""How long we wait for a lost phone, to remove our files from it."""

# A slower link counts as dead.
_SLOWEST_BYTES_PER_SECOND = 50_000
# The space that a job needs besides the pushed files.
_ROOM_BYTES = 1_000_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")
_FIXED_MODE = "cmd power set-fixed-performance-mode-enabled"

_FIXES = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "authorizing": "unlock it and allow USB debugging for this computer",
    "offline": "plug it in again, or adb reconnect offline",
    "connecting": "wait a moment, or plug it in again",
    "no permissions": "add udev rules for it (apt install android-sdk-platform-tools-common)",
    "recovery": "start Android on it",
    "sideload": "start Android on it",
    "bootloader": "start Android on it",
}
_CONNECT = "connect a phone with USB debugging turned on"


def available() -> tuple[DeviceInfo, ...]:
    """The phones that adb sees; `about` starts with the model and a comma."""
    try:
        phones = _phones()
    except MissingError as error:
        return (DeviceInfo("adb", KIND, "phones", error.hint),)
    except DeviceError as error:
        return (DeviceInfo("adb", KIND, "phones", error.message),)
    if not phones:
        return (DeviceInfo("adb", KIND, "phones", _CONNECT),)
    return tuple(
        DeviceInfo(
            f"adb:{phone.serial}",
            KIND,
            f"{phone.model or 'a phone'}, through adb",
            "" if phone.state == "device" else f"{phone.state}: {_fix(phone.state)}",
        )
        for phone in phones
    )


@contextmanager
def open(name: str, *, exclusive: bool, reporter: Reporter) -> Iterator[Phone]:
    """Leases a phone; `adb` is the one of ANDROID_SERIAL, otherwise the only one.

    A phone serves one job at a time, timing or not.

    Raises:
        MissingError: there is no adb.
        DeviceError: no such phone is ready, or another computer has leased it.
    """
    serial = _choose(name.partition(":")[2])
    with leases.hold(f"adb-{serial}", exclusive=True, reporter=reporter):
        phone = Phone(serial, reporter)
        try:
            phone.claim()
            yield phone
        finally:
            with _undisturbed():
                phone.close()


class Phone:
    """An open lease of a phone."""

    def __init__(self, serial: str, reporter: Reporter) -> None:
        self._serial = serial
        self._reporter = reporter
        self._running: list[Child] = []
        self._files: dict[str, str] = {}
        self._abis: list[str] = []
        self._owner = _owner()
        self._token = secrets.token_hex(8)
        self._claimed = False
        self._renewed = 0.0

    def claim(self) -> None:
        """Takes the lease on the phone, and removes the files of a dead job."""
        for _ in range(3):
            # Set before the attempt: then the folder of an interrupted claim is removed as well.
            self._claimed = True
            output = self._shell(
                f"if mkdir {FOLDER}; then {self._lease()} && echo taken || rm -rf {FOLDER}; "
                f"else echo held; date +%s; cat {FOLDER}/lease; fi"
            )
            if "taken" in output.out.split():
                return
            self._claimed = False
            if "held" not in output.out.split() or "File exists" not in output.err:
                raise self._error(output.err, f"{FOLDER} cannot be made")
            self._take_over(output.out.partition("held")[2].split())
        raise DeviceError(f"phone {self._serial}: other jobs keep taking its lease")

    def facts(self) -> Mapping[str, str]:
        """What the phone is, and its present state.

        See `_android.facts`, `analysis/validity.py`.
        """
        output = self._shell(_android.FACTS)
        if "=end" not in output.out.splitlines():
            raise self._error(output.err, "it does not report its facts")
        facts_by_name = _android.facts(output.out)
        self._abis = facts_by_name.get("abis", "").split(",")
        return facts_by_name

    def push(self, path: Path) -> str:
        """Copies a file to the phone and compares the hashes.

        DeviceError for a program of another ABI, a full phone, and a file that arrived damaged.
        """
        content_abi = _android.abi(path)
        if content_abi is not None:
            if not self._abis:
                self.facts()
            if any(self._abis) and content_abi not in self._abis:
                raise DeviceError(
                    f"{path.name} is for {content_abi}, and phone {self._serial} runs "
                    f"{', '.join(self._abis)}",
                    "take the build for the phone's ABI",
                )
        digest = records.sha256(path)
        remote = self._place(path.name, digest)
        if self._files.get(remote) == digest:
            return remote
        self._make_room(path)
        size = path.stat().st_size
        output = self._adb(
            "push",
            str(path.resolve()),
            remote,
            seconds=2 * ANSWER_SECONDS + size / _SLOWEST_BYTES_PER_SECOND,
        )
        if output.status:
            raise self._error(output.err or output.out, f"{path.name} cannot be pushed")
        self._verify(path.name, remote, digest)
        if content_abi is not None or os.access(path, os.X_OK):
            self._shell(f"chmod 755 {shlex.quote(remote)}", check=True)
        self._files[remote] = digest
        return remote

    def run(self, argv: Sequence[str]) -> PhoneProcess:
        """Starts a command in the job's folder; each argument arrives as it is."""
        self._renew()
        command = f"cd {FOLDER} && exec {shlex.join(argv)}"
        child = Child((*_command(self._serial), "shell", command))
        self._running.append(child)
        return PhoneProcess(child, self._serial, self._renew)

    def pull(self, remote: str, path: Path) -> None:
        """Copies a file from the phone."""
        output = self._adb("pull", remote, str(path.resolve()), seconds=4 * ANSWER_SECONDS)
        if output.status:
            raise self._error(output.err or output.out, f"{remote} cannot be pulled")

    def clock(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def hold_clocks(self, on: bool) -> bool:
        """Android's fixed-performance mode (since 11, without root).

        False if the phone has none.
        """
        command = f"touch {FOLDER}/fixed; {_FIXED_MODE} true" if on else f"{_FIXED_MODE} false"
        output = self._shell(f"{{ {command}; }} 2>&1 && echo done")
        # "Failed to set FIXED_PERFORMANCE mode", if the power HAL does not support it.
        return output.out.split()[-1:] == ["done"] and not re.search(
            r"failed|unknown|error", output.out, re.IGNORECASE
        )

    def close(self) -> None:
        """Ends the commands and removes the job's folder; warns if it cannot."""
        for child in self._running:
            child.kill()
        self._running.clear()
        if not self._claimed:
            return
        until = time.monotonic() + RETURN_SECONDS
        while True:
            try:
                if self._ours():
                    self._clear()
            except DeviceError:
                if time.monotonic() > until:
                    break
                time.sleep(0.2)
            else:
                self._claimed = False
                return
        self._reporter.warn(
            NamedWarning(
                "left-behind",
                f"phone {self._serial} is gone, and {FOLDER} may still be on it",
                "the next measurement on it removes that",
            )
        )

    def _ours(self) -> bool:
        """Whether the folder is still this job's: another job may have taken an ended lease."""
        lease = f"{FOLDER}/lease"
        output = self._shell(
            f"[ -s {lease} ] && ! grep -q {self._token} {lease} && echo theirs || echo ours"
        )
        if output.out.split() not in (["ours"], ["theirs"]):
            raise self._error(output.err, "it does not answer")
        return output.out.split() == ["ours"]

    def _clear(self) -> None:
        """Ends the processes of a job and removes its folder.

        DeviceError if that cannot be confirmed.
        """
        listing = self._shell("ls -ld /proc/[0-9]*/cwd 2>/dev/null", check=False).out
        # The kernel appends "(deleted)" to a folder that is gone.
        own = re.findall(rf"/proc/(\d+)/cwd -> {FOLDER}(?: |$)", listing, re.MULTILINE)
        kill = f"kill -9 {' '.join(own)} 2>/dev/null; " if own else ""
        output = self._shell(
            f"{kill}[ -e {FOLDER}/fixed ] && {_FIXED_MODE} false >/dev/null 2>&1; "
            f"rm -rf {FOLDER}; [ -e {FOLDER} ] || echo gone"
        )
        if output.out.split()[-1:] != ["gone"]:
            raise self._error(output.err, f"{FOLDER} cannot be removed")

    def _take_over(self, lease: Sequence[str]) -> None:
        """Ends the job that has leased the phone, if it is dead; DeviceError if it may be alive.

        `lease` is the phone's time, and the words of the lease.
        """
        now, owner, until = (*lease, "", "", "")[:3]
        if not until.isdigit() or not now.isdigit():
            # Another computer is about to write it, or died before it did.
            time.sleep(1.0)
            if self._shell(f"cat {FOLDER}/lease").out.split():
                return
        # Only this job of our own user is alive: it holds the lease on this computer.
        elif owner != self._owner and int(now) < int(until):
            raise DeviceError(
                f"phone {self._serial} is leased to {owner} for {int(until) - int(now)} s more",
                f"wait, or remove {FOLDER} on it",
            )
        self._clear()

    def _lease(self) -> str:
        until = f"$(($(date +%s) + {LEASE_SECONDS}))"
        self._renewed = time.monotonic()
        return f'echo {shlex.quote(self._owner)} "{until}" {self._token} > {FOLDER}/lease'

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > LEASE_SECONDS / 4:
            command = f"grep -q {self._token} {FOLDER}/lease && {self._lease()} && echo kept"
            output = self._shell(command)
            if output.out.split() != ["kept"]:
                raise _absence(self._serial) or DeviceError(
                    f"another job has taken the lease of phone {self._serial}", "measure again"
                )

    def _place(self, name: str, digest: str) -> str:
        """The remote path of a file: its own name, if that is plain and unused."""
        suffix = Path(name).suffix if _PLAIN_NAME.fullmatch("x" + Path(name).suffix) else ""
        for candidate in (name, f"{digest[:16]}{suffix}"):
            remote = f"{FOLDER}/{candidate}"
            if (
                _PLAIN_NAME.fullmatch(candidate)
                and candidate not in ("lease", "fixed")
                and (self._files.get(remote, digest) == digest)
            ):
                return remote
        raise AssertionError("a hash is a plain and unused name")

    def _make_room(self, path: Path) -> None:
        free = _android.free_bytes(self._shell(f"df -k {FOLDER}").out)
        size = path.stat().st_size
        if free is not None and free < size + _ROOM_BYTES:
            raise DeviceError(
                f"phone {self._serial} has {free // 1000:,} kB free, and {path.name} "
                f"takes {size // 1000:,} kB",
                "free some space on it",
            )

    def _verify(self, name: str, remote: str, digest: str) -> None:
        output = self._shell(f"sha256sum {shlex.quote(remote)}")
        remote_digest = (output.out.split() or [""])[0]
        if remote_digest != digest:
            raise _absence(self._serial) or DeviceError(
                f"{name} arrived on phone {self._serial} as another file: its sha256 there is "
                f"{remote_digest[:16] or output.err.strip() or 'unknown'}, not {digest[:16]}",
                "try another cable",
            )

    def _shell(self, script: str, *, check: bool = False) -> _Output:
        """Runs a short script; DeviceError if adb fails.

        The phone's shell ends with 0 whatever the status of `script` (unless `check`): another
        status is a failure of adb.
        """
        command = script if check else f"{{ {script}\n}}; :"
        output = self._adb("shell", command, seconds=ANSWER_SECONDS)
        if output.status:
            raise self._error(output.err or output.out, f"`{script[:40]}` failed")
        return output

    def _adb(self, *arguments: str, seconds: float) -> _Output:
        return _run((*_command(self._serial), *arguments), f"phone {self._serial}", seconds)

    def _error(self, text: str, what: str) -> DeviceError:
        """An error for the output of adb."""
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
        last = last.removeprefix("adb: ").removeprefix("error: ")
        if "No space left" in text:
            return DeviceError(f"phone {self._serial} is full: {what}", "free some space on it")
        return _absence(self._serial) or DeviceError(f"phone {self._serial}: {what}", last)


class PhoneProcess:
    """A command that runs on a phone, through its own adb process."""

    def __init__(self, child: Child, serial: str, renew: Callable[[], None]) -> None:
        self._child = child
        self._serial = serial
        self._renew = renew

    def lines(self) -> Iterator[str]:
        """Its standard output, line by line, until it ends."""
        for line in self._child.lines():
            self._renew()
            yield line

    def send(self, line: str) -> None:
        """One line to its standard input."""
        self._child.send(line)

    def stop(self) -> None:
        """Closes its standard input, which asks a runner to end."""
        self._child.stop()

    def wait(self) -> tuple[int, str]:
        """Its exit status and the tail of its standard error.

        DeviceError where not the command ended, but the way to it.
        """
        status, tail = self._child.wait()
        # adb ends with 0 where the link broke.
        if error := _absence(self._serial):
            raise error
        # adbd tells a signal as a shell does.
        return (128 - status if status > 128 else status), tail

    def kill(self) -> None:
        """Ends it at once: its standard input ends there, and `Phone.close` looks after it."""
        self._child.kill()


class _Output:
    """The result of an adb command."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


def _run(command: Sequence[str], who: str, seconds: float) -> _Output:
    """One adb command, to its end; DeviceError after `seconds`."""
    # A session of its own: a Ctrl-C is ours to answer, and our clean-up needs adb.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise DeviceError(
                f"{who} hangs: no answer to adb {_verb(command)} for {seconds:.0f} s",
                "unplug it and plug it in again, or adb kill-server",
            ) from None
        except BaseException:
            process.kill()
            raise
    return _Output(process.returncode, out, err)


def _verb(command: Sequence[str]) -> str:
    return next(word for word in command[1:] if word in ("shell", "push", "pull", "devices"))


def _command(serial: str) -> tuple[str, ...]:
    return (native.adb(), "-s", serial)


def _phones() -> list[_android.ListedPhone]:
    output = _run((native.adb(), "devices", "-l"), "adb", ANSWER_SECONDS)
    if output.status:
        lines = output.err.strip().splitlines() or ["adb devices failed"]
        raise DeviceError(f"adb cannot start its server: {lines[-1]}", "adb kill-server")
    return _android.parse_devices(output.out)


def _choose(serial_: str) -> str:
    """The serial number of a phone that is ready."""
    phones = _phones()
    serial = serial_ or os.environ.get("ANDROID_SERIAL", "")
    ready = [phone.serial for phone in phones if phone.state == "device"]
    phone_list = _phone_list(phones)
    if serial:
        state = next((phone.state for phone in phones if phone.serial == serial), None)
        if state is None:
            raise DeviceError(f"no phone {serial} is connected", phone_list)
        if state != "device":
            raise DeviceError(f"phone {serial} is {state}", _fix(state))
        return serial
    if len(ready) == 1:
        return ready[0]
    if ready:
        raise DeviceError(
            f"{len(ready)} phones are connected", f"choose by --device adb:SERIAL: {phone_list}"
        )
    if len(phones) == 1:
        raise DeviceError(f"phone {phones[0].serial} is {phones[0].state}", _fix(phones[0].state))
    raise DeviceError("no phone is ready" if phones else "no phone is connected", phone_list)


def _phone_list(phones: Sequence[_android.ListedPhone]) -> str:
    each = [f"{phone.serial} ({phone.model or phone.state})" for phone in phones]
    return f"there are {', '.join(each)}" if each else _CONNECT


def _absence(serial: str) -> DeviceError | None:
    """The error for a phone that is no longer connected; None if it is."""
    state = next((phone.state for phone in _phones() if phone.serial == serial), None)
    if state == "device":
        return None
    if state is None:
        return DeviceError(f"phone {serial} was lost", "look at its cable, and try again")
    return DeviceError(f"phone {serial} is {state}", _fix(state))


def _fix(state: str) -> str:
    return _FIXES.get(state, "look at its screen, and plug it in again")


def _owner() -> str:
    """A name for this user's leases that is unique among computers."""
    path = cache_dir() / "leases" / "owner"
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), path.open("x") as stream:
            host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40]
            stream.write(f"{host}-{secrets.token_hex(4)}")
        return inputs.text(path, inputs.SETTINGS).strip() or "unknown"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delays a Ctrl-C until the end of the context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
