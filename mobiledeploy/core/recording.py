"""An exchange with a device, kept so that it can be played back: one JSON file.

The verb that timed decides by what the device says and by its clock, and by nothing else. So the
same answers in the same order lead to the same record, byte for byte.
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
    """What a timing was asked for, all that its course depends on besides its device.

    `rounds` are of a comparison in turns.
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


@dataclass(frozen=True)
class Pushed:
    """A file that was brought to the device, and its path there."""

    name: str
    sha256: str
    remote: str


@dataclass(frozen=True)
class Ran:
    """A command that ran on the device: what it said, and how it ended if that was asked."""

    argv: tuple[str, ...]
    lines: tuple[str, ...]
    status: int | None
    stderr: str


@dataclass(frozen=True)
class Recording:
    """All answers of a session, each kind in its order; `made_at` is when it ended."""

    asked: BenchRequest
    pushed: tuple[Pushed, ...]
    facts: tuple[Mapping[str, str], ...]
    clock: tuple[float, ...]
    holds: tuple[bool, ...]
    runs: tuple[Ran, ...]
    made_at: str = ""


def read(path: Path) -> Recording:
    """The recording in a file; InputError where it is none.

    Its moment is written as the store writes them; one without, of an earlier mobiledeploy, has
    that of its file.
    """
    with inputs.opened(path, inputs.RECORD) as stream:
        touched = datetime.fromtimestamp(os.fstat(stream.fileno()).st_mtime, UTC)
        found = records.loads(Recording, stream.read(), str(path))
    asked = found.asked
    sound = {
        "threads": asked.threads > 0,
        "runs": asked.runs is None or asked.runs > 0,
        "seconds": 0 < asked.seconds <= _LONGEST_SECONDS,
        "rounds": asked.rounds is None or 0 < asked.rounds <= _MOST_ROUNDS,
        # Not so for NaN, either.
        "clock": all(abs(seconds) <= _LONGEST_SECONDS for seconds in found.clock),
    }
    for field, holds in sound.items():
        if not holds:
            raise InputError(f"{path}: {field} cannot be so", "record it again")
    try:
        moment = datetime.fromisoformat(found.made_at) if found.made_at else touched
        if moment.tzinfo is None:
            raise ValueError("a moment without a zone")
        return replace(found, made_at=records.timestamp(moment))
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"recording {path} does not say when it was made: {found.made_at!r}", "record it again"
        ) from error


class Recorder:
    """A session that remembers what passes through it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pushed: list[Pushed] = []
        self._facts: list[Mapping[str, str]] = []
        self._clock: list[float] = []
        self._holds: list[bool] = []
        self._runs: list[_Heard] = []

    def recording(self, asked: BenchRequest) -> Recording:
        """What passed so far."""
        return Recording(
            asked,
            tuple(self._pushed),
            tuple(self._facts),
            tuple(self._clock),
            tuple(self._holds),
            tuple(run.ran() for run in self._runs),
            records.timestamp(datetime.now(UTC)),
        )

    def facts(self) -> Mapping[str, str]:
        """The device's."""
        self._facts.append(dict(self._session.facts()))
        return self._facts[-1]

    def push(self, path: Path) -> str:
        """To the device."""
        remote = self._session.push(path)
        self._pushed.append(Pushed(path.name, records.sha256(path), remote))
        return remote

    def run(self, argv: Sequence[str]) -> Process:
        """On the device."""
        self._runs.append(_Heard(self._session.run(argv), tuple(argv)))
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


class _Heard:
    """A process that remembers what it said."""

    def __init__(self, process: Process, argv: tuple[str, ...]) -> None:
        self._process = process
        self._argv = argv
        self._lines: list[str] = []
        self._ended: tuple[int, str] | None = None
        self._lock = threading.Lock()

    def ran(self) -> Ran:
        with self._lock:
            status, tail = self._ended or (None, "")
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
        ended = self._process.wait()
        with self._lock:
            self._ended = ended
        return ended

    def kill(self) -> None:
        self._process.kill()
