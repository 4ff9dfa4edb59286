"""Child processes on this machine that devices start: runners, or the way to one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from mobiledeploy.core.errors import DeviceError

# The time that a runner has after it was asked to end, and a process after it closed its output.
GRACE_SECONDS = 10.0
_TAIL_BYTES = 4096


class Child:
    """A child process; the terminal's Ctrl-C only reaches the parent, which handles it."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise DeviceError(f"{argv[0]} cannot be started: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def lines(self) -> Iterator[str]:
        """Its standard output, line by line, until it ends."""
        assert self._process.stdout
        yield from self._process.stdout

    def send(self, line: str) -> None:
        """Writes one line to its standard input.

        Does nothing if it has ended, which `lines` shows.
        """
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Closes its standard input, which asks a runner to end."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self) -> tuple[int, str]:
        """Its exit status (negative: the signal that ended it) and the tail of its standard error.

        A process that has closed its standard output and does not end is killed after a while.
        """
        try:
            status = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        return status, self._stderr.read().decode("utf-8", "replace")

    def kill(self) -> None:
        """Ends it at once and releases its resources; may be called again."""
        self._process.kill()
        self._process.wait()
        self.stop()
        assert self._process.stdout
        self._process.stdout.close()
        self._stderr.close()


class Local:
    """An open session on this machine: programs are children, files stay where they are.

    Subclasses add the rest of a `core.ports.Session`.
    """

    def __init__(self) -> None:
        self._running: list[Child] = []

    def push(self, path: Path) -> str:
        """The file's own path: it is already on this machine."""
        return str(path.resolve())

    def run(self, argv: Sequence[str]) -> Child:
        """Starts a child process; DeviceError if it cannot be started."""
        child = Child(argv)
        self._running.append(child)
        return child

    def pull(self, remote: str, path: Path) -> None:
        """Copies a file."""
        shutil.copyfile(remote, path)

    def clock(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def hold_clocks(self, on: bool) -> bool:
        """False: only the machine's owner can do that."""
        return False

    def close(self) -> None:
        """Kills all running children."""
        for child in self._running:
            child.kill()
        self._running.clear()
