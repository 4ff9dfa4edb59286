"""Phones, through the user's adb binary: `adb`, or `adb:SERIAL` where several are connected.

A job has one folder on the phone, FOLDER. Whoever makes it has the phone; the file `lease` in it
says who that is and until when. It goes with all that is in it when the job ends, however it ends.
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
"""A lease that nobody renewed for so long belongs to a job that is dead."""

ANSWER_SECONDS = 30.0
"""A phone that takes longer to answer a short command hangs."""

RETURN_SECONDS = 10.0
"""How long a phone that went away is waited for, to take our files off it."""

# A link slower than this is taken for a dead one.
_SLOWEST_BYTES_PER_SECOND = 50_000
# What a job writes besides what is pushed.
_ROOM_BYTES = 1_000_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")
_FIXED = "cmd power set-fixed-performance-mode-enabled"

_MEND = {
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
    """The phones that adb sees; `about` begins with the model and a comma."""
    try:
        phones = _listed()
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
    """Leases a phone; `adb` is the one of ANDROID_SERIAL, or else the only one.

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
        self._pushed: dict[str, str] = {}
        self._abis: list[str] = []
        self._owner = _owner()
        self._token = secrets.token_hex(8)
        self._claimed = False
        self._renewed = 0.0

    def claim(self) -> None:
        """Takes the phone's own lease, and away what a dead job left there."""
        for _ in range(3):
            # Said before it is so: what an interrupted claim left is taken away as well.
            self._claimed = True
            said = self._shell(
                f"if mkdir {FOLDER}; then {self._lease()} && echo taken || rm -rf {FOLDER}; "
                f"else echo held; date +%s; cat {FOLDER}/lease; fi"
            )
            if "taken" in said.out.split():
                return
            self._claimed = False
            if "held" not in said.out.split() or "File exists" not in said.err:
                raise self._refused(said.err, f"{FOLDER} cannot be made")
            self._take_over(said.out.partition("held")[2].split())
        raise DeviceError(f"phone {self._serial}: its lease changes hands all the time")

    def facts(self) -> Mapping[str, str]:
        """What the phone is and how it stands; see `_android.facts`, `analysis/validity.py`."""
        said = self._shell(_android.FACTS)
        if "=end" not in said.out.splitlines():
            raise self._refused(said.err, "it does not say what it is")
        found = _android.facts(said.out)
        self._abis = found.get("abis", "").split(",")
        return found

    def push(self, path: Path) -> str:
        """Brings a file there, whole: its hash there is its hash here.

        DeviceError for a program of another ABI, a full phone, and a file that arrived otherwise.
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
        if self._pushed.get(remote) == digest:
            return remote
        self._make_room(path)
        size = path.stat().st_size
        done = self._adb(
            "push",
            str(path.resolve()),
            remote,
            seconds=2 * ANSWER_SECONDS + size / _SLOWEST_BYTES_PER_SECOND,
        )
        if done.status:
            raise self._refused(done.err or done.out, f"{path.name} cannot be pushed")
        self._verify(path.name, remote, digest)
        if content_abi is not None or os.access(path, os.X_OK):
            self._shell(f"chmod 755 {shlex.quote(remote)}", check=True)
        self._pushed[remote] = digest
        return remote

    def run(self, argv: Sequence[str]) -> Process:
        """Starts a command in the job's folder; each argument arrives as it is."""
        self._renew()
        command = f"cd {FOLDER} && exec {shlex.join(argv)}"
        child = Child((*_command(self._serial), "shell", command))
        self._running.append(child)
        return Process(child, self._serial, self._renew)

    def pull(self, remote: str, path: Path) -> None:
        """Brings a file back."""
        done = self._adb("pull", remote, str(path.resolve()), seconds=4 * ANSWER_SECONDS)
        if done.status:
            raise self._refused(done.err or done.out, f"{remote} cannot be pulled")

    def clock(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def hold_clocks(self, on: bool) -> bool:
        """Android's fixed-performance mode (from 11 on, no root); False where there is none."""
        marked = f"touch {FOLDER}/fixed; {_FIXED} true" if on else f"{_FIXED} false"
        said = self._shell(f"{{ {marked}; }} 2>&1 && echo done")
        # "Failed to set FIXED_PERFORMANCE mode", where the power HAL does not know it.
        return said.out.split()[-1:] == ["done"] and not re.search(
            r"failed|unknown|error", said.out, re.IGNORECASE
        )

    def close(self) -> None:
        """Ends what runs there and takes the job's folder away; says so where it cannot."""
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
                "the next measurement on it takes that away",
            )
        )

    def _ours(self) -> bool:
        """Whether the folder there is still this job's: its lease may have ended and been taken."""
        lease = f"{FOLDER}/lease"
        said = self._shell(
            f"[ -s {lease} ] && ! grep -q {self._token} {lease} && echo theirs || echo ours"
        )
        if said.out.split() not in (["ours"], ["theirs"]):
            raise self._refused(said.err, "it does not answer")
        return said.out.split() == ["ours"]

    def _clear(self) -> None:
        """Whatever a job left on the phone ends here; DeviceError where that is not certain."""
        listing = self._shell("ls -ld /proc/[0-9]*/cwd 2>/dev/null", check=False).out
        # The kernel says "(deleted)" behind a folder that is gone.
        own = re.findall(rf"/proc/(\d+)/cwd -> {FOLDER}(?: |$)", listing, re.MULTILINE)
        kill = f"kill -9 {' '.join(own)} 2>/dev/null; " if own else ""
        said = self._shell(
            f"{kill}[ -e {FOLDER}/fixed ] && {_FIXED} false >/dev/null 2>&1; "
            f"rm -rf {FOLDER}; [ -e {FOLDER} ] || echo gone"
        )
        if said.out.split()[-1:] != ["gone"]:
            raise self._refused(said.err, f"{FOLDER} cannot be removed")

    def _take_over(self, held: Sequence[str]) -> None:
        """Ends the job that holds the phone, if it is dead; DeviceError if it may be alive.

        `held` is the phone's time, and the words of its lease.
        """
        now, owner, until = (*held, "", "", "")[:3]
        if not until.isdigit() or not now.isdigit():
            # Another computer is just about to write it, or died before it did.
            time.sleep(1.0)
            if self._shell(f"cat {FOLDER}/lease").out.split():
                return
        # Of our own user's jobs only this one is alive: it holds the lease of this computer.
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
            kept = f"grep -q {self._token} {FOLDER}/lease && {self._lease()} && echo kept"
            said = self._shell(kept)
            if said.out.split() != ["kept"]:
                raise _gone(self._serial) or DeviceError(
                    f"another job has taken the lease of phone {self._serial}", "measure again"
                )

    def _place(self, name: str, digest: str) -> str:
        """Where a file goes: under its own name, if that is plain and not another file's."""
        suffix = Path(name).suffix if _PLAIN_NAME.fullmatch("x" + Path(name).suffix) else ""
        for candidate in (name, f"{digest[:16]}{suffix}"):
            remote = f"{FOLDER}/{candidate}"
            if (
                _PLAIN_NAME.fullmatch(candidate)
                and candidate not in ("lease", "fixed")
                and (self._pushed.get(remote, digest) == digest)
            ):
                return remote
        raise AssertionError("a hash is a plain name, and no other file's")

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
        said = self._shell(f"sha256sum {shlex.quote(remote)}")
        there = (said.out.split() or [""])[0]
        if there != digest:
            raise _gone(self._serial) or DeviceError(
                f"{name} arrived on phone {self._serial} as another file: its sha256 there is "
                f"{there[:16] or said.err.strip() or 'unknown'}, not {digest[:16]}",
                "try another cable",
            )

    def _shell(self, script: str, *, check: bool = False) -> _Said:
        """A short command of our own; DeviceError where adb does not come through.

        The phone's shell ends with 0 whatever `script` ends with (unless `check`): adb's own
        failures are known by that.
        """
        wrapped = script if check else f"{{ {script}\n}}; :"
        said = self._adb("shell", wrapped, seconds=ANSWER_SECONDS)
        if said.status:
            raise self._refused(said.err or said.out, f"`{script[:40]}` failed")
        return said

    def _adb(self, *arguments: str, seconds: float) -> _Said:
        return _run((*_command(self._serial), *arguments), f"phone {self._serial}", seconds)

    def _refused(self, text: str, what: str) -> DeviceError:
        """What adb said, in our words."""
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
        last = last.removeprefix("adb: ").removeprefix("error: ")
        if "No space left" in text:
            return DeviceError(f"phone {self._serial} is full: {what}", "free some space on it")
        return _gone(self._serial) or DeviceError(f"phone {self._serial}: {what}", last)


class Process:
    """A command that runs on a phone, at the other end of an adb of its own."""

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
        if gone := _gone(self._serial):
            raise gone
        # adbd tells a signal as a shell does.
        return (128 - status if status > 128 else status), tail

    def kill(self) -> None:
        """Ends it at once: its standard input ends there, and `Phone.close` looks after it."""
        self._child.kill()


class _Said:
    """What a command of adb came to."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


def _run(command: Sequence[str], who: str, seconds: float) -> _Said:
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
    return _Said(process.returncode, out, err)


def _verb(command: Sequence[str]) -> str:
    return next(word for word in command[1:] if word in ("shell", "push", "pull", "devices"))


def _command(serial: str) -> tuple[str, ...]:
    return (native.adb(), "-s", serial)


def _listed() -> list[_android.Listed]:
    said = _run((native.adb(), "devices", "-l"), "adb", ANSWER_SECONDS)
    if said.status:
        lines = said.err.strip().splitlines() or ["adb devices failed"]
        raise DeviceError(f"adb cannot start its server: {lines[-1]}", "adb kill-server")
    return _android.listed(said.out)


def _choose(wanted: str) -> str:
    """The serial number of a phone that is ready."""
    phones = _listed()
    serial = wanted or os.environ.get("ANDROID_SERIAL", "")
    ready = [phone.serial for phone in phones if phone.state == "device"]
    connected = _connected(phones)
    if serial:
        state = next((phone.state for phone in phones if phone.serial == serial), None)
        if state is None:
            raise DeviceError(f"no phone {serial} is connected", connected)
        if state != "device":
            raise DeviceError(f"phone {serial} is {state}", _fix(state))
        return serial
    if len(ready) == 1:
        return ready[0]
    if ready:
        raise DeviceError(
            f"{len(ready)} phones are connected", f"choose by --device adb:SERIAL: {connected}"
        )
    if len(phones) == 1:
        raise DeviceError(f"phone {phones[0].serial} is {phones[0].state}", _fix(phones[0].state))
    raise DeviceError("no phone is ready" if phones else "no phone is connected", connected)


def _connected(phones: Sequence[_android.Listed]) -> str:
    each = [f"{phone.serial} ({phone.model or phone.state})" for phone in phones]
    return f"there are {', '.join(each)}" if each else _CONNECT


def _gone(serial: str) -> DeviceError | None:
    """The error for a phone that is not there any more; None where it is."""
    state = next((phone.state for phone in _listed() if phone.serial == serial), None)
    if state == "device":
        return None
    if state is None:
        return DeviceError(f"phone {serial} was lost", "look at its cable, and try again")
    return DeviceError(f"phone {serial} is {state}", _fix(state))


def _fix(state: str) -> str:
    return _MEND.get(state, "look at its screen, and plug it in again")


def _owner() -> str:
    """A name for this user's leases that no other computer's jobs have."""
    path = cache_dir() / "leases" / "owner"
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), path.open("x") as stream:
            host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40]
            stream.write(f"{host}-{secrets.token_hex(4)}")
        return inputs.text(path, inputs.SETTINGS).strip() or "unknown"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A Ctrl-C that comes meanwhile is answered afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
