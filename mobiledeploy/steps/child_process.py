"""A separate process for TensorFlow: the side of the parent, and that of the child.

The parent stays light, answers Ctrl-C at once, and gets TensorFlow's memory back when the child
ends. Request and events are records, one per line, on the child's standard streams. A child is
`python -m mobiledeploy.steps.<name>`, whose `__main__` calls `serve`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from mobiledeploy.core import errors, records
from mobiledeploy.core.assets import cache_dir
from mobiledeploy.core.deaths import death, out_of_memory
from mobiledeploy.core.errors import DeployError
from mobiledeploy.core.ports import Reporter
from mobiledeploy.core.types import Failure, NamedWarning, Source

R = TypeVar("R")


@dataclass(frozen=True)
class Progress:
    """The progress of a step of a child process."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class ChildLine:
    """A line of a child process for the user."""

    line: str


_COMMON: tuple[type, ...] = (Progress, NamedWarning, ChildLine, Failure)
# -P: a numpy.py in the current folder must not replace numpy.
INTERPRETER: tuple[str, ...] = (sys.executable, "-P")


def events(
    name: str,
    request: Any,
    kinds: tuple[type, ...],
    *,
    what: str,
    log: Path,
    temporary: Path,
    reporter: Reporter,
    files: Sequence[str] = (),
) -> Generator[Any, None, None]:
    """Runs the child `name` on `request` and yields its events of the types `kinds`.

    Progress, warnings and lines go to `reporter`; an error of the child is raised here. The caller
    stops at the last event that it needs. The child is killed when the iterator is closed.

    Args:
        name: the file of `steps/` that calls `serve`.
        request: the record that the child works on.
        kinds: the types of its events.
        what: a noun for the work, "the conversion".
        log: the file for everything that libraries print.
        temporary: the folder for temporary files of libraries; it is made.
        reporter: is told of progress and warnings.
        files: the names of the files that it reads, one after the other, with one event for each;
            the last one also stands for all later events.

    Raises:
        DeployError: the error of the child; or one of `core.deaths` if the child dies.
    """
    argv = [*INTERPRETER, "-m", f"mobiledeploy.steps.{name}"]
    temporary.mkdir(parents=True, exist_ok=True)
    # A loop over a set has the same order each time: the same model gives the same bytes.
    environment = os.environ | {"PYTHONHASHSEED": "0", "TMPDIR": str(temporary)} | _homes(temporary)
    types = {kind.__name__: kind for kind in (*_COMMON, *kinds)}
    event_count = 0
    # A session of its own, so that the terminal's Ctrl-C reaches the parent alone.
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
            env=environment,
        ) as child,
    ):
        assert child.stdin and child.stdout
        try:
            # A child that died at once sends no event, which is handled below.
            with suppress(BrokenPipeError):
                child.stdin.write(records.line(request) + "\n")
                child.stdin.flush()
            for text in child.stdout:
                event = _event(text, types, what)
                if isinstance(event, Progress):
                    reporter.progress(event.what, event.done, event.total)
                elif isinstance(event, NamedWarning):
                    reporter.warn(event)
                elif isinstance(event, ChildLine):
                    reporter.say(event.line)
                elif isinstance(event, Failure):
                    raise errors.of_code(event.exit_code, event.message, event.hint)
                else:
                    event_count += 1
                    yield event
            child.wait()
        finally:
            child.kill()
            # The buffer may still hold what the child did not read.
            with suppress(BrokenPipeError):
                child.stdin.close()
    file = files[min(event_count, len(files) - 1)] if files else ""
    raise death(what, child.returncode, log.read_text("utf-8", "replace"), file)


def _homes(temporary: Path) -> dict[str, str]:
    """Folders for the files of libraries, so that they leave nothing in the user's home.

    Keras would also read its settings there, which change the meaning of layers.
    """
    # Keras imports matplotlib if it is installed, which needs a second to look for fonts.
    return {"KERAS_HOME": str(temporary), "MPLCONFIGDIR": str(cache_dir() / "matplotlib")}


def read_by(source: Source) -> tuple[str, ...]:
    """The name of the user's file that is read to open `source`, if there is one."""
    path = source.file.path if source.file else source.weights
    return (Path(path).name,) if path else ()


def _event(text: str, types: dict[str, type], what: str) -> Any:
    for name, kind in types.items():
        if f'"record":"{name}"' in text:
            return records.loads(kind, text, f"{what}'s answer")
    raise DeployError(f"{what} process said {text.strip()[:80]!r}")


def _failure(error: DeployError) -> Failure:
    return Failure(error.exit_code, error.message, error.hint)


class Speaker:
    """The child's Reporter: it sends everything to the parent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def event(self, record: Any) -> None:
        """Sends a record that the parent expects."""
        self._stream.write(records.line(record) + "\n")
        self._stream.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of a step named `what`."""
        self.event(Progress(what, done, total))

    def warn(self, warning: NamedWarning) -> None:
        """A warning."""
        self.event(warning)

    def say(self, line: str) -> None:
        """A line about what is going on."""
        self.event(ChildLine(line))


def serve(kind: type[R], work: Callable[[R, Speaker], None], *, what: str) -> None:
    """The child's main: reads one request of `kind`, writes events, and ends the process."""
    # Libraries print on standard output too, but only events may go to the parent.
    speak = Speaker(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    try:
        request = records.loads(kind, sys.stdin.readline(), "the request")
        threading.Thread(target=_die_with_parent, daemon=True).start()
        work(request, speak)
    except DeployError as error:
        speak.event(_failure(error))
    except MemoryError:
        speak.event(_failure(out_of_memory(what)))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        speak.event(Failure(2, f"{what} cannot read or write a file: {reason}{where}", ""))
    os._exit(0)  # TensorFlow's own teardown takes a second and is of no use.


def _die_with_parent() -> None:
    """Ends this process when its standard input closes, because then the parent is gone."""
    sys.stdin.read()
    os._exit(1)
