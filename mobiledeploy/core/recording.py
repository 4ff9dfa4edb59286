"""Recordings of the exchange with a device, to be replayed: one JSON file.

The verb that measures depends only on the device's answers and on its clock. So the same answers in
the same order give the same record, byte for byte.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mobiledeploy.core import inputs, records
from mobiledeploy.core.errors import InputError
from mobiledeploy.core.ports import Process, Session

_LONGEST_SECONDS = 1e12
_MOST_ROUNDS = 100_000


@dataclass(frozen=True)
class BenchRequest:
    """The settings of a timing: all that it depends on besides its device.

    `rounds` is for a comparison (`bench --compare`), `energy` for `bench --energy`. `strict` takes
    no figure of a delegate that left an operator to the CPU. `against_cpu` also runs without the
    delegate, once, to compare the answers; recordings of earlier versions do not. `command` says
    what was recorded: `bench`, or a command that predicts, of which `runs`, `seconds` and
    `fixed_performance` mean nothing.
    """

    device: str
    runner: str
    runtime: str | None
    threads: int
    delegate: str | None
    runs: int | None
    seconds: float
    fixed_performance: bool
    rounds: int | None = None
    command: str = "bench"
    energy: bool = False
    strict: bool = False
    against_cpu: bool = False


@dataclass(frozen=True)
class Pushed:
    """A file that was copied to the device, and its path there."""

    name: str
    sha256: str
    remote: str


@dataclass(frozen=True)
class Ran:
    """A command that ran on the device: its output, and its exit status if that was requested."""

    argv: tuple[str, ...]
    lines: tuple[str, ...]
    status: int | None
    stderr: str


@dataclass(frozen=True)
class Recording:
    """All answers of a session, each kind in its own order; `made_at` is when it ended."""

    asked: BenchRequest
    pushed: tuple[Pushed, ...]
    facts: tuple[Mapping[str, str], ...]
    clock: tuple[float, ...]
    holds: tuple[bool, ...]
    runs: tuple[Ran, ...]
    made_at: str = ""


def read(path: Path) -> Recording:
    """The recording in a file; InputError if it is not one.

    `made_at` is written as in the store. A recording of an earlier mobiledeploy has none; it gets
    the modification time of its file.
    """
    with inputs.open_file(path, inputs.RECORD) as stream:
        modified = datetime.fromtimestamp(os.fstat(stream.fileno()).st_mtime, UTC)
        recording = records.loads(Recording, stream.read(), str(path))
    request = recording.asked
    checks = {
        "threads": request.threads > 0,
        "runs": request.runs is None or request.runs > 0,
        "seconds": 0 < request.seconds <= _LONGEST_SECONDS,
        "rounds": request.rounds is None or 0 < request.rounds <= _MOST_ROUNDS,
        # This is false for NaN too.
        "clock": all(abs(seconds) <= _LONGEST_SECONDS for seconds in recording.clock),
    }
    for field, is_valid in checks.items():
        if not is_valid:
            raise InputError(f"{path}: {field} is not valid", "record it again")
    try:
        moment = datetime.fromisoformat(recording.made_at) if recording.made_at else modified
        if moment.tzinfo is None:
            raise ValueError("a moment without a zone")
        return replace(recording, made_at=records.timestamp(moment))
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"recording {path} does not say when it was made: {recording.made_at!r}",
            "record it again",
        ) from error


class Recorder:
    """A session that records what passes through it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._files: list[Pushed] = []
        self._facts: list[Mapping[str, str]] = []
        self._clock: list[float] = []
        self._holds: list[bool] = []
        self._runs: list[_RecordedProcess] = []

    def recording(self, request: BenchRequest) -> Recording:
        """The exchange so far."""
        return Recording(
            request,
            tuple(self._files),
            tuple(self._facts),
            tuple(self._clock),
            tuple(self._holds),
            tuple(run.record() for run in self._runs),
            records.timestamp(datetime.now(UTC)),
        )

    def facts(self) -> Mapping[str, str]:
        """The device's."""
        self._facts.append(dict(self._session.facts()))
        return self._facts[-1]

    def push(self, path: Path) -> str:
        """To the device."""
        remote = self._session.push(path)
        self._files.append(Pushed(path.name, records.sha256(path), remote))
        return remote

    def run(self, argv: Sequence[str]) -> Process:
        """On the device."""
        self._runs.append(_RecordedProcess(self._session.run(argv), tuple(argv)))
        return self._runs[-1]

    def pull(self, remote: str, path: Path) -> None:
        """From the device; a recording does not hold it."""
        self._session.pull(remote, path)

    def clock(self) -> float:
        """The device's."""
        self._clock.append(self._session.clock())
        return self._clock[-1]

    def hold_clocks(self, on: bool) -> bool:
        """The device's answer."""
        self._holds.append(self._session.hold_clocks(on))
        return self._holds[-1]


class _RecordedProcess:
    """A process whose output is recorded."""

    def __init__(self, process: Process, argv: tuple[str, ...]) -> None:
        self._process = process
        self._argv = argv
        self._lines: list[str] = []
        self._exit: tuple[int, str] | None = None
        self._lock = threading.Lock()

    def record(self) -> Ran:
        with self._lock:
            status, tail = self._exit or (None, "")
            return Ran(self._argv, tuple(self._lines), status, tail)

    def lines(self) -> Iterator[str]:
        for line in self._process.lines():
            with self._lock:
                self._lines.append(line)
            yield line

    def send(self, line: str) -> None:
        self._process.send(line)

    def stop(self) -> None:
        self._process.stop()

    def wait(self) -> tuple[int, str]:
        exit_ = self._process.wait()
        with self._lock:
            self._exit = exit_
        return exit_

    def kill(self) -> None:
        self._process.kill()
