"""Common parts of the commands: options, the terminal as a Reporter, tables and JSON."""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mobiledeploy.cli import _settings
from mobiledeploy.core import units

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from mobiledeploy.core.display import Record
    from mobiledeploy.core.types import Failed, NamedWarning

_LINE_EVERY_S = 25.0
"""Many CI services end a job that prints nothing for some time."""

_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}

F = TypeVar("F", bound=Callable[..., Any])


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
        self._unfinished: dict[str, tuple[int, int]] = {}
        self._end = threading.Event()
        self._clock: threading.Thread | None = None
        self._printed_warnings: set[NamedWarning] = set()

    def __enter__(self) -> Terminal:
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
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
            what, (done, total) = steps[-1] if steps else ("working", (0, 0))
            count = f", {done} of {total}" if total > 1 else ""
            self.say(f"{what}{count}, after {seconds:.0f} s")

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

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` of `what`; a bar on a terminal, elsewhere a line now and then."""
        if self._bars is None:
            # The step of the latest news stands last.
            self._unfinished.pop(what, None)
            if done < total:
                self._unfinished[what] = (done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        task = self._tasks[what]
        self._bars.update(task, completed=done, total=total, visible=done < total)

    def warn(self, warning: NamedWarning) -> None:
        """Prints a warning once, also with --quiet, because the result needs it."""
        if warning not in self._printed_warnings:
            self._printed_warnings.add(warning)
            self._line(f"warning: {warning.text}")

    def say(self, line: str) -> None:
        """Prints a line, unless --quiet."""
        if not self.quiet:
            self._line(line)

    def _line(self, line: str) -> None:
        line = units.one_line(line)
        if self._bars:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=True)


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
        click.echo(f"error: {units.one_line(line)}", err=True)
    if failed:
        sys.stdout.flush()
        click.get_current_context().exit(max(one.exit_code for one in failed))


def show(record: Record) -> None:
    """Prints the tables of a record for people, with an empty line between them."""
    for number, table_ in enumerate(record.tables()):
        if number:
            click.echo()
        table(table_.headers, table_.rows, table_.title)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Prints the command's result for people, with a frame on a terminal that is wide enough.

    The first column is text, the others are aligned right.
    """
    import shutil

    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    if sys.stdout.isatty() and sum(widths) + 3 * len(widths) < shutil.get_terminal_size().columns:
        from rich.console import Console
        from rich.table import Table

        frame = Table(title=title or None, title_justify="left")
        for index, header in enumerate(headers):
            frame.add_column(header, justify="right" if index else "left", overflow="fold")
        for row in rows:
            frame.add_row(*row)
        Console(markup=False, emoji=False).print(frame)
        return
    if title:
        click.echo(title)
    for row in (headers, *rows):
        first, *others = (
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join([first, *others]).rstrip())
