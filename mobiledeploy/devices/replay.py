"""A session with a device, replayed from the file that `bench --record FILE` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mobiledeploy.core import recording, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.plugins import FORMATS
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import DeviceInfo, Kind

KIND: Kind = "recorded"
RUNNER = "python"
REMOTE = False
T = TypeVar("T")


def available() -> tuple[DeviceInfo, ...]:
    """Empty: a recording is a file of the user's."""
    return ()


@contextmanager
def open(name: str, *, exclusive: bool, reporter: Reporter) -> Iterator[ReplaySession]:
    """The session in FILE of `replay:FILE`; nothing runs, so nothing is leased.

    Raises:
        UsageError: no FILE.
        InputError: FILE is not a recording.
    """
    file = name.partition(":")[2]
    if not file:
        raise UsageError("replay needs a recording", "--device replay:FILE")
    yield ReplaySession(recording.read(Path(file)), file)


class ReplaySession:
    """A session with the answers of a recording, in their order."""

    def __init__(self, recording_: recording.Recording, file: str) -> None:
        self._file = file
        self._facts = iter(recording_.facts)
        self._files = {file_.sha256: file_ for file_ in recording_.pushed}
        self._runs = iter(recording_.runs)
        self._clock = iter(recording_.clock)
        self._holds = iter(recording_.holds)

    def facts(self) -> Mapping[str, str]:
        """The recorded facts."""
        return self._next(self._facts)

    def push(self, path: Path) -> str:
        """The file's recorded path; InputError if it is not a file that was pushed then."""
        file_ = self._files.get(records.sha256(path))
        if file_ is None:
            # The runner and its libraries were pushed too.
            formats = tuple(f".{name}" for name in FORMATS.names())
            names = [one.name for one in self._files.values() if one.name.endswith(formats)]
            raise InputError(
                f"{self._file} was recorded with other files than this {path.name}",
                f"name the artifacts that were recorded: {', '.join(names)}"
                if names
                else "it ended before an artifact was pushed: record it again",
            )
        return file_.remote

    def run(self, argv: Sequence[str]) -> RecordedProcess:
        """The recorded process, whatever `argv` is."""
        return RecordedProcess(self._next(self._runs))

    def pull(self, remote: str, path: Path) -> None:
        """InputError: a recording holds no files."""
        raise InputError(f"{self._file} holds no files, so {remote} is not in it")

    def clock(self) -> float:
        """The recorded clock in seconds."""
        return self._next(self._clock)

    def hold_clocks(self, on: bool) -> bool:
        """The recorded answer."""
        return self._next(self._holds)

    def _next(self, answers: Iterable[T]) -> T:
        for answer in answers:
            return answer
        raise InputError(
            f"recording {self._file} ends too early", "record it again with this mobiledeploy"
        )


class RecordedProcess:
    """A process from the recording, which has ended."""

    def __init__(self, run: recording.Ran) -> None:
        self._run = run

    def lines(self) -> Iterator[str]:
        """The recorded output."""
        yield from self._run.lines

    def send(self, line: str) -> None:
        """Does nothing: the process has ended."""

    def stop(self) -> None:
        """Does nothing: the process has ended."""

    def wait(self) -> tuple[int, str]:
        """The recorded exit status and standard error."""
        return self._run.status or 0, self._run.stderr

    def kill(self) -> None:
        """Does nothing: the process has ended."""
