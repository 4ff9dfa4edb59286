"""A process of its own for TensorFlow: the parent's side, and the child's.

The parent stays light, answers Ctrl-C at once, and has TensorFlow's memory back when the child
ends. Request and events are records, one a line, on the child's standard streams. A child is
`python -m mobiledeploy.verbs.<name>` whose `__main__` calls `serve`.
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
    """How far a step of a child process has come."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class ChildLine:
    """A line that a child process says to whoever watches."""

    line: str


_COMMON: tuple[type, ...] = (Progress, NamedWarning, ChildLine, Failure)
# -P: a numpy.py that lies in the current folder is not our numpy.
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
    """Runs the child `name` on `request`; yields its own events, which are of `kinds`.

    Progress, warnings and lines go to `reporter`; a failure is raised as it was raised there. The
    caller stops at the event that ends its work. The child is killed when the iterator is closed.

    Args:
        name: the file of `steps/` that calls `serve`.
        request: the record that the child works on.
        kinds: the types of its events.
        what: a noun for it, "the conversion".
        log: takes what libraries print.
        temporary: takes what libraries leave in their temporary folder; is made.
        reporter: is told of progress and warnings.
        files: names of the files that it reads, one after the other, an event of its own for each;
            the last of them for all events that follow.

    Raises:
        DeployError: as it was raised there; or of `core.deaths`, where the child ends before.
    """
    argv = [*INTERPRETER, "-m", f"mobiledeploy.steps.{name}"]
    temporary.mkdir(parents=True, exist_ok=True)
    # What walks a set does so in the same order each time: the same model, the same bytes.
    environment = os.environ | {"PYTHONHASHSEED": "0", "TMPDIR": str(temporary)} | _homes(temporary)
    known = {kind.__name__: kind for kind in (*_COMMON, *kinds)}
    done = 0
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
            # A child that died at once is found out by its silence.
            with suppress(BrokenPipeError):
                child.stdin.write(records.line(request) + "\n")
                child.stdin.flush()
            for text in child.stdout:
                event = _event(text, known, what)
                if isinstance(event, Progress):
                    reporter.progress(event.what, event.done, event.total)
                elif isinstance(event, NamedWarning):
                    reporter.warn(event)
                elif isinstance(event, ChildLine):
                    reporter.say(event.line)
                elif isinstance(event, Failure):
                    raise errors.of_code(event.exit_code, event.message, event.hint)
                else:
                    done += 1
                    yield event
            child.wait()
        finally:
            child.kill()
            # What it did not take is still in the buffer, and is not taken now.
            with suppress(BrokenPipeError):
                child.stdin.close()
    file = files[min(done, len(files) - 1)] if files else ""
    raise death(what, child.returncode, log.read_text("utf-8", "replace"), file)


def _homes(temporary: Path) -> dict[str, str]:
    """Where libraries put what they keep, so that nothing of theirs is left in the user's home.

    Keras would read its settings there, too, which say what a model's layers mean.
    """
    # Whether it is there or not: matplotlib, which Keras imports, looks for fonts a second long.
    return {"KERAS_HOME": str(temporary), "MPLCONFIGDIR": str(cache_dir() / "matplotlib")}


def read_by(source: Source) -> tuple[str, ...]:
    """The name of the file of the user's that opening `source` reads, if there is one."""
    path = source.file.path if source.file else source.weights
    return (Path(path).name,) if path else ()


def _event(text: str, known: dict[str, type], what: str) -> Any:
    for name, kind in known.items():
        if f'"record":"{name}"' in text:
            return records.loads(kind, text, f"{what}'s answer")
    raise DeployError(f"{what} process said {text.strip()[:80]!r}")


def _failure(error: DeployError) -> Failure:
    return Failure(error.exit_code, error.message, error.hint)


class Speaker:
    """The child's Reporter: tells the parent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def event(self, record: Any) -> None:
        """Any record that the parent knows to expect."""
        self._stream.write(records.line(record) + "\n")
        self._stream.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of a step named `what`."""
        self.event(Progress(what, done, total))

    def warn(self, warning: NamedWarning) -> None:
        """A warning."""
        self.event(warning)

    def say(self, line: str) -> None:
        """What is going on."""
        self.event(ChildLine(line))


def serve(kind: type[R], work: Callable[[R, Speaker], None], *, what: str) -> None:
    """The child's main: one request of `kind` in, events out, and the process ends."""
    # Libraries print on standard output too; only events may go to the parent.
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
    os._exit(0)  # TensorFlow's own teardown takes a second and gains nothing.


def _die_with_parent() -> None:
    """Ends this process when its standard input closes, which is when the parent is gone."""
    sys.stdin.read()
    os._exit(1)
