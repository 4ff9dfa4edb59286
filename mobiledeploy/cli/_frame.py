"""Common parts of the commands: options, the terminal as a Reporter, tables and JSON."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mobiledeploy.cli import _settings
from mobiledeploy.core import units

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from mobiledeploy.core.display import Record, Table
    from mobiledeploy.core.types import Failed, NamedWarning

_LINE_EVERY_S = 25.0
"""Many CI services end a job that prints nothing for some time."""

_MOST_FILES = 6
"""A warning names so many files; of more it names one, and their number."""

_USUAL_COLUMNS = 80

_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}

F = TypeVar("F", bound=Callable[..., Any])


class _Step:
    """A step that is not finished: `first` parts were done at its start."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.start = time.monotonic()
        self.done = self.total = 0

    def line(self, what: str) -> str:
        """How far it is, how fast it goes, and how long it will take at that pace."""
        if self.total <= 1:
            return what
        line = f"{what}, {self.done} of {self.total}"
        speed = (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)
        if speed <= 0:
            return line
        left = units.time_left((self.total - self.done) / speed)
        return f"{line}, {_per_second(speed)}, {left}"


def _per_second(speed: float) -> str:
    return f"{units.three_digits(speed)} per second"


class Terminal:
    """A Reporter that writes to standard error, with progress bars on a terminal.

    Elsewhere, such as in the log of a CI job, a line every `_LINE_EVERY_S` says what goes on. It is
    a context manager; its end removes the bars from the screen.
    """

    def __init__(self, quiet: bool = False, verbose: int = 0) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._unfinished: dict[str, _Step] = {}
        self._end = threading.Event()
        self._clock: threading.Thread | None = None
        self._printed_warnings: set[NamedWarning] = set()
        # The paths that a warning concerns, in their order; None when the work is over.
        self._paths: dict[NamedWarning, dict[str, None]] | None = None

    def __enter__(self) -> Terminal:
        self._paths = {}
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                ProgressColumn,
                Task,
                TextColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bars
            from rich.table import Column
            from rich.text import Text

            class Speed(ProgressColumn):
                """Parts per second, as soon as they are known."""

                def render(self, task: Task) -> Text:
                    return Text(f"{units.three_digits(task.speed)}/s" if task.speed else "")

            console = Console(stderr=True)
            half = Column(no_wrap=True, overflow="ellipsis", max_width=console.width // 2)
            self._bars = Bars(
                TextColumn("{task.description}", markup=False, table_column=half),
                # The bar gets narrower on a narrow terminal, and counts stay whole.
                BarColumn(table_column=Column(no_wrap=False)),
                MofNCompleteColumn(),
                Speed(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._bars.start()
        elif not self.quiet:
            self._clock = threading.Thread(target=self._tell, daemon=True)
            self._clock.start()
        return self

    def _tell(self) -> None:
        """Prints the progress of the latest step from time to time, until the end."""
        start = time.monotonic()
        while not self._end.wait(_LINE_EVERY_S):
            seconds = time.monotonic() - start
            # A copy, because the steps change in the meantime.
            steps = list(self._unfinished.copy().items())
            line = steps[-1][1].line(steps[-1][0]) if steps else "working"
            self.say(f"{line}, after {seconds:.0f} s")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
        if self._clock:
            self._end.set()
            self._clock.join()
            self._clock = None
        shared, self._paths = self._paths or {}, None
        for warning, paths in shared.items():
            self._line(f"warning: {warning.text_for(_named_files(paths))}")

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of `what`; a bar on a terminal, elsewhere a line now and then."""
        if self._bars is None:
            # The step of the latest news stands last.
            step = self._unfinished.pop(what, None) or _Step(done)
            step.done, step.total = done, total
            if done < total:
                self._unfinished[what] = step
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        task = self._tasks[what]
        self._bars.update(task, completed=done, total=total, visible=done < total)

    def warn(self, warning: NamedWarning) -> None:
        """Prints a warning once, also with --quiet, because the result needs it.

        One about a file waits until the work is over: it is told once for all files that have it.
        """
        # Not at the top: help needs no dataclasses.
        from dataclasses import replace

        if warning.file and self._paths is not None:
            self._paths.setdefault(replace(warning, file=""), {})[warning.file] = None
        elif warning not in self._printed_warnings:
            self._printed_warnings.add(warning)
            self._line(f"warning: {warning.text}")

    def say(self, line: str) -> None:
        """Prints a line, unless --quiet."""
        if not self.quiet:
            self._line(line)

    def _line(self, line: str) -> None:
        line = _for_errors(line)
        if self._bars:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=True)


def _for_errors(text: str) -> str:
    """Words for standard error: on a terminal lines break between them, elsewhere there is one."""
    line = units.one_line(text)
    if not sys.stderr.isatty():
        return line
    # Not at the top: most runs print no more than a table.
    from mobiledeploy.cli import _tables

    # Some terminals, such as those of containers, do not know their size.
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    return _tables.wrapped(line, columns)


def error(text: str) -> None:
    """Prints a refusal on standard error."""
    click.echo(_for_errors(f"error: {text}"), err=True)


def _named_files(paths: Iterable[str]) -> str:
    """Files in words: their common folder once, and of many one name and how many they are."""
    names = list(paths)
    folders = {str(Path(name).parent) for name in names}
    folder = folders.pop() if len(folders) == 1 and len(names) > 1 else "."
    if folder != ".":
        names = [Path(name).name for name in names]
    where = "" if folder == "." else f" in {folder}"
    if len(names) > _MOST_FILES:
        return f"{len(names)} files{where}, such as {names[0]}"
    return f"{', '.join(names)}{where}"


def common(function: F) -> F:
    """The options of every command: --json, -q and -v."""
    for option in (
        _settings.option("-v", "--verbose", count=True, help="Print more; -vv shows tracebacks."),
        _settings.option("-q", "--quiet", is_flag=True, help="Print only warnings and the result."),
        _settings.option("--json", is_flag=True, help="One JSON object on standard output."),
    ):
        function = option(function)
    return function


def task_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--task`."""
    return _settings.option(
        "--task",
        metavar="NAME",
        help="What the model answers: classification, detection, ...; default: what its record or "
        "its outputs say.",
    )(command)


def strict_option(function: F) -> F:
    """The option `--strict`."""
    return _settings.option(
        "--strict",
        is_flag=True,
        help="End with exit code 4 if the delegate leaves an operator to the CPU.",
    )(function)


def device_options(function: F) -> F:
    """Where the files run for a prediction."""
    for option in (
        _settings.output(
            "--record",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Record the session in FILE, for --device replay:FILE.",
        ),
        strict_option,
        _settings.option(
            "--delegate",
            help="xnnpack, none, or gpu with the native runner; default: the first of the runtime.",
        ),
        _settings.machine(
            "--device",
            default="host",
            show_default=True,
            help="Where the files run: host, a phone (adb, adb:SERIAL, pixel), a board "
            "(ssh:[USER@]HOST[:PORT]), emulator:CORE, or replay:FILE. Images are prepared here.",
        ),
    ):
        function = option(function)
    return function


def limit_option(function: F) -> F:
    """The option `--limit`."""
    return _settings.option(
        "--limit",
        type=click.IntRange(min=1),
        help="Number of images to take at most, drawn from all classes, the same ones each time.",
    )(function)


def preprocessing_options(function: F) -> F:
    """How images become input; the default comes from the model card or the artifact."""
    for option in (
        _settings.option(
            "--labels",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File of class names in the model's order, one per line.",
        ),
        _settings.option(
            "--crop",
            type=click.FloatRange(0, 1, min_open=True),
            help="Central fraction of each side to keep.",
        ),
        _settings.option(
            "--resize", type=click.Choice(["bilinear", "bicubic"]), help="Interpolation."
        ),
        _settings.option("--channels", type=click.Choice(["rgb", "bgr"]), help="Channel order."),
        _settings.option("--std", type=Numbers(3), help="Per channel, after --input-range."),
        _settings.option("--mean", type=Numbers(3), help="Per channel, after --input-range."),
        _settings.option(
            "--input-range",
            type=Numbers(2),
            metavar="LOW,HIGH",
            help="Values for pixels 0 and 255: 0,1 or -1,1 or 0,255.",
        ),
    ):
        function = option(function)
    return function


class Names(_settings.CommaList[tuple[str, ...]]):
    """Comma-separated names."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """'tflite,onnx' -> ('tflite', 'onnx')."""
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names):
            self.fail(f"{value!r} is not comma-separated names", param, ctx)
        return names


class Numbers(_settings.CommaList[tuple[float, ...]]):
    """A fixed count of comma-separated numbers."""

    name = "numbers"

    def __init__(self, count: int) -> None:
        self.count = count

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """X,X,X."""
        return ",".join("X" * self.count)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """'-1,1' -> (-1.0, 1.0)."""
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != self.count or any(not math.isfinite(n) for n in numbers):
            self.fail(f"{value!r} is not {self.count} comma-separated numbers", param, ctx)
        return numbers


class Amount(click.ParamType[int]):
    """A number with a unit: 150M, 1.5G, 500k; 2MB."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """'1.5M' -> 1500000; a B for bytes may follow."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", str(value).strip().lower())
        amount = float(match[1]) * _THOUSANDS[match[2]] if match else 0.0
        if not 0 < amount < math.inf:
            self.fail(f"{value!r} is not an amount such as 150M or 2MB", param, ctx)
        return round(amount)


class Duration(click.ParamType[float]):
    """A time with a unit: 10ms, 800us, 1.5s."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """'10ms' -> 10.0 milliseconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|s)", str(value).strip().lower())
        milliseconds = float(match[1]) * _MILLISECONDS[match[2]] if match else 0.0
        if not 0 < milliseconds < math.inf:
            self.fail(f"{value!r} is not a time such as 10ms or 800us", param, ctx)
        return milliseconds


def emit_json(record: Any) -> None:
    """Prints the command's one JSON object on standard output."""
    from mobiledeploy.core import records

    click.echo(records.dumps(record))


def failures(failed: Sequence[Failed]) -> None:
    """Prints an error line for each, and exits with the gravest code; does nothing for none."""
    for one in failed:
        line = one.message if one.what in one.message else f"{one.what}: {one.message}"
        error(line)
    if failed:
        sys.stdout.flush()
        click.get_current_context().exit(max(one.exit_code for one in failed))


def show(record: Record) -> None:
    """Prints the tables of a record for people."""
    show_tables(record.tables())


def show_tables(tables: Sequence[Table]) -> None:
    """Prints tables, with an empty line between them."""
    for number, table_ in enumerate(tables):
        if number:
            click.echo()
        table(table_.headers, table_.rows, table_.title, table_.optional, table_.names)


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    optional: Sequence[str] = (),
    names: Sequence[str] = (),
) -> None:
    """Prints the command's result for people; `optional` and `names` are as for `_tables.show`."""
    # Not at the top: help prints no table.
    from mobiledeploy.cli import _tables

    _tables.show(headers, rows, title, optional, names)


def sentence(text: str) -> None:
    """Prints words for people on standard output; on a terminal lines break between them."""
    # Not at the top: help prints none.
    from mobiledeploy.cli import _tables

    _tables.sentence(text)
