"""A machine behind a POSIX shell, a phone or a board: what the ways to it have in common.

A job has one folder there. The job that makes it has leased the machine; the file `lease` in it
names the owner and the end of the lease. The folder is removed with its content when the job ends,
however it ends.
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
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from mobiledeploy.core import inputs, records
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.errors import DeviceError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.records import writing
from mobiledeploy.core.types import NamedWarning
from mobiledeploy.devices import _linux
from mobiledeploy.devices._child import Child

LEASE_SECONDS = 600
"""A lease that was not renewed for this long belongs to a dead job."""

ANSWER_SECONDS = 30.0
"""A machine that takes longer for a short command hangs."""

RETURN_SECONDS = 10.0
"""How long we wait for a lost machine, to remove our files from it."""

# A slower link counts as dead.
_SLOWEST_BYTES_PER_SECOND = 50_000
# The space that a job needs besides the pushed files.
_ROOM_BYTES = 1_000_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")
# Names of our own files in the folder.
_OWN_NAMES = ("lease", "fixed")


class ShellOutput(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str


class RemoteSession(ABC):
    """An open lease of a machine; a subclass knows the way to it.

    Args:
        who: the machine in messages: "phone R58M123".
        folder: the job's folder there, a path that needs no quoting.
        owner: this user's name in leases, without spaces.
        reporter: is told what stays behind.
    """

    UNDO = ""
    """A shell command that undoes settings before the folder `{folder}` is removed."""

    def __init__(self, who: str, folder: str, owner: str, reporter: Reporter) -> None:
        self._who = who
        self._folder = folder
        self._owner = owner
        self._reporter = reporter
        self._running: list[Child] = []
        self._files: dict[str, str] = {}
        self._token = secrets.token_hex(8)
        self._claimed = False
        self._renewed = 0.0

    @abstractmethod
    def _shell(self, script: str) -> ShellOutput:
        """Runs a short script, whose own status does not matter; DeviceError if it cannot run."""

    @abstractmethod
    def _start(self, command: str) -> Child:
        """Starts a command of the shell there, through a child process on this machine."""

    @abstractmethod
    def _send(self, path: Path, remote: str, digest: str, seconds: float) -> None:
        """Copies a file there; DeviceError if its sha256 there is not `digest`."""

    @abstractmethod
    def absence(self) -> DeviceError | None:
        """The error for a machine that cannot be reached any more; None if it can."""

    @abstractmethod
    def _refuse_foreign(self, path: Path) -> bool:
        """Whether a file is a program; DeviceError for one that does not run there."""

    @abstractmethod
    def facts(self) -> Mapping[str, str]:
        """What the machine is, and its present state."""

    @abstractmethod
    def run(self, argv: Sequence[str]) -> RemoteProcess:
        """Starts a command in the job's folder; each argument arrives as it is."""

    def claim(self) -> None:
        """Takes the lease on the machine, and removes the files of a dead job."""
        folder = self._folder
        for _ in range(3):
            # Set before the attempt: then the folder of an interrupted claim is removed as well.
            self._claimed = True
            # Other users of the machine may read whose the lease is, and nothing else.
            output = self._shell(
                f"if mkdir -m 711 {folder}; then {self._lease()} && echo taken || rm -rf {folder}; "
                f"else echo held; date +%s; cat {folder}/lease; fi"
            )
            if "taken" in output.out.split():
                return
            self._claimed = False
            if "held" not in output.out.split() or "File exists" not in output.err:
                raise self._error(output.err, f"{folder} cannot be made")
            self._take_over(output.out.partition("held")[2].split())
        raise DeviceError(f"{self._who}: other jobs keep taking its lease")

    def push(self, path: Path) -> str:
        """Copies a file to the machine and compares the hashes.

        DeviceError for a program of another machine, a full disk, and a file that arrived damaged.
        """
        program = self._refuse_foreign(path)
        digest = records.sha256(path)
        remote = self._place(path.name, digest)
        if self._files.get(remote) == digest:
            return remote
        self._make_room(path)
        seconds = 2 * ANSWER_SECONDS + path.stat().st_size / _SLOWEST_BYTES_PER_SECOND
        self._reporter.progress(f"copying {path.name}", 0, 1)
        self._send(path, remote, digest, seconds)
        self._reporter.progress(f"copying {path.name}", 1, 1)
        if program or os.access(path, os.X_OK):
            output = self._shell(f"chmod 755 {shlex.quote(remote)} && echo done")
            if output.out.split()[-1:] != ["done"]:
                raise self._error(output.err, f"{path.name} cannot be made a program")
        self._files[remote] = digest
        return remote

    def clock(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

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
                f"{self._who} is gone, and {self._folder} may still be on it",
                "the next measurement on it removes that",
            )
        )

    def renew(self) -> None:
        """Renews the lease from time to time; DeviceError if another job has taken it."""
        if time.monotonic() - self._renewed > LEASE_SECONDS / 4:
            lease = f"{self._folder}/lease"
            output = self._shell(f"grep -q {self._token} {lease} && {self._lease()} && echo kept")
            if output.out.split() != ["kept"]:
                raise self.absence() or DeviceError(
                    f"another job has taken the lease of {self._who}", "measure again"
                )

    def _launch(self, command: str) -> Child:
        self.renew()
        child = self._start(command)
        self._running.append(child)
        return child

    def _ours(self) -> bool:
        """Whether the folder is still this job's: another job may have taken an ended lease."""
        lease = f"{self._folder}/lease"
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
        output = self._shell(f"{self._removal()}; [ -e {self._folder} ] || echo gone")
        if output.out.split()[-1:] != ["gone"]:
            raise self._error(output.err, f"{self._folder} cannot be removed")

    def _removal(self) -> str:
        """A script that ends the processes whose working folder is the job's, and removes it."""
        folder = self._folder
        undo = self.UNDO.format(folder=folder)
        # The kernel appends "(deleted)" to a folder that is gone.
        return (
            "ls -ld /proc/[0-9]*/cwd 2>/dev/null | while read -r line; do "
            f'case "$line" in *" -> {folder}"|*" -> {folder} (deleted)") '
            'line="${line##*/proc/}"; kill -9 "${line%%/*}" 2>/dev/null;; esac; done; '
            f"{undo + '; ' if undo else ''}rm -rf {folder}"
        )

    def _take_over(self, lease: Sequence[str]) -> None:
        """Ends the job that has leased the machine, if it is dead; DeviceError if it may be alive.

        `lease` is the machine's time, and the words of the lease.
        """
        now, owner, until = (*lease, "", "", "")[:3]
        if not until.isdigit() or not now.isdigit():
            # Another computer is about to write it, or died before it did.
            time.sleep(1.0)
            if self._shell(f"cat {self._folder}/lease").out.split():
                return
        # Only this job of our own user is alive: it holds the lease on this computer.
        elif owner != self._owner and int(now) < int(until):
            raise DeviceError(
                f"{self._who} is leased to {owner} for {int(until) - int(now)} s more",
                f"wait, or remove {self._folder} on it",
            )
        self._clear()

    def _lease(self) -> str:
        until = f"$(($(date +%s) + {LEASE_SECONDS}))"
        self._renewed = time.monotonic()
        lease = f"{self._folder}/lease"
        owner = shlex.quote(self._owner)
        return f'echo {owner} "{until}" {self._token} > {lease} && chmod 644 {lease}'

    def _place(self, name: str, digest: str) -> str:
        """The remote path of a file: its own name, if that is plain and unused."""
        suffix = Path(name).suffix if _PLAIN_NAME.fullmatch("x" + Path(name).suffix) else ""
        for candidate in (name, f"{digest[:16]}{suffix}"):
            remote = f"{self._folder}/{candidate}"
            if (
                _PLAIN_NAME.fullmatch(candidate)
                and candidate not in _OWN_NAMES
                and (self._files.get(remote, digest) == digest)
            ):
                return remote
        raise AssertionError("a hash is a plain and unused name")

    def _make_room(self, path: Path) -> None:
        free = _linux.free_bytes(self._shell(f"df -k {self._folder}").out)
        size = path.stat().st_size
        if free is not None and free < size + _ROOM_BYTES:
            raise DeviceError(
                f"{self._who} has {free // 1000:,} kB free, and {path.name} "
                f"takes {size // 1000:,} kB",
                "free some space on it",
            )

    def _damaged(self, name: str, digest: str, remote_digest: str, hint: str) -> DeviceError:
        """The error for a file whose sha256 there is another, or cannot be computed."""
        return self.absence() or DeviceError(
            f"{name} arrived on {self._who} as another file: its sha256 there is "
            f"{remote_digest[:16] or 'unknown'}, not {digest[:16]}",
            hint,
        )

    def _error(self, text: str, what: str) -> DeviceError:
        """An error for the output of a command."""
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
        if "No space left" in text:
            return DeviceError(f"{self._who} is full: {what}", "free some space on it")
        return self.absence() or DeviceError(f"{self._who}: {what}", last)


class RemoteProcess:
    """A command that runs on another machine, through a child process on this one."""

    def __init__(self, child: Child, session: RemoteSession) -> None:
        self._child = child
        self._session = session

    def lines(self) -> Iterator[str]:
        """Its standard output, line by line, until it ends."""
        for line in self._child.lines():
            self._session.renew()
            yield line

    def send(self, line: str) -> None:
        """One line to its standard input."""
        self._child.send(line)

    def stop(self) -> None:
        """Closes its standard input, which asks a runner to end."""
        self._child.stop()

    def wait(self) -> tuple[int, str]:
        """Its exit status (negative: the signal that ended it) and the tail of its standard error.

        DeviceError where not the command ended, but the way to it.
        """
        status, tail = self._child.wait()
        # The way may end with 0 where it broke.
        if error := self._session.absence():
            raise error
        return status_of_shell(status), tail

    def kill(self) -> None:
        """Ends it at once: its standard input ends there, and the session looks after it."""
        self._child.kill()


def status_of_shell(status: int) -> int:
    """An exit status as a shell gives it, with a signal as a negative number."""
    return 128 - status if status > 128 else status


def run(
    command: Sequence[str],
    seconds: float,
    hangs: DeviceError,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> tuple[int, bytes, bytes]:
    """One command of this machine, to its end; raises `hangs` after `seconds`."""
    # A session of its own: a Ctrl-C is ours to answer, and our clean-up needs the way there.
    try:
        done = subprocess.run(
            command,
            stdin=stdin,
            capture_output=True,
            timeout=seconds,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise hangs from None
    return done.returncode, done.stdout, done.stderr


def owner() -> str:
    """A name for this user's leases that is unique among computers."""
    path = cache_dir() / "leases" / "owner"
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), path.open("x") as stream:
            host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40]
            stream.write(f"{host}-{secrets.token_hex(4)}")
        return inputs.text(path, inputs.SETTINGS).strip() or "unknown"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delays a Ctrl-C until the end of the context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
