"""A session with a device, played back from the file that `bench --record FILE` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mobiledeploy.core import recording, records
from mobiledeploy.core.errors import InputError, UsageError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import DeviceInfo, Kind

KIND: Kind = "recorded"
RUNNER = "python"
T = TypeVar("T")


def available() -> tuple[DeviceInfo, ...]:
    """None: a recording is a file of the user's."""
    return ()


@contextmanager
def open(name: str, *, exclusive: bool, reporter: Reporter) -> Iterator[Played]:
    """The session in FILE of `replay:FILE`; nothing is leased, for nothing runs.

    Raises:
        UsageError: no FILE.
        InputError: it is no recording.
    """
    file = name.partition(":")[2]
    if not file:
        raise UsageError("replay needs a recording", "--device replay:FILE")
    yield Played(recording.read(Path(file)), file)


class Played:
    """A session whose answers are those of a recording, in their order."""

    def __init__(self, played: recording.Recording, file: str) -> None:
        self._file = file
        self._facts = iter(played.facts)
        self._pushed = {pushed.sha256: pushed for pushed in played.pushed}
        self._runs = iter(played.runs)
        self._clock = iter(played.clock)
        self._holds = iter(played.holds)

    def facts(self) -> Mapping[str, str]:
        """What the device said."""
        return self._next(self._facts)

    def push(self, path: Path) -> str:
        """Where the file lay; InputError where it is not the one that was pushed then."""
        pushed = self._pushed.get(records.sha256(path))
        if pushed is None:
            names = ", ".join(pushed.name for pushed in self._pushed.values())
            raise InputError(
                f"{self._file} was recorded with other files than this {path.name}",
                f"name the artifacts that were recorded: {names}",
            )
        return pushed.remote

    def run(self, argv: Sequence[str]) -> Ended:
        """What was said, whatever is asked."""
        return Ended(self._next(self._runs))

    def pull(self, remote: str, path: Path) -> None:
        """InputError: a recording holds no files."""
        raise InputError(f"{self._file} holds no files, so {remote} is not in it")

    def clock(self) -> float:
        """The device's seconds."""
        return self._next(self._clock)

    def hold_clocks(self, on: bool) -> bool:
        """What the device said."""
        return self._next(self._holds)

    def _next(self, answers: Iterable[T]) -> T:
        for answer in answers:
            return answer
        raise InputError(
            f"recording {self._file} ends too early", "record it again with this mobiledeploy"
        )


class Ended:
    """A process that ended when it was recorded."""

    def __init__(self, ran: recording.Ran) -> None:
        self._ran = ran

    def lines(self) -> Iterator[str]:
        """What it said."""
        yield from self._ran.lines

    def send(self, line: str) -> None:
        """It has heard it."""

    def stop(self) -> None:
        """It has ended."""

    def wait(self) -> tuple[int, str]:
        """How it ended."""
        return self._ran.status or 0, self._ran.stderr

    def kill(self) -> None:
        """It has ended."""
